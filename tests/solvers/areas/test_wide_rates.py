"""Certified rates of wide messages: against every cover, and what they add to the bound."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from two_areas import best_without_interference, three_areas, two_areas

from finecast.problem.sinr import rate
from finecast.solvers.areas.bound import whole_point
from finecast.solvers.areas.rates import Ready, _tables, prepare_areas, sent_wide
from finecast.solvers.areas.tables import participants
from finecast.solvers.areas.wide import aligned_beam
from finecast.solvers.areas.wide_rates import no_wide_rates, solve_wide
from finecast.solvers.beamforming.by_name import KERNEL, solve_messages
from finecast.solvers.deadline import Deadline


def bound_without(ready: Ready) -> float:
    """Return the bound at the same prices where wide messages have closed forms alone."""
    tables = _tables(ready.city, list(ready.prepared), no_wide_rates(ready.city.whole))
    return whole_point(tables, ready.point.prices, ready.point.shares).bound


@pytest.mark.parametrize("seed", range(6))
def test_no_cover_is_faster(seed: int) -> None:
    """All covers of a class by sets of its users, at the rates that beams reach: none is faster.

    Errors of 20 % and a high cap make splitting pay in some of them.
    """
    instance = two_areas(seed, coupling=0.6, error=0.2)
    ready = prepare_areas(instance)
    whole, network = ready.city.whole, instance.network
    everything = np.ones(whole.users.shape[:2], dtype=bool)
    found = solve_wide(instance, whole, no_wide_rates(whole), everything)
    kinds = np.flatnonzero(whole.users[0].any(axis=1))
    assert found.known[0, kinds].all()
    for c in kinds:
        users = np.flatnonzero(whole.users[0, c])
        sets = [set(s) for n in range(len(users)) for s in combinations(users, n + 1)]
        listens = np.array([[k in s for k in range(instance.users)] for s in sets])
        shape = (len(sets), *instance.channel_estimate.shape[1:])
        beams = solve_messages(
            KERNEL,
            np.broadcast_to(instance.normalised_channel[0], shape),
            np.broadcast_to(instance.normalised_error[0], shape[:3]),
            network.power,
            node_mask=np.repeat(participants(whole, 0, np.array([c])), len(sets), axis=0),
            user_mask=listens,
        )
        seconds = 1.0 / rate(beams.snr, network.bandwidth, network.max_spectral_efficiency)
        for many in range(1, len(users) + 1):
            for cover in combinations(range(len(sets)), many):
                if set(users) == set().union(*(sets[i] for i in cover)):
                    assert 1.0 / found.bound[0, c] <= seconds[list(cover)].sum()


@pytest.mark.parametrize("seed", range(5, 11))
def test_bound_rises_and_stays_below_the_optimum(seed: int) -> None:
    """At the same prices it is no lower with the rates of wide messages, and below enumeration."""
    instance = two_areas(seed, coupling=0.8)
    ready = prepare_areas(instance)
    assert bound_without(ready) <= ready.point.bound * (1 + 1e-12)  # shares are normalised again
    assert ready.point.bound <= best_without_interference(instance) * (1 + 1e-9)


def test_closed_forms_alone_are_looser() -> None:
    """Where blocks go wide to users of three areas the weakest user alone says too little."""
    ready = prepare_areas(three_areas())
    sent = sent_wide(ready.city.whole, ready.tables, ready.point)
    assert (ready.wide.known & sent).any()
    assert ready.point.bound > 1.001 * bound_without(ready)
    known = ready.wide.known
    assert ((ready.wide.share[known] > 0) & (ready.wide.share[known] <= 1)).all()


def test_no_time_leaves_them_unknown() -> None:
    """Nothing is proven without time, and nothing is asked twice."""
    instance = two_areas(0)
    ready = prepare_areas(instance)
    whole = ready.city.whole
    nothing = no_wide_rates(whole)
    everything = np.ones(whole.users.shape[:2], dtype=bool)
    assert solve_wide(instance, whole, nothing, everything, deadline=Deadline.after(0.0)) is nothing
    found = solve_wide(instance, whole, nothing, everything)
    assert solve_wide(instance, whole, found, everything) is found


@pytest.mark.parametrize("error", [0.0, 0.05])
def test_closed_forms_silence_no_listener_of_a_large_message(error: float) -> None:
    """Two hundred listeners in a city: the weakest one keeps most of what weights can give."""
    rng = np.random.default_rng(3)
    nodes, users, antennas = 50, 200, 4
    place = rng.random((users + nodes, 2))
    distance = np.linalg.norm(place[:users, None] - place[None, users:], axis=2) + 0.02
    gain = distance[..., None] ** -1.75
    channel = gain * (rng.normal(size=(users, nodes, antennas, 2)) @ [1.0, 1.0j])
    radius = error * np.linalg.norm(channel, axis=2)
    everybody, all_send = np.ones(users, dtype=bool), np.ones(nodes, dtype=bool)
    beam = aligned_beam(channel, radius, np.ones(nodes), everybody, all_send)
    assert np.linalg.norm(beam, axis=1).max() <= 1.0 + 1e-9
    left = np.abs(np.tensordot(channel.conj(), beam, axes=2)) - radius @ np.ones(nodes)
    strength = np.linalg.norm(channel, axis=2).sum(axis=1)
    assert left.min() > 0.05 * strength.min()
