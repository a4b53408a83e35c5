"""Successive convex approximation: a second-order cone programme per step, as a reference.

With unit phases e_k fixed, |y_k| >= Re(conj(e_k) y_k), so

    maximise u  s.t.  Re(conj(e_k) sum_n g_{k,n}^H w_n) - sum_n eps_{k,n} t_n >= u   for all k
                      norm(w_n) <= t_n <= sqrt(P_n)

is an inner approximation of the max-min problem, exact at the beam whose phases it uses. The
next phases e_k <- y_k / |y_k| can only raise the right-hand sides: the worst case never falls.
Minorise-maximise for multicast: Tran, Hanif, Juntti, IEEE Signal Processing Letters 21(1), 2014;
here with per-node error balls (docs/formulation.md section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from threading import get_ident

import cvxpy as cp
import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.arrays import ComplexArray, FloatArray, checked
from finecast.solvers.beamforming.conic import TOLERANCES, solve_conic
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

Step = Callable[[FloatArray, FloatArray, FloatArray], FloatArray | None]


def solve_sca(
    channel: ArrayLike,
    error: ArrayLike,
    power: ArrayLike,
    *,
    start: ArrayLike | None = None,
    starts: int = 1,
    iterations: int = 30,
    tolerance: float = 1e-6,
    seed: int = 0,
) -> Multicast:
    """Return a max-min multicast beam by successive convex approximation, best of several starts.

    Parameters
    ----------
    channel, error, power
        g (K, N, A) and eps (K, N) normalised by the noise amplitude, 1/sqrt(W); P (N,), W.
    start
        First beam, shape (N, A); only its phases at the users matter. The sum of the MRT beams
        when absent.
    starts
        Number of starts; those after the first are MRT sums with random phases.
    iterations
        Most cone programmes per start.
    tolerance
        A start ends when a step gains less than this share of the amplitude.
    seed
        Seed of the random phases.

    Raises
    ------
    ValueError
        Names the argument that is wrong.
    """
    g, eps, limits = check_problem(channel, error, power)
    if starts < 1:
        raise ValueError(f"starts: {starts} is not allowed, must be >= 1")
    if iterations < 0:
        raise ValueError(f"iterations: {iterations} is not allowed, must be >= 0")
    users = g.shape[0]
    phases = np.exp(2j * np.pi * np.random.default_rng(seed).random((starts, users)))
    phases[0] = 1
    beams = mrt_sum(g, limits, phases)
    if start is not None:
        first = checked("start", start, "complex", g.shape[1:])
        beams[0] = scale_to_power(first, limits)
    candidates = [
        iterate
        for beam in beams
        for iterate in sca_iterates(
            g, eps, limits, beam, iterations=iterations, tolerance=tolerance
        )
    ]
    best = candidates[int(np.argmax(margins(g, eps, np.stack(candidates)).min(axis=1)))]
    best.setflags(write=False)
    return Multicast(best, worst_case_snr(g, eps, best))


def sca_iterates(
    channel: ComplexArray,
    error: FloatArray,
    power: FloatArray,
    start: ComplexArray,
    *,
    iterations: int = 30,
    tolerance: float = 1e-6,
) -> Iterator[ComplexArray]:
    """Yield `start` and then the beam (N, A) of every step; each is within its power limits.

    Their worst cases do not fall, up to the tolerance of the cone solver.
    """
    yield start
    form = normal_form(channel, error, power)
    scale = form.best_alone.min()
    if scale == 0:  # some user can be given nothing: no beam is better than any other
        return
    share, rows, error_rows = _scaled_rows(form)
    step = _cone_programme(*form.channel.shape, get_ident())
    beam = start
    amplitude = margins(channel, error, beam).min()
    for _ in range(iterations):
        # Phases seen by the reduced problem; of a user that hears nothing, any will do.
        signal = np.einsum("kna,na->k", np.conj(channel), beam)
        heard = np.abs(signal)
        phases = np.where(heard > 0, signal, 1) / np.where(heard > 0, heard, 1)
        turned = rows * np.conj(phases)[:, None]  # Re(turned @ v) = Re(conj(e_k) y_k) / strength_k
        solution = step(np.hstack([turned.real, -turned.imag]), error_rows, share)
        if solution is None:
            return
        real, imaginary = np.split(solution, 2)
        reduced = (real + 1j * imaginary).reshape(form.channel.shape[1:])
        beam = scale_to_power(form.beamformer(reduced, channel.shape[1]), power)
        yield beam
        previous, amplitude = amplitude, margins(channel, error, beam).min()
        if amplitude - previous <= tolerance * scale:
            return


def _scaled_rows(form: NormalForm) -> tuple[FloatArray, ComplexArray, FloatArray]:
    """Return each user's constraint over its strength, u in units of the weakest user's strength.

    Gains that differ by 80 dB then give the solver numbers of order one.
    """
    strength = form.strength
    rows = np.conj(form.channel).reshape(strength.size, -1) / strength[:, None]
    return (
        np.asarray(strength.min() / strength),
        np.asarray(rows, dtype=np.complex128),
        form.error / strength[:, None],
    )


@lru_cache(maxsize=64)
def _cone_programme(users: int, nodes: int, antennas: int, thread: int) -> Step:
    """Return the cone programme of one shape, compiled once; every thread has its own (`thread`).

    Variables: v as its real parts and then its imaginary parts, each (nodes * antennas,).
    """
    size = nodes * antennas
    signal = cp.Parameter((users, 2 * size))
    error = cp.Parameter((users, nodes), nonneg=True)
    share = cp.Parameter(users, nonneg=True)
    beam, norms, amplitude = cp.Variable(2 * size), cp.Variable(nodes), cp.Variable()
    per_node = cp.hstack(
        [cp.reshape(part, (nodes, antennas), order="C") for part in (beam[:size], beam[size:])]
    )
    problem = cp.Problem(
        cp.Maximize(amplitude),
        [
            signal @ beam - error @ norms >= share * amplitude,
            cp.norm(per_node, axis=1) <= norms,
            norms <= 1,
        ],
    )

    def step(
        signal_rows: FloatArray, error_rows: FloatArray, shares: FloatArray
    ) -> FloatArray | None:
        signal.value, error.value, share.value = signal_rows, error_rows, shares
        return np.asarray(beam.value) if solve_conic(problem, **TOLERANCES) else None

    return step
