"""Ascent of the Lagrangian dual: subgradient steps first, column generation after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.placement.bound import PricePoint, Prices, dual_point, no_prices
from finecast.solvers.placement.chains import Classes, placement_of_paths
from finecast.solvers.placement.dynamic_programme import Paths
from finecast.solvers.placement.problem import PlacementProblem, placement_delay
from finecast.solvers.placement.search.columns import Master, empty_paths, smoothed

SUBGRADIENT_STEPS = 60
"""Subgradient steps before column generation."""

FAILURES = 3
"""Steps without a better bound after which the steps start again from the best, half as long."""

LEAST_STEP = 1e-6
"""The goal of a step is above the bound by this share of the goal at least."""

COLUMN_ROUNDS = 300
"""Most rounds of column generation. Instances of up to 300 blocks and 20 slots need 10."""

SMOOTHING = 0.7
"""Weight of the best prices known against those of the master programme."""


@dataclass(frozen=True)
class Ascent:
    """Where the ascent ended.

    Attributes
    ----------
    best
        The point with the best bound.
    master
        The master programme with all paths found.
    share
        (P,) shares of the paths in the last optimum of the master, None if it never had one.
    value
        Last value of the master (s), an estimate of the best bound there is.
    """

    best: PricePoint
    master: Master
    share: FloatArray | None
    value: float


def subgradient(problem: PlacementProblem, classes: Classes, point: PricePoint) -> Prices:
    """Return bytes wanted beyond the storage (T, N), and migrations less broadcasts (T,) in s."""
    paths = point.paths
    holds = classes.holds(np.arange(len(classes.size)), paths.cached)
    share = None
    if point.prices.migration_share is not None:
        share = (paths.migration - paths.broadcast) @ classes.size
    return Prices(holds @ classes.size - problem.storage, share)


def ascend(
    problem: PlacementProblem,
    classes: Classes,
    point: PricePoint,
    upper: float,
    *,
    tolerance: float,
    deadline: Deadline,
    report: Callable[[float], None] = lambda bound: None,
    pool: tuple[IntArray, Paths] | None = None,
    rounds: int = COLUMN_ROUNDS,
) -> Ascent:
    """Raise the bound until the master programme proves it within `tolerance` of the best.

    Parameters
    ----------
    problem, classes
        The problem and its tables.
    point
        Where to start.
    upper
        Delay, and charges, of any placement (s): the goal of the first steps.
    tolerance
        Relative distance of bound and master value at which to stop.
    deadline
        When to stop.
    report
        Called with every better bound.
    pool
        Classes (P,) and paths that are known to be good: they replace the first steps.
    rounds
        Most rounds of column generation.
    """
    deadline = deadline.of("bound")
    master = Master(problem, classes)
    everything = np.arange(len(classes.size))
    master.add(everything, point.paths)
    best = point
    if pool is None:
        best = _subgradient_steps(problem, classes, master, point, upper, deadline, report)
    else:
        master.add(*pool)

    # Column generation: the master's prices, and the cheapest paths at prices near them.
    share, value = None, np.inf
    for _ in range(rounds):
        if deadline.over():
            break
        solved = master.solve(deadline)
        if solved is None:
            break
        value, prices, share = solved
        if value - best.bound <= tolerance * abs(value):
            break
        added = 0
        for weight in (SMOOTHING, 0.0):  # if smoothed prices bring no new path, its own
            point = dual_point(problem, classes, smoothed(best.prices, prices, weight))
            added = master.add(everything, point.paths)
            if point.bound > best.bound:
                best = point
                report(best.bound)
            if added:
                break
        if not added:  # the master has all paths that its prices call for
            break
    return Ascent(best, master, share, value)


def _subgradient_steps(
    problem: PlacementProblem,
    classes: Classes,
    master: Master,
    best: PricePoint,
    upper: float,
    deadline: Deadline,
    report: Callable[[float], None],
) -> PricePoint:
    """Take Polyak's steps towards `upper`, shortened when they fail; return the best point.

    Every path on the way goes to the master. B. T. Polyak, USSR Computational Mathematics and
    Mathematical Physics 9 (1969) 14-29.
    """
    scale = float(classes.size.sum())
    everything = np.arange(len(classes.size))
    point, length, failures = best, 1.0, 0  # length: of a step, in shares of Polyak's
    for _ in range(SUBGRADIENT_STEPS):
        if deadline.over():
            break
        slope = subgradient(problem, classes, point)
        # Bytes are divided by the library and seconds by the delay, to weigh both kinds alike.
        norm = float(((slope.storage / scale) ** 2).sum())
        if slope.migration_share is not None:
            norm += float(((slope.migration_share / upper) ** 2).sum())
        if norm == 0.0:  # the paths fill the storage exactly: no better bound
            break
        step = length * max(upper - point.bound, LEAST_STEP * abs(upper)) / norm
        storage = np.maximum(0.0, point.prices.storage + step * slope.storage / scale**2)
        share = point.prices.migration_share
        if share is not None and slope.migration_share is not None:
            share = np.clip(share + step * slope.migration_share / upper**2, 0.0, 1.0)
        point = dual_point(problem, classes, Prices(storage, share))
        master.add(everything, point.paths)
        if point.bound > best.bound:
            best, failures = point, 0
            report(best.bound)
        else:
            failures += 1
            if failures == FAILURES:
                point, length, failures = best, length / 2, 0
    return best


def best_prices(
    problem: PlacementProblem,
    classes: Classes,
    *,
    start: Prices | None = None,
    tolerance: float,
    deadline: Deadline = NEVER,
) -> PricePoint:
    """Return the Lagrangian function near its maximum; an interrupt passes through.

    Without charges, and from no prices, these are the steps of `lagrangian.dual_bound`.

    Parameters
    ----------
    problem, classes
        The problem and its tables, whose units are the nodes.
    start
        Where to start; None for no prices.
    tolerance
        Relative distance to the maximum at which to stop.
    deadline
        When to stop; never, for a bound that is the same on any machine.
    """
    # The goal of the first steps: what it costs to cache nothing.
    empty = empty_paths(problem, classes)
    blocks = empty.columns(classes.of_block)
    nothing = placement_of_paths(problem, blocks.cached, blocks.sender)
    upper = placement_delay(problem, nothing)
    if classes.charge is not None:
        upper += float(classes.size @ classes.charge[:, 0].sum(axis=0))
    point = dual_point(problem, classes, no_prices(problem) if start is None else start)
    ascent = ascend(problem, classes, point, upper, tolerance=tolerance, deadline=deadline)
    return ascent.best
