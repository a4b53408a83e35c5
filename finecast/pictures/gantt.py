"""One slot as a Gantt chart: migrations, messages on the air, and the nodes that send them."""

from __future__ import annotations

from itertools import product

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from finecast.pictures.slot_view import SlotView, slowest_area, view_of
from finecast.pictures.style import (
    FAINT,
    HEADER_IN,
    INK,
    MIXED_COLOUR,
    SMALL_PT,
    TEXT_PT,
    Container,
    axes_at,
    check_fits,
    counted,
    family_colours,
    family_label,
    legend_above,
    new_figure,
    number,
    pale,
    plain,
    slot_of,
    text_colour,
    text_size,
    title,
)
from finecast.pictures.timeline import Timeline
from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.evaluation import Evaluation, evaluate
from finecast.problem.instance import Instance
from finecast.problem.library import MIXED_FAMILY
from finecast.problem.solution import Broadcast, Solution

LEFT_IN = 1.2
"""Left margin, inches."""
RIGHT_IN = 0.25
"""Right margin, inches."""
BOTTOM_IN = 0.5
"""Lower margin, inches."""
GAP_IN = 0.1
"""Between the three parts, inches."""
RECEIVER_ROW_IN = 0.24
"""Height of a row of migrations, inches."""
SENDER_ROW_IN = 0.18
"""Height of a row of senders, inches."""
ROWS_IN = 2.4
"""Height of all rows of one sort together at the most, inches."""
AIR_IN = 2.6
"""Height of the bars on the air, inches."""


def slot_gantt(
    instance: Instance, solution: Solution, slot: int = 0, area: int | None = None
) -> Figure:
    """Draw a slot: migrations by receiving node, messages on the air, and who sends them.

    A message is as high as its spectral efficiency, so that its area is its bits over the
    bandwidth; messages on the air at once are stacked. With several areas the chart shows what one
    of them waits for: the wide phase, and then its own.

    Parameters
    ----------
    instance, solution
        The problem and the decisions, of the same shape.
    slot
        Which slot.
    area
        Which area; None for the one that waits longest.

    Raises
    ------
    ValueError
        There is no such slot or area, or the shapes differ.
    """
    slot_of(instance, slot)
    check_fits(instance, solution)
    if area is not None and not 0 <= area < instance.area_count:
        raise ValueError(f"area: {area} is not allowed, must be 0 to {instance.area_count - 1}")
    figure = new_figure(gantt_height_in(instance, solution, slot, area))
    draw_gantt(figure, instance, solution, slot, area)
    return figure


def gantt_height_in(
    instance: Instance, solution: Solution, slot: int, area: int | None = None
) -> float:
    """Return a height that shows the slot well, inches."""
    slot_of(instance, slot)
    check_fits(instance, solution)
    if area is None:
        area = slowest_area(instance, evaluate(instance, solution), slot)
    own = np.arange(instance.nodes) if area is None else np.flatnonzero(instance.areas == area)
    receiver_in, sender_in = _rows_in(len(own), solution.received[slot][own])
    return HEADER_IN + 0.6 + receiver_in + AIR_IN + sender_in + 2 * GAP_IN + BOTTOM_IN


def _rows_in(nodes: int, received: BoolArray) -> tuple[float, float]:
    """Return the heights of the rows of receivers and of senders, inches."""
    receivers = max(1, int(received.any(axis=1).sum()))
    return min(receivers * RECEIVER_ROW_IN, ROWS_IN), min(nodes * SENDER_ROW_IN, ROWS_IN)


def draw_gantt(
    container: Container,
    instance: Instance,
    solution: Solution,
    slot: int,
    area: int | None = None,
) -> None:
    """Draw as `slot_gantt` into a figure or a part of one."""
    when = slot_of(instance, slot)
    evaluation = evaluate(instance, solution)
    if area is None:
        area = slowest_area(instance, evaluation, slot)
    view = view_of(instance, solution, slot, area)
    broadcast, times = view.broadcast, view.times
    received = solution.received[slot][view.nodes]
    receivers = view.nodes[received.any(axis=1)]

    heading, summary = f"Migrations and broadcasts of {when}", _summary(instance, evaluation, slot)
    if area is not None:
        heading = f"Area {area} in {when}: the wide phase, then its own"
        summary = _area_summary(instance, evaluation, slot, area, view)
    title(container, heading, summary)
    families = message_families(instance, broadcast)
    handles = _legend(instance, families, bool(view.never.any()))
    if view.wide_end:
        handles.append(Line2D([], [], color=INK, linewidth=1.6, label="end of the wide phase"))
    above = HEADER_IN + legend_above(container, handles, HEADER_IN)
    receiver_in, sender_in = _rows_in(len(view.nodes), received)
    height = container.bbox.height / container.dpi
    below_air = BOTTOM_IN + sender_in + GAP_IN
    air_top = above + receiver_in + GAP_IN
    air = axes_at(container, LEFT_IN, below_air, RIGHT_IN, air_top)
    air.set_xlim(0, 1.005 * times.end or 1.0)
    lanes = axes_at(container, LEFT_IN, height - above - receiver_in, RIGHT_IN, above, sharex=air)
    senders = axes_at(
        container, LEFT_IN, BOTTOM_IN, RIGHT_IN, height - BOTTOM_IN - sender_in, sharex=air
    )
    _draw_migrations(lanes, instance, solution, slot, times, receivers)
    _draw_air(air, instance, broadcast, times)
    _draw_senders(senders, instance, view)
    for axes in (lanes, air, senders):
        if view.wide_end:
            axes.axvline(view.wide_end, color=INK, linewidth=1.6, gid="end of wide phase")
        axes.axvline(times.end, color=INK, linewidth=1.0, linestyle="--", gid="end of slot")
        axes.grid(axis="x", color=FAINT, alpha=0.3, linewidth=0.6)
        axes.set_axisbelow(True)
    for axes in (lanes, air):
        axes.tick_params(axis="x", length=0, labelbottom=False)
        axes.spines["bottom"].set_visible(False)
    senders.set_xlabel("time from the start of the slot (s)", fontsize=SMALL_PT, color=INK)


