"""The method `programme`: what it reckons with, what it knows, and what it says of itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from repository import TINY

from finecast.problem.scenario import read_scenario
from finecast.solvers.heuristics import programme as method
from finecast.solvers.heuristics import programme_values as module
from finecast.solvers.heuristics.expected import coming_tables, first_air, kinds, observed_air
from finecast.solvers.heuristics.greedy_online import greedy_by_popularity
from finecast.solvers.heuristics.joint_keep import value_of
from finecast.solvers.heuristics.programme import Programme
from finecast.solvers.heuristics.rules import keep_by_cost
from finecast.solvers.node_set_tables import node_sets
from finecast.solvers.online import observation_of, prepare_slots, prior_of, run_online
from finecast.solvers.placement.demand_programme import best_level, last_requests, wanted_last
from finecast.solvers.placement.problem import placement_delay
from finecast.solvers.prepared import prepare
from finecast.solvers.solve import solve
from finecast.testing import check_future, small_instance


def observations(instance, restrict: tuple[str, ...] = ()):
    """Return the prior and what is seen in every slot."""
    prior = prior_of(instance, frozenset(restrict))
    slots = prepare_slots(instance, restrict=restrict)
    return prior, [observation_of(instance, prior, t, slot) for t, slot in enumerate(slots)]


def changed(**changes):
    """Return a tiny instance of some slots."""
    return read_scenario(TINY).with_(changes).generate(1)


@pytest.mark.parametrize("restrict", [(), ("no-comp",), ("unicast",), ("no-comp", "unicast")])
def test_times_of_certain_requests_are_those_of_the_other_methods(restrict):
    """Users that always repeat: the state is certain, and so is its time on the air.

    `coming_tables` takes a mean over who asks. Here both know it, by code of their own.
    """
    instance = changed(slots=2, demand={"persistence": 1.0})
    _, seen = observations(instance, restrict)
    coming = coming_tables(seen[0], 1)
    programme = module._programme(seen[0].prior, observed_air(seen[0]), 0, 2, 1 << 10)
    state = programme.groups.state(wanted_last(programme.contains, instance.requests[0]).T)
    wanted = coming.probability[0] > 0
    assert wanted.any()
    assert programme.broadcast[:, state[wanted]].T == pytest.approx(coming.broadcast[0, wanted])


def test_it_keeps_what_the_values_say():
    """Storage for all: nothing is dropped but what the values call worthless.

    The set kept has least expected value among the subsets of what was there.
    """
    instance = changed(slots=3, nodes={"storage_share": 5.0}, demand={"persistence": 0.6})
    prior, seen = observations(instance)
    policy = Programme()
    cache = policy.place(prior)
    source, keep = policy.act(seen[0], cache)
    values = policy._values
    assert values is not None
    kind, contains = kinds(instance.library.model_blocks)
    last = last_requests(instance.requests[:1])[-1]
    state = values.programme.groups.state(wanted_last(contains, last).T)
    exact = values.programme.cost_to_go(np.arange(contains.shape[1]))
    rent = values.programme.chains.member @ values.programme.prices[1]
    held, kept = node_sets(cache | (source >= 0)), node_sets(keep)
    for j, c in enumerate(kind):
        coming = exact.ahead[0, :, c, state[c]] - rent  # in slot 0 there is nothing to correct
        within = [x for x in range(len(coming)) if x & held[j] == x]
        assert kept[j] in within
        assert coming[kept[j]] == pytest.approx(min(coming[within]), rel=1e-6)


def test_no_correction_where_nothing_is_new():
    """In slot 0 of a programme without approximation the channels are those that it has."""
    instance = changed(slots=3, demand={"persistence": 0.6})
    _, seen = observations(instance)
    values, notes = module.values_from(seen[0].prior, observed_air(seen[0]), 0, 0)
    assert notes == ()
    last = last_requests(instance.requests[:1])[-1]
    found = method._next_slot(values, seen[0], last, np.random.default_rng(0))
    scale = float(np.abs(values.ahead[0]).max())
    assert found == pytest.approx(0.0, abs=1e-9 * scale)


@pytest.mark.parametrize("most_states", [1 << 13, 4])
def test_correction_by_the_channels_of_the_slot(monkeypatch, most_states):
    """Users that always repeat: slot 2 is certain but for its channels, taken to be those of 1.

    The corrected value of slot 2 is the rent and the best level at these, user by user, even if
    the programme counts users by groups.
    """
    monkeypatch.setattr(module, "MOST_STATES", most_states)
    instance = changed(slots=3, demand={"persistence": 1.0}, channel={"correlation": 0.2})
    _, seen = observations(instance)
    values, _ = module.values_from(seen[0].prior, observed_air(seen[0]), 0, 0)
    programme = values.programme
    last = last_requests(instance.requests[:2])[-1]
    wanted = wanted_last(programme.contains, last)  # (K, C)
    state = programme.groups.state(wanted.T)
    kind = np.arange(len(state))
    correction = method._next_slot(values, seen[1], last, np.random.default_rng(0))
    found = values.ahead[1][:, kind, state] + correction
    now = coming_tables(seen[1], 1)
    sent = best_level(now.broadcast[0].T, now.chains)
    rent = programme.chains.member @ programme.prices[2]
    want = rent[:, None] + np.where(wanted.any(axis=0), sent, 0.0)
    assert found == pytest.approx(want, rel=1e-5)
    assert np.abs(correction).max() > 1e-3 * np.abs(want).max()


def test_values_in_windows(monkeypatch):
    """Long horizons are reckoned with window by window; a window of all slots changes nothing."""
    instance = changed(slots=5, demand={"persistence": 0.6})
    prior, seen = observations(instance)
    whole = Programme()
    run_online(whole, prior, seen)
    assert whole.notes == ()
    monkeypatch.setattr(module, "WINDOW", 2)
    short = Programme()
    placement = run_online(short, prior, seen)
    assert short.notes == ("values reckon with 2 slots of 5",)
    assert placement_delay(prepare(instance).achieved, placement) > 0


def test_it_says_what_it_approximates(monkeypatch):
    """Users in groups, users that do not always ask, schedules that values do not know."""
    instance = changed(slots=2, demand={"activity": 0.7}, schedule="pipelined")
    monkeypatch.setattr(module, "MOST_STATES", 6)
    notes = solve(instance, "programme").notes
    users = instance.users
    assert any(f"users counted by groups of those alike: {users} users" in note for note in notes)
    assert any("activity below 1" in note for note in notes)
    assert any("one after another, not side by side" in note for note in notes)


def test_too_many_nodes_and_kinds(monkeypatch):
    """One line says how large the values would be."""
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match=r"nodes: 2 with \d+ kinds .* at most 100 are allowed"):
        solve(changed(slots=2), "programme")


def test_knows():
    """Only by name does it know the channels of slot 0 before the slot, and the checks see it."""
    with pytest.raises(ValueError, match="knows: 'all' is not allowed, must be past or network"):
        Programme(knows="all")  # type: ignore[arg-type]
    instance = small_instance()
    assert prior_of(instance).first_slot is None
    prior = prior_of(instance)
    assert np.array_equal(Programme().place(prior), greedy_by_popularity(prior, 1))
    synthetic = {"synthetic": {"models": 6, "blocks": 16, "families": 2}}
    larger = changed(slots=3, nodes={"count": 3, "antennas": 2}, library=synthetic)
    with pytest.raises(AssertionError, match="slot 0 change with the requests of slot 0"):
        check_future("programme", larger, knows="network")


def test_a_block_of_half_a_node_is_not_lost():
    """Values of a real slot in which the joint rule alone kept a block of 0.46 GB of 1 nowhere.

    Here in small: at the prices of storage small blocks fill the nodes, and to put the large one
    in place of many small ones takes more moves than two.
    """
    rng = np.random.default_rng(0)
    size = np.concatenate([[46], np.full(40, 5)])
    storage = np.array([100, 100, 100, 100])
    copies = np.array([bin(x).count("1") for x in range(16)])
    worth = np.concatenate([[12.0 / 46], rng.uniform(0.2, 0.3, 40)])
    cost = worth[:, None] * np.where(copies == 0, 1.0, 0.5 / np.maximum(copies, 1))
    held = np.ones((4, len(size)), dtype=bool)
    in_turn = keep_by_cost(cost, held, size, storage, np.zeros(len(size), dtype=np.int64), rounds=3)
    found = method._kept(cost, held, size, storage)
    assert found.value <= value_of(cost, size, in_turn)
    assert (found.keep @ size <= storage).all()
    assert found.keep[:, 0].any()


def test_a_known_network_is_used_before_slot_0():
    """By the values at the known channels, its caches are better than those by popularity."""
    instance = changed(slots=3, demand={"persistence": 0.9})
    prior = prior_of(instance)
    first = instance.channel_estimate[0], instance.channel_error[0]
    cache = Programme(knows="network").place(replace(prior, first_slot=first))
    size = instance.library.block_size
    assert (cache @ size <= instance.network.storage).all()
    air = first_air(replace(prior, first_slot=first))
    kind, contains = kinds(instance.library.model_blocks)
    values = module._programme(prior, air, 0, 3, 64).cost_to_go(np.arange(contains.shape[1]))
    delay = [values.start[node_sets(x), kind] @ size for x in (cache, Programme().place(prior))]
    assert delay[0] < delay[1]


def test_a_second_game_is_the_same():
    """One policy plays two instances one after another as two policies would."""
    one, two = changed(slots=3), small_instance()
    policy = Programme()
    for instance in (one, two, one):
        prior, seen = observations(instance)
        again = run_online(policy, prior, seen)
        fresh = run_online(Programme(), prior, seen)
        assert np.array_equal(again.cache, fresh.cache)
        assert np.array_equal(again.source, fresh.source)
