"""Synthetic episodes: what predicts them, and how far they are off."""
