"""One problem from end to end in NumPy: scaling, search, free certificate, judgement.

The formulas and rounding allowances are those of `gram.py`, `certificate.py` and `multicast.py`,
without a batch: torch's calls would cost more than the arithmetic, and importing torch more than
everything else of a small instance. Problems out of the ordinary (silent ENs or users, gains or
errors that need capping) are left to the batched way, and so are those whose free certificate is
not tight enough.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.solvers.beamforming.kernel.small import search_one
from finecast.solvers.beamforming.kernel.steps import MUTE, SMALL, STRONGEST
from finecast.solvers.rounding import ROUNDOFF

HUGE = 1e100
"""Amplitudes beyond this, or below its inverse, are not for squaring as they are."""


@dataclass(frozen=True)
class Few:
    """A few problems solved one by one.

    Attributes
    ----------
    beamformer
        (B, N, A), in the root of the power unit.
    snr, bound
        (B,) what the beams guarantee, and a certified upper bound on that of any beams.
    weight, slope, price
        (B, K), (B, K) and (B, N), dual points as in `certificate.Certificate`.
    """

    beamformer: ComplexArray
    snr: FloatArray
    bound: FloatArray
    weight: FloatArray
    slope: FloatArray
    price: FloatArray

    @classmethod
    def room(cls, shape: tuple[int, ...]) -> Few:
        """Return problems of shape (B, K, N, A) that are not solved: nothing sent, no bound."""
        batch, users, nodes, antennas = shape
        return cls(
            np.zeros((batch, nodes, antennas), np.complex128),
            np.zeros(batch),
            np.full(batch, np.inf),
            np.zeros((batch, users)),
            np.zeros((batch, users)),
            np.full((batch, nodes), np.inf),
        )

    def loose(self, tolerance: float | None) -> IntArray:
        """Return (m,) the problems whose bound is further than `tolerance` above their beams.

        Relative, on the SNR; None for any distance.
        """
        if tolerance is None:
            return np.flatnonzero(np.isinf(self.bound))
        return np.flatnonzero(~(np.sqrt(self.bound) <= (1 + tolerance / 2) * np.sqrt(self.snr)))

    def put(self, index: IntArray, others: Few) -> None:
        """Replace the problems `index` (m,)."""
        for name, mine in vars(self).items():
            mine[index] = getattr(others, name)


def solve_few(
    channel: object,
    error: object,
    power: object,
    starts: int,
    seed: int,
    node_mask: BoolArray | None = None,
    user_mask: BoolArray | None = None,
) -> Few | None:
    """Return the answers to a few ordinary problems, or None where this is not the way.

    Arguments as for `multicast.solve_multicast`. This way takes NumPy arrays of a few problems.
    Others go the batched way, which says what is wrong with them.
    """
    if not (isinstance(channel, np.ndarray) and channel.ndim == 4 and len(channel) <= SMALL):
        return None
    if _is_tensor(error) or _is_tensor(power) or 0 in channel.shape:
        return None
    eps, limits = np.asarray(error), np.asarray(power)
    batch, users, nodes, _ = channel.shape
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
    sends, listens = np.ones((batch, nodes), bool), np.ones((batch, users), bool)
    for given, mask in ((node_mask, sends), (user_mask, listens)):
        if given is not None:
            if _is_tensor(given) or np.shape(given) != mask.shape:
                return None
            mask[:] = given
    if not (sends.any(1).all() and listens.any(1).all()):
        return None
    g = channel.astype(np.complex128)
    eps = eps.astype(np.float64)
    limits = np.broadcast_to(limits.astype(np.float64), (batch, nodes))
    found = Few.room(channel.shape)
    for i in range(batch):
        n, k = np.flatnonzero(sends[i]), np.flatnonzero(listens[i])
        there = np.ix_(k, n)
        if not _solve_into(found, i, n, k, g[i][there], eps[i][there], limits[i, n], starts, seed):
            return None
    return found


def _is_tensor(value: object) -> bool:
    """Return whether it is a tensor of torch, without importing torch."""
    return type(value).__module__.partition(".")[0] == "torch"


def _solve_into(
    found: Few,
    i: int,
    nodes: IntArray,
    users: IntArray,
    channel: ComplexArray,
    error: FloatArray,
    power: FloatArray,
    starts: int,
    seed: int,
) -> bool:
    """Solve problem i of `nodes` and `users`, normalised by the noise amplitude; False if not
    ordinary.
    """
    # Power into the channels, and what the weakest user would have alone as the scale.
    count, _, antennas = channel.shape
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
        return False
    slack = 4 * (antennas + 16) * ROUNDOFF * (norm + eps)  # rounding of norm - error
    single_user = np.maximum(norm - eps + slack, 0).sum(1).min() * (1 + 1e-14)

    # The search, from phases by the users' rank in strength.
    g, eps = g / scale, eps / scale
    per_node = g.transpose(1, 0, 2)
    gram = per_node.conj() @ per_node.transpose(0, 2, 1)
    order = np.argsort(-np.einsum("nkk->k", gram).real, kind="stable")
    candidates = max(1, 2 * starts)
    phase = np.empty((candidates, count), complex)
    phase[:, order] = _phases(seed, count, candidates)

    beam, proof = search_one(gram, eps, phase, starts, antennas)
    # Beams are judged, and bound and dual point brought back, in the units given.
    beams = _judged(g, eps, (beam.direction @ per_node) * beam.gain[:, None])
    beamformer = beams * amplitude[:, None]
    snr = _worst_case(channel, error, beamformer) ** 2
    up = 1 + 1e-14
    found.beamformer[i, nodes], found.snr[i] = beamformer, snr
    found.bound[i] = max(snr, min((proof.bound * scale * up) ** 2, single_user**2))
    found.weight[i, users] = proof.weight
    found.slope[i, users] = proof.slope / scale
    found.price[i, nodes] = proof.price * scale / power
    return True


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
