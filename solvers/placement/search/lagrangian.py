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

import numpy as np

from finecast.problem.arrays import IntArray
from finecast.solvers.placement.bound import DualPoint, dual_point, no_prices
from finecast.solvers.placement.chains import Classes, paths_of_placement
from finecast.solvers.placement.dynamic_programme import Paths
from finecast.solvers.placement.problem import Placement, PlacementProblem, placement_delay
from finecast.solvers.placement.result import PlacementResult, Progress
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


def solve_lagrangian(
    problem: PlacementProblem,
    *,
    gap: float | None = None,
    time_limit: float | None = None,
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
    gap
        Relative gap at which to stop; None: as good as the method can.
    time_limit
        Seconds at which to stop; the first placement and bound take some milliseconds even at 0.
    seed
        Seed of the search; without a time limit the same seed gives the same answer.
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
        Where `start` is not feasible, or `gap` or `time_limit` is negative.
    """
    started = time.perf_counter()
    for name, value in (("gap", gap), ("time_limit", time_limit)):
        if value is not None and not value >= 0:
            raise ValueError(f"{name}: {value!r} is not allowed, must be >= 0 or None")
    relaxed = relaxed_classes(problem, units)
    classes = relaxed if relaxed.unit is None else restricted_classes(problem, units)
    empty = empty_paths(problem, classes)
    of = classes.of_block
    nothing = Assignment(problem, classes, Paths(*(array[:, of] for array in empty.arrays)))
    first = dual_point(problem, relaxed, no_prices(problem))
    progress = Progress(
        problem, nothing.placement, first.bound,
        started=started, gap=gap, time_limit=time_limit, callback=callback,
    )  # fmt: skip
    if start is not None:
        placement_delay(problem, start)
        progress.offer(start)
    prices = [first.prices]
    if not progress.finished:
        try:
            tolerance = min(BOUND_TOLERANCE, progress.wanted / 10) if gap else BOUND_TOLERANCE
            ascent = _ascent(progress, relaxed, first, tolerance, progress.raise_bound)
            prices.append(ascent.best.prices)
            if relaxed.unit is not None and not progress.finished:
                ascent = _ascent(
                    progress, classes, dual_point(problem, classes, prices[-1]), tolerance
                )
            _search(progress, classes, empty, ascent, seed, start is not None, patience)
        except KeyboardInterrupt:
            progress.interrupted = True
    return progress.result(prices[-1])


def _ascent(
    progress: Progress,
    classes: Classes,
    first: DualPoint,
    tolerance: float,
    report: Callable[[float], None] = lambda bound: None,
) -> Ascent:
    """Find good storage prices in a share of the time that is left."""
    left = progress.deadline - time.perf_counter()
    return ascend(
        progress.problem, classes, first, progress.delay,
        tolerance=tolerance,
        deadline=time.perf_counter() + BOUND_TIME_SHARE * left,
        report=report,
    )  # fmt: skip


def _search(
    progress: Progress,
    classes: Classes,
    empty: Paths,
    ascent: Ascent,
    seed: int,
    started_from: bool,
    patience: int,
) -> None:
    """Improve the placement until nothing comes of it."""
    problem, of = progress.problem, classes.of_block
    rng = np.random.default_rng(seed)
    assignment, unplaced = rounded(problem, classes, ascent.master, ascent.share, empty)
    _sweeps(progress, assignment, ascent, unplaced, rng)
    if started_from:
        _sweeps(progress, _assigned(progress, assignment), ascent, np.arange(0), rng)

    stagnation = 0
    while not progress.finished and stagnation < patience:
        before = progress.delay
        best = _assigned(progress, assignment)
        _neighbourhood(progress, best, ascent, rng)
        best = _assigned(progress, assignment)
        better = ruin_and_recreate(
            best, ascent.best.prices.storage, rng,
            steps=min(RUIN_STEPS, 5 * problem.blocks),
            goal=progress.goal, deadline=progress.deadline,
        )  # fmt: skip
        progress.offer(better.placement)
        _sweeps(progress, better, ascent, np.arange(0), rng, rounds=1)
        best = _assigned(progress, assignment)
        ascent.master.add(of, best.paths)
        stagnation = 0 if progress.delay < before * (1 - PROGRESS) else stagnation + 1


def _assigned(progress: Progress, like: Assignment) -> Assignment:
    """Return the best placement as a state of the search."""
    cached, sender = paths_of_placement(progress.problem, progress.placement)
    return assignment_of(progress.problem, like.classes, cached, sender)


def _sweeps(
    progress: Progress,
    assignment: Assignment,
    ascent: Ascent,
    first: IntArray,
    rng: np.random.Generator,
    rounds: int = SWEEP_ROUNDS,
) -> None:
    """Sweep at falling shares of the prices, again and again, until that no longer helps."""
    problem = progress.problem
    price = ascent.best.prices.storage
    progress.offer(assignment.placement)
    sweep(assignment, 0.0 * price, first, progress.deadline)
    progress.offer(assignment.placement)
    for _ in range(rounds):
        before = progress.delay
        for share in SWEEP_PRICES:
            if progress.finished:
                return
            sweep(assignment, share * price, rng.permutation(problem.blocks), progress.deadline)
            progress.offer(assignment.placement)
        if progress.delay > before * (1 - PROGRESS):
            return


def _neighbourhood(
    progress: Progress, assignment: Assignment, ascent: Ascent, rng: np.random.Generator
) -> None:
    """Choose again, all at once, the paths of as many random blocks as the path MILP can take.

    Of the paths of a block only those matter whose reduced cost leaves room for an improvement:
    s_j times the reduced cost must be below the distance of delay and bound.
    """
    problem, master = progress.problem, ascent.master
    excess = master.reduced_cost(ascent.best.prices, ascent.best.value)
    room = progress.delay - ascent.best.bound
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
        gap=1e-5, goal=progress.goal, node_limit=MILP_NODES,
        time_limit=progress.deadline - time.perf_counter(), seed=int(rng.integers(1 << 30)),
    )  # fmt: skip
    if chosen is None:
        return
    own = Paths(*(array.copy() for array in own.arrays))
    for array, new in zip(own.arrays, chosen_from.arrays, strict=True):
        array[:, np.sort(freed)] = new[:, chosen]
    progress.offer(Assignment(problem, classes, own).placement)
