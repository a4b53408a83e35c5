"""Placement with a certified bound: Lagrangian dual, rounding, best responses, path MILP, ruin.

The bound comes from storage prices alone (`bound`), raised by subgradient steps and column
generation (`dual_ascent`). The placement comes from the shares of the last master programme,
rounded and improved by exact best responses (`sweeps`), by choosing among the paths known so far
for some of the blocks at once (`path_milp`), and by ruin and recreate (`ruin`). Beyond 10 nodes the
bound is that of a relaxation and the search is restricted, see `units`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import IntArray
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.placement.bound import PricePoint, dual_point, no_prices
from finecast.solvers.placement.chains import Classes, paths_of_placement
from finecast.solvers.placement.dynamic_programme import Paths
from finecast.solvers.placement.problem import Placement, PlacementProblem
from finecast.solvers.placement.result import Incumbent, PlacementResult
from finecast.solvers.placement.search.columns import empty_paths
from finecast.solvers.placement.search.dual_ascent import Ascent, ascend
from finecast.solvers.placement.search.path_milp import choose_paths
from finecast.solvers.placement.search.ruin import ruin_and_recreate
from finecast.solvers.placement.search.sweeps import Assignment, assignment_of, rounded, sweep
from finecast.solvers.placement.units import UNITS, relaxed_classes, restricted_classes
from finecast.solvers.result import TracePoint

BOUND_TOLERANCE = 1e-4
BOUND_TIME_SHARE = 0.5
SWEEP_ROUNDS = 8
SWEEP_PRICES = (0.98, 0.9, 0.5, 0.0)
"""Shares of the prices in the sweeps of a round: just below the full price, storage is used rather
than left free where two paths cost the same; at none, every saving of time is taken."""
NEIGHBOURHOOD = 1500
"""Paths in one path MILP."""
MILP_NODES = 400
RUIN_STEPS = 150
PATIENCE = 6
PROGRESS = 1e-5
"""Relative improvement of the delay that counts as progress."""


def place_by_prices(
    problem: PlacementProblem,
    *,
    deadline: Deadline = NEVER,
    gap: float | None = None,
    seed: int = 0,
    start: Placement | None = None,
    callback: Callable[[TracePoint], None] | None = None,
    patience: int = PATIENCE,
    units: int = UNITS,
) -> PlacementResult:
    """Find a near-optimal placement and a certified lower bound on the delay.

    Parameters
    ----------
    problem
        The problem.
    deadline
        When to stop. The first placement and bound take some milliseconds even when it is over.
    gap
        Relative gap at which to stop; None: as good as the method can.
    seed
        Seed of the search; without a deadline the same seed gives the same answer.
    start
        A feasible placement to start from.
    callback
        Called with every improvement.
    patience
        Rounds of path MILP and ruin without progress after which the search ends; 0 for none.
    units
        Up to so many nodes the method is exact about node sets; at least 2.

    Raises
    ------
    ValueError
        Where `start` is not feasible, or `gap` is negative.
    """
    started = time.monotonic()
    origin = _origin(problem, units)
    incumbent = Incumbent(
        problem, origin.nothing.placement, origin.point.bound,
        deadline=deadline, gap=gap, callback=callback, started=started,
    )  # fmt: skip
    if start is not None:
        incumbent.offer(start)
    prices = origin.point.prices
    if not incumbent.finished:
        try:
            tolerance = min(BOUND_TOLERANCE, incumbent.wanted / 10) if gap else BOUND_TOLERANCE
            ascent = _ascent(incumbent, origin, tolerance, deadline.share(BOUND_TIME_SHARE))
            prices = ascent.best.prices
            classes = origin.nothing.classes
            # The prices of a relaxation are only a start for those of the tables of the search.
            if classes is not origin.relaxed and not incumbent.finished:
                ascent = ascend(
                    problem, classes, dual_point(problem, classes, prices), incumbent.delay,
                    tolerance=tolerance, deadline=deadline.share(BOUND_TIME_SHARE),
                )  # fmt: skip
            _search(incumbent, origin, ascent, seed, start is not None, patience)
        except KeyboardInterrupt:
            incumbent.interrupted = True
    return incumbent.result(prices)


def dual_bound(
    problem: PlacementProblem, deadline: Deadline = NEVER, *, units: int = UNITS
) -> float:
    """Return the certified lower bound on the delay (s) that storage prices alone give.

    The search for prices is that of `place_by_prices`; no placement is searched for.

    Parameters
    ----------
    problem
        The problem.
    deadline
        When to stop raising the prices; the bound at prices of zero is there even when it is over.
    units
        Up to so many nodes the bound is exact about node sets.
    """
    origin = _origin(problem, units)
    incumbent = Incumbent(problem, origin.nothing.placement, origin.point.bound, deadline=deadline)
    if not incumbent.finished:
        with suppress(KeyboardInterrupt):  # every bound on the way holds
            _ascent(incumbent, origin, BOUND_TOLERANCE, deadline)
    return incumbent.lower_bound


@dataclass(frozen=True)
class _Origin:
    """Where bound and search start.

    Attributes
    ----------
    relaxed
        The tables of the bound.
    empty
        Of every class the cheapest path that caches nothing, by the tables of the search.
    nothing
        The placement that caches nothing, with the tables of the search: those of the bound up to
        `UNITS` nodes.
    point
        The Lagrangian function at prices of zero.
    """

    relaxed: Classes
    empty: Paths
    nothing: Assignment
    point: PricePoint


def _origin(problem: PlacementProblem, units: int) -> _Origin:
    relaxed = relaxed_classes(problem, units)
    classes = relaxed if relaxed.unit is None else restricted_classes(problem, units)
    empty = empty_paths(problem, classes)
    nothing = Assignment(problem, classes, empty.columns(classes.of_block))
    return _Origin(relaxed, empty, nothing, dual_point(problem, relaxed, no_prices(problem)))


def _ascent(incumbent: Incumbent, origin: _Origin, tolerance: float, deadline: Deadline) -> Ascent:
    """Raise the storage prices from zero; the incumbent takes every better bound."""
    return ascend(
        incumbent.problem, origin.relaxed, origin.point, incumbent.delay,
        tolerance=tolerance, deadline=deadline, report=incumbent.raise_bound,
    )  # fmt: skip


def _search(
    incumbent: Incumbent,
    origin: _Origin,
    ascent: Ascent,
    seed: int,
    from_start: bool,
    patience: int,
) -> None:
    """Improve the placement until nothing comes of it."""
    problem, classes = incumbent.problem, origin.nothing.classes
    rng = np.random.default_rng(seed)
    assignment, unplaced = rounded(problem, classes, ascent.master, ascent.share, origin.empty)
    _sweeps(incumbent, assignment, ascent, unplaced, rng)
    if from_start:
        _sweeps(incumbent, _assigned(incumbent, assignment), ascent, np.arange(0), rng)

    stagnation = 0
    while not incumbent.finished and stagnation < patience:
        before = incumbent.delay
        best = _assigned(incumbent, assignment)
        _neighbourhood(incumbent, best, ascent, rng)
        best = _assigned(incumbent, assignment)
        better = ruin_and_recreate(
            best, ascent.best.prices.storage, rng,
            steps=min(RUIN_STEPS, 5 * problem.blocks),
            goal=incumbent.goal, deadline=incumbent.deadline,
        )  # fmt: skip
        incumbent.offer(better.placement)
        _sweeps(incumbent, better, ascent, np.arange(0), rng, rounds=1)
        best = _assigned(incumbent, assignment)
        ascent.master.add(classes.of_block, best.paths)
        stagnation = 0 if incumbent.delay < before * (1 - PROGRESS) else stagnation + 1


def _assigned(incumbent: Incumbent, like: Assignment) -> Assignment:
    """Return the best placement as a state of the search."""
    cached, sender = paths_of_placement(incumbent.problem, incumbent.placement)
    return assignment_of(incumbent.problem, like.classes, cached, sender)


def _sweeps(
    incumbent: Incumbent,
    assignment: Assignment,
    ascent: Ascent,
    first: IntArray,
    rng: np.random.Generator,
    rounds: int = SWEEP_ROUNDS,
) -> None:
    """Sweep at falling shares of the prices, again and again, until that no longer helps."""
    problem = incumbent.problem
    price = ascent.best.prices.storage
    incumbent.offer(assignment.placement)
    sweep(assignment, 0.0 * price, first, incumbent.deadline)
    incumbent.offer(assignment.placement)
    for _ in range(rounds):
        before = incumbent.delay
        for share in SWEEP_PRICES:
            if incumbent.finished:
                return
            sweep(assignment, share * price, rng.permutation(problem.blocks), incumbent.deadline)
            incumbent.offer(assignment.placement)
        if incumbent.delay > before * (1 - PROGRESS):
            return


def _neighbourhood(
    incumbent: Incumbent, assignment: Assignment, ascent: Ascent, rng: np.random.Generator
) -> None:
    """Choose again, all at once, the paths of as many random blocks as the path MILP can take.

    Of the paths of a block only those matter whose reduced cost leaves room for an improvement:
    s_j times the reduced cost must be below the distance of delay and bound.
    """
    problem, master = incumbent.problem, ascent.master
    excess = master.reduced_cost(ascent.best.prices, ascent.best.value)
    room = incumbent.delay - ascent.best.bound
    own = assignment.paths
    block: list[int] = []
    pool: list[int] = []
    start: list[int] = []
    freed: list[int] = []
    by_class = [np.flatnonzero(master.of == c) for c in range(len(ascent.best.value))]
    by_class = [p[np.argsort(excess[p], kind="stable")] for p in by_class]
    most = max(8, NEIGHBOURHOOD // min(problem.blocks, 40))
    for j in rng.permutation(problem.blocks):
        paths = by_class[assignment.classes.of_block[j]]
        paths = paths[excess[paths] * problem.block_size[j] < room][:most]
        same = (master.cached[:, paths] == own.cached[:, [j]]) & (
            master.sender[:, paths] == own.sender[:, [j]]
        )
        paths = paths[~same.all(axis=0)]
        if not len(paths):
            continue
        freed.append(int(j))
        block += [int(j)] * (len(paths) + 1)
        pool += [-1 - int(j), *(int(p) for p in paths)]
        start += [1] + [0] * len(paths)
        if len(block) >= NEIGHBOURHOOD:
            break
    if not freed:
        return
    order = np.argsort(block, kind="stable")
    index = np.array(pool)[order]
    mine = index < 0
    chosen_from = Paths(*(
        np.where(mine, a[:, np.where(mine, -1 - index, 0)], b[:, np.where(mine, 0, index)])
        for a, b in zip(own.arrays, master.paths.arrays, strict=True)
    ))  # fmt: skip
    rest = np.setdiff1d(np.arange(problem.blocks), freed)
    size = problem.block_size[rest]
    seconds = np.stack([own.migration[:, rest] @ size, own.broadcast[:, rest] @ size])
    free = problem.storage - assignment.used_by(rest)
    classes, block_of_path = assignment.classes, np.array(block)[order]
    holds = classes.holds(classes.of_block[block_of_path], chosen_from.cached)
    chosen = choose_paths(
        problem, block_of_path, chosen_from, holds, free, seconds, np.array(start)[order],
        gap=1e-5, goal=incumbent.goal, node_limit=MILP_NODES,
        deadline=incumbent.deadline, seed=int(rng.integers(1 << 30)),
    )  # fmt: skip
    if chosen is None:
        return
    own = Paths(*(array.copy() for array in own.arrays))
    for array, new in zip(own.arrays, chosen_from.arrays, strict=True):
        array[:, np.sort(freed)] = new[:, chosen]
    incumbent.offer(Assignment(problem, classes, own).placement)
