"""Who can be reached over the channels of an instance, and what looks like a wrong unit in them."""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.instance import Instance

NAMED = 5
"""Most (slot, user) pairs that a note names; it counts the others."""


def gains(instance: Instance) -> FloatArray:
    """Return (T, K, N) |h_kn|, the amplitude gain of a node's best beam to a user."""
    return np.asarray(np.linalg.norm(instance.channel_estimate, axis=3))


def without_channel(instance: Instance) -> IntArray:
    """Return (n, 2) slots and users that no node has a channel to, as where no path arrives."""
    return np.argwhere((gains(instance) == 0.0).all(axis=2))


def lost_to_errors(instance: Instance) -> IntArray:
    """Return (n, 2) slots and users with a channel, whose errors are as large from every node."""
    strength = gains(instance)
    lost = (instance.channel_error >= strength).all(axis=2) & (strength > 0.0).any(axis=2)
    return np.argwhere(lost)


def unserved(instance: Instance, robust: bool = True) -> str:
    """Say which requests cannot be served at any rate, and why; "" where each alone can.

    Parameters
    ----------
    instance
        The problem.
    robust
        Plans reckon with the error balls.
    """
    reasons = []
    pairs = _requesting(instance, without_channel(instance))
    if len(pairs):
        reasons.append(f"no channel from any node to {places(pairs)}")
    pairs = _requesting(instance, lost_to_errors(instance)) if robust else pairs[:0]
    if len(pairs):
        reasons.append(f"channel errors are as large as the channels of {places(pairs)}")
    return "; ".join(reasons)


def gain_notes(instance: Instance) -> tuple[str, ...]:
    """Return a note on gains above one, with which more power would arrive than was sent.

    Channels that were normalised, or are in decibels or another unit, are of that kind. They give
    an answer like any other, of no meaning.
    """
    strength = gains(instance)
    above = np.argwhere(strength > 1.0)
    if not len(above):
        return ()
    t, k, n = np.unravel_index(int(strength.argmax()), strength.shape)
    return (
        f"{len(above)} of {strength.size} channel gains are above one, the largest is "
        f"{strength.max():.3g} (slot {t}, user {k}, node {n}): more power would arrive than was "
        "sent; gains must be amplitudes, not decibels, and not normalised",
    )


def places(pairs: IntArray) -> str:
    """Write (slot, user) pairs.

    Examples
    --------
    >>> places(np.array([[0, 3], [1, 3]]))
    'user 3 in slot 0, user 3 in slot 1'
    """
    named = ", ".join(f"user {k} in slot {t}" for t, k in pairs[:NAMED].tolist())
    rest = len(pairs) - NAMED
    return f"{named} and {rest} more" if rest > 0 else named


def _requesting(instance: Instance, pairs: IntArray) -> IntArray:
    """Return the pairs that request something."""
    return pairs[instance.requests[pairs[:, 0], pairs[:, 1]] >= 0]
