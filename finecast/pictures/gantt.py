"""One slot as a Gantt chart: migrations, messages on the air, and the nodes that send them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from finecast.pictures.style import (
    FAINT,
    HEADER_IN,
    INK,
    SMALL_PT,
    TEXT_PT,
    Container,
    axes_at,
    counted,
    family_colours,
    family_label,
    legend_above,
    new_figure,
    pale,
    plain,
    slot_of,
    text_colour,
    text_size,
    title,
)
from problem.arrays import FloatArray, IntArray
from problem.evaluation import Evaluation, evaluate
from problem.instance import Instance, Schedule
from problem.library import MIXED_FAMILY
from problem.schedule import (
    johnson_order,
    migration_by_message,
    pipelined_ends,
    sequential_ends,
    summed,
)
from problem.solution import Broadcast, Solution

LEFT_IN, RIGHT_IN, BOTTOM_IN, GAP_IN = 0.95, 0.25, 0.5, 0.1
RECEIVER_ROW_IN, SENDER_ROW_IN, AIR_IN = 0.24, 0.18, 2.6


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
    """Return when every migration and mode starts, as the judge counts (docs/formulation.md 3).

    Migrations run one after another, each block's for the first message that carries it. In the
    sequential schedule they wait until the first mode of that message is next; in the pipelined
    one they run beside the modes, in the stated order of the messages or, where modes and
    messages are the same, in Johnson's.

    Parameters
    ----------
    broadcast
        Messages and modes of the slot.
    migration
        (J,) migration delay tau_j of each block, s, finite.
    schedule
        Which one.
    """
    message, block = np.nonzero(broadcast.blocks)
    added = migration_by_message(message, block, broadcast.messages, migration)
    first_message = np.full(len(migration), broadcast.messages, dtype=np.int64)
    np.minimum.at(first_message, block, message)
    if schedule == "sequential":
        turn = np.full(broadcast.messages + 1, broadcast.modes, dtype=np.int64)
        np.minimum.at(turn, broadcast.message, broadcast.mode)
        waited = summed(turn[:-1], added, broadcast.modes + 1)[:-1]
        mode_end = sequential_ends(waited, broadcast.duration)
        on_air = np.concatenate([[0.0], np.cumsum(broadcast.duration)])[turn]
    else:
        message_order, mode_order = _pipelined_order(broadcast, added)
        turn = np.full(broadcast.messages + 1, broadcast.messages, dtype=np.int64)
        turn[message_order] = np.arange(broadcast.messages)
        ready = np.zeros(broadcast.modes)
        arrived = np.cumsum(added[message_order])[turn[broadcast.message]]
        np.maximum.at(ready, broadcast.mode, arrived)
        mode_end = np.empty(broadcast.modes)
        mode_end[mode_order] = pipelined_ends(ready[mode_order], broadcast.duration[mode_order])
        on_air = np.zeros(broadcast.messages + 1)
    order = np.lexsort((first_message, turn[first_message]))
    start = np.empty(len(migration))
    start[order] = np.cumsum(migration[order]) - migration[order]
    return Timeline(
        migration_start=start + on_air[first_message],
        migration_time=migration,
        mode_start=mode_end - broadcast.duration,
        mode_end=mode_end,
    )


def _pipelined_order(broadcast: Broadcast, added: FloatArray) -> tuple[IntArray, IntArray]:
    """Return the order of the messages and of the modes: stated, or Johnson's in a flow shop."""
    flow_shop = (
        broadcast.messages == broadcast.modes == len(broadcast.mode)
        and len(np.unique(broadcast.mode)) == broadcast.modes
        and len(np.unique(broadcast.message)) == broadcast.messages
        and (broadcast.blocks.sum(axis=0) <= 1).all()
    )
    if not flow_shop:
        return np.arange(broadcast.messages), np.arange(broadcast.modes)
    mode_of = np.empty(broadcast.messages, dtype=np.int64)
    mode_of[broadcast.message] = broadcast.mode
    order = johnson_order(added, broadcast.duration[mode_of])
    return order, mode_of[order]


