"""The programme of a kind against a plain dynamic programme over all requests; its penalties."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from demand_systems import CONTAINS, MODELS, NODES, SLOTS, USERS, link_of, system

from finecast.problem.demand import Demand
from finecast.solvers.placement.demand_programme import last_requests, penalties

REQUESTS = list(product(range(MODELS), repeat=USERS))


def chance(demand: Demand, t: int, before: tuple[int, ...], now: tuple[int, ...]) -> float:
    """Return the probability of the requests of slot t given the last ones before, by the words.

    An active user repeats its last request with the persistence, else it draws afresh.
    """
    total = 1.0
    for k, (last, model) in enumerate(zip(before, now, strict=True)):
        active = demand.activity[k]
        if model < 0:
            total *= 1.0 - active
            continue
        fresh = demand.preference[t, k, model]
        repeats = demand.persistence * (last == model) + (1.0 - demand.persistence) * fresh
        total *= active * (fresh if last < 0 else repeats)
    return float(total)


@pytest.mark.parametrize("persistence", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_programme_is_a_plain_one_over_the_requests(seed, persistence):
    """W over the requests themselves, every sending set tried, no chains, no states of users."""
    programme = system(seed, persistence)
    link, demand = link_of(seed), programme.demand

    def slowest(cached: int, sending: int) -> float:
        times = [
            min([link[NODES, n], *(link[m, n] for m in range(NODES) if cached >> m & 1 and m != n)])
            for n in range(NODES)
            if (sending & ~cached) >> n & 1
        ]
        return max(times, default=0.0)

    for kind in range(CONTAINS.shape[1]):
        found = programme.cost_to_go(np.array([2, kind]))

        @cache
        def cost(t: int, cached: int, requests: tuple[int, ...], kind: int = kind) -> float:
            wants = np.array([CONTAINS[m, kind] > 0 for m in requests])
            rent = sum(programme.prices[t, n] for n in range(NODES) if cached >> n & 1)
            if not wants.any():
                return rent + left(t, cached, requests)
            state = int(programme.groups.state(wants))
            return rent + min(
                slowest(cached, sending)
                + programme.broadcast[sending, state]
                + left(t, sending, requests)
                for sending in range(1, 1 << NODES)
                if sending & cached == cached
            )

        @cache
        def ahead(t: int, cached: int, requests: tuple[int, ...], kind: int = kind) -> float:
            return sum(
                chance(demand, t + 1, requests, coming) * cost(t + 1, cached, coming)
                for coming in REQUESTS
            )

        @cache
        def left(t: int, held: int, requests: tuple[int, ...], kind: int = kind) -> float:
            if t == SLOTS - 1:
                return 0.0
            return min(ahead(t, kept, requests) for kept in range(4) if kept & held == kept)

        for t, cached, requests in product(range(SLOTS), range(4), REQUESTS):
            wants = np.array([CONTAINS[m, kind] > 0 for m in requests])
            state = programme.groups.state(wants)
            want = cost(t, cached, requests)
            assert found.cached[t, cached, 1, state] == pytest.approx(want, rel=1e-12)
            if t < SLOTS - 1:
                want = ahead(t, cached, requests)
                assert found.ahead[t, cached, 1, state] == pytest.approx(want, rel=1e-12)
        for cached in range(4):
            want = sum(
                chance(demand, 0, (-1,) * USERS, now) * cost(0, cached, now) for now in REQUESTS
            )
            assert found.start[cached, 1] == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize(
    ("persistence", "activity", "group"),
    [
        (0.6, 1.0, (0, 1)),
        (0.0, 1.0, (0, 1)),
        (1.0, 1.0, (0, 1)),
        (0.6, 0.7, (0, 1)),
        (0.6, 1.0, (0, 0)),  # counted together, though they draw differently
        (0.6, 0.7, (0, 0)),
        (0.6, 1.0, (0,)),
        (0.6, 0.7, (0,)),
        (0.6, 0.0, (0,)),
    ],
)
def test_penalties_have_mean_zero(persistence, activity, group):
    """Given any past, over all requests of the next slot, for every kind and set, to 1e-9.

    So it is however users are counted, and whatever the programme takes for their chances: the
    mean is that of the true demand.
    """
    programme = system(5, persistence, activity, group)
    every = list(product(range(-1 if activity < 1 else 0, MODELS), repeat=len(group)))
    paths = list(product(every, repeat=SLOTS))
    found = penalties(programme, np.array(paths))
    last = last_requests(np.array(paths))
    for t in range(SLOTS):
        mean: dict[tuple[tuple[int, ...], ...], np.ndarray] = {}
        for p, path in enumerate(paths):
            if any(now != paths[0][s] for s, now in enumerate(path) if s > t):
                continue  # one path for every past and present
            before = tuple(last[p, t - 1]) if t else (-1,) * len(group)
            weight = chance(programme.demand, t, before, path[t])
            mean[path[:t]] = mean.get(path[:t], 0.0) + weight * found[p, t]
        assert len(mean) == len(every) ** t
        for total in mean.values():
            assert np.abs(total).max() < 1e-9
    if activity > 0 and persistence < 1:
        assert np.abs(found).max() > 1e-3  # else there is nothing to see


def test_penalties_of_no_kind():
    """A library without a kind has none; nothing breaks."""
    programme = replace(system(0), contains=np.empty((MODELS, 0)))
    found = penalties(programme, np.zeros((2, SLOTS, USERS), dtype=np.int64))
    assert found.shape == (2, SLOTS, 0, 4)


def test_asking_is_a_mean_over_who_asks_again():
    """With activity a, each of those that asked last asks again with it, independently."""
    programme = system(2, activity=0.7)
    somebody, times = programme.asking
    for state, (one, two) in enumerate(programme.groups.counts):
        weight = {
            (x, y): (0.7 if x else 0.3) ** one * (0.7 if y else 0.3) ** two
            for x, y in product((0, 1), repeat=2)
            if x <= one and y <= two and x + y
        }
        assert somebody[state] == pytest.approx(sum(weight.values()))
        for sending in (1, 2, 3):
            if not weight:
                continue
            mean = sum(
                p * programme.broadcast[sending, programme.groups.state(np.array(who))]
                for who, p in weight.items()
            )
            assert times[sending, state] == pytest.approx(mean / sum(weight.values()))


def test_last_requests():
    """A user that asks for nothing keeps its last request; before the first there is none."""
    requests = np.array([[-1, 2], [1, -1], [-1, -1]])
    assert last_requests(requests).tolist() == [[-1, 2], [1, 2], [1, 2]]
