"""Beyond 2^N: every class of blocks gets at most U = 10 units of nodes of its own.

Node sets of a class are bit masks over its units, so that its dynamic programme has 2^U cached sets
for any number of nodes. A unit is a set of nodes that hold a block all together or not at all; it
costs the sum of its nodes' prices and has the block when its last node does, after
max over n in the unit of d_n(X). Nodes in no unit hold every block of the class for free.

**Restricted** (`restricted_classes`): the U - 2 nodes that matter most to the class are a unit
each, the others are two. Every path of units is a path of nodes: the search stays feasible,
but leaves decisions out, and its prices bound nothing.

**Relaxed** (`relaxed_classes`): the U nodes V that matter most are a unit each, the others R hold
everything for free. Its Lagrangian is a bound for *all* decisions. Proof: take any (X_t, Q_t) of a
block and (X_t n V, Q_t n V), which keeps the rule X_{t+1} within Q_t.

    broadcast   by (Q n V) + R, which contains Q: R(U, .) is monotone, so it lasts no longer;
    migration   the receivers (Q n V) - (X n V) are receivers of Q, each from a source in X or the
                cloud; all of these are sources here too, since X is within (X n V) + R;
    storage     the price of X n V is at most that of X, as prices are at least 0.

So sum_j s_j min over relaxed paths [cost + lambda . (X n V)] - sum lambda S is at most the
Lagrangian of the problem itself, which is at most its optimum. V differs from class to class.
What is lost: bytes and migrations of a class at nodes outside its V, and nothing for N <= U.
"""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import BoolArray, IntArray
from finecast.solvers.node_set_tables import bits, members, sets_of
from finecast.solvers.placement.chains import (
    Classes,
    broadcast_times,
    chains_of,
    classes,
    grouped,
    nested,
    reach_times,
)
from finecast.solvers.placement.problem import PlacementProblem

UNITS = 10
"""Units of a class; up to so many nodes nothing is restricted or relaxed."""

REST_UNITS = 2
"""Of these, how many share the nodes that matter least, in the restricted tables."""


def restricted_classes(problem: PlacementProblem, units: int = UNITS) -> Classes:
    """Return the tables of the search: every class with its most important nodes and the rest.

    Parameters
    ----------
    problem
        The problem.
    units
        U, at least 2.
    """
    if problem.nodes <= units:
        return classes(problem)
    order = nodes_by_importance(problem)
    singles = max(units - REST_UNITS, 0)
    shared = problem.nodes - singles  # nodes that share the remaining units
    unit_of_rank = np.concatenate([
        np.arange(singles), singles + np.arange(shared) * (units - singles) // shared
    ])  # fmt: skip
    unit = np.zeros((len(order), units, problem.nodes), dtype=bool)
    unit[np.arange(len(order))[:, None], unit_of_rank, order] = True
    return classes_of_units(problem, unit)


def relaxed_classes(
    problem: PlacementProblem, units: int = UNITS, like: PlacementProblem | None = None
) -> Classes:
    """Return the tables of the bound: every class with its most important nodes, others free.

    Parameters
    ----------
    problem
        The problem.
    units
        U, at least 1.
    like
        The same problem at other rates, whose important nodes to take: prices found there fit.
    """
    if problem.nodes <= units:
        return classes(problem)
    order = nodes_by_importance(like or problem)
    unit = np.zeros((len(order), units, problem.nodes), dtype=bool)
    unit[np.arange(len(order))[:, None], np.arange(units), order[:, :units]] = True
    return classes_of_units(problem, unit)


def nodes_by_importance(problem: PlacementProblem) -> IntArray:
    """Return (C, N) the nodes of every class, the most important first.

    A node matters by the broadcast time that all nodes but it take longer than all nodes do,
    summed over slots; by how much less it takes alone than no node, among those that do not matter.
    """
    _, _, _, group = grouped(problem)
    bit = bits(problem.nodes)[:, None]
    everywhere = bit.sum(axis=0, keepdims=True)
    least = broadcast_times(problem, group, everywhere)
    loss = broadcast_times(problem, group, everywhere - bit) - least  # (T, N, C)
    with np.errstate(divide="ignore"):
        alone = np.where(group[:, None] >= 0, 1.0 / broadcast_times(problem, group, bit), 0.0)
    importance = np.lexsort((-alone.sum(axis=0), -loss.sum(axis=0)), axis=0)
    return np.ascontiguousarray(importance.T)


def classes_of_units(problem: PlacementProblem, unit: BoolArray) -> Classes:
    """Return the tables of classes with given units.

    Parameters
    ----------
    problem
        The problem.
    unit
        (C, U, N) bool, disjoint sets of nodes.
    """
    of_block, size, fits, group = grouped(problem)
    count, units, _ = unit.shape
    sets = np.arange(1 << units)
    member = members(sets, units)
    # Nodes that hold the block, (2^U, C, N): those of the units in the set, and those in no unit.
    held = np.asarray(~unit.any(axis=1) | (member[:, None, :, None] & unit).any(axis=2))
    # A unit has the block when its last node does.
    reach = reach_times(problem.link, held)
    slowest = np.stack([
        np.where(unit[:, u], reach, -np.inf).max(axis=2) for u in range(units)
    ], axis=2)  # fmt: skip
    sender, time = nested(np.broadcast_to(sets[:, None], (len(sets), count)), slowest)
    chain = chains_of(member, np.moveaxis(sender, 1, 2), np.moveaxis(time, 1, 2))
    node_set = sets_of(held)
    broadcast = broadcast_times(problem, group, node_set)
    return Classes(chain, of_block, size, fits, group >= 0, broadcast, unit)
