"""Bounds on the time on the air: tight where the optimum is known, never above what is reached."""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from repository import TINY
from scipy.optimize import linprog

from finecast.problem.scenario import read_scenario
from finecast.problem.sinr import worst_case_sinr
from finecast.solvers.bounds import certified_lower_bound
from finecast.solvers.deadline import Deadline
from finecast.solvers.solve import solve
from finecast.solvers.spatial.bounds import (
    broadcast_bounds,
    downlink,
    shrunken,
    slot_bounds,
    without_dominated,
)
from finecast.solvers.spatial.certificate import (
    ModeDual,
    boxes,
    floors,
    most_nats,
    most_over_prices,
    strongest,
    time_bound,
    user_bound,
)
from finecast.solvers.spatial.dual_search import search


def bound(channel, error, power, listeners, nats, **options) -> float:
    """Return the bound of one downlink, by default from one box."""
    options.setdefault("steps", 200)
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


def pooled(d):
    """Return the downlink of the bound for any scheme: one message from everybody for everybody."""
    users, nodes = len(d.nats), d.channel.shape[1]
    return replace(d, listeners=np.ones((1, users), bool), senders=np.ones((1, nodes), bool))


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


def random_point(rng, case, cuts) -> ModeDual:
    """Return random multipliers for boxes that come from random cuts."""
    users, nodes, _ = case.channel.shape
    most = strongest(case.channel)
    splits = []
    for box in range(cuts):
        user = int(rng.integers(users))
        splits.append((int(rng.integers(box + 1)), user, float(rng.uniform(0, most[user]))))
    shape = (cuts + 1, users)
    return ModeDual(
        rng.lognormal(size=users),
        10 ** rng.uniform(-4, 0, shape),
        10 ** rng.uniform(-4, 1, shape),
        10 ** rng.uniform(-5, 0, shape),
        rng.dirichlet(np.ones(nodes), cuts + 1) * rng.lognormal(size=(cuts + 1, 1)),
        tuple(splits),
    )


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    nodes=st.integers(1, 2),
    users=st.integers(2, 4),
    error=st.sampled_from([0.0, 0.2]),
)
@example(seed=3, nodes=2, users=4, error=0.2)  # what others' errors cost decides
@example(seed=9, nodes=2, users=4, error=0.2)
def test_certificate_in_exact_arithmetic(seed, nodes, users, error):
    """At any multipliers the certified value is below the formula in 40 digits, by 1e-9 at most.

    What a user's rate exceeds the prices by has its own test, with errors.
    """
    rng = np.random.default_rng(seed)
    g, eps, power, listeners = drawn(rng, users, nodes, 2, 3, error)
    eps *= rng.random(eps.shape) < 0.7  # some channels are known exactly
    case = downlink(g, eps, power, listeners, rng.lognormal(size=3))
    users = len(case.nats)
    point = random_point(rng, case, int(rng.integers(3)))
    certified = time_bound(case, point)
    ends = boxes(point.splits, strongest(case.channel))
    with mpmath.workdps(40):
        exact = mpmath.mpf
        x, weakest = (
            [mpmath.matrix([mpmath.mpc(complex(a)) for a in row.ravel()]) for row in channel]
            for channel in (case.channel, case.weakest)
        )
        w = [exact(float(v)) for v in point.weight]
        most = exact(0)
        for box, price in enumerate(point.price):
            beta, charge, loss = (
                [exact(float(v)) for v in part[box]]
                for part in (point.slope, point.error_price, point.beam_price)
            )
            over = []
            for k in range(users):
                values = []
                for end in ends:
                    y = exact(float(end[box, k]))
                    s = min(beta[k] * (1 + y), exact(1))
                    free = s - 1 - mpmath.log(s)
                    if error:
                        free = exact(
                            float(
                                most_over_prices(
                                    point.slope[box],
                                    point.error_price[box],
                                    1.0 + end[box],
                                    *floors(case),
                                )[k]
                            )
                        )
                    values.append(free + loss[k] * y)
                over.append(max(values))
            root = [1 / mpmath.sqrt(exact(float(p))) for p in price for _ in range(2)]
            t = exact(0)
            for heard in case.listeners:
                matrix = mpmath.zeros(2 * nodes)
                for k in range(users):
                    if heard[k]:
                        matrix += w[k] * beta[k] * weakest[k] * weakest[k].H
                        continue
                    matrix -= w[k] * loss[k] * x[k] * x[k].H
                    for i in range(2 * nodes):
                        matrix[i, i] -= w[k] * charge[k] * exact(float(case.error[k, i // 2])) ** 2
                whitened = mpmath.diag(root) * matrix * mpmath.diag(root)
                t = max(t, *mpmath.eighe(whitened, eigvals_only=True))
            t *= sum(exact(float(p)) for p in price)
            most = max(most, sum(a * c for a, c in zip(w, over, strict=True)) + t)
        value = sum(a * exact(float(n)) for a, n in zip(w, case.nats, strict=True)) / most
        assert certified <= value
        assert certified >= value * (1 - exact(10) ** -9)


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    error=st.sampled_from([0.0, 0.03, 0.1, 0.4]),
    cuts=st.integers(0, 4),
)
def test_no_mode_beats_the_prices(seed, error, cuts):
    """Whatever the multipliers and boxes, 20 random modes carry no more than is certified."""
    rng = np.random.default_rng(seed)
    g, eps, power, listeners = drawn(rng, 5, 2, 2, 3, error)
    case = downlink(g, eps, power, listeners, np.ones(3))
    there = np.flatnonzero(listeners.any(axis=0))
    point = random_point(rng, case, cuts)
    carried = random_modes(rng, g, eps, power, listeners, 20) @ listeners[:, there] @ point.weight
    assert carried.max() <= point.weight @ case.nats / time_bound(case, point)


@settings(max_examples=200, deadline=None)
@given(
    slope=st.floats(-6, 0.5),
    price=st.floats(-6, 2),
    noise=st.floats(0, 5),
    ceiling=st.sampled_from([0.0, 0.01, 1.0, 30.0, 1e4]),
    ratio=st.sampled_from([0.0, 0.5, 1.0 + 1e-9, 2.0, 50.0, 1e5, np.inf]),
)
def test_most_over_prices_against_a_grid(slope, price, noise, ceiling, ratio):
    """The formula is above the best of a fine grid, and by no more than the grid explains."""
    beta, charge, n = 10**slope, 10**price, 10**noise
    value = float(most_over_prices(*(np.array([v]) for v in (beta, charge, n, ceiling, ratio)))[0])
    e = ceiling * np.concatenate([np.linspace(0, 1, 4001), 1 - np.geomspace(1e-9, 1, 2000)])
    limited = np.isfinite(ratio) and ratio > 1 and ceiling > 0
    limit = ratio * (ceiling - e) if limited else np.inf
    signal = np.clip(1.0 / beta - n - e, 0.0, limit)
    grid = (np.log1p(signal / (n + e)) - beta * signal + charge * e).max()
    assert grid <= value
    assert value <= grid + 1e-4 * (1.0 + abs(grid))


def test_boxes_cover_all_powers():
    """Every point lies in one of the boxes, at ends and for cuts outside a box too."""
    rng = np.random.default_rng(7)
    splits = ((0, 1, 0.5), (1, 0, 2.0), (0, 1, 0.9), (2, 1, 0.2))
    low, high = boxes(splits, np.array([3.0, 1.0]))
    points = rng.uniform(0, [3.0, 1.0], (500, 2))
    points = np.vstack([points, [[0.0, 0.5], [3.0, 1.0], [2.0, 0.2]]])
    inside = (low[:, None] <= points) & (points <= high[:, None])
    assert inside.all(axis=2).any(axis=0).all()


@pytest.mark.parametrize("error", [0.0, 0.1])
@pytest.mark.parametrize("seed", range(3))
def test_boxes_raise_the_bound(seed, error):
    """Four users with messages of their own, four antennas: boxes raise the bound by over 5%.

    It stays below what time-sharing of random modes reaches.
    """
    rng = np.random.default_rng(seed)
    g, eps, power, _ = drawn(rng, 4, 2, 2, 4, error)
    own = np.eye(4, dtype=bool)
    case = downlink(g, eps, power, own, np.ones(4))
    one, several = (time_bound(case, search([case], 60, work)[0]) for work in (0.0, 1e5))
    rates = random_modes(rng, g, eps, power, own, 300)
    solo = np.diag([random_modes(rng, g, eps, power, row[None], 20).max() for row in own])
    assert 1.05 * one <= several <= least_time(np.vstack([rates, solo]), np.ones(4))


def test_boxes_on_users_that_take_turns():
    """The two users on one antenna again: boxes close most of the gap between 0.462 and 0.511."""
    case = downlink(np.full((2, 1, 1), 7.0), np.zeros((2, 1)), [1.0], np.eye(2, dtype=bool), [1, 1])
    value = time_bound(case, search([case], 200, 1e5)[0])
    turns = 2.0 / np.log(50.0)
    assert 0.97 * turns <= value <= turns


def test_errors_disturb_others():
    """Errors spill power of each message on the users of all others: a floor under interference."""
    rng = np.random.default_rng(8)
    g = rng.normal(size=(4, 1, 4)) + 1j * rng.normal(size=(4, 1, 4))
    case = downlink(30 * g, 3 * np.linalg.norm(g, axis=2), [1.0], np.eye(4, dtype=bool), np.ones(4))
    blind = replace(case, channel=case.weakest, error=np.zeros_like(case.error))
    floored, unfloored = (time_bound(c, search([c], 200)[0]) for c in (case, blind))
    assert floored > 1.1 * unfloored


@pytest.mark.parametrize("seed", range(4))
def test_one_box_is_the_convex_programme(seed):
    """Without errors one box is the Lagrangian dual of a convex programme, here by CVXPY.

    Greatest s such that s B_k <= tau_k log(1 + S_k / tau_k), tau_k = 1 - Y_k / T_k, covariances X_l
    of the messages within the power limits.
    """
    rng = np.random.default_rng(seed)
    g, eps, power, _ = drawn(rng, 3, 2, 2, 1)
    g /= 4.0  # signal-to-noise ratios that the interior-point method likes
    listeners = np.array([[True, True, False], [False, False, True]])
    case = downlink(g, eps, power, listeners, rng.lognormal(size=2))
    covariance = [cp.Variable((4, 4), hermitian=True) for _ in listeners]
    scale = cp.Variable()
    conditions = [x >> 0 for x in covariance]
    conditions += [
        cp.real(cp.trace(sum(covariance)[2 * n : 2 * n + 2, 2 * n : 2 * n + 2])) <= 1
        for n in range(2)
    ]
    for k, most in enumerate(strongest(case.channel)):
        x = case.channel[k].ravel() / np.sqrt(most)
        parts = [cp.real(x.conj() @ v @ x) for v in covariance]
        received = sum(p for p, heard in zip(parts, listeners[:, k], strict=True) if heard)
        tau = 1 - sum(p for p, heard in zip(parts, listeners[:, k], strict=True) if not heard)
        rate = -cp.rel_entr(tau, tau + most * received)
        conditions.append(scale * case.nats[k] <= rate)
    programme = cp.Problem(cp.Maximize(scale), conditions)
    programme.solve(solver=cp.CLARABEL)
    optimum = 1.0 / float(scale.value)
    value = time_bound(case, search([case], 400)[0])
    assert optimum * 0.98 <= value <= optimum * (1 + 1e-5)


def test_time_limit_is_honoured():
    """With no time at all a bound comes out too, below that of a search with boxes."""
    rng = np.random.default_rng(9)
    g, eps, power, listeners = drawn(rng, 4, 2, 2, 3, 0.1)
    case = downlink(g, eps, power, listeners, np.ones(3))
    hurried = broadcast_bounds([case], deadline=Deadline.after(0.0))[0]
    assert 0 < hurried <= broadcast_bounds([case], deadline=Deadline.after(2.0))[0]


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
    """One bound for each slot; their sum is the instance's."""
    instance = replace(read_scenario(TINY).generate(2), delivery="spatial")
    values = slot_bounds(instance)
    assert values.shape == (instance.slots,)
    assert certified_lower_bound(instance) == pytest.approx(values.sum(), rel=1e-6)


def test_wrong_arguments_are_named():
    """Shapes that disagree are told by the name of the argument."""
    with pytest.raises(ValueError, match="channel: has 2 axes"):
        downlink(np.ones((2, 2)), np.zeros((2, 1)), [1.0], [[True, True]], [1.0])
    with pytest.raises(ValueError, match="nats"):
        downlink(np.ones((2, 1, 1)), np.zeros((2, 1)), [1.0], [[True, True]], [-1.0])
