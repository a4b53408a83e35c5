"""Prices of the demand programme: bytes held are the slopes of L, and the steps raise it."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from demand_systems import MODELS, NODES, SLOTS, USERS, system

from finecast.problem.demand import Demand
from finecast.solvers.placement.demand_programme import last_requests, wanted_last
from finecast.solvers.placement.programme_prices import (
    best_subsets,
    expected_bytes,
    lagrangian,
    trained_prices,
)

SIZE = np.array([3.0, 5.0, 2.0])
STORAGE = np.array([4, 3])


def uniform(seed: int):
    """Return a system in which all paths of requests are equally likely."""
    programme = system(seed)
    preference = np.full((SLOTS, USERS, MODELS), 1.0 / MODELS)
    demand = Demand(preference, 0.0, np.ones(USERS))
    return replace(programme, demand=demand, prices=0.3 * programme.prices)


def value(programme, prices: np.ndarray) -> float:
    """Return L at prices."""
    at = replace(programme, prices=prices)
    return lagrangian(at, at.cost_to_go(np.arange(len(SIZE))), SIZE, STORAGE)


@pytest.mark.parametrize("seed", range(3))
def test_bytes_held_are_the_slopes(seed):
    """Over all paths, equally likely: dL / d lambda = mean bytes held - storage, slot by node."""
    programme = uniform(seed)
    paths = np.array(list(product(product(range(MODELS), repeat=USERS), repeat=SLOTS)))
    wanted = np.moveaxis(wanted_last(programme.contains, last_requests(paths)), -1, 2)
    values = programme.cost_to_go(np.arange(len(SIZE)))
    held = expected_bytes(programme, values, paths, programme.groups.state(wanted), SIZE)
    for t, n in np.ndindex(SLOTS, NODES):
        more, less = programme.prices.copy(), programme.prices.copy()
        more[t, n] += 1e-6
        less[t, n] -= 1e-6
        slope = (value(programme, more) - value(programme, less)) / 2e-6
        assert held[t, n] - STORAGE[n] == pytest.approx(slope, abs=1e-6)


def test_steps_raise_the_bound():
    """From no prices; with storage for everything they stay near 0, where the bound is largest."""
    programme = replace(system(1), prices=np.zeros((SLOTS, NODES)))
    rng = np.random.default_rng(0)
    found = trained_prices(programme, SIZE, STORAGE, rng=rng, steps=40, paths=64)
    assert (found >= 0).all()
    assert value(programme, found) > value(programme, programme.prices) + 0.1
    assert value(programme, found) > value(programme, 2.0 * found)
    plenty = np.array([100, 100])
    assert not trained_prices(programme, SIZE, plenty, rng=rng, steps=4, paths=8).any()


def test_the_same_seed_gives_the_same_prices():
    """All that is drawn comes from the generator."""
    one, two = (
        trained_prices(system(1), SIZE, STORAGE, rng=np.random.default_rng(3), steps=3, paths=4)
        for _ in range(2)
    )
    assert one.tolist() == two.tolist()


def test_best_subsets_by_enumeration():
    """The least cost within every set, and the smallest subset of it that attains it."""
    cost = np.random.default_rng(1).integers(0, 4, (8, 5, 2)).astype(float)
    least, subset = best_subsets(cost)
    for held, i, j in np.ndindex(cost.shape):
        within = [kept for kept in range(8) if kept & held == kept]
        assert least[held, i, j] == min(cost[kept, i, j] for kept in within)
        assert subset[held, i, j] in within
        assert cost[subset[held, i, j], i, j] == least[held, i, j]
