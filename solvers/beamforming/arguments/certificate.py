"""Upper bounds on max-min multicast beamforming within intervals of arguments, from any guess.

With unit powers let y_k = g_k^H w, r_k = |y_k| and q_n = norm(w_n) in [l_n, h_n]. A beam of the
amplitude u has r_k >= u + sum_n eps_kn q_n. The argument of y_k conj(y_j) lies within half_kj of
middle_kj. Let M be a Hermitian matrix with M_kk >= 0, and for every pair with half < pi / 2

    s_kj(+-) = Re(conj(M_kj) exp(i (middle_kj +- half_kj))) >= 0,      H_kj = min(s_kj(+), s_kj(-)),

M_kj = 0 for all other pairs, H_kk = M_kk, and let D > 0 have

    sum_kj M_kj g_k g_j^H  <=  blockdiag_n(D_n I).                                             (1)

Then (u 1 + E q)^T H (u 1 + E q) <= sum_n D_n q_n^2 with E = (eps_kn). *Proof.* (1) at w gives
sum_k M_kk r_k^2 + 2 sum_{k<j} Re(conj(M_kj) y_k conj(y_j)) <= sum_n D_n q_n^2. M_kj is within
pi / 2 - half of the middle of the wedge of y_k conj(y_j). On an arc where it is positive the cosine
is least at an end, so the real part is at least H_kj r_k r_j. Thus r^T H r <= sum_n D_n q_n^2, no
entry of H is negative, and r >= u 1 + E q.

For fixed u the difference of both sides is, in every q_n alone, concave, or convex and increasing.
So it is least at a corner of the box, and u is at most the largest root over all corners of

    u^2 1^T H 1 + 2 u 1^T H E q + (E q)^T H (E q) = sum_n D_n q_n^2.                           (2)

Without errors this is u^2 <= sum_n D_n h_n^2 / 1^T H 1, the dual of the semidefinite relaxation
with X = w w^H, Y_kj = g_k^H X g_j, chords Re(exp(-i middle) Y_kj) >= cos(half) u^2 and the lines of
the wedges. With diagonal M it is at least as good as the bound of `kernel/certificate.py`.

Any Hermitian guess of M is made feasible: entries outside their cone become 0, and (1) is scaled by
a proven largest eigenvalue.

Rounding. The matrix of (1), divided by the roots of D, is computed with an error of at most
gamma sum_kj |M_kj| norm(g_k) norm(g_j) in norm. Its largest eigenvalue counts only if a Cholesky
factorisation proves it (S. M. Rump, BIT 46, 2006), otherwise the Frobenius norm is taken. All in
(2) is a sum of numbers that are not negative, so a relative allowance rounds it safely. Channels
are those given up to `ROUNDED` of their norm, which changes an amplitude by as much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.solvers.beamforming.arguments.intervals import Intervals
from finecast.solvers.rounding import ROUNDOFF

ALLOWANCE = 1e-13
"""Sums of numbers that are not negative are rounded by this share, a thousand roundings."""

ROUNDED = 64 * ROUNDOFF
"""Channels and errors are off by at most this share, after powers are absorbed."""

MOST_NODES = 8
"""Nodes with errors, at most: all 2^N corners of the box of amplitudes are looked at."""


@dataclass(frozen=True)
class Messages:
    """Problems of one size, with powers absorbed: norm(w_n) <= 1.

    Attributes
    ----------
    channel
        (B, K, N, A).
    error
        (B, K, N) radii.
    """

    channel: ComplexArray
    error: FloatArray

    def take(self, index: IntArray | BoolArray) -> Messages:
        """Return the problems that `index`, or a mask, selects."""
        return Messages(self.channel[index], self.error[index])


@dataclass(frozen=True)
class Box:
    """What is known of a beam: arguments and amplitudes, one box per problem.

    Attributes
    ----------
    arguments
        Intervals of the differences of arguments.
    low, high
        (B, N), 0 <= low <= norm(w_n) <= high <= 1.
    """

    arguments: Intervals
    low: FloatArray
    high: FloatArray

    @classmethod
    def whole(cls, messages: Messages) -> Box:
        """Return the box that holds all beams."""
        boxes, users, nodes, _ = messages.channel.shape
        return cls(Intervals.whole(boxes, users), np.zeros((boxes, nodes)), np.ones((boxes, nodes)))

    def take(self, index: IntArray | BoolArray) -> Box:
        """Return the boxes that `index`, or a mask, selects."""
        return Box(self.arguments.take(index), self.low[index], self.high[index])

    def joined(self, more: Box) -> Box:
        """Return these boxes followed by `more`."""
        return Box(
            self.arguments.joined(more.arguments),
            np.concatenate([self.low, more.low]),
            np.concatenate([self.high, more.high]),
        )


def proven_bound(
    messages: Messages, box: Box, matrix: ComplexArray, price: FloatArray
) -> FloatArray:
    """Return (B,) certified upper bounds on u of the beams within each box.

    Parameters
    ----------
    messages, box
        B problems, and what is known of their beams.
    matrix
        (B, K, K), a guess of M; its upper triangle counts.
    price
        (B, N), a guess of D.

    Examples
    --------
    One node, two users of gains 1 and -1 whose signals agree in argument up to a quarter turn: no
    beam does that. What a guess proves falls with M_01, down to 0.

    >>> messages = Messages(np.array([[[[1 + 0j]], [[-1 + 0j]]]]), np.zeros((1, 2, 1)))
    >>> box = Box.whole(messages)
    >>> box.arguments.half[0, 0, 1] = box.arguments.half[0, 1, 0] = np.pi / 4
    >>> for m in (0.0, 0.5, 0.9):
    ...     guess = np.array([[[1, m], [m, 1]]], dtype=complex)
    ...     print(proven_bound(messages, box, guess, np.ones((1, 1))).round(3))
    [1.]
    [0.608]
    [0.247]
    """
    feasible, lower = _feasible(box.arguments, matrix)
    price = np.where(np.isfinite(price), np.clip(price, 1e-12, 1e12), 1e12)
    top = _proven_eigenvalue(messages.channel, feasible, price)
    quadratic, linear, constant = _coefficients(messages.error, lower)

    # All corners of the box of amplitudes; without errors the upper one is the worst.
    nodes = price.shape[1]
    corner = np.ones((1, nodes), dtype=bool)
    if messages.error.any():
        if nodes > MOST_NODES:
            raise ValueError(f"{nodes} nodes with errors, allowed are {MOST_NODES}")
        corner = (np.arange(1 << nodes)[:, None] >> np.arange(nodes)) & 1 == 1
    amplitude = np.where(corner, box.high[:, None], box.low[:, None])  # (B, c, N)
    up, down = 1 + ALLOWANCE, 1 - ALLOWANCE
    spent = (amplitude**2 @ price[..., None])[..., 0] * (top * up)[:, None]
    first = (amplitude @ linear[..., None])[..., 0] * down
    lost = ((amplitude @ constant) * amplitude).sum(-1) * down
    left = np.maximum(spent - lost, 0)
    square = (quadratic * down)[:, None]
    bottom = first + np.sqrt(first**2 + square * left)
    with np.errstate(divide="ignore", invalid="ignore"):
        root = np.where(left > 0, left / bottom * up, 0.0).max(-1)
    unsure = ROUNDED * (np.linalg.norm(messages.channel, axis=-1) + messages.error).sum(-1).max(-1)
    return np.asarray(np.where(np.isnan(root), np.inf, root) + unsure)


def _feasible(arguments: Intervals, matrix: ComplexArray) -> tuple[ComplexArray, FloatArray]:
    """Return M (B, K, K) with every entry in its cone, and H (B, K, K) from below."""
    users = matrix.shape[-1]
    diagonal = np.arange(users)
    entry = np.where(np.isfinite(matrix), matrix, 0)
    upper = np.triu(entry, 1)
    size = np.abs(upper)
    usable = arguments.half < np.pi / 2 - 1e-9
    sides = [
        (upper.conj() * np.exp(1j * (arguments.middle + sign * arguments.half))).real
        for sign in (1, -1)
    ]
    low = np.minimum(*sides) - 32 * ROUNDOFF * size * (1 + np.abs(arguments.middle))
    inside = usable & (low >= 0) & (size > 0)
    upper = np.where(inside, upper, 0)
    lower = np.where(inside, low, 0)
    weight = np.maximum(entry[:, diagonal, diagonal].real, 0)
    matrix, lower = upper + upper.conj().swapaxes(1, 2), lower + lower.swapaxes(1, 2)
    matrix[:, diagonal, diagonal] = lower[:, diagonal, diagonal] = weight
    return matrix, lower


def _coefficients(
    error: FloatArray, lower: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return 1^T H 1 (B,), 1^T H E (B, N) and E^T H E (B, N, N)."""
    through = lower @ error
    return lower.sum((1, 2)), through.sum(1), error.swapaxes(1, 2) @ through


