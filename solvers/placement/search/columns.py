"""Column generation over paths: the restricted master programme.

    minimise    sum_p w_p c_p y_p
    subject to  sum_{p of class c} y_p = 1                          for every class
                sum_p w_p X_{p,t,n} y_p <= S_n                      for every slot and node
    pipelined:  minimise sum_t D_t with D_t at least the migrations and the broadcasts of slot t
    charges:    of cached sets (`Classes.charge`) are part of the objective under either schedule

y_p is the share of the bytes of the class that takes path p. The duals of the storage rows are the
prices; a cheapest path at these prices is the column to add (Dantzig and Wolfe, Operations
Research 8 (1960) 101-111). The prices are smoothed towards the best ones known (P. Wentges,
International Transactions in Operational Research 4 (1997) 151-162).
"""

from __future__ import annotations

from typing import Any

import highspy
import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.deadline import Deadline
from finecast.solvers.highs import QuietHighs, run_within
from finecast.solvers.placement.bound import Prices, no_prices
from finecast.solvers.placement.chains import Classes
from finecast.solvers.placement.dynamic_programme import Paths, cheapest_paths, cost_to_go
from finecast.solvers.placement.problem import PlacementProblem


class Master:
    """The restricted master programme and its pool of paths.

    Rows: storage (T N), classes (C), and if pipelined migrations (T) and broadcasts (T).
    Columns: if pipelined D_t (T), then the paths. Bytes are counted in total bytes of the library
    and seconds in `unit` seconds per byte, so that all numbers are near one.

    Attributes
    ----------
    class_of
        (P,) class of every path of the pool.
    paths
        The P paths.
    """

    def __init__(self, problem: PlacementProblem, classes: Classes) -> None:
        self.problem = problem
        self.classes = classes
        self.total = float(classes.size.sum())
        self.pipelined = problem.schedule == "pipelined"
        empty = empty_paths(problem, classes)
        seconds = (empty.migration + empty.broadcast).sum(axis=0)
        self.unit = float((seconds * classes.size).sum() / self.total) or 1.0
        self.class_of = np.zeros(0, dtype=np.int64)
        self.paths = empty.columns(self.class_of)
        self._known: set[bytes] = set()
        self._highs = self._rows()
        self.add(np.arange(len(classes.size)), empty)

    def _rows(self) -> Any:
        """Return the programme without any path."""
        slots, nodes = self.problem.slots, self.problem.nodes
        highs = QuietHighs()
        highs.setOptionValue("threads", 1)
        highs.setOptionValue("presolve", "off")
        ones = np.ones(len(self.classes.size))
        upper = [np.tile(self.problem.storage / self.total, slots), ones]
        lower = [np.full(slots * nodes, -np.inf), ones]
        if self.pipelined:
            upper.append(np.zeros(2 * slots))
            lower.append(np.full(2 * slots, -np.inf))
        rows = sum(len(part) for part in upper)
        none = np.zeros(0, dtype=np.int32)
        highs.addRows(
            rows, np.concatenate(lower), np.concatenate(upper), 0,
            np.zeros(rows, dtype=np.int32), none, np.zeros(0),
        )  # fmt: skip
        if self.pipelined:
            # D_t costs 1, and is to be at least both sums of its slot.
            sums = slots * nodes + len(ones) + np.arange(slots)
            index = (sums[:, None] + [0, slots]).astype(np.int32).ravel()
            highs.addCols(
                slots, np.ones(slots), np.zeros(slots), np.full(slots, np.inf), 2 * slots,
                np.arange(0, 2 * slots, 2, dtype=np.int32), index, np.full(2 * slots, -1.0),
            )  # fmt: skip
        return highs

    def add(self, class_of: IntArray, paths: Paths) -> int:
        """Add the paths of the classes `class_of` (B,) that are new; return how many were."""
        keys = np.concatenate([class_of[None], paths.cached, paths.sender]).T.copy()
        new = []
        for index, key in enumerate(keys):
            text = key.tobytes()
            if text not in self._known:
                self._known.add(text)
                new.append(index)
        if not new:
            return 0
        class_of, paths = class_of[new], paths.columns(np.array(new))

        # The matrix by rows, in the units of the programme.
        weight = self.classes.size[class_of] / self.total
        holds = self.classes.holds(class_of, paths.cached)
        rows = [holds.reshape(self.problem.slots * self.problem.nodes, -1) * weight]
        member = np.zeros((len(self.classes.size), len(class_of)))
        member[class_of, np.arange(len(class_of))] = 1.0
        rows.append(member)
        seconds = self._charges(class_of, paths)
        if not self.pipelined:
            seconds = seconds + (paths.migration + paths.broadcast).sum(axis=0)
        cost = weight * seconds / self.unit
        if self.pipelined:
            rows += [paths.migration * weight / self.unit, paths.broadcast * weight / self.unit]
        matrix = np.concatenate(rows).T
        column, row = np.nonzero(matrix)
        start = np.searchsorted(column, np.arange(len(class_of)))
        self._highs.addCols(
            len(class_of), cost, np.zeros(len(class_of)), np.full(len(class_of), np.inf), len(row),
            start.astype(np.int32), row.astype(np.int32), matrix[column, row],
        )  # fmt: skip
        self.class_of = np.concatenate([self.class_of, class_of])
        self.paths = self.paths.joined(paths)
        return len(class_of)

    def _charges(self, class_of: IntArray, paths: Paths) -> FloatArray:
        """Return the charges of paths of the classes `class_of` (B,), s per byte, (B,)."""
        if self.classes.charge is None:
            return np.zeros(len(class_of))
        slot = np.arange(self.problem.slots)[:, None]
        charges: FloatArray = self.classes.charge[slot, paths.cached, class_of].sum(axis=0)
        return charges

    def solve(self, deadline: Deadline) -> tuple[float, Prices, FloatArray] | None:
        """Solve the programme.

        Returns
        -------
        value, prices, share
            Its value (s), its dual prices, and the shares (P,) of the paths; None when the time is
            up or the simplex method gives no optimum.
        """
        run_within(self._highs, deadline)
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        slots, nodes = self.problem.slots, self.problem.nodes
        solution = self._highs.getSolution()
        # Rounding may leave a dual price of the wrong sign.
        dual = np.maximum(0.0, -np.array(solution.row_dual))
        storage = dual[: slots * nodes].reshape(slots, nodes) * self.unit
        share = np.array(solution.col_value)
        prices = Prices(storage)
        if self.pipelined:
            # The two duals of a slot sum to 1, except where it has nothing to do.
            sums = slots * nodes + len(self.classes.size)
            moved, sent = dual[sums:].reshape(2, slots)
            both = np.where(moved + sent > 0, moved + sent, 1.0)
            prices = Prices(storage, np.where(moved + sent > 0, moved / both, 0.5))
            share = share[slots:]
        value = self._highs.getInfo().objective_function_value * self.unit * self.total
        return value, prices, share

    def reduced_cost(self, prices: Prices, value: FloatArray) -> FloatArray:
        """Price of every path of the pool above the cheapest of its class, s per byte, (P,).

        Parameters
        ----------
        prices
            Where.
        value
            (C,) price of the cheapest path of every class, s per byte.
        """
        paths, weights = self.paths, prices.weights
        rent = np.zeros(len(self.class_of))
        for t in range(self.problem.slots):
            held = self.classes.holds(self.class_of, paths.cached[[t]])[0]
            rent += (held * prices.storage[t][:, None]).sum(axis=0)
        cost = weights.migration @ paths.migration + weights.broadcast @ paths.broadcast
        cost = cost + self._charges(self.class_of, paths)
        excess: FloatArray = cost + rent - value[self.class_of]
        return excess


def empty_paths(problem: PlacementProblem, classes: Classes) -> Paths:
    """Cheapest paths that cache nothing: always feasible."""
    class_of = np.arange(len(classes.size))
    closed = np.full((problem.slots, problem.nodes, 1), np.inf)
    weights = no_prices(problem).weights
    return cheapest_paths(
        classes, class_of, cost_to_go(classes, class_of, closed, weights), weights
    )


def smoothed(centre: Prices, prices: Prices, weight: float) -> Prices:
    """Return the point between the best prices known (weight) and the master's (1 - weight)."""
    storage = weight * centre.storage + (1 - weight) * prices.storage
    if centre.migration_share is None or prices.migration_share is None:
        return Prices(storage)
    share = weight * centre.migration_share + (1 - weight) * prices.migration_share
    return Prices(storage, np.clip(share, 0.0, 1.0))
