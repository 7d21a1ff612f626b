"""Commands show their work."""
