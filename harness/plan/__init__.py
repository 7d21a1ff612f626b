"""Requests become checked cells."""
