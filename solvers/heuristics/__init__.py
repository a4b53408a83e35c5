"""Placement by a rule, online or offline; no proof of its own."""