def slot_gantt(instance: Instance, solution: Solution, slot: int = 0) -> Figure:
    """Draw a slot: migrations by receiving node, messages on the air, and who sends them.

    A message is as high as its spectral efficiency, so that its area is its bits over the
    bandwidth; messages on the air at once are stacked.

    Parameters
    ----------
    instance, solution
        The problem and the decisions, of the same shape.
    slot
        Which slot.

    Raises
    ------
    ValueError
        There is no such slot, or the shapes differ.
    """
    slot_of(instance, slot)
    receivers = max(1, int(solution.received[slot].any(axis=1).sum()))
    rows = receivers * RECEIVER_ROW_IN + instance.nodes * SENDER_ROW_IN
    figure = new_figure(HEADER_IN + 0.6 + AIR_IN + 2 * GAP_IN + rows + BOTTOM_IN)
    draw_gantt(figure, instance, solution, slot)
    return figure


def draw_gantt(container: Container, instance: Instance, solution: Solution, slot: int) -> None:
    """Draw as `slot_gantt` into a figure or a part of one."""
    when = slot_of(instance, slot)
    evaluation = evaluate(instance, solution)
    broadcast = solution.broadcasts[slot]
    migration = evaluation.block_migration[slot]
    never = ~np.isfinite(migration)
    shown = migration.copy()
    total = float(migration[~never].sum() + broadcast.duration.sum())
    shown[never] = 0.05 * total or 1.0
    times = timeline(broadcast, shown, instance.schedule)
    receivers = np.flatnonzero(solution.received[slot].any(axis=1))

    title(container, f"Migrations and broadcasts of {when}", _summary(instance, evaluation, slot))
    above = HEADER_IN + legend_above(container, _legend(instance, bool(never.any())), HEADER_IN)
    receiver_in = max(1, len(receivers)) * RECEIVER_ROW_IN
    sender_in = instance.nodes * SENDER_ROW_IN
    height = container.bbox.height / container.dpi
    below_air = BOTTOM_IN + sender_in + GAP_IN
    air_top = above + receiver_in + GAP_IN
    air = axes_at(container, LEFT_IN, below_air, RIGHT_IN, air_top)
    air.set_xlim(0, 1.005 * times.end or 1.0)
    lanes = axes_at(container, LEFT_IN, height - above - receiver_in, RIGHT_IN, above, sharex=air)
    senders = axes_at(
        container, LEFT_IN, BOTTOM_IN, RIGHT_IN, height - BOTTOM_IN - sender_in, sharex=air
    )
    _draw_migrations(lanes, instance, solution, slot, times, receivers, never)
    _draw_air(air, instance, broadcast, times)
    _draw_senders(senders, instance, broadcast, times)
    for axes in (lanes, air, senders):
        axes.axvline(times.end, color=INK, linewidth=1.0, linestyle="--", gid="end of slot")
        axes.grid(axis="x", color=FAINT, alpha=0.3, linewidth=0.6)
        axes.set_axisbelow(True)
    for axes in (lanes, air):
        axes.tick_params(axis="x", length=0, labelbottom=False)
        axes.spines["bottom"].set_visible(False)
    senders.set_xlabel("time from the start of the slot (s)", fontsize=SMALL_PT, color=INK)


def _summary(instance: Instance, evaluation: Evaluation, slot: int) -> str:
    parts = [
        f"{instance.schedule} schedule: {evaluation.slot_delay[slot]:.3g} s",
        f"migrations {evaluation.slot_migration[slot]:.3g} s",
        f"on the air {evaluation.slot_broadcast[slot]:.3g} s",
    ]
    broken = sum(violation.slot == slot for violation in evaluation.violations)
    if broken:
        parts.append(f"NOT feasible: {counted(broken, 'broken rule')} in this slot")
    return "; ".join(parts)


def _legend(instance: Instance, never: bool) -> list[Artist]:
    colours = family_colours(instance.library)
    handles: list[Artist] = [
        *(Patch(facecolor=colour, label=family_label(name)) for name, colour in colours.items()),
        Patch(facecolor="#666666", edgecolor=INK, label="migrates from a node"),
        Patch(facecolor=pale("#666666"), edgecolor=INK, label="migrates from the cloud"),
        Line2D([], [], color=INK, linewidth=1.0, linestyle="--", label="end of the slot"),
    ]
    if never:
        handles.append(
            Patch(facecolor="white", edgecolor="#D55E00", hatch="xxxx", label="never arrives")
        )
    return handles


