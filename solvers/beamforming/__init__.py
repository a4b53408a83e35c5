"""Beams for one message and for several, and upper bounds on their rates."""
