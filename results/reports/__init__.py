"""Reports: text, LaTeX and HTML."""
