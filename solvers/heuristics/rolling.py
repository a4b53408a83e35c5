"""Rolling: pull for this slot, keep for the next one.

Misses come by the best chain level of the slot. Every node then keeps the copies that save most
expected delay per byte in the next slot, under the forecast conditional on the requests so far and
the channels of this slot (`expected.coming_tables`). The nodes decide in turn, for some rounds: in
the first, a node knows what those before it keep and counts on nobody else; later, what all others
keep. All at once, each expects the others to keep what they hold.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, IntArray
from finecast.solvers.heuristics.expected import coming_tables
from finecast.solvers.heuristics.greedy_online import greedy_by_popularity
from finecast.solvers.heuristics.rules import keep_by_cost, pull
from finecast.solvers.node_set_tables import node_sets
from finecast.solvers.online import Observation, Prior

MOST_ROUNDS = 1000
"""How often every node may decide in a slot."""


@dataclass(frozen=True)
class Rolling:
    """Keep what saves most expected delay in the next slot.

    Attributes
    ----------
    rounds
        How often every node decides, at least 1.
    simultaneous
        The nodes decide all at once; otherwise one after another.
    """

    rounds: int = 3
    simultaneous: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= MOST_ROUNDS:
            raise ValueError(
                f"rounds: {self.rounds} is not allowed, must be >= 1 and <= {MOST_ROUNDS}"
            )

    def place(self, prior: Prior) -> BoolArray:
        """Place greedily for the expected delay of slot 0."""
        return greedy_by_popularity(prior, 1)

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Pull for this slot, keep for the next."""
        problem = observation.problem
        source = pull(problem, cache)
        coming = coming_tables(observation, 1).cost
        if not len(coming):  # the last slot: nothing comes after it
            return source, cache
        held = cache | (source >= 0)
        sets = node_sets(held)
        keep = keep_by_cost(
            coming[0],
            held,
            problem.block_size,
            problem.storage,
            sets if self.simultaneous else np.zeros_like(sets),
            rounds=self.rounds,
            in_turn=not self.simultaneous,
        )
        return source, keep
