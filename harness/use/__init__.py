"""Trained models are used again."""
