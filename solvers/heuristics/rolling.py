"""Rolling: pull for this slot, keep for the next one.

Misses come by the best chain level of the slot. What is kept then costs little expected delay in
the next slot, under the forecast conditional on the requests so far and the channels of this slot
(`expected.coming_tables`). Three rules:

- **joint** (the default): one set of nodes for every block, all at once (`joint_keep`).
- **in-turn**: the nodes decide one after another, for some rounds, each by what a copy saves per
  byte. In the first round a node knows what those before it keep and counts on nobody else; later,
  what all others keep.
- **simultaneous**: all nodes at once, each for itself. A node expects the others to keep what they
  held when the slot began. It fills its storage by a knapsack, in which a copy that it held when
  the slot began gets a bonus: `INERTIA` times what a byte that it has saves on average. Without
  that, nodes that have received the same block all keep it, or all drop theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.heuristics.expected import coming_tables
from finecast.solvers.heuristics.greedy_online import greedy_by_popularity
from finecast.solvers.heuristics.joint_keep import keep_jointly
from finecast.solvers.heuristics.rules import KeepRule, check_keep_rule, keep_by_cost, pull
from finecast.solvers.node_set_tables import node_sets
from finecast.solvers.online import Observation, Prior

INERTIA = 1.0
"""Bonus of a copy that a node held when the slot began, where nodes decide at once, in units of
what a byte that the node has saves on average: 9.4 and 4.2 % over the bound on 4 draws of slow-60
and 3 of persist-60, against 25 % without; 0.3 and 3 are worse on both."""

MOST_ROUNDS = 1000
"""How often every node may decide in a slot."""


@dataclass(frozen=True)
class Rolling:
    """Keep what saves most expected delay in the next slot.

    Attributes
    ----------
    keep
        "joint": all blocks and nodes at once. "in-turn": one node after another.
    rounds
        How often every node decides, at least 1; in turn, and for the answer from which the joint
        rule starts.
    simultaneous
        The nodes decide all at once, each for itself. `keep` and `rounds` are not used.
    """

    keep: KeepRule = "joint"
    rounds: int = 3
    simultaneous: bool = False

    def __post_init__(self) -> None:
        check_keep_rule(self.keep)
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
        size, storage = problem.block_size, problem.storage
        if self.simultaneous:
            return source, keep_at_once(coming[0], cache, held, size, storage)
        nobody = np.zeros(len(size), dtype=np.int64)
        keep = keep_by_cost(coming[0], held, size, storage, nobody, rounds=self.rounds)
        if self.keep == "joint":
            keep = keep_jointly(coming[0], held, size, storage, start=keep).keep
        return source, keep


def keep_at_once(
    cost: FloatArray, cache: BoolArray, held: BoolArray, size: IntArray, storage: IntArray
) -> BoolArray:
    """Return (N, J) what the nodes keep if each decides for itself, at the same time.

    Parameters
    ----------
    cost
        (J, 2^N) seconds per byte under every kept set, never rising in the set.
    cache
        (N, J) cached when the slot began: what a node expects the others to keep.
    held
        (N, J) cached or received now.
    size, storage
        (J,) and (N,) byte.
    """
    cached = node_sets(cache)
    block = np.arange(len(size))
    keep = np.zeros_like(held)
    for n in range(len(storage)):
        others = cached & ~(1 << n)
        saved = cost[block, others] - cost[block, others | 1 << n]
        there = held[n] & (size > 0)
        average = float(size[there] @ saved[there]) / max(1.0, float(size[there].sum()))
        saved = saved + INERTIA * average * cache[n]
        alone = np.stack([np.zeros(len(size)), -saved], axis=1)
        keep[n] = keep_jointly(alone, held[n : n + 1], size, storage[n : n + 1]).keep[0]
    return keep
