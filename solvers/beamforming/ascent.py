"""Homotopy SCA-Newton: the search for good multicast beams, batched in torch.

For fixed phases e_k of the received signals, max-min beamforming with per-node error balls is a
second-order cone programme whose dual has one weight lambda_k per user (all powers absorbed in
the channels, P_n = 1):

    v_n = sum_k lambda_k e_k g_{k,n}      r_n = norm(v_n)      c_n = sum_k lambda_k eps_{k,n}
    minimise over the simplex   sum_n max(0, r_n - c_n),      w_n = v_n / r_n  where r_n > c_n

and e_k <- y_k / |y_k|, y_k = sum_n g_{k,n}^H w_n, is a minorise-maximise step (successive convex
approximation, SCA). Here one primal-dual Newton step on the smoothed dual is taken per phase
update while the temperature tau goes down: r_n becomes sqrt(r_n^2 + tau^2), max(0, .) likewise,
and the multipliers z_k of lambda_k >= 0 keep lambda_k z_k = tau. Everything happens in the
|U|-dimensional space of the Gram matrices S_n[k,l] = g_{k,n}^H g_{l,n}.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from solvers.beamforming.group import Group, real_of
from solvers.beamforming.schedule import FIRST_TEMPERATURE, STAGES, TINY
from solvers.beamforming.small import search_one

SMALL = 3
"""Batches up to this size go through `small.py` when on the CPU."""


@dataclass
class Iterate:
    """Where the search stands, s candidates per problem.

    Attributes
    ----------
    phase
        (B, s, K) complex, e_k of modulus 1.
    weight, slack
        (B, s, K) real, lambda and its multipliers z.
    """

    phase: Tensor
    weight: Tensor
    slack: Tensor
    level: Tensor
    upper: Tensor
    lower: Tensor

    def to(self, dtype: torch.dtype) -> Iterate:
        """Return the same iterate in the precision of the complex `dtype`."""
        real = real_of(dtype)
        rest = (self.weight, self.slack, self.level, self.upper, self.lower)
        return Iterate(self.phase.to(dtype), *(x.to(real) for x in rest))

    def pick(self, index: Tensor) -> Iterate:
        """Return candidates `index` (B, m) of every problem."""
        parts = (self.phase, self.weight, self.slack, self.level, self.upper, self.lower)
        row = torch.arange(index.shape[0], device=index.device)[:, None]
        return Iterate(*(x[row, index] for x in parts))


@dataclass(frozen=True)
class Beams:
    """Beams w_n = sum_k combination_{n,k} g_{k,n} and what is known of them.

    Attributes
    ----------
    value
        (B, s) real, u = min_k (|y_k| - sum_n eps_{k,n} norm(w_n)).
    direction
        (B, s, K) complex, lambda_k e_k.
    gain
        (B, s, N) real, so that combination_{n,k} = gain_n direction_k and norm(w_n) <= 1.
    """

    value: Tensor
    direction: Tensor
    gain: Tensor

    def best(self) -> Beams:
        """Return the best candidate of every problem, in double precision."""
        index = self.value.argmax(1, keepdim=True)
        row = torch.arange(len(index), device=index.device)[:, None]
        return Beams(
            self.value[row, index].double(),
            self.direction[row, index].to(torch.complex128),
            self.gain[row, index].double(),
        )

    def where(self, choose: Tensor, other: Beams) -> Beams:
        """Return these beams where `choose` (B, s) holds, else `other`."""
        return Beams(
            torch.where(choose, self.value, other.value),
            torch.where(choose[..., None], self.direction, other.direction),
            torch.where(choose[..., None], self.gain, other.gain),
        )


def start(group: Group, phase: Tensor, temperature: float) -> Iterate:
    """Return the iterate with weights inverse to the users' total gains, at the given phases."""
    strength = torch.diagonal(group.gram, dim1=-2, dim2=-1).real.clamp(min=0).sqrt().sum(1)
    weight = group.present / strength.clamp(min=TINY)
    weight = (weight / weight.sum(-1, keepdim=True))[:, None, :].expand(phase.shape).contiguous()
    slack = temperature / (weight + 1 - group.present[:, None])
    level = torch.full((*phase.shape[:2], group.gram.shape[1]), 0.9).to(weight)
    return Iterate(phase, weight, slack, level, temperature / (1 - level), temperature / level)


