"""The certificate: from any multipliers to a lower bound on the time on the air.

Symbols: B_k is what user k needs, in nat/(s Hz) times s (bits times ln 2 / W). Its channel at full
power is x_k = (sqrt(P_n) g_kn)_n, and x'_k is the weakest one in the error ball.
E_k = blockdiag_n(P_n eps_kn^2 I), T_k = (sum_n norm(x_kn))^2, mu_n > 0 with sum_n mu_n = 1,
D = blockdiag_n(mu_n I).

* One user: T >= B_k / log(1 + T'_k). With a cap, few messages at the cap fit in T'_k.
* All users: the modes are divided into boxes of the power Y_k in [low_k, high_k] that each user
  receives by beams of messages for others. Take weights w >= 0 and, in each box, slopes beta > 0
  and prices lambda, nu >= 0 of disturbance by errors and by beams. Then

      T >= sum_k w_k B_k / max over boxes of (sum_k w_k c_k + t),

  where c_k is the most that a user's rate exceeds beta_k S - lambda_k e - nu_k Y
  (`most_over_prices`), and t >= 0 is such that for every message l

      sum_{k hears l} w_k beta_k x'_k x'_k^H
          - sum_{k does not} w_k (nu_k x_k x_k^H + lambda_k E_k) <= t D.

Nothing here depends on the placement or on how blocks are grouped into messages. B_k counts every
block that user k needs once. The condition of a message for fewer users or from fewer nodes follows
from that of a user group that contains them and all nodes. The proofs are in docs/methods.md,
"Spatial bounds".
"""

from __future__ import annotations

