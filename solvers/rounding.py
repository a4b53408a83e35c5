"""Allowances for rounding, with which bounds in float64 hold exactly."""

from __future__ import annotations

ROUNDOFF = 2.0**-53
"""One operation on float64 errs by at most this share of its result."""

EPSILON = 2.0**-52
"""Distance from 1 to the next float64."""

CLOSED_FORM_ALLOWANCE = 1e-12
"""Closed-form bounds on the SNR are raised by this share, for their few roundings."""

SUM_ALLOWANCE = 1e-12
"""Certified bounds on delays are lowered by this share: sums of at most 1e5 positive terms, each
with a few roundings, err by less."""
