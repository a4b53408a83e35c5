"""Whole fillings of the storages, for placements of few blocks: bounds, and starts for a search.

The Lagrangian function of storage prices lets a storage be filled to the last byte by shares of
blocks. Here every block has a price of its own in every storage, pi_{t,n,j} >= 0 seconds per byte,
and a storage is filled by whole blocks:

    L(pi) = sum_j s_j min over paths [cost + pi_j . X]
            - sum_{t,n} max { sum_j s_j pi_{t,n,j} y_j : sum_j s_j y_j <= S_n, y_j in {0, 1} }

is a lower bound on every placement. (A path X of every block that together fit into every storage
are one of the y there.) With pi = lambda it is at least the function of the storage prices, and its
maximum replaces every storage row by the hull of its whole fillings: Lagrangian decomposition,
M. Guignard and S. Kim, Mathematical Programming 39 (1987) 215-228.

The storages hold every filling on the way to the maximum. So the cheapest paths that cache nothing
else are placements, unlike each other, from which a search can start.

The paths come from the dynamic programme, the fillings from all subsets of two halves of the
blocks (E. Horowitz and S. Sahni, Journal of the ACM 21 (1974) 277-292), bytes in whole numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.deadline import NEVER, STATE_WORK, Deadline, count_work
from finecast.solvers.node_set_tables import FULL_TABLES
from finecast.solvers.placement.bound import Prices
from finecast.solvers.placement.chains import Classes
from finecast.solvers.placement.dynamic_programme import (
    Paths,
    cheapest_paths,
    cost_to_go,
    sequential_weights,
)
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.rounding import EPSILON

MOST_BLOCKS = 24
"""Blocks up to which all subsets of both halves are formed: 4,096 of each."""

STEPS = 400
"""Steps of the ascent, at most. The bound hardly moves after 300."""

LENGTH = 0.25
"""First length of a step, in shares of Polyak's."""

LEAST_LENGTH = 1e-5
"""Length at which the ascent ends."""

FAILURES = 10
"""Steps without a better bound after which the steps start again from the best, half as long."""

MOMENTUM = 0.7
"""Weight of the last direction in the next one."""

PROGRESS = 1e-9
"""A bound counts as better if it is by this share."""

FORBIDDEN = 1e9
"""Price of a copy outside of a filling, seconds per byte: above all that a copy can save."""


@dataclass(frozen=True)
class _Half:
    """All subsets of half of the blocks, by their bytes.

    Attributes
    ----------
    member
        (2^h, J) which blocks.
    weight
        (2^h,) byte, in rising order.
    """

    member: BoolArray
    weight: IntArray

    @classmethod
    def of(cls, block_size: IntArray, blocks: IntArray) -> _Half:
        """Return the subsets of some blocks."""
        member = np.zeros((1 << len(blocks), len(block_size)), dtype=bool)
        member[:, blocks] = (np.arange(len(member))[:, None] >> np.arange(len(blocks))) & 1 == 1
        weight = member @ block_size
        order = np.argsort(weight, kind="stable")
        return cls(member[order], weight[order])


class Fillings:
    """The best fillings of storages by whole blocks.

    Examples
    --------
    Blocks of 10, 20 and 40 bytes, worth 1, 5 and 5, in a storage of 65 bytes and one of 45.

    >>> fillings = Fillings(np.array([10, 20, 40]), np.array([65, 45]))
    >>> value, chosen = fillings.best(np.array([[[1.0, 5.0, 5.0], [1.0, 5.0, 5.0]]]))
    >>> value.tolist(), chosen.astype(int).tolist()
    ([[10.0, 6.0]], [[[0, 1, 1], [1, 1, 0]]])
    """

    def __init__(self, block_size: IntArray, storage: IntArray) -> None:
        by_size = np.argsort(-block_size, kind="stable")
        self._first, self._second = (_Half.of(block_size, by_size[at::2]) for at in (0, 1))
        # Of every node the first subsets that fit, and the last second one that fits beside each.
        room = storage[:, None] - self._first.weight
        self._beside = np.searchsorted(self._second.weight, room, side="right") - 1  # (N, 2^h)

    def best(self, worth: FloatArray) -> tuple[FloatArray, BoolArray]:
        """Return the largest worth that fits.

        Parameters
        ----------
        worth
            (T, N, J) of every block, at least 0.

        Returns
        -------
        value
            (T, N).
        chosen
            (T, N, J) a filling of this worth.
        """
        first, second = self._first.member, self._second.member
        of_first = worth @ first.T.astype(float)
        of_second = np.maximum.accumulate(worth @ second.T.astype(float), axis=2)
        count_work(STATE_WORK * (of_first.size + of_second.size))
        value = np.empty(worth.shape[:2])
        chosen = np.empty(worth.shape, dtype=bool)
        slots = np.arange(len(worth))
        for n, beside in enumerate(self._beside):
            both = np.where(
                beside >= 0, of_first[:, n] + of_second[:, n, np.maximum(beside, 0)], -np.inf
            )
            pick = both.argmax(axis=1)
            value[:, n] = both[slots, pick]
            # The running maximum is first reached at the subset that it is the worth of.
            reached = of_second[slots, n, beside[pick]]
            other = (of_second[:, n] >= reached[:, None]).argmax(axis=1)
            chosen[:, n] = first[pick] | second[other]
        return value, chosen


@dataclass(frozen=True)
class _Point:
    """The function at prices (T, N, J): bound, filling, and slope, the copies of paths less it."""

    bound: float
    filling: BoolArray
    slope: FloatArray


