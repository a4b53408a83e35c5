"""The closed form of the worst case, power scaling, validation and the normal form."""

import numpy as np
import pytest
from hypothesis import given, settings
from multicast_problems import problems

from finecast.solvers.beamforming.worst_case import (
    check_problem,
    margins,
    mrt_sum,
    normal_form,
    scale_to_power,
    worst_case_snr,
)


def _beam(rng, shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def test_hand_computed_worst_case():
    """Two users, two nodes: min(|2 + 3j*1| ..., ...) by hand, with the conjugate on the channel.

    User 0: y = conj(2) 1 + conj(1j) 3j = 2 + 3 = 5, less 0.5 * 1 + 1 * 3 = 3.5, leaves 1.5.
    User 1: y = conj(4) 1 + conj(1) 3j = 4 + 3j, |y| = 5, less 1 * 1 + 0 * 3, leaves 4.
    """
    channel = np.array([[[2], [1j]], [[4], [1]]])
    error = np.array([[0.5, 1.0], [1.0, 0.0]])
    beam = np.array([[1], [3j]])
    assert worst_case_snr(channel, error, beam) == pytest.approx(1.5**2, rel=1e-15)
    assert worst_case_snr(channel[1:], error[1:], beam) == pytest.approx(16, rel=1e-15)


def test_error_above_the_signal_gives_zero():
    """The worst case is cut off at 0: an error larger than the signal can cancel it."""
    assert worst_case_snr([[[1.0]]], [[1.5]], [[2.0]]) == 0.0


@given(problems())
@settings(max_examples=60, deadline=None)
def test_no_channel_in_the_balls_is_worse_and_one_attains_it(problem):
    """Random errors on the spheres never go below the closed form; the aligned one meets it."""
    channel, error, power = problem
    rng = np.random.default_rng(1)
    beam = scale_to_power(_beam(rng, channel.shape[1:]), power)
    snr = worst_case_snr(channel, error, beam)
    scale = np.linalg.norm(channel) ** 2 * power.sum() + 1
    for _ in range(20):
        offset = _beam(rng, channel.shape)
        offset *= (error / np.linalg.norm(offset, axis=2))[:, :, None]
        sample = np.abs(np.einsum("kna,na->k", np.conj(channel + offset), beam)) ** 2
        assert sample.min() >= snr - 1e-12 * scale
    signal = np.einsum("kna,na->k", np.conj(channel), beam)
    phase = np.exp(-1j * np.angle(signal))
    norms = np.linalg.norm(beam, axis=1, keepdims=True)
    unit = np.divide(beam, norms, out=np.zeros_like(beam), where=norms > 0)
    worst = channel - error[:, :, None] * phase[:, None, None] * unit
    attained = np.real(np.einsum("kna,na->k", np.conj(worst), beam) * phase)
    np.testing.assert_allclose(attained, margins(channel, error, beam), atol=1e-12 * scale)


def test_scale_to_power_only_scales_down():
    """A node above its limit ends within it (not a rounding above), one below stays as it is."""
    rng = np.random.default_rng(0)
    beams = _beam(rng, (500, 3, 4))
    power = np.array([0.0, 1e-3, 1e6])
    scaled = scale_to_power(beams, power)
    assert (np.sum(np.abs(scaled) ** 2, axis=-1) <= power).all()
    np.testing.assert_allclose(np.sum(np.abs(scaled[:, 1]) ** 2, axis=-1), 1e-3, rtol=1e-14)
    np.testing.assert_array_equal(scaled[:, 2], beams[:, 2])


@given(problems())
@settings(max_examples=60, deadline=None)
def test_normal_form_keeps_every_margin(problem):
    """v in normal form and its w have the same margins: QR and powers change nothing."""
    channel, error, power = problem
    form = normal_form(channel, error, power)
    v = _beam(np.random.default_rng(2), form.channel.shape[1:])
    w = form.beamformer(v, channel.shape[1])
    np.testing.assert_allclose(
        margins(form.channel, form.error, v), margins(channel, error, w), atol=1e-12
    )
    np.testing.assert_allclose(
        np.linalg.norm(w[form.nodes], axis=1),
        np.linalg.norm(v, axis=1) * np.sqrt(power[form.nodes]),
        atol=1e-12,
    )


@given(problems())
@settings(max_examples=60, deadline=None)
def test_silencing_a_useless_node_never_hurts(problem):
    """The proof behind dropping nodes: without them every margin is at least as large."""
    channel, error, power = problem
    form = normal_form(channel, error, power)
    beam = scale_to_power(_beam(np.random.default_rng(3), channel.shape[1:]), power)
    kept = np.zeros_like(beam)
    kept[form.nodes] = beam[form.nodes]
    gain = margins(channel, error, kept) - margins(channel, error, beam)
    assert gain.min() >= -1e-12


def test_normal_form_drops_useless_nodes_and_antennas():
    """Node 0 has no power, node 1 is below every error radius, node 3 is heard by user 1 only."""
    channel = np.full((2, 4, 5), 1 + 0j)  # norms sqrt(5) = 2.236
    error = np.array([[0, 2.3, 0, 2.3], [0, 2.24, 0, 2.2]])
    form = normal_form(channel, error, np.array([0.0, 1.0, 4.0, 1.0]))
    assert form.nodes.tolist() == [2, 3]
    assert form.channel.shape == (2, 2, 2)
    root = np.sqrt(5)
    np.testing.assert_allclose(form.strength, [3 * root, 3 * root])
    np.testing.assert_allclose(form.best_alone, [2 * root, 3 * root - 2.2])


def test_mrt_sum_of_one_user_is_maximum_ratio_transmission():
    """For K = 1: amplitude sum_n sqrt(P_n) norm(g_n) = 2 * 5 + 1 * 3 = 13."""
    channel = np.array([[[3, 4j], [0, 3]]])
    beam = mrt_sum(channel, np.array([4.0, 1.0]), np.array([1j]))
    assert worst_case_snr(channel, np.zeros((1, 2)), beam) == pytest.approx(169, rel=1e-13)


@pytest.mark.parametrize(
    ("channel", "error", "power", "name"),
    [
        (np.ones((2, 2)), np.zeros((2, 2)), np.ones(2), "channel"),
        (np.ones((0, 2, 1)), np.zeros((0, 2)), np.ones(2), "channel"),
        (np.full((2, 2, 1), np.nan), np.zeros((2, 2)), np.ones(2), r"channel\[0, 0, 0\]"),
        (np.ones((2, 2, 1)), np.zeros((2, 1)), np.ones(2), "error"),
        (np.ones((2, 2, 1)), [[0, 0], [0, -1.0]], np.ones(2), r"error\[1, 1\]: -1"),
        (np.ones((2, 2, 1)), np.zeros((2, 2)), [1.0, np.inf], r"power\[1\]: inf"),
        (np.ones((2, 2, 1)), np.zeros((2, 2)), [1.0, -2.0], r"power\[1\]: -2"),
    ],
)
def test_bad_input_names_the_argument(channel, error, power, name):
    """One line that says which argument is wrong, where and what is allowed."""
    with pytest.raises(ValueError, match=f"^{name}") as caught:
        check_problem(channel, error, power)
    assert "\n" not in str(caught.value)
