"""The search for good beams: one straight try, and many starts where it is not proven optimal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finecast.solvers.beamforming.kernel.ascent import ascend
from finecast.solvers.beamforming.kernel.candidates import Carried, initial_phases, start
from finecast.solvers.beamforming.kernel.certificate import (
    BeamDual,
    Box,
    closed,
    coupling,
    guess_from_beams,
)
from finecast.solvers.beamforming.kernel.gram import Group
from finecast.solvers.beamforming.kernel.newton import settle
from finecast.solvers.beamforming.kernel.small import search_one
from finecast.solvers.beamforming.kernel.steps import (
    CARRY,
    CLOSED,
    FEIGNED,
    FINISH,
    FIRST,
    FIRST_TEMPERATURE,
    NEAR,
    SCREEN,
    SETTLE,
    SMALL,
)


def search(
    group: Group, starts: int, dtype: torch.dtype, seed: int
) -> tuple[Tensor, Tensor, BeamDual]:
    """Return the best beams found as direction (B, K) and gain (B, N), and the best dual guess.

    Every problem is first solved from equal phases. Where the free certificate does not prove the
    result optimal to `CLOSED`, twice `starts` candidates are screened and the better half goes
    on, both in `dtype`; the best one is finished in complex128. See `Carried`. At `starts` 0 what
    comes from equal phases is the result.
    """
    phases = initial_phases(group, max(1, 2 * starts), seed)
    if len(phases) <= SMALL and phases.device.type == "cpu":
        direction, gain = _one_by_one(group, phases, starts)
        guess, _ = guess_from_beams(group, direction, gain)
        return direction, gain, guess
    known = _proven(group, _straight(group, phases[:, :1], dtype))
    left = known.left()
    if starts and len(left):
        hard = _screened(group.take(left), phases[left], starts, dtype, known.take(left))
        known = known.put(left, hard)
    return known.beams.direction[:, 0], known.beams.gain[:, 0], known.proof


def search_again(
    group: Group,
    known: Carried,
    proof: BeamDual,
    starts: int,
    dtype: torch.dtype,
    seed: int,
) -> tuple[Tensor, Tensor]:
    """Return beams at least as good as those `known` (B, 1), from starts that the relaxation gives.

    `proof` is a dual point near the relaxation's optimum, and T its matrix (`coupling`). On the
    central path (1 - T)^-1 - 1, scaled by users, is the covariance of the received signals up to a
    factor, and next to the optimum the 1 does not count. Starts are the phases of Gaussian vectors
    of covariance (1 - T)^-1 (randomisation: Sidiropoulos, Davidson, Luo, IEEE TSP 2006).
    """
    users = group.present.shape[1]
    matrix = coupling(group, proof.slope, proof.price)
    identity = torch.eye(users, dtype=matrix.dtype, device=matrix.device)
    factor, _ = torch.linalg.cholesky_ex((1 + NEAR) * identity - matrix)
    normal = np.random.default_rng(seed).standard_normal((2, users, 2 * starts))
    drawn = torch.as_tensor(normal[0] + 1j * normal[1], device=matrix.device)
    signal = torch.linalg.solve_triangular(factor.mH, drawn.expand(len(matrix), -1, -1), upper=True)
    angle = signal.angle().nan_to_num().mT.contiguous()
    phases = torch.polar(torch.ones_like(angle), angle)
    beams = _screened(group, phases, starts, dtype, _proven(group, known)).beams
    return beams.direction[:, 0], beams.gain[:, 0]


def phases_at_partial_power(group: Group, starts: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Return phases (B, starts, K) at which beams of partial power are good, the best ones first.

    Without errors every iterate of `ascend` is at full power. So every radius is raised to the
    share `FEIGNED` of its channel's norm, which makes the norm(w_n) variables of the search.
    Four times as many candidates are screened.
    """
    norm = torch.diagonal(group.gram, dim1=-2, dim2=-1).real.clamp(min=0).sqrt().mT
    error = torch.maximum(group.error, FEIGNED * norm)
    rough = Group(group.gram, error, group.present, group.antennas).to(dtype)
    phases = initial_phases(group, 4 * starts, seed)
    iterate = start(rough, phases.to(dtype))
    iterate, screened, temperature = ascend(rough, iterate, FIRST_TEMPERATURE, SCREEN)
    iterate = iterate.pick(screened.value.topk(starts, dim=1).indices)
    iterate, carried, _ = ascend(rough, iterate, temperature, CARRY)
    best_first = torch.argsort(carried.value, dim=1, descending=True, stable=True)
    return iterate.pick(best_first).phase.to(torch.complex128)


