"""Rounding of the master's shares, and exact best responses of one block at a time.

The best response of a block is its cheapest path with all other blocks as they are: the dynamic
programme with an infinite price where the block does not fit. Many blocks are answered at once
from the same remaining storage; their answers are then taken one by one, the largest gain first,
each where it still fits.
"""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.deadline import Deadline
from finecast.solvers.placement.chains import Classes, placement_of_paths
from finecast.solvers.placement.dynamic_programme import (
    Paths,
    cheapest_paths,
    cost_to_go,
    sequential_weights,
)
from finecast.solvers.placement.problem import Placement, PlacementProblem
from finecast.solvers.placement.search.columns import Master

BATCH = 64
"""Blocks that are answered at once, from the same storage."""

LEAST_GAIN = 1e-9
"""Relative gain of a best response below which a block stays where it is: rounding."""

LEAST_SHARE = 1e-9
"""Shares of the master below this count as none."""


class Assignment:
    """A path for every block, and what they use: the state of the search.

    Attributes
    ----------
    cached, sender
        (T, J) sets of units.
    migration, broadcast
        (T, J) seconds per byte.
    used
        (T, N) bytes cached.
    sums
        (2, T) migrations and broadcasts of all blocks, s.
    """

    def __init__(self, problem: PlacementProblem, classes: Classes, paths: Paths) -> None:
        self.problem = problem
        self.classes = classes
        self.cached, self.sender, self.migration, self.broadcast = (
            array.copy() for array in paths.arrays
        )
        self.used = self.used_by(np.arange(problem.blocks))
        self.sums = np.stack([self.migration, self.broadcast]) @ problem.block_size

    @property
    def paths(self) -> Paths:
        """The path of every block."""
        return Paths(self.cached, self.sender, self.migration, self.broadcast)

    @property
    def placement(self) -> Placement:
        """Caches and sources."""
        return placement_of_paths(self.problem, *self.node_sets)

    @property
    def node_sets(self) -> tuple[IntArray, IntArray]:
        """Sets of nodes X and Q of every block, (T, J) each."""
        class_of = self.classes.of_block
        return self.classes.node_sets(class_of, self.cached), self.classes.node_sets(
            class_of, self.sender
        )

    def used_by(self, blocks: IntArray) -> IntArray:
        """Bytes cached of some of the blocks, (T, N)."""
        used: IntArray = (
            self.classes.holds(self.classes.of_block[blocks], self.cached[:, blocks])
            @ self.problem.block_size[blocks]
        )
        return used

    def held(self, j: int, cached: IntArray) -> IntArray:
        """Return (T, N) zeros and ones: the nodes of sets (T,) of units of block j."""
        return self.classes.holds(self.classes.of_block[[j]], cached[:, None])[:, :, 0]

    def put(self, j: int, paths: Paths, column: int) -> None:
        """Give block j the path in `column`."""
        size = self.problem.block_size[j]
        change = self.held(j, paths.cached[:, column]) - self.held(j, self.cached[:, j])
        self.used += size * change
        self.sums[0] += size * (paths.migration[:, column] - self.migration[:, j])
        self.sums[1] += size * (paths.broadcast[:, column] - self.broadcast[:, j])
        self.cached[:, j] = paths.cached[:, column]
        self.sender[:, j] = paths.sender[:, column]
        self.migration[:, j] = paths.migration[:, column]
        self.broadcast[:, j] = paths.broadcast[:, column]


def assignment_of(
    problem: PlacementProblem, classes: Classes, cached: IntArray, sender: IntArray
) -> Assignment:
    """Return the state with these sets of nodes (T, J), every receiver at its fastest source.

    Nodes that do not make up a whole unit of the block's class are left out. Where the others
    cannot serve the users, the block goes out by its best level.
    """
    class_of = classes.of_block
    cached, sender = classes.unit_sets(class_of, cached), classes.unit_sets(class_of, sender)
    # The first level whose senders include those given: more senders never take longer.
    choices, times = classes.chains.levels(cached, class_of)
    level = np.argmax((choices & sender[..., None]) == sender[..., None], axis=-1)[..., None]
    wider = np.take_along_axis(choices, level, axis=-1)[..., 0]
    time = np.take_along_axis(times, level, axis=-1)[..., 0]
    broadcast = np.stack([table[wider[t], class_of] for t, table in enumerate(classes.broadcast)])
    for t, j in np.argwhere(np.isinf(broadcast)):
        sends = classes.broadcast[t][choices[t, j], class_of[j]]
        within = (choices[t, j] & sender[t, j]) == sender[t, j]
        best = int(np.where(within, times[t, j] + sends, np.inf).argmin())
        wider[t, j], time[t, j], broadcast[t, j] = (
            choices[t, j, best],
            times[t, j, best],
            sends[best],
        )
    return Assignment(problem, classes, Paths(cached, wider, time, broadcast))


def sweep(assignment: Assignment, price: FloatArray, order: IntArray, deadline: Deadline) -> int:
    """Give every block in `order` its best response at the prices; return how many moved.

    Parameters
    ----------
    assignment
        Changed in place; stays within the storage.
    price
        (T, N) price of a byte, s; zero for plain descent of the delay.
    order
        Blocks, in the order of their turn.
    deadline
        When to stop.
    """
    moved = 0
    for begin in range(0, len(order), BATCH):
        if deadline.over():
            break
        moved += _sweep_batch(assignment, price, order[begin : begin + BATCH])
    return moved


