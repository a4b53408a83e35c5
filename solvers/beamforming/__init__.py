"""Beams for one message alone on the air, and upper bounds on its rate."""
