"""Random blocks at every node, the same in every slot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray
from finecast.solvers.heuristics.rules import Static
from finecast.solvers.online import Prior
from finecast.solvers.placement.fill import fill


@dataclass(frozen=True)
class RandomBlocks(Static):
    """Hold random blocks, the same in every slot.

    Attributes
    ----------
    seed
        Seed of the orders, one for each node.
    """

    seed: int = 0

    def place(self, prior: Prior) -> BoolArray:
        """Return (N, J): at every node the blocks in a random order, each that still fits."""
        rng = np.random.default_rng(self.seed)
        size = prior.library.block_size
        return np.stack(
            [fill(rng.permutation(len(size)), size, limit) for limit in prior.network.storage]
        )
