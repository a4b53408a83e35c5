"""The network seen from above: cells, edge nodes, links, and users by requested model."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Polygon
from matplotlib.path import Path

from finecast.pictures.labels import Box, beside, box_around, points, write
from finecast.pictures.layout import Layout, layout_of
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
    legend_label,
    new_figure,
    number,
    size_in,
    slot_of,
    title,
)
from finecast.problem.arrays import FloatArray
from finecast.problem.instance import Instance

MARKERS = "osDvPX<>p*dh"
"""Tell the models of a family apart; the upward triangle is kept for nodes."""

NODE_PT = 15.0
"""Size of a node's marker, points."""
USER_PT = 8.0
"""Size of a user's marker, points."""
MOST_LABELLED_LINKS = 12
"""More links have no rates beside them."""
MOST_LISTED_MODELS = 22
"""With more models the legend counts families."""
MOST_DESCRIBED_NODES = 12
"""With more nodes the cloud rate alone stands beside each."""
LEGEND_IN = 2.55
"""Width of the legend, inches."""
MODEL_LABEL_PT = 98.0
"""Width of a model's name in the legend, points."""
BEND = 0.09
"""Distance of an arc's control point from the chord, over its length."""


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
    layout = layout_of(instance, slot)
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
    taken.extend(box_around(p, (1.2 * NODE_PT,) * 2) for p in points(axes, layout.node))
    along = [_arc_at(arc, t) for _, _, arc in arcs for t in np.linspace(0, 1, 30)]
    _write_nodes(axes, instance, layout, taken, np.array(along).reshape(-1, 2))
    if len(arcs) <= MOST_LABELLED_LINKS:
        _write_links(axes, instance, arcs, taken)
    _write_users(axes, layout, taken)
    _legend(container, instance, slot)


def _frame(axes: Axes, layout: Layout) -> None:
    """Set limits that hold everything at equal scales."""
    corners = np.concatenate([layout.node, layout.user, *layout.cells])
    low, high = corners.min(axis=0), corners.max(axis=0)
    across, up = axes.bbox.width, axes.bbox.height
    margin = 1.06 if layout.measured else 1.15
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


def model_looks(instance: Instance, slot: int) -> list[tuple[str, str]]:
    """Return colour (of the family) and marker (within it) of every model.

    Markers tell nothing where a slot has more models than the legend lists.
    """
    colours = family_colours(instance.library)
    if not _lists_models(instance, slot):
        return [(colours[family], "o") for family in instance.library.model_family]
    seen: dict[str, int] = {}
    looks = []
    for family in instance.library.model_family:
        seen[family] = seen.get(family, -1) + 1
        looks.append((colours[family], MARKERS[seen[family] % len(MARKERS)]))
    return looks


def _lists_models(instance: Instance, slot: int) -> bool:
    return len(np.unique(instance.requests[slot])) <= MOST_LISTED_MODELS


def _draw_users(axes: Axes, instance: Instance, layout: Layout, slot: int) -> list[Box]:
    looks = model_looks(instance, slot)
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
            zorder=9,
            gid=f"user {k}",
        )
    return [box_around(p, (USER_PT,) * 2) for p in points(axes, layout.user)]


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
                linewidth=link_width(rate, rate[source, receiver]),
                color="#6f6f6f",
                alpha=0.75 if few else 0.35,
                zorder=2,
                gid=f"link {source} to {receiver}",
            )
        )
    return arcs


def link_width(rates: FloatArray, rate: float) -> float:
    """Return the thickness of a link of one of the `rates`, pt: thinner where links are many."""
    most = 4.0 * min(1.0, np.sqrt(60 / np.count_nonzero(rates)))
    return float(max(0.4, most * rate / rates.max()))


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


