"""The network seen from above: cells, edge nodes, links, and users by requested model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Polygon
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from finecast.pictures.style import (
    FAINT,
    HEADER_IN,
    INK,
    NOBODY,
    SMALL_PT,
    TEXT_PT,
    Container,
    axes_at,
    byte_unit,
    counted,
    family_colours,
    family_label,
    new_figure,
    shortened,
    size_in,
    slot_of,
    text_size,
    title,
)
from problem.arrays import FloatArray, IntArray
from problem.instance import Instance

MARKERS = "osDvPXph<>d*8H"
"""Tell the models of a family apart; the upward triangle is kept for nodes."""

NODE_PT, USER_PT = 15.0, 8.0
MOST_LABELLED_LINKS = 12
MOST_LISTED_MODELS = 22
LEGEND_IN = 2.55
BEND = 0.09
"""Sagitta of a link's arc over half its length; the two directions bend apart."""


@dataclass(frozen=True, eq=False)
class Layout:
    """Where everything is drawn.

    Parameters
    ----------
    node, user
        (N, 2) and (K, 2), m, or the unit of the schematic.
    cells
        (P, 2) outline of every node's cell; none in a schematic.
    measured
        The positions are the instance's own.
    """

    node: FloatArray
    user: FloatArray
    cells: tuple[FloatArray, ...]
    measured: bool


def network_picture(instance: Instance, slot: int = 0) -> Figure:
    """Draw cells, nodes, links, and users by the model they request in a slot.

    Parameters
    ----------
    instance
        The problem; without positions the picture is a schematic, each user beside the node it
        receives best.
    slot
        Whose requests are shown.

    Raises
    ------
    ValueError
        There is no such slot.
    """
    figure = new_figure(7.4)
    draw_network(figure, instance, slot)
    return figure


def draw_network(container: Container, instance: Instance, slot: int) -> None:
    """Draw as `network_picture` into a figure or a part of one."""
    when = slot_of(instance, slot)
    layout = layout_of(instance)
    name = instance.name or "instance"
    seed = "" if instance.seed is None else f", seed {instance.seed}"
    title(
        container,
        f"{name}{seed}",
        f"T = {instance.slots}, N = {counted(instance.nodes, 'node')}, "
        f"A = {counted(instance.antennas, 'antenna')}, K = {counted(instance.users, 'user')}, "
        f"M = {counted(instance.models, 'model')}, J = {counted(instance.blocks, 'block')}; "
        f"requests of {when}",
    )
    axes = axes_at(container, 0.62, 0.5, LEGEND_IN, HEADER_IN + 0.05)
    _frame(axes, layout)
    for n, cell in enumerate(layout.cells):
        axes.add_patch(
            Polygon(cell, facecolor="#f4f4f4", edgecolor=FAINT, linewidth=1.0, gid=f"cell {n}")
        )
    taken = _draw_users(axes, instance, layout, slot)
    arcs = _draw_links(axes, instance, layout)
    axes.plot(
        *layout.node.T,
        linestyle="none",
        marker="^",
        markersize=NODE_PT,
        markerfacecolor=INK,
        markeredgecolor="white",
        zorder=6,
        gid="nodes",
    )
    taken.extend(_box(p, (1.2 * NODE_PT,) * 2) for p in _points(axes, layout.node))
    along = [_arc_at(arc, t) for _, _, arc in arcs for t in np.linspace(0, 1, 30)]
    _write_nodes(axes, instance, layout, taken, np.array(along).reshape(-1, 2))
    if len(arcs) <= MOST_LABELLED_LINKS:
        _write_links(axes, instance, arcs, taken)
    _write_users(axes, layout, taken)
    _legend(container, instance, slot)


def layout_of(instance: Instance) -> Layout:
    """Return the instance's own positions with Voronoi cells, or a schematic."""
    node, user = instance.network.node_position, instance.user_position
    if node is not None and user is not None:
        distance = np.linalg.norm(user[:, None] - node, axis=2).min(axis=1)
        apart = np.linalg.norm(node[:, None] - node, axis=2)
        between = apart[apart > 0].min(initial=np.inf)
        radius = max(
            1.02 * float(distance.max()), between / math.sqrt(3) if np.isfinite(between) else 1.0
        )
        return Layout(node, user, voronoi_cells(node, radius), True)
    nodes = instance.nodes
    angle = np.pi / 2 - 2 * np.pi * np.arange(nodes) / nodes
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=1) * (nodes > 1)
    received = np.linalg.norm(instance.channel_estimate, axis=3) * np.sqrt(instance.network.power)
    strongest = received.mean(axis=0).argmax(axis=1)
    return Layout(circle, _beside(circle, angle, strongest), (), False)


