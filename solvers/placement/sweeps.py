"""Rounding of the master's shares, and exact best responses of one block at a time.

The best response of a block is its cheapest path with all other blocks as they are: the dynamic
programme with an infinite price where the block does not fit. Many blocks are answered at once
from the same remaining storage; their answers are then taken one by one, the largest gain first,
each where it still fits.
"""

from __future__ import annotations

import time

import numpy as np

from problem.arrays import FloatArray, IntArray
from solvers.placement.bound import Prices
from solvers.placement.chains import Classes, placement_of_paths
from solvers.placement.columns import Master
from solvers.placement.dynamic_programme import Paths, cheapest_paths, cost_to_go
from solvers.placement.problem import Placement, PlacementProblem

BATCH = 64


class Assignment:
    """A path for every block, and what they use: the state of the search.

    Attributes
    ----------
    cached, sender
        (T, J) node sets.
    migration, broadcast
        (T, J) seconds per byte.
    used
        (T, N) bytes cached.
    """

    def __init__(self, problem: PlacementProblem, classes: Classes, paths: Paths) -> None:
        self.problem = problem
        self.classes = classes
        self.cached, self.sender, self.migration, self.broadcast = (
            array.copy() for array in paths.arrays
        )
        self.used = self.used_by(np.arange(problem.blocks))

    @property
    def paths(self) -> Paths:
        """The path of every block."""
        return Paths(self.cached, self.sender, self.migration, self.broadcast)

    @property
    def placement(self) -> Placement:
        """Caches and sources."""
        return placement_of_paths(self.problem, self.cached, self.sender)

    def used_by(self, blocks: IntArray) -> IntArray:
        """Bytes cached of some of the blocks, (T, N)."""
        used: IntArray = holds(self.problem, self.cached[:, blocks]) @ self.problem.block_size[blocks]
        return used

    def put(self, j: int, paths: Paths, column: int) -> None:
        """Give block j the path in `column`."""
        size = self.problem.block_size[j]
        self.used += size * (_bits(self.problem, paths.cached[:, column]) - self.of(j))
        self.cached[:, j] = paths.cached[:, column]
        self.sender[:, j] = paths.sender[:, column]
        self.migration[:, j] = paths.migration[:, column]
        self.broadcast[:, j] = paths.broadcast[:, column]

    def of(self, j: int) -> IntArray:
        """Where block j is cached, (T, N) zeros and ones."""
        return _bits(self.problem, self.cached[:, j])


def assignment_of(
    problem: PlacementProblem, classes: Classes, cached: IntArray, sender: IntArray
) -> Assignment:
    """Return the state with these node sets (T, J), every receiver at its fastest source."""
    chains = classes.chains
    level = np.argmax((chains.sender[cached] & sender[..., None]) == sender[..., None], axis=-1)
    wider = chains.sender[cached, level]
    broadcast = np.stack([
        table[wider[t], classes.of_block] for t, table in enumerate(classes.broadcast)
    ])  # fmt: skip
    return Assignment(problem, classes, Paths(cached, wider, chains.time[cached, level], broadcast))


def holds(problem: PlacementProblem, cached: IntArray) -> IntArray:
    """Node sets (T, B) as zeros and ones (T, N, B)."""
    return (cached[:, None] >> np.arange(problem.nodes)[:, None]) & 1


def _bits(problem: PlacementProblem, cached: IntArray) -> IntArray:
    return (cached[:, None] >> np.arange(problem.nodes)) & 1


def sweep(
    assignment: Assignment,
    prices: Prices,
    order: IntArray,
    deadline: float,
) -> int:
    """Give every block in `order` its best response at the prices; return how many moved.

    Parameters
    ----------
    assignment
        Changed in place; stays within the storage.
    prices
        Prices of the bytes; zero for plain descent of the delay.
    order
        Blocks, in the order of their turn.
    deadline
        Time at which to stop.
    """
    problem, classes = assignment.problem, assignment.classes
    weights = prices.weights
    moved = 0
    for first in range(0, len(order), BATCH):
        if time.perf_counter() >= deadline:
            break
        batch = order[first : first + BATCH]
        size = problem.block_size[batch]
        mine = holds(problem, assignment.cached[:, batch])
        free = (problem.storage - assignment.used)[:, :, None] + size * mine
        price = np.where(free >= size, prices.storage[:, :, None], np.inf)
        of = classes.of_block[batch]
        values = cost_to_go(classes, of, price, weights)
        rent = np.einsum("tn,tnb->b", prices.storage, mine)
        before = rent + weights.migration @ assignment.migration[:, batch]
        before += weights.broadcast @ assignment.broadcast[:, batch]
        gain = before - values.value
        better = np.flatnonzero(gain > 1e-9 * before)
        if not len(better):
            continue
        better = better[np.argsort(-(gain * size)[better], kind="stable")]
        paths = cheapest_paths(classes, of, values, weights)
        for column in better:
            j = batch[column]
            after = _bits(problem, paths.cached[:, column])
            used = assignment.used + size[column] * (after - mine[:, :, column])
            if (used <= problem.storage).all():
                assignment.put(j, paths, column)
                moved += 1
    return moved


def rounded(
    problem: PlacementProblem,
    classes: Classes,
    master: Master,
    share: FloatArray | None,
    empty: Paths,
) -> tuple[Assignment, IntArray]:
    """Round the shares of the master to one path for every block, within the storage.

    Within a class the blocks, largest first, go to the path that lacks most bytes of its share.
    Blocks that no longer fit keep the empty path.

    Parameters
    ----------
    share
        (P,) shares of the master's paths, or None.
    empty
        Path of every class that caches nothing.

    Returns
    -------
    assignment, left
        The placement, and the blocks left out.
    """
    size, of = problem.block_size, classes.of_block
    start = Paths(*(array[:, of] for array in empty.arrays))
    assignment = Assignment(problem, classes, start)
    if share is None:
        return assignment, np.arange(problem.blocks)
    share = np.pad(share, (0, len(master.of) - len(share)))
    pool = master.paths
    chosen = np.full(problem.blocks, -1)
    for c in range(len(classes.size)):
        paths = np.flatnonzero((master.of == c) & (share > 1e-9))
        lacking = share[paths] * classes.size[c]
        blocks = np.flatnonzero(of == c)
        for j in blocks[np.argsort(-size[blocks], kind="stable")]:
            pick = int(lacking.argmax())
            chosen[j] = paths[pick]
            lacking[pick] -= size[j]
    left = []
    for j in np.argsort(-size, kind="stable"):
        after = _bits(problem, pool.cached[:, chosen[j]])
        if (assignment.used + size[j] * after <= problem.storage).all():
            assignment.put(int(j), pool, int(chosen[j]))
        else:
            left.append(int(j))
    return assignment, np.array(left, dtype=np.int64)
