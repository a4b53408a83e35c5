"""Certified lower bounds on the delay of an instance with the rates of its messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from finecast.solvers.deadline import Deadline
from finecast.solvers.node_set_tables import whole_set
from finecast.solvers.placement.search.lagrangian import dual_bound
from finecast.solvers.spatial.bounds import slot_bounds

if TYPE_CHECKING:
    from finecast.solvers.joint import Prepared

ROUNDING = 1e-12
"""Certified bounds on delays are lowered by this share: sums of at most 1e5 positive terms, each
with a few roundings of 1.1e-16, err by less."""

BOUND_TIME_S = 5.0
"""Time after which the bound is taken as it is, s."""


def price_bound(prepared: Prepared, deadline: Deadline | None = None) -> float:
    """Return the best certified bound that raising storage prices gives in time.

    Parameters
    ----------
    prepared
        Instance and rates.
    deadline
        When to take the bound as it is; None for `BOUND_TIME_S` from now.
    """
    bound = everywhere_bound(prepared)
    # Prices speak of one broadcast per block, which spatial delivery can beat.
    if prepared.bounded is None or prepared.instance.delivery == "spatial":
        return bound
    return max(bound, dual_bound(prepared.bounded, deadline or Deadline.after(BOUND_TIME_S)))


def everywhere_bound(prepared: Prepared, time_limit: float | None = None) -> float:
    """Return the certified lower bound that all nodes hold everything.

    Sequential delivery: every needed block is sent once to all its users, at no more than the
    rate of its messages with all nodes: D >= sum_t sum_j s_j table_up[t](group_j, all).
    Spatial delivery: the sum of the least times on the air of the slots, from below
    (`finecast.solvers.spatial.bounds`).

    Parameters
    ----------
    prepared
        Instance and rates.
    time_limit
        Seconds for the search under spatial delivery; whatever it finds is certified.
    """
    instance = prepared.instance
    if instance.delivery == "spatial":
        deadline = Deadline.after(time_limit)
        bounds = slot_bounds(instance, prepared.plans, robust=prepared.robust, deadline=deadline)
        return float(bounds.sum()) * (1.0 - ROUNDING)
    total = 0.0
    for plan, slot in zip(prepared.plans, prepared.rates, strict=True):
        needed = np.flatnonzero(plan.group >= 0)
        seconds = whole_set(plan.seconds_per_byte(slot.bound), instance.nodes)
        total += float((instance.library.block_size[needed] * seconds[plan.group[needed]]).sum())
    return total * (1.0 - ROUNDING)
