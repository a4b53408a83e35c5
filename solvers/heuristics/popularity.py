"""Most popular first: every node holds the blocks, or the models, that are asked for most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from finecast.problem.arrays import BoolArray
from finecast.solvers.heuristics.rules import Static
from finecast.solvers.online import Prior
from finecast.solvers.placement.fill import fill

Unit = Literal["block", "model"]


@dataclass(frozen=True)
class Popular(Static):
    """Hold what is most popular, the same in every slot.

    Attributes
    ----------
    unit
        "block" or "model": what popularity is counted of.
    """

    unit: Unit = "block"

    def __post_init__(self) -> None:
        check_unit(self.unit)

    def place(self, prior: Prior) -> BoolArray:
        """Return the caches (N, J)."""
        return most_popular(prior, self.unit)


def most_popular(prior: Prior, unit: Unit = "block") -> BoolArray:
    """Return the caches (N, J) of the most popular blocks or models, the same rule at every node.

    Requests are summed over users and slots. Blocks: the most wanted first, each that still fits.
    Models: the most wanted first, each whose blocks that are not yet there still fit.

    Parameters
    ----------
    prior
        What is known before slot 0.
    unit
        "block" or "model".

    Raises
    ------
    ValueError
        `unit` is another.
    """
    check_unit(unit)
    library, storage = prior.library, prior.network.storage
    requests = prior.popularity.sum(axis=(0, 1))  # (M,) expected number
    if unit == "block":
        order = np.argsort(-(requests @ library.model_blocks), kind="stable")
        return np.stack([fill(order, library.block_size, limit) for limit in storage])
    cache = np.zeros((len(storage), library.blocks), dtype=bool)
    for n, limit in enumerate(storage):
        for m in np.argsort(-requests, kind="stable"):
            both = cache[n] | library.model_blocks[m]
            if both @ library.block_size <= limit:
                cache[n] = both
    return cache


def check_unit(unit: str) -> None:
    """Refuse another unit than blocks and models.

    Raises
    ------
    ValueError
        It is.
    """
    if unit not in ("block", "model"):
        raise ValueError(f"unit: {unit!r} is not allowed, must be 'block' or 'model'")