def search(group: Group, starts: int, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    """Return the best beams found as direction (B, K) and gain (B, N), see `Beams`.

    Twice `starts` candidates are screened and the better half goes on, both in `dtype`; the best
    one is finished in complex128.
    """
    phases = initial_phases(group, 2 * starts, seed)
    if len(phases) <= SMALL and phases.device.type == "cpu":
        return _one_by_one(group, phases, starts)
    rough = group.to(dtype)
    (steps, cut, floor), second, third = STAGES
    at = start(rough, phases.to(dtype), FIRST_TEMPERATURE)
    at, screened, temperature = ascend(rough, at, FIRST_TEMPERATURE, cut, floor, steps)
    at = at.pick(screened.value.topk(starts, dim=1).indices)
    steps, cut, floor = second
    at, carried, temperature = ascend(rough, at, temperature, cut, floor, steps)
    at = at.pick(carried.value.argmax(1, keepdim=True)).to(torch.complex128)
    steps, cut, floor = third
    _, finished, _ = ascend(group, at, temperature, cut, floor, steps)
    stages = [screened.best(), carried.best(), finished.best()]
    best = stages[0]
    for stage in stages[1:]:
        best = best.where(best.value > stage.value * (1 + 1e-5), stage)
    return best.direction[:, 0], best.gain[:, 0]


def _one_by_one(group: Group, phases: Tensor, starts: int) -> tuple[Tensor, Tensor]:
    """Search every problem of a small batch by itself, its absent users left out."""
    direction = torch.zeros_like(phases[:, 0])
    gain = torch.zeros_like(group.error[:, 0])
    for i, users in enumerate((group.present > 0).numpy()):
        gram = group.gram[i].numpy()[:, users][:, :, users]
        error, phase = group.error[i].numpy()[users], phases[i].numpy()[:, users]
        beams, gains = search_one(np.ascontiguousarray(gram), error, phase, starts)
        direction[i, torch.from_numpy(users)] = torch.from_numpy(beams)
        gain[i] = torch.from_numpy(gains)
    return direction, gain


def initial_phases(group: Group, count: int, seed: int) -> Tensor:
    """Return (B, count, K) phases: all equal (the MRT sum) first, then random ones.

    The random phases go by the users' rank in strength, so that neither the order of the users
    nor padding nor the division into chunks matters.
    """
    users = group.present.shape[1]
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, (users, count))
    angle[:, 0] = 0
    strength = torch.diagonal(group.gram, dim1=-2, dim2=-1).real.sum(1)
    strength = torch.where(group.present > 0, strength, -1.0)
    order = torch.argsort(strength, dim=-1, descending=True, stable=True)
    rank = torch.argsort(order, dim=-1)
    table = torch.as_tensor(angle, device=strength.device)
    angles = table[rank].mT.contiguous()
    return torch.polar(torch.ones_like(angles), angles)


