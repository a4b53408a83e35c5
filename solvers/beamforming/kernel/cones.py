"""Beams at partial power: second-order cone steps from many starts, one problem at a time.

For fixed phases e_k of the received signals, with unit powers,

    maximise u   s.t.   Re(e_k^* sum_n g_{k,n}^H w_n) - sum_n eps_{k,n} t_n >= u   for all k
                        norm(w_n) <= t_n <= 1

is an inner approximation of the max-min problem. Then e_k <- y_k / |y_k|, and u cannot fall: the
iteration of `ascent.py` with every step solved to the end. The dual of `ascent.py` says less where
v_n = sum_k lambda_k e_k g_{k,n} vanishes: any w_n in its ball may then be the best one, at partial
power. That takes more users than node n has real dimensions, so it is common where few dimensions
face many users: one antenna, or users who all lie in one direction. There the search also ends in
local optima more often, which many starts leave behind. Everywhere else these steps gain nothing
and are not taken (`crowded`).

The steps go through Clarabel without a modelling layer, 0.1 to 0.2 ms each. Every step has a solver
of its own, so that no answer depends on what was solved before. No status is believed: beams are
put within their power and judged by the closed form.
"""

from __future__ import annotations

import clarabel
import numpy as np
from scipy.sparse import csc_matrix

from finecast.problem.arrays import ComplexArray, FloatArray
from finecast.solvers.beamforming.kernel.steps import CLOSED, NEAR, TINY

FEWEST = 3
"""Users from which partial power can be best at a node that reaches them in one dimension: so many
complex numbers can have a positive combination that vanishes, two cannot in general."""

CROWD = 6
"""Users per dimension from which a node of several dimensions counts as crowded. Of 30 to 50
Rayleigh problems each, none had a better beam at 4 users per dimension, one in eight at 8."""

LARGEST = 5000
"""Dimensions of all nodes times users up to which beams at partial power are tried. Beyond, a
message takes seconds: 24 to 32 users of 70 nodes with 4 antennas 3 to 6 s each, and 13 such
messages gained 7e-4 of u at most."""

SAME_DIRECTION = 1e-3
"""Singular values of a node's unit channels below this share of the largest span no dimension."""

NEGLIGIBLE = 1e-12
"""Singular values of a node's channels below this share of the largest are left out of beams."""

STEPS = 20
"""Most steps of a start."""

ROUGH = 1e-3
"""A start ends when a step gains less than this share of u. The best one goes on."""

FINE = 1e-6
"""The same for the best one."""

SOLVER_TOLERANCE = 1e-7
"""Clarabel's tolerances. Nothing proven depends on them."""


