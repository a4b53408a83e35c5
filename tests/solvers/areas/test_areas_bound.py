"""The bound of areas against enumeration, and at points that are no good."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from two_areas import best_without_interference, two_areas, without_coupling

import finecast
from finecast.problem.evaluation import evaluate
from finecast.solvers.areas.bound import Shares, first_shares, no_prices, whole_point
from finecast.solvers.areas.rates import prepare_areas
from finecast.solvers.bounds import certified_lower_bound

KERNEL_GAP = 2e-3
"""Beams of tiny messages are this close to their bounds."""


@pytest.mark.parametrize("seed", range(4))
def test_bound_below_optimum_below_plan(seed: int) -> None:
    """Bound <= optimum by enumeration; interference makes the plan slower, never faster."""
    instance = two_areas(seed)
    bound, best = certified_lower_bound(instance), best_without_interference(instance)
    result = finecast.solve(instance)
    assert bound <= best * (1 + 1e-9)
    assert result.evaluation is not None
    assert result.evaluation.feasible
    assert best <= result.delay * (1 + KERNEL_GAP)
    assert result.lower_bound <= result.delay


def test_bound_of_two_slots() -> None:
    """What is kept from one slot to the next is in the bound as it is in the enumeration."""
    instance = two_areas(1, slots=2)
    assert certified_lower_bound(instance) <= best_without_interference(instance) * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_uncoupled_areas_are_planned_well(seed: int) -> None:
    """Where no area reaches the other, plan and bound are near the optimum by enumeration."""
    instance = without_coupling(two_areas(seed))
    best = best_without_interference(instance)
    result = finecast.solve(instance)
    assert result.delay <= 1.1 * best
    assert result.lower_bound >= 0.8 * best


@pytest.mark.parametrize("seed", range(3))
def test_any_point_bounds(seed: int) -> None:
    """At random prices and shares, however bad, the bound holds."""
    instance = two_areas(seed)
    ready = prepare_areas(instance)
    best = best_without_interference(instance)
    rng = np.random.default_rng(seed)
    shape = ready.city.whole.takes_part.shape
    for scale in (0.0, 1e-9, 1e-8):
        prices = [scale * rng.random(price.shape) for price in no_prices(ready.tables)]
        shares = Shares(rng.random(shape), rng.random(shape))
        assert whole_point(ready.tables, prices, shares).bound <= best * (1 + 1e-9)


def test_shares_sum_to_one_at_most() -> None:
    """Shares are normalised before they are used, whoever gives them."""
    ready = prepare_areas(two_areas(0))
    shares = first_shares(ready.city.whole, ready.tables)
    sums = shares.broadcast.sum(axis=1)
    assert (sums <= 1.0).all()
    assert np.allclose(sums[ready.city.whole.takes_part.any(axis=1)], 1.0)
    doubled = Shares(2 * shares.migration, 2 * shares.broadcast)
    prices = no_prices(ready.tables)
    assert whole_point(ready.tables, prices, doubled).bound == pytest.approx(
        whole_point(ready.tables, prices, shares).bound, rel=1e-12
    )


def test_bad_points_are_refused() -> None:
    """A negative price would prove anything."""
    ready = prepare_areas(two_areas(0))
    shares = first_shares(ready.city.whole, ready.tables)
    prices = [price - 1.0 for price in no_prices(ready.tables)]
    with pytest.raises(ValueError, match="prices: all must be finite and >= 0"):
        whole_point(ready.tables, prices, shares)
    negative = Shares(-shares.migration, shares.broadcast)
    with pytest.raises(ValueError, match="shares: all must be finite and >= 0"):
        whole_point(ready.tables, no_prices(ready.tables), negative)


def test_random_timing_keeps_the_rates() -> None:
    """At any timing, with channels in the balls, no user's rate is below the planned one."""
    instance = two_areas(2, coupling=0.8)
    result = finecast.solve(instance)
    assert result.solution is not None
    rng = np.random.default_rng(0)
    broadcast = result.solution.broadcasts[0]
    for _ in range(50):
        offset = rng.normal(size=(*instance.channel_estimate.shape[1:], 2)) @ np.array([1.0, 1j])
        radius = instance.channel_error[0] * rng.random(instance.channel_error[0].shape)
        offset *= (radius / np.linalg.norm(offset, axis=2))[..., None]
        channel = instance.channel_estimate[0] + offset
        power = np.abs(np.einsum("kna,xna->xk", channel.conj(), broadcast.beam)) ** 2
        # One message of every area is on the air at once, whichever.
        on_air = [
            rng.choice(np.flatnonzero(broadcast.area == a))
            for a in np.unique(broadcast.area[broadcast.area >= 0])
        ]
        for x in on_air:
            others = sum(power[y] for y in on_air if y != x)
            sinr = (power[x] / (1.0 + others))[broadcast.users[x]].min()
            reached = instance.network.bandwidth * min(7.4063, np.log2(1 + sinr))
            assert reached >= broadcast.rate[x] * (1 - 1e-9)


