"""WMMSE: monotone by the judge's formula, feasible, and the single-message problem as a case."""

import numpy as np
import pytest
from dual_bound import certified_bound
from hypothesis import given, settings
from hypothesis import strategies as st
from multicast_problems import draw_problem, problems

from finecast.problem.sinr import worst_case_sinr
from finecast.solvers.beamforming.matched import solve_matched, zero_forcing
from finecast.solvers.beamforming.sca import solve_sca
from finecast.solvers.beamforming.wmmse import (
    _ascend,
    _hear,
    _minorant,
    _objective,
    _Problem,
    _rates,
    solve_wmmse,
    solve_wmmse_single,
)
from finecast.solvers.beamforming.worst_case import worst_case_snr


def judged(channel, error, beams, groups, weights, objective):
    """Rates and objective by the judge's own SINR, independent of the code under test."""
    together = np.ones((len(beams), len(beams)), dtype=bool)
    sinr = worst_case_sinr(channel, error, beams, together)
    rate = np.array([np.log2(1 + sinr[members, i].min()) for i, members in enumerate(groups)])
    if objective == "sum":
        return rate, float(weights @ rate)
    return rate, float((rate[weights > 0] / weights[weights > 0]).min())


def group_problem(users, nodes, antennas, messages, relative_error, seed):
    """Rayleigh at 20 dB, users dealt out to the messages, weights and sending nodes at random."""
    channel, error, power = draw_problem("rayleigh", users, nodes, antennas, relative_error, seed)
    rng = np.random.default_rng(seed)
    groups = rng.random((messages, users)) < 0.2  # some users want several messages
    groups[np.arange(users) % messages, np.arange(users)] = True
    groups[np.arange(messages), np.arange(messages) % users] = True
    senders = rng.random((messages, nodes)) < 0.8
    senders[:, 0] = True
    return 10 * channel, 10 * error, power, groups, senders, rng.uniform(0.5, 2, messages)


@given(
    st.integers(1, 6),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 4),
    st.sampled_from([0.0, 0.05, 0.3]),
    st.sampled_from(["sum", "max-min"]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=40, deadline=None)
def test_monotone_feasible_and_as_reported(users, nodes, antennas, messages, err, objective, seed):
    """More steps never lower the objective as the judge computes it; power, nodes, trace hold."""
    channel, error, power, groups, senders, weights = group_problem(
        users, nodes, antennas, messages, err, seed
    )
    values = []
    for iterations in (0, 1, 2, 5, 20):
        result = solve_wmmse(
            channel,
            error,
            power,
            groups=groups,
            nodes=senders,
            weights=weights,
            objective=objective,
            starts=3,
            iterations=iterations,
        )
        rate, value = judged(channel, error, result.beamformer, groups, weights, objective)
        np.testing.assert_allclose(result.rate, rate, rtol=1e-12, atol=1e-14)
        assert result.objective == pytest.approx(value, rel=1e-12, abs=1e-14)
        assert result.trace[-1] == pytest.approx(value, rel=1e-8, abs=1e-10)
        assert (np.diff(result.trace) >= 0).all()
        assert (np.sum(np.abs(result.beamformer) ** 2, axis=(0, 2)) <= power * (1 + 1e-12)).all()
        assert not result.beamformer[~senders].any()
        values.append(value)
    assert np.diff(values).min() >= -1e-8 * (1 + values[-1])


@pytest.mark.parametrize("objective", ["sum", "max-min"])
@pytest.mark.parametrize("relative_error", [0.0, 0.1])
def test_progress_beyond_the_starts(objective, relative_error):
    """The steps, not the starts, make the answer: much above matched beams and zero-forcing."""
    channel, error, power = draw_problem("rayleigh", 6, 2, 4, relative_error, 1)
    channel, error = 10 * channel, 10 * error
    groups = np.arange(6) % 3 == np.arange(3)[:, None]
    first, last = (
        solve_wmmse(
            channel, error, power, groups=groups, objective=objective, starts=2, iterations=n
        ).objective
        for n in (0, 200)
    )
    assert last > (1.05 if objective == "sum" else 1.1) * first