def _point(
    problem: PlacementProblem, classes: Classes, fillings: Fillings, prices: FloatArray
) -> _Point:
    """Evaluate L(pi), lowered by its rounding.

    A path is a sum of at most T (2 N + 4) terms, a filling one of J products, and all terms are
    non-negative (N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section
    4.2).
    """
    size = problem.block_size.astype(float)
    slots, nodes, blocks = prices.shape
    weights = sequential_weights(slots)
    values = cost_to_go(classes, classes.of_block, prices, weights)
    paths = cheapest_paths(classes, classes.of_block, values, weights)
    worth, chosen = fillings.best(prices * size)
    gain, rent = float(size @ values.value), float(worth.sum())
    roundings = slots * (2 * nodes + 4) + slots * nodes + 2 * blocks + 8
    allowance = 2.0 * roundings * EPSILON * (gain + rent)
    slope = classes.holds(classes.of_block, paths.cached) - chosen.astype(float)
    return _Point(gain - rent - allowance, chosen, slope)


def has_hulls(problem: PlacementProblem) -> bool:
    """Whether `hull_bound` is for the problem: few blocks, up to 8 nodes, a sequential schedule."""
    few = problem.blocks <= MOST_BLOCKS and problem.nodes <= FULL_TABLES
    return few and problem.schedule == "sequential"


@dataclass(frozen=True)
class HullAscent:
    """What the ascent came to.

    Attributes
    ----------
    bound
        Certified, s.
    fillings
        (steps, T, N, J) what filled the storages on the way, from the first step to the last.
    """

    bound: float
    fillings: BoolArray


def hull_ascent(
    problem: PlacementProblem,
    classes: Classes,
    prices: Prices,
    goal: float,
    *,
    deadline: Deadline = NEVER,
) -> HullAscent:
    """Raise the prices of whole fillings.

    Steps go towards the goal, shortened when they fail (B. T. Polyak, USSR Computational
    Mathematics and Mathematical Physics 9 (1969) 14-29), along the slope and part of the last
    direction.

    Parameters
    ----------
    problem, classes
        A problem with hulls (`has_hulls`), and its tables, whose units are the nodes.
    prices
        Storage prices, where the steps begin.
    goal
        Seconds; a bound that reaches it ends the steps.
    deadline
        When to end besides; every bound on the way holds.
    """
    size = problem.block_size.astype(float)
    fillings = Fillings(problem.block_size, problem.storage)
    best_prices = here = np.repeat(prices.storage[:, :, None], problem.blocks, axis=2)
    best, length, failures = 0.0, LENGTH, 0
    direction = np.zeros_like(here)
    on_the_way = []
    for _ in range(STEPS):
        # The bound here: the best so far, or one more failure.
        point = _point(problem, classes, fillings, here)
        on_the_way.append(point.filling)
        if point.bound > best * (1.0 + PROGRESS):
            best, best_prices, failures = point.bound, here, 0
        else:
            failures += 1
        if best >= goal or length < LEAST_LENGTH or deadline.over():
            break

        # A step back to the best after some failures, or a step on towards the goal.
        if failures == FAILURES:
            here, direction, length, failures = best_prices, np.zeros_like(here), length / 2, 0
            continue
        # Steps are counted in seconds of a whole block, to weigh large and small ones alike.
        direction = point.slope + MOMENTUM * direction
        norm = float((direction**2).sum())
        if norm == 0.0:  # the paths are the fillings: a placement, and the bound its delay
            break
        step = length * max(goal - point.bound, 0.0) / norm
        here = np.maximum(0.0, here + step * direction / size)
    return HullAscent(best, np.array(on_the_way))


def hull_bound(
    problem: PlacementProblem,
    classes: Classes,
    prices: Prices,
    goal: float,
    *,
    deadline: Deadline = NEVER,
) -> float:
    """Return a certified bound on the delay (s) by whole fillings of the storages.

    Parameters
    ----------
    problem, classes, prices, goal, deadline
        As for `hull_ascent`.

    Returns
    -------
    float
        0 where the problem is not one for hulls (`has_hulls`).

    Examples
    --------
    Two blocks of 10 bytes, one node with room for one and a half, 1 second per byte on the air and
    3 from the cloud. Storage prices alone prove 35 seconds.

    >>> from finecast.solvers.placement.chains import classes
    >>> problem = PlacementProblem(
    ...     block_size=[10, 10],
    ...     storage=[15],
    ...     group=[[0, 0]],
    ...     broadcast=([[np.inf, 1.0]],),
    ...     link=[[np.inf], [3.0]],
    ... )
    >>> round(hull_bound(problem, classes(problem), Prices(np.array([[3.0]])), 50.0), 6)
    50.0
    """
    if not has_hulls(problem):
        return 0.0
    return hull_ascent(problem, classes, prices, goal, deadline=deadline).bound


def cheapest_within(
    problem: PlacementProblem, classes: Classes, filling: BoolArray
) -> tuple[float, Paths]:
    """Return the delay (s) and the paths (of every block) that cache nothing outside of a filling.

    Parameters
    ----------
    problem, classes
        The problem, and its tables, whose units are the nodes.
    filling
        (T, N, J) what may be cached.
    """
    weights = sequential_weights(problem.slots)
    values = cost_to_go(classes, classes.of_block, np.where(filling, 0.0, FORBIDDEN), weights)
    paths = cheapest_paths(classes, classes.of_block, values, weights)
    return float(problem.block_size @ values.value), paths
