"""A city of areas from above: how many users each has, how long it waits, and for what."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon
from matplotlib.patheffects import withStroke

from finecast.pictures.gantt import draw_gantt, gantt_height_in
from finecast.pictures.layout import Layout, layout_of
from finecast.pictures.slot_view import drawable, slowest_area
from finecast.pictures.style import (
    FAINT,
    HEADER_IN,
    INK,
    SMALL_PT,
    TEXT_PT,
    Container,
    axes_at,
    check_fits,
    counted,
    legend_above,
    new_figure,
    number,
    slot_of,
    text_colour,
    title,
)
from finecast.pictures.timeline import timeline
from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.evaluation import Evaluation, evaluate
from finecast.problem.instance import Instance
from finecast.problem.phases import phases_of
from finecast.problem.solution import Solution

PAGE_IN = 16.0
"""Width of a page, inches."""
PAGE_DPI = 100
MAP_IN = 7.6
"""Height of a map, inches."""
BARS_IN = 3.4
"""Height of the bars of all areas, inches."""
MOST_NUMBERED = 100
"""With more areas the map has no numbers."""
MOST_USER_DOTS = 2000

WAIT_COLOURS = LinearSegmentedColormap.from_list("wait", ["#f7fbff", "#6baed6", "#08306b"])
LOAD_COLOURS = LinearSegmentedColormap.from_list("load", ["#fff7ec", "#fdae6b", "#a63603"])
WIDE, MOVES, SENDS = "#9a9a9a", "#9ecae1", "#0072B2"
"""Of the wide phase, and of the migrations and messages of an area."""


def city_picture(instance: Instance, solution: Solution | None = None, slot: int = 0) -> Figure:
    """Draw the areas of a city: load and wait by colour, what each waits for, one as Gantt chart.

    Parameters
    ----------
    instance
        The problem, of several areas.
    solution
        Decisions of the same shape; without them there is only the load to see.
    slot
        Which slot.

    Raises
    ------
    ValueError
        There is no such slot, or the shapes differ.
    """
    slot_of(instance, slot)
    if solution is None:
        figure = new_figure(MAP_IN + 0.4, MAP_IN + 1.2)
        _draw_load(figure, instance, layout_of(instance, slot), slot)
        return figure
    check_fits(instance, solution)
    evaluation = evaluate(instance, solution)
    area = slowest_area(instance, evaluation, slot)
    chart = gantt_height_in(instance, solution, slot, area) + 0.3
    figure = new_figure(MAP_IN + BARS_IN + chart, PAGE_IN, PAGE_DPI)
    grid = figure.add_gridspec(
        3, 2, height_ratios=[MAP_IN, BARS_IN, chart],
        hspace=0, wspace=0, left=0, right=1, bottom=0, top=1,
    )  # fmt: skip
    layout = layout_of(instance, slot)
    _draw_load(figure.add_subfigure(grid[0, 0]), instance, layout, slot)
    _draw_wait(figure.add_subfigure(grid[0, 1]), instance, layout, evaluation, slot)
    _draw_bars(figure.add_subfigure(grid[1, :]), instance, solution, evaluation, slot)
    draw_gantt(figure.add_subfigure(grid[2, :]), instance, solution, slot, area)
    return figure


def _draw_load(container: Container, instance: Instance, layout: Layout, slot: int) -> None:
    """A map: the requesting users of each area for each of its nodes."""
    user_area = instance.user_area[slot]
    users = np.bincount(user_area[user_area >= 0], minlength=instance.area_count)
    load = users / np.bincount(instance.areas)
    name = instance.name or "instance"
    seed = "" if instance.seed is None else f", seed {instance.seed}"
    title(
        container,
        f"{name}{seed}: load of the areas",
        f"{counted(instance.area_count, 'area')}, N = {counted(instance.nodes, 'node')}, "
        f"K = {counted(instance.users, 'user')}, J = {counted(instance.blocks, 'block')}; "
        f"requesting users of {slot_of(instance, slot)}",
    )
    _draw_map(container, instance, layout, load, "requesting users per node", LOAD_COLOURS)


def _draw_wait(
    container: Container, instance: Instance, layout: Layout, evaluation: Evaluation, slot: int
) -> None:
    """A map: how long each area waits."""
    disturbed = evaluation.interference_over_noise_db
    title(
        container,
        f"Wait of the areas in {slot_of(instance, slot)}",
        f"mean over users {number(evaluation.slot_delay[slot])} s; interference over noise "
        f"{number(disturbed) if np.isfinite(disturbed) else '-'} dB; "
        f"{100 * evaluation.wide_share:.0f} % of the bytes sent go wide",
    )
    _draw_map(container, instance, layout, evaluation.area_delay[slot], "wait (s)", WAIT_COLOURS)


def _draw_map(
    container: Container,
    instance: Instance,
    layout: Layout,
    value: FloatArray,
    what: str,
    colours: LinearSegmentedColormap,
) -> None:
    """Cells in the colour of their area's value, white for NaN; thick lines between areas."""
    axes = axes_at(container, 0.85, 0.5, 0.8, HEADER_IN + 0.1)
    known = value[~np.isnan(value)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    scale = Normalize(low, high if high > low else low + 1.0)
    cells = layout.cells or tuple(_square(p) for p in layout.node)
    faces = [
        "#ffffff" if np.isnan(value[a]) else to_hex(colours(scale(value[a])))
        for a in instance.areas
    ]
    for n, cell in enumerate(cells):
        axes.add_patch(
            Polygon(cell, facecolor=faces[n], edgecolor="white", linewidth=0.5, gid=f"cell {n}")
        )
    axes.add_collection(
        LineCollection(borders(cells, instance.areas), colors=INK, linewidths=1.8, zorder=3)
    )
    if instance.users <= MOST_USER_DOTS:
        axes.plot(*layout.user.T, ".", color=INK, markersize=2.2, alpha=0.5, zorder=4, gid="users")
    axes.plot(
        *layout.node.T, linestyle="none", marker="^", markersize=6.0, markerfacecolor=INK,
        markeredgecolor="white", markeredgewidth=0.5, zorder=5, gid="nodes",
    )  # fmt: skip
    if instance.area_count <= MOST_NUMBERED:
        _number_areas(axes, instance, layout, faces)
    corners = np.concatenate(cells)
    margin = 0.02 * np.ptp(corners, axis=0).max()
    axes.set_xlim(corners[:, 0].min() - margin, corners[:, 0].max() + margin)
    axes.set_ylim(corners[:, 1].min() - margin, corners[:, 1].max() + margin)
    axes.set_aspect("equal")
    if layout.measured:
        axes.set_xlabel("x (m)", fontsize=SMALL_PT, color=INK)
        axes.set_ylabel("y (m)", fontsize=SMALL_PT, color=INK)
    else:
        axes.set(xticks=[], yticks=[])
    bar = container.colorbar(
        ScalarMappable(scale, colours), ax=axes, fraction=0.03, pad=0.02, aspect=40
    )
    bar.set_label(what, fontsize=SMALL_PT, color=INK)
    bar.ax.tick_params(labelsize=SMALL_PT, colors=INK, length=3)
    bar.outline.set_edgecolor(FAINT)


def _number_areas(axes: Axes, instance: Instance, layout: Layout, faces: list[str]) -> None:
    """Write each area's number above its node that is nearest to its middle."""
    for a in range(instance.area_count):
        own = np.flatnonzero(instance.areas == a)
        centre = layout.node[own].mean(axis=0)
        nearest = own[np.linalg.norm(layout.node[own] - centre, axis=1).argmin()]
        axes.annotate(
            str(a),
            layout.node[nearest],
            xytext=(0, 9),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=TEXT_PT,
            fontweight="bold",
            color=text_colour(faces[nearest]),
            path_effects=[withStroke(linewidth=2.5, foreground=faces[nearest])],
            zorder=6,
            gid=f"area {a}",
        )


def _square(middle: FloatArray) -> FloatArray:
    return np.asarray(middle + 0.1 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]))


