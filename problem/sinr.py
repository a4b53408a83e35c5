"""Signal-to-interference-plus-noise ratios and rates of messages on the air (formulation, 3).

For message x with stacked beamformer w_x, user k with normalised channel g_k = h_k / sigma and
error radii eps_k = e_k / sigma, amplitude y = sum_n g_kn^H w_xn and spread s = sum_n eps_kn |w_xn|,

    sinr_kx = max(0, |y_kx| - s_kx)^2 / (1 + I_k + sum_{l != x on the air} (|y_kl| + s_kl)^2),

where I_k is what comes from other areas at the same time, 0 with one area.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray


def worst_case_sinr(
    channel: ComplexArray,
    error: FloatArray,
    beam: ComplexArray,
    together: BoolArray,
    outside: FloatArray | None = None,
) -> FloatArray:
    """Return every user's guaranteed SINR for every message.

    Parameters
    ----------
    channel
        (K, N, A), channel estimates divided by the noise amplitude.
    error
        (K, N), radii of the error balls divided by the noise amplitude; zeros for nominal SINR.
    beam
        (X, N, A), stacked beamformers, square root of watt.
    together
        (X, X), together[x, l]: messages x and l are on the air at the same time.
    outside
        (K,) I_k, interference of other areas over the noise power; None for none.

    Returns
    -------
    (K, X) array, linear.
    """
    amplitude, spread = _amplitudes(channel, error, beam)
    signal = np.maximum(amplitude - spread, 0.0) ** 2
    # Own power is left out of the sum, not subtracted from it: no cancellation at high SNR.
    interference: FloatArray | float = 0.0
    if np.count_nonzero(together) > np.count_nonzero(together.diagonal()):
        others = together & ~np.eye(len(beam), dtype=bool)
        interference = (amplitude + spread) ** 2 @ others.T
    noise = 1.0 if outside is None else 1.0 + outside[:, None]
    return np.asarray(signal / (noise + interference), dtype=np.float64)


def peak_power(
    channel: ComplexArray, error: FloatArray, beam: ComplexArray, mode: IntArray, modes: int
) -> FloatArray:
    """Return the most that any mode of an area brings to each user.

    max over modes of sum over its messages x of (|y_kx| + s_kx)^2

    Parameters
    ----------
    channel, error, beam
        As in `worst_case_sinr`.
    mode
        (X,) the mode in which each beam is on the air.
    modes
        Number of modes.

    Returns
    -------
    (K,) array, in units of the noise power; zeros without a mode.
    """
    amplitude, spread = _amplitudes(channel, error, beam)
    of_mode = np.zeros((modes, len(channel)))
    np.add.at(of_mode, mode, ((amplitude + spread) ** 2).T)
    return np.asarray(of_mode.max(axis=0, initial=0.0))


def _amplitudes(
    channel: ComplexArray, error: FloatArray, beam: ComplexArray
) -> tuple[FloatArray, FloatArray]:
    """Return (K, X) amplitudes y and spreads s."""
    users, nodes, antennas = channel.shape
    amplitude = np.abs(
        channel.conj().reshape(users, nodes * antennas)
        @ beam.reshape(len(beam), nodes * antennas).T
    )
    return amplitude, error @ np.linalg.norm(beam, axis=2).T


def rate(
    sinr: NDArray[np.float64] | float, bandwidth: float, max_spectral_efficiency: float
) -> FloatArray:
    """Return W min(eta, log2(1 + sinr)) in bit/s.

    Parameters
    ----------
    sinr
        Linear ratio(s).
    bandwidth
        W in Hz.
    max_spectral_efficiency
        eta in bit/s/Hz, may be infinite.
    """
    return np.asarray(
        bandwidth * np.minimum(max_spectral_efficiency, np.log1p(sinr) / np.log(2.0)),
        dtype=np.float64,
    )
