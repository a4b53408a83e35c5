"""The core programme: whole paths for large blocks, shares of paths for all small ones.

    minimise    sum_p w_p c_p y_p
    subject to  sum_{p of group g} y_p = k_g                        for every group
                sum_p w_p X_{p,t,n} y_p <= free_{t,n}               for every slot and node
                y_p whole where the group is of large blocks

A group of large blocks has k blocks of one class and one size w, so that equal blocks have no order
among them. The small blocks of a class are one group with k = 1 and w all their bytes: rounding
their shares costs little, since what is left over is at most a small block. What makes a plan loose
is which large blocks share a cache, and this decides it for all of them together.
"""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.deadline import NEVER
from finecast.solvers.highs import QuietHighs, run_within
from finecast.solvers.placement.chains import Classes
from finecast.solvers.placement.dynamic_programme import (
    Paths,
    cheapest_paths,
    cost_to_go,
    sequential_weights,
)
from finecast.solvers.placement.problem import PlacementProblem

LARGE = 0.04
"""Share of the smallest cache from which on a block is large."""

WHOLE = 1e-6
"""A share this close to a whole number is one: the tolerance of HiGHS."""


@dataclass(frozen=True)
class Groups:
    """The blocks by group.

    Attributes
    ----------
    of_block
        (J,) group of every block.
    class_of
        (G,) class of every group.
    weight
        (G,) byte that one unit of a group stands for.
    count
        (G,) units.
    large
        (G,) the group is of large blocks.
    """

    of_block: IntArray
    class_of: IntArray
    weight: FloatArray
    count: IntArray
    large: BoolArray


def core_groups(problem: PlacementProblem, classes: Classes) -> Groups | None:
    """Return the groups; None where the core has nothing to decide.

    That is so where all blocks are large, since then nothing is left to shares, where all are
    small, and with a pipelined schedule, whose delay is no sum over the blocks.

    Examples
    --------
    Two blocks of 50 bytes and one of 40 are large in a cache of 100, and two of 3 bytes are small.

    >>> from finecast.solvers.placement.chains import classes
    >>> problem = PlacementProblem(
    ...     block_size=[50, 3, 40, 50, 3],
    ...     storage=[100],
    ...     group=[[0, 0, 0, 0, 0]],
    ...     broadcast=([[np.inf, 1.0]],),
    ...     link=[[np.inf], [3.0]],
    ... )
    >>> groups = core_groups(problem, classes(problem))
    >>> groups.of_block.tolist(), groups.weight.tolist(), groups.count.tolist()
    ([2, 0, 1, 2, 0], [6.0, 40.0, 50.0], [1, 1, 2])
    """
    size = problem.block_size
    large = size >= LARGE * problem.storage.min()
    if problem.schedule == "pipelined" or large.all() or not large.any():
        return None
    label = np.stack([classes.of_block, np.where(large, size, 0)])
    (class_of, whole), of_block = np.unique(label, axis=1, return_inverse=True)
    of_block = of_block.reshape(-1)
    blocks = np.bincount(of_block)
    weight = np.where(whole > 0, whole, np.bincount(of_block, weights=size))
    return Groups(of_block, class_of, weight, np.where(whole > 0, blocks, 1), whole > 0)


