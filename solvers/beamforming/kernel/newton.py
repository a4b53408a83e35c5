"""Newton's method on weights and phases together: the quadratic end of the search.

The steps of `ascent.py` converge linearly because phases are updated one by one. Where a candidate
has settled, its stationarity conditions are solved instead. With the direction written as
c_k = e_k (lambda_k + i phi_k), phi = 0 at the iterate, and image_n = diag(e)^* S_n c,

    F(lambda, phi) = sum_n max_p p_n (r_n - c_n) - sum_k phi_k^2 |y_k| / (2 lambda_k)

is minimised over the simplex and maximised over phi: r_n = norm(v_n) is convex in (lambda, phi),
and the last term is what turning the phases adds (lambda_k + i phi_k is the modulus lambda_k
turned by phi_k / lambda_k). Barriers and smoothing are those of `ascent.py`. Newton's method goes
to any stationary point, so what comes out is only kept where it is better.
"""

from __future__ import annotations

import torch

from finecast.solvers.beamforming.kernel.ascent import better_beams, level_moves, within
from finecast.solvers.beamforming.kernel.candidates import Carried, Iterate
from finecast.solvers.beamforming.kernel.gram import Group
from finecast.solvers.beamforming.kernel.steps import COUPLING, TURN, Descent


def settle(group: Group, iterate: Iterate, temperature: float, descent: Descent) -> Carried:
    """Take the coupled Newton steps of `descent` from the only candidate of every problem.

    Returns the best beams met, candidates (B, 1).
    """
    batch, nodes, users, _ = group.gram.shape
    flat = torch.view_as_real(group.gram).reshape(batch, nodes, 2 * users * users)
    present, error = group.present, group.error
    absent, error_by_node = 1 - present, error.mT.contiguous()
    erring = (error > 0).any(1)
    robust = bool(erring.any())
    phase, weight, slack = iterate.phase[:, 0], iterate.weight[:, 0], iterate.slack[:, 0]
    level, upper, lower = iterate.level[:, 0], iterate.upper[:, 0], iterate.lower[:, 0]
    amplitude = torch.where(erring, level, 1.0)
    simplex = torch.cat([present, torch.zeros_like(present)], -1)
    padding = torch.nn.functional.pad(error_by_node, (0, users))

    best: Carried | None = None
    for step in range(descent.steps + 1):
        direction = phase * weight
        image = (group.gram @ direction[:, None, :, None])[..., 0] * phase.conj()[:, None]
        square = (image.real * weight[:, None]).sum(-1).clamp(min=0)
        best = better_beams(best, image, direction, square, amplitude, error_by_node, absent)
        if step == descent.steps:
            break

        # Gradient and Hessian of F in the real coordinates (lambda, phi), in which a complex
        # matrix M becomes [[Re, -Im], [Im, Re]].
        length = (square + temperature**2).sqrt()
        per_length = amplitude / length
        toward = torch.cat([image.real, image.imag], -1) / length[..., None]
        slope = toward - padding
        gradient = (amplitude[:, None] @ slope)[:, 0]
        mixed = torch.view_as_complex((per_length[:, None] @ flat).reshape(batch, users, users, 2))
        mixed = phase.conj()[:, :, None] * mixed * phase[:, None, :]
        hessian = torch.cat(
            [
                torch.cat([mixed.real, -mixed.imag], -1),
                torch.cat([mixed.imag, COUPLING * mixed.real], -1),
            ],
            -2,
        )
        left, right = toward * -per_length[..., None], toward
        if robust:
            # The amplitude p_n and its two multipliers are eliminated, as in `ascend`.
            stiffness = lower / level + upper / (1 - level)
            loss = (error_by_node @ weight[..., None])[..., 0]
            residual = length - loss + temperature / level - temperature / (1 - level)
            soft = torch.where(erring, 1 / stiffness, 0.0)
            left = torch.cat([left, slope * soft[..., None]], 1)
            right = torch.cat([right, slope], 1)
            gradient = gradient + ((soft * residual)[:, None] @ slope)[:, 0]
        hessian = hessian + right.mT @ left

        # One Newton step on weights and phases. Turning a phase costs what its user receives, so
        # the lower block gets a negative diagonal. The second right-hand side is the normal of
        # the simplex, by which the weights' step is brought back to a sum of zero.
        safe = weight + absent  # absent users: weight 0, a unit row, no step
        barrier = slack / safe
        received = ((per_length[:, None] + 0j) @ image)[:, 0].abs()
        hessian = hessian + torch.diag_embed(
            torch.cat([barrier + absent, -received / safe - absent], -1)
        )
        pull = torch.cat([(temperature / safe - gradient[:, :users]), -gradient[:, users:]], -1)
        pull = pull * torch.cat([present, present], -1)
        solved = torch.linalg.solve_ex(hessian, torch.stack([pull, simplex], -1))[0]
        free, shift = solved[..., 0], solved[..., 1]
        excess = free[:, :users].sum(-1) / shift[:, :users].sum(-1)
        coupled = free - excess[:, None] * shift
        move, turn = coupled[:, :users], coupled[:, users:] / safe
        slack_move = (temperature / safe - slack - barrier * move) * present
        ratios = slack_move / slack
        if robust:
            level_move = soft * (residual + (slope @ coupled[..., None])[..., 0])
            upper_move, lower_move, level_ratios = level_moves(
                level, upper, lower, level_move, temperature
            )
            ratios = torch.cat([ratios, level_ratios], -1)

        # A candidate whose step is not finite stays where it is.
        sound = (coupled.isfinite().all(-1) & ratios.isfinite().all(-1))[..., None]
        move, turn = torch.where(sound, move, 0.0), torch.where(sound, turn, 0.0)
        reach = within(torch.where(sound, ratios, 0.0)) * sound
        turn = turn.clamp(-TURN, TURN)
        phase = phase * torch.polar(torch.ones_like(turn), turn)
        weight = weight + within(move / safe) * move
        weight = weight / weight.sum(-1, keepdim=True)
        slack = slack + torch.where(sound, reach * slack_move, 0.0)
        if robust:
            level = level + torch.where(sound, reach * level_move, 0.0)
            upper = upper + torch.where(sound, reach * upper_move, 0.0)
            lower = lower + torch.where(sound, reach * lower_move, 0.0)
            amplitude = torch.where(erring, level, 1.0)
        temperature = descent.cooled(temperature)
    assert best is not None
    return Carried(best.value[:, None], best.direction[:, None], best.gain[:, None])
