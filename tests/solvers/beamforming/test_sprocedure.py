"""S-procedure: its inequality against an independent model, feasible answers, never above."""

import warnings

import cvxpy as cp
import numpy as np
import pytest
from dual_bound import certified_bound
from hypothesis import given, settings
from multicast_problems import draw_problem, problems

from finecast.solvers.beamforming import sprocedure
from finecast.solvers.beamforming.matched import solve_matched
from finecast.solvers.beamforming.sprocedure import (
    penalised_covariances,
    solve_sprocedure,
    stacked_ball,
    worst_errors,
)
from finecast.solvers.beamforming.worst_case import normal_form, worst_case_snr


@given(problems(max_users=3))
@settings(max_examples=25, deadline=None)
def test_feasible_consistent_and_below_the_bound(problem):
    """Within power, the closed form of its own beam, between the matched beam and the bound."""
    channel, error, power = problem
    result = solve_sprocedure(channel, error, power, iterations=2)
    assert (np.sum(np.abs(result.beamformer) ** 2, axis=1) <= power).all()
    assert result.snr == worst_case_snr(channel, error, result.beamformer)
    assert result.snr >= solve_matched(channel, error, power).snr
    assert result.snr <= certified_bound(channel, error, power).snr


def linear_matrix_inequality_value(channel, error, power):
    """Optimal t of the S-procedure programme, written down as it stands, without reductions."""
    users, nodes, antennas = channel.shape
    size = nodes * antennas
    covariance = cp.Variable((size, size), hermitian=True)
    snr, multiplier = cp.Variable(), cp.Variable(users, nonneg=True)
    diagonal = cp.real(cp.diag(covariance))
    constraints = [covariance >> 0]
    for n in range(nodes):
        constraints.append(cp.sum(diagonal[n * antennas : (n + 1) * antennas]) <= power[n])
    for k in range(users):
        g = channel[k].reshape(size, 1)
        lower = np.zeros((size + 1, size + 1))
        lower[-1, -1] = 1
        frame = np.hstack([np.eye(size), g])
        ball = np.diag([*np.ones(size), -np.sum(error[k] ** 2)])
        matrix = frame.conj().T @ covariance @ frame + multiplier[k] * ball - snr * lower
        constraints.append((matrix + matrix.H) / 2 >> 0)
    problem = cp.Problem(cp.Maximize(snr), constraints)
    with warnings.catch_warnings():  # "may be inaccurate": the comparison allows for it
        warnings.simplefilter("ignore")
        problem.solve(cp.CLARABEL)
    return float(snr.value)


@pytest.mark.parametrize(("users", "relative_error"), [(1, 0.3), (2, 0.1), (3, 0.2)])
def test_exchange_agrees_with_the_linear_matrix_inequality(users, relative_error, monkeypatch):
    """Errors added one by one end at the optimum of the inequality itself, within the violation.

    Unequal powers: the ball is round in the channels, not in the scaled ones.
    """
    for name in ("VIOLATION", "EARLY_VIOLATION"):
        monkeypatch.setattr(sprocedure, name, 1e-4)
    channel, error, power = draw_problem("rayleigh", users, 2, 2, relative_error, 4)
    ball = stacked_ball(channel, error, power)
    worst, _ = worst_errors(ball, penalised_covariances(ball, 0)[0])
    strength = normal_form(channel, error, power).strength
    value = (worst / ball.share).min() * strength.min() ** 2
    wanted = linear_matrix_inequality_value(channel, error, power)
    assert value == pytest.approx(wanted, rel=3e-4)


