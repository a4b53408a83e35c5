"""Where the batched search stands: candidates, the beams they stand for, where they start."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finecast.solvers.beamforming.kernel.gram import Group, real_of
from finecast.solvers.beamforming.kernel.steps import FIRST_LEVEL, FIRST_TEMPERATURE, TINY


@dataclass(frozen=True)
class Iterate:
    """Where the search stands, s candidates per problem.

    Attributes
    ----------
    phase
        (B, s, K) complex, e_k of modulus 1.
    weight, slack
        (B, s, K) real, lambda and the multipliers z of lambda >= 0.
    level, upper, lower
        (B, s, N) real, p_n = norm(w_n) of ENs with errors and the multipliers of p <= 1, p >= 0.
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
        _, *reals = self._arrays()
        return Iterate(self.phase.to(dtype), *(x.to(real) for x in reals))

    def pick(self, index: Tensor) -> Iterate:
        """Return candidates `index` (B, m) of every problem."""
        row = torch.arange(index.shape[0], device=index.device)[:, None]
        return Iterate(*(x[row, index] for x in self._arrays()))

    def take(self, index: Tensor) -> Iterate:
        """Return the problems `index` (m,) of the batch."""
        return Iterate(*(x[index] for x in self._arrays()))

    def _arrays(self) -> tuple[Tensor, ...]:
        return self.phase, self.weight, self.slack, self.level, self.upper, self.lower


@dataclass(frozen=True)
class Carried:
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

    def best(self) -> Carried:
        """Return the best candidate of every problem, in double precision."""
        index = self.value.argmax(1, keepdim=True)
        row = torch.arange(len(index), device=index.device)[:, None]
        return Carried(
            self.value[row, index].double(),
            self.direction[row, index].to(torch.complex128),
            self.gain[row, index].double(),
        )

    def take(self, index: Tensor) -> Carried:
        """Return the problems `index` (m,) of the batch."""
        return Carried(self.value[index], self.direction[index], self.gain[index])

    def put(self, index: Tensor, new: Carried) -> Carried:
        """Return these beams with those of the problems `index` (m,) replaced."""
        return Carried(
            self.value.index_copy(0, index, new.value),
            self.direction.index_copy(0, index, new.direction),
            self.gain.index_copy(0, index, new.gain),
        )

    def where(self, choose: Tensor, otherwise: Carried) -> Carried:
        """Return these beams where `choose` (B, s) holds, else `otherwise`."""
        return Carried(
            torch.where(choose, self.value, otherwise.value),
            torch.where(choose[..., None], self.direction, otherwise.direction),
            torch.where(choose[..., None], self.gain, otherwise.gain),
        )


def start(group: Group, phase: Tensor) -> Iterate:
    """Return the iterate with weights inverse to the users' total gains, at the given phases."""
    strength = torch.diagonal(group.gram, dim1=-2, dim2=-1).real.clamp(min=0).sqrt().sum(1)
    weight = group.present / strength.clamp(min=TINY)
    weight = (weight / weight.sum(-1, keepdim=True))[:, None, :].expand(phase.shape).contiguous()
    tau = FIRST_TEMPERATURE
    slack = tau / (weight + 1 - group.present[:, None])
    level = torch.full((*phase.shape[:2], group.gram.shape[1]), FIRST_LEVEL).to(weight)
    return Iterate(phase, weight, slack, level, tau / (1 - level), tau / level)


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
