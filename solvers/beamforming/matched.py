"""Matched beams in closed form: maximum-ratio transmission, and zero-forcing for several groups.

One message. For user weights a >= 0 and unit phases e_k, the sum of guaranteed amplitudes
sum_k a_k (Re(conj(e_k) y_k) - sum_n eps_{k,n} norm(w_n)) falls apart into the nodes and is largest
at

    v_n = sum_k a_k e_k g_{k,n}        c_n = sum_k a_k eps_{k,n}
    w_n = sqrt(P_n) v_n / norm(v_n)  if norm(v_n) > c_n, else 0

so every node sends at full power towards the phase-aligned sum of the users, or is silent. The
phases start from the principal eigenvector of the users' Gram matrix and follow e_k <- y_k / |y_k|,
which never lowers that sum. For a group of users there is no one matched beam; the best of three
weightings is taken: all users alike (a_k = 1 / norm(g_k)), the weak ones more
(a_k = 1 / norm(g_k)^2), and the weakest user alone. For K = 1 they agree, and are optimal:
sqrt(snr) = sum_n sqrt(P_n) max(0, norm(g_n) - eps_n).

Several messages at once. Zero-forcing: the beam of a message lies in the null space of the channels
of all users who do not want it, which needs more antennas than there are such users.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, checked, checked_number
from finecast.solvers.beamforming.worst_case import (
    Multicast,
    check_problem,
    margins,
    mrt_sum,
    scale_to_power,
    worst_case_snr,
)
from finecast.solvers.rounding import EPSILON

ALIGNMENTS = 20
"""Rounds of e_k <- y_k / |y_k|."""

QUICK_ALIGNMENTS = 10
"""The same where there is no time."""


def solve_matched(
    channel: ArrayLike, error: ArrayLike, power: ArrayLike, *, seed: int = 0
) -> Multicast:
    """Return the best matched beam for one message; optimal for one user, a baseline for more.

    Parameters
    ----------
    channel, error, power
        g (K, N, A) and eps (K, N) normalised by the noise amplitude, 1/sqrt(W); P (N,), W.
    seed
        Not used, since nothing is drawn. All methods share the signature.

    Raises
    ------
    ValueError
        Names the argument that is wrong.
    """
    g, eps, limits = check_problem(channel, error, power)
    users = g.shape[0]
    # Of the power put into every antenna, so that a node without any does not count.
    strength = np.linalg.norm(g * np.sqrt(limits)[:, None], axis=(1, 2))
    largest = strength.max() if strength.any() else 1.0
    inverse = largest / np.maximum(strength, 1e-100 * largest)
    weakest = np.eye(users)[np.argmin(strength)]
    beams = [mrt_sum(g, limits, np.ones(users, dtype=np.complex128))]
    for weights in (inverse, inverse**2, weakest):
        beams.append(matched_beam(g, eps, limits, weights / weights.max()))
    candidates = [_without_harmful_nodes(g, eps, beam) for beam in beams]
    best = candidates[int(np.argmax(margins(g, eps, np.stack(candidates)).min(axis=1)))]
    best.setflags(write=False)
    return Multicast(best, worst_case_snr(g, eps, best))


def matched_beam(
    channel: ComplexArray, error: FloatArray, power: FloatArray, weights: FloatArray
) -> ComplexArray:
    """Return the beam (N, A) for given user weights a (K,), with aligned phases.

    Parameters
    ----------
    channel, error, power
        g (K, N, A), eps (K, N), P (N,).
    weights
        a, shape (K,), >= 0.
    """
    phases = aligned_phases(channel, weights)
    amplitude = np.sqrt(power)[:, None]
    spent = weights @ error
    for _ in range(ALIGNMENTS):
        sums = np.einsum("k,kna->na", weights * phases, channel)
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        sends = norms > spent[:, None]
        beam = amplitude * np.divide(sums, norms, out=np.zeros_like(sums), where=sends)
        phases = _phase(np.einsum("kna,na->k", np.conj(channel), beam))
    return scale_to_power(beam, power)


def aligned_beams(
    channel: ComplexArray, error: FloatArray, power: FloatArray, users: BoolArray
) -> ComplexArray:
    """Return beams (P, N, A), W^1/2, that send each user's signal in phase, weak users more.

    As `matched_beam` with a_k = 1 / norm(g_k)^2, for many
    user sets at once.

    Parameters
    ----------
    channel, error
        (K, N, A) and (K, N) of a slot, normalised by the noise amplitude.
    power
        (N,) W.
    users
        (P, K) bool, who listens.

    Examples
    --------
    Two nodes of one antenna, one user who receives the second one turned by 90 degrees.

    >>> channel, error = np.array([[[1.0], [1.0j]]]), np.zeros((1, 2))
    >>> beam = aligned_beams(channel, error, np.ones(2), np.array([[True]]))
    >>> float(abs((channel[0].conj() * beam[0]).sum()).round(6))
    2.0
    """
    strength = np.linalg.norm(channel * np.sqrt(power)[:, None], axis=(1, 2))
    weight = users / np.maximum(strength, np.finfo(float).tiny) ** 2
    lost = weight @ error
    signal = np.ones(users.shape, dtype=np.complex128)
    for _ in range(QUICK_ALIGNMENTS):
        direction = np.einsum("pk,kna->pna", weight * signal, channel)
        length = np.linalg.norm(direction, axis=2)
        amplitude = np.where(length > lost, np.sqrt(power), 0.0) / np.where(length > 0, length, 1.0)
        beam = amplitude[..., None] * direction
        received = np.einsum("kna,pna->pk", channel.conj(), beam)
        signal = np.where(received == 0, 1.0, received / np.maximum(np.abs(received), 1e-300))
    return np.asarray(beam)


def aligned_phases(channel: ComplexArray, weights: FloatArray) -> ComplexArray:
    """Return unit phases e (K,): those of the principal eigenvector of a_k a_l g_k^H g_l.

    They maximise norm(sum_k b_k e_k a_k g_k) jointly with the amplitudes b of unit norm.

    Parameters
    ----------
    channel
        g, shape (K, N, A).
    weights
        a, shape (K,), >= 0.
    """
    rows = weights[:, None] * channel.reshape(len(channel), -1)
    _, vectors = np.linalg.eigh(np.conj(rows) @ rows.T)
    return _phase(vectors[:, -1])


def zero_forcing(
    channel: ArrayLike,
    power: ArrayLike,
    groups: ArrayLike,
    *,
    nodes: ArrayLike | None = None,
    regularisation: float = 0.0,
) -> ComplexArray:
    """Return beams of several messages at once that spare the users who do not want them.

    With G the channels of the users outside group i, on the nodes of message i,

        f_k = g_k - G^H (G G^H + delta I)^-1 G g_k,     w_i ~ sum_{k in i} e_k f_k / norm(f_k)

    f_k is the part of g_k that the others do not hear (delta = 0), or hear little. Every message
    is scaled as a whole, which keeps its nulls, to at most 1 / I of the power of every node. A
    message without room (G spans its channels, so that zero-forcing does not exist) is silent.

    Parameters
    ----------
    channel, power
        g (K, N, A) normalised by the noise amplitude, 1/sqrt(W); P (N,), W.
    groups
        Shape (I, K) bool, the users of every message.
    nodes
        Shape (I, N) bool, the nodes that send it; all when absent.
    regularisation
        delta in units of (users outside the group) / sum_n P_n; 1 is the usual regularised
        zero-forcing, 0 the exact one.

    Returns
    -------
    Beams w, shape (I, N, A), sqrt(W).

    Raises
    ------
    ValueError
        Names the argument that is wrong.
    """
    shape = np.shape(channel)
    g, _, limits = check_problem(channel, np.zeros(shape[:2]), power)
    members, senders = check_groups(groups, nodes, *g.shape[:2])
    delta = checked_number("regularisation", regularisation, low=0)
    beams = np.zeros((len(members), *g.shape[1:]), dtype=np.complex128)
    useful = limits > 0
    if not useful.any():
        return beams
    for i, (inside, sending) in enumerate(zip(members, senders & useful, strict=True)):
        stacked = np.where(sending[:, None], g, 0).reshape(len(g), -1)
        listeners, outsiders = stacked[inside], stacked[~inside]
        load = np.sqrt(delta * len(outsiders) / limits.sum())
        # Ridge regression of g_k on the outsiders' channels; its residual is f_k.
        system = np.vstack([outsiders.T, load * np.eye(len(outsiders))])
        target = np.vstack([listeners.T, np.zeros((len(outsiders), len(listeners)))])
        free = listeners.T - outsiders.T @ np.linalg.lstsq(system, target, rcond=1e-12)[0]
        norms = np.linalg.norm(free, axis=0)
        room = norms > 1e-9 * np.linalg.norm(listeners, axis=1)
        if not room.any():
            continue
        # Of users without room nothing is left; the others' parts are added in phase.
        heard = (free[:, room] / norms[room]).T.reshape(-1, *g.shape[1:])
        beam = np.einsum("k,kna->na", aligned_phases(heard, np.ones(len(heard))), heard)
        spent = np.linalg.norm(beam, axis=1)[useful] / np.sqrt(limits[useful] / len(members))
        if spent.max() > 0:
            beams[i] = beam / spent.max()
    return np.asarray(beams * (1 - 8 * EPSILON), dtype=np.complex128)


def check_groups(
    groups: ArrayLike, nodes: ArrayLike | None, users: int, all_nodes: int
) -> tuple[BoolArray, BoolArray]:
    """Return (groups, nodes) as read-only arrays; every message has a user.

    Parameters
    ----------
    groups
        Shape (I, K) bool, I >= 1.
    nodes
        Shape (I, N) bool, or None for all.
    users, all_nodes
        K and N.

    Raises
    ------
    ValueError
        Names the argument that is wrong.
    """
    shape = np.shape(groups)
    if len(shape) != 2 or shape[0] < 1:
        raise ValueError(f"groups: shape is {shape}, expected (messages, {users}), at least one")
    members = checked("groups", groups, "bool", (shape[0], users))
    for i in np.flatnonzero(~members.any(axis=1)):
        raise ValueError(f"groups[{i}]: no user is not allowed, every message needs one")
    senders = np.ones((shape[0], all_nodes), dtype=bool) if nodes is None else nodes
    return members, checked("nodes", senders, "bool", (shape[0], all_nodes))


def _without_harmful_nodes(
    channel: ComplexArray, error: FloatArray, beam: ComplexArray
) -> ComplexArray:
    """Silence one node after the other for as long as that raises the worst case."""
    beam = beam.copy()
    worst = margins(channel, error, beam).min()
    while True:
        silenced = np.where(np.eye(len(beam), dtype=bool)[:, :, None], 0, beam)  # (N, N, A)
        values = margins(channel, error, silenced).min(axis=1)
        node = int(np.argmax(values))
        if not values[node] > worst:
            return beam
        beam, worst = silenced[node], values[node]


def _phase(amplitudes: ComplexArray) -> ComplexArray:
    """Return the unit phase of every number, 1 of zero."""
    size = np.abs(amplitudes)
    return np.asarray(np.where(size > 0, amplitudes, 1) / np.where(size > 0, size, 1))
