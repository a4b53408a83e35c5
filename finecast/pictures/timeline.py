"""When every migration and mode of a slot starts and ends, as the judge counts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.instance import Schedule
from finecast.problem.schedule import (
    johnson_order,
    migration_by_message,
    pipelined_ends,
    sequential_ends,
    summed,
)
from finecast.problem.solution import Broadcast


@dataclass(frozen=True, eq=False)
class Timeline:
    """When everything in a slot happens, from the start of the slot.

    Parameters
    ----------
    migration_start, migration_time
        (J,) s; the time is 0 for a block that does not migrate.
    mode_start, mode_end
        (D,) s.
    """

    migration_start: FloatArray
    migration_time: FloatArray
    mode_start: FloatArray
    mode_end: FloatArray

    @property
    def end(self) -> float:
        """The end of the last migration or mode, s."""
        migration = (self.migration_start + self.migration_time).max(initial=0.0)
        return float(max(migration, self.mode_end.max(initial=0.0)))


def timeline(broadcast: Broadcast, migration: FloatArray, schedule: Schedule) -> Timeline:
    """Return when every migration and mode starts, as the judge counts.

    Migrations run one after another (docs/formulation.md section 3). In the sequential schedule a
    block's waits until the first mode that carries it is next; in the pipelined one they run
    beside the modes, in the stated order of the messages or, where modes and messages are the
    same, in Johnson's.

    Parameters
    ----------
    broadcast
        Messages and modes of the slot.
    migration
        (J,) migration delay tau_j of each block, s, finite.
    schedule
        Which one.
    """
    message, block = broadcast.carried
    if schedule == "sequential":
        first_mode = np.full(broadcast.messages, broadcast.modes)
        np.minimum.at(first_mode, broadcast.message, broadcast.mode)
        turn = _first(block, first_mode[message], len(migration), broadcast.modes)
        waited = summed(turn, migration, broadcast.modes + 1)[:-1]
        mode_end = sequential_ends(waited, broadcast.duration)
        on_air = np.concatenate([[0.0], np.cumsum(broadcast.duration)])[turn]
    else:
        message_order, mode_order = _pipelined_order(broadcast, migration)
        rank = np.argsort(message_order)
        turn = _first(block, rank[message], len(migration), broadcast.messages)
        arrived = np.cumsum(summed(turn, migration, broadcast.messages + 1))
        ready = np.zeros(broadcast.modes)
        np.maximum.at(ready, broadcast.mode, arrived[rank[broadcast.message]])
        mode_end = np.empty(broadcast.modes)
        mode_end[mode_order] = pipelined_ends(ready[mode_order], broadcast.duration[mode_order])
        on_air = np.zeros(len(migration))
    order = np.argsort(turn, kind="stable")
    start = np.empty(len(migration))
    start[order] = np.cumsum(migration[order]) - migration[order]
    return Timeline(
        migration_start=start + on_air,
        migration_time=migration,
        mode_start=mode_end - broadcast.duration,
        mode_end=mode_end,
    )


def _first(block: IntArray, turn: IntArray, blocks: int, none: int) -> IntArray:
    """Return (J,) the earliest turn of the pairs of each block, `none` for a block without any."""
    first_turn = np.full(blocks, none)
    np.minimum.at(first_turn, block, turn)
    return first_turn


def _pipelined_order(broadcast: Broadcast, migration: FloatArray) -> tuple[IntArray, IntArray]:
    """Return the order of the messages and of the modes: stated, or Johnson's in a flow shop."""
    message, block = broadcast.carried
    flow_shop = (
        broadcast.messages == broadcast.modes == len(broadcast.mode)
        and len(np.unique(broadcast.message)) == broadcast.messages
        and len(np.unique(block)) == len(block)
    )
    if not flow_shop:
        return np.arange(broadcast.messages), np.arange(broadcast.modes)
    message_of_mode = broadcast.message[np.argsort(broadcast.mode)]
    fetch = migration_by_message(message, block, broadcast.messages, migration)[message_of_mode]
    order = johnson_order(fetch, broadcast.duration)
    return message_of_mode[order], order