@pytest.mark.parametrize("relative_error", [0.0, 0.2])
def test_minorant_is_below_and_touches(relative_error):
    """2 Re(p^H w) - w^H (M + F) w plus a constant: equal at the beams at hand, below elsewhere."""
    channel, error, _ = draw_problem("rayleigh", 4, 2, 3, relative_error, 3)
    groups = np.array([[True, True, False, False], [False, False, True, True]])
    size = 6
    problem = _Problem(
        channel=np.tile(3 * channel.reshape(4, size), (2, 1, 1)),
        error=3 * error,
        groups=groups,
        weights=np.ones(2),
        objective="max-min",
    )
    rng = np.random.default_rng(0)

    def draw(count):
        shape = (count, 2, size)
        return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / 4

    # Beams that all users hear, off the nulls: no amplitude is lifted.
    start = zero_forcing(3 * channel, np.ones(2), groups, regularisation=1.0)
    hand, _ = _ascend(problem, start.reshape(1, 2, size), 20, 0.0)
    hand = 0.9 * hand + 0.2 * draw(1)
    share = np.where(groups, rng.random(groups.shape), 0)[None]
    heard = _hear(problem, hand)
    assert (heard.worst[0][groups] > 0.2 * np.sqrt(heard.interference[0][groups])).all()
    assert (heard.amplitude > 0.06 * heard.spread).all()
    matrix, pull, hold = _minorant(problem, hand, heard, share)

    def weighted(beams):
        return (share * np.where(groups, _rates(_hear(problem, beams)), 0)).sum(axis=(1, 2))

    def quadratic(beams):
        bent = matrix[0] + np.apply_along_axis(np.diag, 1, np.repeat(hold[0], 3, axis=1))
        return 2 * np.einsum("id,sid->s", np.conj(pull[0]), beams).real - (
            np.einsum("sid,ide,sie->s", np.conj(beams), bent, beams).real
        )

    constant = weighted(hand) - quadratic(hand)
    for scale in (1e-3, 1e-2, 0.1, 1.0):
        others = hand + scale * draw(200)
        assert (quadratic(others) + constant <= weighted(others) + 1e-9).all()
    # It touches: beams a step h apart differ from it by h^2 only, in every direction.
    direction = draw(5)
    gaps = []
    for h in (1e-3, 1e-4):
        others = hand + h * direction
        gaps.append(np.max(weighted(others) - quadratic(others) - constant))
    assert gaps[1] < gaps[0] / 50


@given(problems())
@settings(max_examples=40, deadline=None)
def test_single_message_feasible_and_below_the_bound(problem):
    """Within power, the closed form of its own beam, between the matched beam and the bound."""
    channel, error, power = problem
    result = solve_wmmse_single(channel, error, power, starts=2, iterations=30)
    assert (np.sum(np.abs(result.beamformer) ** 2, axis=1) <= power).all()
    assert result.snr == worst_case_snr(channel, error, result.beamformer)
    assert result.snr >= solve_matched(channel, error, power).snr * (1 - 1e-9)
    assert result.snr <= certified_bound(channel, error, power).snr


@pytest.mark.parametrize("spread_db", [0, 40])
@pytest.mark.parametrize("relative_error", [0.0, 0.1])
def test_single_message_reaches_successive_convex_approximation(spread_db, relative_error):
    """One message is the max-min problem: within 2% of SCA in rate, at any spread of the gains."""
    for seed in range(3):
        channel, error, power = draw_problem("rayleigh", 6, 3, 3, relative_error, seed)
        gains = 10 ** (np.random.default_rng(seed).uniform(-spread_db, 0, (6, 3)) / 20)
        scaled = (30 * channel * gains[:, :, None], 30 * error * gains, power)
        ours, sca = solve_wmmse_single(*scaled).snr, solve_sca(*scaled).snr
        assert np.log2(1 + ours) >= 0.98 * np.log2(1 + sca)