def _proven_eigenvalue(
    channel: ComplexArray, matrix: ComplexArray, price: FloatArray
) -> FloatArray:
    """Return (B,) t > 0 with sum_kj M_kj g_k g_j^H <= t blockdiag_n(D_n I), proven."""
    boxes, users, nodes, antennas = channel.shape
    scaled = channel / np.sqrt(price)[:, None, :, None]
    rows = scaled.reshape(boxes, users, nodes * antennas)
    whole = rows.swapaxes(1, 2) @ matrix @ rows.conj()
    size = np.linalg.norm(rows, axis=2)
    moduli = (size[:, None] @ np.abs(matrix) @ size[..., None])[:, 0, 0]
    gamma = 16 * (2 * users + nodes * antennas + 16) * ROUNDOFF
    sound = np.isfinite(whole).all((1, 2)) & np.isfinite(moduli)
    whole = np.where(sound[:, None, None], whole, 0)
    whole = (whole + whole.conj().swapaxes(1, 2)) / 2
    dimension = whole.shape[-1]
    trace = np.abs(np.diagonal(whole, axis1=1, axis2=2)).sum(-1)
    try:
        guess = np.linalg.eigvalsh(whole)[:, -1]
    except np.linalg.LinAlgError:  # the Frobenius norm is no smaller
        guess = np.linalg.norm(whole, axis=(1, 2))
    top = np.maximum(guess, 0) + gamma * moduli
    shifted = top[:, None, None] * np.eye(dimension) - whole
    proof = 16 * (dimension + 2) * ROUNDOFF * (dimension * top + trace)
    proven = np.where(_definite(shifted), top + proof, np.linalg.norm(whole, axis=(1, 2)) * 1.001)
    return np.where(sound, np.maximum(proven + gamma * moduli, 1e-290), np.inf)


def _definite(matrix: ComplexArray) -> BoolArray:
    """Return (B,) whether the Cholesky factorisation of each matrix runs to completion."""
    try:
        np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        if len(matrix) == 1:
            return np.zeros(1, dtype=bool)
        return np.concatenate([_definite(one[None]) for one in matrix])
    return np.ones(len(matrix), dtype=bool)
