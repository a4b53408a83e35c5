"""Placement and shared air in turn: for every offline method, the best kept by the judge."""

from __future__ import annotations

import os
import signal
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from repository import SCENARIOS

from finecast.problem.evaluation import evaluate
from finecast.problem.scenario import read_scenario
from finecast.solvers.prepared import prepare
from finecast.solvers.registry import method_of, methods
from finecast.solvers.result import Termination
from finecast.solvers.search import Search
from finecast.solvers.solve import answer_of, solve
from finecast.solvers.spatial import alternate
from finecast.solvers.spatial.delivery import share_the_air
from finecast.solvers.spatial.modes import Effort, least_time
from finecast.solvers.spatial.replan import LEAST_SHARE, alone_price, at_shared_prices

OFFLINE = sorted(
    name
    for name, method in methods().items()
    if method.setting == "offline" and not method.needs_training and method.installed
)


def scenario(name="tiny", seed=2, **changes):
    """Return a spatial instance of a shipped scenario."""
    instance = read_scenario(SCENARIOS / f"{name}.toml").generate(seed)
    return replace(instance, **{"delivery": "spatial", **changes})


@pytest.mark.parametrize(
    ("name", "schedule"), [*((name, "sequential") for name in OFFLINE), ("lagrangian", "pipelined")]
)
def test_placing_again_is_no_worse(name, schedule, monkeypatch):
    """Feasible, above the bound, and never above the first placement on shared air."""
    instance = scenario(schedule=schedule)
    result = solve(instance, name)
    assert result.evaluation.feasible
    assert 0 < result.lower_bound <= result.delay
    monkeypatch.setattr(alternate, "ALTERNATIONS", 0)
    once = solve(instance, name)
    assert result.delay <= once.delay * (1 + 1e-12)
    plan = solve(replace(instance, delivery="sequential"), name).solution
    assert once.delay <= evaluate(instance, plan).delay * (1 + 1e-12)


@pytest.mark.parametrize("name", OFFLINE)
def test_every_offline_method_places_again(name):
    """The answer of each carries how to place at other prices; at those of the air as it was, the
    new plan is one message after another, and feasible."""
    instance = scenario()
    answer = answer_of(method_of(name), instance, Search())
    prices = tuple(alone_price(instance, b) for b in answer.solution.broadcasts)
    again = answer.replan(answer.solution, prices, 5.0)
    assert evaluate(instance, again).feasible
    for broadcast in again.broadcasts:
        assert broadcast.modes == broadcast.messages


def test_placing_again_pays(monkeypatch):
    """A problem on which the placement at the prices of shared air is better by the judge.

    The searches end after eight rounds and not by the clock, so that they are always the same.
    """
    monkeypatch.setitem(least_time.__kwdefaults__, "effort", Effort(rounds=8))
    instance = scenario("vision-small", seed=1)
    answer = answer_of(method_of("greedy"), instance, Search())
    once = share_the_air(instance, answer.solution)
    turned = alternate.on_shared_air(instance, answer, began=0.0)
    delay = [evaluate(instance, each.solution).delay for each in (once, turned)]
    assert delay[1] < 0.999 * delay[0]
    assert [point.delay for point in turned.trace] == sorted(
        (point.delay for point in turned.trace), reverse=True
    )


@pytest.mark.parametrize("name", [*OFFLINE, "mpc"])
def test_no_time_means_one_after_another(name):
    """A time limit of 0 leaves one message per mode."""
    result = solve(scenario(), name, time_limit=0.0)
    for broadcast in result.solution.broadcasts:
        assert broadcast.modes == broadcast.messages == len(broadcast.mode)


def test_shares_of_the_time_alone():
    """Groups pay the share of their price: half the price of every message halves the broadcast
    times, a price of 0 leaves the least share, and node sets without anybody stay impossible."""
    instance = scenario()
    prepared = prepare(instance)
    plan = answer_of(method_of("greedy"), instance, Search()).solution
    alone = tuple(alone_price(instance, b) for b in plan.broadcasts)
    for factor, share in ((0.5, 0.5), (0.0, LEAST_SHARE), (2.0, 1.0)):
        scaled = at_shared_prices(prepared, plan, tuple(factor * price for price in alone))
        for before, after in zip(prepared.achieved.broadcast, scaled.broadcast, strict=True):
            assert np.isinf(after[:, 0]).all()
            np.testing.assert_allclose(after[:, 1:], share * before[:, 1:], rtol=1e-9)


def test_gap_ends_it():
    """With a wide gap the first delivery is enough, and the ending says that it was reached."""
    result = solve(scenario(), "greedy", gap=50.0)
    assert result.termination is Termination.GAP_REACHED


def test_processes_give_the_same(monkeypatch):
    """Slots side by side in two processes: the same solution to the last bit."""
    drawn = read_scenario(SCENARIOS / "tiny.toml").model_copy(update={"slots": 3})
    instance = replace(drawn.generate(0), delivery="spatial")
    answer = answer_of(method_of("greedy"), instance, Search())
    monkeypatch.setattr(alternate, "LONG_HORIZON", 1)
    monkeypatch.setattr(alternate, "ALTERNATIONS", 0)
    one, two = (
        alternate.on_shared_air(instance, answer, began=0.0, workers=workers).solution
        for workers in (1, 2)
    )
    assert any(len(broadcast.mode) > broadcast.modes for broadcast in one.broadcasts)
    for first, second in zip(one.broadcasts, two.broadcasts, strict=True):
        assert np.array_equal(first.duration, second.duration)
        assert np.array_equal(first.beam, second.beam)


def test_a_killed_process_costs_a_note(monkeypatch):
    """One of two processes is killed in its first slot: the plan is that of one process, noted."""
    drawn = read_scenario(SCENARIOS / "tiny.toml").model_copy(update={"slots": 3})
    instance = replace(drawn.generate(0), delivery="spatial")
    answer = answer_of(method_of("greedy"), instance, Search())
    monkeypatch.setattr(alternate, "LONG_HORIZON", 1)
    monkeypatch.setattr(alternate, "ALTERNATIONS", 0)
    one = alternate.on_shared_air(instance, answer, began=0.0)
    assert one.notes == answer.notes
    share_the_air = alternate.share_the_air

    def after_a_kill(*given, pool, **options):
        with suppress(BrokenProcessPool):
            pool.submit(os.kill, pool.submit(os.getpid).result(), signal.SIGKILL).result()
        return share_the_air(*given, pool=pool, **options)

    monkeypatch.setattr(alternate, "share_the_air", after_a_kill)
    two = alternate.on_shared_air(instance, answer, began=0.0, workers=2)
    assert two.notes[-1] == (
        "the processes of spatial delivery were killed; 3 slots were searched one by one"
    )
    for first, second in zip(one.solution.broadcasts, two.solution.broadcasts, strict=True):
        assert np.array_equal(first.duration, second.duration)


def test_workers_are_checked():
    """No number of processes but a whole one from 1 on."""
    for wrong in (0, 1.5, True):
        with pytest.raises(ValueError, match="spatial_workers"):
            solve(scenario(), "greedy", spatial_workers=wrong)
