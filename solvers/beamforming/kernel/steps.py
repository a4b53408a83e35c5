"""The schedule that the batched and the small search share."""

from __future__ import annotations

FIRST_TEMPERATURE = 0.1
"""Temperature of the first Newton step; u is scaled to at most 1."""

FIRST = (14, 0.6, 1e-5)
"""Newton steps, factor on the temperature per step and its floor of the first try: from equal
phases only. On UMi channels more than half of the problems end there, proven optimal."""

STAGES = ((10, 0.7, 1e-5), (6, 0.6, 1e-5), (16, 0.45, 1e-9))
"""The same for the full search: screening twice the `starts` candidates, carrying the better half,
finishing the best in double precision. Measured on UMi and equal-gain Rayleigh channels: a faster
cut before the last stage loses good candidates."""

SETTLE = (7, 0.15, 1e-9)
"""The same for Newton's method on weights and phases together, in double precision."""

COUPLING = 0.999
"""Share of the coupling between phases that Newton's method sees: below 1 because turning all
phases together changes nothing, which would make the system singular."""

TURN = 0.5
"""Radians by which a coupled step may turn a phase."""

CLOSED = 1e-6
"""Relative distance on u between beams and their bound at which a problem counts as solved."""

PHASED = 1e-7
"""Relative distance on u between beams and the dual value for their phases at which to stop."""

NEAR = 1e-3
"""How far from singular the relaxation's dual matrix is taken when drawing starts from it."""

SMALL = 3
"""Batches up to this size are solved one problem at a time when on the CPU."""

TINY = 1e-30
"""Below any meaningful amplitude, above the underflow of float32."""
