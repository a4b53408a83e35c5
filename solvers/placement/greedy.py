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

LEAST_S = 0.2
"""Seconds that savings may be computed anew although the time is up."""

AHEAD = 63
"""Entries of the heap that are looked at for savings to compute together: its first six levels."""

LEVEL_WORK = 2e-7
"""Work of a look at a level of a cached set."""


def greedy_in_time(problem: PlacementProblem, deadline: Deadline) -> Placement:
    """Return the greedy placement, with fewer copies where the time is too short.

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
        Once it is over, no block gets another copy after its next one.
    """
    of_block, total = total_cost_of_classes(problem)
    cached = greedy_sets(total, problem.block_size, problem.storage, of_block, deadline)
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
    total: Table,
    size: IntArray,
    storage: IntArray,
    of_block: IntArray | None = None,
    deadline: Deadline = NEVER,
) -> IntArray:
    """Return the greedy static cached sets: the largest saving per byte first.

    Parameters
    ----------
    total
        (C, 2^N) seconds per byte of every class of blocks under every cached set.
    size, storage
        (J,) and (N,) byte.
    of_block
        (J,) the class of every block; None where each block is one of its own.
    deadline
        Once it is over, no block gets another copy after its next one.

    Returns
    -------
    (J,) node sets as bit masks.
    """
    blocks, nodes = len(size), len(storage)
    kind = np.arange(blocks) if of_block is None else of_block
    bit = bits(nodes)
    cached = np.zeros(blocks, dtype=bit.dtype)
    free = storage.copy()
    copies = np.concatenate([np.zeros(1, bit.dtype), bit])  # none, or one at a node

    # Blocks of a class are worth the same as long as they are held by the same nodes.
    cost = np.asarray(total[np.arange(len(total)), copies[:, None]])
    saved = (cost[0] - cost[1:])[:, kind]
    known: dict[tuple[int, int], FloatArray] = {}
    shared = np.bincount(kind)[kind] > 1
    # A heap entry claims a saving, which may have fallen since.
    heap = [(-float(saved[n, j]), n, j) for n in range(nodes) for j in range(blocks)]
    heapq.heapify(heap)
    while heap:
        claimed, n, j = heapq.heappop(heap)
        if -claimed <= 0 or size[j] > free[n]:
            continue
        now = float(saved[n, j])
        if now < -claimed and heap and -heap[0][0] > now:
            heapq.heappush(heap, (-now, n, j))  # the saving has changed since it was queued
        elif now > 0:
            cached[j] |= bit[n]
            free[n] -= size[j]
            state = int(kind[j]), int(cached[j])
            if state not in known:
                if deadline.over():
                    saved[:, j] = 0.0
                    continue
                # Together with what is likely to be asked next: one at a time takes far longer.
                ahead = [state, *_next_states(heap, kind, cached, bit, known)]
                of_class = np.array([one for one, _ in ahead])
                held = np.array([mask for _, mask in ahead], dtype=bit.dtype)
                cost = np.asarray(total[of_class, held | copies[:, None]])
                known.update(zip(ahead, (cost[0] - cost[1:]).T, strict=True))
            # A copy elsewhere can become worth more: it can now be fetched from here.
            saved[:, j] = known[state] if shared[j] else known.pop(state)
            for empty in np.flatnonzero(~members(cached[j], nodes)).tolist():
                heapq.heappush(heap, (-float(saved[empty, j]), empty, j))
    return cached


def _next_states(
    heap: list[tuple[float, int, int]],
    kind: IntArray,
    cached: IntArray,
    bit: IntArray,
    known: dict[tuple[int, int], FloatArray],
) -> list[tuple[int, int]]:
    """Return the classes and cached sets that the copies next in the heap lead to, if unknown.

    Parameters
    ----------
    heap, kind, cached, bit, known
        As `greedy_sets` has them.
    """
    best: dict[int, tuple[int, int]] = {}
    for _, n, j in sorted(heap[:AHEAD]):
        best.setdefault(int(kind[j]), (int(kind[j]), int(cached[j] | bit[n])))
    return [state for state in best.values() if state not in known]


def total_cost(problem: PlacementProblem) -> Table:
    """Return (J, 2^N) the delay per byte of every block, all slots together, if it stays cached.

    Parameters
    ----------
    problem
        Blocks, storage, times per byte.
    """
    of_block, table = total_cost_of_classes(problem)
    if isinstance(table, OnDemand):
        return OnDemand(problem.blocks, lambda block, cached: table[of_block[block], cached])
    return table[of_block]


def total_cost_of_classes(problem: PlacementProblem) -> tuple[IntArray, Table]:
    """Return (J,) the class of every block, and `total_cost` by class.

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

    return of_block, table_of(len(example), problem.nodes, cost)


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
    seconds = level_times(
        problem.broadcast[slot], problem.nodes, group[needed], choice, times[which]
    )
    best = seconds.argmin(axis=1)
    row = np.arange(len(needed))
    cost[needed], sender[needed] = seconds[row, best], choice[row, best]
    return cost, sender


def level_times(
    broadcast: Table, nodes: int, group: IntArray, sender: IntArray, migration: FloatArray
) -> FloatArray:
    """Return (B, L) the seconds per byte of every level; infinite where it cannot be the best.

    A level cannot be the best where fetching and a broadcast by all nodes take as long as the
    broadcast by the nodes of the first level, which fetch nothing.

    Parameters
    ----------
    broadcast
        (G, 2^N) seconds per byte of the user groups.
    nodes
        N.
    group
        (B,) user groups.
    sender, migration
        (B, L) nested sending sets, and the seconds per byte until they hold the block.
    """
    if not isinstance(broadcast, OnDemand):
        return np.asarray(migration + broadcast[group[:, None], sender])
    seconds = np.full(sender.shape, np.inf)
    seconds[:, 0] = broadcast[group, sender[:, 0]]
    used, of_used = np.unique(group, return_inverse=True)
    everywhere = np.full(len(used), (1 << nodes) - 1, mask_type(nodes))
    least = broadcast[used, everywhere][of_used]
    worth = migration + least[:, None] < seconds[:, :1]
    worth[:, 1:] &= migration[:, 1:] > migration[:, :-1]  # others repeat a set
    row, level = np.nonzero(worth)
    seconds[row, level] = migration[row, level] + broadcast[group[row], sender[row, level]]
    return seconds
