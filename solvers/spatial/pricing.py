"""Pricing of modes: beams of several messages on the air at once, many starts in one batch.

The price of a mode is sum_i pi_i min(cap, min_{k in U_i} R_ik), with the rates of
`finecast.solvers.spatial.multigroup`. A few WMMSE steps (`pricing_wmmse`) sort out which messages
share the air. Projected Adam (`pricing_ascent`) finishes. The search is in complex64. Its beams are
judged in complex128.
"""

from __future__ import annotations

import numpy as np
import torch

from finecast.problem.arrays import ComplexArray, FloatArray
from finecast.solvers.spatial.multigroup import (
    MultiGroup,
    ScaledModes,
    full_power,
    guaranteed_rates,
    within_power,
)
from finecast.solvers.spatial.pricing_ascent import ascend
from finecast.solvers.spatial.pricing_starts import (
    fresh_starts,
    regularised_zero_forcing,
    revived,
)
from finecast.solvers.spatial.pricing_wmmse import wmmse_steps

WMMSE_STEPS = 12
"""Steps of WMMSE from every start."""

AUDIBLE = 1e-3
"""A message slower than this share of the fastest is taken off the air of its mode."""


def price_modes(
    problem: MultiGroup,
    price: FloatArray,
    warm: ComplexArray | None = None,
    *,
    fresh: int = 6,
    steps: int = 50,
    wmmse: int = WMMSE_STEPS,
    generator: torch.Generator,
) -> tuple[ComplexArray, FloatArray]:
    """Search for modes of large price.

    Parameters
    ----------
    problem
        The messages.
    price
        (G,) pi, worth of a nat of each message, >= 0.
    warm
        (S, G, N, A) beams to start from besides, square root of watt. Some of their silent messages
        are put on the air again.
    fresh
        Number of random starts.
    steps
        Steps of Adam.
    wmmse
        Steps of WMMSE before.
    generator
        Source of the random phases.

    Returns
    -------
    beam
        (fresh + S, G, N, A) complex128, within the power limits, square root of watt.
    rate
        (fresh + S, G) nats, guaranteed.
    """
    scaled = ScaledModes.of(problem, price)
    zero_forcing = regularised_zero_forcing(scaled.channel, scaled.users, scaled.nodes)
    starts = [fresh_starts(scaled, zero_forcing, fresh, generator)]
    if warm is not None and len(warm):
        starts.append(revived(scaled, zero_forcing, warm, problem.power, generator))
    beam = torch.cat(starts)
    beam = wmmse_steps(scaled, full_power(beam), wmmse)
    beam = ascend(scaled, full_power(beam), steps)
    # In double precision from here on, so that power limits and rates hold.
    in_watt = beam.to(torch.complex128).numpy() * np.sqrt(problem.power)[:, None]
    in_watt = within_power(in_watt, problem.power)
    rate = guaranteed_rates(problem, in_watt)
    quiet = rate < AUDIBLE * rate.max(axis=1, keepdims=True)
    in_watt[quiet] = 0.0
    return in_watt, guaranteed_rates(problem, in_watt)