def ascend(
    group: Group, at: Iterate, temperature: float, cut: float, floor: float, steps: int
) -> tuple[Iterate, Beams, float]:
    """Take `steps` Newton steps, the temperature times `cut` after each, not below `floor`.

    Returns the last iterate, the best beams met in the last quarter of the way, and the
    temperature reached.
    """
    batch, nodes, users, _ = group.gram.shape
    candidates = at.phase.shape[1]
    stacked = group.gram.reshape(batch, nodes * users, users)
    flat = torch.view_as_real(group.gram).reshape(batch, nodes, 2 * users * users)
    error, present = group.error, group.present[:, None]
    error_by_node = error.mT[:, None]
    erring = (error > 0).any(1)[:, None]
    robust = bool(erring.any())
    absent = 1 - present
    phase, weight, slack = at.phase, at.weight, at.slack
    level, upper, lower = at.level, at.upper, at.lower
    on = torch.where(erring, level, 1.0) if robust else torch.ones_like(level)

    def images() -> tuple[Tensor, Tensor]:
        """e_k^* g_{k,n}^H v_n and norm(v_n)^2 at the present phases and weights."""
        image = (stacked @ (phase * weight).mT).reshape(batch, nodes, users, candidates)
        image = phase.conj()[:, :, None] * image.permute(0, 3, 1, 2)
        return image, (image.real * weight[:, :, None]).sum(-1).clamp(min=0)

    best: Beams | None = None
    for step in range(steps):
        image, square = images()
        length = (square + temperature**2).sqrt()
        if step >= steps - max(1, steps // 4):
            best = _better(best, image, phase * weight, square, on, error_by_node, absent)
        per_length = on / length
        toward = image.real / length[..., None]
        slope = toward - error_by_node
        gradient = (on[..., None] * slope).sum(2)
        mixed = torch.view_as_complex(
            (per_length @ flat).reshape(batch, candidates, users, users, 2)
        )
        hessian = (phase.conj()[..., :, None] * mixed * phase[..., None, :]).real
        toward = toward * per_length.sqrt()[..., None]
        hessian = hessian - toward.mT @ toward
        if robust:
            stiffness = lower / level + upper / (1 - level)
            residual = length - weight @ error + temperature / level - temperature / (1 - level)
            soft = torch.where(erring, 1 / stiffness, 0.0)
            hessian = hessian + slope.mT @ (slope * soft[..., None])
            gradient = gradient + ((soft * residual)[..., None] * slope).sum(2)
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
            upper_move = (temperature + upper * level_move) / (1 - level) - upper
            lower_move = (temperature - lower * level_move) / level - lower
            extra = [
                level_move / level,
                -level_move / (1 - level),
                upper_move / upper,
                lower_move / lower,
            ]
            ratio = torch.cat([ratio, *extra], -1)
        # A candidate whose step is not finite stays where it is.
        sound = (move.isfinite().all(-1) & ratio.isfinite().all(-1))[..., None]
        move = torch.where(sound, move, 0.0)
        ratio = torch.where(sound, ratio, 0.0)
        weight = weight + _within(move / safe) * move
        weight = weight / weight.sum(-1, keepdim=True)
        reach = _within(ratio)
        slack = slack + torch.where(sound, reach * slack_move, 0.0)
        if robust:
            level = level + torch.where(sound, reach * level_move, 0.0)
            upper = upper + torch.where(sound, reach * upper_move, 0.0)
            lower = lower + torch.where(sound, reach * lower_move, 0.0)
            on = torch.where(erring, level, 1.0)
        image, square = images()
        length = (square + temperature**2).sqrt()
        signal = ((on / length)[..., None] * image).sum(2)
        modulus = signal.abs()
        phase = torch.where(modulus > TINY, phase * (signal / modulus.clamp(min=TINY)), phase)
        temperature = max(temperature * cut, floor)
    assert best is not None
    return Iterate(phase, weight, slack, level, upper, lower), best, temperature


def _within(ratio: Tensor) -> Tensor:
    """Return the step length, at most 1, that takes at most 95 % off what must stay positive."""
    return 0.95 / (-ratio).amax(-1, keepdim=True).clamp(min=0.95)


def _better(
    best: Beams | None,
    image: Tensor,
    direction: Tensor,
    square: Tensor,
    on: Tensor,
    error_by_node: Tensor,
    absent: Tensor,
) -> Beams:
    gain = on / square.sqrt().clamp(min=TINY)
    received = (gain[..., None] * image).sum(2).abs()
    used = torch.where(square > 0, on, 0.0)
    loss = (used[..., None] * error_by_node).sum(2)
    value = torch.where(absent > 0, torch.inf, received - loss).amin(-1)
    value = torch.where(value.isfinite(), value, -torch.inf)
    if best is None:
        return Beams(value, direction, gain)
    now = Beams(value, direction, gain)
    return now.where(value > best.value, best)
