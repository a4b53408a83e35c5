"""Certified lower bounds on the delay of an instance with the rates of its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from problem.instance import Instance
from problem.sinr import rate
from solvers.on_demand import whole_set
from solvers.placement.lagrangian import solve_lagrangian

if TYPE_CHECKING:
    from solvers.joint import Prepared

ROUNDING = 1e-12
"""Certified bounds on delays are lowered by this share: sums of at most 1e5 positive terms, each
with a few roundings of 1.1e-16, err by less."""

BOUND_TIME_S = 5.0
"""Time after which the bound is taken as it is."""


def price_bound(prepared: Prepared, time_limit: float = BOUND_TIME_S) -> float:
    """Return the best certified bound that some seconds of raising storage prices give.

    Parameters
    ----------
    prepared
        Instance and rates.
    time_limit
        Seconds.
    """
    bound = everywhere_bound(prepared)
    # Prices speak of one broadcast per block, which spatial delivery can beat.
    if prepared.bounded is None or prepared.instance.delivery == "spatial":
        return bound
    # The bound takes half the time of the search; a search without patience ends after it.
    raised = solve_lagrangian(prepared.bounded, time_limit=2 * time_limit, patience=0)
    return max(bound, raised.lower_bound)


def everywhere_bound(prepared: Prepared) -> float:
    """Return the certified lower bound that all nodes hold everything.

    Sequential delivery: every needed block is sent once to all its users, at no more than the
    rate of its messages with all nodes: D >= sum_t sum_j s_j table_up[t](group_j, all).
    Spatial delivery: a user's bits over its best rate alone with all nodes (without the cap of
    the modulation table, which holds per message and not for several at once); the slot is not
    over before its slowest user is done.

    Parameters
    ----------
    prepared
        Instance and rates.
    """
    instance = prepared.instance
    if instance.delivery == "spatial":
        return float(
            sum(_slowest_user(instance, t, prepared.robust) for t in range(instance.slots))
        )
    total = 0.0
    for plan, slot in zip(prepared.plans, prepared.rates, strict=True):
        needed = np.flatnonzero(plan.group >= 0)
        seconds = whole_set(plan.seconds_per_byte(slot.bound), instance.nodes)
        total += float((instance.library.block_size[needed] * seconds[plan.group[needed]]).sum())
    return total * (1.0 - ROUNDING)


def _slowest_user(instance: Instance, slot: int, robust: bool) -> float:
    """Return s: the largest time any user needs with all nodes to itself, rounded down."""
    strength = np.linalg.norm(instance.normalised_channel[slot], axis=2)
    error = instance.normalised_error[slot] if robust else 0.0
    margin = np.maximum(strength - error, 0.0)
    snr = (margin @ np.sqrt(instance.network.power)) ** 2
    bits = 8.0 * (instance.wanted[slot] @ instance.library.block_size)
    with np.errstate(divide="ignore"):
        alone = bits[bits > 0] / rate(snr[bits > 0], instance.network.bandwidth, np.inf)
    return float(alone.max(initial=0.0)) * (1.0 - ROUNDING)
