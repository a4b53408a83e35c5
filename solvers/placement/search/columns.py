"""Column generation over paths: the restricted master programme.

    minimise    sum_p w_p c_p y_p
    subject to  sum_{p of class c} y_p = 1                          for every class
                sum_p w_p X_{p,t,n} y_p <= S_n                      for every slot and node
    pipelined:  minimise sum_t D_t with D_t at least the migrations and the broadcasts of slot t

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
from finecast.solvers.highs import QuietHighs
from finecast.solvers.placement.bound import Prices, no_prices
from finecast.solvers.placement.chains import Classes
from finecast.solvers.placement.dynamic_programme import Paths, cheapest_paths, cost_to_go
from finecast.solvers.placement.problem import PlacementProblem


class Master:
    """The restricted master programme and its pool of paths.

    Rows: storage (T N), classes (C), and if pipelined migrations (T) and broadcasts (T).
    Columns: if pipelined D_t (T), then the paths. Bytes are counted in total bytes of the library
    and seconds in `unit` seconds per byte, so that all numbers are near one.
    """

    def __init__(self, problem: PlacementProblem, classes: Classes) -> None:
        self.problem = problem
        self.classes = classes
        self.total = float(classes.size.sum())
        self.pipelined = problem.schedule == "pipelined"
        self.of = np.zeros(0, dtype=np.int64)
        slots = problem.slots
        self.cached = np.zeros((slots, 0), dtype=np.int64)
        self.sender = np.zeros((slots, 0), dtype=np.int64)
        self.migration = np.zeros((slots, 0))
        self.broadcast = np.zeros((slots, 0))
        self._known: set[bytes] = set()
        empty = empty_paths(problem, classes)
        self.unit = float(
            ((empty.migration + empty.broadcast).sum(axis=0) * classes.size).sum() / self.total
        )
        self.unit = self.unit or 1.0
        self._highs = self._rows()
        self.add(np.arange(len(classes.size)), empty)

    def _rows(self) -> Any:
        slots, nodes = self.problem.slots, self.problem.nodes
        highs = QuietHighs()
        highs.setOptionValue("threads", 1)
        highs.setOptionValue("presolve", "off")
        one = np.ones(len(self.classes.size))
        upper = [np.tile(self.problem.storage / self.total, slots), one]
        lower = [np.full(slots * nodes, -np.inf), one]
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
            first = slots * nodes + len(one)
            index = (first + np.arange(slots)[:, None] + [0, slots]).astype(np.int32).ravel()
            highs.addCols(
                slots, np.ones(slots), np.zeros(slots), np.full(slots, np.inf), 2 * slots,
                np.arange(0, 2 * slots, 2, dtype=np.int32), index, np.full(2 * slots, -1.0),
            )  # fmt: skip
        return highs

    @property
    def paths(self) -> Paths:
        """All paths of the pool."""
        return Paths(self.cached, self.sender, self.migration, self.broadcast)

    def add(self, of: IntArray, paths: Paths) -> int:
        """Add the paths of the classes `of` (B,) that are new; return how many were."""
        keys = np.concatenate([of[None], paths.cached, paths.sender]).T.copy()
        new = []
        for p, key in enumerate(keys):
            text = key.tobytes()
            if text not in self._known:
                self._known.add(text)
                new.append(p)
        if not new:
            return 0
        of = of[new]
        cached, sender = paths.cached[:, new], paths.sender[:, new]
        migration, broadcast = paths.migration[:, new], paths.broadcast[:, new]
        slots, nodes = self.problem.slots, self.problem.nodes
        weight = self.classes.size[of] / self.total
        holds = self.classes.holds(of, cached)
        parts = [holds.reshape(slots * nodes, -1) * weight]
        member = np.zeros((len(self.classes.size), len(of)))
        member[of, np.arange(len(of))] = 1.0
        parts.append(member)
        cost = weight * (migration + broadcast).sum(axis=0) / self.unit
        if self.pipelined:
            cost = np.zeros(len(of))
            parts += [migration * weight / self.unit, broadcast * weight / self.unit]
        matrix = np.concatenate(parts).T
        column, row = np.nonzero(matrix)
        start = np.searchsorted(column, np.arange(len(of)))
        self._highs.addCols(
            len(of), cost, np.zeros(len(of)), np.full(len(of), np.inf), len(row),
            start.astype(np.int32), row.astype(np.int32), matrix[column, row],
        )  # fmt: skip
        self.of = np.concatenate([self.of, of])
        self.cached = np.concatenate([self.cached, cached], axis=1)
        self.sender = np.concatenate([self.sender, sender], axis=1)
        self.migration = np.concatenate([self.migration, migration], axis=1)
        self.broadcast = np.concatenate([self.broadcast, broadcast], axis=1)
        return len(of)

    def solve(self, deadline: Deadline) -> tuple[float, Prices, FloatArray] | None:
        """Solve the programme.

        Returns
        -------
        value, prices, share
            Its value (s), its dual prices, and the shares (P,) of the paths; None when the time is
            up or the simplex method gives no optimum.
        """
        self._highs.setOptionValue(
            "time_limit", self._highs.getRunTime() + max(deadline.left(), 0.01)
        )
        self._highs.run()
        if self._highs.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        slots, nodes = self.problem.slots, self.problem.nodes
        solution = self._highs.getSolution()
        dual = np.maximum(0.0, -np.array(solution.row_dual))
        storage = dual[: slots * nodes].reshape(slots, nodes) * self.unit
        primal = np.array(solution.col_value)
        prices = Prices(storage)
        if self.pipelined:
            first = slots * nodes + len(self.classes.size)
            moved, sent = dual[first:].reshape(2, slots)
            both = np.where(moved + sent > 0, moved + sent, 1.0)
            prices = Prices(storage, np.where(moved + sent > 0, moved / both, 0.5))
            primal = primal[slots:]
        value = self._highs.getInfo().objective_function_value * self.unit * self.total
        return value, prices, primal

    def reduced_cost(self, prices: Prices, value: FloatArray) -> FloatArray:
        """Price of every path of the pool above the cheapest of its class, s per byte, (P,)."""
        weights = prices.weights
        rent = np.zeros(len(self.of))
        for t in range(self.problem.slots):
            held = self.classes.holds(self.of, self.cached[[t]])[0]
            rent += (held * prices.storage[t][:, None]).sum(axis=0)
        cost = weights.migration @ self.migration + weights.broadcast @ self.broadcast
        excess: FloatArray = cost + rent - value[self.of]
        return excess


def empty_paths(problem: PlacementProblem, classes: Classes) -> Paths:
    """Cheapest paths that cache nothing: always feasible."""
    of = np.arange(len(classes.size))
    closed = np.full((problem.slots, problem.nodes, 1), np.inf)
    weights = no_prices(problem).weights
    return cheapest_paths(classes, of, cost_to_go(classes, of, closed, weights), weights)


def smoothed(centre: Prices, prices: Prices, weight: float) -> Prices:
    """Return the point between the best prices known (weight) and the master's (1 - weight)."""
    storage = weight * centre.storage + (1 - weight) * prices.storage
    if centre.migration_share is None or prices.migration_share is None:
        return Prices(storage)
    share = weight * centre.migration_share + (1 - weight) * prices.migration_share
    return Prices(storage, np.clip(share, 0.0, 1.0))