def _draw_migrations(
    axes: Axes,
    instance: Instance,
    solution: Solution,
    slot: int,
    times: Timeline,
    receivers: IntArray,
    never: np.ndarray[tuple[int], np.dtype[np.bool_]],
) -> None:
    """One row per receiving node; a bar is as long as that node's own transfer takes."""
    axes.set_ylim(max(1, len(receivers)) - 0.5, -0.5)
    axes.set_yticks(range(len(receivers)), [f"EN {n}" for n in receivers])
    axes.tick_params(axis="y", length=0)
    _lane_name(axes, "receives")
    if not len(receivers):
        _note(axes, "no migration in this slot")
        return
    library = instance.library
    colours = family_colours(library)
    for row, n in enumerate(receivers):
        for j in np.flatnonzero(solution.received[slot, n]):
            origin = solution.source[slot, n, j]
            link = instance.network.link_rate[origin, n]
            length = times.migration_time[j] if never[j] else 8.0 * library.block_size[j] / link
            colour = colours[library.block_family[j]]
            face = pale(colour) if origin == instance.nodes else colour
            bar = axes.barh(
                row,
                length,
                0.74,
                left=times.migration_start[j],
                facecolor="white" if link == 0 else face,
                edgecolor="#D55E00" if link == 0 else colour,
                hatch="xxxx" if link == 0 else None,
                linewidth=0.8,
                zorder=3,
            )[0]
            bar.set_gid(f"migration {j} to {n} from {origin}")
            name = plain(library.block_names[j])
            where = "cloud" if origin == instance.nodes else f"EN {origin}"
            _label(
                axes,
                (times.migration_start[j], row - 0.37, length, 0.74),
                ((f"{name} from {where}", name, where),),
                INK if link == 0 else text_colour(face),
            )


def _draw_air(axes: Axes, instance: Instance, broadcast: Broadcast, times: Timeline) -> None:
    """Bars as high as the spectral efficiency; those of one mode stacked."""
    _lane_name(axes, "on the air\n(bit/s/Hz)")
    if not len(broadcast.mode):
        axes.set(ylim=(0, 1), yticks=[])
        _note(axes, "nothing is sent in this slot")
        return
    colours = family_colours(instance.library)
    efficiency = broadcast.rate / instance.network.bandwidth
    start, width = times.mode_start[broadcast.mode], broadcast.duration[broadcast.mode]
    bottom = _stacked(broadcast, efficiency)
    highest = float((bottom + efficiency).max()) or 1.0
    cap = instance.network.max_spectral_efficiency
    alone = len(np.unique(broadcast.mode)) == len(broadcast.mode)
    axes.set_ylim(0, 1.04 * (max(cap, highest) if alone and np.isfinite(cap) else highest))
    if alone and np.isfinite(cap):
        axes.axhline(cap, color=FAINT, linewidth=1.0, linestyle=":", gid="cap")
    families = message_families(instance, broadcast)
    edge = 0.7 if 72 * axes.bbox.width / axes.figure.dpi / len(start) > 3 else 0.0
    for x, i in enumerate(broadcast.message):
        colour = colours[families[i]]
        bar = axes.bar(
            start[x],
            efficiency[x],
            width[x],
            bottom[x],
            align="edge",
            facecolor=colour,
            edgecolor="white" if edge else colour,
            linewidth=edge,
            zorder=3,
        )[0]
        bar.set_gid(f"message {i} in mode {broadcast.mode[x]}")
        _label(
            axes,
            (start[x], bottom[x], width[x], efficiency[x]),
            _message_texts(instance, broadcast, int(i), float(efficiency[x])),
            text_colour(colour),
        )


