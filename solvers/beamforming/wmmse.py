"""WMMSE for several multicast messages on the air at once, nominal or robust.

The problem is that of docs/formulation.md section 7. Message i goes to the users of group i from
the nodes Q_i. With the amplitude a = |y| of y = sum_n g_{k,n}^H w_{l,n} and the spread
b = sum_n eps_{k,n} norm(w_{l,n}),

    s_ki = max(0, a_ki - b_ki)     J_ki = 1 + sum_{l != i} (a_kl + b_kl)^2
    R_i  = min_{k in group i} log2(1 + s_ki^2 / J_ki)

is the guaranteed rate, and sum_i pi_i R_i, or min_i R_i / pi_i, is maximised subject to
sum_i norm(w_{i,n})^2 <= P_n.

For the receiver u = s / (s^2 + J) and the weight v = 1 + s^2 / J of the beams at hand (Shi,
Razaviyayn, Luo, He, IEEE Transactions on Signal Processing 59(9), 2011),

    ln(1 + s^2 / J) >= ln v + 1 - v ((1 - u s)^2 + u^2 J)

with equality at those beams: a minorant, concave and quadratic in w once the spreads are
majorised by quadratics that touch at the same beams (`_minorant`). The maximum over w of the
smallest minorant has multipliers lambda on the users and mu on the nodes, for which

    w_i = (sum_k C_kil g_k g_k^H + diag_n(F_in + mu_n))^-1 (sum_k D_ki g_k + tangents)

is one linear system per message. lambda moves by multiplicative weights towards the users that
are worst off and mu_n by the power of node n over its limit, a step per system solved. This is
no exact maximum, so a step is only taken as far as the true objective rises: of the beams
w + theta (new - w), theta = 8, 4, ..., 1/64, scaled to the power limits, the best is taken if it is
no worse than w, and w is kept otherwise, while lambda and mu go on. The objective therefore never
falls.

All starts run at once. A silent message stays silent (u = 0), so that starts matter: those made
here have every message on the air.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, checked, checked_number
from finecast.problem.sinr import worst_case_sinr
from finecast.solvers.beamforming.matched import check_groups, solve_matched, zero_forcing
from finecast.solvers.beamforming.worst_case import (
    Multicast,
    check_problem,
    mrt_sum,
    normal_form,
    scale_to_power,
    worst_case_snr,
)

Objective = Literal["sum", "max-min"]

STEPS = 2.0 ** np.arange(3, -7, -1)
"""theta, also beyond the whole step: WMMSE is slow at high SNR."""

FULL_STEP = int(np.argmin(np.abs(STEPS - 1)))
"""Where theta = 1 stands among them."""

RATE_OF_WEIGHTS = 1.5
"""Exponent of the multiplicative weights per nat, at most; 0.9 of it after a step without gain."""

REVIVAL = 0.1
"""A user that hears nothing of a message on the air counts as if s = 0.1 sqrt(J): else u = 0."""

PATIENCE = 30
"""The iteration ends when so many steps together gain no start more than the tolerance."""


@dataclass(frozen=True, eq=False)
class GroupBeams:
    """Beams of several messages on the air at once.

    Attributes
    ----------
    beamformer
        w, shape (I, N, A), sqrt(W); sum_i norm(w_{i,n})^2 <= P_n.
    rate
        Guaranteed rate of every message, shape (I,), bit/s/Hz.
    objective
        sum_i pi_i R_i, or min_i R_i / pi_i over the messages with pi_i > 0, bit/s/Hz.
    trace
        Objective of the start that ended best, after 0, 1, 2, ... steps; never falls.
    """

    beamformer: ComplexArray
    rate: FloatArray
    objective: float
    trace: FloatArray


@dataclass(frozen=True, eq=False)
class _Problem:
    """In normal form (`worst_case.NormalForm`): n nodes of power one, r dimensions, D = n r.

    `channel` (I, K, D) is zero at nodes that do not send the message; `error` (K, n);
    `groups` (I, K); `weights` (I,).
    """

    channel: ComplexArray
    error: FloatArray
    groups: BoolArray
    weights: FloatArray
    objective: Objective


@dataclass(frozen=True, eq=False)
class _Heard:
    """What users hear of messages for beams w (..., I, D), all of shape (..., I, K) but `norms`.

    `signal` y, `amplitude` a, `spread` b, `worst` s, `interference` J, and `norms` (..., I, n).
    """

    signal: ComplexArray
    amplitude: FloatArray
    spread: FloatArray
    worst: FloatArray
    interference: FloatArray
    norms: FloatArray


def solve_wmmse(
    channel: ArrayLike,
    error: ArrayLike,
    power: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    nodes: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    objective: Objective = "sum",
    start: ArrayLike | None = None,
    starts: int = 4,
    iterations: int = 200,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> GroupBeams:
    """Return beams for several multicast messages at once, best of several starts.

    Parameters
    ----------
    channel, error, power
        g (K, N, A) and eps (K, N) normalised by the noise amplitude, 1/sqrt(W); P (N,), W.
        eps = 0 gives the nominal method.
    groups
        Shape (I, K) bool, the users of every message; one message to all when absent.
    nodes
        Shape (I, N) bool, the nodes that send it; all when absent.
    weights
        pi, shape (I,), >= 0, ones when absent. For "max-min" the rates are to be in proportion to
        them. A message of weight 0 is not sent.
    objective
        "sum" for sum_i pi_i R_i, "max-min" for min_i R_i / pi_i.
    start
        Beams to start from besides those of `starts`, shape (I, N, A).
    starts
        Number of starts made here: matched beams, regularised zero-forcing, then MRT sums with
        random phases. All messages have equal power in them.
    iterations
        Largest number of steps.
    tolerance
        Relative gain within 30 steps below which a start counts as done.
    seed
        Seed of the random phases.

    Raises
    ------
    ValueError
        Names the argument that is wrong.
    """
    # What came in.
    g, eps, limits = check_problem(channel, error, power)
    users, all_nodes, _ = g.shape
    listeners, senders = check_groups(
        np.ones((1, users), dtype=bool) if groups is None else groups, nodes, users, all_nodes
    )
    messages = len(listeners)
    pi = np.ones(messages) if weights is None else weights
    pi = checked("weights", pi, "float", (messages,), low=0)
    if not pi.any():
        raise ValueError("weights: all are 0, at least one must be > 0")
    if objective not in ("sum", "max-min"):
        raise ValueError(f"objective: {objective!r} is not allowed, must be 'sum' or 'max-min'")
    for name, count, least in (("starts", starts, 1), ("iterations", iterations, 0)):
        if count < least:
            raise ValueError(f"{name}: {count} is not allowed, must be >= {least}")
    checked_number("tolerance", tolerance, low=0)
    given = None
    if start is not None:
        given = checked("start", start, "complex", (messages, *g.shape[1:]))
        given = _scale(np.where(senders[:, :, None], given, 0), limits)

    # The same in normal form, where beams are vectors of n r numbers.
    form = normal_form(g, eps, limits)
    mask = senders[:, form.nodes]
    # A lone message has the same best beam at any noise. WMMSE moves s by 1/s at most: s ~ 1.
    alone = form.best_alone.min()
    unit = alone if messages == 1 and alone > 0 else 1.0
    size = form.channel[0].size
    scaled = _Problem(
        channel=(form.channel / unit * mask[:, None, :, None]).reshape(messages, users, size),
        error=form.error / unit,
        groups=listeners,
        weights=pi / pi.mean(),
        objective=objective,
    )

    # All starts at once; the best one is taken back to the given antennas.
    generator = np.random.default_rng(seed)
    beams = _starts(form.channel, form.error, listeners, mask, starts, generator)
    if given is not None and size:
        reduced = np.einsum(
            "nar,ina->inr",
            np.conj(form.basis) / limits[form.nodes, None, None],
            given[:, form.nodes],
        )
        beams = np.concatenate([reduced.reshape(1, messages, size), beams])
    beams, traces = _ascend(scaled, beams, iterations, tolerance)
    best = int(np.argmax(traces[-1]))
    shape = (messages, *form.channel.shape[1:])
    beamformer = np.stack([form.beamformer(v, all_nodes) for v in beams[best].reshape(shape)])
    beamformer = _scale(np.where(senders[:, :, None], beamformer, 0), limits)

    # Judged by the closed form on the channels as given. The trace is in bit/s/Hz too.
    sinr = worst_case_sinr(g, eps, beamformer, np.ones((messages, messages), dtype=bool))
    rate = np.log2(1 + np.where(listeners, sinr.T, np.inf).min(axis=1))
    sent = pi > 0
    value = pi @ rate if objective == "sum" else (rate[sent] / pi[sent]).min()
    trace = traces[:, best]
    if messages == 1:
        trace = np.log1p(unit**2 * np.expm1(trace))
    trace = trace * (pi.mean() if objective == "sum" else 1 / pi.mean()) / np.log(2)
    for array in (beamformer, rate, trace):
        array.setflags(write=False)
    return GroupBeams(beamformer, rate, float(value), trace)


def solve_wmmse_single(
    channel: ArrayLike,
    error: ArrayLike,
    power: ArrayLike,
    *,
    starts: int = 4,
    iterations: int = 300,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> Multicast:
    """Return the beam of `solve_wmmse` for one message to all users; parameters as there.

    Raises
    ------
    ValueError
        Names the argument that is wrong.
    """
    beam = solve_wmmse(
        channel, error, power, starts=starts, iterations=iterations, tolerance=tolerance, seed=seed
    ).beamformer[0]
    return Multicast(beam, worst_case_snr(channel, error, beam))


def _starts(
    channel: ComplexArray,
    error: FloatArray,
    groups: BoolArray,
    mask: BoolArray,
    count: int,
    generator: np.random.Generator,
) -> ComplexArray:
    """Return beams (count, I, D) of unit node power: matched, zero-forcing, random-phase MRT."""
    users, nodes, _ = channel.shape
    messages = len(groups)
    beams = np.zeros((count, messages, *channel.shape[1:]), dtype=np.complex128)
    phases = np.exp(2j * np.pi * generator.random((count, users)))
    if not channel.size:
        return beams.reshape(count, messages, 0)
    power = np.ones(nodes)
    for i, (members, sending) in enumerate(zip(groups, mask, strict=True)):
        heard = channel[members] * sending[:, None]
        beams[0, i] = solve_matched(heard, error[members], power).beamformer
        beams[2:, i] = mrt_sum(heard, power, phases[2:, members])
    beams /= np.sqrt(messages)
    if count > 1:
        beams[1] = zero_forcing(channel, power, groups, nodes=mask, regularisation=1.0)
    return beams.reshape(count, messages, -1)


def _ascend(
    problem: _Problem, beams: ComplexArray, iterations: int, tolerance: float
) -> tuple[ComplexArray, FloatArray]:
    """Improve beams (S, I, D) and return them with the objectives (steps + 1, S), in nats."""
    runs, _, size = beams.shape
    nodes = problem.error.shape[1]
    heard = _hear(problem, beams)
    value = _objective(problem, _rates(heard))
    trace = [value]
    if size == 0:
        return beams, np.stack(trace)
    antennas = size // nodes
    share = _normalised(problem, np.ones((runs, *problem.groups.shape)))
    exponent = np.full(runs, RATE_OF_WEIGHTS)
    price: FloatArray | None = None
    for _ in range(iterations):
        # The maximiser of the weighted minorants: one linear system per message.
        matrix, pull, hold = _minorant(problem, beams, heard, share)
        # Nodes share the multiplier of their power limit; the floor keeps the matrix regular.
        load = np.einsum("sidd->s", matrix).real
        if price is None:
            price = np.linalg.norm(pull.reshape(runs, -1, nodes, antennas), axis=3).sum(axis=1)
        price = np.maximum(price, 1e-14 * load[:, None] + 1e-200)
        diagonal = np.repeat(hold + price[:, None], antennas, axis=2)
        matrix[..., np.arange(size), np.arange(size)] += diagonal
        target = np.asarray(np.linalg.solve(matrix, pull[..., None])[..., 0], dtype=np.complex128)
        power = _node_power(target, nodes)
        price = price * np.sqrt(np.clip(power, 1e-4, 1e4))
        target = _within_power(target, nodes)

        # The best step towards it, by the true objective, if any step is no loss.
        steps = beams[:, None] + STEPS[:, None, None] * (target - beams)[:, None]  # (S, 10, I, D)
        steps = _within_power(steps, nodes)
        rates = _rates(_hear(problem, steps))
        values = _objective(problem, rates)
        taken = values.argmax(axis=1)
        reached = np.take_along_axis(values, taken[:, None], axis=1)[:, 0]
        accepted = reached >= value
        gained = reached > value * (1 + 1e-7)
        beams = np.where(accepted[:, None, None], steps[np.arange(runs), taken], beams)
        value = np.where(accepted, reached, value)
        trace.append(value)

        # Users that are worst off after the whole step count more; less so where it gained nothing.
        heard = _hear(problem, beams)
        share = _reweighted(problem, share, rates[:, FULL_STEP], exponent)
        exponent = np.where(gained, np.minimum(1.2 * exponent, RATE_OF_WEIGHTS), 0.9 * exponent)
        if len(trace) > PATIENCE:
            earlier = trace[-1 - PATIENCE]
            if (value - earlier <= tolerance * value).all():
                break
    return beams, np.stack(trace)


def _minorant(
    problem: _Problem, beams: ComplexArray, heard: _Heard, share: FloatArray
) -> tuple[ComplexArray, ComplexArray, FloatArray]:
    """Return quadratic minorants 2 Re(p_i^H w_i) - w_i^H (M_i + diag F_i) w_i of weighted rates.

    With c = v u^2 and v u = s / J, per pair of a user and its message (constants left out)

        ln(1 + s^2 / J) >= 2 v u s - c (s^2 + J)

    Spreads are majorised where they cost, Q = sum_n eps_n norm(w_n)^2 / norm(w_n at hand):

        (a + b)^2 <= (1 + b0/a0) a^2 + (a0 + b0) Q                           interference
        (a - b)^2 <= (1 + b0/a0) a^2 + (a0 + b0) Q - 4 b0 a - 4 a0 b + ...   signal
        b <= (Q + b0) / 2,     a >= Re(conj(e) y),     b >= its tangent

    by (x - y)^2 = 2 x^2 + 2 y^2 - (x + y)^2 and Cauchy-Schwarz, each with equality at hand.

    Returns
    -------
    M (S, I, D, D), p (S, I, D) and F (S, I, n).
    """
    channel, error = problem.channel, problem.error
    antennas = channel.shape[2] // error.shape[1]
    a, b, j = heard.amplitude, heard.spread, heard.interference
    on_air = problem.groups & (heard.norms.sum(axis=-1) > 0)[..., None]
    s = np.maximum(heard.worst, REVIVAL * np.sqrt(j) * on_air)
    phase = np.where(a > 0, heard.signal, 1) / np.where(a > 0, a, 1)
    slope = s / j  # v u
    curvature = share * s**2 / (j * (s**2 + j))  # lambda c
    total = curvature.sum(axis=1, keepdims=True)  # of the user, over its messages
    # An amplitude of 0, a null, would be frozen by 1 / a0: lifted, the bound is just not met.
    lifted = np.maximum(a, 0.05 * b)
    ratio = np.divide(b, lifted, out=np.zeros_like(b), where=b > 0)
    toward = share * slope + 2 * curvature * b
    away = -share * slope + 2 * curvature * a  # of b: a gain where > 0, a cost where < 0
    inverse = 1 / np.maximum(heard.norms, 1e-6)

    quadratic = (1 + ratio) * total
    matrix = (channel.transpose(0, 2, 1) * quadratic[:, :, None, :]) @ np.conj(channel)
    tangent = (np.maximum(0.0, away) @ error) * inverse
    pull = np.einsum("sik,ikd->sid", toward * phase, channel)
    pull = pull + beams * np.repeat(tangent, antennas, axis=2)
    hold = (((lifted + b) * total + np.maximum(0.0, -away)) @ error) * inverse
    return np.asarray(matrix), np.asarray(pull), np.asarray(hold)


def _hear(problem: _Problem, beams: ComplexArray) -> _Heard:
    """Return amplitudes, spreads and interference for beams (..., I, D)."""
    messages = len(problem.groups)
    nodes = problem.error.shape[1]
    signal = (np.conj(problem.channel) @ beams[..., None])[..., 0]
    norms = np.linalg.norm(beams.reshape(*beams.shape[:-1], nodes, -1 if nodes else 0), axis=-1)
    amplitude, spread = np.abs(signal), norms @ problem.error.T
    # The own message is left out, not subtracted: no cancellation at high SNR.
    interference = 1 + (1 - np.eye(messages)) @ (amplitude + spread) ** 2
    worst = np.maximum(0.0, amplitude - spread)
    return _Heard(signal, amplitude, spread, worst, interference, norms)


def _rates(heard: _Heard) -> FloatArray:
    """Return every user's guaranteed rate of every message, (..., I, K), nats."""
    return np.asarray(np.log1p(heard.worst**2 / heard.interference))


