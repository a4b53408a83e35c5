"""Placement with a certified bound: Lagrangian dual, rounding, best responses, path MILP, ruin.

The bound comes from storage prices alone (`bound`), raised by subgradient steps and column
generation (`dual_ascent`). The placement comes from the shares of the last master programme,
rounded and improved by exact best responses (`sweeps`), by choosing among the paths known so far
for some of the blocks at once (`path_milp`), and by ruin and recreate (`ruin`). Beyond 10 nodes the
bound is that of a relaxation and the search is restricted, see `units`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import IntArray
from finecast.solvers.deadline import GRAIN, NEVER, Deadline, grains_done
from finecast.solvers.node_set_tables import FULL_TABLES
from finecast.solvers.placement.bound import PricePoint, dual_point, no_prices
from finecast.solvers.placement.chains import Classes, paths_of_placement
from finecast.solvers.placement.dynamic_programme import Paths
from finecast.solvers.placement.greedy import greedy_placement
from finecast.solvers.placement.hulls import cheapest_within, has_hulls, hull_ascent
from finecast.solvers.placement.problem import Placement, PlacementProblem
from finecast.solvers.placement.result import Incumbent, PlacementResult
from finecast.solvers.placement.search.columns import empty_paths
from finecast.solvers.placement.search.core_milp import dive_again, large_blocks_again
from finecast.solvers.placement.search.core_programme import Groups, core_groups
from finecast.solvers.placement.search.dual_ascent import Ascent, ascend
from finecast.solvers.placement.search.effort import Effort, whose_turn
from finecast.solvers.placement.search.joint_responses import most_together, respond_together
from finecast.solvers.placement.search.path_milp import PathChoice, choose_paths
from finecast.solvers.placement.search.ruin import ruin_and_recreate
from finecast.solvers.placement.search.sweeps import Assignment, assignment_of, rounded, sweep
from finecast.solvers.placement.units import UNITS, relaxed_classes, restricted_classes
from finecast.solvers.result import TracePoint
from finecast.solvers.signals import SearchInterrupt

BOUND_TOLERANCE = 1e-4
"""Relative distance of the bound to its best value at which the prices are good enough."""

BOUND_TIME_SHARE = 0.5
"""Share of the time that is left for raising the prices, before the search of placements."""

SWEEP_ROUNDS = 8
"""Most rounds of sweeps at falling prices."""

SWEEP_PRICES = (0.98, 0.9, 0.5, 0.0)
"""Shares of the prices in the sweeps of a round: just below the full price, storage is used rather
than left free where two paths cost the same; at none, every saving of time is taken."""

NEIGHBOURHOOD = 600
"""Paths in one path MILP."""

LEAST_CHOICE = 8
"""Paths of a block in one path MILP that its number of blocks does not lower."""

USUAL_BLOCKS = 40
"""Blocks that a path MILP should have room for."""

MILP_GAP = 1e-5
"""Relative gap at which a path MILP stops."""

MILP_NODES = 100
"""Branch-and-bound nodes of one path MILP."""

LEAST_HOPE = 0.02
"""What a turn is thought to gain at least, as a share of the distance of delay and bound."""

LEAST_COST = 1e-3
"""Seconds that a turn counts at least: the clock of the process is coarse."""

HULL_TIME_SHARE = 0.1
"""Share of the time for the fillings that a search of few blocks starts from."""

RUIN_STEPS = 150
"""Most steps of one ruin and recreate."""

RUIN_STEPS_A_BLOCK = 5
"""Fewer where there are few blocks: so many for each of them."""

PATIENCE = 6
"""Pairs of turns without progress after which the search ends."""

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
        Pairs of turns without progress after which the search ends; 0 for none.
    units
        Up to so many nodes the method is exact about node sets; at least 2.

    Raises
    ------
    ValueError
        Where `start` is not feasible, or `gap` is negative.

    Examples
    --------
    Blocks of 10 and 20 bytes, one node with room for 20, 1 second per byte on the air and 3 from
    the cloud.

    >>> problem = PlacementProblem(
    ...     block_size=[10, 20],
    ...     storage=[20],
    ...     group=[[0, 0]],
    ...     broadcast=([[np.inf, 1.0]],),
    ...     link=[[np.inf], [3.0]],
    ... )
    >>> found = place_by_prices(problem, seed=0)
    >>> found.placement.cache.tolist()
    [[[False, True]]]
    >>> found.delay, round(found.lower_bound, 9)
    (60.0, 60.0)
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
    many = problem.nodes > FULL_TABLES
    if many and start is None:  # the search counts by units: greedy's plan may stay best
        with suppress(SearchInterrupt):
            incumbent.offer(greedy_placement(problem, deadline))
    if not incumbent.finished:
        try:
            tolerance = min(BOUND_TOLERANCE, incumbent.target_gap / 10) if gap else BOUND_TOLERANCE
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
        except SearchInterrupt:
            incumbent.interrupted = True
    if not many and start is None and not incumbent.reached:  # the time may have ended before
        with suppress(SearchInterrupt):
            incumbent.offer(greedy_placement(problem))
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

    Examples
    --------
    Two blocks of 10 bytes, one node with room for one and a half, 1 second per byte on the air and
    3 from the cloud. Storage prices let the node cache half a block: 20 + 3 x 5 seconds. No real
    placement is faster than 20 + 3 x 10.

    >>> problem = PlacementProblem(
    ...     block_size=[10, 10],
    ...     storage=[15],
    ...     group=[[0, 0]],
    ...     broadcast=([[np.inf, 1.0]],),
    ...     link=[[np.inf], [3.0]],
    ... )
    >>> round(dual_bound(problem), 9)
    35.0
    """
    origin = _origin(problem, units)
    incumbent = Incumbent(problem, origin.nothing.placement, origin.point.bound, deadline=deadline)
    if not incumbent.finished:
        with suppress(SearchInterrupt):  # every bound on the way holds
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
    nobody = np.arange(0)
    rng = np.random.default_rng(seed)
    assignment, unplaced = rounded(problem, classes, ascent.master, ascent.share, origin.empty)
    _sweeps(incumbent, assignment, ascent, unplaced, rng)
    # A best response takes every copy that pays for its own block, and leaves no room for another:
    # with few large blocks neither sweeps nor ruins get out of that. Greedy counts by the byte.
    if from_start:
        _sweeps(incumbent, _assigned(incumbent, classes), ascent, nobody, rng)
    elif problem.nodes <= FULL_TABLES:
        incumbent.offer(greedy_placement(problem))

    # The ways to a better plan share the time by what they gain for their cost. Without a time
    # limit that is their counted work, so that the clock decides nothing.
    groups = core_groups(problem, classes)
    ways = [_dived, _branched] if groups else []
    ways += [_paths_again, _ruined]
    if classes.unit is None and most_together(problem) > 1:
        ways += [_together]
    starts = _starts(incumbent, classes, ascent)
    state = _State(incumbent, classes, ascent, groups, rng, starts)
    efforts = [Effort() for _ in ways]
    stagnation = 0
    while not incumbent.finished and stagnation < 2 * patience:
        delay, began, before = incumbent.delay, time.process_time(), grains_done()
        turn = whose_turn(efforts, LEAST_HOPE * (delay - incumbent.lower_bound))
        ways[turn](state)
        # The next neighbourhoods may take the paths of the best placement, of any block of a class.
        ascent.master.add(classes.of_block, _assigned(incumbent, classes).paths)
        cost = (grains_done() - before) * GRAIN
        if incumbent.deadline.limit() is not None:
            cost = time.process_time() - began
        efforts[turn] = efforts[turn].after(delay - incumbent.delay, max(cost, LEAST_COST))
        stagnation = 0 if incumbent.delay < delay * (1 - PROGRESS) else stagnation + 1


