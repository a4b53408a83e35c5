"""LRU and LFU: classical replacement, block by block and node by node.

A node keeps, of what it holds at the end of a slot, the blocks used last or most often, each that
still fits. Misses come by the best chain level.

What counts as a use is an option. By "system" every node counts every slot in which somebody needs
the block, and how many users did. All nodes then value the blocks alike and keep the same ones: a
weak baseline, though it is what LRU and LFU come to when each node sees all requests. By "served" a
node counts the slots in which it had the block and helped to send it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray, checked_choice, checked_number
from finecast.solvers.heuristics.initial import Initial, check_initial, initial_caches
from finecast.solvers.heuristics.popularity import most_popular
from finecast.solvers.heuristics.rules import pull
from finecast.solvers.online import Observation, Prior
from finecast.solvers.placement.fill import keep_by_score

Counts = Literal["system", "served"]


@dataclass
class LeastRecentlyUsed:
    """Keep the blocks used last; of those used in the same slot, the more often requested.

    Attributes
    ----------
    counts
        "system": a use counts at every node alike, so that all nodes keep the same blocks.
        "served": it counts at the nodes that sent the block.
    initial
        x[0]: "greedy-online", or "own", which is that of `popular`.
    """

    counts: Counts = "system"
    initial: Initial = "greedy-online"
    _last: IntArray = field(init=False, repr=False, compare=False)
    _often: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_counts(self.counts)
        check_initial(self.initial)

    def place(self, prior: Prior) -> BoolArray:
        """Return x[0]; nothing has been used yet."""
        shape = (prior.network.nodes, prior.library.blocks)
        self._last, self._often = np.full(shape, -1), np.zeros(shape)
        return initial_caches(prior, self.initial, most_popular)

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Pull what is missed; keep what was used last."""
        source = pull(observation.problem, cache)
        used = uses(observation, cache | (source >= 0), self.counts)
        self._last = np.where(used > 0, observation.t, self._last)
        self._often = self._often + used
        # Counts only decide between blocks of the same slot: their share stays below 1.
        score = self._last + self._often / (1.0 + self._often.max(initial=0.0))
        return source, _kept(observation, cache, source, score)


@dataclass
class LeastFrequentlyUsed:
    """Keep the blocks requested most often, a request of s slots ago counting decay^s.

    By "system", counts are of all requests since slot 0, of blocks not held too ("perfect" LFU).

    Attributes
    ----------
    decay
        Weight of a request of the slot before, in (0, 1]; 1 never forgets.
    counts
        "system": a use counts at every node alike, so that all nodes keep the same blocks.
        "served": it counts at the nodes that sent the block.
    initial
        x[0]: "greedy-online", or "own", which is that of `popular`.
    """

    decay: float = 0.8
    counts: Counts = "system"
    initial: Initial = "greedy-online"
    _often: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked_number("decay", self.decay, above=0.0, high=1.0)
        check_counts(self.counts)
        check_initial(self.initial)

    def place(self, prior: Prior) -> BoolArray:
        """Return x[0]; nothing has been used yet."""
        self._often = np.zeros((prior.network.nodes, prior.library.blocks))
        return initial_caches(prior, self.initial, most_popular)

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Pull what is missed; keep what was requested most."""
        source = pull(observation.problem, cache)
        used = uses(observation, cache | (source >= 0), self.counts)
        self._often = self.decay * self._often + used
        return source, _kept(observation, cache, source, self._often)


def uses(observation: Observation, sending: BoolArray, counts: Counts) -> FloatArray:
    """Return (N, J), how many users' requests of this slot each node counts for each block.

    Parameters
    ----------
    observation
        What is known in the slot.
    sending
        (N, J) cached or received: all nodes that have a block help to send it.
    counts
        Whether all nodes count, or those that send.
    """
    requests = observation.requests[-1]
    contains = observation.prior.library.model_blocks
    users = contains[requests[requests >= 0]].sum(axis=0).astype(np.float64)
    counting = sending if counts == "served" else np.ones_like(sending)
    return np.asarray(counting * users)


def check_counts(counts: str) -> None:
    """Refuse another way to count.

    Raises
    ------
    ValueError
        It is.
    """
    checked_choice("counts", counts, ("system", "served"))


def _kept(
    observation: Observation, cache: BoolArray, source: IntArray, score: FloatArray
) -> BoolArray:
    """Return the blocks of the highest scores (N, J) that are there."""
    size, storage = observation.problem.block_size, observation.problem.storage
    return keep_by_score(score, cache | (source >= 0), size, storage)
