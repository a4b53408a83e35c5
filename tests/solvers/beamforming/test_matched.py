"""Matched beams: optimal for one user, feasible baselines for more; zero-forcing makes nulls."""

import numpy as np
import pytest
from dual_bound import certified_bound
from hypothesis import given, settings
from multicast_problems import draw_problem, problems

from finecast.solvers.beamforming.matched import matched_beam, solve_matched, zero_forcing
from finecast.solvers.beamforming.worst_case import mrt_sum, worst_case_snr


@given(problems())
@settings(max_examples=60, deadline=None)
def test_feasible_consistent_and_below_the_bound(problem):
    """Within power, the closed form of its own beam, between the MRT sum and the bound."""
    channel, error, power = problem
    result = solve_matched(channel, error, power)
    assert (np.sum(np.abs(result.beamformer) ** 2, axis=1) <= power).all()
    assert result.snr == worst_case_snr(channel, error, result.beamformer)
    mrt = mrt_sum(channel, power, np.ones(channel.shape[0]))
    assert result.snr >= worst_case_snr(channel, error, mrt)
    assert result.snr <= certified_bound(channel, error, power).snr


@given(problems(max_users=1, max_nodes=4, max_antennas=4))
@settings(max_examples=60, deadline=None)
def test_one_user_is_optimal(problem):
    """K = 1: (sum_n sqrt(P_n) max(0, norm(g_n) - eps_n))^2, in closed form and exactly."""
    channel, error, power = problem
    margin = np.maximum(0, np.linalg.norm(channel[0], axis=1) - error[0])
    optimum = (np.sqrt(power) @ margin) ** 2
    assert solve_matched(channel, error, power).snr == pytest.approx(optimum, rel=1e-12)


def test_hand_computed_user_with_a_node_to_silence():
    """Node 0: 2 (5 - 1) = 8; node 1 is below its error radius and stays silent: 8^2."""
    result = solve_matched([[[3, 4j], [1, 0]]], [[1.0, 2.0]], [4.0, 1.0])
    assert result.snr == pytest.approx(64, rel=1e-14)
    assert not result.beamformer[1].any()


def test_a_node_that_hurts_the_weakest_user_is_silenced():
    """Node 1 gives user 0 much and user 1 nothing but error 2: without it user 1 has 3^2."""
    channel = np.array([[[3.0], [4.0]], [[3.0], [0.0]]])
    error = np.array([[0.0, 0.0], [0.0, 2.0]])
    result = solve_matched(channel, error, np.ones(2))
    assert result.snr == pytest.approx(9, rel=1e-14)
    assert not result.beamformer[1].any()


def test_phases_are_aligned():
    """Two users of one antenna per node in opposite phase: the plain MRT sum cancels, ours not."""
    channel = np.array([[[1.0], [1j]], [[-1.0], [-1j]]])
    error, power = np.zeros((2, 2)), np.ones(2)
    assert worst_case_snr(channel, error, mrt_sum(channel, power, np.ones(2))) == 0
    assert solve_matched(channel, error, power).snr == pytest.approx(4, rel=1e-12)


def test_alignment_raises_the_weighted_sum():
    """Aligned phases beat all of 200 random ones in sum_k a_k |y_k|, for the same weights."""
    channel, error, power = draw_problem("rayleigh", 4, 2, 2, 0.0, 3)
    weights = np.array([1.0, 0.5, 2.0, 1.0])

    def total(beam):
        return weights @ np.abs(np.einsum("kna,na->k", np.conj(channel), beam))

    ours = total(matched_beam(channel, error, power, weights))
    rng = np.random.default_rng(0)
    for phases in np.exp(2j * np.pi * rng.random((200, 4))):
        sums = np.einsum("k,kna->na", weights * phases, channel)
        beam = np.sqrt(power)[:, None] * sums / np.linalg.norm(sums, axis=1, keepdims=True)
        assert total(beam) <= ours * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_invariances(seed):
    """Rotation per node, order of users and nodes, units of channel and power: the same SNR."""
    channel, error, power = draw_problem("rayleigh", 5, 3, 3, 0.2, seed)
    snr = solve_matched(channel, error, power).snr
    rng = np.random.default_rng(seed)
    shape = (3, 3, 3)
    unitary, _ = np.linalg.qr(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))
    turned = np.einsum("nab,knb->kna", unitary, channel)
    users, nodes = rng.permutation(5), rng.permutation(3)
    same = [
        solve_matched(turned, error, power),
        solve_matched(channel[users][:, nodes], error[users][:, nodes], power[nodes]),
        solve_matched(channel * 1e-3, error * 1e-3, power * 1e6),
    ]
    assert [other.snr for other in same] == pytest.approx([snr] * 3, rel=1e-8)


