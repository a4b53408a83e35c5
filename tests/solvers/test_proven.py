"""Proven beams for the messages that decide the delay: smaller gaps, and bounds that hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from repository import TINY

from finecast.problem.scenario import read_scenario
from finecast.solvers.deadline import Deadline
from finecast.solvers.placement.problem import placement_delay
from finecast.solvers.placement.search.lagrangian import place_by_prices
from finecast.solvers.polish import polished
from finecast.solvers.prepared import prepare
from finecast.solvers.proven import with_proven_beams
from finecast.solvers.solve import solve


def rayleigh_instance(seed, error=0.0, delivery="sequential"):
    """The scenario `tiny` for 8 users and 3 nodes with room for all, on Rayleigh channels of one
    antenna at 10 dB: only beams are loose."""
    scenario = read_scenario(TINY).with_({"users.count": 8, "nodes.count": 3, "nodes.antennas": 1})
    instance = scenario.generate(seed)
    rng = np.random.default_rng(seed)
    shape = (instance.slots, instance.users, instance.nodes, 1)
    channel = rng.normal(size=shape) + 1j * rng.normal(size=shape)
    channel *= np.sqrt(5 * instance.network.noise_power / instance.network.power.max())
    room = np.full(instance.nodes, instance.library.block_size.sum())
    network = replace(instance.network, max_spectral_efficiency=np.inf, storage=room)
    return replace(
        instance,
        network=network,
        channel_estimate=channel,
        channel_true=channel,
        channel_error=error * np.linalg.norm(channel, axis=3),
        delivery=delivery,
    )


def test_gaps_of_loose_beams_close():
    """Over some draws the certified gap falls several times, no delay rises, no bound falls, and no
    bound is above the delay, which the judge confirms. Without boxes all is as it was."""
    gaps = []
    for seed in range(2):
        instance = rayleigh_instance(seed, error=0.05 * (seed % 2))
        before = solve(instance, "lagrangian", beam_nodes=0)
        after = solve(instance, "lagrangian")
        assert after.evaluation.feasible
        assert after.delay <= before.delay * (1 + 1e-9)
        assert before.lower_bound <= after.lower_bound <= after.delay
        gaps.append((before.gap, after.gap))
    gaps = np.array(gaps)
    assert gaps[:, 0].max() > 0.01
    assert gaps[:, 1].mean() < 0.3 * gaps[:, 0].mean()


def test_one_message_systems_gain_too():
    """Restricted to one message a block, the bound of that message is that of the system."""
    instance = rayleigh_instance(3, error=0.05)
    loose = solve(instance, "lagrangian", beam_nodes=0, restrict="one-message")
    tight = solve(instance, "lagrangian", restrict="one-message")
    assert loose.lower_bound <= tight.lower_bound <= tight.delay
    assert tight.gap <= loose.gap


@pytest.fixture(scope="module")
def placed():
    """Rates, placement and prices of an instance whose beams are loose."""
    for seed in range(2):
        prepared = prepare(rayleigh_instance(seed))
        found = place_by_prices(prepared.achieved, seed=0)
        prepared, _ = polished(prepared, found.placement, seed=0)
        delay = placement_delay(prepared.achieved, found.placement)
        if placement_delay(prepared.bounded, found.placement) < 0.99 * delay:
            return prepared, found
    raise AssertionError("no draw has loose beams")


def test_rates_only_get_better(placed):
    """Bounds fall and rates rise, entry by entry, and bounds stay above rates."""
    prepared, found = placed
    better = with_proven_beams(prepared, found.placement, [found.prices])
    changed = False
    for old, new in zip(prepared.rates, better.rates, strict=True):
        assert (new.bound <= old.bound).all()
        assert (new.achieved >= old.achieved).all()
        assert (new.achieved <= new.bound * (1 + 1e-12)).all()
        changed |= bool((new.bound < 0.999 * old.bound).any())
    assert changed


def test_nothing_is_done_where_nothing_is_asked(placed):
    """No boxes, no time, other beams, spatial delivery: the rates are those given."""
    prepared, found = placed
    for given, options in (
        (prepared, {"nodes": 0}),
        (prepared, {"deadline": Deadline.after(0)}),
        (replace(prepared, beamforming="matched"), {}),
        (replace(prepared, instance=replace(prepared.instance, delivery="spatial")), {}),
    ):
        assert with_proven_beams(given, found.placement, [found.prices], **options) is given


def test_fewer_boxes_than_none_are_refused():
    """By name, with the value."""
    with pytest.raises(ValueError, match="beam_nodes: -1 is not allowed, must be >= 0"):
        solve(read_scenario(TINY).generate(0), "lagrangian", beam_nodes=-1)