from dataclasses import dataclass

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

    Examples
    --------
    Amplitudes 3 and 4 of two nodes add up in phase to the power 49.

    >>> import numpy as np
    >>> from finecast.solvers.spatial.certificate import strongest
    >>> print(strongest(np.array([[[3.0, 0.0], [0.0, 4.0j]]])).round(9))
    [49.]
    """
    amplitude = np.linalg.norm(channel, axis=2)
    if served is not None:
        amplitude = amplitude * served
    rounding = 4 * (channel.shape[1] + channel.shape[2] + 16) * EPSILON
    return np.asarray(amplitude.sum(axis=1) ** 2 * (1 + rounding))


def user_bound(d: Downlink, cap: float = np.inf) -> float:
    """Return s: the longest that any user needs with all nodes that may serve it to itself.

    Parameters
    ----------
    d
        Channels and needs.
    cap
        Highest rate of one message, nat/(s Hz).

    Examples
    --------
    A user of SNR 49 needs 2 nat/Hz, at most at log(50) nat/(s Hz).

    >>> import numpy as np
    >>> from finecast.solvers.spatial.bounds import downlink
    >>> from finecast.solvers.spatial.certificate import user_bound
    >>> case = downlink(np.full((1, 1, 1), 7.0), np.zeros((1, 1)), [1.0], [[True]], [2.0])
    >>> print(f"{user_bound(case):.6f} s, by hand {2 / np.log(50):.6f} s")
    0.511244 s, by hand 0.511244 s
    """
    served = d.listeners.T.astype(np.int64) @ d.senders > 0
    with np.errstate(divide="ignore"):
        alone = d.nats / most_nats(strongest(d.weakest, served), cap)
    return float(alone.max(initial=0.0)) * (1.0 - SUM_ALLOWANCE)


def most_nats(snr: FloatArray, cap: float) -> FloatArray:
    """Return nat/(s Hz): the most that a user can decode at once, in messages of capped rates.

    Messages at SINR x_i (interference of the others as noise) share the received power S:
    sum_i x_i / (1 + x_i) <= S / (1 + S). With p_i = x_i / (1 + x_i) a rate is -log(1 - p_i). This
    is convex, so that in the best case all p_i but one are 0 or at the cap.

    Parameters
    ----------
    snr
        (K,) S, linear.
    cap
        Highest rate of one message, nat/(s Hz).

    Examples
    --------
    A cap of 1 bit/(s Hz) is no loss at SNR 1. At SNR 3, a second message gets log2(4/3) beside the
    first one. At infinite SNR two messages at the cap fit.

    >>> import numpy as np
    >>> from finecast.solvers.spatial.certificate import most_nats
    >>> print((most_nats(np.array([1.0, 3.0, 1e15]), np.log(2.0)) / np.log(2.0)).round(4))
    [1.    1.415 2.   ]
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

    Examples
    --------
    One user of at most 10: the box [0, 10] is cut at 4, then its upper part at 6.

    >>> import numpy as np
    >>> from finecast.solvers.spatial.certificate import boxes
    >>> low, high = boxes(((0, 0, 4.0), (1, 0, 6.0)), np.array([10.0]))
    >>> print(low.ravel(), high.ravel())
    [0. 4. 6.] [ 4.  6. 10.]
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
    """Return an upper bound on log(1 + S / (n + e)) - beta S + lambda e, all arrays (..., K).

    It holds for all 0 <= e <= F and 0 <= S <= kappa (F - e), and for all S >= 0 where F is 0 or
    kappa is infinite or at most 1.

    1. With S free the maximum over S is psi(beta (n + e)) + lambda e, where psi(s) = s - 1 - log s
       for s <= 1 and 0 beyond. It is convex in e, so that the largest over [0, e_1] is at an end.
    2. From e_1 = (kappa F + n - 1 / beta) / (kappa - 1) on, S stops at kappa (F - e). With
       u = n + e and q = u + kappa (F - e), the value log q - log u - beta kappa (F - e) + lambda e
       is convex in e up to u = q / (kappa - 1) and concave from there. The convex part is below
       the larger of its ends. The concave part is below its tangent at any point, and the best
       point is where it is flat.

    Parameters
    ----------
    slope, error_price
        beta > 0 and lambda >= 0.
    noise
        n >= 1, with the received power that is not for the user.
    ceiling, ratio
        F >= 0 and kappa.

    Examples
    --------
    Without errors the value is psi(beta n): psi(0.5) = log 2 - 0.5.

    >>> import numpy as np
    >>> from finecast.solvers.spatial.certificate import most_over_prices
    >>> slope, noise, none = np.array([0.25]), np.array([2.0]), np.zeros(1)
    >>> print(most_over_prices(slope, none, noise, none, none).round(6))
    [0.193147]
    """
    n, top = noise, ceiling

    # 1. S is free. Rounding: each of the terms errs by a few units of its own size.

    def free(e: FloatArray) -> FloatArray:
        s = np.minimum(slope * (n + e), 1.0)
        log = np.log(s)
        pad = 32 * EPSILON * (2.0 - log + error_price * e)
        return np.asarray(s - 1.0 - log + error_price * e + pad)

    limited = np.isfinite(ratio) & (ratio > 1.0) & (top > 0)
    kappa = np.where(limited, ratio, 2.0)
    # Rounded up, e_1 is the end of the part where S is free and the start of the other.
    start = (kappa * top + n - 1.0 / slope) / (kappa - 1.0)
    start = np.maximum(start + 64 * EPSILON * (kappa * top + n + 1.0 / slope) / (kappa - 1.0), 0.0)
    start = np.where(limited, np.minimum(start, top), top)

    # 2. S = kappa (F - e): the value, and the slope of its tangent with what it may be wrong by.
    def stopped(e: FloatArray) -> FloatArray:
        signal = kappa * (top - e)
        rise, cost = np.log1p(signal / (n + e)), slope * signal + error_price * e
        value = rise - slope * signal + error_price * e
        return np.asarray(value + 32 * EPSILON * (1.0 + rise + cost))

    def tangent(e: FloatArray) -> tuple[FloatArray, FloatArray]:
        u, q = n + e, n + e + kappa * (top - e)
        falls, drops, rises = (kappa - 1.0) / q, 1.0 / u, slope * kappa + error_price
        error = 32 * EPSILON * (falls + drops + rises)
        return np.asarray(rises - falls - drops), np.asarray(error)

    # The concave part begins at `turn`; the tangent at `flat` is above it as far as `turn` and F.
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
    """Return (K,) F = sum_n P_n eps_kn^2 and kappa = sum_n norm(x'_kn)^2 / (P_n eps_kn^2).

    F is what the errors make of full power. kappa is the most signal from power that would disturb
    another user by 1. Both are rounded up.

    Parameters
    ----------
    d
        Channels and errors.

    Examples
    --------
    A channel of norm 5 with an error of 1 at a node of 4 W: F = 4 1^2, kappa = (5 - 1)^2 / 1^2.

    >>> import numpy as np
    >>> from finecast.solvers.spatial.bounds import downlink
    >>> from finecast.solvers.spatial.certificate import floors
    >>> case = downlink(np.array([[[3.0, 4.0j]]]), [[1.0]], [4.0], [[True]], [1.0])
    >>> ceiling, ratio = floors(case)
    >>> print(ceiling.round(9), ratio.round(9))
    [4.] [16.]
    """
    power = (np.abs(d.weakest) ** 2).sum(axis=2)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.where(power > 0, power / d.error**2, 0.0).sum(axis=1)
    up = 1.0 + 8 * (d.channel.shape[1] + d.channel.shape[2] + 16) * EPSILON
    return np.asarray((d.error**2).sum(axis=1) * up), np.asarray(ratio * up)


