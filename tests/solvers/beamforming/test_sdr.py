"""Semidefinite relaxation with randomisation: exact where it is tight, never without an answer."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from multicast_problems import draw_problem, problems, relaxation_value

from finecast.solvers.beamforming import sdr
from finecast.solvers.beamforming.sdr import solve_relaxation, solve_sdr
from finecast.solvers.beamforming.worst_case import mrt_sum, normal_form, worst_case_snr


@given(problems())
@settings(max_examples=40, deadline=None)
def test_feasible_consistent_and_never_below_the_mrt_sum(problem):
    """The beam is within power, its SNR is its own closed form, the MRT sum is a candidate."""
    channel, error, power = problem
    result = solve_sdr(channel, error, power, randomisations=8)
    assert (np.sum(np.abs(result.beamformer) ** 2, axis=1) <= power).all()
    assert result.snr == worst_case_snr(channel, error, result.beamformer)
    mrt = mrt_sum(channel, power, np.ones(channel.shape[0]))
    assert result.snr >= worst_case_snr(channel, error, mrt) * (1 - 1e-12)


@pytest.mark.parametrize(("users", "relative_error"), [(1, 0.0), (1, 0.3), (2, 0.0), (3, 0.1)])
def test_relaxation_agrees_with_an_independent_model(users, relative_error):
    """Reduced antennas, unit powers and scaled users leave the optimal value where it was."""
    problem = draw_problem("rayleigh", users, 2, 3, relative_error, 11)
    form = normal_form(*problem)
    covariance = solve_relaxation(form).covariance
    vectors = form.channel.reshape(users, -1)
    gains = np.einsum("ki,ij,kj->k", vectors.conj(), covariance, vectors).real
    powers = np.diagonal(covariance).real.reshape(form.error.shape[1], -1).sum(axis=1)
    value = (np.sqrt(gains) - form.error @ powers).min()
    assert value == pytest.approx(relaxation_value(*problem), rel=1e-5)


def test_one_user_gets_maximum_ratio_transmission():
    """K = 1, eps_n < norm(g_n) / 2: (2 (5 - 1) + (3 - 0.5))^2 = 10.5^2."""
    result = solve_sdr([[[3, 4j], [3, 0]]], [[1.0, 0.5]], [4.0, 1.0])
    assert result.snr == pytest.approx(10.5**2, rel=1e-6)


def test_two_users_reach_the_relaxation():
    """Without error the relaxation has a rank-one optimum for two users of one node."""
    problem = draw_problem("rayleigh", 2, 1, 4, 0.0, 5)
    result = solve_sdr(*problem)
    assert np.sqrt(result.snr) == pytest.approx(relaxation_value(*problem), rel=1e-4)


def test_an_answer_without_the_solver(monkeypatch):
    """A solver that finds nothing leaves the MRT sum."""
    monkeypatch.setattr(sdr, "solve_conic", lambda *_, **__: False)
    channel, error, power = draw_problem("rayleigh", 3, 2, 2, 0.1, 3)
    result = solve_sdr(channel, error, power)
    mrt = mrt_sum(channel, power, np.ones(3))
    np.testing.assert_allclose(result.beamformer, mrt, rtol=1e-14)


def test_hopeless_channels_give_zero():
    """Errors twice as large as the channels: SNR 0, no warning."""
    assert solve_sdr(*draw_problem("huge error", 3, 2, 2, 0.0, 0)).snr == 0


def test_threads_do_not_share_a_compiled_programme():
    """Problems of one shape solved in several threads give what they give one by one."""
    drawn = [draw_problem("rayleigh", 3, 2, 2, 0.1, seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda problem: solve_sdr(*problem).snr, drawn))
    assert together == [solve_sdr(*problem).snr for problem in drawn]


def test_bad_option_is_named():
    """ValueError with the name of the option."""
    with pytest.raises(ValueError, match=r"^randomisations: -1"):
        solve_sdr(np.ones((2, 2, 1)), np.zeros((2, 2)), np.ones(2), randomisations=-1)
