"""The order of messages for the mean user: brute force, closed forms, the judge's word."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import finecast
from finecast.solvers.completion_order import Waits, least_total_completion
from finecast.solvers.message_order import ordered_for_the_mean


def drawn(seed: int, jobs: int, users: int, blocks: int = 3) -> Waits:
    """Return jobs with a time of their own each, and blocks that come with the first of some."""
    rng = np.random.default_rng(seed)
    shared = rng.random((blocks, jobs)) < 0.5
    shared[np.arange(blocks), rng.integers(jobs, size=blocks)] = True
    return Waits(
        length=rng.integers(0, 9, jobs + blocks).astype(float),
        carried=np.concatenate([np.eye(jobs, dtype=bool), shared]),
        waited=rng.random((users, jobs)) < 0.4,
    )


def by_hand(waits: Waits, order: tuple[int, ...]) -> float:
    """Return the total completion, job by job."""
    clock = 0.0
    here: set[int] = set()
    end: dict[int, float] = {}
    for job in order:
        for e in np.flatnonzero(waits.carried[:, job]).tolist():
            if e not in here:
                here.add(e)
                clock += float(waits.length[e])
        end[job] = clock
    return sum(
        max((end[j] for j in np.flatnonzero(row).tolist()), default=0.0) for row in waits.waited
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 8))
def test_few_jobs_are_as_good_as_every_order_tried(seed: int, jobs: int, users: int) -> None:
    waits = drawn(seed, jobs, users)
    least = min(by_hand(waits, order) for order in permutations(range(jobs)))
    exact = least_total_completion(waits)
    assert exact.total == pytest.approx(least, rel=1e-12, abs=1e-12)
    assert exact.total == pytest.approx(by_hand(waits, tuple(exact.jobs)), rel=1e-12)
    assert exact.lower_bound <= least
    # The way of many jobs, on the same: a bound below, an order within twice.
    rough = least_total_completion(waits, most_exact=0)
    assert sorted(rough.jobs) == list(range(jobs))
    assert rough.lower_bound <= least * (1 + 1e-12) <= rough.total * (1 + 2e-12)
    assert rough.total <= 2 * rough.lower_bound + 1e-9
    assert rough.total == pytest.approx(by_hand(waits, tuple(rough.jobs)), rel=1e-12)


def test_one_job_each_goes_shortest_first() -> None:
    """Smith's rule, for more jobs than the dynamic programme takes."""
    length = (np.random.default_rng(0).permutation(40) + 1).astype(np.float64)
    waits = Waits(length, np.eye(40, dtype=bool), np.eye(40, dtype=bool))
    found = least_total_completion(waits)
    assert length[found.jobs].tolist() == sorted(length)
    assert found.total == np.cumsum(sorted(length)).sum()
    assert found.lower_bound > 0.5 * found.total


def test_who_waits_for_nothing_is_done_at_once() -> None:
    waits = Waits(np.ones(2), np.eye(2, dtype=bool), np.zeros((3, 2), dtype=bool))
    assert least_total_completion(waits).total == 0.0


@pytest.mark.parametrize("delivery", ["sequential", "spatial"])
def test_the_slot_takes_as_long_and_no_order_of_its_modes_is_better(delivery: str) -> None:
    instance = finecast.read_scenario("tiny").with_({"slots": 2}).generate(3)
    given: dict[str, Any] = {}
    if delivery == "spatial":
        given = {"delivery": delivery, "spatial_time": 0.3}
    stated = finecast.solve(instance, "greedy", **given)
    best = finecast.solve(instance, "greedy", order="mean", **given)
    assert stated.evaluation is not None
    assert best.evaluation is not None
    assert best.evaluation.feasible
    assert best.delay == pytest.approx(stated.delay, rel=1e-12)
    assert best.evaluation.mean_completion <= stated.evaluation.mean_completion * (1 + 1e-12)
    assert best.mean_completion_bound == pytest.approx(best.evaluation.mean_completion, rel=1e-9)
    assert best.options["order"] == "mean"
    assert "order" not in stated.options
    assert any("least of any order" in note for note in best.notes)


def test_the_order_stays_where_areas_have_phases() -> None:
    scenario = finecast.read_scenario("vision-small").with_(
        {"slots": 1, "nodes.count": 4, "users.count": 10, "nodes.areas": 2}
    )
    instance = scenario.generate(0)
    stated = finecast.solve(instance, "greedy", time_limit=20)
    assert stated.solution is not None
    assert stated.evaluation is not None
    ordered, bound = ordered_for_the_mean(instance, stated.solution)
    judged = finecast.evaluate(instance, ordered)
    assert judged.feasible
    assert judged.delay == pytest.approx(stated.delay, rel=1e-12)
    assert bound * (1 - 1e-9) <= judged.mean_completion
    assert judged.mean_completion <= stated.evaluation.mean_completion * (1 + 1e-12)


def test_an_order_is_refused_in_one_line() -> None:
    instance = finecast.read_scenario("tiny").generate(0)
    with pytest.raises(ValueError, match="order: 'fast' is not allowed, must be one of"):
        finecast.solve(instance, "greedy", order="fast")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="'mean' is not allowed with schedule 'pipelined'"):
        finecast.solve(instance, "greedy", order="mean", schedule="pipelined")