@dataclass(frozen=True)
class _State:
    """What the ways to a better plan work on.

    Attributes
    ----------
    incumbent
        Best placement and bound.
    classes, ascent
        The tables; prices and pool of paths.
    groups
        Those of the core; None where it has nothing to decide.
    rng
        Source of randomness.
    starts
        Where blocks begin to respond together.
    """

    incumbent: Incumbent
    classes: Classes
    ascent: Ascent
    groups: Groups | None
    rng: np.random.Generator
    starts: Iterator[Assignment]


def _dived(state: _State) -> None:
    """Let a few groups of large blocks at a time dive to new paths."""
    assert state.groups is not None
    better = dive_again(
        _assigned(state.incumbent, state.classes), state.groups, state.ascent.master,
        state.ascent.best, state.rng, state.incumbent.deadline,
    )  # fmt: skip
    _sweeps(state.incumbent, better, state.ascent, np.arange(0), state.rng, rounds=1)


def _branched(state: _State) -> None:
    """Let all large blocks choose again by the core MILP."""
    assert state.groups is not None
    found = large_blocks_again(
        _assigned(state.incumbent, state.classes), state.groups, state.ascent.master,
        state.ascent.best, state.rng, state.incumbent.deadline,
    )  # fmt: skip
    if found is not None:
        _sweeps(state.incumbent, found[0], state.ascent, found[1], state.rng)


