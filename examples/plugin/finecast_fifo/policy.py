"""First in, first out: of the blocks that it holds, a node keeps those that arrived last."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from finecast.problem.arrays import BoolArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution
from finecast.solvers.heuristics.popularity import most_popular
from finecast.solvers.heuristics.rules import pull
from finecast.solvers.online import Observation, Prior, solve_by_policy
from finecast.solvers.placement.fill import keep_by_score
from finecast.solvers.result import Answer, Callback


class FirstInFirstOut:
    """An online policy, which sees the past and the forecast and cannot see more."""

    def place(self, prior: Prior) -> BoolArray:
        """Return x[0], (N, J): the most popular blocks."""
        cache = most_popular(prior)
        self.arrived = np.zeros(cache.shape)  # (N, J) slot of the last arrival
        return cache

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Return source and keep, (N, J): pull what makes this slot fastest, keep the newest."""
        source = pull(observation.problem, cache)
        received = source >= 0
        self.arrived[received] = observation.t + 1
        problem = observation.problem
        keep = keep_by_score(self.arrived, cache | received, problem.block_size, problem.storage)
        return source, keep


def solve_fifo(
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
    """Evict what arrived first.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `finecast.solvers.solve.solve`; there is nothing to stop early or to start from.
    beamforming, restrict, rate_cache
        As in `finecast.solvers.joint.prepare`.
    """
    return solve_by_policy(
        FirstInFirstOut(),
        "fifo",
        instance,
        seed=seed,
        callback=callback,
        beamforming=beamforming,
        restrict=restrict,
        rate_cache=rate_cache,
    )
