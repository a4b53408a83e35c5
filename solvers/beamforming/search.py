"""The search for good beams: one straight try, and many starts where it is not proven optimal."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from solvers.beamforming.ascent import ascend
from solvers.beamforming.candidates import Beams, initial_phases, start
from solvers.beamforming.certificate import closed, guess_from_beams
from solvers.beamforming.group import Group
from solvers.beamforming.newton import settle
from solvers.beamforming.schedule import CLOSED, FIRST, FIRST_TEMPERATURE, SETTLE, STAGES
from solvers.beamforming.small import search_one

SMALL = 3
"""Batches up to this size go through `small.py` when on the CPU."""


def search(group: Group, starts: int, dtype: torch.dtype, seed: int) -> tuple[Tensor, Tensor]:
    """Return the best beams found as direction (B, K) and gain (B, N), see `Beams`.

    Every problem is first solved from equal phases. Where the free certificate does not prove the
    result optimal to `CLOSED`, twice `starts` candidates are screened and the better half goes
    on, both in `dtype`; the best one is finished in complex128.
    """
    phases = initial_phases(group, 2 * starts, seed)
    if len(phases) <= SMALL and phases.device.type == "cpu":
        return _one_by_one(group, phases, starts)
    beams = _straight(group, phases[:, :1], dtype)
    left = _unproven(group, beams)
    if len(left):
        part = group.take(left)
        found = _screened(part, phases[left], starts, dtype, beams.take(left))
        beams = beams.put(left, found)
    return beams.direction[:, 0], beams.gain[:, 0]


def _straight(group: Group, phase: Tensor, dtype: torch.dtype) -> Beams:
    """Follow one candidate per problem, phases (B, 1, K)."""
    steps, cut, floor = FIRST
    rough = group.to(dtype)
    at = start(rough, phase.to(dtype), FIRST_TEMPERATURE)
    at, _, temperature = ascend(rough, at, FIRST_TEMPERATURE, cut, floor, steps)
    steps, cut, floor = SETTLE
    return settle(group, at.to(torch.complex128), temperature, cut, floor, steps)


def _screened(group: Group, phases: Tensor, starts: int, dtype: torch.dtype, best: Beams) -> Beams:
    """Screen the candidates, carry the better half, finish the best; never worse than `best`."""
    rough = group.to(dtype)
    (steps, cut, floor), second, third = STAGES
    at = start(rough, phases.to(dtype), FIRST_TEMPERATURE)
    at, screened, temperature = ascend(rough, at, FIRST_TEMPERATURE, cut, floor, steps)
    at = at.pick(screened.value.topk(starts, dim=1).indices)
    steps, cut, floor = second
    at, carried, temperature = ascend(rough, at, temperature, cut, floor, steps)
    at = at.pick(carried.value.argmax(1, keepdim=True)).to(torch.complex128)
    steps, cut, floor = SETTLE
    settled = settle(group, at, temperature, cut, floor, steps)
    for stage in (screened.best(), carried.best(), settled):
        best = best.where(best.value > stage.value * (1 + 1e-5), stage)
    left = _unproven(group, best)
    if len(left):
        steps, cut, floor = third
        part = group.take(left)
        _, finished, _ = ascend(part, at.take(left), temperature, cut, floor, steps)
        kept = best.take(left)
        best = best.put(left, kept.where(kept.value > finished.value, finished))
    return best


def _unproven(group: Group, beams: Beams) -> Tensor:
    """Return the indices of the problems that the free certificate does not prove solved."""
    guess, _, _ = guess_from_beams(group, beams.direction[:, 0], beams.gain[:, 0])
    high = torch.ones_like(beams.gain[:, 0])
    bound, _ = closed(group, guess, torch.zeros_like(high), high)
    return (beams.value[:, 0] * (1 + CLOSED) < bound).nonzero()[:, 0]


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
