"""No bound is believed: one above the judged delay of its own plan, or no number, is a failure."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

import finecast
from finecast.problem.solution import read_solution, write_solution
from finecast.solvers.registry import method_of
from finecast.solvers.result import BoundKind, Result, Termination, TracePoint
from finecast.solvers.search import Search
from finecast.solvers.solve import answer_of


@pytest.fixture(scope="module")
def instance():
    """Give a small instance."""
    return finecast.read_scenario("tiny").generate(seed=0)


@pytest.fixture
def solved(instance, monkeypatch):
    """Give a function that solves by greedy, with something else in the answer."""
    honest = answer_of(method_of("greedy"), instance, Search(seed=0))

    def solve(**changes: object) -> Result:
        monkeypatch.setattr(
            "finecast.solvers.solve.answer_of", lambda *_, **__: replace(honest, **changes)
        )
        return finecast.solve(instance, "greedy")

    return solve


@pytest.mark.parametrize(
    ("bound", "words"),
    [
        (1e9, "lower bound of 1e+09 s is above the judged delay of 0.1"),
        (math.inf, "lower bound of inf s is above the judged delay"),
        (math.nan, "lower bound of nan s is no number"),
    ],
)
def test_bounds_that_the_judge_refutes(solved, bound, words):
    """The run has failed and says why; no bound and no gap are left to print."""
    trace = (TracePoint(0.0, 1.0, bound),)
    result = solved(lower_bound=bound, trace=trace, termination=Termination.OPTIMAL)
    assert result.termination is Termination.FAILED
    assert words in result.notes[-1]
    assert words in str(result)
    assert (result.lower_bound, result.bound_kind) == (0.0, BoundKind.NONE)
    assert result.gap == math.inf
    assert result.trace[0].lower_bound == 0.0
    assert result.evaluation.feasible


def test_a_bound_that_is_no_number_without_a_plan(solved):
    """Nothing to compare with: it has failed all the same."""
    result = solved(solution=None, lower_bound=math.nan, termination=Termination.NO_SOLUTION)
    assert result.termination is Termination.FAILED
    assert "no number" in result.notes[-1]


def test_bounds_within_the_tolerances_of_the_judge(solved):
    """1e-9 above the delay is rounding: the bound is the delay, and the gap is not negative."""
    delay = solved().delay
    bound = delay * (1 + 1e-9)
    trace = (TracePoint(0.0, delay, bound), TracePoint(0.0, delay, 2.0 * delay))
    close = solved(lower_bound=bound, trace=trace)
    assert close.termination is not Termination.FAILED
    assert close.gap == 0.0
    assert close.trace[0].lower_bound == close.lower_bound == delay
    assert close.trace[1] == trace[1]  # no rounding: shown as it is, for the checks to find
    assert solved(lower_bound=delay * (1 + 1e-7)).termination is Termination.FAILED


def test_bounds_of_nominal_plans_are_for_planned_delays():
    """They guarantee nothing, so that the bound is held against what they plan."""
    instance = finecast.read_scenario("tiny").with_({"channel.error": 0.2}).generate(seed=0)
    result = finecast.solve(instance, "greedy", restrict="non-robust")
    assert result.delay == math.inf
    assert result.termination is Termination.COMPLETED
    assert result.lower_bound <= result.evaluation.planned_delay
    assert dict(result.rows())["gap"] == "unknown, no plan is guaranteed"


def test_no_solution_has_no_gap(solved):
    """A bound of infinity, where nobody can be served, is no gap of nought."""
    result = solved(solution=None, lower_bound=math.inf, termination=Termination.NO_SOLUTION)
    assert result.termination is Termination.NO_SOLUTION
    assert result.gap == math.inf
    assert "0.000 %" not in result.summary()
    assert str(result).startswith("greedy: no solution\n")


@pytest.mark.parametrize("restrict", ["coarse", "unicast,coarse", "no-migration"])
def test_the_restriction_travels_with_the_solution(instance, tmp_path, restrict):
    """What a restricted method writes is judged alike on the instance as it stands."""
    result = finecast.solve(instance, "greedy", restrict=restrict)
    path = tmp_path / "s.npz"
    write_solution(path, result.solution)
    again = read_solution(path)
    assert again.restrict == ",".join(sorted(restrict.split(",")))
    assert again.instance_hash == instance.content_hash
    judged = finecast.evaluate(instance, again)
    assert judged.feasible
    assert judged.delay == result.delay
