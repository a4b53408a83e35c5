"""Other ways to share the air, as peers of the least-time programme; all return seconds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from draws import BANDWIDTH_HZ

from finecast.solvers.beamforming.by_name import solve_messages
from finecast.solvers.deadline import Deadline
from finecast.solvers.spatial.modes import Effort, least_time
from finecast.solvers.spatial.multigroup import (
    MultiGroup,
    ScaledModes,
    full_power,
    guaranteed_rates,
    square,
)
from finecast.solvers.spatial.pricing import price_modes
from finecast.solvers.spatial.pricing_ascent import listened, value_and_gradient
from finecast.solvers.spatial.pricing_starts import combined, regularised_zero_forcing

WMMSE_ALONE = 60
"""Steps of WMMSE in a round where it searches alone: about as long as 12 and 50 of Adam."""

PEER_TIME_S = 30.0
"""Of the wall clock; enough for the programme to come to its own end."""


def beams_alone(problem: MultiGroup) -> np.ndarray:
    """Return (G, N, A), the kernel's beam of every message alone on the air."""
    copies = (len(problem.users), *problem.channel.shape)
    return solve_messages(
        "multicast",
        np.broadcast_to(problem.channel, copies),
        np.broadcast_to(problem.error, copies[:-1]),
        problem.power,
        node_mask=problem.nodes,
        user_mask=problem.users,
    ).beamformer


def wmmse_alone(problem: MultiGroup, bits: np.ndarray, seed: int) -> float:
    """Return the time of the same column generation with modes by WMMSE alone."""
    return least_time(
        problem, bits, BANDWIDTH_HZ, beams_alone(problem),
        deadline=Deadline.after(PEER_TIME_S), seed=seed, effort=Effort(steps=0, wmmse=WMMSE_ALONE),
    ).total  # fmt: skip


def all_at_once(
    problem: MultiGroup, bits: np.ndarray, seed: int, starts: int = 4, steps: int = 400
) -> float:
    """Return the time with every message on the air all the time: max-min of rate over bits.

    Adam on the soft minimum over messages and users, whose sharpness grows.
    """
    generator = torch.Generator().manual_seed(seed)
    scaled = ScaledModes.of(problem, 1.0 / bits)
    towards = regularised_zero_forcing(scaled.channel, scaled.users, scaled.nodes)
    share = torch.from_numpy(bits / bits.mean()).float()
    best = np.inf
    for _ in range(starts):
        phase = torch.rand(scaled.users.shape, generator=generator) * (2 * torch.pi)
        beam = full_power(combined(scaled, towards, phase)[None])
        first, second = torch.zeros_like(beam), torch.zeros_like(beam.real)
        for t in range(steps):
            _, _, signal, _, interference = listened(scaled, beam)
            rate = torch.log1p(signal.square() / interference)
            least = torch.where(scaled.users, rate, torch.inf).amin(2)[0] / share
            best = min(best, float(1.0 / least.min().clamp(min=1e-9)))
            price = torch.softmax(-5.0 * 40.0 ** (t / steps) * least, 0) / share
            _, gradient = value_and_gradient(replace(scaled, price=price), beam, 20.0)
            first = 0.9 * first + 0.1 * gradient
            second = 0.99 * second + 0.01 * square(gradient)
            move = first / (1 - 0.9 ** (t + 1)) / ((second / (1 - 0.99 ** (t + 1))).sqrt() + 1e-12)
            beam = full_power(beam + 0.02 * 0.1 ** (t / steps) * move)
    return best * float(bits.mean()) * np.log(2.0) / BANDWIDTH_HZ


def fixed_modes(problem: MultiGroup, bits: np.ndarray, seed: int, count: int = 1000) -> float:
    """Return the least time over random modes of maximum ratio and zero-forcing beams alone."""
    from scipy.optimize import linprog

    generator = torch.Generator().manual_seed(seed)
    beams, _ = price_modes(problem, 1.0 / bits, fresh=count, steps=0, wmmse=0, generator=generator)
    beams = np.concatenate([beams, np.eye(len(bits))[:, :, None, None] * beams_alone(problem)])
    rate = guaranteed_rates(problem, beams) * BANDWIDTH_HZ / np.log(2.0)
    solved = linprog(np.ones(len(rate)), A_ub=-(rate / bits[None]).T, b_ub=-np.ones(len(bits)))
    return float(solved.fun)


def cells(problem: MultiGroup, bits: np.ndarray) -> tuple[MultiGroup, np.ndarray]:
    """Return the messages when every user is served by its strongest node alone."""
    strongest = np.linalg.norm(problem.channel, axis=2).argmax(axis=1)
    rows = [
        (i, n) for i, listening in enumerate(problem.users) for n in np.unique(strongest[listening])
    ]
    message, node = np.array(rows).T
    single = replace(
        problem,
        users=problem.users[message] & (strongest == node[:, None]),
        nodes=np.arange(len(problem.power)) == node[:, None],
    )
    return single, bits[message]


def reuse_one(problem: MultiGroup, bits: np.ndarray, seed: int) -> float:
    """Return the time of cells with reuse one, modes by the programme."""
    single, single_bits = cells(problem, bits)
    return least_time(
        single,
        single_bits,
        BANDWIDTH_HZ,
        beams_alone(single),
        deadline=Deadline.after(PEER_TIME_S),
        seed=seed,
    ).total


def reuse_one_at_once(problem: MultiGroup, bits: np.ndarray, seed: int) -> float:
    """Return the time of cells with reuse one, all messages on the air all the time."""
    return all_at_once(*cells(problem, bits), seed)


PEERS = {
    "wmmse_alone": wmmse_alone,
    "all_at_once": all_at_once,
    "fixed_modes": fixed_modes,
    "reuse_one": reuse_one,
    "reuse_one_at_once": reuse_one_at_once,
}
