"""Placement by storage prices and local search."""
