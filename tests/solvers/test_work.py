"""Counted work: a limit that is the same on every machine."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from repository import TINY

from finecast.compare.runs.runner import SuiteRuns, run_suite
from finecast.problem.scenario import read_scenario
from finecast.solvers import deadline
from finecast.solvers.deadline import GRAIN, NEVER, Deadline, count_work
from finecast.solvers.registry import BUILT_IN
from finecast.solvers.solve import solve

COUNTED = [
    method.name
    for method in BUILT_IN
    if method.counts_work and method.kind != "function" and method.name != "exact"
]


def test_whichever_limit_comes_first():
    by_work = Deadline.after(None, 1.0)
    assert not by_work.over()
    assert math.isinf(by_work.left())
    count_work(0.4)
    assert by_work.work_left() == pytest.approx(0.6)
    assert by_work.share(0.5).work_left() == pytest.approx(0.3)
    count_work(0.6)
    assert by_work.over()
    assert by_work.later(0.0).over()
    assert not by_work.later(1.0).over()
    assert Deadline.after(0.0, 5.0).over()
    assert Deadline.after(5.0, 0.0).over()
    assert NEVER.endless
    assert NEVER.share(0.5) is NEVER
    assert not NEVER.over()
    assert Deadline.after(None, 2.0).sooner(0.0).over()


def test_sums_do_not_depend_on_what_came_before(monkeypatch):
    """A third counted three times is the same after any amount of earlier work."""
    spent = []
    for before in (0, 10**9 + 7, 3 * 10**17):
        monkeypatch.setattr(deadline, "_grains", before)
        for _ in range(3):
            count_work(1.0 / 3.0)
        spent.append(deadline.grains_done() - before)
    assert len(set(spent)) == 1
    assert spent[0] * GRAIN == pytest.approx(1.0)


@pytest.mark.parametrize("method", COUNTED)
@pytest.mark.parametrize("work", [0.0, 0.1])
def test_the_same_answer_twice_on_one_thread_or_two(method, work):
    """The same decisions, bound and work, whatever was done before and on however many threads."""
    instance = read_scenario(TINY).generate(3)
    answers = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            answers.append(solve(instance, method, work=work, seed=1))
    finally:
        torch.set_num_threads(threads)
    one, two = answers
    assert np.array_equal(one.solution.cache, two.solution.cache)
    assert np.array_equal(one.solution.source, two.solution.source)
    assert one.delay == two.delay
    assert one.lower_bound == two.lower_bound
    assert one.work == two.work
    assert one.evaluation.feasible


def test_more_work_is_no_worse():
    instance = read_scenario("vision-small").generate(1)
    delays = [solve(instance, "lagrangian", work=work).delay for work in (0.0, 0.3, 3.0)]
    assert delays == sorted(delays, reverse=True)
    assert delays[0] <= solve(instance, "greedy", work=0.0).delay * (1 + 1e-9)


def test_both_limits_say_which_came_first():
    instance = read_scenario(TINY).generate(0)
    found = solve(instance, "greedy", work=0.0, time_limit=1000.0)
    assert any("0 units of work came first" in note for note in found.notes)
    found = solve(instance, "greedy", work=1e6, time_limit=0.0)
    assert any("0 s came first" in note for note in found.notes)


def test_a_limit_names_what_it_cut():
    """The same phases on every machine, in the notes and as data; none where nothing was cut."""
    instance = read_scenario(TINY).generate(0)
    found = [solve(instance, "lagrangian", work=0.0) for _ in range(2)]
    assert found[0].cut == found[1].cut
    assert {"rates", "search", "polish", "bound"} <= set(found[0].cut)
    assert found[0].as_dict()["cut"] == list(found[0].cut)
    assert f"cut short by the limit: {', '.join(found[0].cut)}" in found[0].notes
    whole = solve(instance, "lagrangian", work=1e6)
    assert whole.cut == ()
    assert not any("cut short" in note for note in whole.notes)


def test_spatial_delivery_is_named_where_it_is_cut():
    """In seconds of its own, too, and by processes that share the slots."""
    instance = read_scenario(TINY).generate(0)
    found = solve(instance, "greedy", delivery="spatial", time_limit=0.0)
    assert "spatial delivery" in found.cut
    assert "bound" in found.cut


@pytest.mark.parametrize("work", [-1.0, math.nan, math.inf])
def test_refuses_what_is_no_limit(work):
    with pytest.raises(ValueError, match=r"work: .* must be finite and >= 0"):
        solve(read_scenario(TINY).generate(0), "greedy", work=work)


def test_refuses_where_nobody_counts():
    instance = read_scenario(TINY).generate(0)
    with pytest.raises(ValueError, match="work: method 'milp' does not count"):
        solve(instance, "milp", work=1.0)
    with pytest.raises(ValueError, match="work: not counted for spatial delivery"):
        solve(instance, "greedy", work=1.0, delivery="spatial")


def test_work_ends_the_runs_of_a_suite(tmp_path):
    """A method's runs end by counted work, the same twice; refused where nobody counts it."""
    file = tmp_path / "counted.toml"
    text = """
        name = "counted"
        time_limit_s = 60.0
        seeds = [0]
        [[methods]]
        method = "METHOD"
        options = { work = WORK }
        [[classes]]
        name = "small"
        seeds = [1]
        scenario.library.synthetic = { models = 3, blocks = 12, total_gb = 0.2 }
        scenario.nodes = { count = 2, antennas = 2, storage_share = 0.4 }
        scenario.users.count = 4
    """

    def run(method: str, work: str, folder: str) -> SuiteRuns:
        file.write_text(text.replace("METHOD", method).replace("WORK", work))
        return run_suite(file, tmp_path / folder, workers=1)

    one, two = (run("lagrangian", "0.2", folder).records[0] for folder in ("a", "b"))
    assert one.status == two.status == "completed"
    assert (one.delay, one.lower_bound) == (two.delay, two.lower_bound)
    assert json.loads(one.options)["work"] == 0.2
    with pytest.raises(ValueError, match="method 'milp': work: method 'milp' does not count"):
        run("milp", "0.2", "c")
    with pytest.raises(ValueError, match="work: -1 is not allowed"):
        run("lagrangian", "-1", "d")
    with pytest.raises(ValueError, match="work: 'much' is not allowed, must be a number"):
        run("lagrangian", "'much'", "e")
