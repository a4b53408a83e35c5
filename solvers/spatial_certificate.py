"""The certificate: from any multipliers to a lower bound on the time on the air.

B_k is what user k needs, in nat/(s Hz) times s (bits times ln 2 / W), x_k = (sqrt(P_n) g_kn)_n its
channel at full power, T_k = (sum_n norm(x_kn))^2 the most power that it can receive, mu_n > 0 with
sum_n mu_n = 1, D = blockdiag_n(mu_n I), phi(M) = log(1 + M) - M / (1 + M). For any w >= 0, M > 0:

* one user:    T >= B_k / log(1 + T_k), and no more than a few streams at the cap fit in it;
* any scheme (B1):  T >= sum_k w_k B_k / (sum_k w_k phi(M_k) + t)  with

      sum_k w_k / (1 + M_k) x_k x_k^H <= t D;

* linear beams, interference as noise (B2): the same with, for every message l,

      sum_{k hears l} w_k / (1 + M_k) x_k x_k^H
          - sum_{k does not} w_k phi(M_k) / T_k x_k x_k^H <= t D,   t >= 0.

B1 is B2 of one message that everybody hears (`pooled`). Nothing here depends on the placement or
on how blocks are grouped into messages: B_k counts every block that user k needs once, and
the condition of a message for fewer users or from fewer nodes follows from that of a user group
that contains them and all nodes. The proofs are in docs/methods.md, "Spatial bounds".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from problem.arrays import BoolArray, ComplexArray, FloatArray

UNIT = float(np.finfo(np.float64).eps)
"""2^-52, twice the unit roundoff u."""

ROUNDING = 1e-12
"""Bounds are lowered by this share: products and sums of at most 1e3 positive terms err by less."""


@dataclass(frozen=True, eq=False)
class Downlink:
    """What the users of one slot must receive, and over which channels.

    Attributes
    ----------
    channel
        (K, N, A) complex, sqrt(P_n) g_kn: the amplitude that a node at full power can cause, in
        noise amplitudes.
    nats
        (K,) s, B_k, the bits that user k needs times ln 2 / W, > 0.
    listeners
        (G, K) bool, the user sets that messages may be for.
    senders
        (G, N) bool, the nodes that may send them.
    """

    channel: ComplexArray
    nats: FloatArray
    listeners: BoolArray
    senders: BoolArray


@dataclass(frozen=True, eq=False)
class DualPoint:
    """Multipliers; any weights >= 0, slopes within (0, 1] and prices > 0 prove a bound.

    Attributes
    ----------
    weight
        (K,) w_k, of the user's bits.
    slope
        (K,) 1 / (1 + M_k), of the tangent to log(1 + x) at M_k.
    price
        (N,) mu_n P_n, of a node's power.
    """

    weight: FloatArray
    slope: FloatArray
    price: FloatArray


def strongest(channel: ComplexArray, served: BoolArray | None = None) -> FloatArray:
    """Return (K,) (sum_n norm(x_kn))^2, the most power that a user can receive, rounded up.

    Parameters
    ----------
    channel
        (K, N, A) at full power, in noise amplitudes.
    served
        (K, N), the nodes that count; all if None.
    """
    amplitude = np.linalg.norm(channel, axis=2)
    if served is not None:
        amplitude = amplitude * served
    rounding = 4 * (channel.shape[1] + channel.shape[2] + 16) * np.finfo(np.float64).eps
    return np.asarray(amplitude.sum(axis=1) ** 2 * (1 + rounding))


def pooled(d: Downlink) -> Downlink:
    """Return the downlink whose bound is B1: one message from all nodes that everybody hears.

    Parameters
    ----------
    d
        Channels and needs.
    """
    everybody, everywhere = np.ones((1, len(d.nats)), bool), np.ones((1, d.channel.shape[1]), bool)
    return Downlink(d.channel, d.nats, everybody, everywhere)


def user_bound(d: Downlink, cap: float = np.inf) -> float:
    """Return s: the longest that any user needs with all nodes that may serve it to itself.

    Parameters
    ----------
    d
        Channels and needs.
    cap
        Highest rate of one message, nat/(s Hz).
    """
    served = d.listeners.T.astype(np.int64) @ d.senders > 0
    with np.errstate(divide="ignore"):
        alone = d.nats / most_nats(strongest(d.channel, served), cap)
    return float(alone.max(initial=0.0)) * (1.0 - ROUNDING)


def most_nats(snr: FloatArray, cap: float) -> FloatArray:
    """Return nat/(s Hz): the most that a user can decode at once, in messages of capped rates.

    Messages at SINR x_i (interference of the others as noise) share the received power S:
    sum_i x_i / (1 + x_i) <= S / (1 + S). With p_i = x_i / (1 + x_i) a rate is -log(1 - p_i), which
    is convex, so that the best has all p_i but one at 0 or at the cap's.

    Parameters
    ----------
    snr
        (K,) S, linear.
    cap
        Highest rate of one message, nat/(s Hz).
    """
    cap = min(cap, 700.0)  # no more fits in float64
    share, full = snr / (1.0 + snr), -np.expm1(-cap)
    streams = np.floor(share / full)
    rest = np.maximum(share - streams * full, 0.0)
    alone = np.log1p(snr)
    capped = streams * cap - np.log1p(-np.where(streams > 0, rest, 0.0))
    return np.where(streams > 0, np.minimum(alone, capped), alone)


def time_bound(d: Downlink, point: DualPoint) -> float:
    """Return s: the bound B2 that a dual point proves.

    Rounding. w, 1/(1 + M) and mu are free: the arrays computed are the exact ones meant. With slope
    s, phi = s - 1 - log s, rounded up. The terms of the users that do not hear a message may be
    smaller than they are in the formula: they are rounded down.

    Parameters
    ----------
    d
        What is to be received.
    point
        Weights, slopes and prices.
    """
    w, slope, price = point.weight, point.slope, point.price
    minus_log = -np.log(slope)
    phi = (minus_log - (1.0 - slope)) + 16 * UNIT * (2.0 + minus_log)
    loss = w * phi / np.maximum(strongest(d.channel), 1e-100) * (1.0 - 8 * UNIT)
    coefficient = np.where(d.listeners, w * slope, -loss)
    rows = (d.channel / np.sqrt(price)[:, None]).reshape(len(w), -1)
    sending = np.repeat(d.senders, d.channel.shape[2], axis=1)
    t = largest_signed_eigenvalue_bound(rows, coefficient, sending)
    spent = float((w * phi).sum()) + t * float(price.sum())
    return float((w * d.nats).sum()) / spent * (1.0 - ROUNDING)


def largest_signed_eigenvalue_bound(
    rows: ComplexArray, coefficient: FloatArray, sending: BoolArray
) -> float:
    """Upper bound on max(0, lambda_max(sum_k a_gk x_k x_k^H)) over g, valid in exact arithmetic.

    As `solvers.beamforming.dual_bound.largest_eigenvalue_bound`, for coefficients of both signs:
    the trace is replaced by sum_k max_g |a_gk| norm(x_k)^2, which bounds the trace norms. With
    fewer users than antennas the matrices are taken in the basis of a QR factorisation: R comes
    with an exactly unitary Q for columns within gamma_(cmn) norm(x_k) of x_k (Higham, *Accuracy
    and stability of numerical algorithms*, 2002, theorem 19.4), which the pad includes.

    Parameters
    ----------
    rows
        x_k, (K, m).
    coefficient
        a, (G, K).
    sending
        (G, m) bool, entries of x that count for g.
    """
    users, size = rows.shape
    magnitude = float(np.abs(coefficient).max(axis=0) @ (np.abs(rows) ** 2).sum(axis=1))
    if not np.isfinite(magnitude):
        return np.inf
    terms = users + size + 16
    if users < size and sending.all():
        rows = np.asarray(np.linalg.qr(rows.T, mode="r")).T
        terms += 2 * users * size
        sending, size = sending[:, :users], users
    matrices = rows.T @ (coefficient[..., None] * rows.conj())
    matrices = matrices * (sending[:, None] & sending[..., None])
    pad = 8 * terms * UNIT * magnitude + 1e-200
    limit = max(0.0, float(np.linalg.eigvalsh(matrices)[:, -1].max())) + pad
    while True:
        try:
            np.linalg.cholesky(limit * np.eye(size) - matrices)
            break
        except np.linalg.LinAlgError:
            pad *= 2
            limit += pad
    proof = 8 * (size + 2) * UNIT * (size * limit + magnitude)
    return float((limit + pad + proof) * (1 + 4 * UNIT))
