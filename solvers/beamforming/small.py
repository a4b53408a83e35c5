"""The search of `ascent.py` for one problem at a time, in NumPy.

A step on arrays of a few dozen entries costs what calling it costs, and NumPy's calls are several
times cheaper than torch's. Same formulas, same schedule, same starts, always double precision.
"""

from __future__ import annotations

import numpy as np

from problem.arrays import ComplexArray, FloatArray
from solvers.beamforming.schedule import FIRST_TEMPERATURE, STAGES, TINY


@np.errstate(all="ignore")
def search_one(
    gram: ComplexArray, error: FloatArray, phase: ComplexArray, starts: int
) -> tuple[ComplexArray, FloatArray]:
    """Return the best beams found for one group without padding.

    Parameters
    ----------
    gram
        (N, K, K), S_n[k,l] = g_{k,n}^H g_{l,n} of the scaled channels.
    error
        (K, N) radii in the same unit.
    phase
        (s, K) phases to start from.
    starts
        How many candidates go on after the first stage.

    Returns
    -------
    Direction (K,) and gain (N,): w_n = gain_n sum_k direction_k g_{k,n}.
    """
    nodes, users, _ = gram.shape
    stacked = gram.reshape(nodes * users, users).T
    flat = gram.reshape(nodes, users * users)
    erring = error.any(0)
    robust = bool(erring.any())
    strength = np.sqrt(np.maximum(np.einsum("nkk->nk", gram).real, 0)).sum(0)
    weight = 1 / np.maximum(strength, TINY)
    weight = np.tile(weight / weight.sum(), (len(phase), 1))
    tau = FIRST_TEMPERATURE
    slack = tau / weight
    level = np.full((len(phase), nodes), 0.9)
    upper, lower = tau / (1 - level), tau / level
    on = np.where(erring, level, 1.0)
    value = np.zeros(len(phase))
    best, found = -np.inf, (phase[0] * weight[0], np.zeros(nodes))

    for stage, (steps, cut, floor) in enumerate(STAGES):
        if stage:
            keep = np.argsort(-value, kind="stable")[: starts if stage == 1 else 1]
            phase, weight, slack = phase[keep], weight[keep], slack[keep]
            level, upper, lower, on = level[keep], upper[keep], lower[keep], on[keep]
        conjugate = phase.conj()
        direction = phase * weight
        image = conjugate[:, None] * (direction @ stacked).reshape(-1, nodes, users)
        square = (image.real @ weight[..., None])[..., 0]
        candidates = len(phase)
        value = np.full(candidates, -np.inf)
        right = np.ones((candidates, users, 2))
        for step in range(steps):
            if step >= steps - max(1, steps // 4):
                gain = on / np.sqrt(np.maximum(square, TINY))
                received = np.abs((gain[:, None] @ image)[:, 0])
                now = (received - on @ error.T if robust else received).min(-1)
                value = np.fmax(value, now)
                top = int(now.argmax())
                if now[top] > best:
                    best, found = float(now[top]), (direction[top], gain[top])
            length = np.sqrt(np.maximum(square, 0) + tau * tau)
            per_length = on / length
            toward = image.real / length[..., None]
            hessian = (per_length @ flat).reshape(candidates, users, users)
            hessian = (conjugate[..., None] * hessian * phase[:, None]).real
            hessian -= toward.swapaxes(1, 2) @ (toward * per_length[..., None])
            if robust:
                slope = toward - error.T
                below, above = tau / level, tau / (1 - level)
                residual = length - weight @ error + below - above
                soft = np.where(erring, 1 / (lower / level + upper / (1 - level)), 0.0)
                hessian += slope.swapaxes(1, 2) @ (slope * soft[..., None])
                gradient = ((on + soft * residual)[:, None] @ slope)[:, 0]
            else:
                gradient = toward.sum(1)
            barrier = slack / weight
            hessian.reshape(candidates, -1)[:, :: users + 1] += barrier
            rest = tau / weight
            right[..., 0] = rest - gradient
            try:
                solved = np.linalg.solve(hessian, right)
            except np.linalg.LinAlgError:  # keep the best met so far
                break
            move, shift = solved[..., 0], solved[..., 1]
            move = move - (move.sum(-1) / shift.sum(-1))[:, None] * shift
            slack_move = rest - slack - barrier * move
            reach = 0.95 / np.maximum((-move / weight).max(-1, keepdims=True), 0.95)
            largest = (-slack_move / slack).max(-1, keepdims=True)
            if robust:
                level_move = soft * (residual + (slope @ move[..., None])[..., 0])
                upper_move = (tau + upper * level_move) / (1 - level) - upper
                lower_move = (tau - lower * level_move) / level - lower
                ratios = (
                    -level_move / level,
                    level_move / (1 - level),
                    -upper_move / upper,
                    -lower_move / lower,
                )
                largest = np.maximum(largest, np.maximum.reduce(ratios).max(-1, keepdims=True))
            weight = weight + reach * move
            reach = 0.95 / np.maximum(largest, 0.95)
            slack = slack + reach * slack_move
            if robust:
                level = level + reach * level_move
                upper = upper + reach * upper_move
                lower = lower + reach * lower_move
                on = np.where(erring, level, 1.0)
            image = conjugate[:, None] * ((phase * weight) @ stacked).reshape(-1, nodes, users)
            square = np.maximum((image.real @ weight[..., None])[..., 0], 0)
            length = np.sqrt(square + tau * tau)
            signal = ((on / length)[:, None] @ image)[:, 0]
            signal += TINY
            phase = phase * (signal / np.abs(signal))
            tau = max(tau * cut, floor)
            conjugate = phase.conj()
            direction = phase * weight
            image = conjugate[:, None] * (direction @ stacked).reshape(-1, nodes, users)
            square = np.maximum((image.real @ weight[..., None])[..., 0], 0)
    return found