@pytest.mark.parametrize("relative_error", [0.0, 0.1, 0.9])
def test_worst_error_is_in_the_ball_attained_and_worst(relative_error):
    """The d returned is in the ball and gives the value; 200 random ones on it are no worse."""
    problem = draw_problem("rayleigh", 3, 2, 2, relative_error, 6)
    ball = stacked_ball(*problem)
    rng = np.random.default_rng(0)
    factor = rng.standard_normal((4, 3)) + 1j * rng.standard_normal((4, 3))
    covariance = factor @ factor.conj().T
    worst, error = worst_errors(ball, covariance)

    def gain(d):
        hit = ball.channel + d
        return np.einsum("ki,ij,kj->k", np.conj(hit), covariance, hit).real

    np.testing.assert_allclose(gain(error), worst, rtol=1e-9, atol=1e-12)
    assert (np.abs(error) ** 2 @ ball.shape <= ball.radius**2 * (1 + 1e-9) + 1e-24).all()
    for _ in range(200):
        d = rng.standard_normal((3, 4)) + 1j * rng.standard_normal((3, 4))
        d *= (ball.radius / np.sqrt(np.abs(d) ** 2 @ ball.shape))[:, None]
        assert (gain(d) >= worst - 1e-9).all()


def test_the_stacked_ball_encloses_the_per_node_balls():
    """Its value is at most the true worst case of the same beam: conservative, as documented."""
    channel, error, power = draw_problem("rayleigh", 3, 3, 2, 0.1, 1)
    ball = stacked_ball(channel, error, power)
    form = normal_form(channel, error, power)
    rng = np.random.default_rng(2)
    values = []
    for _ in range(50):
        v = rng.standard_normal((3, 2)) + 1j * rng.standard_normal((3, 2))
        v /= np.linalg.norm(v, axis=1, keepdims=True)
        stacked = v.reshape(-1)
        worst, _ = worst_errors(ball, np.outer(stacked, np.conj(stacked)))
        snr = worst_case_snr(channel, error, form.beamformer(v, 3))
        values.append((worst / ball.share).min() * form.strength.min() ** 2)
        assert values[-1] <= snr * (1 + 1e-9) + 1e-12
    assert max(values) > 1  # of beams that do serve all users


def test_penalty_ends_with_rank_one():
    """Where the relaxation has higher rank, the last matrix has rank one."""
    problem = draw_problem("rayleigh", 4, 3, 2, 0.1, 0)
    covariances = penalised_covariances(stacked_ball(*problem), 8)
    first, last = (np.linalg.eigvalsh(matrix) for matrix in (covariances[0], covariances[-1]))
    assert first[-1] < 0.95 * first.sum()
    assert last[-1] > (1 - sprocedure.RANK_ONE) * last.sum()


def test_one_user_of_one_node_gets_maximum_ratio_transmission():
    """K = N = 1, where stacked and per-node ball are the same: 2^2 (5 - 1)^2 = 64."""
    result = solve_sprocedure([[[3, 4j]]], [[1.0]], [4.0])
    assert result.snr == pytest.approx(64, rel=1e-5)


def test_two_users_without_error_reach_the_bound():
    """Without error the relaxation has a rank-one optimum for two users of one node."""
    problem = draw_problem("rayleigh", 2, 1, 4, 0.0, 5)
    assert solve_sprocedure(*problem).snr == pytest.approx(certified_bound(*problem).snr, rel=1e-3)


def test_an_answer_without_the_solver(monkeypatch):
    """A solver that finds nothing leaves the matched beam."""
    monkeypatch.setattr(sprocedure, "solve_conic", lambda *_, **__: False)
    problem = draw_problem("rayleigh", 3, 2, 2, 0.1, 3)
    matched = solve_matched(*problem)
    np.testing.assert_array_equal(solve_sprocedure(*problem).beamformer, matched.beamformer)


def test_hopeless_channels_give_zero():
    """Errors twice as large as the channels: SNR 0, no warning."""
    assert solve_sprocedure(*draw_problem("huge error", 3, 2, 2, 0.0, 0)).snr == 0


def test_bad_option_is_named():
    """ValueError with the name of the option."""
    with pytest.raises(ValueError, match=r"^iterations: -1"):
        solve_sprocedure(np.ones((2, 2, 1)), np.zeros((2, 2)), np.ones(2), iterations=-1)
