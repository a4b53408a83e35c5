"""Multi-group multicast: several messages on the air at once, as judged and as searched.

With the power limits absorbed in the channels (norm over all messages of w_n at most 1), amplitude
y_ik = g_k^H w_i and spread s_ik = sum_n eps_kn norm(w_in), user k hears message i at (nats)

    R_ik = log(1 + a_ik / I_ik),   a_ik = max(0, |y_ik| - s_ik)^2,
    I_ik = 1 + sum_{l != i} b_lk,  b_lk = (|y_lk| + s_lk)^2,

and the message goes at min(cap, min_{k in U_i} R_ik) (docs/formulation.md section 3).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray
from finecast.problem.sinr import worst_case_sinr

TINY = 1e-30
"""Least power that is divided by, no unit."""


@dataclass(frozen=True, eq=False)
class MultiGroup:
    """Messages that may share the air.

    Parameters
    ----------
    channel
        (K, N, A), normalised by the noise amplitude.
    error
        (K, N), radii of the error balls, normalised alike; zeros for nominal rates.
    power
        (N,) W.
    users
        (G, K) bool, who listens to each message; at least one.
    nodes
        (G, N) bool, who may send it.
    cap
        Largest rate of a message, nats; infinite for none.
    """

    channel: ComplexArray
    error: FloatArray
    power: FloatArray
    users: BoolArray
    nodes: BoolArray
    cap: float = np.inf

    def __post_init__(self) -> None:
        users, nodes, _ = self.channel.shape
        messages = len(self.users)
        for name, shape in (
            ("error", (users, nodes)),
            ("power", (nodes,)),
            ("users", (messages, users)),
            ("nodes", (messages, nodes)),
        ):
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name}: shape is {getattr(self, name).shape}, expected {shape}")
        deaf = np.flatnonzero(~self.users.any(axis=1))
        if len(deaf):
            raise ValueError(f"users[{deaf[0]}]: message {deaf[0]} has no users")


def guaranteed_rates(problem: MultiGroup, beam: ComplexArray) -> FloatArray:
    """Return (S, G) nats, the guaranteed rates of the messages in each of S modes.

    Parameters
    ----------
    problem
        The messages.
    beam
        (S, G, N, A), square root of watt.
    """
    modes, messages = beam.shape[:2]
    together = np.ones((messages, messages), dtype=bool)
    rates = np.zeros((modes, messages))
    for s in range(modes):
        sinr = worst_case_sinr(problem.channel, problem.error, beam[s], together)
        rates[s] = np.log1p(np.where(problem.users.T, sinr, np.inf).min(axis=0))
    return np.minimum(rates, problem.cap)


@dataclass(frozen=True, eq=False)
class ScaledModes:
    """Single-precision tensors with the power limits absorbed in the channels.

    Attributes
    ----------
    channel, error
        (K, N, A) complex64 and (K, N) float32.
    users, nodes
        (G, K) and (G, N) bool.
    price
        (G,) float32, summing to 1.
    cap
        Nats.
    robust
        Some error is not 0.
    """

    channel: Tensor
    error: Tensor
    users: Tensor
    nodes: Tensor
    price: Tensor
    cap: float
    robust: bool

    @classmethod
    def of(cls, problem: MultiGroup, price: FloatArray) -> ScaledModes:
        """Scale a problem."""
        amplitude = np.sqrt(problem.power)
        return cls(
            torch.from_numpy((problem.channel * amplitude[:, None]).astype(np.complex64)),
            torch.from_numpy((problem.error * amplitude).astype(np.float32)),
            torch.from_numpy(problem.users),
            torch.from_numpy(problem.nodes),
            torch.from_numpy((price / price.sum()).astype(np.float32)),
            problem.cap,
            bool((problem.error > 0).any()),
        )


def full_power(beam: Tensor) -> Tensor:
    """Return the beams (S, G, N, A) with every node that sends at power 1."""
    power = square(beam).sum((1, 3), keepdim=True)
    return beam * power.clamp(min=TINY).rsqrt()


def square(beam: Tensor) -> Tensor:
    """Return |beam|^2; unlike `abs`, this takes no square root."""
    return beam.real.square() + beam.imag.square()


def within_power(beam: ComplexArray, power: FloatArray) -> ComplexArray:
    """Return the beams (S, G, N, A) scaled to the full power of every node that sends."""
    sent = np.sqrt((beam.real**2 + beam.imag**2).sum(axis=(1, 3), keepdims=True))
    limit = np.sqrt(power)[:, None]
    scaled: ComplexArray = beam * (limit / np.where(sent > 0, sent, 1.0))
    return scaled


def by_nodes(nodes: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return the distinct node sets as indices, each with the messages that have it."""
    distinct, inverse = torch.unique(nodes, dim=0, return_inverse=True)
    return [
        (torch.nonzero(member)[:, 0], torch.nonzero(inverse == q)[:, 0])
        for q, member in enumerate(distinct)
        if bool(member.any())
    ]
