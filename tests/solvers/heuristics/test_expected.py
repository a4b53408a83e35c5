"""Expected tables: exact where nothing is uncertain, probabilities by enumeration."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from by_hand import separate_models
from repository import TINY

from finecast.problem.scenario import read_scenario
from finecast.solvers.heuristics.expected import (
    coming_tables,
    group_exponent,
    kinds,
    message_parts,
    prior_tables,
    user_reach,
)
from finecast.solvers.online import observation_of, prepare_slots, prior_of
from finecast.solvers.placement.greedy import total_cost


def observed(instance, t=0, restrict=()):
    """Return the observation of a slot."""
    slots = prepare_slots(instance, restrict=restrict)
    return observation_of(instance, prior_of(instance, frozenset(restrict)), t, slots[t])


@pytest.mark.parametrize("restrict", [(), ("unicast",)])
def test_exact_when_the_next_slot_is_certain(restrict):
    """Users that always repeat, each with a model of its own, over channels that stay.

    The next slot is this one, a user alone has its rate in closed form: the expected cost per byte
    under every cached set is the cost of this slot.
    """
    instance = separate_models([[0, 2], [0, 2]], models=3, storage=[1, 1, 1], persistence=1.0)
    observation = observed(instance, restrict=restrict)
    cost = total_cost(observation.problem)
    coming = coming_tables(observation, 5)
    assert coming.cost.shape == (1, 3, 8)
    assert coming.probability[0, coming.kind].tolist() == [1.0, 0.0, 1.0]
    # The beams of the table are optimal to a relative 1e-3 or so; the closed form is exact.
    assert coming.cost[0] == pytest.approx(cost, rel=2e-3)


def test_no_comp_is_exact_where_the_home_node_holds_the_block():
    """Without CoMP a user's own node sends; where it lacks the block, it fetches it."""
    instance = separate_models([[0, 2], [0, 2]], models=3, storage=[1, 1], persistence=1.0)
    observation = observed(instance, restrict=("no-comp",))
    cost = total_cost(observation.problem)
    coming = coming_tables(observation, 1).cost[0]
    strength = np.linalg.norm(instance.channel_estimate[0], axis=2)
    for k, j in ((0, 0), (1, 2)):
        home = 1 << int(strength[k].argmax())
        for cached in range(4):
            if cached & home:
                assert coming[j, cached] == pytest.approx(cost[j, cached], rel=2e-3)
            else:
                assert cost[j, cached] * (1 - 2e-3) <= coming[j, cached] < np.inf


def test_messages_have_the_parts_of_the_plan():
    """Who listens and who may send is, user by user, what the messages of the slot say."""
    instance = separate_models([[0, 0, 0]], models=1, storage=[1, 1], seed=3)
    for restrict in ((), ("unicast",), ("no-comp",), ("no-comp", "unicast")):
        observation = observed(instance, restrict=restrict)
        mine = sorted(
            (part.tolist(), int((1 << np.arange(2)) @ senders))
            for part, senders in message_parts(observation)
        )
        plan = observation.plan
        theirs = sorted(
            (part.tolist(), int(allowed))
            for part, allowed in zip(plan.users, plan.allowed, strict=True)
        )
        assert mine == theirs


def test_probability_by_enumeration():
    """P(somebody needs block j): the sum over every combination of the users' requests."""
    instance = read_scenario(TINY).generate(4)
    rng = np.random.default_rng(0)
    demand = replace(instance.demand, activity=rng.random(3))
    prior = prior_of(replace(instance, demand=demand))
    tables = prior_tables(prior)
    expected = np.zeros(instance.blocks)
    for requests in product(range(-1, instance.models), repeat=3):
        chance = 1.0
        wanted = np.zeros(instance.blocks, dtype=bool)
        for k, m in enumerate(requests):
            chance *= 1 - demand.activity[k] if m < 0 else prior.popularity[0, k, m]
            if m >= 0:
                wanted |= instance.library.model_blocks[m]
        expected += chance * wanted
    assert tables.probability[0, tables.kind] == pytest.approx(expected)


@pytest.mark.parametrize("restrict", [(), ("no-comp",), ("unicast",), ("no-migration",)])
def test_tables_fall_with_every_copy(restrict):
    """More copies never cost more, before slot 0 and after; nobody sending is impossible."""
    instance = read_scenario(TINY).model_copy(update={"slots": 2}).generate(1)
    observation = observed(instance, restrict=restrict)
    for tables in (prior_tables(observation.prior), coming_tables(observation, 1)):
        assert np.isinf(tables.broadcast[..., 0]).all()
        cost = tables.cost
        assert np.isfinite(cost).all()
        for n, cached in product(range(2), range(4)):
            assert (cost[..., cached | 1 << n] <= cost[..., cached] * (1 + 1e-12)).all()


def test_group_exponent_recovers_its_own_law():
    """SNR table made by |U|^c times the pooled one: c is found."""
    instance = read_scenario(TINY).generate(3)
    observation = observed(instance)
    reach = user_reach(observation)
    users = np.array([[1, 1, 0], [1, 1, 1], [0, 1, 0]], dtype=bool)
    node_sets = np.tile([1, 2, 3], (3, 1))
    snr = np.zeros((3, 3))
    for g, group in enumerate(users):
        for f, nodes in enumerate(([0], [1], [0, 1])):
            pooled = 1.0 / sum(1.0 / reach[k, nodes].sum() ** 2 for k in np.flatnonzero(group))
            snr[g, f] = pooled * group.sum() ** 0.37
    rates = replace(observation.rates, users=users, node_sets=node_sets, snr=snr)
    assert group_exponent(replace(observation, rates=rates), reach) == pytest.approx(0.37)
    alone = replace(rates, users=users[2:], node_sets=node_sets[2:], snr=snr[2:])
    assert group_exponent(replace(observation, rates=alone), reach) == 0.0


def test_reach_is_robust_unless_the_plan_is_not():
    """sqrt(P) (|g| - eps), never below 0; |g| for non-robust plans."""
    instance = separate_models([[0]], models=1, storage=[1, 1])
    strength = np.linalg.norm(instance.channel_estimate[0], axis=2)
    error = strength[None] * np.array([0.25, 1.0])
    instance = replace(instance, channel_error=error)
    robust = user_reach(observed(replace(instance, channel_error=error * [1.0, 0.5])))
    assert robust == pytest.approx(strength * [0.75, 0.5])
    nominal = user_reach(observed(instance, restrict=("non-robust",)))
    assert nominal == pytest.approx(strength)


def test_kinds_by_hand():
    """Blocks 0 and 2 are in the same models, block 1 in another."""
    kind, contains = kinds(np.array([[1, 0, 1], [1, 1, 1]], dtype=bool))
    assert kind[0] == kind[2] != kind[1]
    assert contains[:, kind[0]].tolist() == [1, 1]
    assert contains[:, kind[1]].tolist() == [0, 1]
