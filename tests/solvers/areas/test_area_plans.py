"""Plans of areas: what comes first, what a limit leaves, areas without requests."""

from __future__ import annotations

import time

import numpy as np
import pytest
from two_areas import three_areas, two_areas

import finecast
from finecast.problem.evaluation import evaluate
from finecast.solvers.areas import on_air
from finecast.solvers.areas.air import subsets_serve
from finecast.solvers.areas.deliver import deliver
from finecast.solvers.areas.plan import finish_plan, search_plan
from finecast.solvers.areas.rates import prepare_areas
from finecast.solvers.areas.wide_rates import searched
from finecast.solvers.beamforming.by_name import Beams
from finecast.solvers.deadline import Deadline


def test_lagrangian_is_no_worse_than_greedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its plan comes first."""
    monkeypatch.setattr(on_air, "STEPS", 15)
    monkeypatch.setattr(on_air, "POLISH_STEPS", 15)
    for instance in (two_areas(4, slots=2), three_areas()):
        greedy = finecast.solve(instance, "greedy", seed=2)
        assert finecast.solve(instance, "lagrangian", seed=2).delay <= greedy.delay


@pytest.mark.parametrize("method", ["greedy", "lagrangian"])
def test_without_time_every_wide_message_has_a_beam(method: str) -> None:
    """One in closed form at least: a silent message would be a delay without end."""
    found = finecast.solve(three_areas(), method, seed=2, time_limit=0.01)
    assert found.evaluation.feasible
    assert np.isfinite(found.delay)
    assert found.delay >= found.lower_bound
    for broadcast in found.solution.broadcasts:
        assert (broadcast.rate > 0).all()


def test_an_area_may_have_no_groups() -> None:
    """No messages, one node: the table stays empty. With two nodes a set serves as its subsets."""
    assert subsets_serve(np.zeros((0, 2))).shape == (0, 2)
    table = np.array([[np.inf, 3.0, 2.0, np.inf]])
    assert subsets_serve(table).tolist() == [[np.inf, 3.0, 2.0, 2.0]]


def test_large_wide_messages_get_a_try_then_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them count as large here, one in a task; they end as good as all at once."""
    instance = three_areas()
    ready = prepare_areas(instance)
    wide = np.ones((instance.slots, instance.blocks), dtype=bool)
    plan = search_plan(ready.city, ready.rates, ready.point.prices, wide, keep_ways=True, rounds=1)
    together = finish_plan(ready.city, plan)
    monkeypatch.setattr("finecast.solvers.areas.wide.QUICKLY_SEARCHED", 0.0)
    monkeypatch.setattr("finecast.solvers.areas.wide_rates.CHUNK_SIZE", 0.0)
    one_by_one = finish_plan(ready.city, plan)
    assert one_by_one.delay == pytest.approx(together.delay, rel=1e-3)
    # Too large for any search: closed forms serve everybody.
    monkeypatch.setattr("finecast.solvers.areas.wide.MOST_SEARCHED", 0.0)
    closed = finish_plan(ready.city, plan)
    assert together.delay * (1 - 1e-9) <= closed.delay < np.inf


@pytest.mark.parametrize(("seconds", "most"), [(0.0, 0), (0.3, 1)])
def test_no_search_begins_after_the_limit(
    seconds: float, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search outlasts the limit; those that wait behind it are left out, of all slots."""
    instance = three_areas()
    ready = prepare_areas(instance)
    wide = np.ones((instance.slots, instance.blocks), dtype=bool)
    plan = search_plan(ready.city, ready.rates, ready.point.prices, wide, keep_ways=True, rounds=1)
    assert sum(len(slot.wide.users) for slot in plan.beams) > 3
    begun = []

    def slow(*task: object) -> Beams:
        begun.append(task)
        time.sleep(0.4)
        return searched(*task)

    monkeypatch.setattr("finecast.solvers.areas.wide.searched", slow)
    monkeypatch.setattr("finecast.solvers.areas.wide_rates.CHUNK_SIZE", 0.0)
    found = finish_plan(ready.city, plan, deadline=Deadline.after(seconds))
    assert len(begun) <= most
    assert evaluate(instance, deliver(ready.city, found, "plan")).feasible


@pytest.mark.parametrize("goes_wide", [False, True])
def test_all_messages_may_go_one_way(goes_wide: bool) -> None:
    """Where nothing goes wide, or everything does, a plan is searched and finished all the same."""
    instance = three_areas()
    ready = prepare_areas(instance)
    wide = np.full((instance.slots, instance.blocks), goes_wide)
    plan = search_plan(ready.city, ready.rates, ready.point.prices, wide, keep_ways=True, rounds=2)
    plan = finish_plan(ready.city, plan)
    for slot in plan.beams:
        assert bool(len(slot.wide.users)) == goes_wide
        assert bool(len(slot.local.keys)) != goes_wide
    evaluation = evaluate(instance, deliver(ready.city, plan, "plan"))
    assert evaluation.feasible
    assert evaluation.delay >= ready.point.bound * (1 - 1e-9)


@pytest.mark.parametrize("method", ["lagrangian", "greedy", "lru"])
def test_a_beam_that_reaches_not_all_is_no_solution(method, monkeypatch):
    """Where the judge allows a message no rate, the answer says so in a note."""

    def none(instance, phase, *args, **options):
        return np.zeros(len(phase.transmissions))

    monkeypatch.setattr("finecast.solvers.areas.deliver.allowed_rates", none)
    result = finecast.solve(two_areas(0), method)
    assert result.solution is None
    assert (result.lower_bound > 0) == (method != "lru")
    assert any("does not reach all its listeners" in note for note in result.notes)
