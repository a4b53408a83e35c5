"""Joint answers: judged, bounded, and never better than what enumeration allows."""

from __future__ import annotations

import signal
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from repository import TINY

from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance, user_groups
from finecast.problem.scenario import read_scenario
from finecast.solvers.bounds import certified_lower_bound
from finecast.solvers.highs import QuietHighs
from finecast.solvers.placement.problem import Placement, PlacementProblem
from finecast.solvers.polish import polished
from finecast.solvers.prepared import prepare
from finecast.solvers.registry import method_of
from finecast.solvers.result import BoundKind, Progress, Termination, relative_gap
from finecast.solvers.signals import SearchInterrupt, ctrl_c_keeps_the_best
from finecast.solvers.solve import solve


def tiny(seed: int, **changes: object) -> Instance:
    """Return the tiny instance of a seed, with fields changed."""
    return replace(read_scenario(TINY).generate(seed), **changes)


def enumerated_optimum(problem: PlacementProblem) -> float:
    """Return the least delay over every cache and every source of a two-node, one-slot problem.

    Per block, every (cached set, source per node) is listed with no dominance assumed; the blocks
    are then combined through the exact set of storage pairs that they can use.
    """
    nodes, cloud = 2, 2
    best = {(0, 0): 0.0}
    for j in range(problem.blocks):
        size, group = int(problem.block_size[j]), int(problem.group[0, j])
        choices: dict[tuple[int, int], float] = {}
        for cached in product((False, True), repeat=nodes):
            for source in product((-1, 0, 1, cloud), repeat=nodes):
                receives = [s >= 0 for s in source]
                if any(s == n or (s in (0, 1) and not cached[s]) for n, s in enumerate(source)):
                    continue
                if group < 0 and any(receives):
                    continue
                sends = sum(1 << n for n in range(nodes) if cached[n] or receives[n])
                delay = 0.0
                if group >= 0:
                    links = [problem.link[s, n] for n, s in enumerate(source) if s >= 0]
                    delay = size * (max(links, default=0.0) + problem.broadcast[0][group, sends])
                used = (size * cached[0], size * cached[1])
                choices[used] = min(choices.get(used, np.inf), delay)
        combined: dict[tuple[int, int], float] = {}
        for (a, b), delay in best.items():
            for (c, d), more in choices.items():
                used = (a + c, b + d)
                if used[0] <= problem.storage[0] and used[1] <= problem.storage[1]:
                    combined[used] = min(combined.get(used, np.inf), delay + more)
        best = combined
    return min(best.values())


@pytest.mark.parametrize("seed", range(6))
def test_tiny_against_enumeration(seed):
    """bound <= optimum at upper-bound rates <= optimum at achieved rates <= every delay."""
    instance = tiny(seed)
    prepared = prepare(instance)
    optimum = enumerated_optimum(prepared.achieved)
    at_bounds = enumerated_optimum(prepared.bounded)
    assert at_bounds <= optimum * (1 + 1e-12)
    # A method that did nothing useful would exceed its factor.
    for method, factor in (("greedy", 1.5), ("lagrangian", 1.05), ("exact", 1 + 1e-9)):
        result = solve(instance, method)
        assert result.lower_bound <= at_bounds * (1 + 1e-12)
        assert optimum * (1 - 1e-9) <= result.delay <= factor * optimum
    assert result.termination is Termination.OPTIMAL
    assert result.gap <= 1e-3  # what is left is the bounds of the beams


@pytest.mark.parametrize("method", ["exact", "milp"])
@pytest.mark.parametrize("seed", range(6))
def test_proofs_equal_enumeration(method, seed):
    """Said to be optimal, and it is: the delay is the optimum at the rates of the beams in use.

    Beams in use are polished, so that the rates are at least those that `prepare` achieves.
    """
    instance = tiny(seed)
    prepared = prepare(instance)
    result = solve(instance, method)
    assert result.termination is Termination.OPTIMAL
    placement = Placement(result.solution.cache, result.solution.source)
    better, _ = polished(prepared, placement, seed=0)
    optimum = enumerated_optimum(better.achieved)
    assert result.delay == pytest.approx(optimum, rel=1e-9)
    assert optimum <= enumerated_optimum(prepared.achieved) * (1 + 1e-12)
    assert result.lower_bound == pytest.approx(enumerated_optimum(prepared.bounded), rel=1e-6)


def test_relaxation_lies_below_enumeration():
    """The bound of the relaxation holds at the bounded rates; its rounding is a placement."""
    for seed in range(4):
        instance = tiny(seed)
        prepared = prepare(instance)
        result = solve(instance, "lp")
        assert result.lower_bound <= enumerated_optimum(prepared.bounded) * (1 + 1e-9)
        assert result.delay >= enumerated_optimum(prepared.achieved) * (1 - 1e-4)


@pytest.mark.parametrize("method", ["exact", "milp", "lp"])
def test_spatial_bound_is_not_that_of_one_broadcast_per_block(method):
    """Messages at once can beat every sequential plan: only the users' own bound is left."""
    instance = tiny(0, delivery="spatial")
    result = solve(instance, method)
    assert result.lower_bound == certified_lower_bound(instance)
    assert result.bound_kind is BoundKind.CERTIFIED
    assert result.termination in (Termination.COMPLETED, Termination.ITERATION_LIMIT)


