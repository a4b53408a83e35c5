"""What a chart shows of a slot: all of it, or the wide phase and the phase of one area."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.pictures.timeline import Timeline, timeline
from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.evaluation import Evaluation
from finecast.problem.instance import Instance
from finecast.problem.phases import Phase, phases_of
from finecast.problem.solution import Broadcast, Solution


@dataclass(frozen=True, eq=False)
class SlotView:
    """Messages of a slot and when they are sent.

    Parameters
    ----------
    broadcast, times
        The messages and modes that are shown, and when; the wide ones come first.
    nodes
        The nodes that have rows.
    never
        (J,) a block arrives over a link of rate 0.
    wide_end
        Where the wide phase ends, s; None with one area.
    """

    broadcast: Broadcast
    times: Timeline
    nodes: IntArray
    never: BoolArray
    wide_end: float | None


def slowest_area(instance: Instance, evaluation: Evaluation, slot: int) -> int | None:
    """Return the area that waits longest in a slot; None with one area."""
    if instance.area_count == 1:
        return None
    waits = evaluation.area_delay[slot]
    return int(np.nanargmax(np.where(np.isnan(waits), -1.0, waits)))


def view_of(instance: Instance, solution: Solution, slot: int, area: int | None) -> SlotView:
    """Return what is shown of a slot.

    Parameters
    ----------
    instance, solution
        The problem and the decisions, of the same shape.
    slot
        Which slot.
    area
        Whose phase follows the wide one; None with one area.
    """
    wide, *local = phases_of(instance, solution, slot)
    shown = [wide, *(phase for phase in local if phase.area == area)]
    never = ~np.isfinite(sum(phase.migration for phase in shown))
    times = [timeline(phase.broadcast, drawable(phase), instance.schedule) for phase in shown]
    if area is None:
        return SlotView(wide.broadcast, times[0], np.arange(instance.nodes), never, None)
    begin = times[0].end
    own = np.flatnonzero(instance.areas == area)
    if len(shown) == 1:
        return SlotView(wide.broadcast, times[0], own, never, begin)
    moves = shown[1].migration > 0.0
    merged = Timeline(
        migration_start=np.where(moves, begin + times[1].migration_start, times[0].migration_start),
        migration_time=np.where(moves, times[1].migration_time, times[0].migration_time),
        mode_start=np.concatenate([times[0].mode_start, begin + times[1].mode_start]),
        mode_end=np.concatenate([times[0].mode_end, begin + times[1].mode_end]),
    )
    return SlotView(_joined(wide.broadcast, shown[1].broadcast), merged, own, never, begin)


def drawable(phase: Phase) -> FloatArray:
    """Return the migration times, and something to draw for those that never end."""
    never = ~np.isfinite(phase.migration)
    total = float(phase.migration[~never].sum() + phase.broadcast.duration.sum())
    return np.where(never, 0.05 * total or 1.0, phase.migration)


def _joined(first: Broadcast, second: Broadcast) -> Broadcast:
    """Return the messages and modes of two phases, one after the other, as one sequence."""
    rows = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("users", "nodes", "blocks", "duration", "beam", "rate")
    }
    return Broadcast(
        **rows,
        mode=np.concatenate([first.mode, second.mode + first.modes]),
        message=np.concatenate([first.message, second.message + first.messages]),
    )
