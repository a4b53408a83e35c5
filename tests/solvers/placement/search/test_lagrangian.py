"""Bounds and placements against enumeration, and the contract of every solver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from placement_oracle import optimum, random_problem

from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.placement.chains import paths_of_placement, placement_of_paths
from finecast.solvers.placement.exact.state_flow import place_by_state_flow
from finecast.solvers.placement.greedy import greedy_placement
from finecast.solvers.placement.problem import Placement, PlacementProblem, placement_delay
from finecast.solvers.placement.result import Incumbent, PlacementResult
from finecast.solvers.placement.search import lagrangian
from finecast.solvers.placement.search.dual_ascent import Ascent
from finecast.solvers.placement.search.lagrangian import dual_bound, place_by_prices
from finecast.solvers.placement.search.sweeps import Assignment, sweep

Solver = Callable[..., PlacementResult]
SOLVERS: list[Solver] = [place_by_prices, place_by_state_flow]
SIZES = [(1, 3, 2), (2, 1, 1), (2, 2, 1), (2, 3, 1), (2, 2, 2), (3, 2, 1), (1, 2, 3)]


def realistic(seed: int, nodes: int, blocks: int, slots: int) -> PlacementProblem:
    """Draw a problem too large to enumerate, with several blocks in a class."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, nodes, max(2, blocks // 4), slots)
    group = problem.group[:, rng.integers(0, problem.blocks, blocks)]
    size = rng.integers(50, 400, blocks)
    storage = np.full(nodes, int(0.3 * size.sum()))
    return replace(problem, block_size=size, storage=storage, group=group)


def check(problem: PlacementProblem, result: PlacementResult) -> None:
    """Feasible, bound below delay, trace monotone and ending at what is returned."""
    assert result.delay == placement_delay(problem, result.placement)
    assert 0.0 <= result.lower_bound <= result.delay
    delays = [point.delay for point in result.trace]
    bounds = [point.lower_bound for point in result.trace]
    times = [point.time_s for point in result.trace]
    assert delays == sorted(delays, reverse=True)
    assert bounds == sorted(bounds)
    assert times == sorted(times)
    assert (delays[-1], bounds[-1]) == (result.delay, result.lower_bound)


@pytest.mark.parametrize("size", SIZES)
def test_against_enumeration(size: tuple[int, int, int]) -> None:
    """On tiny problems: bound <= optimum <= placement, and the MILP finds the optimum."""
    rng = np.random.default_rng(size)
    for seed in range(30):
        problem = random_problem(rng, *size)
        best = optimum(problem)
        result = place_by_prices(problem, seed=seed)
        check(problem, result)
        assert result.lower_bound <= best * (1 + 1e-12)
        assert result.delay >= best * (1 - 1e-12)
        proven = place_by_state_flow(problem, seed=seed)
        check(problem, proven)
        assert proven.delay == pytest.approx(best, rel=1e-6, abs=1e-12)
        assert proven.lower_bound <= best * (1 + 1e-9)
        assert proven.termination == "optimal"


@pytest.mark.parametrize("size", [(1, 3, 1), (2, 2, 1), (1, 2, 2), (2, 1, 2)])
def test_pipelined_against_enumeration(size: tuple[int, int, int]) -> None:
    """Pipelined, the bounds of both methods hold and no placement beats the optimum."""
    rng = np.random.default_rng(size)
    for seed in range(12):
        problem = random_problem(rng, *size, schedule="pipelined")
        best = optimum(problem)
        for solver in SOLVERS:
            result = solver(problem, seed=seed)
            check(problem, result)
            assert result.lower_bound <= best * (1 + 1e-9)
            assert result.delay >= best * (1 - 1e-12)


@pytest.mark.parametrize("units", [2, 10])
@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
def test_the_bound_alone_is_that_of_the_search(schedule: str, units: int) -> None:
    """`dual_bound` gives the bound of the whole method; when it is late, that of zero prices."""
    problem = replace(realistic(6, 4, 24, 3), schedule=schedule)
    bound = dual_bound(problem, units=units)
    assert bound == place_by_prices(problem, units=units, patience=0).lower_bound
    free = place_by_prices(problem, units=units, deadline=Deadline.after(0)).lower_bound
    assert dual_bound(problem, Deadline.after(0), units=units) == free
    assert free < bound