def voronoi_cells(node: FloatArray, radius: float) -> tuple[FloatArray, ...]:
    """Return the part of the disc of `radius` around each node that is nearest to that node.

    Parameters
    ----------
    node
        (N, 2) m.
    radius
        m.

    Returns
    -------
    (P, 2) corners of each cell, m.
    """
    angle = 2 * np.pi * np.arange(120) / 120
    disc = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    cells = []
    for own in node:
        cell = own + disc
        for other in node:
            if (other != own).any():
                cell = _nearer(cell, own, other)
        cells.append(cell)
    return tuple(cells)


def _nearer(polygon: FloatArray, own: FloatArray, other: FloatArray) -> FloatArray:
    """Return the part of a convex polygon nearer to `own` (Sutherland and Hodgman, 1974)."""
    beyond = (polygon - (own + other) / 2) @ (other - own)
    corners = []
    for here in range(len(polygon)):
        there = (here + 1) % len(polygon)
        if beyond[here] <= 0:
            corners.append(polygon[here])
        if (beyond[here] <= 0) != (beyond[there] <= 0):
            share = beyond[here] / (beyond[here] - beyond[there])
            corners.append(polygon[here] + share * (polygon[there] - polygon[here]))
    return np.array(corners)


def _beside(node: FloatArray, outward: FloatArray, strongest: IntArray) -> FloatArray:
    """Return (K, 2): users in fans of up to seven on the outer side of their node."""
    spacing = 2 * math.sin(math.pi / len(node)) if len(node) > 1 else 1.0
    fan = np.radians(100.0)
    user = np.empty((len(strongest), 2))
    for n in range(len(node)):
        mine = np.flatnonzero(strongest == n)
        for place, k in enumerate(mine):
            ring, seat = divmod(place, 7)
            seats = min(7, len(mine) - 7 * ring)
            turn = fan * ((seat + 0.5) / seats * 2 - 1)
            arm = spacing * (0.3 + 0.13 * ring)
            direction = outward[n] + turn
            user[k] = node[n] + arm * np.array([math.cos(direction), math.sin(direction)])
    return user


def _frame(axes: Axes, layout: Layout) -> None:
    """Set limits that hold everything at equal scales."""
    corners = np.concatenate([layout.node, layout.user, *layout.cells])
    low, high = corners.min(axis=0), corners.max(axis=0)
    across, up = axes.bbox.width, axes.bbox.height
    margin = 1.06 if layout.measured else 1.3
    scale = margin * max((high[0] - low[0]) / across, (high[1] - low[1]) / up) or 1.0 / up
    middle = (low + high) / 2
    axes.set_xlim(middle[0] - scale * across / 2, middle[0] + scale * across / 2)
    axes.set_ylim(middle[1] - scale * up / 2, middle[1] + scale * up / 2)
    if layout.measured:
        axes.set_xlabel("x (m)", fontsize=SMALL_PT, color=INK)
        axes.set_ylabel("y (m)", fontsize=SMALL_PT, color=INK)
    else:
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_xlabel(
            "schematic: the instance has no positions; each user beside its strongest node",
            fontsize=SMALL_PT,
            color=INK,
        )


def model_markers(instance: Instance) -> list[tuple[str, str]]:
    """Return colour (of the family) and marker (within it) of every model."""
    colours = family_colours(instance.library)
    seen: dict[str, int] = {}
    looks = []
    for family in instance.library.model_family:
        seen[family] = seen.get(family, -1) + 1
        looks.append((colours[family], MARKERS[seen[family] % len(MARKERS)]))
    return looks


def _draw_users(
    axes: Axes, instance: Instance, layout: Layout, slot: int
) -> list[tuple[float, float, float, float]]:
    looks = model_markers(instance)
    for k, m in enumerate(instance.requests[slot]):
        colour, marker = looks[m] if m >= 0 else (NOBODY, "o")
        axes.plot(
            *layout.user[k],
            marker=marker,
            markersize=USER_PT,
            markerfacecolor=colour,
            markeredgecolor="white" if m < 0 else INK,
            markeredgewidth=0.6,
            linestyle="none",
            zorder=5,
            gid=f"user {k}",
        )
    return [_box(p, (USER_PT,) * 2) for p in _points(axes, layout.user)]