class ConeSteps:
    """The cone programmes of one problem: they differ in the phases only.

    The problem is brought to a normal form. Nodes that help nobody are left out, and so are
    dimensions in which nobody is: rows (K, n r) are the users' g_k^H, in bases (n, A, r) of what
    every node spans. Columns past a node's dimension belong to zero rows.

    Variables of a programme: Re w_n and Im w_n of every node, then t (if any node errs), then u.
    Every user's row is divided by its strength, so that gains 80 dB apart are numbers of order one.
    """

    def __init__(self, channel: ComplexArray, error: FloatArray) -> None:
        self.nodes = np.flatnonzero((np.linalg.norm(channel, axis=-1) > error).any(0))
        heard = channel[:, self.nodes].conj()
        _, values, right = np.linalg.svd(heard.transpose(1, 0, 2))
        size = int((values > NEGLIGIBLE * values[:, :1]).sum(1).max(initial=1))
        self.basis = right[:, :size].conj().transpose(0, 2, 1)
        self.rows = np.einsum("kna,nar->knr", heard, self.basis).reshape(len(channel), -1)
        self.error = error[:, self.nodes]
        self.shape = (len(self.nodes), size)
        self.strength = np.linalg.norm(heard, axis=-1).sum(1)
        self._compile()

    def _compile(self) -> None:
        """Set up everything but the signals' coefficients."""
        users, (nodes, size) = len(self.rows), self.shape
        erring = bool(self.error.any())
        beams, limits, cone = 2 * nodes * size, erring * nodes, 1 + 2 * size
        heads = users + limits + cone * np.arange(nodes)  # rows: margins, t <= 1, one cone a node
        columns = beams + limits + 1
        matrix = np.zeros((users + limits + nodes * cone, columns))
        right = np.zeros(len(matrix))
        matrix[:users, :beams] = np.inf
        matrix[:users, -1] = self.strength.min() / self.strength
        if erring:
            t = beams + np.arange(nodes)
            matrix[:users, t] = self.error / self.strength[:, None]
            matrix[users + np.arange(nodes), t] = 1
            matrix[heads, t] = -1
            right[users : users + nodes] = 1
        else:
            right[heads] = 1
        inner = (heads[:, None] + 1 + np.arange(2 * size)).ravel()
        matrix[inner, np.arange(beams)] = -1
        self.matrix = csc_matrix(matrix)
        self.signals = np.isinf(self.matrix.data)  # by columns
        self.right = right
        self.none = csc_matrix((columns, columns))
        self.objective = -np.eye(columns)[-1]
        self.cones = [clarabel.NonnegativeConeT(users + limits)]
        self.cones += [clarabel.SecondOrderConeT(cone) for _ in range(nodes)]
        self.settings = clarabel.DefaultSettings()
        self.settings.verbose = False
        self.settings.direct_solve_method = "qdldl"  # on one thread
        for name in ("tol_gap_abs", "tol_gap_rel", "tol_feas"):
            setattr(self.settings, name, SOLVER_TOLERANCE)

    def beam(self, phase: ComplexArray) -> ComplexArray | None:
        """Return the best beam (n r,) for the phases (K,), or None when the solver has none."""
        nodes, size = self.shape
        turned = (self.rows * (phase.conj() / self.strength)[:, None]).T.reshape(nodes, size, -1)
        self.matrix.data[self.signals] = np.stack([-turned.real, turned.imag], axis=1).ravel()
        solver = clarabel.DefaultSolver(
            self.none, self.objective, self.matrix, self.right, self.cones, self.settings
        )
        found = np.array(solver.solve().x)[: 2 * nodes * size].reshape(nodes, 2, size)
        if not np.isfinite(found).all():
            return None
        return _within_power(found[:, 0] + 1j * found[:, 1]).ravel()

    def climb(self, phase: ComplexArray, gain: float) -> tuple[ComplexArray, float]:
        """Return the best beam (n r,) met from the phases (K,) on, and its u.

        Ends when a step gains less than the share `gain`.
        """
        best, value = np.zeros(self.rows.shape[1], complex), 0.0
        for _ in range(STEPS):
            beam = self.beam(phase)
            if beam is None:
                break
            received = self.rows @ beam
            spent = np.sqrt((beam.real**2 + beam.imag**2).reshape(self.shape).sum(1))
            new = float((np.abs(received) - self.error @ spent).min())
            if not new > value:
                break
            ended = new <= value * (1 + gain)
            best, value = beam, new
            if ended:
                break
            phase = _phases(received)
        return best, value

    def full(self, beam: ComplexArray, nodes: int) -> ComplexArray:
        """Return the beam (n r,) as (N, A)."""
        full = np.zeros((nodes, self.basis.shape[1]), complex)
        full[self.nodes] = np.einsum("nar,nr->na", self.basis, beam.reshape(self.shape))
        return _within_power(full)


def crowded(channel: ComplexArray) -> bool:
    """Say whether beams at partial power are to be tried: some node has few dimensions.

    Parameters
    ----------
    channel
        (K, N, A).

    Examples
    --------
    Three users at one antenna; and two antennas whose users are all in one direction.

    >>> crowded(np.ones((2, 1, 1))), crowded(np.ones((3, 1, 1))), crowded(np.ones((3, 1, 2)))
    (False, True, True)

    Three users in two dimensions are too few.

    >>> crowded(np.array([[[1, 0]], [[0, 1]], [[1, 1]]]))
    False

    Beyond `LARGEST` none are tried, however few the dimensions.

    >>> crowded(np.ones((100, 50, 1))), crowded(np.ones((100, 51, 1)))
    (True, False)
    """
    users = len(channel)
    if users < FEWEST:
        return False
    norm = np.linalg.norm(channel, axis=-1, keepdims=True)
    unit = (channel / np.where(norm > 0, norm, 1)).transpose(1, 0, 2)
    values = np.linalg.svd(unit, compute_uv=False)
    size = (values > SAME_DIRECTION * values[:, :1]).sum(1)
    some = ((size == 1) | (CROWD * size <= users)) & (size > 0)
    return bool(some.any() and users * size.sum() <= LARGEST)


