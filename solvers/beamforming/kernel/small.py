"""The search of `search.py` for one problem at a time, in NumPy.

A step on arrays of a few dozen entries costs what calling it costs, and NumPy's calls are several
times cheaper than torch's. Formulas (`ascent.py`, `newton.py`), schedule and starts are the same;
everything is in double precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dgesv

from finecast.problem.arrays import ComplexArray, FloatArray
from finecast.solvers.beamforming.kernel.steps import (
    CARRY,
    CLOSED,
    COUPLING,
    FINISH,
    FIRST,
    FIRST_LEVEL,
    FIRST_TEMPERATURE,
    LONGEST,
    PHASED,
    SCREEN,
    SETTLE,
    TINY,
    TURN,
    Descent,
)
from finecast.solvers.rounding import ROUNDOFF


class Beam(NamedTuple):
    """One beam: w_n = gain_n sum_k direction_k g_{k,n}, direction (K,) and gain (N,)."""

    value: float
    """u, the worst-case amplitude."""
    direction: ComplexArray
    gain: FloatArray


class FreeProof(NamedTuple):
    """A certified bound on u, and the dual point (lambda, alpha, D) that proves it."""

    bound: float
    weight: FloatArray
    slope: FloatArray
    price: FloatArray


NONE = Beam(-np.inf, np.zeros(0, complex), np.zeros(0))


@dataclass(frozen=True)
class State:
    """Candidates of one problem, see `candidates.Iterate`: phase (s, K), ..., level (s, N)."""

    phase: ComplexArray
    weight: FloatArray
    slack: FloatArray
    level: FloatArray
    upper: FloatArray
    lower: FloatArray

    def pick(self, index: NDArray[np.intp]) -> State:
        """Return the candidates `index`."""
        return State(
            self.phase[index],
            self.weight[index],
            self.slack[index],
            self.level[index],
            self.upper[index],
            self.lower[index],
        )


def search_one(
    gram: ComplexArray,
    error: FloatArray,
    phase: ComplexArray,
    starts: int,
    antennas: int,
) -> tuple[Beam, FreeProof]:
    """Return the best beams found for one group without padding, and the free bound on u.

    Parameters
    ----------
    gram
        (N, K, K), S_n[k,l] = g_{k,n}^H g_{l,n} of the scaled channels.
    error
        (K, N) radii in the same unit.
    phase
        (s, K) phases to start from, the first one for the straight try.
    starts
        How many candidates go on after the first stage; 0 for the first steps of the straight try
        alone.
    antennas
        Length of the inner products behind gram.
    """
    with np.errstate(all="ignore"):
        # The straight try: one candidate, which is proven optimal more often than not.
        state = _start(gram, phase[:1])
        state, best, tau = _follow(gram, error, state, FIRST_TEMPERATURE, FIRST, coupled=False)
        if not starts:
            return best, free_bound(gram, error, antennas, best)
        _, best, _ = _follow(gram, error, state, tau, SETTLE, coupled=True)
        proof = free_bound(gram, error, antennas, best)
        if best.value * (1 + CLOSED) >= proof.bound:
            return best, proof

        # All candidates are screened, the better half goes on, the best one is settled.
        state, value, screened, tau = _ascend(
            gram, error, _start(gram, phase), FIRST_TEMPERATURE, SCREEN
        )
        better_half = np.argsort(-value, kind="stable")[:starts]
        state, value, carried, tau = _ascend(gram, error, state.pick(better_half), tau, CARRY)
        state = state.pick(np.array([value.argmax()]))
        _, settled, _ = _follow(gram, error, state, tau, SETTLE, coupled=True)
        best = max(best, screened, carried, settled, key=lambda beam: beam.value)
        proof = min(proof, free_bound(gram, error, antennas, best), key=_bound_of)
        if best.value * (1 + CLOSED) >= proof.bound:
            return best, proof

        # Coupled steps go to any stationary point: the uncoupled way to the end is tried too.
        _, finished, _ = _follow(gram, error, state, tau, FINISH, coupled=False)
        best = max(best, finished, key=lambda beam: beam.value)
        return best, min(proof, free_bound(gram, error, antennas, best), key=_bound_of)


def _bound_of(proof: FreeProof) -> float:
    return proof.bound


def _start(gram: ComplexArray, phase: ComplexArray) -> State:
    """Return the candidates at the given phases (s, K), as `candidates.start` does."""
    nodes = len(gram)
    strength = np.sqrt(np.maximum(np.einsum("nkk->nk", gram).real, 0)).sum(0)
    weight = 1 / np.maximum(strength, TINY)
    weight = np.tile(weight / weight.sum(), (len(phase), 1))
    level = np.full((len(phase), nodes), FIRST_LEVEL)
    tau = FIRST_TEMPERATURE
    return State(phase, weight, tau / weight, level, tau / (1 - level), tau / level)


def _ascend(
    gram: ComplexArray, error: FloatArray, state: State, tau: float, descent: Descent
) -> tuple[State, FloatArray, Beam, float]:
    """Take steps of `ascent.ascend`; return state, values (s,), the best beams met, and tau.

    Beams are judged in the last quarter of the way.
    """
    nodes, users, _ = gram.shape
    stacked = gram.reshape(nodes * users, users).T
    flat = gram.reshape(nodes, users * users)
    per_node = error.T
    erring = error.any(0)
    robust = bool(erring.any())
    phase, weight, slack = state.phase, state.weight, state.slack
    level, upper, lower = state.level, state.upper, state.lower
    amplitude = np.where(erring, level, 1.0)
    candidates = len(phase)
    value, best = np.full(candidates, -np.inf), NONE
    right = np.ones((candidates, users, 2))
    conjugate, direction = phase.conj(), phase * weight
    image = conjugate[:, None] * (direction @ stacked).reshape(-1, nodes, users)
    square = np.maximum((image.real @ weight[..., None])[..., 0], 0)
    for step in range(descent.steps):
        if step >= descent.last_quarter:
            gain = amplitude / np.sqrt(np.maximum(square, TINY))
            received = np.abs((gain[:, None] @ image)[:, 0])
            reached = (received - amplitude @ per_node if robust else received).min(-1)
            value = np.fmax(value, reached)
            top = int(reached.argmax())
            if reached[top] > best.value:
                best = Beam(float(reached[top]), direction[top], gain[top])

        # Gradient and Hessian of the smoothed dual in the weights, with the phases held.
        length = np.sqrt(square + tau * tau)
        per_length = amplitude / length
        toward = image.real / length[..., None]
        mixed = (per_length @ flat).reshape(candidates, users, users)
        hessian = (conjugate[..., None] * mixed * phase[:, None]).real
        hessian -= toward.swapaxes(1, 2) @ (toward * per_length[..., None])
        if robust:
            slope = toward - per_node
            residual = length - weight @ error + tau / level - tau / (1 - level)
            soft = np.where(erring, 1 / (lower / level + upper / (1 - level)), 0.0)
            hessian += slope.swapaxes(1, 2) @ (slope * soft[..., None])
            gradient = ((amplitude + soft * residual)[:, None] @ slope)[:, 0]
        else:
            gradient = toward.sum(1)

        # One Newton step along the simplex.
        barrier = slack / weight
        hessian.reshape(candidates, -1)[:, :: users + 1] += barrier
        centred = tau / weight
        right[..., 0] = centred - gradient
        try:
            solved = np.linalg.solve(hessian, right)
        except np.linalg.LinAlgError:  # keep the best met so far
            break
        move, shift = solved[..., 0], solved[..., 1]
        move = move - (move.sum(-1) / shift.sum(-1))[:, None] * shift
        slack_move = centred - slack - barrier * move
        largest = (-slack_move / slack).max(-1, keepdims=True)
        if robust:
            level_move = soft * (residual + (slope @ move[..., None])[..., 0])
            level, upper, lower, largest = _levels(level, upper, lower, level_move, tau, largest)
            amplitude = np.where(erring, level, 1.0)
        longest = np.maximum((-move / weight).max(-1, keepdims=True), LONGEST)
        weight = weight + LONGEST / longest * move
        slack = slack + LONGEST / np.maximum(largest, LONGEST) * slack_move

        # Phases follow the signals that the new weights give: the minorise-maximise step.
        direction = phase * weight
        image = conjugate[:, None] * (direction @ stacked).reshape(-1, nodes, users)
        square = np.maximum((image.real @ weight[..., None])[..., 0], 0)
        signal = ((amplitude / np.sqrt(square + tau * tau))[:, None] @ image)[:, 0] + TINY
        phase = phase * (signal / np.abs(signal))
        tau = descent.cooled(tau)
        conjugate, direction = phase.conj(), phase * weight
        image = conjugate[:, None] * (direction @ stacked).reshape(-1, nodes, users)
        square = np.maximum((image.real @ weight[..., None])[..., 0], 0)
    return State(phase, weight, slack, level, upper, lower), value, best, tau


def _follow(
    gram: ComplexArray,
    error: FloatArray,
    state: State,
    tau: float,
    descent: Descent,
    *,
    coupled: bool,
) -> tuple[State, Beam, float]:
    """Take steps of `newton.settle`, or uncoupled ones of `ascent.ascend`, from one candidate.

    Returns the state, the best beams met (in the last quarter if uncoupled) and tau. What does
    not change is allocated once: a step costs its calls.
    """
    nodes, users, _ = gram.shape
    size = 2 * users if coupled else users
    stacked = gram.reshape(nodes * users, users)
    flat = gram.reshape(nodes, users * users)
    per_node = np.ascontiguousarray(error.T)
    padding = np.zeros((nodes, size))
    padding[:, :users] = per_node
    erring = error.any(0)
    robust = bool(erring.any())
    faultless = 1.0 - erring
    phase, weight, slack = state.phase[0], state.weight[0], state.slack[0]
    level, upper, lower = state.level[0], state.upper[0], state.lower[0]
    amplitude = level * erring + faultless
    best = NONE
    toward = np.empty((nodes, size))
    hessian = np.empty((size, size), order="F")
    diagonal = hessian.T.reshape(-1)[:: size + 1]
    right = np.zeros((size, 2), order="F")
    right[:users, 1] = 1  # the normal of the simplex
    judged_from = 0 if coupled else descent.last_quarter
    for step in range(descent.steps + 1):
        direction = phase * weight
        image = phase.conj() * (stacked @ direction).reshape(nodes, users)
        square = image.real @ weight
        if step and not coupled:
            # Phases follow the signals that the new weights give: the minorise-maximise step.
            signal = (amplitude / np.sqrt(np.abs(square) + tau * tau)) @ image + TINY
            phase = phase * (signal / np.abs(signal))
            direction = phase * weight
            image = phase.conj() * (stacked @ direction).reshape(nodes, users)
            square = image.real @ weight
        square = np.maximum(square, TINY)

        # The beams of this iterate, and the dual value for their phases, which they cannot exceed.
        if step >= judged_from:
            gain = amplitude / np.sqrt(square)
            received = np.abs(gain @ image)
            value = float((received - amplitude @ per_node if robust else received).min())
            if value > best.value:
                best = Beam(value, direction, gain)
            dual = np.maximum(np.sqrt(square) - per_node @ weight, 0).sum()
            if value * (1 + PHASED) >= dual:  # as good as these phases allow
                break
        if step == descent.steps:
            break

        # Gradient and Hessian; coupled, in the real coordinates (lambda, phi), in which a complex
        # matrix M becomes [[Re, -Im], [Im, Re]].
        length = np.sqrt(square + tau * tau)
        per_length = amplitude / length
        conjugate = phase.conj()
        mixed = (per_length @ flat).reshape(users, users) * (conjugate[:, None] * phase)
        toward[:, :users] = image.real
        hessian[:users, :users] = mixed.real
        if coupled:
            toward[:, users:] = image.imag
            hessian[users:, :users] = mixed.imag
            hessian[:users, users:] = -mixed.imag
            hessian[users:, users:] = COUPLING * mixed.real
        toward /= length[:, None]
        slope = toward - padding
        gradient = amplitude @ slope
        if robust:
            # The amplitude p_n and its two multipliers are eliminated: a term of rank one a node.
            residual = length - per_node @ weight + tau / level - tau / (1 - level)
            soft = erring / (lower / level + upper / (1 - level))
            scaled = slope * np.sqrt(soft)[:, None]
            hessian += scaled.T @ scaled
            gradient += (soft * residual) @ slope
        toward *= np.sqrt(per_length)[:, None]
        hessian -= toward.T @ toward

        # One Newton step, with the slacks eliminated. Turning a phase costs what its user
        # receives, so the lower block gets a negative diagonal. The weights' step is brought back
        # to a sum of zero by the second solution.
        barrier, centred = slack / weight, tau / weight
        diagonal[:users] += barrier
        if coupled:
            diagonal[users:] -= np.abs(per_length @ image) / weight
        right[:, 0] = -gradient
        right[:users, 0] += centred
        solved = dgesv(hessian, right)[2]
        free, shift = solved.T
        newton = free - (free[:users].sum() / shift[:users].sum()) * shift
        move = newton[:users]
        slack_move = centred - slack - barrier * move
        limit = (slack_move / slack).min()
        if not np.isfinite(limit):  # keep the best met so far
            break
        if robust:
            level_move = soft * (residual + slope @ newton)
            room = 1 - level
            upper_move = (tau + upper * level_move) / room - upper
            lower_move = (tau - lower * level_move) / level - lower
            limits = (
                level_move / level,
                -level_move / room,
                upper_move / upper,
                lower_move / lower,
            )
            limit = min(limit, np.concatenate(limits).min())

        # Slacks and levels go as far as all of them stay positive; weights have their own length.
        reach = LONGEST / max(-limit, LONGEST)
        slack = slack + reach * slack_move
        if robust:
            level = level + reach * level_move
            upper = upper + reach * upper_move
            lower = lower + reach * lower_move
            amplitude = level * erring + faultless
        if coupled:
            turn = newton[users:] / weight
            phase = phase * np.exp(1j * np.minimum(np.maximum(turn, -TURN), TURN))
        weight = weight + LONGEST / max(-(move / weight).min(), LONGEST) * move
        tau = descent.cooled(tau)
    state = State(*(x[None] for x in (phase, weight, slack, level, upper, lower)))
    return state, best, tau


def _levels(
    level: FloatArray,
    upper: FloatArray,
    lower: FloatArray,
    move: FloatArray,
    tau: float,
    largest: FloatArray,
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return level, upper and lower after the step, and the largest ratio that limited it."""
    above = 1 - level
    upper_move = (tau + upper * move) / above - upper
    lower_move = (tau - lower * move) / level - lower
    ratios = np.maximum(
        np.maximum(-move / level, move / above),
        np.maximum(-upper_move / upper, -lower_move / lower),
    )
    largest = np.maximum(largest, ratios.max(-1, keepdims=True))
    reach = LONGEST / np.maximum(largest, LONGEST)
    return (
        level + reach * move,
        upper + reach * upper_move,
        lower + reach * lower_move,
        largest,
    )


