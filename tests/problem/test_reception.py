"""Users that no channel reaches, and gains that look like a wrong unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import finecast
from finecast.problem.instance import Instance
from finecast.problem.reception import (
    gain_notes,
    lost_to_errors,
    places,
    unserved,
    without_channel,
)


def tiny() -> Instance:
    """Return a small instance of two slots, with somebody requesting everywhere."""
    scenario = finecast.read_scenario("tiny").with_(slots=2, channel={"error": 0.0})
    return scenario.generate(seed=0)


def with_channel(instance: Instance, channel: np.ndarray, error: float = 0.0) -> Instance:
    """Return the instance with another channel, the errors a share of it."""
    radius = error * np.linalg.norm(channel, axis=3)
    return replace(instance, channel_estimate=channel, channel_true=channel, channel_error=radius)


@pytest.fixture
def unreached() -> Instance:
    """Return an instance in which user 1 has no channel in slot 1."""
    instance = tiny()
    channel = instance.channel_estimate.copy()
    channel[1, 1] = 0.0
    return with_channel(instance, channel)


def test_a_user_without_a_path_is_named(unreached: Instance) -> None:
    """By slot and user, where it requests something; its errors, which are none, are not blamed."""
    assert without_channel(unreached).tolist() == [[1, 1]]
    assert without_channel(tiny()).tolist() == []
    assert lost_to_errors(unreached).tolist() == []
    assert unserved(unreached) == "no channel from any node to user 1 in slot 1"
    requests = unreached.requests.copy()
    requests[1, 1] = -1
    assert unserved(replace(unreached, requests=requests)) == ""


@pytest.mark.parametrize("method", ["lagrangian", "lru", "milp"])
def test_solve_says_so(unreached: Instance, method: str) -> None:
    """Of searches, policies and programmes: no solution, and who cannot be served."""
    result = finecast.solve(unreached, method, time_limit=5.0)
    assert result.termination == "no_solution"
    assert result.notes == ("no channel from any node to user 1 in slot 1",)


def test_errors_are_blamed_where_they_are_too_large() -> None:
    """A nominal plan does not reckon with them."""
    instance = tiny()
    channel = instance.channel_estimate
    error = np.zeros(channel.shape[:3])
    error[0, 2] = 1.1 * np.linalg.norm(channel[0, 2], axis=1)
    instance = replace(instance, channel_error=error)
    assert lost_to_errors(instance).tolist() == [[0, 2]]
    assert unserved(instance) == "channel errors are as large as the channels of user 2 in slot 0"
    assert unserved(instance, robust=False) == ""
    assert "user 2 in slot 0" in finecast.solve(instance, time_limit=5.0).notes[0]


def test_gains_above_one_get_a_note() -> None:
    """Normalised channels and decibels give an answer, and a note with the largest gain."""
    instance = tiny()
    assert gain_notes(instance) == ()
    channel = instance.channel_estimate
    normalised = with_channel(instance, channel / np.sqrt(instance.network.noise_power))
    (note,) = gain_notes(normalised)
    strength = np.linalg.norm(normalised.channel_estimate, axis=3)
    assert f"{(strength > 1).sum()} of {strength.size} channel gains are above one" in note
    assert f"the largest is {strength.max():.3g} (slot" in note
    decibels = with_channel(instance, 20 * np.log10(np.abs(channel)) + 0j)
    assert f"{strength.size} of {strength.size} channel gains" in gain_notes(decibels)[0]
    assert note in finecast.solve(normalised, "popular", time_limit=5.0).notes


def test_a_gain_of_exactly_one_is_allowed() -> None:
    """As much power arrives as was sent; by several antennas together, not one by one."""
    instance = tiny()
    channel = np.zeros_like(instance.channel_estimate)
    channel[..., 0] = 1.0
    assert gain_notes(with_channel(instance, channel)) == ()
    channel[..., 1] = 0.1
    assert "the largest is 1 (" in gain_notes(with_channel(instance, channel))[0]


def test_many_places_are_counted() -> None:
    """Five are named."""
    pairs = np.array([[t, 0] for t in range(7)])
    assert places(pairs).endswith("user 0 in slot 4 and 2 more")
    assert places(pairs[:5]).endswith("user 0 in slot 4")