def _summary(instance: Instance, evaluation: Evaluation, slot: int) -> str:
    parts = [
        f"{instance.schedule} schedule: {number(evaluation.slot_delay[slot])} s",
        f"migrations {number(evaluation.slot_migration[slot])} s",
        f"on the air {number(evaluation.slot_broadcast[slot])} s",
    ]
    broken = sum(violation.slot == slot for violation in evaluation.violations)
    if broken:
        parts.append(f"NOT feasible: {counted(broken, 'broken rule')} in this slot")
    return "; ".join(parts)


def _area_summary(
    instance: Instance, evaluation: Evaluation, slot: int, area: int, view: SlotView
) -> str:
    wait = float(evaluation.area_delay[slot, area])
    users = instance.user_area[slot]
    wide = view.wide_end or 0.0
    parts = [
        f"{counted(len(view.nodes), 'node')}, {int((users == area).sum())} of "
        f"{counted(int((users >= 0).sum()), 'user')}",
        "nobody of it requests anything"
        if np.isnan(wait)
        else f"waits {number(wait)} s, {number(wide)} s of it for the wide phase",
        f"all users on average {number(evaluation.slot_delay[slot])} s",
    ]
    return "; ".join(parts)


def _legend(instance: Instance, families: list[str], never: bool) -> list[Artist]:
    colours = family_colours(instance.library)
    shown = {*instance.library.block_family, *families}
    handles: list[Artist] = [
        *(
            Patch(facecolor=colour, label=family_label(name))
            for name, colour in colours.items()
            if name in shown
        ),
        Patch(facecolor=MIXED_COLOUR, edgecolor=INK, label="migrates from a node"),
        Patch(facecolor=pale(MIXED_COLOUR), edgecolor=INK, label="migrates from the cloud"),
        Line2D([], [], color=INK, linewidth=1.0, linestyle="--", label="end of the slot"),
    ]
    cap = instance.network.max_spectral_efficiency
    if np.isfinite(cap) and instance.delivery == "sequential":
        handles.append(
            Line2D(
                [],
                [],
                color=FAINT,
                linewidth=1.0,
                linestyle=":",
                label=f"highest rate, {number(cap)} bit/s/Hz",
            )
        )
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
) -> None:
    """One row per receiving node; a bar is as long as that node's own transfer takes."""
    axes.set_ylim(max(1, len(receivers)) - 0.5, -0.5)
    _name_rows(axes, receivers, "receives")
    if not len(receivers):
        _note(axes, "no migration in this slot")
        return
    library = instance.library
    colours = family_colours(library)
    for row, n in enumerate(receivers):
        for j in np.flatnonzero(solution.received[slot, n]):
            origin = solution.source[slot, n, j]
            link = instance.network.link_rate[origin, n]
            length = times.migration_time[j]
            if link > 0:
                length = min(length, 8.0 * library.block_size[j] / link)
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
            if link == 0:
                continue
            name = plain(library.block_names[j])
            where = "cloud" if origin == instance.nodes else f"EN {origin}"
            _label(
                axes,
                (times.migration_start[j], row - 0.37, length, 0.74),
                ((f"{name} from {where}", name, where),),
                text_colour(face),
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
    capped = np.isfinite(cap) and instance.delivery == "sequential"
    axes.set_ylim(0, 1.04 * (max(cap, highest) if capped else highest))
    if capped:
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


def _draw_senders(axes: Axes, instance: Instance, view: SlotView) -> None:
    """One row per node, filled while it sends; split between messages on the air at once."""
    broadcast, times = view.broadcast, view.times
    axes.set_ylim(len(view.nodes) - 0.5, -0.5)
    _name_rows(axes, view.nodes, "sends")
    colours = family_colours(instance.library)
    families = message_families(instance, broadcast)
    sends = broadcast.nodes[broadcast.message]
    for row, n in enumerate(view.nodes):
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
            row - 0.38 + place * height,
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
    below = np.tril(broadcast.mode[:, None] == broadcast.mode, -1)
    return np.asarray(below @ height)


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
    without_blocks = ("\n".join((users, nodes, rate)),)
    return full, without_blocks, (f"{users}\n{efficiency:.1f}", f"{efficiency:.1f}")


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
            if wide + 4 < across and high + 2 < up:
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


def _name_rows(axes: Axes, nodes: IntArray, name: str) -> None:
    """Name as many rows as are told apart."""
    step = -(-len(nodes) // 20) or 1
    axes.set_yticks(range(0, len(nodes), step), [f"EN {n}" for n in nodes[::step]])
    axes.tick_params(axis="y", length=0)
    _lane_name(axes, name)


def _lane_name(axes: Axes, name: str) -> None:
    axes.annotate(
        name,
        (0, 0.5),
        xycoords="axes fraction",
        xytext=(-72 * (LEFT_IN - 0.15), 0),
        textcoords="offset points",
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
