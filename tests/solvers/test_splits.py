"""Plans that split a user group: found where they are faster, judged, and never below a bound."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from repository import TINY
from searched_once import remember_beams
from two_users import by_hand, two_users

from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance
from finecast.problem.scenario import read_scenario
from finecast.problem.sinr import rate, worst_case_sinr
from finecast.problem.solution import Broadcast, Solution
from finecast.solvers.bounds import price_bound
from finecast.solvers.delivery import deliver
from finecast.solvers.placement.greedy import greedy_placement
from finecast.solvers.placement.problem import placement_delay
from finecast.solvers.polish import polished
from finecast.solvers.prepared import Prepared, prepare
from finecast.solvers.solve import solve
from finecast.solvers.splits import best_partition, singles

METHODS = ("lagrangian", "exact", "milp", "lp", "greedy", "lru", "mpc", "whole-model")


@pytest.fixture(autouse=True)
def _beams_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember_beams(monkeypatch)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("error", [0.6, 0.8])
def test_two_users_by_hand(error, method):
    """Messages of their own take 39.14 and 68.91 s; one for both 72.57 s, and there is none."""
    together, apart = by_hand(error)
    instance = two_users(error)
    result = solve(instance, method)
    assert result.evaluation.feasible
    assert result.delay == pytest.approx(apart, rel=1e-9)
    assert result.lower_bound == pytest.approx(apart, rel=1e-6)
    assert result.lower_bound <= apart
    alone = solve(instance, method, restrict="one-message")
    assert alone.delay == pytest.approx(together, rel=1e-6)
    assert alone.lower_bound <= together


def test_by_hand_are_the_values_of_the_field():
    """The numbers that a bound printed above."""
    assert by_hand(0.6) == pytest.approx((72.57, 39.14), abs=0.01)
    assert by_hand(0.8) == pytest.approx((np.inf, 68.91), abs=0.01)


@pytest.mark.parametrize("system", [("spatial", "sequential"), ("sequential", "pipelined")])
def test_other_systems_split_too(system):
    """Delivery on shared air and pipelined schedules start from the split plan."""
    delivery, schedule = system
    instance = two_users(0.8, delivery=delivery, schedule=schedule)
    result = solve(instance, "greedy")
    assert result.evaluation.feasible
    assert result.lower_bound <= result.delay <= by_hand(0.8)[1] * (1 + 1e-9)


def test_one_message_and_unicast_contradict_each_other():
    """Said so, in one line."""
    with pytest.raises(ValueError, match="'one-message' and 'unicast' contradict each other"):
        solve(two_users(0.1), restrict="one-message,unicast")


def uncertain(seed: int, error: float, **changes: object) -> Instance:
    """Return the tiny instance with error balls of a share of each channel's norm."""
    instance = read_scenario(TINY).generate(seed)
    radius = error * np.linalg.norm(instance.channel_estimate, axis=3)
    return replace(
        instance, channel_error=radius, channel_true=instance.channel_estimate, **changes
    )


@pytest.mark.parametrize("delivery", ["sequential", "spatial"])
@pytest.mark.parametrize("share", [1.0, 1 - 2e-16])
def test_errors_of_just_the_channels_leave_no_solution(share, delivery):
    """Amplitude and error differ by a rounding, of either sign, which is no rate for anybody."""
    for seed in range(3):
        result = solve(uncertain(seed, share, delivery=delivery), "greedy")
        assert result.termination == "no_solution"
        assert result.solution is None
        assert np.isfinite(result.lower_bound)