def test_more_resources_never_hurt() -> None:
    """More storage, faster broadcasts, faster links: the optimum does not rise."""
    rng = np.random.default_rng(11)
    for _ in range(12):
        problem = random_problem(rng, 2, 3, 2)
        before = place_by_state_flow(problem).delay
        faster = tuple(0.7 * table for table in problem.broadcast)
        for change in (
            {"storage": problem.storage + 3},
            {"broadcast": faster},
            {"link": 0.5 * problem.link},
        ):
            assert place_by_state_flow(replace(problem, **change)).delay <= before * (1 + 1e-6)


def test_permuting_nodes_and_blocks_changes_nothing() -> None:
    """The optimum and the bound do not depend on the order of nodes and blocks."""
    rng = np.random.default_rng(13)
    for _ in range(6):
        problem = random_problem(rng, 3, 4, 2)
        order = rng.permutation(4)
        nodes = rng.permutation(3)
        sets = np.arange(8)
        moved = sum(((sets >> int(nodes[n])) & 1) << n for n in range(3))
        table = []
        for t in range(2):
            new = np.empty_like(problem.broadcast[t])
            new[:, moved] = problem.broadcast[t]
            table.append(new)
        rows = [*nodes, 3]
        other = PlacementProblem(
            problem.block_size[order], problem.storage[nodes], problem.group[:, order],
            tuple(table), problem.link[rows][:, nodes],
        )  # fmt: skip
        assert place_by_state_flow(other).delay == pytest.approx(place_by_state_flow(problem).delay)


@pytest.mark.parametrize("solver", SOLVERS)
def test_same_seed_same_answer(solver: Solver) -> None:
    """Without a time limit the answer depends on the seed alone."""
    problem = realistic(1, 3, 12, 2)
    first, second = solver(problem, seed=4, gap=0.01), solver(problem, seed=4, gap=0.01)
    assert (first.placement.cache == second.placement.cache).all()
    assert (first.placement.source == second.placement.source).all()
    assert first.lower_bound == second.lower_bound


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("limit", [0.0, 0.01])
def test_tiny_time_limits(solver: Solver, limit: float) -> None:
    """A time limit of nothing still returns a feasible placement, a bound, and the reason."""
    problem = realistic(2, 4, 60, 5)
    result = solver(problem, deadline=Deadline.after(limit))
    check(problem, result)
    assert result.termination == "time_limit"
    assert result.lower_bound > 0


def test_without_time_no_worse_than_greedy() -> None:
    """Where the time ends before anything is searched, the plan is no worse than greedy's."""
    for seed in range(3):
        problem = realistic(seed, 4, 40, 4)
        greedy = placement_delay(problem, greedy_placement(problem))
        found = place_by_prices(problem, deadline=Deadline.after(0))
        assert found.delay <= greedy


@pytest.mark.parametrize("solver", SOLVERS)
def test_gap_is_honoured(solver: Solver) -> None:
    """With a generous gap the search ends at it and says so."""
    problem = realistic(3, 3, 40, 3)
    result = solver(problem, gap=0.2)
    check(problem, result)
    assert result.termination in ("gap_reached", "optimal")
    assert result.gap <= 0.2


def test_start_is_used() -> None:
    """The optimum as a start, with no time to search, comes back; an infeasible one is refused."""
    problem = random_problem(np.random.default_rng(17), 2, 3, 2)
    best = place_by_state_flow(problem)
    again = place_by_prices(problem, start=best.placement, deadline=Deadline.after(0))
    assert again.delay == best.delay
    full = Placement(np.ones((2, 2, 3), dtype=bool), np.full((2, 2, 3), -1))
    with pytest.raises(ValueError, match="storage"):
        place_by_prices(problem, start=full)


def test_callback_sees_the_trace() -> None:
    """The callback gets every point of the trace, in order."""
    seen = []
    result = place_by_prices(realistic(4, 2, 10, 2), gap=0.05, callback=seen.append)
    assert tuple(seen) == result.trace


@pytest.mark.parametrize("solver", SOLVERS)
def test_negative_gap_is_refused(solver: Solver) -> None:
    """A negative gap is refused by name."""
    problem = random_problem(np.random.default_rng(0), 1, 1, 1)
    with pytest.raises(ValueError, match="gap"):
        solver(problem, gap=-0.1)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
