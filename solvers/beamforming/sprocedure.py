"""S-procedure and difference-of-convex rank penalty: the usual robust design, as a reference.

This is the method of the paper that finecast starts from (arXiv 2509.19341), for one message. All
errors of a user are put into one stacked ball,

    sum_n norm(d_{k,n})^2 <= rho_k^2 = sum_n eps_{k,n}^2,

which holds every choice of errors within the per-node balls, and more, since all of rho_k may fall
on one node. Its guarantee is therefore conservative. With W in place of w w^H, the S-procedure
turns (g_k + d)^H W (g_k + d) >= t for all d in that ball, exactly, into the linear matrix
inequality

    [ W + tau_k I    W g_k                            ]
    [ g_k^H W        g_k^H W g_k - t - tau_k rho_k^2  ]  >= 0,     tau_k >= 0

Without interference the SNR t is a variable, and no bisection is needed. The rank condition
tr(W) = lambda_max(W) is a penalty, linearised at the principal eigenvector q of the W before:

    maximise  t - mu (tr(W) - q^H W q)   s.t. the inequalities of all users,
              tr(E_n W) <= P_n,  W >= 0

and mu doubles until W has rank one. The beam is the principal vector, the best of all rounds, or
a matched beam if that is better, and its value the closed form with the per-node balls. The penalty
is a local method: with large errors it may end where a user that lived on the second eigenvector
has nothing left.

The inequalities are imposed by exchange, since eight of them at 16 antennas cost a cone solver
half a minute. For given W = sum_i l_i v_i v_i^H the multiplier is the maximiser of a concave
function of one variable (Schur complement), and what it multiplies is the worst error:

    max_{tau >= 0} sum_i |v_i^H g_k|^2 l_i tau / (l_i + tau) - tau rho_k^2,
    d = -sum_i (l_i / (l_i + tau)) v_i v_i^H g_k

The programme with (g_k + d)^H W (g_k + d) >= t for the d found so far is solved again until
no inequality is violated.

What comes out as t is no bound on the problem of docs/formulation.md section 3: the balls are
enlarged, so its optimum may be far below what the beam achieves, and it is a solver's value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from threading import get_ident

import cvxpy as cp
import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.arrays import ComplexArray, FloatArray
from finecast.solvers.beamforming.conic import TOLERANCES, drawn_beams, solve_conic
from finecast.solvers.beamforming.matched import solve_matched
from finecast.solvers.beamforming.worst_case import (
    Multicast,
    check_problem,
    margins,
    normal_form,
    scale_to_power,
    worst_case_snr,
)

EXCHANGES = 30
"""Largest number of programmes, with more and more errors, for one penalty."""

SLOTS = 6
"""Largest number of errors per user in the programme, on average."""

VIOLATION = 3e-3
"""An inequality may be violated by this share of t: the closed form judges the beam anyway."""

EARLY_VIOLATION = 0.02
"""The same while W, not yet of rank one, is about to be replaced."""

RANK_ONE = 1e-5
"""W has rank one when all eigenvalues but the largest sum to at most this share of its trace."""

Programme = Callable[[ComplexArray, FloatArray, ComplexArray], ComplexArray | None]


@dataclass(frozen=True)
class StackedBall:
    """The problem in normal form, with unit power per node, and one ball of errors per user.

    Attributes
    ----------
    channel
        Stacked channels over each user's strength, shape (K, m), m = n r: n nodes, r dimensions.
    share
        (smallest strength / strength)^2, shape (K,): SNRs are in units of the weakest user's.
    radius
        rho over the strength, shape (K,).
    shape
        diagonal S of the ball d^H S d <= rho^2, shape (m,): 1/P_n, since sqrt(P_n) is in d_n.
    nodes
        n.
    """

    channel: ComplexArray
    share: FloatArray
    radius: FloatArray
    shape: FloatArray
    nodes: int


def solve_sprocedure(
    channel: ArrayLike,
    error: ArrayLike,
    power: ArrayLike,
    *,
    iterations: int = 12,
    seed: int = 0,
) -> Multicast:
    """Return a max-min multicast beam by the S-procedure and a difference-of-convex rank penalty.

    Parameters
    ----------
    channel, error, power
        g (K, N, A) and eps (K, N) normalised by the noise amplitude, 1/sqrt(W); P (N,), W.
    iterations
        Largest number of penalties tried, after a first round without one.
    seed
        Not used, since nothing is drawn. All methods share the signature.

    Raises
    ------
    ValueError
        Names the argument that is wrong.
    """
    g, eps, limits = check_problem(channel, error, power)
    if iterations < 0:
        raise ValueError(f"iterations: {iterations} is not allowed, must be >= 0")
    candidates = solve_matched(g, eps, limits).beamformer[None]  # an answer in any case
    form = normal_form(g, eps, limits)
    if form.best_alone.min() > 0:
        for covariance in penalised_covariances(stacked_ball(g, eps, limits), iterations):
            reduced = drawn_beams(covariance, len(form.nodes), 0, np.random.default_rng(seed))
            beams = np.stack([form.beamformer(v, g.shape[1]) for v in reduced])
            candidates = np.concatenate([candidates, scale_to_power(beams, limits)])
    best = candidates[int(np.argmax(margins(g, eps, candidates).min(axis=1)))].copy()
    best.setflags(write=False)
    return Multicast(best, worst_case_snr(g, eps, best))


def stacked_ball(channel: ComplexArray, error: FloatArray, power: FloatArray) -> StackedBall:
    """Enclose the per-node balls of the useful nodes; every user must be heard.

    Parameters
    ----------
    channel, error, power
        g (K, N, A), eps (K, N), P (N,).
    """
    form = normal_form(channel, error, power)
    users, nodes, antennas = form.channel.shape
    largest = power[form.nodes].max()
    radius = np.linalg.norm(error[:, form.nodes], axis=1) * np.sqrt(largest)
    return StackedBall(
        channel=form.channel.reshape(users, -1) / form.strength[:, None],
        share=(form.strength.min() / form.strength) ** 2,
        radius=radius / form.strength,
        shape=np.repeat(largest / power[form.nodes], antennas),
        nodes=nodes,
    )


def penalised_covariances(ball: StackedBall, iterations: int) -> list[ComplexArray]:
    """Return the matrices W (m, m) of all rounds, the first one without penalty.

    Parameters
    ----------
    ball
        The problem.
    iterations
        Most rounds with a penalty.
    """
    users, size = ball.channel.shape
    programme = _programme(SLOTS * users, ball.nodes, size // ball.nodes, get_ident())
    # Channels with an error, of which user, at first without; the programme's size is fixed.
    hit, user = np.tile(ball.channel, (SLOTS, 1)), np.tile(np.arange(users), SLOTS)
    covariances: list[ComplexArray] = []
    penalty = np.zeros((size, size), dtype=np.complex128)
    strictness = 0.0
    for _ in range(1 + iterations):
        # Exchange: solve, look for the worst error of every user, and add those that matter.
        for _ in range(EXCHANGES):
            solution = programme(hit, ball.share[user], penalty)
            if solution is None:
                return covariances
            covariance = solution
            values, vectors = np.linalg.eigh(covariance)
            rank_one = values[:-1].sum() <= RANK_ONE * values.sum()
            worst, offset = worst_errors(ball, covariance)
            snr = worst / ball.share
            planned = np.einsum("ki,ij,kj->k", np.conj(hit), covariance, hit).real
            planned = planned / ball.share[user]
            allowed = VIOLATION if rank_one else EARLY_VIOLATION
            violated = np.flatnonzero(snr < planned.min() * (1 - allowed))
            if not violated.size:
                break
            # They take the place of those that bind least.
            slack = np.argsort(planned)[len(hit) - violated.size :]
            hit[slack], user[slack] = (ball.channel + offset)[violated], violated
        covariances.append(covariance)
        if rank_one:
            return covariances
        # The penalty doubles, linearised at the principal eigenvector of this round.
        strictness = 2 * strictness if strictness else 0.1 * planned.min() / values.sum()
        projector = np.eye(size) - np.outer(vectors[:, -1], np.conj(vectors[:, -1]))
        penalty = np.asarray(strictness * projector, dtype=np.complex128)
    return covariances


def worst_errors(ball: StackedBall, covariance: ComplexArray) -> tuple[FloatArray, ComplexArray]:
    """Return the least (g_k + d)^H W (g_k + d) in the ball (K,), and the d (K, m) that attains it.

    Parameters
    ----------
    ball
        Channels and radii.
    covariance
        W >= 0, shape (m, m).
    """
    root = np.sqrt(ball.shape)  # d = x / root turns the ball into a sphere
    values, vectors = np.linalg.eigh(covariance / np.outer(root, root))
    values = np.maximum(0.0, values)
    parts = (ball.channel * root) @ np.conj(vectors)  # v_i^H g_k, shape (K, m)
    energy = np.abs(parts) ** 2
    # The slope sum_i energy l_i^2 / (l_i + tau)^2 - rho^2 falls with tau: bisection.
    low = np.zeros(len(parts))
    high = np.sqrt(energy @ values**2) / np.maximum(ball.radius, 1e-12)
    for _ in range(60):
        tau = (low + high) / 2
        shrunk = np.divide(
            values, values + tau[:, None], out=np.zeros_like(energy), where=values > 0
        )
        inside = (energy * shrunk**2).sum(axis=1) > ball.radius**2
        low, high = np.where(inside, tau, low), np.where(inside, high, tau)
    error = -shrunk * parts  # of radius rho, up to rounding, or less where it cancels all
    left = np.abs(parts + error) ** 2 @ values
    return np.asarray(left), np.asarray(error @ vectors.T / root)


@lru_cache(maxsize=64)
def _programme(rows: int, nodes: int, antennas: int, thread: int) -> Programme:
    """Return the programme with `rows` channels, compiled once; every thread has its own."""
    size = nodes * antennas
    outer = cp.Parameter((rows, size * size), complex=True)  # conj(h_i) h_j
    share = cp.Parameter(rows, nonneg=True)
    penalty = cp.Parameter((size, size), complex=True)
    # CVXPY warns about a Hermitian matrix of size one; a real number is the same.
    covariance, snr = cp.Variable((size, size), hermitian=size > 1), cp.Variable()
    powers = cp.sum(cp.reshape(cp.real(cp.diag(covariance)), (nodes, antennas), order="C"), axis=1)
    gains = cp.real(outer @ cp.vec(covariance, order="C"))
    rank_gap = cp.real(cp.sum(cp.multiply(cp.conj(penalty), covariance)))
    problem = cp.Problem(
        cp.Maximize(snr - rank_gap), [gains >= share * snr, powers <= 1, covariance >> 0]
    )

    def solve(
        channels: ComplexArray, shares: FloatArray, penalties: ComplexArray
    ) -> ComplexArray | None:
        outer.value = (np.conj(channels)[:, :, None] * channels[:, None, :]).reshape(rows, -1)
        share.value, penalty.value = shares, penalties
        if not solve_conic(problem, **TOLERANCES) or not np.isfinite(covariance.value).all():
            return None
        solution = np.asarray(covariance.value, dtype=np.complex128)
        return np.asarray((solution + solution.conj().T) / 2)

    return solve
