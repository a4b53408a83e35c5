"""Model-predictive control: its dynamic programme against plain recursion, and its prices."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from repository import TINY

from finecast.problem.scenario import read_scenario
from finecast.solvers.heuristics.expected import coming_tables
from finecast.solvers.heuristics.mpc import (
    ModelPredictive,
    best_subset,
    expected_bytes,
    first_senders,
    programme,
    storage_prices,
)
from finecast.solvers.node_set_tables import node_sets
from finecast.solvers.online import observation_of, prepare_slots, prior_of


@pytest.fixture(scope="module")
def observation():
    """Return slot 0 of a tiny instance of three slots."""
    scenario = read_scenario(TINY)
    demand = scenario.demand.model_copy(update={"persistence": 0.6, "activity": 0.8})
    instance = scenario.model_copy(update={"slots": 3, "demand": demand}).generate(1)
    return observation_of(instance, prior_of(instance), 0, prepare_slots(instance)[0])


def test_programme_against_recursion(observation):
    """W and A by recursion over the words of the process, every sending set tried, no chains.

    In a slot the block at X may also be received by any V; the slowest receiver counts. It stays
    anywhere within X + V, at the rent of the next slot. Not needed, it may only be dropped.
    """
    coming = coming_tables(observation, 2)
    prices = np.random.default_rng(0).uniform(0.0, 1e-8, (2, 2))
    values = programme(coming, prices)
    link = observation.problem.link

    def slowest(cached: int, sending: int) -> float:
        times = [
            min([link[2, n], *(link[m, n] for m in range(2) if cached >> m & 1)])
            for n in range(2)
            if (sending & ~cached) >> n & 1
        ]
        return max(times, default=0.0)

    @cache
    def cost(s: int, c: int, cached: int) -> float:
        rent = sum(prices[s, n] for n in range(2) if cached >> n & 1)
        needed = min(
            slowest(cached, sending) + coming.broadcast[s, c, sending] + left(s, c, sending)
            for sending in range(1, 4)
            if sending & cached == cached
        )
        chance = coming.probability[s, c]
        return rent + chance * needed + (1 - chance) * left(s, c, cached)

    @cache
    def left(s: int, c: int, held: int) -> float:
        if s == 1:
            return 0.0
        return min(cost(s + 1, c, kept) for kept in range(4) if kept & held == kept)

    for s, c, cached in np.ndindex(values.cost.shape):
        assert values.cost[s, c, cached] == pytest.approx(cost(s, c, cached), rel=1e-12)
        assert values.left[s + 1, c, cached] == pytest.approx(left(s, c, cached), rel=1e-12)


def test_best_subset_by_enumeration():
    """The least cost within every set, and a subset that attains it; of equal ones the smaller."""
    cost = np.random.default_rng(1).integers(0, 4, (5, 8)).astype(float)
    least, subset = best_subset(cost)
    for c, held in np.ndindex(cost.shape):
        within = [kept for kept in range(8) if kept & held == kept]
        assert least[c, held] == min(cost[c, kept] for kept in within)
        best = int(subset[c, held])
        assert best in within
        assert cost[c, best] == least[c, held]
        smaller = [kept for kept in range(8) if kept & best == kept and kept != best]
        assert all(cost[c, kept] > cost[c, best] for kept in smaller)


def test_expected_bytes_by_simulation(observation):
    """Mean bytes over simulated needs, each block followed by the decisions of the programme."""
    coming = coming_tables(observation, 2)
    problem = observation.problem
    prices = np.full((2, 2), 2e-9)
    values = programme(coming, prices)
    cached = np.random.default_rng(2).integers(0, 4, problem.blocks)
    sender = first_senders(problem, coming, values, cached)
    expected = expected_bytes(problem, coming, values, sender)
    rng = np.random.default_rng(3)
    draws = 4000
    total = np.zeros((2, 2))
    for j in range(problem.blocks):
        c = coming.kind[j]
        held = np.full(draws, sender[j])
        for s in range(2):
            kept = values.kept[s, c, held]
            for n in range(2):
                total[s, n] += problem.block_size[j] * (kept >> n & 1).mean()
            needed = rng.random(draws) < coming.probability[s, c]
            held = np.where(needed, values.sender[s, c, kept], kept)
    assert expected == pytest.approx(total, rel=0.05, abs=0.02 * problem.block_size.sum())


def test_prices_are_those_of_scarcity(observation):
    """No price where everything fits; a price where it does not, at which the bytes about fit."""
    coming = coming_tables(observation, 2)
    everything = int(observation.problem.block_size.sum())
    cached = np.full(observation.problem.blocks, 3)
    ample = replace(observation.problem, storage=np.full(2, everything))
    assert (storage_prices(ample, coming, cached) == 0).all()
    scarce = replace(observation.problem, storage=np.full(2, everything // 4))
    prices = storage_prices(scarce, coming, cached)
    assert (prices[0] > 0).all()
    free = programme(coming, np.zeros_like(prices))
    priced = programme(coming, prices)
    wanted = [
        expected_bytes(scarce, coming, values, first_senders(scarce, coming, values, cached))
        for values in (free, priced)
    ]
    assert (wanted[0][0] > scarce.storage).all()
    assert (wanted[1][0] < wanted[0][0]).all()


def test_last_slot_pulls_for_itself_alone(observation):
    """After the last slot nothing has a value: cheapest delivery, caches as they are."""
    last = replace(
        observation,
        prior=replace(
            observation.prior,
            demand=replace(
                observation.prior.demand, preference=observation.prior.demand.preference[:1]
            ),
        ),
    )
    held = np.zeros((2, last.problem.blocks), dtype=bool)
    source, keep = ModelPredictive(3).act(last, held)
    needed = last.problem.group[0] >= 0
    assert (source[:, needed] >= 0).any(axis=0).all()
    assert not keep.any()


def test_everything_is_kept_when_it_fits(observation):
    """With storage for all, what is held stays."""
    everything = int(observation.problem.block_size.sum())
    ample = replace(
        observation, problem=replace(observation.problem, storage=np.full(2, everything))
    )
    held = np.ones((2, ample.problem.blocks), dtype=bool)
    source, keep = ModelPredictive(2).act(ample, held)
    assert (source == -1).all()
    assert keep.all()
    assert (node_sets(keep) == 3).all()


def test_horizon_is_refused_out_of_range():
    """At least one coming slot."""
    with pytest.raises(ValueError, match="horizon"):
        ModelPredictive(0)
