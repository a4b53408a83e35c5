"""Channels for the beamforming tests, each drawn from a generator passed in."""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import ComplexArray, FloatArray


def rayleigh(
    rng: np.random.Generator, batch: int, users: int, nodes: int, antennas: int, snr: float = 10.0
) -> ComplexArray:
    """Equal-gain Rayleigh channels (B, K, N, A) of mean power `snr` per antenna."""
    shape = (batch, users, nodes, antennas)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * np.sqrt(snr / 2)


def spread(
    rng: np.random.Generator,
    batch: int,
    users: int,
    nodes: int,
    antennas: int,
    spread_db: float = 40.0,
) -> ComplexArray:
    """Rayleigh channels with user-node gains uniform over `spread_db`, as path loss makes them."""
    gain_db = rng.uniform(-10, spread_db - 10, (batch, users, nodes, 1))
    return rayleigh(rng, batch, users, nodes, antennas, 1.0) * 10 ** (gain_db / 20)


def relative(channel: ComplexArray, share: float) -> FloatArray:
    """Error radii (B, K, N), the same share of every node's channel norm."""
    return np.asarray(share * np.linalg.norm(channel, axis=-1))


def snr_of(channel: ComplexArray, error: FloatArray, beams: ComplexArray) -> FloatArray:
    """Worst-case SNR of the weakest user by the closed form, written out in loops."""
    batch, users, nodes, _ = channel.shape
    worst = np.full(batch, np.inf)
    for b in range(batch):
        for k in range(users):
            received = abs(sum(np.vdot(channel[b, k, n], beams[b, n]) for n in range(nodes)))
            lost = sum(error[b, k, n] * np.linalg.norm(beams[b, n]) for n in range(nodes))
            worst[b] = min(worst[b], max(0.0, received - lost) ** 2)
    return worst
