"""Where the search for modes starts: maximum ratio, zero forcing, and modes already known."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from finecast.problem.arrays import ComplexArray, FloatArray
from finecast.solvers.spatial.multigroup import TINY, ScaledModes, by_nodes

LEAST_REVIVED = 0.1
"""Least amplitude at which a silent message of a warm start comes back, share of a full beam."""

MOST_REVIVED = 0.2
"""Largest such amplitude."""

LEAST_SUBSET = 0.1
"""Least share of the messages that a random start has on the air, unless it has all. With few
senders a message, the search seldom finds by itself which messages can share the air."""

MOST_SUBSET = 0.8
"""Largest such share."""


def regularised_zero_forcing(channel: Tensor, users: Tensor, nodes: Tensor) -> Tensor:
    """Return (G, K, N, A): G_Q (G_Q^H G_Q + K / N)^-1 e_k, Q the nodes of each message.

    Parameters
    ----------
    channel
        (K, N, A) with the power limits absorbed.
    users, nodes
        (G, K) and (G, N) bool, listeners and senders of the messages.
    """
    count, stations, antennas = channel.shape
    beam = torch.zeros(len(users), count, stations, antennas, dtype=channel.dtype)
    for member, messages in by_nodes(nodes):
        rows = channel[:, member].reshape(count, -1)
        gram = rows @ rows.conj().T + count / stations * torch.eye(count)
        forced = torch.linalg.solve(gram, rows).unflatten(1, (-1, antennas))
        beam[messages[:, None], :, member] = forced.transpose(0, 1)
    return beam


def fresh_starts(
    scaled: ScaledModes, zero_forcing: Tensor, count: int, generator: torch.Generator
) -> Tensor:
    """Return (count, G, N, A): half maximum ratio, half zero forcing, users at random phases.

    One in three has all messages on the air, the others a random subset.
    """
    messages = len(scaled.users)
    matched = scaled.channel * scaled.nodes[:, None, :, None]  # (G, K, N, A)
    beams = []
    for s in range(count):
        towards = zero_forcing if s % 2 else matched
        phase = torch.rand(scaled.users.shape, generator=generator) * (2 * torch.pi)
        beam = combined(scaled, towards, phase)
        if s % 3:
            share = _between(LEAST_SUBSET, MOST_SUBSET, generator)
            on_air = torch.rand(messages, generator=generator) < share
            on_air[torch.randint(messages, (), generator=generator)] = True
            beam = beam * on_air[:, None, None]
        beams.append(beam)
    if not beams:
        return matched.new_zeros((0, *matched.shape[:1], *matched.shape[2:]))
    return torch.stack(beams)


def combined(scaled: ScaledModes, towards: Tensor, phase: Tensor) -> Tensor:
    """Return (G, N, A) of norm 1: sum over a message's users of e^{j phase} times unit beams."""
    unit = towards / torch.linalg.vector_norm(towards, dim=(2, 3), keepdim=True).clamp(min=TINY)
    turn = torch.polar(scaled.users.float(), phase)
    beam = (turn[:, :, None, None] * unit).sum(1)
    scaled_beam: Tensor = beam / torch.linalg.vector_norm(beam, dim=(1, 2), keepdim=True).clamp(
        min=TINY
    )
    return scaled_beam


def revived(
    scaled: ScaledModes,
    zero_forcing: Tensor,
    warm: ComplexArray,
    power: FloatArray,
    generator: torch.Generator,
) -> Tensor:
    """Return the warm starts in the scaled unit, a random share of their silent messages revived.

    A revived message gets a part of a full beam.
    """
    amplitude = np.sqrt(np.where(power > 0, power, np.inf))
    beam = torch.from_numpy((warm / amplitude[:, None]).astype(np.complex64))
    revival = []
    for _ in range(len(beam)):
        phase = torch.rand(scaled.users.shape, generator=generator) * (2 * torch.pi)
        part = _between(LEAST_REVIVED, MOST_REVIVED, generator)
        back = torch.rand(len(phase), generator=generator) < torch.rand((), generator=generator)
        revival.append(part * combined(scaled, zero_forcing, phase) * back[:, None, None])
    silent = beam.abs().sum((2, 3), keepdim=True) == 0
    return torch.where(silent, torch.stack(revival), beam)


def _between(low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand((), generator=generator)
