"""Placement by mixed-integer programmes, to a proof."""
