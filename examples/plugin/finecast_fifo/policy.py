"""First in, first out: of the blocks that it holds, a node keeps those that arrived last."""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import BoolArray, IntArray
from finecast.solvers.heuristics.popularity import most_popular
from finecast.solvers.heuristics.rules import pull
from finecast.solvers.online import Observation, Prior
from finecast.solvers.placement.fill import keep_by_score


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