def _objective(problem: _Problem, rates: FloatArray) -> FloatArray:
    """Return the objective (...) of rates (..., I, K), with weights of mean 1."""
    lowest = np.where(problem.groups, rates, np.inf).min(axis=-1)
    if problem.objective == "sum":
        return np.asarray(lowest @ problem.weights)
    sent = problem.weights > 0
    return np.asarray((lowest[..., sent] / problem.weights[sent]).min(axis=-1))


def _reweighted(
    problem: _Problem, share: FloatArray, rates: FloatArray, exponent: FloatArray
) -> FloatArray:
    """Return lambda exp(-exponent (R - min R)), normalised per message or over all."""
    if problem.objective == "sum":
        above = rates - np.where(problem.groups, rates, np.inf).min(axis=2, keepdims=True)
    else:
        sent = problem.weights > 0
        scaled = rates / np.where(sent, problem.weights, 1)[:, None]
        counted = np.where(problem.groups & sent[:, None], scaled, np.inf)
        above = scaled - counted.min(axis=(1, 2), keepdims=True)
    factors = np.exp(-exponent[:, None, None] * np.maximum(0.0, above))
    return _normalised(problem, np.maximum(_normalised(problem, share * factors), 1e-6))


def _normalised(problem: _Problem, share: FloatArray) -> FloatArray:
    """Return lambda (S, I, K) on the pairs of a message and its users, scaled to the right sums.

    "sum": pi_i per message; "max-min": 1 over all messages with pi_i > 0.
    """
    kept = share * (problem.groups & (problem.weights > 0)[:, None])
    if problem.objective == "max-min":
        return np.asarray(kept / kept.sum(axis=(1, 2), keepdims=True))
    sums = kept.sum(axis=2, keepdims=True)
    scale = np.divide(problem.weights[:, None], sums, out=np.zeros_like(sums), where=sums > 0)
    return np.asarray(kept * scale)


def _node_power(beams: ComplexArray, nodes: int) -> FloatArray:
    """Return the power of every node, all messages of (..., I, D) together, (..., n)."""
    squares = np.abs(beams.reshape(*beams.shape[:-1], nodes, -1)) ** 2
    return np.asarray(squares.sum(axis=(-3, -1)))


def _within_power(beams: ComplexArray, nodes: int) -> ComplexArray:
    """Scale down the nodes of (..., I, D) that exceed power one."""
    excess = np.sqrt(np.maximum(1.0, _node_power(beams, nodes)))
    return np.asarray(beams / np.repeat(excess, beams.shape[-1] // nodes, axis=-1)[..., None, :])


def _scale(beams: ComplexArray, power: FloatArray) -> ComplexArray:
    """Scale down the nodes whose messages (I, N, A) together exceed the limit."""
    messages, nodes, antennas = beams.shape
    stacked = beams.transpose(1, 0, 2).reshape(nodes, messages * antennas)
    scaled = scale_to_power(stacked, power).reshape(nodes, messages, antennas)
    return np.ascontiguousarray(scaled.transpose(1, 0, 2))
