"""Pipelined order of shared air: broadcasts run beside the migrations, block by block.

The least-time programme says how long each mode lasts and which bundles of messages it carries. A
bundle is the messages of the same users and senders, which its modes may carry in any order. Here
the messages migrate in Johnson's order, those at hand first. A mode goes on the air when all of its
bundles have a message at hand. Another one may follow as soon as a message is done.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.schedule import johnson_order, migration_by_message
from finecast.problem.solution import Broadcast
from finecast.solvers.spatial.modes import Modes

DONE = 1e-11
"""A message that lacks less than this share of its bits is done: the rest is rounding of pieces."""


def pipelined_broadcast(
    modes: Modes, messages: Broadcast, bundle: IntArray, bits: FloatArray, migration: FloatArray
) -> Broadcast:
    """Return the modes cut into pieces that follow the migrations.

    Parameters
    ----------
    modes
        Durations, beams and rates of the bundles.
    messages
        The messages: users, nodes and blocks.
    bundle
        (I,) the bundle of every message.
    bits
        (I,) what every message carries.
    migration
        (J,) migration delay of each block, s.
    """
    order = migration_order(modes, messages, bundle, bits, migration)
    bundle, bits = bundle[order], bits[order]
    blocks = messages.blocks[order]
    message, block = np.nonzero(blocks)
    added = migration_by_message(message, block, len(order), migration)
    pieces = _pieces(modes, bundle, bits, np.cumsum(added))
    on_air = [(p, piece.mode, b, i) for p, piece in enumerate(pieces) for b, i in piece.sent]
    index, mode, of_bundle, message = np.array(on_air, dtype=np.int64).T
    return Broadcast(
        users=messages.users[order],
        nodes=messages.nodes[order],
        blocks=blocks,
        duration=np.array([piece.duration for piece in pieces]),
        mode=index,
        message=message,
        beam=modes.beam[mode, of_bundle],
        rate=modes.rate[mode, of_bundle],
    )


def migration_order(
    modes: Modes, messages: Broadcast, bundle: IntArray, bits: FloatArray, migration: FloatArray
) -> IntArray:
    """Return the messages in Johnson's order of migration and time on shared air.

    A message's time on the air is what its bits cost at the prices of the programme; the sum over
    messages is the broadcast time.

    Parameters
    ----------
    modes, messages, bundle, bits, migration
        As in `pipelined_broadcast`.
    """
    wait = messages.blocks @ migration
    order = johnson_order(wait, modes.price[bundle] * bits)
    return np.concatenate([order[wait[order] == 0], order[wait[order] > 0]])


@dataclass(frozen=True)
class _Piece:
    """Some seconds of a mode, and the (bundle, message) pairs that it carries."""

    duration: float
    mode: int
    sent: tuple[tuple[int, int], ...]


def _pieces(modes: Modes, bundle: IntArray, bits: FloatArray, ready: FloatArray) -> list[_Piece]:
    """Return the pieces in the order they are sent.

    `bundle` (I,), `bits` (I,) and `ready` (I,) are of the messages in the order of migration.
    """
    left = modes.duration.copy()
    queue = [list(np.flatnonzero(bundle == b)) for b in range(modes.rate.shape[1])]
    missing = bits.copy()
    last = np.array([ready[waiting[-1]] for waiting in queue])
    # When a mode's bundles are all at hand; those early go first and leave time for the others.
    complete = np.where(modes.rate > 0, last, 0.0).max(axis=1)
    now = 0.0
    pieces: list[_Piece] = []
    while (left > 0).any():
        # The mode that can start first, of these the one complete first, of these the longest.
        best, start = None, np.inf
        for m in np.lexsort((-left, complete)):
            if left[m] <= 0:
                continue
            heads = [queue[b][0] for b in np.flatnonzero(modes.rate[m]) if queue[b]]
            if not heads:
                left[m] = 0.0  # all of its messages are done
                continue
            earliest = max(now, float(ready[heads].max()))
            if earliest < start:
                best, start = int(m), earliest
        if best is None:
            break
        # It lasts until it is over or a message is done.
        sent = [(int(b), int(queue[b][0])) for b in np.flatnonzero(modes.rate[best]) if queue[b]]
        duration = min(left[best], *(missing[i] / modes.rate[best, b] for b, i in sent))
        pieces.append(_Piece(float(duration), best, tuple(sent)))
        left[best] -= duration
        now = start + duration
        for b, i in sent:
            missing[i] -= duration * modes.rate[best, b]
            if missing[i] <= DONE * bits[i]:
                queue[b].pop(0)
        if left[best] <= DONE * modes.duration[best]:
            left[best] = 0.0
    return pieces