def _write_nodes(
    axes: Axes,
    instance: Instance,
    layout: Layout,
    taken: list[Box],
    along_links: FloatArray,
) -> None:
    # Small boxes: a text may rather cross a link than hide a user.
    lines = (
        [box_around(p, (1.0, 1.0)) for p in points(axes, along_links)] if len(along_links) else []
    )
    unit, name = byte_unit(float(instance.network.storage.max()))
    nodes = points(axes, layout.node)
    for n, place in enumerate(nodes):
        cloud = number(instance.network.cloud_rate[n] / 1e9)
        text = (
            f"EN {n}: {number(instance.network.storage[n] / unit)} {name}\ncloud {cloud} Gbit/s"
            if instance.nodes <= MOST_DESCRIBED_NODES
            else f"{n}: {cloud}"
        )
        candidates = beside(place, text, SMALL_PT, 0.62 * NODE_PT)
        distance = np.linalg.norm(candidates[:, None] - nodes, axis=2)
        own = distance[:, n] <= distance.min(axis=1)
        candidates = candidates[own] if own.any() else candidates  # no text beside another node
        occupied = taken + lines
        write(axes, text, candidates, occupied, size=SMALL_PT, needed=True, gid=f"node {n}")
        taken.append(occupied[-1])


def _write_links(
    axes: Axes,
    instance: Instance,
    arcs: list[tuple[int, int, FloatArray]],
    taken: list[Box],
) -> None:
    """Write each rate on its arc, rather towards the receiver."""
    for source, receiver, arc in arcs:
        text = f"{number(instance.network.backhaul_rate[source, receiver] / 1e9)}"
        places = np.array([_arc_at(arc, t) for t in (0.66, 0.6, 0.72, 0.78, 0.54, 0.84, 0.46)])
        write(
            axes,
            text,
            points(axes, places),
            taken,
            size=SMALL_PT,
            needed=True,
            gid=f"rate {source} to {receiver}",
        )


def _write_users(axes: Axes, layout: Layout, taken: list[Box]) -> None:
    for k, place in enumerate(points(axes, layout.user)):
        candidates = beside(place, str(k), SMALL_PT - 1, 0.55 * USER_PT)
        write(axes, str(k), candidates, taken, size=SMALL_PT - 1, needed=False, gid=f"index {k}")


def _legend(container: Container, instance: Instance, slot: int) -> None:
    """Say at the right of the map what shapes, colours and widths mean."""
    width, height = size_in(container)
    requested, count = np.unique(instance.requests[slot], return_counts=True)
    asked = {int(m): int(c) for m, c in zip(requested, count, strict=True)}
    nobody = asked.pop(-1, 0)
    # Users by model, or by family where models are too many; then those without a request.
    handles: list[Line2D] = []
    looks = model_looks(instance, slot)
    if _lists_models(instance, slot):
        for m, users in asked.items():
            name = legend_label(instance.library.model_names[m], MODEL_LABEL_PT)
            handles.append(_dot(*looks[m], f"{name} × {users}"))
    else:
        family = [instance.library.model_family[m] for m in asked for _ in range(asked[m])]
        for name, colour in family_colours(instance.library).items():
            if name in family:
                text = f"{family_label(name)} × {family.count(name)}"
                handles.append(_dot(colour, "o", text))
    if nobody:
        handles.append(_dot(NOBODY, "o", f"no request × {nobody}"))
    # Nodes, and the fastest and the slowest link as a scale for widths.
    handles.append(
        Line2D(
            [],
            [],
            linestyle="none",
            marker="^",
            markersize=10,
            color=INK,
            label="edge node: storage, cloud rate"
            if instance.nodes <= MOST_DESCRIBED_NODES
            else "edge node: cloud rate, Gbit/s",
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
                    linewidth=link_width(rate, value),
                    label=f"link of {number(value / 1e9)} Gbit/s",
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
    return Line2D(
        [],
        [],
        linestyle="none",
        marker=marker,
        markersize=USER_PT,
        markerfacecolor=colour,
        markeredgecolor=INK,
        markeredgewidth=0.6,
        label=label,
    )
