"""Data sets and methods are checked."""
