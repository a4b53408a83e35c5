"""Whole models: greedy placement of models, by delay saved per byte.

What most caches do. Every miss is still fetched, and every block broadcast, as by all other
methods: only what a node may hold differs. The hindsight version knows the requests of all slots.
"""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import BoolArray, IntArray
from finecast.problem.library import ModelLibrary
from finecast.solvers.node_set_tables import Table, bits, node_sets
from finecast.solvers.placement.greedy import static_placement, total_cost
from finecast.solvers.placement.problem import Placement, PlacementProblem


def whole_model_placement(
    problem: PlacementProblem, library: ModelLibrary, seed: int = 0, *, shared_once: bool = True
) -> Placement:
    """Return the greedy static placement of whole models, with the best migration of every slot.

    Parameters
    ----------
    problem
        Blocks, storage, times per byte.
    library
        The models. If whole models are what is cached, each is a block of its own.
    seed
        Not used: the greedy draws nothing.
    shared_once
        A node stores a block of several of its models once; else once for each of them.
    """
    cache = whole_model_caches(
        total_cost(problem),
        problem.block_size,
        problem.storage,
        library.model_blocks,
        shared_once=shared_once,
    )
    return static_placement(problem, node_sets(cache))


def whole_model_caches(
    total: Table,
    size: IntArray,
    storage: IntArray,
    model_blocks: BoolArray,
    *,
    shared_once: bool,
) -> BoolArray:
    """Add the (node, model) with the largest saving per byte that fits, until nothing saves.

    Parameters
    ----------
    total
        (J, 2^N) seconds per byte of every block under every cached set.
    size, storage
        (J,) and (N,) byte.
    model_blocks
        (M, J) model m contains block j.
    shared_once
        Bytes of a model are those of its blocks that are not there yet; else of all its blocks.

    Returns
    -------
    (N, J) caches.
    """
    nodes, blocks = len(storage), len(size)
    cache = np.zeros((nodes, blocks), dtype=bool)
    stored = np.zeros((nodes, len(model_blocks)), dtype=bool)
    free = storage.astype(np.int64)
    bit = bits(nodes)[:, None]
    saved = np.zeros((nodes, blocks))  # s, by a copy at a node
    changed = np.arange(blocks)
    while True:
        # What a copy saves changes only for blocks that have a new copy.
        cached = node_sets(cache[:, changed])
        more = total[changed, cached] - total[changed, cached | bit]
        saved[:, changed] = size[changed] * more
        # Saving and bytes of every model at every node, (N, M).
        missing = ~cache[:, None, :] & model_blocks  # (N, M, J)
        needs = missing @ size if shared_once else np.tile(model_blocks @ size, (nodes, 1))
        saving = np.einsum("nmj,nj->nm", missing, saved)
        allowed = ~stored & (needs <= free[:, None]) & (saving > 0)
        if not allowed.any():
            return cache
        rate = np.where(allowed, saving / np.maximum(needs, 1), -np.inf)
        n, m = np.unravel_index(rate.argmax(), rate.shape)
        free[n] -= needs[n, m]
        stored[n, m] = True
        changed = np.flatnonzero(model_blocks[m] & ~cache[n])
        cache[n] |= model_blocks[m]