def test_judge_counts_what_the_plan_counts() -> None:
    """The delay of the method's own trace is that of the judge."""
    instance = two_areas(3)
    result = finecast.solve(instance)
    assert result.solution is not None
    assert evaluate(instance, result.solution).delay == pytest.approx(
        result.trace[-1].delay, rel=1e-6
    )


def test_start_is_never_made_worse() -> None:
    """From a plan of its own the method ends at a plan that is no slower."""
    instance = two_areas(3)
    first = finecast.solve(instance, seed=1)
    again = finecast.solve(instance, seed=2, start=first.solution)
    assert again.delay <= first.delay * (1 + 1e-9)


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"restrict": "no-comp"}, "restrict: 'no-comp' is not allowed"),
        ({"beamforming": "sdr"}, "beamforming: 'sdr' is not allowed"),
        ({"schedule": "pipelined"}, "schedule 'pipelined'"),
        ({"delivery": "spatial"}, "delivery 'spatial'"),
    ],
)
def test_what_areas_do_not_know_is_refused(options: dict[str, str], what: str) -> None:
    """One line says what is not for several areas."""
    with pytest.raises(ValueError, match=what):
        finecast.solve(two_areas(0), **options)


@pytest.mark.parametrize("method", ["lagrangian", "greedy"])
def test_no_time_is_enough_for_a_plan(method: str) -> None:
    """With no time at all there is a feasible plan, and a bound."""
    result = finecast.solve(two_areas(0), method, time_limit=0.0)
    assert result.evaluation is not None
    assert result.evaluation.feasible
    assert 0.0 < result.lower_bound <= result.delay


def test_work_decides_the_same_everywhere() -> None:
    """A limit of counted work gives one answer, whenever it is asked for."""
    instance = two_areas(1)
    delays = {finecast.solve(instance, work=0.3, seed=0).delay for _ in range(2)}
    assert len(delays) == 1


def test_area_without_users_and_a_node_alone() -> None:
    """An area nobody is in only lends its caches; an area may be one node."""
    instance = two_areas(2)
    requests = np.where(instance.user_area == 0, instance.requests, -1)
    empty = finecast.solve(replace(instance, requests=requests))
    alone = finecast.solve(replace(instance, areas=np.array([0, 1, 2, 2])))
    for result in (empty, alone):
        assert result.evaluation is not None
        assert result.evaluation.feasible
        assert result.lower_bound <= result.delay


def test_order_of_areas_does_not_matter_to_the_bound() -> None:
    """Areas numbered the other way give the same bound, up to the last steps of the ascent."""
    instance = two_areas(0)
    swapped = replace(instance, areas=1 - instance.areas)
    assert certified_lower_bound(swapped) == pytest.approx(
        certified_lower_bound(instance), rel=1e-9
    )
