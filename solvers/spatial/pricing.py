"""Pricing of modes: beams of several messages on the air at once, many starts in one batch.

The price of a mode is sum_i pi_i min(cap, min_{k in U_i} R_ik), the rates being those of
`finecast.solvers.spatial.multigroup`. A few WMMSE steps (`group_wmmse`) sort out which messages
share the air; projected Adam (`group_ascent`) finishes. The search is in complex64; its beams are
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
        (S, G, N, A) beams to start from besides, square root of watt; silent messages come back.
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
    found = beam.to(torch.complex128).numpy() * np.sqrt(problem.power)[:, None]
    found = within_power(found, problem.power)
    rate = guaranteed_rates(problem, found)
    quiet = rate < AUDIBLE * rate.max(axis=1, keepdims=True)
    found[quiet] = 0.0
    return found, guaranteed_rates(problem, found)
