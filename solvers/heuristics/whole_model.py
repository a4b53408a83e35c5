"""Whole models: greedy placement of models, by delay saved per byte.

What most caches do. Every miss is still fetched, and every block broadcast, as by all other
methods: only what a node may hold differs. The hindsight version knows the requests of all slots.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from finecast.problem.arrays import BoolArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution
from finecast.solvers.joint import solve_by_placement
from finecast.solvers.node_set_tables import Table, node_sets
from finecast.solvers.placement.greedy import static_placement, total_cost
from finecast.solvers.placement.problem import Placement, PlacementProblem
from finecast.solvers.restrictions import check_restrictions
from finecast.solvers.result import Answer, Callback


def whole_model_placement(
    problem: PlacementProblem, model_blocks: BoolArray, *, shared_once: bool = True
) -> Placement:
    """Return the greedy static placement of whole models, with the best migration of every slot.

    Parameters
    ----------
    problem
        Blocks, storage, times per byte.
    model_blocks
        (M, J) model m contains block j.
    shared_once
        A node stores a block of several of its models once; else once for each of them.
    """
    cache = whole_model_caches(
        total_cost(problem),
        problem.block_size,
        problem.storage,
        model_blocks,
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
    bit = 1 << np.arange(nodes)[:, None]
    saved = np.zeros((nodes, blocks))  # s, by a copy at a node
    changed = np.arange(blocks)
    while True:
        cached = node_sets(cache[:, changed])
        more = total[changed, cached] - total[changed, cached | bit]
        saved[:, changed] = size[changed] * more
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


def solve_whole_model(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    shared_once: bool = True,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Place whole models greedily, then deliver with the best beams known.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `finecast.solvers.solve.solve`; there is nothing to stop early or to start from.
    shared_once
        A node stores a block of several of its models once; else once for each of them.
    beamforming, restrict, rate_cache
        As in `finecast.solvers.joint.prepare`.
    """
    names = check_restrictions(restrict)

    def place(problem: PlacementProblem, _: int) -> Placement:
        model_blocks = instance.library.model_blocks
        if "coarse" in names:  # a block is a model
            model_blocks = np.eye(problem.blocks, dtype=bool)
        return whole_model_placement(problem, model_blocks, shared_once=shared_once)

    return solve_by_placement(
        place,
        "whole-model",
        instance,
        seed=seed,
        callback=callback,
        beamforming=beamforming,
        restrict=names,
        rate_cache=rate_cache,
    )