def random_partition(prepared: Prepared, rng: np.random.Generator) -> Solution:
    """Return a plan of everything from the cloud to all nodes, in messages to random parts.

    Every part gets the beam that the rates know for it, or matched beams.
    """
    instance = prepared.instance
    nodes, blocks = instance.nodes, instance.blocks
    source = np.full((1, nodes, blocks), -1)
    source[:, :, instance.needed[0]] = nodes
    users, of_block = [], []
    for j in np.flatnonzero(instance.needed[0]):
        listeners = np.flatnonzero(instance.wanted[0, :, j])
        label = rng.integers(0, len(listeners), size=len(listeners))
        for part in np.unique(label):
            users.append(np.isin(np.arange(instance.users), listeners[label == part]))
            of_block.append(j)
    users, of_block = np.array(users), np.array(of_block)
    channel = instance.normalised_channel[0]
    beams = []
    for part in users:
        known = np.flatnonzero((prepared.rates[0].users == part).all(axis=1))
        full = (1 << nodes) - 1
        if len(known) and prepared.rates[0].best[known[0], full] >= 0:
            beams.append(prepared.rates[0].beam[known[0], prepared.rates[0].best[known[0], full]])
            continue
        beam = channel[part].sum(axis=0)
        norm = np.maximum(np.linalg.norm(beam, axis=1, keepdims=True), 1e-300)
        beams.append(beam / norm * np.sqrt(instance.network.power)[:, None])
    beam = np.array(beams)
    sinr = worst_case_sinr(
        channel, instance.normalised_error[0], beam, np.eye(len(users), dtype=bool)
    )
    worst = np.where(users.T, sinr, np.inf).min(axis=0)
    planned = rate(worst, instance.network.bandwidth, instance.network.max_spectral_efficiency)
    planned = np.maximum(planned, 1e-3)  # a part that cannot be served breaks a rule, or lasts
    count = np.arange(len(users))
    broadcast = Broadcast(
        users=users,
        nodes=np.ones((len(users), nodes), dtype=bool),
        blocks=of_block[:, None] == np.arange(blocks),
        duration=8.0 * instance.library.block_size[of_block] / planned,
        mode=count,
        message=count,
        beam=beam,
        rate=planned,
    )
    cache = np.zeros((1, nodes, blocks), dtype=bool)
    return Solution(cache, source, (broadcast,), "guaranteed", instance.content_hash, "random")


@pytest.mark.parametrize("error", [0.4, 0.7])
def test_no_bound_above_any_plan(error):
    """The bound lies below the plans of the systems, and below random partitions."""
    rng = np.random.default_rng(int(100 * error))
    for seed in (3,):
        instance = uncertain(seed, error)
        prepared = prepare(instance)
        bound = price_bound(prepared)
        plans = [solve(instance, "greedy", restrict=r) for r in ((), "unicast", "one-message")]
        whole, *others = (plan.delay for plan in plans)
        assert whole <= min(others) * (1 + 1e-2)
        assert bound <= min(whole, *others)
        for plan in plans:
            assert plan.lower_bound <= plan.delay
        for _ in range(4):
            judged = evaluate(instance, random_partition(prepared, rng))
            assert bound <= judged.delay


@pytest.mark.parametrize("restrict", ["", "no-comp"])
def test_bounds_with_small_errors_stay(restrict):
    """With errors of a tenth or less no split pays: bounds are those of one message a block."""
    for error in (0.0, 0.05, 0.1):
        instance = uncertain(1, error)
        both = [
            price_bound(prepare(instance, restrict=names))
            for names in (restrict, f"one-message,{restrict}")
        ]
        assert both[0] == pytest.approx(both[1], rel=1e-9)


@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
def test_judged_as_placed(schedule):
    """The judge finds the delay that the placement was chosen by, parts included."""
    for seed in (1, 3):
        instance = uncertain(seed, 0.7, schedule=schedule)
        prepared = prepare(instance)
        assert len(prepared.rates[0].split_set)
        placement = greedy_placement(prepared.achieved)
        prepared, _ = polished(prepared, placement, seed=0)
        solution = deliver(
            instance, placement, prepared.plans, prepared.rates, robust=True, method="greedy"
        )
        carried = np.concatenate([b.blocks.sum(axis=0) for b in solution.broadcasts])
        judged = evaluate(instance, solution)
        assert judged.feasible
        assert carried.max() > 1
        assert judged.delay == pytest.approx(
            placement_delay(prepared.achieved, placement), rel=1e-9
        )


def test_partition_of_a_large_group():
    """Nine users in three cells: one message a cell, found by merging and by splitting."""
    cell = np.arange(9) // 3

    def seconds(sets):
        cells = np.array([len(np.unique(cell[users])) for users in sets])
        return np.where(cells > 1, np.inf, 1.0)

    parts = best_partition(np.ones(9, dtype=bool), seconds)
    assert sorted(sorted(cell[part].tolist()) for part in parts) == [[c] * 3 for c in range(3)]
    # Nobody is split where one message serves all.
    assert len(best_partition(np.ones(9, dtype=bool), lambda sets: np.ones(len(sets)))) == 1
    assert len(singles(np.ones(9, dtype=bool))) == 9