def _paths_again(state: _State) -> None:
    """Let many random blocks choose again among known paths, by the path MILP."""
    incumbent = state.incumbent
    _neighbourhood(incumbent, _assigned(incumbent, state.classes), state.ascent, state.rng)
    assignment = _assigned(incumbent, state.classes)
    _sweeps(incumbent, assignment, state.ascent, np.arange(0), state.rng, rounds=1)


def _ruined(state: _State) -> None:
    """Take a few blocks out at a time, and put them back one by one."""
    incumbent = state.incumbent
    better = ruin_and_recreate(
        _assigned(incumbent, state.classes), state.ascent.best.prices.storage, state.rng,
        steps=min(RUIN_STEPS, RUIN_STEPS_A_BLOCK * incumbent.problem.blocks),
        goal=incumbent.goal, deadline=incumbent.deadline,
    )  # fmt: skip
    incumbent.offer(better.placement)
    _sweeps(incumbent, better, state.ascent, np.arange(0), state.rng, rounds=1)


def _together(state: _State) -> None:
    """Let a few random blocks at a time respond together, exactly."""
    incumbent = state.incumbent
    better = respond_together(
        next(state.starts), state.rng, goal=incumbent.goal, deadline=incumbent.deadline
    )
    incumbent.offer(better.placement)


def _starts(incumbent: Incumbent, classes: Classes, ascent: Ascent) -> Iterator[Assignment]:
    """Yield where blocks begin to respond together: the best placement, by turns with others.

    The others are, of few blocks, what whole fillings of the storages allow, the fastest first.
    From them the search comes to placements to which no change of a few blocks leads from the best.
    """
    problem = incumbent.problem
    yield _assigned(incumbent, classes)
    if has_hulls(problem):
        found = hull_ascent(
            problem, classes, ascent.best.prices, incumbent.delay,
            deadline=incumbent.deadline.share(HULL_TIME_SHARE),
        )  # fmt: skip
        incumbent.raise_bound(found.bound)
        within = dict(cheapest_within(problem, classes, filling) for filling in found.fillings)
        for delay in sorted(within):
            yield Assignment(problem, classes, within[delay])
            yield _assigned(incumbent, classes)
    while True:
        yield _assigned(incumbent, classes)


def _assigned(incumbent: Incumbent, classes: Classes) -> Assignment:
    """Return the best placement as a state of the search."""
    cached, sender = paths_of_placement(incumbent.problem, incumbent.placement)
    return assignment_of(incumbent.problem, classes, cached, sender)


