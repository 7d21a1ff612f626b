"""One file a command; files that begin with an underscore are shared by them."""