def test_model_is_written_at_the_rates_of_the_answer(tmp_path):
    """`write` gives the model of the answer; HiGHS alone finds its delay in it."""
    path = tmp_path / "tiny.mps"
    result = solve(tiny(1), "milp", write=str(path))
    highs = QuietHighs()
    highs.readModel(str(path))
    highs.run()
    assert highs.getInfo().objective_function_value == pytest.approx(result.delay, rel=1e-6)
    with pytest.raises(ValueError, match="write"):
        solve(tiny(1), "lp", write="model.txt")


def test_result_is_the_judges():
    """Delay, feasibility and gap of a result are those of the judge, and the gap splits exactly."""
    instance = tiny(0)
    result = solve(instance, "greedy")
    assert result.solution is not None
    judged = evaluate(instance, result.solution)
    assert judged.feasible
    assert result.delay == judged.delay
    assert result.gap == pytest.approx(judged.delay / result.lower_bound - 1)
    assert (1 + result.beamforming_gap) * (1 + result.placement_gap) == pytest.approx(
        1 + result.gap
    )
    assert result.termination is Termination.COMPLETED


def test_no_requests_means_no_delay():
    """Nobody asks for anything: delay 0, bound 0, gap 0."""
    instance = tiny(0, requests=-np.ones((1, 3), dtype=int))
    result = solve(instance)
    assert (result.delay, result.lower_bound, result.gap) == (0.0, 0.0, 0.0)


def test_hopeless_channels_have_no_solution():
    """Errors as large as the channel: no rate can be guaranteed, said so and not a number."""
    instance = tiny(0)
    error = np.linalg.norm(instance.channel_estimate, axis=3) * 1.01
    result = solve(replace(instance, channel_error=error))
    assert result.termination is Termination.NO_SOLUTION
    assert result.solution is None
    assert result.delay == np.inf
    assert "channel errors are as large as the channels of user 0 in slot 0" in result.notes[0]


@pytest.mark.parametrize(
    ("delivery", "schedule"), [("spatial", "sequential"), ("sequential", "pipelined")]
)
def test_bounds_hold_for_every_system(delivery, schedule):
    """A sequential plan is a plan of the other systems too, so their bounds lie below it."""
    for seed in range(4):
        instance = tiny(seed, delivery=delivery, schedule=schedule)
        result = solve(instance)
        assert result.evaluation.feasible
        assert 0 < result.lower_bound <= result.delay
        assert certified_lower_bound(instance) <= result.delay


def test_user_groups_by_hand():
    """Blocks 0 and 2 have users {0, 1}, block 3 has {1}, nobody needs block 1."""
    wanted = np.array([[1, 0, 1, 0], [1, 0, 1, 1]], dtype=bool)
    groups, group = user_groups(wanted)
    assert groups.tolist() == [[True, True], [False, True]]
    assert group.tolist() == [0, -1, 0, 1]


def test_relative_gap():
    """By its definition, and for the cases without a positive bound."""
    assert relative_gap(1.1, 1.0) == pytest.approx(0.1)
    assert relative_gap(0.0, 0.0) == 0.0
    assert relative_gap(1.0, 0.0) == np.inf


@pytest.mark.parametrize("method", ["lagrangian", "exact"])
def test_interrupted_keeps_the_best_so_far(method):
    """Where Ctrl-C is to keep the best, it does so during the placement, judged, and says so.

    Elsewhere, as in a loop over instances, the same Ctrl-C goes through the method to the caller.
    """
    instance = read_scenario(TINY.with_name("vision-horizon.toml")).generate(0)
    told = []

    def press(progress: Progress) -> None:
        told.append(progress)
        if progress.stage == "placement" and len(told) > 12:
            signal.raise_signal(signal.SIGINT)

    with ctrl_c_keeps_the_best():
        result = solve(instance, method, callback=press)
    assert result.termination is Termination.INTERRUPTED
    assert result.evaluation.feasible
    assert result.lower_bound <= result.delay
    told.clear()
    with pytest.raises(KeyboardInterrupt):
        solve(instance, method, callback=press)


@pytest.mark.parametrize("method", ["lagrangian", "milp", "lru", "whole-model"])
def test_interrupted_before_a_plan_gives_the_greedy_one(method, monkeypatch):
    """Ctrl-C between the rates and the method's first plan: the greedy plan, which is judged."""
    instance = read_scenario(TINY).generate(0)
    greedy = solve(instance, "greedy")

    def pressed(*_given, **_more):
        signal.raise_signal(signal.SIGINT)

    for place in ("offline._place", "online.run_online", "joint.price_bound"):
        monkeypatch.setattr(f"finecast.solvers.{place}", pressed)
    chosen = method_of(method)
    if chosen.kind == "placement":
        monkeypatch.setattr(type(chosen), "load", lambda _: pressed)
    with ctrl_c_keeps_the_best():
        result = solve(instance, method)
    assert result.termination is Termination.INTERRUPTED
    assert result.delay == greedy.delay
    assert result.lower_bound <= result.delay
    assert any("this is the greedy one" in note for note in result.notes)
    with pytest.raises(KeyboardInterrupt):
        solve(instance, method)


def test_interrupted_amidst_the_rates_there_is_no_plan():
    """Ctrl-C while the rates are made ends the solve; nothing can be said yet."""
    instance = read_scenario(TINY).generate(0)

    def press(_progress: Progress) -> None:
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(SearchInterrupt), ctrl_c_keeps_the_best():
        solve(instance, "lagrangian", callback=press)
