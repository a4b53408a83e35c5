"""Successive convex approximation: monotone, optimal where the optimum is known, robust."""

import numpy as np
import pytest
from hypothesis import given, settings
from multicast_problems import draw_problem, problems

from finecast.solvers.beamforming.sca import sca_iterates, solve_sca
from finecast.solvers.beamforming.worst_case import margins, mrt_sum, worst_case_snr


@given(problems())
@settings(max_examples=40, deadline=None)
def test_worst_case_never_falls_and_power_is_kept(problem):
    """Minorise-maximise: every iterate feasible, its worst case not below the one before.

    The slack is the cone solver's tolerance, in units of what the weakest user could have alone.
    """
    channel, error, power = problem
    start = mrt_sum(channel, power, np.ones(channel.shape[0]))
    beams = np.stack(list(sca_iterates(channel, error, power, start, iterations=6)))
    assert (np.sum(np.abs(beams) ** 2, axis=2) <= power).all()
    trace = np.maximum(0, margins(channel, error, beams).min(axis=1))
    alone = (np.sqrt(power) * np.linalg.norm(channel, axis=2)).sum(axis=1).min()
    assert np.diff(trace).min(initial=0) >= -1e-6 * alone


def test_progress_is_made():
    """On a Rayleigh problem the first step alone raises the MRT sum's worst case."""
    channel, error, power = draw_problem("rayleigh", 8, 4, 4, 0.1, 0)
    start = mrt_sum(channel, power, np.ones(8))
    first = worst_case_snr(channel, error, start)
    assert solve_sca(channel, error, power, iterations=1).snr > 1.5 * first


def test_one_user_gets_maximum_ratio_transmission():
    """K = 1: (sum_n sqrt(P_n) max(0, norm(g_n) - eps_n))^2 = (2 (5 - 1) + 0)^2, node 1 silent."""
    result = solve_sca([[[3, 4j], [1, 0]]], [[1.0, 2.0]], [4.0, 1.0])
    assert result.snr == pytest.approx(64, rel=1e-6)
    assert np.linalg.norm(result.beamformer[1]) < 1e-6


def test_orthogonal_users_share_the_power():
    """Four users on four antennas of one node, unit gains: a quarter of the power each."""
    result = solve_sca(*draw_problem("orthogonal users", 4, 1, 4, 0.0, 0)[:2], [2.0])
    assert result.snr == pytest.approx(0.5, rel=1e-6)


def test_more_starts_and_a_better_start_never_hurt():
    """The best of several starts includes the first; a start is returned if nothing beats it."""
    problem = draw_problem("rayleigh", 6, 3, 2, 0.1, 7)
    one = solve_sca(*problem, seed=3)
    many = solve_sca(*problem, starts=4, seed=3)
    assert many.snr >= one.snr
    again = solve_sca(*problem, start=many.beamformer, iterations=0)
    assert again.snr == pytest.approx(many.snr, rel=1e-12)


def test_same_seed_same_beam():
    """Deterministic, whatever was solved in between with the same compiled programme."""
    problem = draw_problem("rayleigh", 4, 2, 2, 0.1, 1)
    first = solve_sca(*problem, starts=2, seed=5)
    solve_sca(*draw_problem("80 dB", 4, 2, 2, 0.5, 2))
    second = solve_sca(*problem, starts=2, seed=5)
    np.testing.assert_array_equal(first.beamformer, second.beamformer)


def test_hopeless_channels_give_zero():
    """Errors twice as large as the channels: SNR 0, a finite beam, no warning."""
    result = solve_sca(*draw_problem("huge error", 3, 2, 2, 0.0, 0))
    assert result.snr == 0
    assert np.isfinite(result.beamformer).all()


@pytest.mark.parametrize(
    ("options", "name"),
    [({"starts": 0}, "starts"), ({"iterations": -1}, "iterations"), ({"start": [[1]]}, "start")],
)
def test_bad_options_are_named(options, name):
    """ValueError with the name of the option."""
    with pytest.raises(ValueError, match=f"^{name}"):
        solve_sca(np.ones((2, 2, 1)), np.zeros((2, 2)), np.ones(2), **options)
