"""Many messages at once, as they come: their beams proven by trees of their own.

Messages of one size go together. Users and nodes that are masked out are left out, as are nodes
that help nobody and users far above the weakest, whose absence can only raise a bound.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.solvers.beamforming.arguments.certificate import MOST_NODES, Messages
from finecast.solvers.beamforming.arguments.tree import grow
from finecast.solvers.beamforming.kernel.multicast import worst_case_snr
from finecast.solvers.deadline import NEVER, Deadline

MOST_USERS = 16
"""Larger groups are left as they are: a step for K users costs about K^6 operations."""

STRONGEST = 1e6
"""Users whose amplitudes are above this multiple of the weakest user's are left out."""

TOGETHER = 16
"""Problems whose trees grow side by side; a deadline is looked at about once a second."""


@dataclass(frozen=True)
class TreeOptions:
    """How far to prove beams.

    Attributes
    ----------
    nodes
        Boxes of arguments that may be bounded per message; 0 for none.
    tolerance
        Relative, on the rate: a message is finished when its bound is within it of its beam.

    Raises
    ------
    ValueError
        Naming the option that is out of range.
    """

    nodes: int = 400
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        if self.nodes < 0:
            raise ValueError(f"nodes: {self.nodes} is not allowed, must be >= 0")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance: {self.tolerance} is not allowed, must be > 0")


@dataclass(frozen=True)
class KnownBeams:
    """What is known of B messages.

    Attributes
    ----------
    beamformer
        (B, N, A), square root of watt, within the powers.
    snr, bound
        (B,) guaranteed SNR, and certified upper bound on that of any one message.
    """

    beamformer: ComplexArray
    snr: FloatArray
    bound: FloatArray


def prove_beams(
    channel: ComplexArray,
    error: FloatArray,
    power: FloatArray,
    *,
    node_mask: BoolArray,
    user_mask: BoolArray,
    known: KnownBeams,
    options: TreeOptions = TreeOptions(),
    deadline: Deadline = NEVER,
) -> tuple[KnownBeams, IntArray]:
    """Prove beams optimal, or replace them by better ones, by branch and bound on arguments.

    The bounds are for one message to all of its users. They say nothing of several messages that
    split the users (`finecast.solvers.covers`).

    Parameters
    ----------
    channel, error, power, node_mask, user_mask
        As in `finecast.solvers.beamforming.by_name.solve_messages`.
    known
        Beams and bounds so far.
    options
        How far to prove.
    deadline
        When to end at the latest; what is there by then holds.

    Examples
    --------
    One node with one antenna, three users of gain 1: full power gives everybody 1, whatever the
    arguments of the channels.

    >>> channel = np.exp(2j * np.pi * np.arange(3) / 3).reshape(1, 3, 1, 1)
    >>> everyone, everywhere = np.ones((1, 3), bool), np.ones((1, 1), bool)
    >>> half = KnownBeams(np.full((1, 1, 1), 0.5 + 0j), np.array([0.25]), np.array([4.0]))
    >>> found, examined = prove_beams(
    ...     channel,
    ...     np.zeros((1, 3, 1)),
    ...     np.ones(1),
    ...     node_mask=everywhere,
    ...     user_mask=everyone,
    ...     known=half,
    ... )
    >>> found.snr.round(6), found.bound.round(6), examined
    (array([1.]), array([1.]), array([1]))

    Returns
    -------
    Beams no worse and bounds no larger, and (B,) how many boxes were bounded.
    """
    beamformer, snr, bound = known.beamformer.copy(), known.snr.copy(), known.bound.copy()
    examined = np.zeros(len(snr), dtype=np.int64)
    amplitude = np.sqrt(power)
    scaled = channel * amplitude[:, None] * node_mask[:, None, :, None]
    radius = error * amplitude * node_mask[:, None]
    norm = np.linalg.norm(scaled, axis=-1)
    strength = np.where(user_mask, norm.sum(-1), np.inf)
    weakest = strength.min(-1)
    heard = user_mask & (strength <= STRONGEST * weakest[:, None])
    useful = (heard[..., None] & (norm * (1 + 1e-12) > radius)).any(1)
    users, nodes = heard.sum(1), useful.sum(1)
    erring = (radius * heard[..., None]).any((1, 2))
    target = np.expm1((1 + options.tolerance) * np.log1p(snr))
    worth = (snr > 0) & (bound > target) & np.isfinite(bound) & (users > 1) & (nodes > 0)
    worth &= (users <= MOST_USERS) & ~(erring & (nodes > MOST_NODES)) & (options.nodes > 0)

    # Messages of one size, so that nothing is padding.
    size = np.stack([users, nodes, erring], axis=1)
    for own in np.unique(size[worth], axis=0):
        same = np.flatnonzero(worth & (size == own).all(1))
        for begin in range(0, len(same), TOGETHER):
            index = same[begin : begin + TOGETHER]
            listener = np.argsort(~heard[index], axis=1, kind="stable")[:, : own[0]]
            sender = np.argsort(~useful[index], axis=1, kind="stable")[:, : own[1]]
            pick = index[:, None, None], listener[:, :, None], sender[:, None]
            scale = weakest[index]
            messages = Messages(
                scaled[pick] / scale[:, None, None, None], radius[pick] / scale[:, None, None]
            )
            of_node = index[:, None], sender
            unit = beamformer[of_node] / amplitude[sender][..., None]
            grown = grow(
                messages,
                unit,
                np.sqrt(snr[index]) / scale,
                np.sqrt(bound[index]) / scale,
                scale,
                options.tolerance,
                options.nodes,
                deadline,
            )
            examined[index] = grown.examined
            found = (grown.bound * scale * (1 + 1e-14)) ** 2 * (1 + 1e-15)
            bound[index] = np.minimum(bound[index], found)
            new = np.zeros_like(beamformer[index])
            new[np.arange(len(index))[:, None], sender] = grown.beam * amplitude[sender][..., None]
            reached = _snr(channel[index], error[index], new, user_mask[index])
            better = reached > snr[index]
            beamformer[index[better]], snr[index[better]] = new[better], reached[better]
    return KnownBeams(beamformer, snr, np.maximum(bound, snr)), examined


def _snr(
    channel: ComplexArray, error: FloatArray, beam: ComplexArray, users: BoolArray
) -> FloatArray:
    """Return what beams guarantee, by the closed form of the kernel."""
    arrays = (torch.from_numpy(np.ascontiguousarray(x)) for x in (channel, error, beam, users))
    return np.asarray(worst_case_snr(*arrays).numpy())
