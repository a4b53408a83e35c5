"""Every tolerance of the judge, by name. Storage is exact: integer bytes."""

POWER_RELATIVE = 1e-9
"""A node's transmit power may exceed its limit by this share (rounding of a scaling step)."""

RATE_RELATIVE = 1e-9
"""A planned rate may exceed the guaranteed one, or a message's bits fall short, by this share."""

JUDGE_TOLERANCES = 2 * RATE_RELATIVE + 2 * POWER_RELATIVE
"""An accepted plan can be faster than any exact one by this share: rates, bits and powers may each
be off by their tolerance. The rest is for rounding."""

LOWEST_SNR = 0.1
"""SNR of the lowest modulation-and-coding rate, W log2(1 + 0.1), at which a repeat is charged."""

PROBABILITY = 1e-9
"""Probabilities that must sum to 1 may miss it by this much."""
