"""The Pyomo model against enumeration and against the fast model, and the files it writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import highspy
import numpy as np
import pytest
from placement_oracle import optimum, random_problem

from finecast.problem.files import FormatError
from finecast.solvers.deadline import Deadline
from finecast.solvers.highs import QuietHighs
from finecast.solvers.placement.exact.by_pyomo import everywhere, place_by_lp, place_by_milp
from finecast.solvers.placement.exact.pyomo_model import everything_from_the_cloud, write_model
from finecast.solvers.placement.exact.state_flow import place_by_state_flow
from finecast.solvers.placement.problem import Placement, PlacementProblem, placement_delay
from finecast.solvers.placement.result import PlacementResult
from finecast.solvers.result import BoundKind, Termination

SOLVER_TOLERANCE = 1e-7
"""Relative: HiGHS proves to half of 1e-6 and keeps rows to 1e-9."""


def check(problem: PlacementProblem, result: PlacementResult) -> None:
    """Judged, bound below delay, trace monotone and ending at what is returned."""
    assert result.delay == placement_delay(problem, result.placement)
    assert everywhere(problem) <= result.lower_bound <= result.delay
    delays = [point.delay for point in result.trace]
    bounds = [point.lower_bound for point in result.trace]
    assert delays == sorted(delays, reverse=True)
    assert bounds == sorted(bounds)
    assert (delays[-1], bounds[-1]) == (result.delay, result.lower_bound)


def read_back(path: Path) -> float:
    """Return the optimum of a written model, by HiGHS on the file alone."""
    highs = QuietHighs()
    highs.setOptionValue("mip_rel_gap", 1e-9)
    highs.setOptionValue("mip_feasibility_tolerance", 1e-9)
    assert highs.readModel(str(path)) == highspy.HighsStatus.kOk
    highs.run()
    assert highs.getModelStatus() == highspy.HighsModelStatus.kOptimal
    return float(highs.getInfo().objective_function_value)


@pytest.mark.parametrize(
    ("size", "count"),
    [((1, 3, 2), 40), ((2, 1, 1), 40), ((2, 2, 1), 60), ((2, 3, 1), 40), ((2, 2, 2), 35),
     ((3, 2, 1), 40), ((1, 2, 3), 25), ((3, 1, 2), 15)],
)  # fmt: skip
def test_against_enumeration(size: tuple[int, int, int], count: int) -> None:
    """Enumeration = Pyomo model = state flow; the relaxation lies below, its rounding above."""
    rng = np.random.default_rng([1, *size])
    for seed in range(count):
        problem = random_problem(rng, *size)
        best = optimum(problem)
        reference, fast = place_by_milp(problem, seed=seed), place_by_state_flow(problem, seed=seed)
        check(problem, reference)
        assert reference.delay == pytest.approx(best, rel=1e-9, abs=1e-12)
        assert reference.lower_bound <= best * (1 + SOLVER_TOLERANCE)
        assert reference.termination is Termination.OPTIMAL
        assert fast.delay == pytest.approx(best, rel=1e-9, abs=1e-12)
        relaxed = place_by_lp(problem, seed=seed)
        check(problem, relaxed)
        assert relaxed.lower_bound <= best * (1 + SOLVER_TOLERANCE)
        assert relaxed.delay >= best * (1 - 1e-12)


@pytest.mark.parametrize(
    ("size", "count"), [((1, 3, 1), 30), ((2, 2, 1), 30), ((1, 2, 2), 20), ((2, 3, 1), 15)]
)
def test_pipelined_against_enumeration(size: tuple[int, int, int], count: int) -> None:
    """Pipelined, the model finds the exact makespan, not only the larger of the two sums."""
    rng = np.random.default_rng([2, *size])
    above_sums = 0
    for seed in range(count):
        problem = random_problem(rng, *size, schedule="pipelined")
        best = optimum(problem)
        result = place_by_milp(problem, seed=seed)
        check(problem, result)
        assert result.delay == pytest.approx(best, rel=1e-9, abs=1e-12)
        assert result.lower_bound <= best * (1 + SOLVER_TOLERANCE)
        assert result.termination is Termination.OPTIMAL
        by_sums = place_by_state_flow(problem, seed=seed)
        assert by_sums.lower_bound <= best * (1 + SOLVER_TOLERANCE)
        above_sums += by_sums.lower_bound < best * (1 - 1e-4)
        relaxed = place_by_lp(problem, seed=seed)
        check(problem, relaxed)
        assert relaxed.lower_bound <= best * (1 + SOLVER_TOLERANCE)
    assert above_sums > 0  # else this test would not tell the makespan from the sums


@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
@pytest.mark.parametrize("suffix", [".lp", ".mps"])
def test_written_files_have_the_same_optimum(tmp_path: Path, suffix: str, schedule: str) -> None:
    """HiGHS, given nothing but the file, finds the optimum of the enumeration, in seconds."""
    rng = np.random.default_rng(3)
    for size in [(1, 3, 1), (2, 2, 1), (2, 3, 1), (1, 2, 2), (3, 2, 1)]:
        for _ in range(4):
            problem = random_problem(rng, *size, schedule=schedule)
            path = tmp_path / f"placement{suffix}"
            write_model(problem, path)
            assert read_back(path) == pytest.approx(optimum(problem), rel=1e-6, abs=1e-9)


def test_written_names_can_be_read(tmp_path: Path) -> None:
    """The file speaks of x, receive, send and tau with their indices."""
    path = tmp_path / "placement.lp"
    write_model(random_problem(np.random.default_rng(4), 2, 2, 1), path)
    text = path.read_text()
    for name in ("x(0_1_1)", "receive(", "send(", "tau(", "storage(0_1)"):
        assert name in text


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    """Another suffix and a missing folder are refused by name; nothing is left behind."""
    problem = random_problem(np.random.default_rng(4), 1, 1, 1)
    with pytest.raises(ValueError, match=r"write: .*model\.txt.*\.lp or \.mps"):
        write_model(problem, tmp_path / "model.txt")
    with pytest.raises(FormatError, match="cannot be written"):
        write_model(problem, tmp_path / "missing" / "model.lp")
    assert list(tmp_path.iterdir()) == []


def test_lp_rounds_well() -> None:
    """Rounding is much nearer the optimum than everything from the cloud, with several slots."""
    rng = np.random.default_rng(5)
    shares = []
    for seed in range(5):
        problem = random_problem(rng, 3, 10, 2)
        problem = replace(problem, storage=np.full(3, int(0.4 * problem.block_size.sum())))
        best = place_by_state_flow(problem, seed=seed).delay
        cloud = placement_delay(problem, everything_from_the_cloud(problem))
        result = place_by_lp(problem, seed=seed)
        check(problem, result)
        assert result.bound_kind is BoundKind.MILP
        shares.append((result.delay - best) / (cloud - best))
    assert np.mean(shares) < 0.25


def test_start_is_used() -> None:
    """The optimum as a start, with no time to search, comes back; an infeasible one is refused."""
    problem = random_problem(np.random.default_rng(17), 2, 3, 2)
    best = place_by_milp(problem)
    again = place_by_milp(problem, start=best.placement, deadline=Deadline.after(0))
    assert again.delay == best.delay
    full = Placement(np.ones((2, 2, 3), dtype=bool), np.full((2, 2, 3), -1))
    with pytest.raises(ValueError, match="storage"):
        place_by_milp(problem, start=full)


@pytest.mark.parametrize("solver", [place_by_milp, place_by_lp])
def test_limits_are_honest(solver) -> None:
    """No time: a judged placement, a bound, and the reason; a generous gap: stops within it."""
    problem = random_problem(np.random.default_rng(6), 3, 20, 3)
    for limit in (0.0, 0.01):
        result = solver(problem, deadline=Deadline.after(limit))
        check(problem, result)
        assert result.termination is Termination.TIME_LIMIT
        assert result.lower_bound > 0
    result = solver(problem, gap=10.0)
    assert result.termination in (Termination.GAP_REACHED, Termination.OPTIMAL)
    with pytest.raises(ValueError, match="gap"):
        solver(problem, gap=-0.1)


@pytest.mark.parametrize("solver", [place_by_milp, place_by_lp])
@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
def test_special_cases(solver, schedule: str) -> None:
    """Room for everything, no storage, nobody requesting, tiny times and large storages."""
    problem = random_problem(np.random.default_rng(19), 2, 3, 1, schedule)
    wide = solver(replace(problem, storage=np.full(2, 100)))
    assert wide.delay == pytest.approx(everywhere(problem), rel=1e-9)
    assert wide.termination is Termination.OPTIMAL
    closed = replace(problem, storage=np.zeros(2, dtype=np.int64))
    result = solver(closed)
    check(closed, result)
    assert not result.placement.cache.any()
    idle = solver(replace(problem, group=np.full((1, 3), -1)))
    assert (idle.delay, idle.lower_bound, idle.termination) == (0.0, 0.0, Termination.OPTIMAL)
    # Gigabytes at nanoseconds per byte, as in a real network.
    scaled = replace(
        problem, block_size=problem.block_size * 300_000_000, storage=problem.storage * 300_000_000,
        broadcast=tuple(table * 3e-9 for table in problem.broadcast), link=problem.link * 3e-9,
    )  # fmt: skip
    result = solver(scaled)
    check(scaled, result)
    if solver is place_by_milp:
        assert result.delay == pytest.approx(0.9 * optimum(problem), rel=1e-9)
