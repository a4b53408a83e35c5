"""Homotopy SCA-Newton: the search for good multicast beams, batched in torch.

For fixed phases e_k of the received signals, max-min beamforming with per-node error balls is a
second-order cone programme whose dual has one weight lambda_k per user (all powers absorbed in
the channels, P_n = 1):

    v_n = sum_k lambda_k e_k g_{k,n}      r_n = norm(v_n)      c_n = sum_k lambda_k eps_{k,n}
    minimise over the simplex   sum_n max(0, r_n - c_n),      w_n = v_n / r_n  where r_n > c_n

and e_k <- y_k / |y_k|, y_k = sum_n g_{k,n}^H w_n, is a minorise-maximise step (successive convex
approximation, SCA). Here one primal-dual Newton step on the smoothed dual is taken per phase
update while the temperature tau goes down. r_n becomes sqrt(r_n^2 + tau^2). The barriers enter in
primal-dual form, which keeps Newton's steps long where a pure barrier or a smoothed maximum jams:
z_k with lambda_k z_k = tau for lambda_k >= 0, and max(0, x_n) = max over p_n in [0, 1] of p_n x_n,
x_n = r_n - c_n, with multipliers a_n, b_n of the two ends,

    x_n + b_n - a_n = 0,   a_n (1 - p_n) = tau,   b_n p_n = tau,

so that p_n is the amplitude norm(w_n). ENs without errors have p_n = 1. Everything happens in the
|U|-dimensional space of the Gram matrices S_n[k,l] = g_{k,n}^H g_{l,n}.
"""

from __future__ import annotations

import torch
from torch import Tensor

from finecast.solvers.beamforming.kernel.candidates import Carried, Iterate
from finecast.solvers.beamforming.kernel.gram import Group
from finecast.solvers.beamforming.kernel.steps import LONGEST, TINY, Descent


def ascend(
    group: Group, iterate: Iterate, temperature: float, descent: Descent
) -> tuple[Iterate, Carried, float]:
    """Take the Newton steps of `descent`, a phase update after each.

    Returns the last iterate, the best beams met in the last quarter of the way, and the
    temperature reached.
    """
    batch, nodes, users, _ = group.gram.shape
    candidates = iterate.phase.shape[1]
    stacked = group.gram.reshape(batch, nodes * users, users).mT
    flat = torch.view_as_real(group.gram).reshape(batch, nodes, 2 * users * users)
    error, present = group.error, group.present[:, None]
    error_by_node = error.mT[:, None]
    erring = (error > 0).any(1)[:, None]
    robust = bool(erring.any())
    absent = 1 - present
    phase, weight, slack = iterate.phase, iterate.weight, iterate.slack
    level, upper, lower = iterate.level, iterate.upper, iterate.lower
    amplitude = torch.where(erring, level, 1.0) if robust else torch.ones_like(level)

    best: Carried | None = None
    for step in range(descent.steps):
        image, square = _images(stacked, nodes, phase, weight)
        length = (square + temperature**2).sqrt()
        if step >= descent.last_quarter:
            direction = phase * weight
            best = better_beams(best, image, direction, square, amplitude, error_by_node, absent)

        # Gradient and Hessian of the smoothed dual in the weights, with the phases held. `toward`
        # is the gradient of the smoothed r_n, and the Hessian is a sum of products right^T left.
        per_length = amplitude / length
        toward = image.real / length[..., None]
        slope = toward - error_by_node
        gradient = (amplitude[..., None] * slope).sum(2)
        mixed = torch.view_as_complex(
            (per_length @ flat).reshape(batch, candidates, users, users, 2)
        )
        hessian = (phase.conj()[..., :, None] * mixed * phase[..., None, :]).real
        left, right = toward * -per_length[..., None], toward
        if robust:
            # The amplitude p_n and its two multipliers are eliminated: a term of rank one a node.
            stiffness = lower / level + upper / (1 - level)
            residual = length - weight @ error + temperature / level - temperature / (1 - level)
            soft = torch.where(erring, 1 / stiffness, 0.0)
            left = torch.cat([left, slope * soft[..., None]], 2)
            right = torch.cat([right, slope], 2)
            gradient = gradient + ((soft * residual)[..., None] * slope).sum(2)
        hessian = hessian + right.mT @ left

        # One Newton step, with the slacks eliminated. The second right-hand side is the normal of
        # the simplex, by which the step is brought back to a sum of zero.
        safe = weight + absent  # absent users: weight 0, a unit row, no step
        barrier = slack / safe
        hessian = hessian + torch.diag_embed(torch.where(present > 0, barrier, 1.0))
        pull = (temperature / safe - gradient) * present
        solved = torch.linalg.solve_ex(hessian, torch.stack([pull, present.expand_as(pull)], -1))[0]
        move, shift = solved[..., 0], solved[..., 1]
        move = move - (move.sum(-1) / shift.sum(-1))[..., None] * shift
        slack_move = (temperature / safe - slack - barrier * move) * present
        ratio = slack_move / slack
        if robust:
            level_move = soft * (residual + (slope * move[:, :, None]).sum(-1))
            upper_move, lower_move, ratios = level_moves(
                level, upper, lower, level_move, temperature
            )
            ratio = torch.cat([ratio, ratios], -1)

        # Weights have a step length of their own. A candidate whose step is not finite stays where
        # it is.
        sound = (move.isfinite().all(-1) & ratio.isfinite().all(-1))[..., None]
        move = torch.where(sound, move, 0.0)
        ratio = torch.where(sound, ratio, 0.0)
        weight = weight + within(move / safe) * move
        weight = weight / weight.sum(-1, keepdim=True)
        reach = within(ratio)
        slack = slack + torch.where(sound, reach * slack_move, 0.0)
        if robust:
            level = level + torch.where(sound, reach * level_move, 0.0)
            upper = upper + torch.where(sound, reach * upper_move, 0.0)
            lower = lower + torch.where(sound, reach * lower_move, 0.0)
            amplitude = torch.where(erring, level, 1.0)

        # Phases follow the signals that the new weights give: the minorise-maximise step.
        image, square = _images(stacked, nodes, phase, weight)
        length = (square + temperature**2).sqrt()
        signal = ((amplitude / length)[..., None] * image).sum(2)
        modulus = signal.abs()
        phase = torch.where(modulus > TINY, phase * (signal / modulus.clamp(min=TINY)), phase)
        temperature = descent.cooled(temperature)
    assert best is not None
    return Iterate(phase, weight, slack, level, upper, lower), best, temperature