@pytest.mark.parametrize("kind", ["huge error", "zero channel"])
def test_hopeless_channels_give_zero(kind):
    """A user that cannot be served: SNR 0, a finite beam, no warning."""
    result = solve_matched(*draw_problem(kind, 3, 2, 2, 0.0, 0))
    assert result.snr == 0
    assert np.isfinite(result.beamformer).all()


def test_no_power_at_all():
    """P = 0 everywhere: a beam of zeros."""
    assert not solve_matched(np.ones((2, 2, 2)), np.zeros((2, 2)), np.zeros(2)).beamformer.any()


def test_bad_input_is_named():
    """ValueError with the name of the argument."""
    with pytest.raises(ValueError, match=r"^error\[1, 0\]"):
        solve_matched(np.ones((2, 1, 2)), [[0.0], [-1.0]], [1.0])


GROUPS = np.array([[True, True, False, False, False], [False, False, True, False, True]])


def test_zero_forcing_makes_nulls_and_keeps_power():
    """Users outside a group hear nothing, those inside do; a node is at its limit, none above.

    Four users are outside neither group's eight antennas: room for both. User 3 wants nothing.
    """
    channel, _, power = draw_problem("rayleigh", 5, 2, 4, 0.0, 2)
    beams = zero_forcing(channel, power, GROUPS)
    heard = np.abs(np.einsum("kna,ina->ik", np.conj(channel), beams))
    assert heard[~GROUPS].max() < 1e-12
    assert heard[GROUPS].min() > 1e-2
    used = np.sum(np.abs(beams) ** 2, axis=(0, 2)) / power
    assert used.max() <= 1
    assert (np.sum(np.abs(beams) ** 2, axis=2) / power).max(axis=1) == pytest.approx(0.5)


def test_zero_forcing_without_room_is_silent():
    """Two antennas and three users outside: no null space, no beam; with regularisation there is.

    On one of two nodes a group has half the antennas; it does not use the other.
    """
    channel, _, power = draw_problem("rayleigh", 5, 1, 2, 0.0, 2)
    assert not zero_forcing(channel, power, GROUPS).any()
    assert zero_forcing(channel, power, GROUPS, regularisation=1.0).any(axis=(1, 2)).all()
    channel, _, power = draw_problem("rayleigh", 5, 2, 4, 0.0, 2)
    nodes = np.array([[True, False], [True, True]])
    beams = zero_forcing(channel, power, GROUPS, nodes=nodes)
    assert not beams[0, 1].any()
    assert beams[0, 0].any()


def test_regularised_zero_forcing_lies_between_zero_forcing_and_mrt():
    """More regularisation, more interference and more signal per power; in the limit MRT."""
    channel, _, power = draw_problem("rayleigh", 5, 1, 6, 0.0, 4)
    leaks, gains = [], []
    for delta in (0.0, 0.1, 10.0, 1e9):
        beam = zero_forcing(channel, power, GROUPS[:1, :], regularisation=delta)[0]
        heard = np.abs(np.einsum("kna,na->k", np.conj(channel), beam))
        leaks.append(np.linalg.norm(heard[2:]))
        gains.append(np.linalg.norm(heard[:2]))
    assert leaks[0] < 1e-12
    assert (np.diff(leaks) > 0).all()
    assert gains[0] < gains[-1]


def test_groups_are_checked():
    """ValueError with the name of the argument, also for an empty group."""
    channel, power = np.ones((2, 1, 2)), np.ones(1)
    with pytest.raises(ValueError, match=r"^groups\[1\]: no user"):
        zero_forcing(channel, power, [[True, False], [False, False]])
    with pytest.raises(ValueError, match=r"^groups: shape"):
        zero_forcing(channel, power, [True, False])
    with pytest.raises(ValueError, match=r"^nodes: shape"):
        zero_forcing(channel, power, [[True, False]], nodes=[[True, True]])
    with pytest.raises(ValueError, match=r"^regularisation: -1"):
        zero_forcing(channel, power, [[True, False]], regularisation=-1)
