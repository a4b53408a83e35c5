"""Weighted minimum mean square error (WMMSE) steps for several multicast messages at once.

With y_ik = g_k^H w_i, tot_k = 1 + sum_i |y_ik|^2 and I_ik = tot_k - |y_ik|^2, the receiver is
u = y / tot and the weight v = tot / I. Weights lambda_ik stand for the minimum over a message's
users. Every step multiplies them by exp(-1.5 (R_ik - min_k R_ik)). With the prices pi,

    c_k = sum_i pi_i lambda_ik v_ik |u_ik|^2,    d_ik = pi_i lambda_ik v_ik u_ik,
    w_i = (sum_k c_k (g_k g_k^H + diag(eps_kn^2)) + diag(mu_n))^-1 sum_k d_ik g_k,

each message over its own nodes, and mu_n follows the power that its node would use (S. S.
Christensen et al., IEEE Trans. Wireless Commun. 7(12), 2008; Q. Shi et al., IEEE Trans. Signal
Process. 59(9), 2011).
"""

from __future__ import annotations

import torch
from torch import Tensor

from finecast.solvers.spatial.multigroup import TINY, ScaledModes, by_nodes, square

MULTIPLICATIVE = 1.5
"""Exponent of the weights of a message's users, 1/nat."""

LEAST_WEIGHT = 1e-3
"""Floor of the weights, so that a user can come back."""


def wmmse_steps(scaled: ScaledModes, beam: Tensor, steps: int) -> Tensor:
    """Return the beams (S, G, N, A) after these steps, with every node at full power.

    Parameters
    ----------
    scaled
        The messages, power limits absorbed.
    beam
        (S, G, N, A) complex64 at full power.
    steps
        Number of steps.
    """
    users, nodes, antennas = scaled.channel.shape
    rows = scaled.channel.reshape(users, -1)
    listening = scaled.users.float()
    weight = listening / listening.sum(1, keepdim=True) + torch.zeros(len(beam), 1, 1)
    multiplier: Tensor | None = None
    for _ in range(steps):
        # The rates, and the weights of the users that stand for the least one.
        amplitude = beam.flatten(2) @ rows.conj().T
        power = square(amplitude)
        total = 1 + power.sum(1, keepdim=True)
        interference = 1 + (total - 1 - power).clamp(min=0)
        rate = torch.log(total / interference)
        excess = rate - torch.where(scaled.users, rate, torch.inf).amin(2, keepdim=True)
        weight = weight * torch.exp(-MULTIPLICATIVE * excess.clamp(min=0, max=20))
        weight = (weight / weight.sum(2, keepdim=True)).clamp(min=LEAST_WEIGHT) * listening
        weight = weight / weight.sum(2, keepdim=True)
        # Receivers, and what a message is worth to each user with them.
        receiver = amplitude / total
        worth = scaled.price[:, None] * weight * (total / interference)
        burden = (worth * receiver.abs().square()).sum(1)  # (S, K)
        if multiplier is None:  # of the right total: sum_n mu_n = sum_k c_k at a stationary point
            multiplier = (burden.sum(1, keepdim=True) / nodes).expand(-1, nodes)
        solved = _solved(scaled, burden, worth * receiver, multiplier, antennas)
        # In single precision a system can be singular; such a start stays where it is.
        sound = solved.isfinite().all(3).all(2).all(1)[:, None, None, None]
        beam = torch.where(sound, solved, beam)
        # A node that would use too much power gets a larger multiplier in the next step.
        used = square(beam).sum((1, 3))
        multiplier = multiplier * used.clamp(1e-3, 1e3).sqrt()
        norm = used.sqrt()[:, None, :, None]
        beam = beam / norm.clamp(min=TINY)
    return beam


def _solved(
    scaled: ScaledModes, burden: Tensor, towards: Tensor, multiplier: Tensor, antennas: int
) -> Tensor:
    """Return w_i = (sum_k c_k g_k g_k^H + D)^-1 sum_k d_ik g_k, messages of equal nodes at once."""
    users, nodes, _ = scaled.channel.shape
    loading = multiplier + burden @ scaled.error.square() + 1e-6 * multiplier.amax(1, keepdim=True)
    beam = torch.zeros(*towards.shape[:2], nodes, antennas, dtype=scaled.channel.dtype)
    for member, messages in by_nodes(scaled.nodes):
        rows = scaled.channel[:, member].reshape(users, -1)  # (K, D)
        diagonal = loading[:, member].repeat_interleave(antennas, 1)
        worth = towards[:, messages]  # (S, G', K)
        if users < rows.shape[1]:  # (D + R C R^H)^-1 R = D^-1 R (1 + C R^H D^-1 R)^-1
            over = rows / diagonal[:, None]  # (S, K, D), rows of D^-1 R
            gram = over @ rows.conj().T  # [k, l] = g_l^H D^-1 g_k
            system = torch.eye(users) + gram * burden[:, None]
            solved = torch.linalg.solve_ex(system, worth, left=False)[0] @ over
        else:
            weighted = (burden[:, :, None] * rows).mT @ rows.conj()
            system = weighted + torch.diag_embed(diagonal)
            solved = torch.linalg.solve_ex(system, (worth @ rows).mT)[0].mT
        beam[:, messages[:, None], member] = solved.unflatten(2, (-1, antennas))
    return beam
