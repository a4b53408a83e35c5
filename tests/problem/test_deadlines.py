"""Deadlines: what the judge counts as in time, and where they stand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import finecast
from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance

SOLUTION = finecast.solve(finecast.read_scenario("tiny").with_({"slots": 2}).generate(0), "greedy")


@pytest.fixture
def instance() -> Instance:
    return finecast.read_scenario("tiny").with_({"slots": 2}).generate(0)


def in_time(instance: Instance, deadline: object) -> float:
    assert SOLUTION.solution is not None
    return evaluate(
        replace(instance, deadline=np.asarray(deadline)), SOLUTION.solution
    ).in_time_ratio


def test_requests_are_counted_one_by_one(instance: Instance) -> None:
    assert SOLUTION.evaluation is not None
    completion, models = SOLUTION.evaluation.user_completion, instance.library.models
    assert np.isnan(SOLUTION.evaluation.in_time_ratio)
    for seconds in np.unique(completion):
        found = in_time(instance, np.full(models, seconds))
        assert found == (completion <= seconds).mean()
    # One model alone has a deadline, which nobody meets; then one that nobody asks for.
    wanted = instance.requests[0, 0]
    alone = np.where(np.arange(models) == wanted, 1e-9, np.inf)
    assert in_time(instance, alone) == 0.0
    unasked = np.setdiff1d(np.arange(models), instance.requests)
    if len(unasked):
        assert np.isnan(in_time(instance, np.where(np.arange(models) == unasked[0], 1.0, np.inf)))


@given(st.floats(1e-4, 10.0), st.floats(1.0, 3.0))
def test_a_later_deadline_is_met_more_often(seconds: float, factor: float) -> None:
    instance = finecast.read_scenario("tiny").with_({"slots": 2}).generate(0)
    models = instance.library.models
    assert in_time(instance, np.full(models, seconds)) <= in_time(
        instance, np.full(models, seconds * factor)
    )


def test_scenarios_and_files_say_deadlines(tmp_path: Path, instance: Instance) -> None:
    scenario = finecast.read_scenario("vision-small")
    one = scenario.with_({"demand.deadline_s": 60}).generate(0)
    assert one.deadline.tolist() == [60.0] * one.library.models
    family = one.library.model_family[0]
    some = scenario.with_({"demand.deadline_s": {family: 5.0}}).generate(0)
    assert set(some.deadline) == {5.0, np.inf}
    finecast.write_instance(tmp_path / "a.npz", some)
    assert finecast.read_instance(tmp_path / "a.npz").deadline.tolist() == some.deadline.tolist()
    assert some.content_hash != one.content_hash
    # Infinite deadlines are none.
    none = replace(instance, deadline=np.full(instance.library.models, np.inf))
    assert none.content_hash == instance.content_hash


@pytest.mark.parametrize(
    ("deadline", "message"),
    [(0, "demand.deadline_s"), ({"no-family": 3.0}, "'no-family' is not in the library")],
)
def test_bad_deadlines_in_a_scenario(deadline: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        finecast.read_scenario("vision-small").with_({"demand.deadline_s": deadline}).generate(0)


@pytest.mark.parametrize("deadline", [[1.0], [0.0, 1.0, 1.0], [np.nan, 1.0, 1.0]])
def test_bad_deadlines_of_an_instance(instance: Instance, deadline: list[float]) -> None:
    with pytest.raises(ValueError, match="deadline"):
        replace(instance, deadline=np.array(deadline))


def test_a_result_says_them(instance: Instance) -> None:
    due = replace(instance, deadline=np.full(instance.library.models, 1e3))
    result = finecast.solve(due, "greedy")
    assert ("in time", "100.0 % of downloads with a deadline") in result.rows()
    assert result.as_dict()["in_time_ratio"] == 1.0
    assert "in time" not in dict(finecast.solve(instance, "greedy").rows())
