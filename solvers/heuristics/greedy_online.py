"""Greedy with statistics: a static placement by expected delay saved per byte.

The greedy of `finecast.solvers.placement.greedy` on expected tables: what it knows of the requests
is their popularity over all slots, and of the channels nothing (`expected.prior_tables`).
"""

from __future__ import annotations

from collections.abc import Iterable

from finecast.problem.arrays import BoolArray
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution
from finecast.solvers.heuristics.expected import prior_tables
from finecast.solvers.heuristics.rules import Static
from finecast.solvers.node_set_tables import members
from finecast.solvers.online import Prior, solve_by_policy
from finecast.solvers.placement.greedy import greedy_sets
from finecast.solvers.result import Answer, Callback


def greedy_by_popularity(prior: Prior, slots: int | None = None) -> BoolArray:
    """Return the greedy caches (N, J) for the expected delay of the first slots.

    Parameters
    ----------
    prior
        What is known before slot 0.
    slots
        How many slots count; None for all.
    """
    cost = prior_tables(prior).cost[:slots].sum(axis=0)
    size, storage = prior.library.block_size, prior.network.storage
    return members(greedy_sets(cost, size, storage), prior.network.nodes).T


def solve_greedy_online(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Place once by expected delay saved per byte, and stay there.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `finecast.solvers.solve.solve`; there is nothing to stop early or to start from.
    beamforming, restrict, rate_cache
        As in `finecast.solvers.joint.prepare`.
    """
    return solve_by_policy(
        Static(greedy_by_popularity),
        "greedy-online",
        instance,
        seed=seed,
        callback=callback,
        beamforming=beamforming,
        restrict=restrict,
        rate_cache=rate_cache,
    )
