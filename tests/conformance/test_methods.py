"""What every registered method must keep to, whoever wrote it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from problem.evaluation import evaluate
from problem.scenario import read_scenario
from solvers.registry import methods
from solvers.result import Termination
from solvers.solve import solve

TINY = Path(__file__).resolve().parents[2] / "data" / "scenarios" / "tiny.toml"
INSTANCE = read_scenario(TINY).generate(2)
ALL = sorted(name for name, method in methods().items() if not method.needs_training)


@pytest.mark.parametrize("name", ALL)
def test_feasible_and_bounded(name):
    """The judge finds nothing wrong, and the bound lies below the delay."""
    result = solve(INSTANCE, name)
    assert result.solution is not None
    evaluation = evaluate(INSTANCE, result.solution)
    assert [str(v) for v in evaluation.violations] == []
    assert evaluation.delay == result.delay
    assert np.isfinite(result.delay)
    if methods()[name].gives_bound:
        assert 0 < result.lower_bound <= result.delay


@pytest.mark.parametrize("name", ALL)
def test_same_seed_same_answer(name):
    """Two runs with one seed give the same decisions and the same bound."""
    first, second = solve(INSTANCE, name, seed=5), solve(INSTANCE, name, seed=5)
    assert np.array_equal(first.solution.cache, second.solution.cache)
    assert np.array_equal(first.solution.source, second.solution.source)
    assert first.delay == second.delay
    assert first.lower_bound == second.lower_bound


@pytest.mark.parametrize("limit", [0.0, 0.01])
@pytest.mark.parametrize("name", ALL)
def test_tiny_time_limits_are_honest(name, limit):
    """With no time there is either a judged solution or none, and the ending says which."""
    result = solve(INSTANCE, name, time_limit=limit)
    if result.solution is None:
        assert result.termination is Termination.NO_SOLUTION
        assert result.delay == np.inf
    else:
        assert evaluate(INSTANCE, result.solution).feasible
        assert result.lower_bound <= result.delay


@pytest.mark.parametrize("name", ALL)
def test_bad_options_are_refused(name):
    """An unknown option and numbers out of range are a ValueError that names them."""
    with pytest.raises(ValueError, match="no_such_option"):
        solve(INSTANCE, name, no_such_option=1)
    with pytest.raises(ValueError, match="time_limit"):
        solve(INSTANCE, name, time_limit=-1.0)
    with pytest.raises(ValueError, match="gap"):
        solve(INSTANCE, name, gap=float("nan"))


@pytest.mark.parametrize("name", ALL)
def test_start_is_used_or_said_not_to_be(name):
    """A start solution is either used or the notes say that it was not."""
    start = solve(INSTANCE, "greedy").solution
    result = solve(INSTANCE, name, start=start)
    if not methods()[name].warm_starts:
        assert any("start was not used" in note for note in result.notes)