@dataclass(frozen=True)
class _Proven:
    """Beams (B, 1), the least bound (B,) on u found so far and the dual point that proves it."""

    beams: Carried
    bound: Tensor
    proof: BeamDual

    def left(self) -> Tensor:
        """Return the indices of the problems that are not proven solved."""
        return (self.beams.value[:, 0] * (1 + CLOSED) < self.bound).nonzero()[:, 0]

    def take(self, index: Tensor) -> _Proven:
        """Return the problems `index` (m,)."""
        return _Proven(self.beams.take(index), self.bound[index], self.proof.take(index))

    def put(self, index: Tensor, new: _Proven) -> _Proven:
        """Return these with the problems `index` (m,) replaced."""
        return _Proven(
            self.beams.put(index, new.beams),
            self.bound.index_copy(0, index, new.bound),
            self.proof.put(index, new.proof),
        )

    def improved(self, group: Group, beams: Carried) -> _Proven:
        """Return the better beams of the two, and the smaller of their bounds."""
        proven = _proven(group, beams)
        lower = self.bound <= proven.bound
        return _Proven(
            self.beams.where(self.beams.value > beams.value, beams),
            torch.minimum(self.bound, proven.bound),
            self.proof.where(lower, proven.proof),
        )


def _proven(group: Group, beams: Carried) -> _Proven:
    """Certify beams by their free certificate."""
    guess, _ = guess_from_beams(group, beams.direction[:, 0], beams.gain[:, 0])
    return _Proven(beams, *closed(group, guess, Box.whole(group)))


def _straight(group: Group, phase: Tensor, dtype: torch.dtype) -> Carried:
    """Follow one candidate per problem, phases (B, 1, K)."""
    rough = group.to(dtype)
    iterate = start(rough, phase.to(dtype))
    iterate, _, temperature = ascend(rough, iterate, FIRST_TEMPERATURE, FIRST)
    return settle(group, iterate.to(torch.complex128), temperature, SETTLE)


def _screened(
    group: Group, phases: Tensor, starts: int, dtype: torch.dtype, known: _Proven
) -> _Proven:
    """Screen the candidates, carry the better half, finish the best; improve on what is known."""
    rough = group.to(dtype)
    iterate = start(rough, phases.to(dtype))
    iterate, screened, temperature = ascend(rough, iterate, FIRST_TEMPERATURE, SCREEN)
    iterate = iterate.pick(screened.value.topk(starts, dim=1).indices)
    iterate, carried, temperature = ascend(rough, iterate, temperature, CARRY)
    iterate = iterate.pick(carried.value.argmax(1, keepdim=True)).to(torch.complex128)
    best = settle(group, iterate, temperature, SETTLE)
    for rounded in (screened.best(), carried.best()):  # their values are in `dtype`
        best = best.where(best.value * (1 + 1e-5) > rounded.value, rounded)
    known = known.improved(group, best)
    # Coupled steps go to any stationary point: the uncoupled way to the end is tried too.
    left = known.left()
    if len(left):
        hard = group.take(left)
        _, finished, _ = ascend(hard, iterate.take(left), temperature, FINISH)
        known = known.put(left, known.take(left).improved(hard, finished))
    return known


def _one_by_one(group: Group, phases: Tensor, starts: int) -> tuple[Tensor, Tensor]:
    """Search every problem of a small batch by itself, its absent users left out."""
    direction = torch.zeros_like(phases[:, 0])
    gain = torch.zeros_like(group.error[:, 0])
    for i, users in enumerate((group.present > 0).numpy()):
        gram = np.ascontiguousarray(group.gram[i].numpy()[:, users][:, :, users])
        error, phase = group.error[i].numpy()[users], phases[i].numpy()[:, users]
        beam, _ = search_one(gram, error, phase, starts, group.antennas)
        direction[i, torch.from_numpy(users)] = torch.from_numpy(beam.direction)
        gain[i] = torch.from_numpy(beam.gain)
    return direction, gain
