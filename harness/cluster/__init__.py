"""Ray: every file that says so."""