def test_special_cases(solver: Solver, schedule: str) -> None:
    """No storage, room for everything, one node, nobody requesting, one group for all blocks."""
    rng = np.random.default_rng(19)
    problem = random_problem(rng, 2, 3, 2, schedule)
    wide = replace(problem, storage=np.full(2, 100))
    result = solver(wide)
    check(wide, result)
    everywhere = sum(
        float(problem.block_size[j] * problem.broadcast[t][problem.group[t, j], 3])
        for t in range(2) for j in range(3) if problem.group[t, j] >= 0
    )  # fmt: skip
    assert result.delay == pytest.approx(everywhere)
    assert result.termination == "optimal"

    closed = replace(problem, storage=np.zeros(2, dtype=np.int64))
    result = solver(closed)
    check(closed, result)
    assert not result.placement.cache.any()
    if schedule == "sequential":
        assert result.delay == pytest.approx(optimum(closed))
        assert result.termination == "optimal"

    idle = replace(problem, group=np.full((2, 3), -1))
    result = solver(idle)
    assert (result.delay, result.lower_bound, result.termination) == (0.0, 0.0, "optimal")

    alike = replace(problem, group=np.zeros((2, 3), dtype=np.int64))
    check(alike, solver(alike))
    single = random_problem(rng, 1, 3, 2, schedule)
    check(single, solver(single))


def knapsack() -> tuple[PlacementProblem, Incumbent, Ascent, Assignment]:
    """One block of 6 bytes or two of 5 in a storage of 10, the one of 6 cached.

    Node 0 sends at 1 second per byte. A block that is not cached reaches node 1 in 1 second per
    byte; from there block 0 takes 3 seconds per byte and the others 2.6. To cache block 0 thus
    saves 6 x 3 = 18 of 60 seconds, to cache the others 2 x 5 x 2.6 = 26. At the best price, 2.6,
    the bound is 60 - 18 - 4 x 2.6 = 31.6, and block 0 outside the cache costs 6 x 0.4 = 2.4 more.
    """
    inf = np.inf
    problem = PlacementProblem(
        [6, 5, 5], [10, 0], [[0, 1, 1]],
        (np.array([[inf, 1.0, 3.0, 1.0], [inf, 1.0, 2.6, 1.0]]),),
        [[inf, inf], [inf, inf], [100.0, 1.0]],
    )  # fmt: skip
    cache, source = np.zeros((1, 2, 3), dtype=bool), np.full((1, 2, 3), -1)
    cache[0, 0, 0] = True
    source[0, 1, 1:] = 2
    origin = lagrangian._origin(problem, 10)
    incumbent = Incumbent(problem, Placement(cache, source), 0.0)
    ascent = lagrangian._ascent(incumbent, origin, 1e-9, NEVER)
    assert (incumbent.delay, ascent.best.bound) == pytest.approx((42.0, 31.6))
    return problem, incumbent, ascent, lagrangian._assigned(incumbent, origin.nothing.classes)


def test_the_path_milp_leaves_a_local_optimum() -> None:
    """No block alone gains by another path; the path MILP exchanges block 0 for the other two."""
    problem, incumbent, ascent, assignment = knapsack()
    for share in (1.0, 0.0):
        price = share * ascent.best.prices.storage
        assert not sweep(assignment, price, np.arange(problem.blocks), NEVER)
    lagrangian._neighbourhood(incumbent, assignment, ascent, np.random.default_rng(0))
    assert incumbent.delay == pytest.approx(34.0)


def test_paths_in_reach_of_an_improvement() -> None:
    """Block 0 may leave the cache where its 2.4 seconds of reduced cost leave room, else not."""
    problem, _, ascent, assignment = knapsack()
    order = np.arange(problem.blocks)
    assert 0 not in lagrangian._options(assignment, ascent, 2.4 - 1e-6, order)
    assert 0 in lagrangian._options(assignment, ascent, 2.4 + 1e-6, order)


def test_paths_and_placements_convert_back() -> None:
    """Node sets to arrays and back are the same node sets."""
    problem = random_problem(np.random.default_rng(23), 3, 4, 2)
    result = place_by_prices(problem)
    cached, sender = paths_of_placement(problem, result.placement)
    again = placement_of_paths(problem, cached, sender)
    assert (again.cache == result.placement.cache).all()
    assert placement_delay(problem, again) <= result.delay * (1 + 1e-12)


def test_a_block_larger_than_every_storage() -> None:
    """The bound knows that a block that fits nowhere is never cached, not even in part."""
    table = np.array([[np.inf, 1.0]])
    problem = PlacementProblem([10], [9], [[0]], (table,), [[np.inf], [2.0]])
    result = place_by_prices(problem)
    assert result.delay == 30.0
    assert result.lower_bound == pytest.approx(30.0)
