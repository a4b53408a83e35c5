"""Online methods: what they may know, and what they are worth.

That their decisions do not depend on the future is one of the checks of `finecast.testing`, which
tests/conformance runs over every method.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from types import FunctionType, ModuleType

import numpy as np
import pytest
from repository import TINY

from finecast.problem.demand import forecast, popularity
from finecast.problem.instance import Instance
from finecast.problem.scenario import read_scenario
from finecast.solvers.heuristics.rules import Static
from finecast.solvers.online import (
    Observation,
    joined,
    observation_of,
    prepare_slots,
    prior_of,
    run_online,
    slot_alone,
)
from finecast.solvers.prepared import prepare
from finecast.solvers.registry import methods
from finecast.solvers.result import Termination
from finecast.solvers.solve import solve

ONLINE = sorted(
    name
    for name, method in methods().items()
    if method.setting == "online" and not method.needs_training
)


def tiny(seed: int, slots: int = 3) -> Instance:
    """Return a tiny instance of several slots, in which requests and channels change."""
    scenario = read_scenario(TINY)
    demand = scenario.demand.model_copy(update={"persistence": 0.5, "drift": 0.5})
    channel = scenario.channel.model_copy(update={"error": 0.05})
    changed = scenario.model_copy(update={"slots": slots, "demand": demand, "channel": channel})
    return changed.generate(seed)


@pytest.fixture(scope="module")
def rate_cache(tmp_path_factory):
    """Return a folder for rate tables, so that equal slots are solved once."""
    return str(tmp_path_factory.mktemp("rates"))


def test_nothing_of_the_future_can_be_reached(rate_cache):
    """Whatever an observation refers to, however deep: no instance, no true or later channel."""
    instance = tiny(2)
    slots = prepare_slots(instance, rate_cache=rate_cache)
    observation = observation_of(instance, prior_of(instance), 1, slots[1])
    seen: dict[int, object] = {}
    queue: list[object] = [observation]
    while queue:
        thing = queue.pop()
        if id(thing) in seen or isinstance(thing, (type, ModuleType, FunctionType)):
            continue
        seen[id(thing)] = thing
        queue.extend(gc.get_referents(thing))
        if isinstance(thing, np.ndarray) and thing.base is not None:
            queue.append(thing.base)
    arrays = [thing for thing in seen.values() if isinstance(thing, np.ndarray)]
    hidden = [
        instance.channel_true,
        instance.channel_estimate[2],
        instance.channel_error[2],
        instance.requests,
    ]
    assert len(arrays) > 10
    assert not any(isinstance(thing, Instance) for thing in seen.values())
    for array in arrays:
        for secret in hidden:
            assert not np.shares_memory(array, secret)
            assert array.shape != secret.shape or not np.array_equal(array, secret)


def test_the_slot_alone_has_no_true_channel():
    """What a slot's rates are computed from is that slot, with estimates for the truth."""
    instance = tiny(3)
    slot = slot_alone(instance, 1)
    assert slot.slots == 1
    assert np.array_equal(slot.channel_true, instance.channel_estimate[1:2])
    assert not np.array_equal(instance.channel_true[1], instance.channel_estimate[1])


def test_forecast_is_conditional_on_the_requests_so_far(rate_cache):
    """An observation forecasts by the requests up to its slot; the prior by none."""
    instance = tiny(2)
    slots = prepare_slots(instance, rate_cache=rate_cache)
    prior = prior_of(instance)
    observation = observation_of(instance, prior, 1, slots[1])
    assert np.array_equal(prior.popularity, popularity(instance.demand))
    assert np.array_equal(observation.forecast(), forecast(instance.demand, instance.requests[:2]))
    assert observation.forecast().shape == (1, instance.users, instance.models)
    assert observation_of(instance, prior, 2, slots[2]).forecast().shape[0] == 0


