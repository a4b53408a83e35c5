"""Greedy placement: cache where the delay saved per byte is largest.

With a static placement X_j of every block the delay is a sum over blocks, each falling in X_j:

    D(X) = sum_j s_j sum_t f_tj(X_j),   f_tj(X) = min over levels l of tau_l(X) + broadcast(Q_l(X))

so the greedy adds, one after another, the pair (node, block) with the largest saving per byte that
still fits. The hindsight version knows the requests of all slots.
"""

from __future__ import annotations

import heapq

import numpy as np

from problem.arrays import FloatArray, IntArray
from solvers.placement.chains import chains, placement_of_paths
from solvers.placement.problem import Placement, PlacementProblem


def greedy_placement(problem: PlacementProblem) -> Placement:
    """Return the greedy static placement, with the best migration of every slot.

    Parameters
    ----------
    problem
        Blocks, storage, times per byte.
    """
    cost, level = block_cost(problem)
    cached = greedy_sets(cost.sum(axis=0), problem.block_size, problem.storage)
    every_slot = np.broadcast_to(cached, (problem.slots, problem.blocks))
    sender = np.take_along_axis(level, cached[None, :, None], axis=2)[:, :, 0]
    return placement_of_paths(problem, every_slot, sender)


def greedy_sets(total: FloatArray, size: IntArray, storage: IntArray) -> IntArray:
    """Return the greedy static cached sets: the largest saving per byte first.

    Parameters
    ----------
    total
        (J, 2^N) seconds per byte of every block under every cached set.
    size, storage
        (J,) and (N,) byte.

    Returns
    -------
    (J,) node sets as bit masks.
    """
    blocks, nodes = len(size), len(storage)
    cached = np.zeros(blocks, dtype=np.int64)
    free = storage.copy()

    def saving(n: int, j: int) -> float:
        return float(total[j, cached[j]] - total[j, cached[j] | 1 << n])

    heap = [(-saving(n, j), n, j) for n in range(nodes) for j in range(blocks)]
    heapq.heapify(heap)
    while heap:
        claimed, n, j = heapq.heappop(heap)
        if -claimed <= 0 or size[j] > free[n]:
            continue
        now = saving(n, j)
        if now < -claimed and heap and -heap[0][0] > now:
            heapq.heappush(heap, (-now, n, j))  # the saving has changed since it was queued
        elif now > 0:
            cached[j] |= 1 << n
            free[n] -= size[j]
            # A copy elsewhere can become worth more: it can now be fetched from here.
            for other in range(nodes):
                if not cached[j] >> other & 1:
                    heapq.heappush(heap, (-saving(other, j), other, j))
    return cached


def block_cost(problem: PlacementProblem) -> tuple[FloatArray, IntArray]:
    """Return the delay per byte of every block under every cached set, and its best senders.

    Parameters
    ----------
    problem
        Blocks, storage, times per byte.

    Returns
    -------
    cost
        (T, J, 2^N) seconds per byte, 0 where nobody needs the block.
    sender
        (T, J, 2^N) the best sending set Q; the cached set itself where nobody needs the block.
    """
    chain = chains(problem.link)
    sets = np.arange(1 << problem.nodes)
    shape = (problem.slots, problem.blocks, len(sets))
    cost = np.zeros(shape)
    sender = np.broadcast_to(sets, shape).copy()
    for t, broadcast in enumerate(problem.broadcast):
        needed = np.flatnonzero(problem.group[t] >= 0)
        if not len(needed):
            continue
        every_level = chain.time + broadcast[:, chain.sender]  # (G, 2^N, levels)
        best = every_level.argmin(axis=2)
        group = problem.group[t, needed]
        cost[t, needed] = np.take_along_axis(every_level, best[:, :, None], axis=2)[group, :, 0]
        sender[t, needed] = chain.sender[sets, best][group]
    return cost, sender
