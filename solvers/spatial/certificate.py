"""The certificate: from any multipliers to a lower bound on the time on the air.

B_k is what user k needs, in nat/(s Hz) times s (bits times ln 2 / W), x_k = (sqrt(P_n) g_kn)_n its
channel at full power, x'_k the weakest in the error ball, E_k = blockdiag_n(P_n eps_kn^2 I),
T_k = (sum_n norm(x_kn))^2, mu_n > 0 with sum_n mu_n = 1, D = blockdiag_n(mu_n I).

* one user:    T >= B_k / log(1 + T'_k), and no more than a few streams at the cap fit in it;
* all users:   the modes are divided into boxes of the beam power Y_k in [low_k, high_k] that each
  user receives from messages for others. For weights w >= 0 and, in each box, slopes beta > 0,
  prices lambda, nu >= 0 of disturbance by errors and by beams,

      T >= sum_k w_k B_k / max over boxes of (sum_k w_k c_k + t),

  c_k the most that a user's rate exceeds beta_k S - lambda_k e - nu_k Y (`most_over_prices`) and
  t >= 0 such that for every message l

      sum_{k hears l} w_k beta_k x'_k x'_k^H
          - sum_{k does not} w_k (nu_k x_k x_k^H + lambda_k E_k) <= t D.

The bound for any scheme (B1) is that of one message that everybody hears (`pooled`). Nothing here
depends on the placement or on how blocks are grouped into messages: B_k counts every block that
user k needs once, and the condition of a message for fewer users or from fewer nodes follows from
that of a user group that contains them and all nodes. The proofs are in docs/methods.md, "Spatial
bounds".
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray
from finecast.solvers.rounding import EPSILON, SUM_ALLOWANCE


@dataclass(frozen=True, eq=False)
class Downlink:
    """What the users of one slot must receive, and over which channels.

    Attributes
    ----------
    channel
        (K, N, A) complex, sqrt(P_n) g_kn: the amplitude that a node at full power can cause, in
        noise amplitudes.
    weakest
        (K, N, A) complex, in its error ball.
    error
        (K, N), sqrt(P_n) eps_kn, radii of the balls.
    nats
        (K,) s, B_k, the bits that user k needs times ln 2 / W, > 0.
    listeners
        (G, K) bool, the user sets that messages may be for.
    senders
        (G, N) bool, the nodes that may send them.
    """

    channel: ComplexArray
    weakest: ComplexArray
    error: FloatArray
    nats: FloatArray
    listeners: BoolArray
    senders: BoolArray


@dataclass(frozen=True, eq=False)
class ModeDual:
    """Multipliers, for L boxes; any weights >= 0 and positive others prove a bound.

    Attributes
    ----------
    weight
        (K,) w_k, of the user's bits.
    slope
        (L, K) beta_k, of received power.
    error_price, beam_price
        (L, K) lambda_k and nu_k, of power that the errors make of messages for others, and of the
        power of their beams.
    price
        (L, N) mu_n P_n, of a node's power.
    splits
        How the boxes came about: (box, user, power) cut the box; the part above became a new one.
    """

    weight: FloatArray
    slope: FloatArray
    error_price: FloatArray
    beam_price: FloatArray
    price: FloatArray
    splits: tuple[tuple[int, int, float], ...] = ()


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
    rounding = 4 * (channel.shape[1] + channel.shape[2] + 16) * EPSILON
    return np.asarray(amplitude.sum(axis=1) ** 2 * (1 + rounding))


def pooled(d: Downlink) -> Downlink:
    """Return the downlink whose bound is B1: one message from all nodes that everybody hears.

    Parameters
    ----------
    d
        Channels and needs.
    """
    everybody, everywhere = np.ones((1, len(d.nats)), bool), np.ones((1, d.channel.shape[1]), bool)
    return replace(d, listeners=everybody, senders=everywhere)


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
        alone = d.nats / most_nats(strongest(d.weakest, served), cap)
    return float(alone.max(initial=0.0)) * (1.0 - SUM_ALLOWANCE)


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


def boxes(
    splits: tuple[tuple[int, int, float], ...], most: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return (L, K) low and high: boxes that together hold 0 <= Y <= most, by construction.

    Parameters
    ----------
    splits
        As in `ModeDual`.
    most
        (K,) the most power that each user can receive.
    """
    low, high = np.zeros((1, len(most))), most[None].copy()
    for box, user, power in splits:
        low, high = np.vstack([low, low[box]]), np.vstack([high, high[box]])
        high[box, user] = low[-1, user] = power
    return low, high


