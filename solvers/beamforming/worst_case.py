"""One multicast transmission under channel uncertainty: the exact worst case, and its normal form.

Every beamforming method here solves the same problem for one message (docs/formulation.md
section 3): choose w_n with norm(w_n)^2 <= P_n to

    maximise  min_k  max(0, |y_k| - sum_n eps_{k,n} norm(w_n)),     y_k = sum_n g_{k,n}^H w_n

The square of that minimum is the SNR which every user has for every channel in its error balls:
exact by the triangle inequality, and attained when every error turns against the signal,
d_{k,n} = -eps_{k,n} (conj(y_k) / |y_k|) w_n / norm(w_n). Channels are normalised by the noise
amplitude.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.arrays import ComplexArray, FloatArray, IntArray, checked
from finecast.solvers.rounding import EPSILON


@dataclass(frozen=True)
class Multicast:
    """What a beamforming method returns for one message.

    Attributes
    ----------
    beamformer
        w, shape (N, A), complex, in sqrt(W); norm(w_n)^2 <= P_n.
    snr
        Worst-case SNR of the weakest user, linear, by the closed form.
    """

    beamformer: ComplexArray
    snr: float


@dataclass(frozen=True)
class NormalForm:
    """The same problem with unit powers, without useless nodes and antennas.

    A node is useless when it has no power or when no user hears it above its error radius:
    silencing it changes user k's margin by at least (eps_{k,n} - norm(g_{k,n})) norm(w_n) >= 0.
    Of the antennas only the span of the K channels matters, min(A, K) dimensions: with the QR
    factorisation g_{k,n} = Q_n r_{k,n}, w_n = sqrt(P_n) Q_n v_n loses nothing.

    Attributes
    ----------
    channel
        sqrt(P_n) r_{k,n} of the n useful nodes, shape (K, n, min(A, K)), sqrt of SNR.
    error
        sqrt(P_n) eps_{k,n}, shape (K, n), sqrt of SNR.
    strength
        sum_n norm(sqrt(P_n) g_{k,n}), shape (K,): no user's amplitude can exceed it.
    best_alone
        sum_n max(0, norm(channel) - error), shape (K,): the amplitude that user k would have if
        it were the only one (MRT). No beam gives more, up to rounding. That is much where channel -
        error cancels, so this is a scale of the search and no certified bound.
    nodes
        Indices of the useful nodes, shape (n,).
    basis
        sqrt(P_n) Q_n, shape (n, A, min(A, K)), sqrt(W).
    """

    channel: ComplexArray
    error: FloatArray
    strength: FloatArray
    best_alone: FloatArray
    nodes: IntArray
    basis: ComplexArray

    def beamformer(self, reduced: ComplexArray, nodes: int) -> ComplexArray:
        """Return w (nodes, A) of the original problem from v (n, min(A, K)) with norm(v_n) <= 1."""
        full = np.zeros((nodes, self.basis.shape[1]), dtype=np.complex128)
        full[self.nodes] = np.einsum("nar,nr->na", self.basis, reduced)
        return full


def check_problem(
    channel: ArrayLike, error: ArrayLike, power: ArrayLike
) -> tuple[ComplexArray, FloatArray, FloatArray]:
    """Return (channel, error, power) as read-only arrays.

    Parameters
    ----------
    channel
        g, shape (K, N, A) with K, N, A >= 1, normalised by the noise amplitude, 1/sqrt(W).
    error
        eps, shape (K, N), radius of each error ball, 1/sqrt(W), >= 0.
    power
        P, shape (N,), W, >= 0.

    Raises
    ------
    ValueError
        Names the argument, the value, its index and what is allowed.
    """
    shape = np.shape(channel)
    if len(shape) != 3 or 0 in shape:
        raise ValueError(
            f"channel: shape is {shape}, expected (users, nodes, antennas), each at least 1"
        )
    users, nodes, _ = shape
    return (
        checked("channel", channel, "complex", shape),
        checked("error", error, "float", (users, nodes), low=0),
        checked("power", power, "float", (nodes,), low=0),
    )


def margins(channel: ComplexArray, error: FloatArray, beamformer: ComplexArray) -> FloatArray:
    """Return every user's worst-case amplitude (..., K) for beams (..., N, A).

    It is |sum_n g_{k,n}^H w_n| - sum_n eps_{k,n} norm(w_n). Where it is negative, some channel in
    the balls gives user k nothing.
    """
    signal = np.einsum("kna,...na->...k", np.conj(channel), beamformer)
    norms = np.linalg.norm(beamformer, axis=-1)
    return np.asarray(np.abs(signal) - norms @ error.T)


def worst_case_snr(channel: ArrayLike, error: ArrayLike, beamformer: ArrayLike) -> float:
    """Return the smallest SNR over users and over all channels in their error balls.

    snr = (min_k max(0, |sum_n g_{k,n}^H w_n| - sum_n eps_{k,n} norm(w_n)))^2

    Parameters
    ----------
    channel, error
        g (K, N, A) and eps (K, N), normalised by the noise amplitude, 1/sqrt(W).
    beamformer
        w, shape (N, A), sqrt(W).

    Raises
    ------
    ValueError
        Shapes that do not fit, numbers that are not finite, negative radii.

    Examples
    --------
    Two nodes with one antenna and one user, in phase: amplitude 3 + 4 - 0.5 - 1.

    >>> worst_case_snr([[[3.0], [4.0]]], [[0.5, 1.0]], [[1.0], [1.0]])
    30.25
    """
    nodes = np.shape(channel)[1] if np.ndim(channel) == 3 else 0
    g, eps, _ = check_problem(channel, error, np.ones(nodes))
    w = checked("beamformer", beamformer, "complex", g.shape[1:])
    return float(max(0.0, margins(g, eps, w).min())) ** 2


def scale_to_power(beamformer: ComplexArray, power: FloatArray) -> ComplexArray:
    """Scale down the nodes that exceed their limit; never scale up.

    Parameters
    ----------
    beamformer
        w, shape (..., N, A), sqrt(W).
    power
        P, shape (N,), W.
    """
    norms = np.linalg.norm(beamformer, axis=-1)
    # A limit a few units in the last place lower, so that the power after rounding is within P.
    limits = np.sqrt(power) * (1 - 8 * EPSILON)
    factors = np.divide(limits, norms, out=np.ones_like(norms), where=norms > limits)
    return np.asarray(beamformer * factors[..., None])


def mrt_sum(channel: ComplexArray, power: FloatArray, phases: ComplexArray) -> ComplexArray:
    """Return the sum of every user's maximum-ratio beam, shape (..., N, A).

    w_n = sqrt(P_n) v_n / norm(v_n) with v_n = sum_k e_k g_{k,n} / norm(g_k). The norm of g_k is
    over all nodes, so that every user counts alike.

    Parameters
    ----------
    channel
        g, shape (K, N, A).
    power
        P, shape (N,), W.
    phases
        e, shape (..., K), of modulus one.
    """
    strength = np.linalg.norm(channel, axis=(1, 2))
    weights = np.divide(1.0, strength, out=np.zeros_like(strength), where=strength > 0)
    beams = np.einsum("...k,k,kna->...na", phases, weights, channel)
    norms = np.linalg.norm(beams, axis=-1)
    scale = np.divide(np.sqrt(power), norms, out=np.zeros_like(norms), where=norms > 0)
    return scale_to_power(beams * scale[..., None], power)


def normal_form(channel: ComplexArray, error: FloatArray, power: FloatArray) -> NormalForm:
    """Drop useless nodes, put powers into channels and errors, and reduce the antennas by QR."""
    norms = np.linalg.norm(channel, axis=-1)
    nodes = np.flatnonzero((power > 0) & (norms > error).any(axis=0))
    amplitude = np.sqrt(power[nodes])
    columns = amplitude[:, None, None] * channel[:, nodes].transpose(1, 2, 0)  # (n, A, K)
    q, r = np.linalg.qr(columns)
    scaled_norms = norms[:, nodes] * amplitude
    scaled_error = error[:, nodes] * amplitude
    return NormalForm(
        channel=np.ascontiguousarray(r.transpose(2, 0, 1)),
        error=scaled_error,
        strength=scaled_norms.sum(axis=1),
        best_alone=np.maximum(0.0, scaled_norms - scaled_error).sum(axis=1),
        nodes=nodes,
        basis=q * amplitude[:, None, None],
    )
