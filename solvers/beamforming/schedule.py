"""The schedule that the batched and the small search share."""

from __future__ import annotations

FIRST_TEMPERATURE = 0.1
"""Temperature of the first Newton step; u is scaled to at most 1."""

STAGES = ((10, 0.7, 1e-5), (6, 0.6, 1e-5), (16, 0.45, 1e-9))
"""Newton steps, factor on the temperature per step and its floor: screening twice the `starts`
candidates, carrying the better half, finishing the best in double precision. Measured on UMi and
equal-gain Rayleigh channels: a faster cut before the last stage loses good candidates."""

TINY = 1e-30
"""Below any meaningful amplitude, above the underflow of float32."""