def most_over_prices(
    slope: FloatArray,
    error_price: FloatArray,
    noise: FloatArray,
    ceiling: FloatArray,
    ratio: FloatArray,
) -> FloatArray:
    """Upper bound on log(1 + S / (n + e)) - beta S + lambda e, all arrays (..., K).

    Over 0 <= e <= F, 0 <= S <= kappa (F - e); S is free where F is 0 or kappa infinite.

    1. With S free the maximum over S is psi(beta (n + e)) + lambda e, psi(s) = s - 1 - log s for
       s <= 1 and 0 beyond, convex in e: the largest over [0, e_1] is at an end.
    2. From e_1 = (kappa F + n - 1 / beta) / (kappa - 1) on, S stops at kappa (F - e). With
       u = n + e and q = u + kappa (F - e), log q - log u - beta kappa (F - e) + lambda e is convex
       in e up to u = q / (kappa - 1) and concave from there. On the concave part it is below its
       tangent at any point, best where it is flat; on the convex part below the larger end.

    Parameters
    ----------
    slope, error_price
        beta > 0 and lambda >= 0.
    noise
        n >= 1, with the received power that is not for the user.
    ceiling, ratio
        F >= 0 and kappa.
    """
    n, top = noise, ceiling

    def free(e: FloatArray) -> FloatArray:
        s = np.minimum(slope * (n + e), 1.0)
        log = np.log(s)
        pad = 32 * EPSILON * (2.0 - log + error_price * e)
        return np.asarray(s - 1.0 - log + error_price * e + pad)

    limited = np.isfinite(ratio) & (ratio > 1.0) & (top > 0)
    kappa = np.where(limited, ratio, 2.0)
    start = (kappa * top + n - 1.0 / slope) / (kappa - 1.0)
    start = np.maximum(start + 64 * EPSILON * (kappa * top + n + 1.0 / slope) / (kappa - 1.0), 0.0)
    start = np.where(limited, np.minimum(start, top), top)

    def stopped(e: FloatArray) -> FloatArray:
        signal = kappa * (top - e)
        rise, cost = np.log1p(signal / (n + e)), slope * signal + error_price * e
        value = rise - slope * signal + error_price * e
        return np.asarray(value + 32 * EPSILON * (1.0 + rise + cost))

    def tangent(e: FloatArray) -> tuple[FloatArray, FloatArray]:
        u, q = n + e, n + e + kappa * (top - e)
        terms = (kappa - 1.0) / q, 1.0 / u, slope * kappa + error_price
        return np.asarray(terms[2] - terms[0] - terms[1]), np.asarray(32 * EPSILON * sum(terms))

    whole, steep = kappa * (top + n), slope * kappa + error_price
    turn = np.clip(whole / (2.0 * (kappa - 1.0)) - n, start, top)
    root = np.sqrt(np.maximum((steep * whole) ** 2 - 4.0 * steep * (kappa - 1.0) * whole, 0.0))
    flat = np.clip((steep * whole + root) / (2.0 * steep * (kappa - 1.0)) - n, turn, top)
    rise, slack = tangent(flat)
    above = np.maximum(rise + slack, 0.0) * (top - flat) - np.minimum(rise - slack, 0.0) * (
        flat - turn
    )
    late = np.maximum(stopped(start), stopped(flat) + above * (1.0 + 8 * EPSILON))
    early = np.maximum(free(np.zeros_like(n)), free(start))
    early = np.where(limited & (start <= 0), 0.0, early)
    return np.asarray(np.where(limited, np.maximum(early, late), early))


def floors(d: Downlink) -> tuple[FloatArray, FloatArray]:
    """Return (K,) F = sum_n P_n eps_kn^2 and kappa = sum_n norm(x'_kn)^2 / (P_n eps_kn^2), above.

    What the errors make of full power, and the most signal from power that would disturb by 1.

    Parameters
    ----------
    d
        Channels and errors.
    """
    power = (np.abs(d.weakest) ** 2).sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(power > 0, power / d.error**2, 0.0).sum(axis=1)
    up = 1.0 + 8 * (d.channel.shape[1] + d.channel.shape[2] + 16) * EPSILON
    return np.asarray((d.error**2).sum(axis=1) * up), np.asarray(ratio * up)