def _sweep_batch(assignment: Assignment, price: FloatArray, batch: IntArray) -> int:
    """Give the blocks (B,) of a batch their best responses; return how many moved."""
    problem, classes = assignment.problem, assignment.classes
    weights = sequential_weights(problem.slots)
    size, class_of = problem.block_size[batch], classes.of_block[batch]

    # A block may use what is free and what it holds itself, (T, N, B).
    held = classes.holds(class_of, assignment.cached[:, batch])
    free = (problem.storage - assignment.used)[:, :, None] + size * held
    allowed = np.where(free >= size, price[:, :, None], np.inf)
    own = np.stack([assignment.migration[:, batch], assignment.broadcast[:, batch]])
    others = None
    if problem.schedule == "pipelined":
        others = assignment.sums[:, :, None] / size - own
    values = cost_to_go(classes, class_of, allowed, weights, others)

    cost = np.einsum("tn,tnb->b", price, held) + own_seconds(own, others)
    gain = cost - values.value
    better = np.flatnonzero(gain > LEAST_GAIN * np.abs(cost))
    if not len(better):
        return 0
    better = better[np.argsort(-(gain * size)[better], kind="stable")]
    paths = cheapest_paths(classes, class_of, values, weights, others)
    changes = classes.holds(class_of, paths.cached) - held

    # Each response was found as if it were the only one: what earlier ones took is gone.
    moved = 0
    for column in better:
        change = changes[:, :, column]
        if (assignment.used + size[column] * change > problem.storage).any():
            continue
        if others is not None:  # earlier moves of this batch have changed the sums
            new = np.stack([paths.migration[:, column], paths.broadcast[:, column]])
            sums = assignment.sums + size[column] * (new - own[:, :, column])
            longer = sums.max(axis=0).sum() - assignment.sums.max(axis=0).sum()
            if longer + size[column] * (price * change).sum() >= 0:
                continue
        assignment.put(int(batch[column]), paths, int(column))
        moved += 1
    return moved


def own_seconds(own: FloatArray, others: FloatArray | None) -> FloatArray:
    """Seconds per byte that each block adds to its slots, all slots together, (B,).

    Parameters
    ----------
    own
        (2, T, B) migration and broadcast of the block.
    others
        (2, T, B) those of the others if pipelined, None if sequential.
    """
    if others is None:
        return np.asarray(own.sum(axis=(0, 1)))
    return np.asarray(((others + own).max(axis=0) - others.max(axis=0)).sum(axis=0))


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
    size, class_of = problem.block_size, classes.of_block
    if share is None:
        nothing = Assignment(problem, classes, empty.columns(class_of))
        return nothing, np.arange(problem.blocks)
    # Paths that came after the last optimum have no share.
    share = np.pad(share, (0, len(master.class_of) - len(share)))
    chosen = np.empty(problem.blocks, dtype=np.int64)
    for c in range(len(classes.size)):
        paths = np.flatnonzero((master.class_of == c) & (share > LEAST_SHARE))
        blocks = np.flatnonzero(class_of == c)
        chosen[blocks] = paths[paths_by_share(share[paths] * classes.size[c], size[blocks])]
    return fitted(problem, classes, master.paths, chosen, empty)


def paths_by_share(lacking: FloatArray, size: IntArray) -> IntArray:
    """Round shares of bytes to whole blocks; return the path of every block, (B,).

    The largest block first, each goes to the path that lacks most bytes.

    Parameters
    ----------
    lacking
        (P,) bytes that every path should have.
    size
        (B,) byte.

    Examples
    --------
    >>> paths_by_share(np.array([6.0, 5.0]), np.array([2, 5, 4]))
    array([0, 0, 1])
    """
    lacking = lacking.copy()
    pick = np.empty(len(size), dtype=np.int64)
    for b in np.argsort(-size, kind="stable").tolist():
        pick[b] = int(lacking.argmax())
        lacking[pick[b]] -= size[b]
    return pick


def fitted(
    problem: PlacementProblem, classes: Classes, paths: Paths, chosen: IntArray, empty: Paths
) -> tuple[Assignment, IntArray]:
    """Give every block its path if it still fits: large blocks first, small ones fill the gaps.

    Parameters
    ----------
    problem, classes
        The problem and its tables.
    paths, chosen
        Paths, and which of them each block (J,) is to have.
    empty
        Path of every class that caches nothing: that of the blocks that do not fit.

    Returns
    -------
    assignment, left
        The placement, and the blocks left out.
    """
    size = problem.block_size
    assignment = Assignment(problem, classes, empty.columns(classes.of_block))
    left = []
    for j in np.argsort(-size, kind="stable").tolist():
        held = assignment.held(j, paths.cached[:, chosen[j]])
        if (assignment.used + size[j] * held <= problem.storage).all():
            assignment.put(j, paths, int(chosen[j]))
        else:
            left.append(j)
    return assignment, np.array(left, dtype=np.int64)
