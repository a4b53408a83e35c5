"""All paths of cached sets that a placement below a given delay may take, block by block.

A path is a cached set in every slot. It costs the cheapest senders that leave the next set behind.
With prices lambda, let the path of block j cost r per byte above the cheapest of all. Then the
delay of every placement that takes it is at least L(lambda) + s_j r, so a path with more than
the room between that and the delay to beat is in no better placement. Nor does one need a
path that costs no less than another whose copies it has all: the other one takes its place.

Bounds here are Lagrangian: for any prices, and any choice of paths allowed,

    sum_j min over allowed p [c_p + s_j lambda . X_p] - lambda . S

is at most the delay of every placement that takes allowed paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.placement.bound import PricePoint
from finecast.solvers.placement.chains import Classes
from finecast.solvers.placement.dynamic_programme import (
    CostToGo,
    cost_to_go,
    sequential_weights,
    set_prices,
)
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.placement.transitions import slot_transitions
from finecast.solvers.rounding import EPSILON, SUM_ALLOWANCE

MOST_COPIES = 62
"""Slots times nodes: so many bits say what a path caches."""


@dataclass(frozen=True)
class UsefulPaths:
    """Paths of every block, filled up to the same number K.

    Attributes
    ----------
    cost
        (J, K) s, infinite where there is no path.
    copies
        (J, K) bit mask of what is cached: bit t N + n for slot t and node n.
    holds
        (J, K, T N) bytes cached by slot and node.
    storage
        (T N,) byte.
    """

    cost: FloatArray
    copies: IntArray
    holds: IntArray
    storage: IntArray

    @cached_property
    def bytes(self) -> FloatArray:
        """(J, K, T N) what is held, as float64."""
        return self.holds.astype(float)

    @property
    def count(self) -> int:
        """How many paths there are."""
        return int(np.isfinite(self.cost).sum())


def room_for(problem: PlacementProblem, point: PricePoint, classes: Classes, delay: float) -> float:
    """Return the seconds of excess above which no placement faster than `delay` uses an element.

    That is `delay` less L(lambda), which is below zero at prices that are much too high, where the
    bound of the point is zero. The excess of an element is the difference of sums of at most
    T (2 N + 4) terms each, of sizes up to what all blocks cost with their rent, and the excess
    itself. Their rounding is added.

    Parameters
    ----------
    problem, classes
        The problem and its tables.
    point
        Where the excess is taken.
    delay
        Seconds to beat.
    """
    gain = float(classes.size @ point.value)
    rent = float((point.prices.storage * problem.storage).sum())
    terms = 8 * problem.slots * (2 * problem.nodes + 4) + len(classes.size)
    allowance = terms * EPSILON * (gain + rent + 2.0 * delay) + SUM_ALLOWANCE * delay
    return delay - (gain - rent) + allowance


def useful_paths(
    problem: PlacementProblem, classes: Classes, point: PricePoint, delay: float, most: int
) -> UsefulPaths | None:
    """Return the paths of placements faster than `delay`; None where they are too many.

    Parameters
    ----------
    problem, classes
        The problem, whose schedule is sequential, and its tables, whose units are the nodes.
    point
        Point of the Lagrangian dual.
    delay
        Seconds to beat.
    most
        Paths of one block that are looked at before any is left out for another.

    Examples
    --------
    Blocks of 10 and 20 bytes, one node with room for 20, 1 second per byte on the air and 3 from
    the cloud. At a price of 3 every path costs the same.

    >>> from finecast.solvers.placement.bound import Prices, dual_point
    >>> from finecast.solvers.placement.chains import classes
    >>> problem = PlacementProblem(
    ...     block_size=[10, 20],
    ...     storage=[20],
    ...     group=[[0, 0]],
    ...     broadcast=([[np.inf, 1.0]],),
    ...     link=[[np.inf], [3.0]],
    ... )
    >>> tables = classes(problem)
    >>> point = dual_point(problem, tables, Prices(np.array([[3.0]])))
    >>> paths = useful_paths(problem, tables, point, 60.0, most=10)
    >>> paths.cost.tolist(), paths.copies.tolist()
    ([[10.0, 40.0], [20.0, 80.0]], [[1, 0], [1, 0]])
    """
    slots, nodes = problem.slots, problem.nodes
    if slots * nodes > MOST_COPIES:
        return None
    room = room_for(problem, point, classes, delay)
    prices = point.prices.storage
    every = np.arange(len(classes.size))
    onward = cost_to_go(classes, every, prices[:, :, None], sequential_weights(slots))
    rent = set_prices(np.where(classes.fits, prices[:, :, None], np.inf))
    costs, copies = [], []
    for j, size in enumerate(problem.block_size.tolist()):
        found = _paths(classes, onward, rent, int(classes.of_block[j]), room / size, most)
        if found is None:
            return None
        mask, cost = _undominated(*found)
        copies.append(mask)
        costs.append(cost * size)
    return _filled(problem, costs, copies)


def _paths(
    classes: Classes, onward: CostToGo, rent: FloatArray, c: int, room: float, most: int
) -> tuple[IntArray, FloatArray] | None:
    """Return copies and costs (s per byte) of the paths of class c within `room` of the cheapest.

    The path grows slot by slot. What it costs at least with the best end says whether it may stay.
    """
    slots, _, _ = onward.cached.shape
    nodes = len(classes.chains.count) - 1
    limit = onward.cached[0][:, c].min() + room
    last = np.flatnonzero(onward.cached[0][:, c] <= limit)  # the cached set of the last slot
    mask, cost, rents = last.astype(np.int64), np.zeros(len(last)), rent[0][last, c]
    for t in range(slots):
        ways = slot_transitions(classes, t, c)
        if t == slots - 1:
            return mask, cost + ways[last, 0]
        least = cost[:, None] + rents[:, None] + ways[last] + onward.cached[t + 1][:, c]
        path, after = np.nonzero(least <= limit)
        if len(path) > most:
            return None
        cost = cost[path] + ways[last[path], after]
        rents = rents[path] + rent[t + 1][after, c]
        mask = mask[path] | after << (t + 1) * nodes
        last = after
    raise AssertionError("a problem has slots")


def _undominated(mask: IntArray, cost: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return the paths that no other one replaces: at most as dear, and with no copy beyond."""
    copies = np.bitwise_count(mask)
    order = np.lexsort((mask, copies, cost))
    kept: IntArray = np.zeros(len(mask), dtype=np.int64)
    count = 0
    for path in order:
        if not ((kept[:count] & ~mask[path]) == 0).any():
            kept[count] = mask[path]
            order[count] = path
            count += 1
    return kept[:count], cost[order[:count]]


def _filled(
    problem: PlacementProblem, costs: list[FloatArray], copies: list[IntArray]
) -> UsefulPaths:
    """Return the paths of all blocks as arrays."""
    blocks, most = problem.blocks, max(len(cost) for cost in costs)
    cost = np.full((blocks, most), np.inf)
    mask = np.zeros((blocks, most), dtype=np.int64)
    for j in range(blocks):
        cost[j, : len(costs[j])] = costs[j]
        mask[j, : len(costs[j])] = copies[j]
    bits = (mask[:, :, None] >> np.arange(problem.slots * problem.nodes)) & 1
    holds = bits * problem.block_size[:, None, None]
    return UsefulPaths(cost, mask, holds, np.tile(problem.storage, problem.slots))
