"""The state-flow model in the integers of CP-SAT, such that its bound holds for the true costs.

CP-SAT knows whole numbers alone. Bytes are whole already, so a storage is kept to the byte. A
second is `UNITS` / (delay to beat) units, and every cost is rounded *down* to whole units: for each
plan the rounded cost is no more than the true one, hence so is the least rounded cost. A plan pays
at most two costs per slot and block, and loses less than one unit with each.

Every p and a is 0 or 1 in the integers, which the flow of a real plan is anyway. That exactly one
p[t, X] of a slot and a block is 1, and exactly one a[t, X, l], follows from the flow; said outright
it is what CP-SAT infers most from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from ortools.sat.python import cp_model

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.placement.exact.state_flow_model import Model
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.rounding import EPSILON

UNITS = 10**9
"""Whole units of the delay to beat."""


@dataclass(frozen=True)
class CpSatModel:
    """The model in the objects of CP-SAT.

    Attributes
    ----------
    model
        What CP-SAT solves.
    variables
        One for every column of the state-flow model.
    cost
        (V,) whole units.
    """

    model: cp_model.CpModel
    variables: list[cp_model.IntVar]
    cost: IntArray

    def forbid(self, most: int) -> None:
        """Have every plan cost at most so many units."""
        paid = np.flatnonzero(self.cost)
        self.model.add(_weighted(self.variables, paid, self.cost[paid]) <= most)


def rounded_down(value: FloatArray) -> IntArray:
    """Return value x `UNITS` in whole numbers that are never above it.

    Parameters
    ----------
    value
        At least 0.

    Examples
    --------
    >>> rounded_down(np.array([0.0, 0.5, 1.23456789e-3]))
    array([        0, 499999999,   1234567])
    """
    # The product itself is rounded: the margin keeps it below the true one.
    return np.floor(value * UNITS * (1.0 - 4.0 * EPSILON)).astype(np.int64)


def cp_sat_model(problem: PlacementProblem, milp: Model) -> CpSatModel:
    """Translate the state-flow model.

    Parameters
    ----------
    problem
        The problem.
    milp
        Its state-flow model, whose first rows are the storage of every slot and node, and whose
        next, if pipelined, the migrations and the broadcasts of every slot.
    """
    model = cp_model.CpModel()
    slots, nodes = problem.slots, problem.nodes
    # The end of a pipelined slot is at most the delay to beat; all else is 0 or 1.
    variables = [
        model.new_int_var(0, UNITS, "") if np.isinf(upper) else model.new_bool_var("")
        for upper in milp.upper.tolist()
    ]

    # Storage in whole bytes, without the room that a solver with tolerances needs.
    divisor = int(np.gcd.reduce(problem.block_size)) if problem.blocks else 1
    size = problem.block_size // divisor
    for t, n in np.ndindex(slots, nodes):
        fill = _weighted(variables, milp.x[t, n], size)
        model.add(fill <= int(problem.storage[n]) // divisor)

    # The flows have coefficients of 1 and -1. The seconds of a pipelined slot are rounded down,
    # which only lowers the ends of slots.
    order = np.argsort(milp.row, kind="stable")
    row, column, value = milp.row[order], milp.column[order], milp.value[order]
    first_flow = slots * nodes + (2 * slots if problem.schedule == "pipelined" else 0)
    begin = np.searchsorted(row, np.arange(len(milp.lower) + 1))
    for r in range(slots * nodes, len(milp.lower)):
        entry = slice(begin[r], begin[r + 1])
        amount = value[entry]
        if r < first_flow:
            whole = np.where(amount < 0, -1, rounded_down(np.abs(amount)))
        else:
            whole = np.rint(amount).astype(np.int64)
        total = _weighted(variables, column[entry], whole)
        if np.isinf(milp.lower[r]):
            model.add(total <= int(milp.above[r]))
        else:
            model.add(total == int(milp.lower[r]))

    # One cached set, and one sender set where the block is needed.
    for columns, at in ((milp.state, milp.state_at), (milp.arc, milp.arc_at)):
        key = at[:, 0] * problem.blocks + at[:, 1]
        for members in np.split(*_by_key(columns, key)):
            model.add_exactly_one(variables[v] for v in members.tolist())

    ends = np.isinf(milp.upper)
    cost = np.where(ends, np.rint(milp.cost).astype(np.int64), rounded_down(milp.cost))
    paid = np.flatnonzero(cost)
    model.minimize(_weighted(variables, paid, cost[paid]))
    return CpSatModel(model, variables, cost)


def _by_key(columns: IntArray, key: IntArray) -> tuple[IntArray, IntArray]:
    """Return the columns ordered by key, and where the keys change."""
    order = np.argsort(key, kind="stable")
    return columns[order], np.flatnonzero(np.diff(key[order])) + 1


def _weighted(
    variables: list[cp_model.IntVar], columns: IntArray, weight: IntArray
) -> cp_model.LinearExprT:
    """Return the sum of the weights times the variables of the columns."""
    chosen = [variables[v] for v in columns.tolist()]
    return cp_model.LinearExpr.weighted_sum(chosen, weight.tolist())