def _images(stacked: Tensor, nodes: int, phase: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return e_k^* g_{k,n}^H v_n (B, s, N, K) and norm(v_n)^2 (B, s, N) of the candidates."""
    image = ((phase * weight) @ stacked).reshape(*phase.shape[:2], nodes, phase.shape[2])
    image = phase.conj()[:, :, None] * image
    return image, (image.real * weight[:, :, None]).sum(-1).clamp(min=0)


def level_moves(
    level: Tensor, upper: Tensor, lower: Tensor, level_move: Tensor, temperature: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the moves of both multipliers of a level, and the ratios that limit their steps."""
    upper_move = (temperature + upper * level_move) / (1 - level) - upper
    lower_move = (temperature - lower * level_move) / level - lower
    ratios = (
        level_move / level,
        -level_move / (1 - level),
        upper_move / upper,
        lower_move / lower,
    )
    return upper_move, lower_move, torch.cat(ratios, -1)


def within(ratio: Tensor) -> Tensor:
    """Return the step length, at most 1, that keeps positive what must stay positive.

    `ratio` (..., m) is move / value of the m numbers; (..., 1) is returned.
    """
    return LONGEST / (-ratio).amax(-1, keepdim=True).clamp(min=LONGEST)


def better_beams(
    best: Carried | None,
    image: Tensor,
    direction: Tensor,
    square: Tensor,
    amplitude: Tensor,
    error_by_node: Tensor,
    absent: Tensor,
) -> Carried:
    """Return the beams of the iterate, or `best` where it is better.

    Parameters
    ----------
    best
        The best beams met so far, if any.
    image, direction, square
        (..., N, K), (..., K) and (..., N) of the iterate: what users receive of v_n up to their
        phases, lambda_k e_k, and norm(v_n)^2.
    amplitude
        (..., N), norm(w_n).
    error_by_node, absent
        (..., N, K) error radii, and (..., K), 1 for padding.
    """
    gain = amplitude / square.sqrt().clamp(min=TINY)
    received = (gain[..., None] * image).sum(-2).abs()
    used = torch.where(square > 0, amplitude, 0.0)
    loss = (used[..., None] * error_by_node).sum(-2)
    value = torch.where(absent > 0, torch.inf, received - loss).amin(-1)
    value = torch.where(value.isfinite(), value, -torch.inf)
    beams = Carried(value, direction, gain)
    return beams if best is None else beams.where(value > best.value, best)
