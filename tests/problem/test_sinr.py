"""Worst-case SINR and rate: hand-computed numbers, and channels drawn inside the error balls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finecast.problem.sinr import rate, worst_case_sinr

ALONE = np.ones((1, 1), dtype=bool)


def test_signal_alone_by_hand() -> None:
    """One user, two nodes: amplitude 1*2 + 2*1 = 4, spread 0.5*2 + 0*1 = 1, so (4 - 1)^2 = 9."""
    channel = np.array([[[1.0], [2.0]]], dtype=complex)
    error = np.array([[0.5, 0.0]])
    beam = np.array([[[2.0], [1.0]]], dtype=complex)
    assert worst_case_sinr(channel, error, beam, ALONE) == pytest.approx(np.array([[9.0]]))


def test_phases_count_conjugated() -> None:
    """g = j, w = 1 + j: g^H w = -j (1 + j) = 1 - j; with a second node 1 * j it is 1, SNR 1.

    Without the conjugate it would be j (1 + j) + j = -1 + 2j, SNR 5.
    """
    channel = np.array([[[1j], [1.0]]])
    beam = np.array([[[1 + 1j], [1j]]])
    assert worst_case_sinr(channel, np.zeros((1, 2)), beam, ALONE) == pytest.approx(
        np.array([[1.0]])
    )


def test_spread_takes_the_norm_over_a_nodes_antennas() -> None:
    """One node with beam (3, 4) on two antennas: norm 5. Amplitude 10*3 = 30, spread 2*5 = 10."""
    channel = np.array([[[10.0, 0.0]]], dtype=complex)
    beam = np.array([[[3.0, 4.0]]], dtype=complex)
    assert worst_case_sinr(channel, np.array([[2.0]]), beam, ALONE) == pytest.approx(
        np.array([[400.0]])
    )


def test_signal_is_never_below_zero() -> None:
    """Amplitude 1, spread 2: the worst channel hides the signal, SNR 0 and not (1 - 2)^2 = 1."""
    one = np.ones((1, 1, 1), dtype=complex)
    assert worst_case_sinr(one, np.array([[2.0]]), one, ALONE).item() == 0.0


def test_interference_by_hand() -> None:
    """Two messages with amplitudes 5 and 1 at the user, spreads 0.5*5 = 2.5 and 0.5*1 = 0.5.

    Together: message 0 has (5 - 2.5)^2 / (1 + 1.5^2) = 6.25 / 3.25; message 1 has
    (1 - 0.5)^2 / (1 + 7.5^2) = 0.25 / 57.25. Apart they have 6.25 and 0.25.
    """
    channel, error = np.ones((1, 1, 1), dtype=complex), np.array([[0.5]])
    beam = np.array([[[5.0]], [[1.0]]], dtype=complex)
    together, apart = np.ones((2, 2), dtype=bool), np.eye(2, dtype=bool)
    assert worst_case_sinr(channel, error, beam, together) == pytest.approx(
        np.array([[6.25 / 3.25, 0.25 / 57.25]])
    )
    assert worst_case_sinr(channel, error, beam, apart) == pytest.approx(np.array([[6.25, 0.25]]))


def test_only_messages_of_the_same_mode_interfere() -> None:
    """Of three messages 0 and 2 share the air: 1 is alone. Amplitudes 1, 2, 3, no errors."""
    channel = np.ones((1, 1, 1), dtype=complex)
    beam = np.array([1.0, 2.0, 3.0], dtype=complex).reshape(3, 1, 1)
    mode = np.array([0, 1, 0])
    sinr = worst_case_sinr(channel, np.zeros((1, 1)), beam, mode[:, None] == mode)
    assert sinr == pytest.approx(np.array([[1 / 10, 4.0, 9 / 2]]))


def test_own_signal_does_not_cancel_at_high_snr() -> None:
    """Signal 1e9 in amplitude beside interference 1e-3: SINR 1e18 / (1 + 1e-6) to the last digits.

    Subtracting the own power from a total would lose the interference altogether.
    """
    channel = np.ones((1, 1, 1), dtype=complex)
    beam = np.array([1e9, 1e-3], dtype=complex).reshape(2, 1, 1)
    sinr = worst_case_sinr(channel, np.zeros((1, 1)), beam, np.ones((2, 2), dtype=bool))
    assert sinr[0, 0] == pytest.approx(1e18 / (1 + 1e-6), rel=1e-14)


def test_rate_is_shannon_and_capped() -> None:
    """W = 10 Hz: SNR 0, 1, 3, 15 give 0, 10, 20, 40 bit/s; under a cap of 2.5 at most 25."""
    snr = np.array([0.0, 1.0, 3.0, 15.0, np.inf])
    assert rate(snr[:4], 10.0, np.inf) == pytest.approx(np.array([0.0, 10.0, 20.0, 40.0]))
    assert rate(snr, 10.0, 2.5) == pytest.approx(np.array([0.0, 10.0, 20.0, 25.0, 25.0]))


def test_rate_of_a_tiny_snr_keeps_its_digits() -> None:
    """log2(1 + y) = y / ln 2 for y = 1e-18, where 1 + y is 1 in floating point."""
    assert float(rate(1e-18, 1.0, np.inf)) == pytest.approx(1e-18 / np.log(2), rel=1e-12, abs=0)


def _draw(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.random.Generator]:
    """Return random channels (2, 2, 3), radii (2, 2), beams (3, 2, 3) and the generator."""
    rng = np.random.default_rng(seed)
    one = np.array([1, 1j])
    channel = rng.normal(size=(2, 2, 3, 2)) @ one
    beam = rng.normal(size=(3, 2, 3, 2)) @ one
    return channel, rng.uniform(0, 0.4, size=(2, 2)), beam, rng


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_no_channel_in_the_balls_is_worse(seed: int) -> None:
    """The guarantee holds for channels drawn in the balls, on their surface too, interfered."""
    channel, error, beam, rng = _draw(seed)
    together = np.ones((3, 3), dtype=bool)
    promised = worst_case_sinr(channel, error, beam, together)
    for radius in (1.0, 1.0, rng.random()):
        direction = rng.normal(size=(2, 2, 3, 2)) @ np.array([1, 1j])
        direction /= np.linalg.norm(direction, axis=2, keepdims=True)
        true = channel + radius * error[:, :, None] * direction
        actual = worst_case_sinr(true, np.zeros((2, 2)), beam, together)
        assert (actual >= promised * (1 - 1e-12)).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32))
def test_the_worst_channel_is_attained_alone(seed: int) -> None:
    """d_n = -e_n exp(j arg) w_n / |w_n| turns every node's error against the signal: equality."""
    channel, error, beam, _ = _draw(seed)
    w = beam[:1]
    promised = worst_case_sinr(channel, error, w, ALONE)
    signal = channel.conj().reshape(2, -1) @ w.reshape(-1)
    phase = np.conj(signal / np.abs(signal))
    unit = w[0] / np.linalg.norm(w[0], axis=1, keepdims=True)
    worst = channel - phase[:, None, None] * error[:, :, None] * unit
    actual = worst_case_sinr(worst, np.zeros((2, 2)), w, ALONE)
    against = np.abs(signal) > error @ np.linalg.norm(w[0], axis=1)
    assert actual[against] == pytest.approx(promised[against], rel=1e-9)
    assert (promised[~against] == 0).all()
