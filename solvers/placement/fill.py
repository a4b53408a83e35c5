"""Fill the storage of a node in an order, block by block."""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray


def fill(order: IntArray, size: IntArray, storage: int) -> BoolArray:
    """Take blocks in their order, each that still fits.

    Parameters
    ----------
    order
        Some of the blocks, the most wanted first.
    size
        (J,) byte.
    storage
        Byte.

    Returns
    -------
    (J,) which blocks are taken.
    """
    taken = np.zeros(len(size), dtype=bool)
    free = int(storage)
    for j in order:
        if size[j] <= free:
            taken[j] = True
            free -= int(size[j])
    return taken


def keep_by_score(
    score: FloatArray,
    held: BoolArray,
    size: IntArray,
    storage: IntArray,
    before: BoolArray | None = None,
) -> BoolArray:
    """Return what every node keeps: the blocks of the highest scores, each that still fits, (N, J).

    Parameters
    ----------
    score
        (J,) or (N, J); of equal scores the first block wins.
    held
        (N, J) cached or received now.
    size, storage
        (J,) and (N,) byte.
    before
        (N, J) blocks that go before the others of the same score; None for none.
    """
    keep = np.zeros_like(held)
    first = np.zeros_like(held) if before is None else before
    for n, row in enumerate(np.broadcast_to(score, held.shape)):
        order = np.lexsort((~first[n], -row))
        keep[n] = fill(order[held[n, order]], size, storage[n])
    return keep
