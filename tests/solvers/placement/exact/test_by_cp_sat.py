"""CP-SAT against enumeration: whole numbers that never promise too much."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from placement_oracle import optimum, random_problem

from finecast.solvers.placement.bound import dual_point, no_prices
from finecast.solvers.placement.chains import classes
from finecast.solvers.placement.exact.elimination import excess
from finecast.solvers.placement.exact.state_flow_model import model
from finecast.solvers.placement.problem import PlacementProblem, placement_delay
from finecast.solvers.registry import method_of
from finecast.solvers.result import BoundKind

pytest.importorskip("ortools", reason="the extra cp-sat is not installed")

from finecast.solvers.placement.exact import by_cp_sat
from finecast.solvers.placement.exact.by_cp_sat import place_by_cp_sat
from finecast.solvers.placement.exact.cp_sat_model import UNITS, cp_sat_model, rounded_down

GIGABYTE = 10**9


@pytest.mark.parametrize("size", [(1, 3, 2), (2, 3, 1), (2, 2, 2), (3, 2, 1), (1, 2, 3)])
def test_against_enumeration(size):
    """The optimum is found and proven, and the bound is never above it."""
    rng = np.random.default_rng(size)
    for seed in range(8):
        problem = random_problem(rng, *size)
        best = optimum(problem)
        found = place_by_cp_sat(problem, seed=seed)
        assert found.delay == placement_delay(problem, found.placement)
        assert found.delay == pytest.approx(best, rel=1e-6, abs=1e-12)
        assert found.lower_bound <= best * (1 + 1e-12)
        assert found.termination == "optimal"


@pytest.mark.parametrize("seed", range(4))
def test_cp_sat_alone_against_enumeration(seed, monkeypatch):
    """From a poor plan and loose prices, nothing eliminated by luck: CP-SAT itself proves it.

    The Lagrangian search is cut off at once, so that what is proven is not its doing.
    """
    lagrangian = by_cp_sat.place_by_prices
    monkeypatch.setattr(
        by_cp_sat, "place_by_prices",
        lambda problem, deadline, **rest: lagrangian(problem, **{**rest, "gap": 1e9}),
    )  # fmt: skip
    monkeypatch.setattr(by_cp_sat.Incumbent, "reached", property(lambda self: self.gap < 1e-6))
    problem = random_problem(np.random.default_rng([seed, 7]), 2, 3, 2)
    best = optimum(problem)
    found = place_by_cp_sat(problem, seed=seed)
    assert found.delay == pytest.approx(best, rel=1e-6)
    assert best * (1 - 2e-6) <= found.lower_bound <= best * (1 + 1e-12)


@pytest.mark.parametrize("size", [(1, 3, 1), (2, 2, 1), (1, 2, 2)])
def test_pipelined_against_enumeration(size):
    """Pipelined, the bound holds and no plan beats the optimum."""
    rng = np.random.default_rng(size)
    for seed in range(6):
        problem = random_problem(rng, *size, schedule="pipelined")
        best = optimum(problem)
        found = place_by_cp_sat(problem, seed=seed)
        assert found.lower_bound <= best * (1 + 1e-12)
        assert found.delay >= best * (1 - 1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_whole_costs_are_never_above_the_true_ones(seed):
    """Least cost in units, by CP-SAT to its end: at most the optimum, and less by little.

    A plan of J blocks in T slots loses less than two units with each of them.
    """
    problem = random_problem(np.random.default_rng([seed, 3]), 2, 3, 2)
    tables = classes(problem)
    useful = excess(tables, dual_point(problem, tables, no_prices(problem)))
    best = optimum(problem)
    unit = 1.5 * best
    translated = cp_sat_model(problem, model(problem, tables, useful, 100 * best, unit))
    solver = by_cp_sat.cp_model.CpSolver()
    solver.parameters.num_workers = 1
    assert solver.solve(translated.model) == by_cp_sat.cp_model.OPTIMAL
    units = best / unit * UNITS
    assert units - 2 * problem.blocks * problem.slots <= solver.objective_value <= units + 1e-6


def test_rounding_down_is_down():
    """For numbers of any size, in exact integers: the units never exceed the product."""
    value = np.random.default_rng(0).random(2000) * 10.0 ** np.random.default_rng(1).integers(
        -9, 1, 2000
    )
    for exact, units in zip(value.tolist(), rounded_down(value).tolist(), strict=True):
        numerator, denominator = exact.as_integer_ratio()
        assert units * denominator <= numerator * UNITS
        assert (units + 2) * denominator > numerator * UNITS


@pytest.mark.parametrize(("missing", "delay"), [(1, 16.0), (0, 13.5)])
def test_two_blocks_that_miss_one_byte(missing, delay):
    """Whole bytes: the same two blocks as in `test_to_the_byte`, with and without room for both."""
    problem = PlacementProblem(
        block_size=[10 * GIGABYTE, 5 * GIGABYTE],
        storage=[15 * GIGABYTE - missing] * 2,
        group=[[0, 0]],
        broadcast=([[np.inf, 1e-9, 1.2e-9, 0.9e-9]],),
        link=[[np.inf, 4e-9], [4e-9, np.inf], [8e-9, 9e-9]],
    )
    found = place_by_cp_sat(problem)
    assert found.delay == pytest.approx(delay)
    assert delay * (1 - 1e-6) <= found.lower_bound <= delay * (1 + 1e-12)


def middling(seed):
    """Return a problem of some large blocks that the Lagrangian search does not prove."""
    drawn = random_problem(np.random.default_rng([seed, 11]), 3, 8, 3)
    size = np.random.default_rng(seed).integers(50, 400, 8)
    return replace(drawn, block_size=size, storage=np.full(3, int(0.3 * size.sum())))


def test_same_seed_same_answer():
    """Without a time limit the answer depends on the seed alone."""
    first, second = (place_by_cp_sat(middling(0), seed=4) for _ in range(2))
    assert (first.placement.cache == second.placement.cache).all()
    assert (first.placement.source == second.placement.source).all()
    assert first.lower_bound == second.lower_bound


def test_the_bound_is_a_solvers_word():
    """A bound of CP-SAT above the Lagrangian one is marked as one that rests on a solver."""
    kinds = {place_by_cp_sat(middling(seed)).bound_kind for seed in range(3)}
    assert BoundKind.MILP in kinds


def test_an_error_of_the_callback_comes_through():
    """What the caller's callback raises while CP-SAT runs ends the search and is not swallowed."""
    problem = middling(1)
    seen = []
    warm = by_cp_sat.place_by_prices(problem, patience=by_cp_sat.LAGRANGIAN_PATIENCE)

    def callback(point):
        seen.append(point)
        if len(seen) > len(warm.trace):
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        place_by_cp_sat(problem, callback=callback)


def test_a_model_that_is_too_large_is_left_alone(monkeypatch):
    """Then the Lagrangian search goes on, and its bound is certified."""
    monkeypatch.setattr(by_cp_sat, "MOST_COLUMNS", 0)
    found = place_by_cp_sat(middling(2))
    assert found.bound_kind is BoundKind.CERTIFIED


def test_missing_package_is_one_line(tmp_path):
    """Without ortools the command line says what to install, and ends as with bad input."""
    program = (
        "import sys\n"
        "sys.modules['ortools'] = None\n"
        "sys.argv = ['finecast', 'solve', 'tiny', '--method', 'cp-sat']\n"
        "from finecast.cli.main import main\n"
        "main()\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 2
    assert run.stderr.strip() == (
        "finecast: error: method 'cp-sat' needs packages that are not installed: "
        "pip install 'finecast[cp-sat]'"
    )
    assert method_of("cp-sat").extra == "cp-sat"