def test_one_user_gets_maximum_ratio_transmission():
    """K = 1: (2 (5 - 1) + 0)^2 with node 1 below its error radius, exactly."""
    result = solve_wmmse_single([[[3, 4j], [1, 0]]], [[1.0, 2.0]], [4.0, 1.0])
    assert result.snr == pytest.approx(64, rel=1e-12)


def test_orthogonal_users_are_served_at_once():
    """Two messages to orthogonal users of one node: no interference, half the power each."""
    channel, error = np.eye(2).reshape(2, 1, 2) * 3, np.zeros((2, 1))
    result = solve_wmmse(channel, error, [2.0], groups=np.eye(2, dtype=bool))
    np.testing.assert_allclose(result.rate, np.log2(1 + 9), rtol=1e-3)


def test_water_filling():
    """Parallel channels of gain 4 and 1, power 2: levels 1.375 and 0.625 maximise the sum rate."""
    channel = np.diag([2.0, 1.0]).reshape(2, 1, 2)
    result = solve_wmmse(channel, np.zeros((2, 1)), [2.0], groups=np.eye(2, dtype=bool))
    assert result.objective == pytest.approx(np.log2(1 + 4 * 1.375) + np.log2(1.625), rel=1e-4)


def test_max_min_gives_rates_in_proportion():
    """Two users of a node with room for both: rates end in the ratio of their weights."""
    channel, error, power = draw_problem("rayleigh", 2, 1, 4, 0.0, 3)
    weights = np.array([1.0, 2.0])
    result = solve_wmmse(
        10 * channel,
        error,
        power,
        groups=np.eye(2, dtype=bool),
        weights=weights,
        objective="max-min",
    )
    assert result.rate[1] / result.rate[0] == pytest.approx(2, rel=1e-2)


def test_robust_beams_beat_nominal_ones_under_errors():
    """Beams for eps = 0 leak to the worst channels of the balls: judged there, they are worse."""
    channel, error, power = draw_problem("rayleigh", 4, 2, 4, 0.2, 5)
    channel, error = 10 * channel, 10 * error
    groups = np.eye(4, dtype=bool)
    for objective in ("sum", "max-min"):
        options = {"groups": groups, "objective": objective}
        robust = solve_wmmse(channel, error, power, **options)
        nominal = solve_wmmse(channel, np.zeros_like(error), power, **options)
        _, value = judged(channel, error, nominal.beamformer, groups, np.ones(4), objective)
        assert robust.objective > 1.1 * value
        assert nominal.objective > robust.objective


def test_a_message_of_weight_zero_is_not_sent():
    """It would only interfere: the rest is as good as without it."""
    channel, error, power = draw_problem("rayleigh", 4, 2, 2, 0.0, 2)
    groups = np.arange(4) % 2 == np.arange(2)[:, None]
    for objective in ("sum", "max-min"):
        result = solve_wmmse(
            channel, error, power, groups=groups, weights=[1.0, 0.0], objective=objective
        )
        alone = solve_wmmse_single(channel[groups[0]], error[groups[0]], power)
        assert np.linalg.norm(result.beamformer[1]) < 1e-2
        assert result.rate[0] == pytest.approx(np.log2(1 + alone.snr), rel=2e-2)


def test_a_start_is_kept_or_improved():
    """Nothing is lost by a warm start, whatever the others find."""
    channel, error, power, groups, _, weights = group_problem(6, 2, 4, 3, 0.0, 8)
    options = {"groups": groups, "weights": weights}
    good = solve_wmmse(channel, error, power, starts=8, **options)
    again = solve_wmmse(
        channel, error, power, start=good.beamformer, starts=1, iterations=0, **options
    )
    assert again.objective == pytest.approx(good.objective, rel=1e-9)
    forced = zero_forcing(channel, power, groups)
    _, value = judged(channel, error, forced, groups, weights, "sum")
    warm = solve_wmmse(channel, error, power, start=forced, starts=1, **options)
    assert warm.objective >= value