def borders(cells: tuple[FloatArray, ...], areas: IntArray) -> list[FloatArray]:
    """Return the sides of cells that no cell of the same area has too.

    Parameters
    ----------
    cells
        (P, 2) corners of each node's cell.
    areas
        (N,) area of each node.

    Returns
    -------
    (2, 2) ends of each side.
    """
    sides: dict[tuple[int, frozenset[tuple[float, float]]], list[FloatArray]] = {}
    for n, cell in enumerate(cells):
        corners = np.round(cell, 3)
        for here, there in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            ends = frozenset({(float(here[0]), float(here[1])), (float(there[0]), float(there[1]))})
            if len(ends) == 2:
                sides.setdefault((int(areas[n]), ends), []).append(np.array([here, there]))
    return [found[0] for found in sides.values() if len(found) == 1]


def _draw_bars(
    container: Container,
    instance: Instance,
    solution: Solution,
    evaluation: Evaluation,
    slot: int,
) -> None:
    """A bar for each area, the slowest first: the wide phase, own migrations, own messages."""
    title(
        container,
        "What the areas wait for",
        "the slowest first; a bar is as wide as the share of the users that wait for it, so that "
        "the mean height is the delay of the slot",
    )
    handles = [
        Patch(facecolor=WIDE, label="wide phase, for all"),
        Patch(facecolor=MOVES, label="migrations of the area"),
        Patch(facecolor=SENDS, label="messages of the area"),
    ]
    above = HEADER_IN + legend_above(container, handles, HEADER_IN)
    axes = axes_at(container, 1.2, 0.5, 0.25, above)
    wide, *local = phases_of(instance, solution, slot)
    wide_end = timeline(wide.broadcast, drawable(wide), instance.schedule).end
    on_air = np.zeros(instance.area_count)
    for phase in local:
        on_air[phase.area] = phase.broadcast.duration.sum()
    weight, wait = instance.area_weight[slot], evaluation.area_delay[slot]
    order = np.argsort(-np.nan_to_num(wait, nan=-1.0), kind="stable")
    order = order[(weight[order] > 0) & np.isfinite(wait[order])]
    left = np.cumsum(weight[order]) - weight[order]
    # Migrations that run beside messages, in a pipelined schedule, are not seen.
    own = np.maximum(wait[order] - wide_end, 0.0)
    sends = np.minimum(on_air[order], own)
    bottom = np.zeros(len(order))
    for height, colour, name in (
        (wait[order] - own, WIDE, "wide"),
        (own - sends, MOVES, "moves"),
        (sends, SENDS, "sends"),
    ):
        bars = axes.bar(
            left, height, weight[order], bottom, align="edge", color=colour,
            edgecolor="white", linewidth=0.6, zorder=3,
        )  # fmt: skip
        for a, bar in zip(order, bars, strict=True):
            bar.set_gid(f"{name} {a}")
        bottom = bottom + height
    mean = float(evaluation.slot_delay[slot])
    axes.axhline(mean, color=INK, linewidth=1.0, linestyle="--", zorder=4, gid="mean")
    if len(order) <= MOST_NUMBERED:
        axes.set_xticks(left + weight[order] / 2, [str(a) for a in order])
    axes.set_xlim(0, 1)
    axes.set_xlabel("area", fontsize=SMALL_PT, color=INK)
    axes.set_ylabel("wait (s)", fontsize=SMALL_PT, color=INK)
    axes.grid(axis="y", color=FAINT, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)
