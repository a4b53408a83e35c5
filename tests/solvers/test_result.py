"""Result: the gap and its two parts by hand; what it says in words and as JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

import finecast
from finecast.problem.files import json_text
from finecast.problem.violations import Violation
from finecast.solvers.result import BoundKind, Result, Termination, TracePoint, relative_gap


@pytest.fixture(scope="module")
def solved():
    """Give a result of the tiny scenario."""
    return finecast.solve(finecast.read_scenario("tiny").generate(seed=0), "greedy")


def result(delay: float, bounded: float | None, bound: float) -> Result:
    """Return a result with three numbers of a plan that is feasible and guaranteed."""
    evaluation = SimpleNamespace(delay=delay, feasible=True, guaranteed=True, violations=())
    return Result(
        method="mine",
        solution=None,
        evaluation=evaluation,
        lower_bound=bound,
        bound_kind=BoundKind.CERTIFIED,
        delay_at_bounded_rates=bounded,
        termination=Termination.TIME_LIMIT,
        wall_s=1.0,
        cpu_s=1.0,
        seed=0,
        instance_hash="",
    )


def test_gap_splits_in_two():
    """12 s, of which 10 s at bounded rates, over a bound of 8 s.

    Better beams could bring 12 down to 10: a fifth. A better placement could bring 10 down to 8: a
    quarter. 1.2 times 1.25 is 1.5: half as much again as the bound.
    """
    told = result(12.0, 10.0, 8.0)
    assert told.gap == 0.5
    assert told.beamforming_gap == pytest.approx(0.2)
    assert told.placement_gap == 0.25
    assert (1 + told.beamforming_gap) * (1 + told.placement_gap) == pytest.approx(1 + told.gap)


def test_gaps_that_are_unknown():
    """Without a delay at bounded rates there are no parts; without a bound the gap is infinite."""
    told = result(12.0, None, 0.0)
    assert told.beamforming_gap is None
    assert told.placement_gap is None
    assert told.gap == math.inf
    assert relative_gap(0.0, 0.0) == 0.0


def test_print_answers(solved):
    """Two lines: how long, how far from optimal, what that rests on; never the arrays."""
    lines = str(solved).splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("greedy: delay 0.1012 s, ")
    assert lines[0].endswith(" % at most above the optimum")
    assert "certified" in lines[1]
    assert repr(solved).startswith("Result(method='greedy', delay=0.101")
    assert len(repr(solved)) < 200
    assert str(result(12.0, 10.0, 8.0)).startswith(
        "mine: delay 12 s, 50.000 % at most above the optimum\nlower bound 8 s (certified)"
    )


def test_print_of_what_is_no_answer(solved):
    """No solution, a broken rule, a plan without a guarantee: the first line says so."""
    assert str(replace(solved, evaluation=None)).startswith("greedy: no solution\n")
    broken = replace(solved.evaluation, violations=(Violation("storage", 0, 1.0, "B", node=1),))
    assert str(replace(solved, evaluation=broken)).startswith("greedy: infeasible, storage: slot 0")
    hoped = replace(solved.evaluation, guaranteed=False, delay=math.inf, realised_delay=0.25)
    said = "greedy: no guaranteed delay, realised 0.25 s over the true channels"
    assert str(replace(solved, evaluation=hoped)).startswith(said)


def test_summary(solved):
    """A label and a text a line, aligned, then notes and at most twenty broken rules."""
    text = replace(solved, notes=("a note",)).summary()
    lines = text.splitlines()
    assert lines[0] == "method             greedy, ended: completed"
    assert f"delay, guaranteed  {solved.delay:.4g} s" in lines
    assert lines[-1] == "note: a note"
    starts = {len(label) - len(label.lstrip()) for label in lines}
    assert starts <= {0, 2}
    many = tuple(Violation("storage", i, 1.0, "B") for i in range(30))
    text = replace(solved, evaluation=replace(solved.evaluation, violations=many)).summary()
    assert text.count("violation: storage") == 20
    assert "feasible           NO" in text
    assert "delay" not in replace(solved, evaluation=None).summary()


def test_as_dict_is_json(solved):
    """All figures under their names; what JSON lacks is null; the trace is lists of numbers."""
    told = replace(solved, trace=(TracePoint(0.5, math.inf, 0.0),))
    data = json.loads(json_text(told.as_dict()))
    assert data["delay"] == solved.delay == sum(data["slot_delay"])
    assert data["migrated_bytes"] == solved.evaluation.migrated_bytes
    assert data["guaranteed"] is True
    assert data["trace"] == [[0.5, None, 0.0]]
    assert data["termination"] == "completed"
    empty = json.loads(json_text(replace(solved, evaluation=None).as_dict()))
    assert empty["delay"] is None
    assert empty["feasible"] is False
    assert empty["cloud_bytes"] is None
    assert empty.keys() == data.keys()