@pytest.mark.parametrize("seed", range(3))
def test_invariances(seed):
    """Rotation per node, order of messages, units: the same objective, step by step.

    The random starts are left out: they are drawn per user in the order given.
    """
    channel, error, power, groups, senders, weights = group_problem(5, 2, 3, 3, 0.1, seed)
    options = {"starts": 2, "iterations": 15}

    def value(channel, error, power, order=slice(None)):
        return solve_wmmse(
            channel,
            error,
            power,
            groups=groups[order],
            nodes=senders[order],
            weights=weights[order],
            **options,
        ).objective

    rng = np.random.default_rng(seed)
    shape = (2, 3, 3)
    unitary, _ = np.linalg.qr(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    turned = np.einsum("nab,knb->kna", unitary, channel)
    same = [
        value(turned, error, power),
        value(channel, error, power, rng.permutation(3)),
        value(channel * 1e-3, error * 1e-3, power * 1e6),
    ]
    assert same == pytest.approx([value(channel, error, power)] * 3, rel=1e-6)


def test_same_seed_same_beams():
    """Deterministic."""
    problem = draw_problem("rayleigh", 4, 2, 2, 0.1, 1)
    first, second = (solve_wmmse_single(*problem, seed=4).beamformer for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("objective", ["sum", "max-min"])
def test_hopeless_channels_give_zero(objective):
    """All users hopeless: rates 0. One of them: the other message keeps its rate under "sum"."""
    channel, error, power = draw_problem("huge error", 4, 2, 2, 0.0, 0)
    groups = np.arange(4) % 2 == np.arange(2)[:, None]
    result = solve_wmmse(channel, error, power, groups=groups, objective=objective)
    assert not result.rate.any()
    assert np.isfinite(result.beamformer).all()
    error[1:] = 0
    result = solve_wmmse(channel, error, power, groups=groups, objective=objective)
    assert result.rate[0] == 0
    assert np.isfinite(result.beamformer).all()
    if objective == "sum":
        assert result.rate[1] > 0


def test_no_node_for_a_message():
    """A message that no node sends has rate 0, the other one is served."""
    channel, error, power = draw_problem("rayleigh", 2, 2, 2, 0.0, 0)
    result = solve_wmmse(
        channel,
        error,
        power,
        groups=np.eye(2, dtype=bool),
        nodes=[[False, False], [True, True]],
    )
    assert result.rate[0] == 0
    assert result.rate[1] > 0


def test_objective_agrees_with_the_judge():
    """`_objective` in nats is the judged one for weights of mean 1."""
    channel, error, power, groups, _, weights = group_problem(4, 2, 2, 3, 0.1, 0)
    weights = weights / weights.mean()
    beams = solve_wmmse(channel, error, power, groups=groups, iterations=3).beamformer
    for objective in ("sum", "max-min"):
        problem = _Problem(
            np.tile(channel.reshape(4, 4), (3, 1, 1)), error, groups, weights, objective
        )
        ours = _objective(problem, _rates(_hear(problem, beams.reshape(3, 4)))) / np.log(2)
        _, value = judged(channel, error, beams, groups, weights, objective)
        assert ours == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"groups": [[True, False], [False, False]]}, r"groups\[1\]"),
        ({"groups": [[1, 0]]}, "groups"),
        ({"nodes": [[True]]}, "nodes"),
        ({"weights": [0.0]}, "weights"),
        ({"weights": [-1.0]}, r"weights\[0\]"),
        ({"objective": "min"}, "objective"),
        ({"start": np.zeros((2, 1))}, "start"),
        ({"starts": 0}, "starts"),
        ({"iterations": -1}, "iterations"),
        ({"tolerance": -1.0}, "tolerance"),
    ],
)
def test_bad_options_are_named(options, name):
    """ValueError with the name of the option."""
    with pytest.raises(ValueError, match=f"^{name}"):
        solve_wmmse(np.ones((2, 2, 1)), np.zeros((2, 2)), np.ones(2), **options)