def _sweeps(
    incumbent: Incumbent,
    assignment: Assignment,
    ascent: Ascent,
    unplaced: IntArray,
    rng: np.random.Generator,
    rounds: int = SWEEP_ROUNDS,
) -> None:
    """Place what is unplaced, then sweep at falling shares of the prices until that helps no more.

    The assignment is changed in place; the incumbent is offered it after every sweep.
    """
    problem, deadline = incumbent.problem, incumbent.deadline
    price = ascent.best.prices.storage
    incumbent.offer(assignment.placement)
    sweep(assignment, 0.0 * price, unplaced, deadline)
    incumbent.offer(assignment.placement)
    for _ in range(rounds):
        delay = incumbent.delay
        for share in SWEEP_PRICES:
            if incumbent.finished:
                return
            sweep(assignment, share * price, rng.permutation(problem.blocks), deadline)
            incumbent.offer(assignment.placement)
        if incumbent.delay > delay * (1 - PROGRESS):
            return


def _neighbourhood(
    incumbent: Incumbent, assignment: Assignment, ascent: Ascent, rng: np.random.Generator
) -> None:
    """Choose again, all at once, the paths of as many random blocks as the path MILP can take."""
    problem, classes, own = incumbent.problem, assignment.classes, assignment.paths
    order = rng.permutation(problem.blocks)
    options = _options(assignment, ascent, incumbent.delay - ascent.best.bound, order)
    if not options:
        return
    # The candidates of a block are its own path, which is where HiGHS starts, and its options.
    freed = np.sort(np.array(list(options)))
    candidates = [np.append(j, problem.blocks + options[j]) for j in freed.tolist()]
    paths = own.joined(ascent.master.paths).columns(np.concatenate(candidates))
    block = np.repeat(freed, [len(candidate) for candidate in candidates])
    start = np.concatenate([np.arange(len(candidate)) == 0 for candidate in candidates])
    # All other blocks keep their paths, and leave what they do not use.
    fixed = np.setdiff1d(np.arange(problem.blocks), freed)
    size = problem.block_size[fixed]
    choice = PathChoice(
        block=block,
        paths=paths,
        holds=classes.holds(classes.of_block[block], paths.cached),
        free=problem.storage - assignment.used_by(fixed),
        seconds=np.stack([own.migration[:, fixed] @ size, own.broadcast[:, fixed] @ size]),
        start=start,
    )
    chosen = choose_paths(
        problem, choice, gap=MILP_GAP, goal=incumbent.goal, node_limit=MILP_NODES,
        deadline=incumbent.deadline, seed=int(rng.integers(1 << 30)),
    )  # fmt: skip
    if chosen is not None:
        better = own.replaced(freed, paths.columns(chosen))
        incumbent.offer(Assignment(problem, classes, better).placement)


def _options(
    assignment: Assignment, ascent: Ascent, room: float, order: IntArray
) -> dict[int, IntArray]:
    """Return the blocks to free, and the paths of the pool that each may take instead of its own.

    Only those paths of a block matter whose reduced cost leaves room for an improvement: s_j times
    the reduced cost must be below the distance of delay and bound.

    Parameters
    ----------
    assignment
        The paths now.
    ascent
        Prices, and the pool of paths.
    room
        Seconds between delay and bound.
    order
        Blocks, those to free first in front.
    """
    problem, own, pool = assignment.problem, assignment.paths, ascent.master.paths
    excess = ascent.master.reduced_cost(ascent.best.prices, ascent.best.value)
    by_class = [np.flatnonzero(ascent.master.class_of == c) for c in range(len(ascent.best.value))]
    by_class = [paths[np.argsort(excess[paths], kind="stable")] for paths in by_class]
    most = max(LEAST_CHOICE, NEIGHBOURHOOD // min(problem.blocks, USUAL_BLOCKS))
    options: dict[int, IntArray] = {}
    listed = 0
    for j in order.tolist():
        paths = by_class[assignment.classes.of_block[j]]
        paths = paths[excess[paths] * problem.block_size[j] < room][:most]
        same = (pool.cached[:, paths] == own.cached[:, [j]]) & (
            pool.sender[:, paths] == own.sender[:, [j]]
        )
        paths = paths[~same.all(axis=0)]
        if not len(paths):
            continue
        options[j] = paths
        listed += len(paths) + 1
        if listed >= NEIGHBOURHOOD:
            break
    return options
