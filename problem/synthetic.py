"""Synthetic libraries: as many blocks and models as a study needs, shared as fine-tuning shares."""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import checked_number
from finecast.problem.library import ModelLibrary

BLOCK_SIZE_SPREAD = 0.7
"""Standard deviation of the logarithm of block sizes."""


def synthetic_library(
    rng: np.random.Generator,
    *,
    models: int,
    blocks: int,
    families: int = 1,
    shared_share: float = 0.75,
    total_gb: float = 5.0,
) -> ModelLibrary:
    """Return a library of `families` trunks, each cut at random depths by its models.

    A family's trunk is a chain of shared blocks; each of its models keeps the trunk up to a depth
    uniform in [0.4, 1] of it and owns some blocks of its own, as after fine-tuning the upper part.
    Sizes are log-normal.

    Parameters
    ----------
    rng
        Draws depths and sizes.
    models, blocks, families
        M >= families, J >= M + families, and at least one family.
    shared_share
        Share of the blocks that lie in trunks, within [0, 1].
    total_gb
        Size of all blocks together, 10^9 byte, > 0.

    Raises
    ------
    ValueError
        A number is out of range.
    """
    checked_number("families", families, low=1)
    checked_number("models", models, low=families)
    checked_number("blocks", blocks, low=models + families)
    checked_number("shared_share", shared_share, low=0, high=1)
    checked_number("total_gb", total_gb, above=0)
    trunk_total = int(np.clip(round(shared_share * blocks), families, blocks - models))
    trunk = np.full(families, trunk_total // families)
    trunk[: trunk_total % families] += 1
    own = np.full(models, (blocks - trunk_total) // models)
    own[: (blocks - trunk_total) % models] += 1
    contains = np.zeros((models, blocks), dtype=bool)
    start = np.concatenate([[0], np.cumsum(trunk)])
    next_own = trunk_total
    for m in range(models):
        f = m % families
        # The first model of each family keeps the whole trunk: every block is in some model.
        share = 1.0 if m < families else rng.uniform(0.4, 1.0)
        contains[m, start[f] : start[f] + max(1, round(share * trunk[f]))] = True
        contains[m, next_own : next_own + own[m]] = True
        next_own += own[m]
    weight = rng.lognormal(0.0, BLOCK_SIZE_SPREAD, blocks)
    size = np.maximum(1, np.round(1e9 * total_gb * weight / weight.sum())).astype(np.int64)
    return ModelLibrary(
        block_size=size,
        model_blocks=contains,
        model_family=tuple(f"family{m % families}" for m in range(models)),
    )