class CoreProgramme:
    """The programme over some of the groups, with the paths known so far.

    Bytes are counted in the largest cache, so that the matrix is near one.

    Parameters
    ----------
    problem, classes
        The problem and its tables.
    groups
        Of all blocks.
    used
        (U,) the groups that choose again; a group is numbered here by its place among them.
    free
        (T, N) bytes that they may use together.

    Attributes
    ----------
    group
        (P,) group of every path.
    paths
        The P paths.
    least, most
        (P,) bounds of the shares.
    """

    def __init__(
        self,
        problem: PlacementProblem,
        classes: Classes,
        groups: Groups,
        used: IntArray,
        free: IntArray,
    ) -> None:
        self.classes, self.free = classes, free
        self.class_of, self.weight = groups.class_of[used], groups.weight[used]
        self.count, self.large = groups.count[used], groups.large[used]
        self.group = np.zeros(0, dtype=np.int64)
        nothing = np.zeros((problem.slots, 0))
        self.paths = Paths(nothing.astype(np.int64), nothing.astype(np.int64), nothing, nothing)
        self.least = self.most = np.zeros(0)
        self._known: dict[bytes, int] = {}
        self._scale = max(float(problem.storage.max()), 1.0)
        self._weights = sequential_weights(problem.slots)
        rows = free.size + len(used)
        ones = self.count.astype(float)
        self.highs = QuietHighs()
        # Given a start, the presolve of HiGHS 1.16 misjudges its cost and cuts the optimum off.
        for option, value in (("threads", 1), ("presolve", "off")):
            self.highs.setOptionValue(option, value)
        self.highs.addRows(
            rows, np.concatenate([np.full(free.size, -np.inf), ones]),
            np.concatenate([free.reshape(-1) / self._scale, ones]), 0,
            np.zeros(rows, dtype=np.int32), np.zeros(0, dtype=np.int32), np.zeros(0),
        )  # fmt: skip

    def holds(self, columns: IntArray) -> IntArray:
        """Return (T, N, len(columns)) zeros and ones: the nodes that cache on these paths."""
        return self.classes.holds(self.class_of[self.group[columns]], self.paths.cached[:, columns])

    def add(self, group: IntArray, paths: Paths) -> int:
        """Add the paths of the groups (B,) that are new; return how many were."""
        new: list[int] = []
        for index, key in enumerate(_keys(group, paths)):
            if key not in self._known:
                self._known[key] = len(self.group) + len(new)
                new.append(index)
        if not new:
            return 0
        group, paths = group[new], paths.columns(np.array(new))
        count, weight = len(new), self.weight[group]
        holds = self.classes.holds(self.class_of[group], paths.cached).reshape(self.free.size, -1)
        member = (np.arange(len(self.count))[:, None] == group).astype(float)
        matrix = np.concatenate([holds * (weight / self._scale), member]).T
        column, row = np.nonzero(matrix)
        most = self.count[group].astype(float)
        self.highs.addCols(
            count, weight * (paths.migration + paths.broadcast).sum(axis=0), np.zeros(count), most,
            len(row), np.searchsorted(column, np.arange(count)).astype(np.int32),
            row.astype(np.int32), matrix[column, row],
        )  # fmt: skip
        self.group = np.concatenate([self.group, group])
        self.paths = self.paths.joined(paths)
        self.least = np.concatenate([self.least, np.zeros(count)])
        self.most = np.concatenate([self.most, most])
        return count

    def find(self, group: IntArray, paths: Paths) -> IntArray:
        """Return where the paths of the groups (B,), all of them known, stand, (B,)."""
        return np.array([self._known[key] for key in _keys(group, paths)], dtype=np.int64)

    def value(self, share: FloatArray) -> float:
        """Return the seconds of shares of the first paths."""
        paths, count = self.paths, len(share)
        seconds = (paths.migration + paths.broadcast)[:, :count].sum(axis=0)
        return float((self.weight[self.group[:count]] * seconds) @ share)

    def bound(self, columns: IntArray, least: FloatArray, most: FloatArray) -> None:
        """Set the bounds of some shares."""
        self.least[columns], self.most[columns] = least, most
        self.highs.changeColsBounds(len(columns), columns.astype(np.int32), least, most)

    def free_everything(self) -> None:
        """Set the bounds of all shares to those of their groups."""
        most = self.count[self.group].astype(float)
        self.bound(np.arange(len(most)), np.zeros(len(most)), most)

    def relaxed(self) -> tuple[float, FloatArray, FloatArray] | None:
        """Solve the programme with shares of large blocks too.

        Returns
        -------
        value, share, price
            Its value (s), the shares (P,), and the price of a byte (T, N), s; None where it has no
            solution.
        """
        run_within(self.highs, NEVER)
        if self.highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        solution = self.highs.getSolution()
        dual = np.maximum(0.0, -np.array(solution.row_dual)[: self.free.size]) / self._scale
        value = float(self.highs.getInfo().objective_function_value)
        return value, np.array(solution.col_value), dual.reshape(self.free.shape)

    @property
    def open(self) -> FloatArray:
        """(U,) units of every group whose path is not fixed."""
        fixed = np.bincount(self.group, weights=self.least, minlength=len(self.count))
        return (self.count - fixed).astype(float)

    @property
    def left(self) -> FloatArray:
        """(T, N) bytes that the fixed paths of large blocks leave."""
        fixed = np.flatnonzero((self.least > 0) & self.large[self.group])
        taken = self.least[fixed] * self.weight[self.group[fixed]]
        return np.asarray(self.free - self.holds(fixed) @ taken)

    def price(self, price: FloatArray, groups: IntArray) -> int:
        """Add the cheapest path of every group (B,) at prices (T, N); return how many are new.

        A large block stays out of caches that the fixed blocks leave no room for it in: a path
        that cannot be taken whole is none.
        """
        size = np.where(self.large, self.weight, 0.0)[groups]
        fits = self.left[:, :, None] >= size
        allowed = np.where(fits, price[:, :, None], np.inf)
        class_of = self.class_of[groups]
        values = cost_to_go(self.classes, class_of, allowed, self._weights)
        return self.add(groups, cheapest_paths(self.classes, class_of, values, self._weights))

    def fix(self, columns: IntArray, units: FloatArray) -> None:
        """Give so many more units of large blocks to these paths; close what no longer fits."""
        self.bound(columns, self.least[columns] + units, self.most[columns])
        still = np.flatnonzero(self.large[self.group] & (self.most > self.least))
        size = self.weight[self.group[still]]
        tight = ((self.holds(still) > 0) & (self.left[:, :, None] < size)).any(axis=(0, 1))
        shut = still[tight | (self.open[self.group[still]] < 1)]
        self.bound(shut, self.least[shut], self.least[shut])


def _keys(group: IntArray, paths: Paths) -> list[bytes]:
    """Return what tells the paths of the groups (B,) apart."""
    keys = np.concatenate([group[None], paths.cached, paths.sender]).T.copy()
    return [key.tobytes() for key in keys]
