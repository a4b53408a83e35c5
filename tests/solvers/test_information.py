"""What a node sees, and that nothing else decides: hidden data is changed, decisions stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from information_cases import observations_in_closed_form

from finecast.problem.scenario import read_scenario
from finecast.solvers.heuristics.apart import Apart
from finecast.solvers.information import (
    HIDDEN,
    INFORMATION,
    exchanged_bytes,
    last_request,
    seen_caches,
    sights,
)

RULES = ("plan", "inertia", "simulate", "own-savings")


@pytest.fixture(scope="module")
def observed():
    """Four slots of a draw with 4 nodes, 60 blocks and 12 users, rates in closed form."""
    scenario = read_scenario("learning/slow-60")
    return observations_in_closed_form(scenario.generate(5))[:4]


@pytest.fixture(autouse=True)
def coarse_programme(monkeypatch):
    """The programme in little: what it is a mean of does not matter here."""
    monkeypatch.setattr("finecast.solvers.heuristics.programme_values.MOST_STATES", 64)
    monkeypatch.setattr("finecast.solvers.heuristics.programme_values.COARSE_STATES", 64)
    monkeypatch.setattr("finecast.solvers.heuristics.programme_values.STEPS", 2)


def caches(observation, seed=0, share=0.3, received=0.1):
    """Return caches and what is held after the delivery, (N, J) each, drawn."""
    rng = np.random.default_rng(seed)
    shape = (observation.prior.network.nodes, observation.prior.library.blocks)
    cache = rng.random(shape) < share
    return cache, cache | (rng.random(shape) < received)


def test_sights_hold_what_the_structure_says(observed):
    """Home users are seen at once, others a slot later or never; slot 0's channels by all."""
    observation = observed[3]
    cache, held = caches(observation)
    for information in INFORMATION:
        common, each = sights(observation, cache, held, information)
        for n, sight in enumerate(each):
            own = sight.home == n
            seen = sight.requests != HIDDEN
            assert seen[:, own].all()
            assert (sight.requests[seen] == observation.requests[seen]).all()
            assert np.isfinite(sight.reach[0]).all()
            assert (np.isfinite(sight.reach[1:]).all(axis=2) == seen[1:]).all()
            assert (sight.held == held[n]).all()
            if information == "full":
                assert seen.all()
            if information == "delayed":
                assert seen[:-1].all()
                assert (seen[-1] == own).all()
            if information == "local":
                assert not seen[:, ~own].any()
                assert not sight.caches[~sight.seen_nodes].any()
        assert (common.requests == HIDDEN).any() == (information != "full")


def test_senders_see_the_users_of_their_messages(observed):
    """A node sees a user away from home exactly if it has a block that the user wants."""
    observation = observed[2]
    cache, held = caches(observation, share=0.02, received=0.0)
    _, each = sights(observation, cache, held, "senders")
    wanted = observation.prior.library.model_blocks[observation.requests[-1]]
    for n, sight in enumerate(each):
        sends_to = (wanted & held[n]).any(axis=1)
        expected = sends_to | (sight.home == n)
        assert ((sight.requests[-1] != HIDDEN) == expected).all()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("information", ["senders", "delayed", "local"])
def test_what_is_hidden_does_not_decide(observed, information, rule):
    """Requests, channels and caches that a node may not see change none of its copies."""
    rng = np.random.default_rng(1)
    for n in (0, 2):
        kept = []
        for changed in (False, True):
            policy = Apart(information=information, rule=rule)
            policy.place(observed[0].prior)
            for observation in observed:
                # Senders hide users only from nodes that hardly have anything.
                few = {"share": 0.02, "received": 0.0} if information == "senders" else {}
                cache, held = caches(observation, seed=observation.t, **few)
                if changed:
                    observation, cache, held = hidden_changed(
                        observation, cache, held, information, n, rng
                    )
                kept.append(policy.keep(*sights(observation, cache, held, information))[n])
        half = len(kept) // 2
        for before, after in zip(kept[:half], kept[half:], strict=True):
            assert (before == after).all()