def time_bound(d: Downlink, point: ModeDual) -> float:
    """Return s: the bound that a dual point proves; not a number if its multipliers overflow.

    Rounding. w, beta, lambda, nu and mu are free: the arrays computed are the exact ones meant. c
    is rounded up, what others' messages cost is rounded down.

    Parameters
    ----------
    d
        What is to be received.
    point
        Multipliers.

    Examples
    --------
    Two users of SNR 3 hear the same message of 1 nat/Hz. The tangent at M = 3 has the slope
    beta = 1/4 and c = psi(1/4) = log 4 - 3/4, and t = 3/4: the bound is 1 / log 4, the optimum.

    >>> import numpy as np
    >>> from finecast.solvers.spatial.bounds import downlink
    >>> from finecast.solvers.spatial.certificate import ModeDual, time_bound
    >>> channel, error = np.full((2, 1, 1), 3**0.5), np.zeros((2, 1))
    >>> case = downlink(channel, error, [1.0], [[True, True]], [1.0])
    >>> slope, none = np.full((1, 2), 0.25), np.zeros((1, 2))
    >>> point = ModeDual(np.array([0.5, 0.5]), slope, none, none, np.ones((1, 1)))
    >>> print(f"{time_bound(case, point):.6f} s, optimum {1 / np.log(4):.6f} s")
    0.721348 s, optimum 0.721348 s
    """
    w, slope = point.weight, point.slope
    # c_k of all boxes: between the ends of a box the value is convex in Y_k.
    ceiling, ratio = floors(d)
    ends = [
        most_over_prices(slope, point.error_price, 1.0 + y, ceiling, ratio) + point.beam_price * y
        for y in boxes(point.splits, strongest(d.channel))
    ]
    over = np.maximum(*ends) * (1.0 + 8 * EPSILON)
    noisy = bool(d.error.any())
    antennas = d.channel.shape[2]
    sending = np.repeat(d.senders, antennas, axis=1)
    spent = []
    for b, price in enumerate(point.price):
        # The condition of each message: gains of its listeners, what it costs the others.
        gain = np.where(d.listeners, w * slope[b], 0.0)
        loss = np.where(d.listeners, 0.0, w * point.beam_price[b] * (1.0 - 8 * EPSILON))
        channel, coefficient, floor = d.weakest, gain - loss, np.zeros(sending.shape)
        if noisy:
            channel = np.concatenate([d.weakest, d.channel])
            coefficient = np.hstack([gain, -loss])
            disturbed = np.where(d.listeners, 0.0, w * point.error_price[b])
            floor = disturbed @ (d.error**2 / price) * (1.0 - 8 * (len(w) + 8) * EPSILON)
            floor = np.repeat(floor, antennas, axis=1)
        # In coordinates in which D is the identity, t is the largest eigenvalue.
        rows = (channel / np.sqrt(price)[:, None]).reshape(len(channel), -1)
        t = largest_signed_eigenvalue_bound(rows, coefficient, floor, sending)
        spent.append(float((w * over[b]).sum()) + t * float(price.sum()))
    return float((w * d.nats).sum() / np.max(spent)) * (1.0 - SUM_ALLOWANCE)


def largest_signed_eigenvalue_bound(
    rows: ComplexArray, coefficient: FloatArray, floor: FloatArray, sending: BoolArray
) -> float:
    """Return t >= max(0, lambda_max(sum_k a_gk x_k x_k^H - diag(f_g))) for all g.

    Rounding. sum_k max_g |a_gk| norm(x_k)^2 plus the largest sum of f bounds the trace norms of the
    matrices. The matrices computed are within 8 (K + m + 16) 2^-52 times that of the exact ones.
    With fewer users than antennas and f = 0 they are taken in the basis of a QR factorisation: R
    comes with an exactly unitary Q for columns within gamma_(cmn) norm(x_k) of x_k (Higham,
    *Accuracy and stability of numerical algorithms*, 2002, theorem 19.4). The pad includes that.

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

    Examples
    --------
    diag(2, -1) - diag(0.5, 0) has the largest eigenvalue 1.5.

    >>> import numpy as np
    >>> from finecast.solvers.spatial.certificate import largest_signed_eigenvalue_bound
    >>> rows, sending = np.eye(2), np.ones((1, 2), dtype=bool)
    >>> coefficient, floor = np.array([[2.0, -1.0]]), np.array([[0.5, 0.0]])
    >>> t = largest_signed_eigenvalue_bound(rows, coefficient, floor, sending)
    >>> print(f"{t:.9f}, above 1.5: {t > 1.5}")
    1.500000000, above 1.5: True
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
    return proven_limit(matrices, 8 * terms * EPSILON * magnitude + 1e-200, magnitude)


def proven_limit(matrices: ComplexArray, pad: float, magnitude: float) -> float:
    """Return t >= 0 above the eigenvalues of all matrices within `pad` of these.

    The eigenvalues computed are only a guess. What proves a limit is a Cholesky factorisation of
    limit I minus each matrix that runs to its end in float64: its factor is exact for a matrix
    within gamma_(cm) times the trace, at most m limit + magnitude (Higham, theorem 10.3).

    Parameters
    ----------
    matrices
        (G, m, m) Hermitian, of which the lower triangles count.
    pad
        > 0; bound on the norms of what is not known of them.
    magnitude
        Bound on their trace norms.

    Examples
    --------
    >>> import numpy as np
    >>> from finecast.solvers.spatial.certificate import proven_limit
    >>> t = proven_limit(np.array([[[0.0, 3.0], [3.0, 8.0]]]), 0.01, 10.0)  # eigenvalues -1 and 9
    >>> print(f"{t:.6f}")
    9.020000
    """
    size = matrices.shape[-1]
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
