"""Bounds on the time on the air: tight where the optimum is known, never above what is reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from problem.scenario import read_scenario
from problem.sinr import worst_case_sinr
from solvers.optimise import certified_lower_bound
from solvers.solve import solve
from solvers.spatial_bounds import (
    broadcast_bounds,
    downlink,
    shrunken,
    slot_bound,
    slot_bounds,
    without_dominated,
)
from solvers.spatial_certificate import DualPoint, most_nats, pooled, time_bound, user_bound
from solvers.spatial_dual import search

TINY = Path(__file__).resolve().parents[2] / "data" / "scenarios" / "tiny.toml"


def bound(channel, error, power, listeners, nats, **options) -> float:
    """Return the bound of one downlink."""
    return float(broadcast_bounds([downlink(channel, error, power, listeners, nats)], **options)[0])


def drawn(rng, users, nodes, antennas, groups, error=0.0):
    """Return channel, error, power, groups of a random case with gains spread over 20 dB."""
    g = rng.normal(size=(users, nodes, antennas)) + 1j * rng.normal(size=(users, nodes, antennas))
    g *= 10 ** rng.uniform(0, 1, (users, nodes, 1))
    listeners = rng.random((groups, users)) < 0.5
    listeners[np.arange(groups), rng.integers(users, size=groups)] = True
    eps = error * np.linalg.norm(g, axis=2)
    return g, eps, rng.uniform(0.1, 2.0, nodes), listeners


def random_modes(rng, channel, error, power, listeners, count):
    """Return (count, I) guaranteed rates, nat/(s Hz), of random modes at full power.

    Beams are matched to random listeners, half of them made to avoid the other users; messages are
    silent now and then.
    """
    users, nodes, antennas = channel.shape
    g = channel.reshape(users, -1)
    whitened = np.linalg.solve(
        g.conj().T @ g / np.linalg.norm(g) ** 2 + 0.01 * np.eye(nodes * antennas), g.T
    )
    table = []
    for _ in range(count):
        phases = np.exp(2j * np.pi * rng.random(listeners.shape)) * rng.random(listeners.shape)
        source = whitened.T if rng.random() < 0.5 else g
        beam = ((listeners * phases) @ source).reshape(-1, nodes, antennas)
        beam *= (rng.random(len(listeners)) < 0.7)[:, None, None]
        used = np.sqrt((np.abs(beam) ** 2).sum(axis=(0, 2)))
        beam *= np.divide(np.sqrt(power), used, out=np.zeros(nodes), where=used > 0)[:, None]
        sinr = worst_case_sinr(channel, error, beam, np.ones((len(beam), len(beam)), bool))
        table.append(np.log1p(np.where(listeners.T, sinr, np.inf).min(axis=0)))
    return np.array(table)


def least_time(rates, nats):
    """Return the least time that gives every message its bits by sharing time among the modes."""
    programme = linprog(np.ones(len(rates)), A_ub=-rates.T, b_ub=-nats, method="highs")
    assert programme.status == 0
    return programme.fun


def test_one_user_is_exact():
    """Alone, a user has B / log(1 + (sum_n norm(g_n) sqrt(P_n))^2): here B / log(1 + (3 + 4)^2)."""
    g = np.array([[[3.0, 0.0], [0.0, 2.0j]]])
    assert bound(g, [[0.0, 0.0]], [1.0, 4.0], [[True]], [5.0]) == pytest.approx(
        5.0 / np.log(50.0), rel=1e-11
    )


def test_orthogonal_users_share_the_power():
    """Three users in orthogonal directions of one node: log(1 + s/3) each, at the same time."""
    g = np.sqrt(30.0) * np.eye(3)[:, None, :]
    value = bound(g, np.zeros((3, 1)), [1.0], np.eye(3, dtype=bool), np.full(3, 2.0))
    optimum = 2.0 / np.log(11.0)
    assert optimum * (1 - 1e-3) <= value <= optimum


def test_users_on_one_antenna_take_turns():
    """Two users with the same scalar channel: interference as noise gains nothing over turns.

    What the bound relaxes to, (1 - p) log(1 + p s / (1 - p)) each at power p, is known: 0.462 s. It
    lies below taking turns, 0.511 s, and above the bound that knows no interference, 0.256 s.
    """
    case = downlink(np.full((2, 1, 1), 7.0), np.zeros((2, 1)), [1.0], np.eye(2, dtype=bool), [1, 1])
    turns = 2.0 / np.log(50.0)
    p = np.linspace(0.01, 0.5, 1000)
    relaxed = 1.0 / ((1 - p) * np.log1p(49.0 * p / (1 - p))).max()
    linear, any_scheme = (time_bound(c, search([c], 400)[0]) for c in (case, pooled(case)))
    assert relaxed < turns
    assert relaxed * 0.98 <= linear <= relaxed * (1 + 1e-6)
    assert turns / 2 * 0.98 <= any_scheme <= turns / 2


def test_multicast_is_sent_once():
    """The same two users want the same message: half the time."""
    g = np.full((2, 1, 1), 7.0)
    value = bound(g, np.zeros((2, 1)), [1.0], [[True, True]], [1.0])
    assert value == pytest.approx(1.0 / np.log(50.0), rel=1e-9)


@pytest.mark.parametrize("error", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(12))
def test_below_random_schemes(seed, error):
    """No time-sharing of 60 random spatial modes and all solo ones beats any of the bounds."""
    rng = np.random.default_rng(seed)
    users, nodes, antennas = rng.integers(2, 7), rng.integers(1, 4), rng.integers(1, 4)
    g, eps, power, listeners = drawn(rng, users, nodes, antennas, int(rng.integers(1, 6)), error)
    nats = rng.lognormal(size=len(listeners))
    rates = random_modes(rng, g, eps, power, listeners, 60)
    solo = np.diag([random_modes(rng, g, eps, power, row[None], 20).max() for row in listeners])
    time = least_time(np.vstack([rates, solo]), nats)
    case = downlink(g, eps, power, listeners, nats)
    assert 0 < user_bound(case) <= time
    point = search([case], 60)[0]
    any_scheme, linear = (time_bound(c, point) for c in (pooled(case), case))
    assert 0 < any_scheme <= linear * (1 + 1e-12)
    assert linear <= time
    assert bound(g, eps, power, listeners, nats, steps=60) <= (nats / np.diag(solo)).sum()


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), error=st.sampled_from([0.0, 0.05, 0.3]))
def test_what_a_second_carries_takes_a_second(seed, error):
    """What random modes carry in unit time is bounded by unit time, whatever the messages.

    Messages go to parts of the groups, several of them to the same users; a user needs the sum
    of what is sent to it. The bound knows the groups only.
    """
    rng = np.random.default_rng(seed)
    g, eps, power, groups = drawn(rng, 4, 2, 2, 3, error)
    parent = rng.integers(3, size=6)
    parts = groups[parent] & (rng.random((6, 4)) < 0.8)
    parts = parts[parts.any(axis=1)]
    if not len(parts):
        return
    modes = int(rng.integers(1, 4))
    carried = rng.dirichlet(np.ones(modes)) @ random_modes(rng, g, eps, power, parts, modes)
    needed = carried @ parts
    if not needed.any():
        return
    case = downlink(g, eps, power, groups, np.ones(3))
    there = np.flatnonzero(groups.any(axis=0))
    case = replace(case, nats=np.maximum(needed[there], 1e-12))
    for point in search([case], 60) + search([case], 0):
        assert time_bound(case, point) <= 1.0 + 1e-9
    assert user_bound(case) <= 1.0 + 1e-9


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), nodes=st.integers(1, 2), users=st.integers(2, 4))
def test_certificate_in_exact_arithmetic(seed, nodes, users):
    """At any multipliers the certified value is below the formula in 40 digits, by 1e-9 at most."""
    rng = np.random.default_rng(seed)
    g, eps, power, listeners = drawn(rng, users, nodes, 2, 3)
    case = downlink(g, eps, power, listeners, rng.lognormal(size=3))
    users = len(case.nats)
    point = DualPoint(
        rng.lognormal(size=users), rng.uniform(1e-4, 1.0, users), rng.dirichlet(np.ones(nodes))
    )
    certified = time_bound(case, point)
    with mpmath.workdps(40):
        exact = mpmath.mpf
        price = [exact(float(p)) for p in point.price]
        x = [
            [[mpmath.mpc(complex(a)) for a in case.channel[k, n]] for n in range(nodes)]
            for k in range(users)
        ]
        most = [
            sum(mpmath.sqrt(sum(abs(a) ** 2 for a in node)) for node in x[k]) ** 2
            for k in range(users)
        ]
        rows = [
            [a / mpmath.sqrt(price[n]) for n in range(nodes) for a in x[k][n]] for k in range(users)
        ]
        w = [exact(float(v)) for v in point.weight]
        slope = [exact(float(v)) for v in point.slope]
        phi = [mpmath.log(1 / s) - (1 - s) for s in slope]
        t = exact(0)
        for heard in case.listeners:
            matrix = mpmath.zeros(2 * nodes)
            for k in range(users):
                a = w[k] * slope[k] if heard[k] else -w[k] * phi[k] / most[k]
                row = mpmath.matrix(rows[k])
                matrix += a * row * row.H
            t = max(t, *mpmath.eighe(matrix, eigvals_only=True))
        t *= sum(price)
        value = sum(w[k] * exact(float(case.nats[k])) for k in range(users)) / (
            sum(w[k] * phi[k] for k in range(users)) + t
        )
        assert certified <= value
        assert certified >= value * (1 - exact(10) ** -9)


def test_shrunken_channel_is_in_the_ball():
    """In exact arithmetic the distance is at most the radius, also where rounding is against it."""
    rng = np.random.default_rng(1)
    g = rng.normal(size=(200, 1, 3)) + 1j * rng.normal(size=(200, 1, 3))
    eps = np.linalg.norm(g, axis=2) * rng.choice([0.0, 1e-3, 0.3, 1.0, 1.5], size=(200, 1))
    weakest = shrunken(g, eps)
    with mpmath.workdps(40):
        for k in range(200):
            moved = [mpmath.mpc(complex(a)) for a in g[k, 0]]
            distance = mpmath.sqrt(
                sum(
                    abs(a - mpmath.mpc(complex(b))) ** 2
                    for a, b in zip(moved, weakest[k, 0], strict=True)
                )
            )
            assert distance <= mpmath.mpf(float(eps[k, 0]))


def test_errors_raise_the_bound():
    """The guarantee over larger balls takes longer, and so says the bound."""
    rng = np.random.default_rng(3)
    g, _, power, listeners = drawn(rng, 5, 2, 2, 3)
    norm = np.linalg.norm(g, axis=2)
    values = [bound(g, share * norm, power, listeners, np.ones(3)) for share in (0, 0.1, 0.3, 0.6)]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_order_does_not_matter():
    """Users, nodes and groups in another order: the same bound."""
    rng = np.random.default_rng(4)
    g, eps, power, listeners = drawn(rng, 6, 3, 2, 5, 0.05)
    nats = rng.lognormal(size=5)
    k, n, i = rng.permutation(6), rng.permutation(3), rng.permutation(5)
    other = bound(g[k][:, n], eps[k][:, n], power[n], listeners[i][:, k], nats[i])
    assert other == pytest.approx(bound(g, eps, power, listeners, nats), rel=1e-5)


def test_dominated_messages_and_silent_nodes():
    """Conditions within others change nothing; fewer senders never lower the value at a point."""
    rng = np.random.default_rng(5)
    g, eps, power, listeners = drawn(rng, 6, 3, 2, 6)
    listeners = np.vstack([listeners, listeners[:2] & listeners[2:4]])
    listeners = listeners[listeners.any(axis=1)]
    case = downlink(g, eps, power, listeners, np.ones(len(listeners)))
    pruned = without_dominated(case)
    point = search([pruned], 30)[0]
    assert len(pruned.listeners) < len(case.listeners)
    assert time_bound(case, point) == pytest.approx(time_bound(pruned, point), rel=1e-9)
    alone = replace(case, senders=np.arange(3) == np.arange(len(listeners))[:, None] % 3)
    assert time_bound(alone, search([alone], 100)[0]) > time_bound(case, search([case], 100)[0])


@pytest.mark.parametrize(
    ("channel", "error", "power", "expected"),
    [
        (np.zeros((2, 1, 2)), np.zeros((2, 1)), [1.0], np.inf),
        (np.array([[[1.0, 1.0]], [[0.0, 0.0]]]), np.zeros((2, 1)), [1.0], np.inf),
        (np.ones((2, 1, 2)), np.full((2, 1), 2.0), [1.0], np.inf),
        (np.ones((2, 1, 2)), np.zeros((2, 1)), [0.0], np.inf),
        (np.ones((2, 1, 2)), np.zeros((2, 1)), [1.0], 1.0 / np.log(3.0)),
        (np.full((2, 1, 2), 1e-8), np.zeros((2, 1)), [1.0], 5e15),
    ],
)
def test_degenerate_channels(channel, error, power, expected):
    """No channel, none above its error, no power: infinite. Identical users: as one. Never NaN."""
    value = bound(channel, error, power, [[True, True]], [1.0])
    assert value == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("scale", [1e-150, 1e-60, 1e60])
def test_extreme_scales_are_numbers(scale):
    """Absurdly weak or strong channels give a number, and no error."""
    rng = np.random.default_rng(6)
    g, eps, power, listeners = drawn(rng, 4, 2, 2, 3)
    assert bound(g * scale, eps, power, listeners, np.ones(3)) > 0


def test_nothing_to_send():
    """No message, or none with bits: no time. Mixed with others in a batch too."""
    empty = downlink(np.ones((2, 1, 2)), np.zeros((2, 1)), [1.0], np.zeros((0, 2), bool), [])
    unsized = downlink(np.ones((2, 1, 2)), np.zeros((2, 1)), [1.0], [[True, True]], [0.0])
    real = downlink(np.ones((2, 1, 2)), np.zeros((2, 1)), [1.0], np.eye(2, dtype=bool), [1.0, 1.0])
    values = broadcast_bounds([empty, real, unsized])
    assert values[[0, 2]].tolist() == [0.0, 0.0]
    assert values[1] == pytest.approx(broadcast_bounds([real])[0])


def test_capped_messages_by_hand():
    """At a cap of 1 bit: SNR 1 carries 1 bit, SNR 3 carries 1 + log2(4/3), infinite SNR 2 bits.

    SNR 3 as powers 2 and 1: SINRs 1 and 1/3.
    """
    cap = np.log(2.0)
    bits = most_nats(np.array([0.0, 1.0, 3.0, 1e15]), cap) / np.log(2.0)
    assert bits == pytest.approx([0.0, 1.0, 1.0 + np.log2(4.0 / 3.0), 2.0])
    assert most_nats(np.array([9.0]), np.inf)[0] == np.log(10.0)


@settings(max_examples=100, deadline=None)
@given(
    powers=st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=6),
    cap=st.floats(0.05, 8.0),
)
def test_capped_messages_against_draws(powers, cap):
    """No split of the power among messages carries more than the formula says."""
    part = np.array(powers)
    rates = np.minimum(cap, np.log1p(part / (1.0 + part.sum() - part)))
    assert rates.sum() <= most_nats(np.array([part.sum()]), cap)[0] * (1 + 1e-9)


@pytest.mark.parametrize("restrict", [(), ("no-comp",), ("unicast",), ("coarse",), ("non-robust",)])
def test_bounds_of_every_system(restrict):
    """Each system's delay is above its bound, and restrictions raise it, errors aside."""
    for seed in range(3):
        instance = replace(read_scenario(TINY).generate(seed), delivery="spatial")
        result = solve(instance, "greedy", restrict=restrict)
        assert 0 < result.lower_bound <= result.delay
        if restrict in (("no-comp",), ("unicast",), ("coarse",)):
            assert result.lower_bound >= certified_lower_bound(instance) * (1 - 1e-3)


def test_slots_of_an_instance():
    """The bound of a slot is that of its part of the batch; the sum is the instance's."""
    instance = replace(read_scenario(TINY).generate(2), delivery="spatial")
    values = slot_bounds(instance)
    assert values.shape == (instance.slots,)
    assert values[0] == pytest.approx(slot_bound(instance, 0), rel=1e-6)
    assert certified_lower_bound(instance) == pytest.approx(values.sum(), rel=1e-6)


def test_wrong_arguments_are_named():
    """Shapes that disagree are told by the name of the argument."""
    with pytest.raises(ValueError, match="channel: has 2 axes"):
        downlink(np.ones((2, 2)), np.zeros((2, 1)), [1.0], [[True, True]], [1.0])
    with pytest.raises(ValueError, match="nats"):
        downlink(np.ones((2, 1, 1)), np.zeros((2, 1)), [1.0], [[True, True]], [-1.0])