def _draw_links(
    axes: Axes, instance: Instance, layout: Layout
) -> list[tuple[int, int, FloatArray]]:
    """Draw an arrow per link and return (source, receiver, its three Bezier points)."""
    rate = instance.network.backhaul_rate
    points_per_unit = 72 * axes.bbox.width / axes.figure.dpi / np.ptp(axes.get_xlim())
    arcs = []
    links = [(int(a), int(b)) for a, b in np.argwhere(rate > 0)]
    few = len(links) <= MOST_LABELLED_LINKS
    for source, receiver in links:
        start, end = layout.node[source], layout.node[receiver]
        along = end - start
        length = float(np.linalg.norm(along))
        if length == 0:
            continue
        bend = (start + end) / 2 + BEND * np.array([along[1], -along[0]])
        trim = min(0.4, 0.8 * NODE_PT / (points_per_unit * length))
        arc = _part_of_arc(np.array([start, bend, end]), trim, 1 - trim)
        arcs.append((source, receiver, arc))
        axes.add_patch(
            FancyArrowPatch(
                path=Path(arc, [Path.MOVETO, Path.CURVE3, Path.CURVE3]),
                arrowstyle="-|>" if few else "-",
                mutation_scale=9,
                linewidth=link_width(rate[source, receiver], rate.max()),
                color="#6f6f6f",
                alpha=0.75 if few else 0.35,
                zorder=2,
                gid=f"link {source} to {receiver}",
            )
        )
    return arcs


def link_width(rate: float, largest: float) -> float:
    """Return the thickness of a link of `rate`, pt: proportional, but always visible."""
    return max(0.4, 4.0 * rate / largest)


def _arc_at(arc: FloatArray, t: float) -> FloatArray:
    return np.asarray((1 - t) ** 2 * arc[0] + 2 * t * (1 - t) * arc[1] + t**2 * arc[2])


def _part_of_arc(arc: FloatArray, start: float, end: float) -> FloatArray:
    """Return the Bezier points of the part of a quadratic arc between two parameters."""
    middle = (
        (1 - start) * (1 - end) * arc[0]
        + (start * (1 - end) + end * (1 - start)) * arc[1]
        + start * end * arc[2]
    )
    return np.array([_arc_at(arc, start), middle, _arc_at(arc, end)])


def _points(axes: Axes, position: FloatArray) -> FloatArray:
    """Return positions in pt on the page."""
    return np.asarray(axes.transData.transform(position) * 72 / axes.figure.dpi)


def _box(middle: FloatArray, size: tuple[float, float]) -> tuple[float, float, float, float]:
    half_width, half_height = size[0] / 2, size[1] / 2
    return (
        float(middle[0] - half_width),
        float(middle[1] - half_height),
        float(middle[0] + half_width),
        float(middle[1] + half_height),
    )


def _write(
    axes: Axes,
    text: str,
    candidates: FloatArray,
    taken: list[tuple[float, float, float, float]],
    *,
    size: float,
    needed: bool,
    gid: str,
) -> None:
    """Write `text` centred on the candidate (pt on the page) that hides least of what is taken.

    A text that is not needed is left out when it would hide anything.
    """
    best = None
    inside = _box(
        np.array([(axes.bbox.x0 + axes.bbox.x1) / 2, (axes.bbox.y0 + axes.bbox.y1) / 2])
        * (72 / axes.figure.dpi),
        (axes.bbox.width * 72 / axes.figure.dpi, axes.bbox.height * 72 / axes.figure.dpi),
    )
    for middle in candidates:
        box = _box(middle, text_size(text, size))
        hidden = sum(_overlap(box, other) for other in taken)
        hidden += (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, inside)
        if best is None or hidden < best[0] - 1e-9:
            best = hidden, middle, box
    if best is None or (best[0] > 0 and not needed):
        return
    taken.append(best[2])
    position = axes.transData.inverted().transform(best[1] * axes.figure.dpi / 72)
    axes.text(
        position[0],
        position[1],
        text,
        fontsize=size,
        ha="center",
        va="center",
        color=INK,
        zorder=8,
        gid=gid,
        linespacing=1.1,
        path_effects=[withStroke(linewidth=2.5, foreground="white")],
    )


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _around(middle: FloatArray, text: str, size: float, clear: float) -> FloatArray:
    """Return places for a text beside a marker: below, above, right, left, and the diagonals."""
    width, height = text_size(text, size)
    x, y = width / 2 + clear, height / 2 + clear
    steps = [(0, -y), (0, y), (x, 0), (-x, 0), (x, -y), (-x, -y), (x, y), (-x, y)]
    return np.asarray(middle + np.array(steps))


