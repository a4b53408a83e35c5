"""Certified bounds do not depend on how busy the machine is."""

from __future__ import annotations

from itertools import count

import pytest

import finecast


@pytest.mark.parametrize("delivery", ["sequential", "spatial"])
def test_bounds_do_not_run_by_the_clock(monkeypatch, delivery):
    """Where every look at the clock takes an hour, the bound is the same to the last bit."""
    scenario = finecast.read_scenario("tiny").with_({"slots": 2, "delivery": delivery})
    instance = scenario.generate(seed=3)
    bound = finecast.certified_lower_bound(instance)
    by_prices = finecast.solve(instance, "lru", spatial_time=0.0).lower_bound
    hours = count(0.0, 3600.0)
    monkeypatch.setattr("finecast.solvers.deadline.time.monotonic", lambda: next(hours))
    assert finecast.certified_lower_bound(instance) == bound
    assert finecast.solve(instance, "lru", spatial_time=0.0).lower_bound == by_prices