def hidden_changed(observation, cache, held, information, n, rng):
    """Return the same slot with all changed that node n does not see of it."""
    _, each = sights(observation, cache, held, information)
    sight = each[n]
    models = observation.prior.library.models
    wanted = observation.prior.library.model_blocks
    # A user that is hidden from a sender goes on wanting nothing that the node has.
    free = np.flatnonzero(~(wanted & held[n]).any(axis=1)) if information == "senders" else models
    if np.size(free) == 0:
        free = np.array([0])
    other = rng.choice(free, size=sight.requests.shape)
    requests = np.where(sight.requests == HIDDEN, other, observation.requests)
    estimate, error = np.array(observation.channel_estimate), observation.channel_error
    unseen = np.isnan(sight.reach).any(axis=2)
    estimate[unseen] *= rng.uniform(0.2, 5.0, size=estimate[unseen].shape)
    # Caches and what others have: for senders only what others have.
    cache, held = cache.copy(), held.copy()
    cache[~sight.seen_nodes] ^= rng.random(cache[~sight.seen_nodes].shape) < 0.5
    others = np.arange(len(held)) != n
    held[others] = rng.random(held[others].shape) < 0.5
    changed = replace(
        observation, requests=requests, channel_estimate=estimate, channel_error=error
    )
    assert information == "senders" or (requests != observation.requests).any()
    return changed, cache, held


@pytest.mark.parametrize("information", ["delayed", "local"])
def test_a_leak_would_be_found(observed, information, monkeypatch):
    """With everything shown to everybody the test above fails: it can."""
    monkeypatch.setattr(
        "finecast.solvers.information.seen_users",
        lambda _, home, nodes: (np.ones((nodes, len(home)), bool),) * 2,
    )
    with pytest.raises(AssertionError):
        test_what_is_hidden_does_not_decide(observed, information, "plan")


def test_nodes_that_see_the_same_know_the_same(observed):
    """With full information every node computes the same plan: simulate is the joint rule."""
    observation = observed[1]
    cache, _ = caches(observation)
    common, each = sights(observation, cache, cache, "full")
    policy = Apart(information="full", rule="simulate", values="next-slot")
    kept = policy.keep(common, each)
    joint = Apart(information="full", rule="plan", values="next-slot", bonus=1e6)
    assert (kept == joint.keep(common, each)).all()
    size, storage = observation.prior.library.block_size, observation.prior.network.storage
    assert (kept @ size <= storage).all()
    assert (kept <= cache).all()


def test_hidden_requests_follow_the_demand_model(observed):
    """The belief about a hidden last request is the mean over what it may have been."""
    observation = observed[2]
    cache, held = caches(observation)
    demand = observation.prior.demand
    common, each = sights(observation, cache, held, "delayed")
    belief = last_request(each[0])
    hidden = np.flatnonzero(each[0].requests[-1] == HIDDEN)
    k = int(hidden[0])
    before = observation.requests[1, k]
    by_hand = (1 - demand.persistence) * demand.preference[2, k]
    by_hand[before] += demand.persistence
    np.testing.assert_allclose(belief[k], by_hand, rtol=1e-12)
    seen = int(np.flatnonzero(each[0].requests[-1] != HIDDEN)[0])
    assert belief[seen].argmax() == observation.requests[-1, seen]
    assert belief[seen].max() == 1.0
    assert np.isfinite(common.newest_reach).all()


def test_bytes_between_nodes(observed):
    """Delayed: request and 4 amplitudes of each user to 3 nodes, and a bit a block per cache."""
    observation = observed[1]
    cache, held = caches(observation)
    common, _ = sights(observation, cache, held, "delayed")
    assert exchanged_bytes("delayed", common) == 3 * 12 * 5 * 4 + 12 * 8
    common, _ = sights(observation, cache, held, "local")
    near = seen_caches("local", observation.prior.network).sum() - 4
    assert exchanged_bytes("local", common) == near * 8


def test_unknown_words_are_refused():
    """One line says what is allowed."""
    with pytest.raises(ValueError, match=r"^information: 'all' is not allowed, must be one of"):
        Apart(information="all")
    with pytest.raises(ValueError, match=r"^rule: 'best' is not allowed, must be one of plan, "):
        Apart(rule="best")
    with pytest.raises(ValueError, match=r"^values: 'x' is not allowed, must be one of programme"):
        Apart(values="x")
    with pytest.raises(ValueError, match=r"^bonus: "):
        Apart(bonus=-1.0)
