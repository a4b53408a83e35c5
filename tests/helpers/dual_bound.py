"""Certified upper bound on the SNR of one multicast transmission, from any dual point.

The kernel has its own bounds (`kernel/certificate.py`). This one is written apart from them, on
the |Q|A-dimensional matrices and with cone solvers, so that tests can hold one against the other.

For every lambda >= 0 with sum_k lambda_k = 1, a > 0 and mu >= 0 with

    sum_k lambda_k a_k g_k g_k^H  <=  blockdiag_n((mu_n + c_n) I),
    c_n = sum_k lambda_k eps_{k,n} / sqrt(P_n)

no beam has a worst-case amplitude above sum_k lambda_k / (4 a_k) + sum_n mu_n P_n
(docs/formulation.md section 4.1). Write b_k = lambda_k a_k. A guess (lambda, b, d > 0) of the
multipliers, d_n standing for mu_n + c_n, is made feasible by one eigenvalue,

    theta = lambda_max(D^(-1/2) (sum_k b_k g_k g_k^H) D^(-1/2)),     D = blockdiag_n(d_n I)

since then s sum_k b_k g_k g_k^H <= s theta D for every s > 0, and mu_n = max(0, s theta d_n - c_n)
will do. What is left is a convex function of the one free scale, minimised in closed form:

    f(s) = (1/s) sum_k lambda_k^2 / (4 b_k) + sum_n P_n max(0, s theta d_n - c_n)

Two facts tighten it at no cost. Nodes that no user hears above its error radius are silenced
(`worst_case.NormalForm`). And no user does better in a group than alone:
u <= min_k sum_n sqrt(P_n) max(0, norm(g_{k,n}) - eps_{k,n}), exact for one user.

In the error analyses below u is the unit roundoff, half of `EPSILON`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

from finecast.problem.arrays import ComplexArray, FloatArray, checked
from finecast.solvers.beamforming.worst_case import (
    check_problem,
    margins,
    mrt_sum,
    normal_form,
    scale_to_power,
)
from finecast.solvers.rounding import EPSILON

FLOORS = (0.0, 1e-12, 1e-10, 1e-8, 1e-6, 1e-4, 1e-2)
"""Shares of the largest d_n P_n added to all of them: a guess with d_n = 0 has no theta."""


@dataclass(frozen=True)
class Dual:
    """A guess of the multipliers; any one gives a valid bound, a good one gives a tight bound.

    Attributes
    ----------
    weights
        lambda, shape (K,), >= 0, not all zero; normalised to sum 1 by the bound.
    slopes
        a, shape (K,), > 0, the slope of sqrt at g_k^H X g_k: 1 / (2 |y_k|).
    prices
        mu, shape (N,), >= 0, amplitude per W.
    """

    weights: FloatArray
    slopes: FloatArray
    prices: FloatArray


@dataclass(frozen=True)
class Bound:
    """No beam reaches a worst-case SNR above `snr` (linear); `dual` is the point that proves it.

    `dual` is None when the bound is that of a single user, `user`.
    """

    snr: float
    dual: Dual | None
    user: int | None


def certified_bound(
    channel: ArrayLike, error: ArrayLike, power: ArrayLike, *, dual: Dual | None = None
) -> Bound:
    """Upper bound on the worst-case SNR of every beam, valid in exact arithmetic.

    Parameters
    ----------
    channel, error, power
        g (K, N, A) and eps (K, N) normalised by the noise amplitude, 1/sqrt(W); P (N,), W.
    dual
        Multipliers from `dual_sdp` (tight, as slow as the SDP) or `dual_of_beam` (fast, tight when
        the beam is optimal for the relaxation). When absent, `dual_sdp` is tried, and the sum of
        the MRT beams, so that a bound exists whatever becomes of the solver.

    Raises
    ------
    ValueError
        Names the argument that is wrong.
    """
    g, eps, limits = check_problem(channel, error, power)
    if dual is not None:
        duals = [_checked_dual(dual, *g.shape[:2])]
    else:
        beam = mrt_sum(g, limits, np.ones(g.shape[0], dtype=np.complex128))
        duals = [dual_of_beam(g, eps, limits, beam)]
        by_solver = dual_sdp(g, eps, limits)
        if by_solver is not None:
            duals.append(by_solver)

    amplitude = np.sqrt(limits)
    g, eps = g * amplitude[:, None], eps * amplitude  # powers put to one
    norms = np.linalg.norm(g, axis=2)
    # Norms and differences are within (A + 8) u of norm + error: widened by twice that.
    widened = (norms - eps) + (g.shape[2] + 8) * EPSILON * (norms + eps)
    alone = np.maximum(0.0, widened).sum(axis=1) * (1 + norms.size * EPSILON)
    user = int(np.argmin(alone))
    best = Bound(_square_up(float(alone[user])), None, user)
    heard = (widened > 0).any(axis=0)
    if best.snr == 0:
        return best
    for candidate in duals:
        prices = candidate.prices[heard] * limits[heard]
        snr = _square_up(_amplitude_bound(g[:, heard], eps[:, heard], candidate, prices))
        if snr < best.snr:
            best = Bound(snr, candidate, None)
    return best


def dual_sdp(channel: ArrayLike, error: ArrayLike, power: ArrayLike) -> Dual | None:
    """Multipliers of the semidefinite relaxation by CVXPY, the reference of the bound.

    None where the relaxation is not worth solving (a user whom no node reaches above its error
    radius) or the solver has no point.

    Raises
    ------
    ValueError
        Names the argument that is wrong.
    """
    from finecast.solvers.beamforming.sdr import solve_relaxation  # imports cvxpy

    g, eps, limits = check_problem(channel, error, power)
    form = normal_form(g, eps, limits)
    relaxation = solve_relaxation(form)
    if relaxation is None or not relaxation.user_weights.any():
        return None
    vectors = form.channel.reshape(g.shape[0], -1)
    gains = np.einsum("ki,ij,kj->k", np.conj(vectors), relaxation.covariance, vectors).real
    prices = np.zeros_like(limits)
    prices[form.nodes] = relaxation.node_prices / limits[form.nodes]
    return Dual(relaxation.user_weights, _slopes(np.sqrt(np.maximum(0.0, gains))), prices)


def dual_of_beam(
    channel: ArrayLike, error: ArrayLike, power: ArrayLike, beamformer: ArrayLike
) -> Dual:
    """Multipliers that fit a beam, in well under a millisecond; tight when the beam is optimal.

    With v_n = sum_k lambda_k e_k g_{k,n}, e_k = y_k / |y_k|, a locally optimal beam that sends
    has v_n = r_n w_n / norm(w_n) and sum_k lambda_k (u_k - u) = 0. lambda is the non-negative
    least-squares solution of those equations; a_k = 1 / (2 |y_k|) and
    mu_n + c_n = r_n / (2 sqrt(P_n)) then make both sides of the matrix condition agree on w.

    Parameters
    ----------
    channel, error, power
        g (K, N, A) and eps (K, N) normalised by the noise amplitude, 1/sqrt(W); P (N,), W.
    beamformer
        w, shape (N, A), sqrt(W); scaled down to the power limits where it exceeds them.

    Raises
    ------
    ValueError
        Names the argument that is wrong.
    """
    g, eps, limits = check_problem(channel, error, power)
    w = scale_to_power(checked("beamformer", beamformer, "complex", g.shape[1:]), limits)
    users, nodes, _ = g.shape
    amplitude = np.sqrt(limits)
    signal = np.einsum("kna,na->k", np.conj(g), w)
    heard = np.abs(signal)
    phases = np.where(heard > 0, signal, 1) / np.where(heard > 0, heard, 1)
    turned = phases[:, None, None] * g * amplitude[:, None]  # (K, N, A)
    strength = np.linalg.norm(turned, axis=2).sum(axis=1)
    unit = strength.min()
    uniform = np.full(users, 1.0 / users)
    if unit == 0 or not heard.any():
        return Dual(uniform, _slopes(heard), np.zeros(nodes))

    # Unknowns: lambda_k times strength_k / unit, then r_n of the nodes that send.
    norms = np.linalg.norm(w, axis=1)
    sending = np.flatnonzero(norms > 0)
    share = unit / strength
    pulls = (turned[:, sending] / strength[:, None, None]).reshape(users, -1).T
    pushes = np.zeros((sending.size, sending.size, g.shape[2]), dtype=np.complex128)
    pushes[np.arange(sending.size), np.arange(sending.size)] = w[sending] / norms[sending, None]
    balance = np.hstack([pulls, -pushes.reshape(sending.size, -1).T])
    slack = margins(g, eps, w)
    slack = np.hstack([np.diag((slack - slack.min()) / strength), np.zeros((users, sending.size))])
    total = np.append(share, np.zeros(sending.size))
    system = np.vstack([balance.real, balance.imag, slack, total])
    target = np.zeros(len(system))
    target[-1] = 1
    try:
        weights = nnls(system, target)[0][:users] * share
    except RuntimeError:  # its iteration limit: any weights will do
        weights = uniform
    if not weights.sum() > 0:
        weights = uniform
    weights = weights / weights.sum()
    pull = np.linalg.norm(np.einsum("k,kna->na", weights, turned), axis=1) / 2  # sqrt(P_n) r_n / 2
    over = np.maximum(0.0, pull - weights @ (eps * amplitude))
    prices = np.divide(over, limits, out=np.zeros(nodes), where=limits > 0)
    return Dual(weights, _slopes(heard), prices)


def _amplitude_bound(
    channel: ComplexArray, error: FloatArray, dual: Dual, prices: FloatArray
) -> float:
    """Smallest f(s) over the floors of d for unit powers (prices are mu_n P_n), rounded up.

    Rounding. b and d are free: the arrays computed are the exact ones meant. lambda is used as it
    is and f divided by its sum. Sums of K or N non-negative terms, products and roots are each
    within (K + N + 16) u relative; c_n enters only through max(0, s theta d_n - c_n), so its error
    and that of the difference are at most that share of s theta d_n + c_n. Hence f(s) is within
    (K + N + 16) u of (1/s) sum_k lambda_k^2 / (4 b_k) + sum_n (s theta d_n + c_n), and eight times
    that much is added. s itself may be anything.
    """
    weights = dual.weights / dual.weights.max()
    kept = weights > 1e-14  # the others are put to zero, everywhere
    weights, g = weights[kept], channel[kept]
    slopes = dual.slopes[kept] / dual.slopes[kept].max()
    outer = np.maximum(weights * slopes, 1e-100)  # b_k
    chord = weights @ error[kept]  # c_n
    guess = prices * (weights.sum() / dual.weights.sum()) + chord
    guess = guess / guess.max() if guess.max() > 0 else np.ones_like(guess)
    inverse_slopes = (weights / outer * weights).sum() / 4
    rounding = 4 * (len(weights) + len(prices) + 16) * EPSILON

    best = np.inf
    for floor in FLOORS:
        shape = guess + floor  # d_n
        if shape.min() < 1e-14:
            continue
        rows = g * np.sqrt(outer)[:, None, None] / np.sqrt(shape)[:, None]
        limit = largest_eigenvalue_bound(rows.reshape(len(rows), -1)) * shape  # theta d_n
        # f is convex with pieces L/s + s C - const: its minimum is at a breakpoint
        # s = c_n / (theta d_n) or at the stationary point of a piece.
        breaks = chord / limit
        stationary = np.sqrt(inverse_slopes / np.cumsum(limit[np.argsort(breaks)]))
        scales = np.concatenate([breaks[breaks > 0], stationary])[:, None]
        spent = np.maximum(0.0, scales * limit - chord).sum(axis=1)
        first = inverse_slopes / scales[:, 0]
        allowance = rounding * (first + (scales * limit + chord).sum(axis=1))
        best = min(best, float((first + spent + allowance).min()))
    return best / (float(weights.sum()) * (1 - rounding))


def largest_eigenvalue_bound(rows: ComplexArray) -> float:
    """Upper bound, valid in exact arithmetic, on lambda_max(sum_k x_k x_k^H) of rows x_k (K, m).

    The eigenvalue is that of the smaller of the Gram matrices, H. A computed entry of H is within
    gamma_(K+m) (complex products: 4 (K + m) u) of sum |x||x|, so that computed and exact H differ
    by at most 4 (K + m) u trace(H) in norm. The eigenvalue solver is not relied on: its value t,
    padded, is accepted only if the Cholesky factorisation of tI - H runs to completion in floating
    point, which proves lambda_min(tI - H) >= -gamma_(n+1) / (1 - gamma_(n+1)) trace(tI - H)
    (Demmel; Rump, "Verification of positive definiteness", BIT 46, 2006, theorem 2.3), gamma
    likewise with 4 (n + 1) u for complex numbers; forming tI - H adds u trace(tI - H). Rows x
    themselves come out of a few roots, products and quotients, 8 u relative each, which is 16 u
    trace(H) more.
    """
    gram = rows @ rows.conj().T if len(rows) <= rows.shape[1] else rows.conj().T @ rows
    size = len(gram)
    trace = float(np.trace(gram).real)
    # The floor keeps underflow, at 1e-300, out of the argument: rows are of order one.
    pad = 8 * (sum(rows.shape) + 16) * EPSILON * trace + 1e-200
    limit = float(np.linalg.eigvalsh(gram)[-1]) + pad
    while True:
        shifted = limit * np.eye(size) - gram
        try:
            np.linalg.cholesky(shifted)
            break
        except np.linalg.LinAlgError:
            pad *= 2
            limit += pad
    proof = 8 * (size + 2) * EPSILON * (size * limit + trace)
    return (limit + pad + proof) * (1 + 4 * EPSILON)


def _checked_dual(dual: Dual, users: int, nodes: int) -> Dual:
    weights = checked("dual.weights", dual.weights, "float", (users,), low=0, high=1e100)
    slopes = checked("dual.slopes", dual.slopes, "float", (users,), low=0, high=1e100)
    prices = checked("dual.prices", dual.prices, "float", (nodes,), low=0, high=1e100)
    if not weights.any():
        raise ValueError("dual.weights: all are 0, at least one must be > 0")
    if not slopes.all():
        index = int(np.argmin(slopes))
        raise ValueError(f"dual.slopes[{index}]: 0.0 is not allowed, must be > 0")
    return Dual(weights, slopes, prices)


def _slopes(amplitudes: FloatArray) -> FloatArray:
    """1 / (2 |y_k|), with amplitudes of 0 lifted to a trillionth of the largest."""
    largest = amplitudes.max()
    return np.asarray(0.5 / np.maximum(amplitudes, 1e-12 * largest if largest > 0 else 1.0))


def _square_up(amplitude: float) -> float:
    return float(np.nextafter(amplitude**2, np.inf)) if amplitude > 0 else 0.0
