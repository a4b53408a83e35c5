"""Semidefinite relaxation with Gaussian randomisation, as a reference.

With X in place of w w^H and p_n = tr(E_n X) the power of node n, the chord norm(w_n) >=
p_n / sqrt(P_n) gives the convex problem of docs/formulation.md section 4.1:

    maximise u  s.t.  sqrt(g_k^H X g_k) >= u + sum_n (eps_{k,n} / sqrt(P_n)) tr(E_n X)  for all k
                      tr(E_n X) <= P_n,   X >= 0

For eps = 0 it is the semidefinite relaxation of multicast beamforming (Sidiropoulos, Davidson,
Luo, IEEE Transactions on Signal Processing 54(6), 2006) with per-node power limits. Beams come
from the principal vector of X and from Gaussian vectors of covariance X. What the solver returns
is only a source of candidates, judged by the closed form. Its value is no bound, but its
multipliers are a guess of a dual point from which a bound can be certified.
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
from finecast.solvers.beamforming.worst_case import (
    Multicast,
    NormalForm,
    check_problem,
    margins,
    mrt_sum,
    normal_form,
    scale_to_power,
    worst_case_snr,
)

Solution = tuple[ComplexArray, FloatArray, FloatArray]
SemidefiniteProgramme = Callable[[ComplexArray, FloatArray, FloatArray], Solution | None]


@dataclass(frozen=True)
class Relaxation:
    """A point of the relaxation in normal form (`worst_case.NormalForm`), as the solver left it.

    Attributes
    ----------
    covariance
        X, shape (n r, n r), Hermitian, of the reduced beams v with unit power per node.
    user_weights
        lambda, shape (K,): multipliers of the users' constraints, of sum about 1.
    node_prices
        mu_n P_n, shape (n,): multipliers of the power limits, in units of amplitude.
    """

    covariance: ComplexArray
    user_weights: FloatArray
    node_prices: FloatArray


def solve_sdr(
    channel: ArrayLike,
    error: ArrayLike,
    power: ArrayLike,
    *,
    randomisations: int = 64,
    seed: int = 0,
) -> Multicast:
    """Return a max-min multicast beam by semidefinite relaxation and Gaussian randomisation.

    Parameters
    ----------
    channel, error, power
        g (K, N, A) and eps (K, N) normalised by the noise amplitude, 1/sqrt(W); P (N,), W.
    randomisations
        Number of Gaussian vectors.
    seed
        Seed of the Gaussian vectors.

    Raises
    ------
    ValueError
        Names the argument that is wrong.
    """
    g, eps, limits = check_problem(channel, error, power)
    if randomisations < 0:
        raise ValueError(f"randomisations: {randomisations} is not allowed, must be >= 0")
    candidates = mrt_sum(g, limits, np.ones((1, g.shape[0]), dtype=np.complex128))
    form = normal_form(g, eps, limits)
    relaxation = solve_relaxation(form)
    if relaxation is not None:
        generator = np.random.default_rng(seed)
        reduced = drawn_beams(relaxation.covariance, len(form.nodes), randomisations, generator)
        beams = [form.beamformer(v, g.shape[1]) for v in reduced]
        candidates = scale_to_power(np.concatenate([candidates, beams]), limits)
    best = candidates[int(np.argmax(margins(g, eps, candidates).min(axis=1)))].copy()
    best.setflags(write=False)
    return Multicast(best, worst_case_snr(g, eps, best))


def solve_relaxation(form: NormalForm) -> Relaxation | None:
    """Return a solution, or None when a user cannot be served or the solver has no point."""
    if form.best_alone.min() == 0:
        return None
    # Every user's constraint over its strength, u in units of the weakest one's: numbers of
    # order one also where gains differ by 80 dB.
    unit = form.strength.min()
    share = unit / form.strength
    rows = form.channel.reshape(form.strength.size, -1) / form.strength[:, None]
    outer = np.asarray(np.conj(rows)[:, :, None] * rows[:, None, :])
    programme = _semidefinite_programme(*form.channel.shape, get_ident())
    solution = programme(outer.reshape(len(outer), -1), form.error / form.strength[:, None], share)
    if solution is None or not all(np.isfinite(part).all() for part in solution):
        return None
    covariance, multipliers, prices = solution
    return Relaxation(
        covariance=(covariance + covariance.conj().T) / 2,
        user_weights=np.maximum(0.0, multipliers) * share,
        node_prices=np.maximum(0.0, prices) * unit,
    )


@lru_cache(maxsize=64)
def _semidefinite_programme(
    users: int, nodes: int, antennas: int, thread: int
) -> SemidefiniteProgramme:
    """Return the relaxation of one shape, compiled once; every thread has its own (`thread`)."""
    size = nodes * antennas
    outer = cp.Parameter((users, size * size), complex=True)  # conj(g_i) g_j
    error = cp.Parameter((users, nodes), nonneg=True)
    share = cp.Parameter(users, nonneg=True)
    # CVXPY warns about a Hermitian matrix of size one; a real number is the same.
    covariance = cp.Variable((size, size), hermitian=size > 1)
    amplitude = cp.Variable()
    powers = cp.sum(cp.reshape(cp.real(cp.diag(covariance)), (nodes, antennas), order="C"), axis=1)
    gains = cp.real(outer @ cp.vec(covariance, order="C"))
    users_served = cp.sqrt(gains) >= share * amplitude + error @ powers
    within_power = powers <= 1
    problem = cp.Problem(cp.Maximize(amplitude), [users_served, within_power, covariance >> 0])

    def solve(
        outer_rows: ComplexArray, error_rows: FloatArray, shares: FloatArray
    ) -> Solution | None:
        outer.value, error.value, share.value = outer_rows, error_rows, shares
        if not solve_conic(problem, **TOLERANCES):
            return None
        return (
            np.asarray(covariance.value, dtype=np.complex128),
            np.asarray(users_served.dual_value),
            np.asarray(within_power.dual_value),
        )

    return solve
