"""When the modes of a slot end, with migrations one after another (formulation, 3).

`sequential`: nothing overlaps; each mode waits for the migrations its messages still need and for
the mode before it. `pipelined`: migrations run one after another in the order of the messages,
beside the broadcasts; a mode starts when the mode before it is over and the migrations of all its
messages are. With one message per mode this is a two-machine flow shop, for which Johnson's rule
gives the best order.
"""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray


def migration_by_message(
    message_of_pair: IntArray, block_of_pair: IntArray, messages: int, migration: FloatArray
) -> FloatArray:
    """Return the migration time that each message adds, in the order of the messages.

    A block in several messages migrates once, for the first of them.

    Parameters
    ----------
    message_of_pair, block_of_pair
        (P,) the pairs (i, j) such that message i carries block j.
    messages
        I, the number of messages.
    migration
        (J,) migration delay tau_j of each block, s.

    Returns
    -------
    (I,) array, s.
    """
    first_message = np.full(len(migration), messages, dtype=np.int64)
    np.minimum.at(first_message, block_of_pair, message_of_pair)
    carried = first_message < messages
    return summed(first_message[carried], migration[carried], messages)


def summed(index: IntArray, value: FloatArray, length: int) -> FloatArray:
    """Return (length,) the sum of the values that carry each index."""
    return np.bincount(index, weights=value, minlength=length).astype(np.float64)


def johnson_order(migration: FloatArray, broadcast: FloatArray) -> IntArray:
    """Return the order of jobs (first machine, then second) with the least makespan.

    Jobs that migrate faster than they broadcast come first, fastest migration first; the others
    follow, longest broadcast first (S. M. Johnson, Naval Research Logistics Quarterly 1, 1954).

    Parameters
    ----------
    migration, broadcast
        (I,) time of each job on the first and the second machine, s.
    """
    early = migration < broadcast
    key = np.where(early, migration, -broadcast)
    return np.lexsort((key, ~early))


def sequential_ends(added_migration: FloatArray, duration: FloatArray) -> FloatArray:
    """Return the end of every mode when nothing overlaps.

    Parameters
    ----------
    added_migration
        (D,) migration time that waits for no earlier mode but for this one, s.
    duration
        (D,) time on the air, s.
    """
    return np.cumsum(added_migration + duration)


def pipelined_ends(ready: FloatArray, duration: FloatArray) -> FloatArray:
    """Return the end of every mode when migrations run beside the broadcasts.

    end_m = max(end_{m-1}, ready_m) + duration_m, unrolled.

    Parameters
    ----------
    ready
        (D,) when the last migration of the mode's messages is over, s.
    duration
        (D,) time on the air, s.
    """
    on_air = np.cumsum(duration)
    return on_air + np.maximum.accumulate(ready - (on_air - duration))
