"""Greedy placement: cache where the delay saved per byte is largest.

With a static placement X_j of every block the delay is a sum over blocks, each falling in X_j:

    D(X) = sum_j s_j sum_t f_tj(X_j),   f_tj(X) = min over levels l of tau_l(X) + broadcast(Q_l(X))

so the greedy adds, one after another, the pair (node, block) with the largest saving per byte that
still fits. The hindsight version knows the requests of all slots.
"""

from __future__ import annotations

import heapq

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.deadline import NEVER, Deadline, count_work
from finecast.solvers.node_set_tables import OnDemand, Table, bits, mask_type, members, table_of
from finecast.solvers.placement.chains import grouped, nested, placement_of_paths, reach_times
from finecast.solvers.placement.problem import Placement, PlacementProblem

LEAST_S = 2.0
"""Seconds that the greedy placement may take although the time is up: no plan is no answer."""


LEVEL_WORK = 2e-7
"""Work of a look at a level of a cached set."""


def greedy_in_time(problem: PlacementProblem, deadline: Deadline) -> Placement:
    """Return the greedy placement, with fewer copies where the time and two seconds are too short.

    Parameters
    ----------
    problem
        Blocks, storage, times per byte.
    deadline
        When there should be a plan.
    """
    return greedy_placement(problem, deadline.later(LEAST_S))


def greedy_placement(problem: PlacementProblem, deadline: Deadline = NEVER) -> Placement:
    """Return the greedy static placement, with the best migration of every slot.

    Parameters
    ----------
    problem
        Blocks, storage, times per byte.
    deadline
        No copies are added once it is over; those that save most per byte come first.
    """
    cached = greedy_sets(total_cost(problem), problem.block_size, problem.storage, deadline)
    return static_placement(problem, cached)


def static_placement(problem: PlacementProblem, cached: IntArray) -> Placement:
    """Return the placement that never changes its caches, with the best migration of every slot.

    Parameters
    ----------
    problem
        Blocks, storage, times per byte.
    cached
        (J,) node sets as bit masks.
    """
    every_slot = np.broadcast_to(cached, (problem.slots, problem.blocks))
    block = np.arange(problem.blocks)
    sender = np.stack([best_levels(problem, t, block, cached)[1] for t in range(problem.slots)])
    return placement_of_paths(problem, every_slot, sender)


def greedy_sets(
    total: Table, size: IntArray, storage: IntArray, deadline: Deadline = NEVER
) -> IntArray:
    """Return the greedy static cached sets: the largest saving per byte first.

    Parameters
    ----------
    total
        (J, 2^N) seconds per byte of every block under every cached set.
    size, storage
        (J,) and (N,) byte.
    deadline
        As in `greedy_placement`.

    Returns
    -------
    (J,) node sets as bit masks.
    """
    blocks, nodes = len(size), len(storage)
    bit = bits(nodes)
    cached = np.zeros(blocks, dtype=bit.dtype)
    free = storage.copy()

    def saving(n: IntArray, j: IntArray | int) -> FloatArray:
        """Return the seconds per byte that a copy of block j at node n saves."""
        return np.asarray(total[j, cached[j]] - total[j, cached[j] | bit[n]])

    saved = saving(np.arange(nodes)[:, None], np.arange(blocks))
    # A heap entry claims a saving, which may have fallen since.
    heap = [(-float(saved[n, j]), n, j) for n in range(nodes) for j in range(blocks)]
    heapq.heapify(heap)
    while heap and not deadline.over():
        claimed, n, j = heapq.heappop(heap)
        if -claimed <= 0 or size[j] > free[n]:
            continue
        now = float(saved[n, j])
        if now < -claimed and heap and -heap[0][0] > now:
            heapq.heappush(heap, (-now, n, j))  # the saving has changed since it was queued
        elif now > 0:
            cached[j] |= bit[n]
            free[n] -= size[j]
            # A copy elsewhere can become worth more: it can now be fetched from here.
            saved[:, j] = saving(np.arange(nodes), j)
            for empty in np.flatnonzero(~members(cached[j], nodes)).tolist():
                heapq.heappush(heap, (-float(saved[empty, j]), empty, j))
    return cached


def total_cost(problem: PlacementProblem) -> Table:
    """Return (J, 2^N) the delay per byte of every block, all slots together, if it stays cached.

    Parameters
    ----------
    problem
        Blocks, storage, times per byte.
    """

    of_block = grouped(problem)[0]
    example = np.unique(of_block, return_index=True)[1]  # a block of every class

    def cost(kind: IntArray, cached: IntArray) -> FloatArray:
        block = example[kind]
        seconds = [best_levels(problem, t, block, cached)[0] for t in range(problem.slots)]
        return np.asarray(np.sum(seconds, axis=0))

    table = table_of(len(example), problem.nodes, cost)
    if isinstance(table, OnDemand):
        return OnDemand(problem.blocks, lambda block, cached: table[of_block[block], cached])
    return table[of_block]


def best_levels(
    problem: PlacementProblem, slot: int, block: IntArray, cached: IntArray
) -> tuple[FloatArray, IntArray]:
    """Return the delay per byte of blocks cached at some nodes, and the best senders, in a slot.

    Parameters
    ----------
    problem
        Blocks, storage, times per byte.
    slot
        t.
    block, cached
        (B,) blocks and their cached sets X as bit masks.

    Returns
    -------
    cost
        (B,) seconds per byte, 0 where nobody needs the block.
    sender
        (B,) the best sending set Q; X itself where nobody needs the block.
    """
    cost, sender = np.zeros(len(block)), cached.astype(mask_type(problem.nodes))
    group = problem.group[slot, block]
    needed = np.flatnonzero(group >= 0)
    sets, which = np.unique(cached[needed], return_inverse=True)
    senders, times = nested(sets, reach_times(problem.link, members(sets, problem.nodes)))
    choice = senders[which]
    count_work(LEVEL_WORK * choice.size)
    seconds = times[which] + problem.broadcast[slot][group[needed, None], choice]
    best = seconds.argmin(axis=1)
    row = np.arange(len(needed))
    cost[needed], sender[needed] = seconds[row, best], choice[row, best]
    return cost, sender