def time_bound(d: Downlink, point: ModeDual) -> float:
    """Return s: the bound that a dual point proves.

    Rounding. w, beta, lambda, nu and mu are free: the arrays computed are the exact ones meant. c
    is rounded up, what others' messages cost is rounded down.

    Parameters
    ----------
    d
        What is to be received.
    point
        Multipliers.
    """
    w, slope = point.weight, point.slope
    ceiling, ratio = floors(d)
    ends = [
        most_over_prices(slope, point.error_price, 1.0 + y, ceiling, ratio) + point.beam_price * y
        for y in boxes(point.splits, strongest(d.channel))
    ]
    over = np.maximum(*ends) * (1.0 + 8 * EPSILON)
    noisy = bool(d.error.any())
    antennas = d.channel.shape[2]
    sending = np.repeat(d.senders, antennas, axis=1)
    spent = 0.0
    for b, price in enumerate(point.price):
        gain = np.where(d.listeners, w * slope[b], 0.0)
        loss = np.where(d.listeners, 0.0, w * point.beam_price[b] * (1.0 - 8 * EPSILON))
        channel, coefficient, floor = d.weakest, gain - loss, np.zeros(sending.shape)
        if noisy:
            channel = np.concatenate([d.weakest, d.channel])
            coefficient = np.hstack([gain, -loss])
            disturbed = np.where(d.listeners, 0.0, w * point.error_price[b])
            floor = disturbed @ (d.error**2 / price) * (1.0 - 8 * (len(w) + 8) * EPSILON)
            floor = np.repeat(floor, antennas, axis=1)
        rows = (channel / np.sqrt(price)[:, None]).reshape(len(channel), -1)
        t = largest_signed_eigenvalue_bound(rows, coefficient, floor, sending)
        spent = max(spent, float((w * over[b]).sum()) + t * float(price.sum()))
    return float((w * d.nats).sum()) / spent * (1.0 - SUM_ALLOWANCE)


def largest_signed_eigenvalue_bound(
    rows: ComplexArray, coefficient: FloatArray, floor: FloatArray, sending: BoolArray
) -> float:
    """Upper bound on max(0, lambda_max(sum_k a_gk x_k x_k^H - diag(f_g))) over g, exactly valid.

    The eigenvalue solver is not relied on: its value t, padded, is accepted only if the Cholesky
    factorisation of t I - H runs to completion, which proves that t bounds the exact eigenvalue up
    to a known error (S. M. Rump, BIT 46, 2006, theorem 2.3, with twice the constants for complex
    numbers). Errors are measured by sum_k max_g |a_gk| norm(x_k)^2 and the largest sum of f, which
    bound the trace norms. With fewer users than antennas and f = 0 the matrices are taken in the
    basis of a QR factorisation: R comes with an exactly unitary Q for columns within gamma_(cmn)
    norm(x_k) of x_k (Higham, *Accuracy and stability of numerical algorithms*, 2002, theorem 19.4),
    which the pad includes.

    Parameters
    ----------
    rows
        x_k, (K, m).
    coefficient
        a, (G, K).
    floor
        f, (G, m), >= 0.
    sending
        (G, m) bool, entries of x that count for g.
    """
    users, size = rows.shape
    magnitude = float(np.abs(coefficient).max(axis=0) @ (np.abs(rows) ** 2).sum(axis=1))
    magnitude += float(floor.sum(axis=1).max(initial=0.0))
    if not np.isfinite(magnitude):
        return np.inf
    terms = users + size + 16
    if users < size and sending.all() and not floor.any():
        rows = np.asarray(np.linalg.qr(rows.T, mode="r")).T
        terms += 2 * users * size
        sending, size, floor = sending[:, :users], users, floor[:, :users]
    matrices = rows.T @ (coefficient[..., None] * rows.conj())
    matrices = matrices - floor[..., None] * np.eye(size)
    matrices = matrices * (sending[:, None] & sending[..., None])
    pad = 8 * terms * EPSILON * magnitude + 1e-200
    limit = max(0.0, float(np.linalg.eigvalsh(matrices)[:, -1].max())) + pad
    while True:
        try:
            np.linalg.cholesky(limit * np.eye(size) - matrices)
            break
        except np.linalg.LinAlgError:
            pad *= 2
            limit += pad
    proof = 8 * (size + 2) * EPSILON * (size * limit + magnitude)
    return float((limit + pad + proof) * (1 + 4 * EPSILON))