def _draw_senders(axes: Axes, instance: Instance, broadcast: Broadcast, times: Timeline) -> None:
    """One row per node, filled while it sends; split between messages on the air at once."""
    axes.set_ylim(instance.nodes - 0.5, -0.5)
    axes.set_yticks(range(instance.nodes), [f"EN {n}" for n in range(instance.nodes)])
    axes.tick_params(axis="y", length=0)
    _lane_name(axes, "sends")
    colours = family_colours(instance.library)
    families = message_families(instance, broadcast)
    sends = broadcast.nodes[broadcast.message]
    for n in range(instance.nodes):
        on = np.flatnonzero(sends[:, n])
        if not len(on):
            continue
        mode = broadcast.mode[on]
        together = np.bincount(mode, minlength=broadcast.modes)[mode]
        height = 0.76 / together
        place = (np.tril(mode[:, None] == mode, -1)).sum(axis=1)
        axes.bar(
            times.mode_start[mode],
            height,
            broadcast.duration[mode],
            n - 0.38 + place * height,
            align="edge",
            color=[colours[families[i]] for i in broadcast.message[on]],
            linewidth=0.0,
            zorder=3,
        )


def message_families(instance: Instance, broadcast: Broadcast) -> list[str]:
    """Return the family of every message's blocks, or `MIXED_FAMILY` when there are several."""
    block_family = instance.library.block_family
    families = ({block_family[j] for j in np.flatnonzero(row)} for row in broadcast.blocks)
    return [names.pop() if len(names) == 1 else MIXED_FAMILY for names in families]


def _stacked(broadcast: Broadcast, height: FloatArray) -> FloatArray:
    """Return (X,) where each bar begins when those before it in its mode lie below it."""
    before = np.tril(broadcast.mode[:, None] == broadcast.mode, -1)
    return np.asarray(before @ height)


def _message_texts(
    instance: Instance, broadcast: Broadcast, message: int, efficiency: float
) -> tuple[tuple[str, ...], ...]:
    """Return texts for a message: those that say everything, and short ones."""
    blocks = np.flatnonzero(broadcast.blocks[message])
    count = counted(len(blocks), "block")
    what = plain(instance.library.block_names[blocks[0]]) if len(blocks) == 1 else count
    users = counted(int(broadcast.users[message].sum()), "user")
    nodes = "EN " + ",".join(str(n) for n in np.flatnonzero(broadcast.nodes[message]))
    rate = f"{efficiency:.2f} bit/s/Hz"
    full = tuple(
        between.join((which, users, nodes, rate))
        for which in (what, count)
        for between in ("\n", ", ")
    )
    return full, (
        "\n".join((users, nodes, rate)),
        f"{users}\n{efficiency:.1f}",
        f"{efficiency:.1f}",
    )


def _label(
    axes: Axes,
    box: tuple[float, float, float, float],
    texts: tuple[tuple[str, ...], ...],
    colour: str,
) -> None:
    """Write a text into a box (x, y, width, height) if one fits; axes have their final limits.

    Texts come in groups: the first that fits upright is taken, else the first that fits turned,
    before the next group.
    """
    x, y, width, height = box
    corners = axes.transData.transform([(x, y), (x + width, y + height)])
    across, up = np.abs(corners[1] - corners[0]) * 72 / axes.figure.dpi
    if min(across, up) < SMALL_PT:
        return
    for group, turned in product(texts, (0, 90)):
        for text in group:
            size = text_size(text, SMALL_PT)
            wide, high = size if turned == 0 else size[::-1]
            if wide + 4 < across and high + 3 < up:
                axes.text(
                    x + width / 2,
                    y + height / 2,
                    text,
                    rotation=turned,
                    ha="center",
                    va="center",
                    fontsize=SMALL_PT,
                    color=colour,
                    zorder=4,
                )
                return


def _lane_name(axes: Axes, name: str) -> None:
    axes.annotate(
        name,
        (0, 0.5),
        xycoords="axes fraction",
        xytext=(-50, 0),
        textcoords="offset points",
        rotation=90,
        ha="center",
        va="center",
        fontsize=SMALL_PT,
        color=INK,
    )


def _note(axes: Axes, text: str) -> None:
    axes.text(
        0.5,
        0.5,
        text,
        transform=axes.transAxes,
        ha="center",
        va="center",
        fontsize=TEXT_PT,
        color=INK,
    )