def _write_nodes(
    axes: Axes,
    instance: Instance,
    layout: Layout,
    taken: list[tuple[float, float, float, float]],
    along_links: FloatArray,
) -> None:
    lines = [_box(p, (3.0, 3.0)) for p in _points(axes, along_links)] if len(along_links) else []
    unit, name = byte_unit(float(instance.network.storage.max()))
    for n, place in enumerate(_points(axes, layout.node)):
        text = (
            f"EN {n}: {instance.network.storage[n] / unit:.3g} {name}\n"
            f"cloud {instance.network.cloud_rate[n] / 1e9:.3g} Gbit/s"
        )
        candidates = _around(place, text, SMALL_PT, 0.62 * NODE_PT)
        occupied = taken + lines
        _write(axes, text, candidates, occupied, size=SMALL_PT, needed=True, gid=f"node {n}")
        taken.append(occupied[-1])


def _write_links(
    axes: Axes,
    instance: Instance,
    arcs: list[tuple[int, int, FloatArray]],
    taken: list[tuple[float, float, float, float]],
) -> None:
    """Write each rate on its arc, rather towards the receiver."""
    for source, receiver, arc in arcs:
        text = f"{instance.network.backhaul_rate[source, receiver] / 1e9:.3g}"
        places = np.array([_arc_at(arc, t) for t in (0.66, 0.6, 0.72, 0.78, 0.54, 0.84, 0.46)])
        _write(
            axes,
            text,
            _points(axes, places),
            taken,
            size=SMALL_PT,
            needed=True,
            gid=f"rate {source} to {receiver}",
        )


def _write_users(
    axes: Axes, layout: Layout, taken: list[tuple[float, float, float, float]]
) -> None:
    for k, place in enumerate(_points(axes, layout.user)):
        candidates = _around(place, str(k), SMALL_PT - 1, 0.55 * USER_PT)
        _write(axes, str(k), candidates, taken, size=SMALL_PT - 1, needed=False, gid=f"index {k}")


def _legend(container: Container, instance: Instance, slot: int) -> None:
    """Say at the right of the map what shapes, colours and widths mean."""
    width, height = size_in(container)
    requested, count = np.unique(instance.requests[slot], return_counts=True)
    asked = {int(m): int(c) for m, c in zip(requested, count, strict=True)}
    nobody = asked.pop(-1, 0)
    handles = []
    looks = model_markers(instance)
    room = 72 * (LEGEND_IN - 0.75)
    if len(asked) <= MOST_LISTED_MODELS:
        for m, users in asked.items():
            name = shortened(instance.library.model_names[m], room - 4 * SMALL_PT, SMALL_PT)
            handles.append(_dot(*looks[m], f"{name} × {users}"))
    else:
        family = [instance.library.model_family[m] for m in asked for _ in range(asked[m])]
        for name, colour in family_colours(instance.library).items():
            if name in family:
                text = shortened(family_label(name), room - 4 * SMALL_PT, SMALL_PT)
                handles.append(_dot(colour, "o", f"{text} × {family.count(name)}"))
    if nobody:
        handles.append(_dot(NOBODY, "o", f"no request × {nobody}"))
    handles.append(
        Line2D(
            [],
            [],
            linestyle="none",
            marker="^",
            markersize=10,
            color=INK,
            label="edge node: storage, cloud rate",
        )
    )
    rate = instance.network.backhaul_rate
    if rate.max() > 0:
        for value in sorted({rate.max(), rate[rate > 0].min()}):
            handles.append(
                Line2D(
                    [],
                    [],
                    color="#6f6f6f",
                    linewidth=link_width(value, rate.max()),
                    label=f"link of {value / 1e9:.3g} Gbit/s",
                )
            )
    container.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1 - (LEGEND_IN - 0.1) / width, 1 - (HEADER_IN + 0.05) / height),
        title="requested model × users",
        title_fontsize=TEXT_PT,
        fontsize=SMALL_PT,
        frameon=False,
        borderaxespad=0.0,
        alignment="left",
        handlelength=1.8,
    )


def _dot(colour: str, marker: str, label: str) -> Line2D:
    # A label that starts with an underscore would be left out of the legend.
    return Line2D(
        [],
        [],
        linestyle="none",
        marker=marker,
        markersize=USER_PT,
        markerfacecolor=colour,
        markeredgecolor=INK,
        markeredgewidth=0.6,
        label=f"\N{NO-BREAK SPACE}{label}" if label.startswith("_") else label,
    )