def better_at_partial_power(
    channel: ComplexArray,
    error: FloatArray,
    beam: ComplexArray,
    phases: ComplexArray,
    coupling: ComplexArray,
    bound: float,
    starts: int,
    seed: int,
) -> ComplexArray | None:
    """Return a beam (N, A) that is better by more than `CLOSED`, or None.

    Parameters
    ----------
    channel, error
        (K, N, A) and (K, N) for unit powers.
    beam
        (N, A), the best one known, with norm(w_n) <= 1.
    phases
        (s, K) to start from, besides those of the beam known.
    coupling
        (K, K) T of a dual point near the relaxation's optimum (`certificate.coupling`).
    bound
        On u: the search ends when a beam is within `CLOSED` of it.
    starts
        Starts drawn besides these: every other one from phases that the relaxation gives, as in
        `search.search_again`, the others from random phases.
    seed
        Seed of the phases.
    """
    if not np.maximum(np.linalg.norm(channel, axis=-1) - error, 0).sum(1).min() > 0:
        return None  # rounding leaves some user nothing: no beam is better than any other
    known = _worst(channel, error, beam)
    steps = ConeSteps(channel, error)
    best, value = steps.climb(_phases(np.einsum("kna,na->k", channel.conj(), beam)), ROUGH)
    drawn = _drawn_phases(channel, coupling, starts, seed)
    for phase in np.concatenate([_phases(phases), drawn]):
        if value * (1 + CLOSED) >= bound:
            break
        other, reached = steps.climb(phase, ROUGH)
        if reached > value:
            best, value = other, reached
    best, value = steps.climb(_phases(steps.rows @ best), FINE)
    if not value > known * (1 + CLOSED):
        return None
    return steps.full(best, len(beam))


def _drawn_phases(
    channel: ComplexArray, coupling: ComplexArray, starts: int, seed: int
) -> ComplexArray:
    """Return (starts, K) phases, drawn by the users' rank in strength, whatever their order."""
    users = len(channel)
    generator = np.random.default_rng(seed)
    order = np.argsort(-np.linalg.norm(channel, axis=(1, 2)), kind="stable")
    phases = np.exp(2j * np.pi * generator.random((starts, users)))
    drawn = generator.standard_normal((2, users, (starts + 1) // 2))
    ranked = coupling[np.ix_(order, order)]
    try:
        factor = np.linalg.cholesky((1 + NEAR) * np.eye(users) - ranked)
        signal = np.linalg.solve(factor.conj().T, drawn[0] + 1j * drawn[1])
    except np.linalg.LinAlgError:  # no point of the relaxation: random phases only
        signal = drawn[0] + 1j * drawn[1]
    phases[::2] = _phases(np.asarray(signal.T, complex))
    back = np.empty_like(phases)
    back[:, order] = phases
    return np.asarray(back)


def _worst(channel: ComplexArray, error: FloatArray, beam: ComplexArray) -> float:
    """Return u = min_k (|y_k| - sum_n eps_{k,n} norm(w_n)) of a beam (N, A)."""
    received = np.abs(np.einsum("kna,na->k", channel.conj(), beam))
    return float((received - error @ np.linalg.norm(beam, axis=1)).min())


def _within_power(beam: ComplexArray) -> ComplexArray:
    norm = np.linalg.norm(beam, axis=1, keepdims=True)
    return np.asarray(beam / np.maximum(norm, 1))


def _phases(signal: ComplexArray) -> ComplexArray:
    """Return the unit phase of every number, 1 of zero."""
    size = np.abs(signal)
    return np.asarray(np.where(size > TINY, signal, 1) / np.where(size > TINY, size, 1))
