"""One problem from end to end in NumPy: scaling, search, free certificate, judgement.

The formulas and rounding allowances are those of `gram.py`, `certificate.py` and `multicast.py`,
without a batch: torch's calls would cost more than the arithmetic. Problems out of the ordinary
(silent ENs or users, gains or errors that need capping) are left to the batched way.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from finecast.problem.arrays import ComplexArray, FloatArray
from finecast.solvers.beamforming.kernel.gram import MUTE, STRONGEST
from finecast.solvers.beamforming.kernel.small import search_one
from finecast.solvers.beamforming.kernel.steps import SMALL
from finecast.solvers.rounding import ROUNDOFF

HUGE = 1e100
"""Amplitudes beyond this, or below its inverse, are not for squaring as they are."""


def solve_few(
    channel: object, error: object, power: object, starts: int, seed: int
) -> tuple[ComplexArray, FloatArray, FloatArray] | None:
    """Return beams (B, N, A), SNR and bound (B,), or None where this is not the way.

    Arguments as for `multicast.solve_multicast`. This way takes NumPy arrays of a few ordinary
    problems. All others go the batched way, which says what is wrong with them.
    """
    if not (isinstance(channel, np.ndarray) and channel.ndim == 4 and len(channel) <= SMALL):
        return None
    if isinstance(error, torch.Tensor) or isinstance(power, torch.Tensor) or 0 in channel.shape:
        return None
    eps, limits = np.asarray(error), np.asarray(power)
    batch, users, nodes, antennas = channel.shape
    if eps.shape != (batch, users, nodes) or limits.shape not in ((nodes,), (batch, nodes)):
        return None
    if (
        channel.dtype.kind not in "fc"
        or eps.dtype.kind not in "fi"
        or limits.dtype.kind not in "fi"
    ):
        return None
    if not (np.isfinite(channel).all() and 0 <= eps.min() and eps.max() < np.inf):
        return None
    if not (0 <= limits.min() and limits.max() < np.inf):
        return None
    g = channel.astype(np.complex128)
    eps = eps.astype(np.float64)
    limits = np.broadcast_to(limits.astype(np.float64), (batch, nodes))
    beams = np.empty((batch, nodes, antennas), np.complex128)
    snr, bound = np.empty((2, batch))
    for i in range(batch):
        solved = solve_one(g[i], eps[i], limits[i], starts, seed)
        if solved is None:
            return None
        beams[i], snr[i], bound[i] = solved
    return beams, snr, bound


def solve_one(
    channel: ComplexArray, error: FloatArray, power: FloatArray, starts: int, seed: int
) -> tuple[ComplexArray, float, float] | None:
    """Return beams (N, A), worst-case SNR and its certified bound, or None if not ordinary.

    Parameters
    ----------
    channel, error, power
        (K, N, A), (K, N) and (N,), normalised by the noise amplitude; checked.
    """
    # Power into the channels, and what the weakest user would have alone as the scale.
    users, _, antennas = channel.shape
    amplitude = np.sqrt(power)
    g = channel * amplitude[:, None]
    eps = error * amplitude
    norm = _norm(g)
    margin = np.maximum(norm - eps, 0).sum(1)
    scale = margin.min()
    whole = norm.sum(1)
    strongest = norm.max(1)
    if not (
        1 / HUGE < norm.min()
        and norm.max() < HUGE
        and scale > 1e-5 * whole[margin.argmin()]
        and strongest.max() <= STRONGEST * scale
        and (eps.max(1) <= MUTE * np.maximum(strongest, scale)).all()
    ):
        return None
    slack = 4 * (antennas + 16) * ROUNDOFF * (norm + eps)  # rounding of norm - error
    single_user = np.maximum(norm - eps + slack, 0).sum(1).min() * (1 + 1e-14)

    # The search, from phases by the users' rank in strength.
    g, eps = g / scale, eps / scale
    per_node = g.transpose(1, 0, 2)
    gram = per_node.conj() @ per_node.transpose(0, 2, 1)
    order = np.argsort(-np.einsum("nkk->k", gram).real, kind="stable")
    phase = np.empty((2 * starts, users), complex)
    phase[:, order] = _phases(seed, users, 2 * starts)

    beam, bound = search_one(gram, eps, phase, starts, antennas)
    # Beams are judged, and the bound brought back, in the units given.
    beams = _judged(g, eps, (beam.direction @ per_node) * beam.gain[:, None])
    beamformer = beams * amplitude[:, None]
    snr = _worst_case(channel, error, beamformer) ** 2
    up = 1 + 1e-14
    return beamformer, snr, max(snr, min((bound * scale * up) ** 2, single_user**2))


@lru_cache(maxsize=64)
def _phases(seed: int, users: int, count: int) -> ComplexArray:
    """Return phases (count, K) by rank, as `candidates.initial_phases` draws them."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, (users, count))
    angle[:, 0] = 0
    phases = np.asarray(np.exp(1j * angle.T))
    phases.setflags(write=False)
    return phases


def _judged(g: ComplexArray, error: FloatArray, beams: ComplexArray) -> ComplexArray:
    """Return beams for unit powers, with full or no power where that is better."""
    norm = _norm(beams)[:, None]
    unit = np.asarray(beams / np.where(norm > 0, norm, 1.0))
    if not error.any():
        return unit
    norm = np.minimum(norm, 1)
    if (norm > 1 - 1e-12).all():
        return unit
    choices = (unit * norm, unit * (norm > 0.5), unit)
    values = [_worst_case(g, error, choice) for choice in choices]
    return np.asarray(choices[int(np.argmax(values))])


def _worst_case(g: ComplexArray, error: FloatArray, beams: ComplexArray) -> float:
    """Return the worst-case amplitude of the weakest user, 0 if negative, by the closed form."""
    received = np.abs(g.reshape(len(g), -1) @ beams.ravel().conj())
    return max(0.0, float((received - error @ _norm(beams)).min()))


def _norm(x: ComplexArray) -> FloatArray:
    return np.asarray(np.sqrt((x.real**2 + x.imag**2).sum(-1)))