def test_slots_joined_are_the_whole(rate_cache):
    """Slot by slot, the messages, groups and links are those of all slots at once; rates agree."""
    instance = tiny(4)
    one_by_one = joined(instance, prepare_slots(instance, rate_cache=rate_cache))
    at_once = prepare(instance)
    assert np.array_equal(one_by_one.achieved.group, at_once.achieved.group)
    assert np.array_equal(one_by_one.achieved.link, at_once.achieved.link)
    for mine, theirs in zip(one_by_one.achieved.broadcast, at_once.achieved.broadcast, strict=True):
        assert mine == pytest.approx(theirs, rel=0.05)  # starts differ, local optima may


def test_roll_by_hand(rate_cache):
    """Caches follow from x[0] and what was kept; sources are the policy's; one act per slot."""
    instance = tiny(5)
    slots = prepare_slots(instance, rate_cache=rate_cache)
    prior = prior_of(instance)
    seen = []

    class Shifting:
        """Keeps block t + 1 at node 0 after slot t, and fetches nothing."""

        def place(self, prior):
            cache = np.zeros((2, prior.library.blocks), dtype=bool)
            cache[0, 0] = True
            return cache

        def act(self, observation: Observation, cache):
            seen.append((observation.t, np.flatnonzero(cache[0]).tolist()))
            keep = np.zeros_like(cache)
            keep[0, observation.t + 1] = True
            return np.full(cache.shape, -1), keep

    placement = run_online(
        Shifting(), prior, (observation_of(instance, prior, t, s) for t, s in enumerate(slots))
    )
    assert seen == [(0, [0]), (1, [1]), (2, [2])]
    assert [np.flatnonzero(c[0]).tolist() for c in placement.cache] == [[0], [1], [2]]
    assert (placement.source == -1).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", sorted({*ONLINE, "whole-model"}))
def test_judged_over_several_slots(name, seed, rate_cache):
    """No rule is broken over several slots, storage included, and no bound is beaten."""
    instance = tiny(seed)
    result = solve(instance, name, rate_cache=rate_cache)
    assert [str(v) for v in result.evaluation.violations] == []
    assert 0 < result.lower_bound <= result.delay < np.inf
    used = result.solution.cache @ instance.library.block_size
    assert (used <= instance.network.storage).all()


@pytest.mark.parametrize("name", ONLINE)
def test_edges(name, rate_cache):
    """No storage at all, storage for everything, nobody asking, everybody asking for the same."""
    instance = tiny(1, 2)
    everything = int(instance.library.block_size.sum())
    for storage in (0, everything):
        network = replace(instance.network, storage=np.full(2, storage))
        result = solve(replace(instance, network=network), name, rate_cache=rate_cache)
        assert result.evaluation.feasible
    silent = replace(instance, requests=-np.ones_like(instance.requests))
    assert solve(silent, name, rate_cache=rate_cache).delay == 0.0
    alike = replace(instance, requests=np.zeros_like(instance.requests))
    assert solve(alike, name, rate_cache=rate_cache).evaluation.feasible


@pytest.mark.parametrize("name", ["lru", "mpc"])
def test_hopeless_channels_have_no_solution(name, rate_cache):
    """Errors as large as the channels: no rate can be guaranteed, said so and not a number."""
    instance = tiny(1, 2)
    error = np.linalg.norm(instance.channel_estimate, axis=3) * 1.01
    hopeless = replace(instance, channel_error=error, channel_true=instance.channel_estimate)
    result = solve(hopeless, name, rate_cache=rate_cache)
    assert result.termination is Termination.NO_SOLUTION
    assert result.solution is None


def test_holding_everything_meets_the_bound_of_the_table(rate_cache):
    """With everything everywhere nothing migrates, and every message goes out from all nodes."""
    instance = tiny(3)
    everything = np.full(2, int(instance.library.block_size.sum()))
    instance = replace(instance, network=replace(instance.network, storage=everything))
    slots = prepare_slots(instance, rate_cache=rate_cache)
    prior = prior_of(instance)

    class Everything(Static):
        def place(self, prior):
            return np.ones((2, prior.library.blocks), dtype=bool)

    placement = run_online(
        Everything(), prior, (observation_of(instance, prior, t, s) for t, s in enumerate(slots))
    )
    assert (placement.source == -1).all()
    assert placement.cache.all()
