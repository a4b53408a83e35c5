"""The search for good beams: screen many starts, carry the better half, finish the best."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from solvers.beamforming.ascent import ascend
from solvers.beamforming.candidates import initial_phases, start
from solvers.beamforming.group import Group
from solvers.beamforming.schedule import FIRST_TEMPERATURE, STAGES
from solvers.beamforming.small import search_one

SMALL = 3
"""Batches up to this size go through `small.py` when on the CPU."""


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