def free_bound(gram: ComplexArray, error: FloatArray, antennas: int, beam: Beam) -> FreeProof:
    """Return the free certificate on u of a beam: `guess_from_beams` and `closed` for one group.

    Where it proves nothing the bound is infinite, and the dual point has no weight.

    Parameters
    ----------
    gram, error, antennas
        As for `search_one`.
    beam
        Any beam; a good one gives a tight bound.
    """
    nodes, users, _ = gram.shape
    gamma = 4 * (antennas + nodes + 9 * users + 16) * ROUNDOFF

    # The dual guess that belongs to the beam.
    image = gram @ beam.direction
    length = np.sqrt(np.maximum((image @ beam.direction.conj()).real, 0))
    weight = np.abs(beam.direction)
    slope = np.maximum(weight / (2 * np.maximum(np.abs(beam.gain @ image), 1e-6)), 1e-14)
    weight = weight / weight.sum()
    loss = weight @ error
    price = np.maximum(np.maximum(length / 2, 1e-12), loss)  # a price up to the loss is free

    # Scaled by a proven eigenvalue it is feasible.
    root = np.sqrt(slope)
    matrix = np.tensordot(1 / price, gram, 1) * (root[:, None] * root)
    nothing = FreeProof(np.inf, np.zeros(users), np.ones(users), np.ones(nodes))
    if not np.isfinite(matrix).all():
        return nothing
    trace = np.trace(matrix).real
    try:
        top = np.linalg.eigvalsh(matrix)[-1] + gamma * trace
        np.linalg.cholesky(top * np.eye(users) - matrix)
        top += 8 * (users + 2) * ROUNDOFF * (users * top + trace)
    except np.linalg.LinAlgError:
        top = trace
    slope = slope / max(top + gamma * trace, 1e-30)

    # The common scale of slopes and prices is free: a few steps towards the best one.
    spread = (weight**2 / (4 * slope)).sum()
    bound, best, factor = np.inf, 1.0, 1.0
    for _ in range(4 if error.any() else 2):
        trial = np.maximum(price * factor, loss)
        priced, lost = trial.sum(), loss.sum()
        value = spread / factor + np.maximum(trial - loss, 0).sum()
        value += gamma * (spread / factor + priced + lost)
        if value < bound:
            bound, best = value, factor
        paying = price[price * factor >= loss].sum()
        factor = min(max(np.sqrt(spread / max(paying, 1e-30)), 1e-6), 1e6)
    if not np.isfinite(bound):
        return nothing
    return FreeProof(float(bound), weight, slope * best, np.maximum(price * best, loss))
