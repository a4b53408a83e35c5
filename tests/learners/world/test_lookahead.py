"""The batched dynamic programme against that of `mpc`, number by number."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learner_scenarios import episodes, instance

from finecast.learners.world.environment import packed, roll
from finecast.learners.world.lookahead import (
    Planned,
    best_subset,
    lookahead_of,
    mpc_marginals,
    programme,
)
from finecast.solvers.heuristics import mpc
from finecast.solvers.heuristics.expected import coming_tables
from finecast.solvers.node_set_tables import node_sets
from finecast.solvers.online import observation_of, prepare_slots, prior_of


@pytest.mark.parametrize("t", [0, 2])
@pytest.mark.parametrize("draw", [0, 1])
def test_prices_and_values_are_those_of_mpc(t: int, draw: int) -> None:
    """Slot 2 has a single coming slot, fewer than the horizon; draws have different kinds."""
    problem, prior = instance(draw), prior_of(instance(draw))
    seen = observation_of(problem, prior, t, prepare_slots(problem)[t])
    coming = coming_tables(seen, 3)
    cached = node_sets(episodes().start[draw].numpy())
    prices = mpc.storage_prices(seen.problem, coming, cached)
    values = mpc.programme(coming, prices)
    found = mpc_marginals(episodes().slot(t), packed(episodes().start))
    slots, kinds, _ = values.cost.shape
    np.testing.assert_allclose(found.price[draw, :slots], prices, rtol=1e-9, atol=1e-24)
    np.testing.assert_allclose(found.after[draw, :kinds], values.left[0], rtol=1e-9, atol=1e-24)
    rent = coming.chains.member @ prices[0]
    np.testing.assert_allclose(
        found.cost[draw, :kinds], values.cost[0] - rent, rtol=1e-9, atol=1e-24
    )
    if draw == 0:
        assert prices.max() > 0


def test_one_coming_slot_by_hand() -> None:
    """At prices of 0, W = need (best level) = worth, and A its least over subsets: W itself."""
    slot = episodes().slot(2)
    price = torch.zeros((2, 3, 3), dtype=torch.float64)
    found = programme(slot, price)
    torch.testing.assert_close(found.cost, slot.worth[:, 0], rtol=1e-12, atol=1e-30)
    torch.testing.assert_close(found.after, slot.worth[:, 0], rtol=1e-12, atol=1e-30)
    # With rent a set pays for its nodes, or drops some: never more than its own cost and rent.
    rented = programme(slot, price + 1e-9)
    size = slot.member.sum(dim=1).double()
    assert bool((rented.after <= (found.cost + 1e-9 * size) * (1 + 1e-12)).all())
    assert bool((rented.after >= found.cost.amin(dim=2, keepdim=True)).all())


def test_best_subset_by_enumeration() -> None:
    """Least over all subsets, and the smaller of two equal ones."""
    cost = torch.randint(0, 6, (2, 3, 16), generator=torch.Generator().manual_seed(3)).double()
    least, subset = best_subset(cost)
    for e, c, x in np.ndindex(2, 3, 16):
        values = [(float(cost[e, c, y]), y) for y in range(16) if y & ~x == 0]
        assert float(least[e, c, x]) == min(values)[0]
        chosen = int(subset[e, c, x])
        assert chosen & ~x == 0
        assert float(cost[e, c, chosen]) == min(values)[0]


def test_playing_the_values_again_is_the_same_game() -> None:
    """`Planned` with the values on the path of `mpc` walks that path."""
    values, played = lookahead_of(episodes())
    again = roll(episodes(), Planned(values), rounds=mpc.ROUNDS)
    assert torch.equal(again.delay, played.delay)
    assert torch.equal(again.cache, played.cache)
    some = roll(episodes().select([1]), Planned(values.select(torch.tensor([1]))), rounds=3)
    assert torch.equal(some.delay[0], played.delay[1])
    assert bool((played.total >= episodes().bound).all())
    assert values.slot(1).after.shape == values.after[:, 1].shape


def test_warm_prices_start_from_the_slot_before() -> None:
    """With as many steps in slot 0 the first slot is the same; later prices differ, not by much."""
    told: list[int] = []
    cold, _ = lookahead_of(episodes())
    warm, played = lookahead_of(episodes(), warm_steps=5, callback=lambda t, _: told.append(t))
    assert told == [1, 2, 3, 4]
    assert torch.equal(cold.price[:, 0], warm.price[:, 0])
    assert not torch.equal(cold.price[:, 1], warm.price[:, 1])
    assert bool((warm.price >= 0).all())
    assert bool((played.total >= episodes().bound).all())
