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

from finecast.solvers.beamforming.kernel.ascent import better_beams, within
from finecast.solvers.beamforming.kernel.candidates import Carried, Iterate
from finecast.solvers.beamforming.kernel.gram import Group
from finecast.solvers.beamforming.kernel.steps import COUPLING, TURN


def settle(
    group: Group, at: Iterate, temperature: float, cut: float, floor: float, steps: int
) -> Carried:
    """Take `steps` coupled Newton steps from the only candidate of every problem.

    The temperature is multiplied by `cut` after each, not below `floor`. Returns the best beams
    met, candidates (B, 1).
    """
    batch, nodes, users, _ = group.gram.shape
    flat = torch.view_as_real(group.gram).reshape(batch, nodes, 2 * users * users)
    present, error = group.present, group.error
    absent, error_by_node = 1 - present, error.mT.contiguous()
    erring = (error > 0).any(1)
    robust = bool(erring.any())
    phase, weight, slack = at.phase[:, 0], at.weight[:, 0], at.slack[:, 0]
    level, upper, lower = at.level[:, 0], at.upper[:, 0], at.lower[:, 0]
    on = torch.where(erring, level, 1.0)
    simplex = torch.cat([present, torch.zeros_like(present)], -1)
    padding = torch.nn.functional.pad(error_by_node, (0, users))

    best: Carried | None = None
    for step in range(steps + 1):
        direction = phase * weight
        image = (group.gram @ direction[:, None, :, None])[..., 0] * phase.conj()[:, None]
        square = (image.real * weight[:, None]).sum(-1).clamp(min=0)
        best = better_beams(best, image, direction, square, on, error_by_node, absent)
        if step == steps:
            break
        length = (square + temperature**2).sqrt()
        per_length = on / length
        # Real coordinates (lambda, phi): a complex matrix M becomes [[Re, -Im], [Im, Re]].
        toward = torch.cat([image.real, image.imag], -1) / length[..., None]
        slope = toward - padding
        gradient = (on[:, None] @ slope)[:, 0]
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
            stiffness = lower / level + upper / (1 - level)
            loss = (error_by_node @ weight[..., None])[..., 0]
            residual = length - loss + temperature / level - temperature / (1 - level)
            soft = torch.where(erring, 1 / stiffness, 0.0)
            left = torch.cat([left, slope * soft[..., None]], 1)
            right = torch.cat([right, slope], 1)
            gradient = gradient + ((soft * residual)[:, None] @ slope)[:, 0]
        hessian = hessian + right.mT @ left
        safe = weight + absent  # absent users: weight 0, a unit row, no step
        barrier = slack / safe
        received = ((per_length[:, None] + 0j) @ image)[:, 0].abs()
        hessian = hessian + torch.diag_embed(
            torch.cat([barrier + absent, -received / safe - absent], -1)
        )
        pull = torch.cat([(temperature / safe - gradient[:, :users]), -gradient[:, users:]], -1)
        pull = pull * torch.cat([present, present], -1)
        solved = torch.linalg.solve_ex(hessian, torch.stack([pull, simplex], -1))[0]
        move, shift = solved[..., 0], solved[..., 1]
        ratio = move[:, :users].sum(-1) / shift[:, :users].sum(-1)
        both = move - ratio[:, None] * shift
        move, turn = both[:, :users], both[:, users:] / safe
        slack_move = (temperature / safe - slack - barrier * move) * present
        ratios = slack_move / slack
        if robust:
            level_move = soft * (residual + (slope @ both[..., None])[..., 0])
            upper_move = (temperature + upper * level_move) / (1 - level) - upper
            lower_move = (temperature - lower * level_move) / level - lower
            extra = (level_move / level, -level_move / (1 - level))
            ratios = torch.cat([ratios, *extra, upper_move / upper, lower_move / lower], -1)
        # A candidate whose step is not finite stays where it is.
        sound = (both.isfinite().all(-1) & ratios.isfinite().all(-1))[..., None]
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
            on = torch.where(erring, level, 1.0)
        temperature = max(temperature * cut, floor)
    assert best is not None
    return Carried(best.value[:, None], best.direction[:, None], best.gain[:, None])
