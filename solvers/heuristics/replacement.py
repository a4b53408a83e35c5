"""LRU and LFU: classical replacement, block by block and node by node.

A node keeps, of what it holds at the end of a slot, the blocks used last or most often, each that
still fits. A block counts as used in every slot in which somebody needs it: all nodes that hold it
then broadcast it, so the last use of a held block is the last slot in which it was needed, at
every node alike. Misses come by the best chain level. x[0] is that of `popular`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray, checked_number
from finecast.solvers.heuristics.popularity import most_popular
from finecast.solvers.heuristics.rules import pull
from finecast.solvers.online import Observation, Prior
from finecast.solvers.placement.fill import keep_by_score


@dataclass(frozen=True)
class LeastRecentlyUsed:
    """Keep the blocks used last; of those used in the same slot, the more often requested."""

    def place(self, prior: Prior) -> BoolArray:
        """Hold the most popular blocks."""
        return most_popular(prior)

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Pull what is missed; keep what was used last."""
        counts = request_counts(observation)
        slot = np.arange(len(counts))[:, None]
        last = np.where(counts > 0, slot, -1).max(axis=0)
        often = counts.sum(axis=0)
        # Counts only decide between blocks of the same slot: their share stays below 1.
        return _replaced(observation, cache, last + often / (1.0 + often.max()))


@dataclass(frozen=True)
class LeastFrequentlyUsed:
    """Keep the blocks requested most often, a request of s slots ago counting decay^s.

    Counts are of all requests since slot 0, of blocks not held too ("perfect" LFU).

    Attributes
    ----------
    decay
        Weight of a request of the slot before, in (0, 1]; 1 never forgets.
    """

    decay: float = 0.8

    def __post_init__(self) -> None:
        checked_number("decay", self.decay, above=0.0, high=1.0)

    def place(self, prior: Prior) -> BoolArray:
        """Hold the most popular blocks."""
        return most_popular(prior)

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Pull what is missed; keep what was requested most."""
        counts = request_counts(observation)
        age = np.arange(len(counts))[::-1]  # slots since the request
        return _replaced(observation, cache, self.decay**age @ counts)


def request_counts(observation: Observation) -> FloatArray:
    """Return (t + 1, J), how many users requested each block in the slots so far."""
    requests = observation.requests
    contains = observation.prior.library.model_blocks
    counts = [contains[slot[slot >= 0]].sum(axis=0) for slot in requests]
    return np.array(counts, dtype=np.float64)


def _replaced(
    observation: Observation, cache: BoolArray, score: FloatArray
) -> tuple[IntArray, BoolArray]:
    """Return the sources of what is missed, and the blocks of the highest scores (J,)."""
    source = pull(observation.problem, cache)
    size, storage = observation.problem.block_size, observation.problem.storage
    return source, keep_by_score(score, cache | (source >= 0), size, storage)
