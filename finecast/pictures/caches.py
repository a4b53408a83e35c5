"""What every node caches, by model family, against its storage."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from finecast.pictures.style import (
    FAINT,
    HEADER_IN,
    INK,
    MIXED_COLOUR,
    SMALL_PT,
    Container,
    axes_at,
    byte_unit,
    check_fits,
    family_colours,
    family_label,
    legend_above,
    new_figure,
    number,
    pale,
    slot_of,
    text_colour,
    text_width,
    title,
)
from finecast.problem.arrays import FloatArray
from finecast.problem.instance import Instance
from finecast.problem.library import ModelLibrary
from finecast.problem.solution import Solution

HATCH = "////"
BAR = 0.62
"""Height of a bar; rows are 1 apart."""

NUMBERS_IN = 1.55
"""Room for the numbers at the right of the bars."""


def cache_picture(instance: Instance, solution: Solution, slot: int = 0) -> Figure:
    """Draw what every node caches when a slot begins, and what it receives during the slot.

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
    figure = new_figure(HEADER_IN + 1.4 + 0.5 * instance.nodes)
    draw_caches(figure, instance, solution, slot)
    return figure


def family_bytes(library: ModelLibrary, blocks: FloatArray) -> dict[str, FloatArray]:
    """Return, per family, bytes that are shared and that belong to one model.

    Parameters
    ----------
    library
        The blocks.
    blocks
        (N, J) 1 where node n has block j.

    Returns
    -------
    Family to (N, 2) array: bytes in blocks of several models, bytes in blocks of one model.
    """
    family = np.array(library.block_family)
    reusable = library.block_models > 1
    size = blocks * library.block_size
    return {
        name: np.stack(
            [
                size[:, (family == name) & reusable].sum(axis=1),
                size[:, (family == name) & ~reusable].sum(axis=1),
            ],
            axis=1,
        )
        for name in family_colours(library)
    }


def draw_caches(container: Container, instance: Instance, solution: Solution, slot: int) -> None:
    """Draw as `cache_picture` into a figure or a part of one."""
    when = slot_of(instance, slot)
    check_fits(instance, solution)
    library, storage = instance.library, instance.network.storage.astype(np.float64)
    colours = family_colours(library)
    cached = family_bytes(library, solution.cache[slot].astype(np.float64))
    received = family_bytes(library, solution.received[slot].astype(np.float64))
    used = sum(part.sum(axis=1) for part in cached.values()) + np.zeros(instance.nodes)
    extra = sum(part.sum(axis=1) for part in received.values()) + np.zeros(instance.nodes)
    # A storage far beyond the contents would squeeze them: its line then stands at the border.
    cap = 2.5 * (used + extra).max() or storage.max()
    line = np.minimum(storage, cap)
    begin = np.maximum(line, used)
    unit, unit_name = byte_unit(max((begin + extra).max(), 1.0))

    title(
        container,
        f"Caches when {when} begins",
        "cached up to the storage line; beyond it, what the node receives during the slot",
    )
    # The legend above takes room; rows of nodes fill what is left.
    handles = _legend(library, colours, off_the_scale=bool((storage > cap).any()))
    above = HEADER_IN + legend_above(container, handles, HEADER_IN) + 0.05
    axes = axes_at(container, 0.72, 0.5, NUMBERS_IN, above)
    limit = 1.02 * max((begin + extra).max(), 1.0) / unit
    axes.set(xlim=(0, limit), ylim=(instance.nodes - 0.5, -0.5), xlabel=f"size ({unit_name})")
    axes.xaxis.label.set(fontsize=SMALL_PT, color=INK)
    axes.set_yticks(range(instance.nodes), [f"EN {n}" for n in range(instance.nodes)])
    axes.tick_params(axis="y", length=0)
    point = 72 * axes.bbox.width / container.dpi / limit  # pt per unit

    # What is cached, family by family, with as much of its text as fits into the bar.
    left = np.zeros(instance.nodes)
    for name, part in cached.items():
        share = part.sum(axis=1) / np.where(used > 0, used, 1.0)
        for n, width in enumerate(part.sum(axis=1) / unit):
            text = f"{width:.2g} {unit_name}, {share[n]:.0%}"
            short = f"{share[n]:.0%}"
            shown = next((t for t in (text, short) if text_width(t, 8.0) + 8 < width * point), "")
            axes.text(
                left[n] / unit + width / 2,
                n,
                shown,
                ha="center",
                va="center",
                fontsize=SMALL_PT,
                color=text_colour(colours[name]),
                zorder=4,
                bbox={"facecolor": colours[name], "edgecolor": "none", "pad": 1.0}
                if shown
                else None,
            )
        left = _bars(axes, left, part, unit, colours[name], "white", name)
    # The storage, then what comes in beyond it.
    for n in range(instance.nodes):
        axes.plot(
            [line[n] / unit] * 2,
            [n - 0.44, n + 0.44],
            color=INK,
            linewidth=2.5,
            linestyle=":" if storage[n] > cap else "-",
            clip_on=False,
            zorder=5,
            gid=f"storage {n}",
        )
    for name, part in received.items():
        begin = _bars(
            axes, begin, part, unit, pale(colours[name]), colours[name], f"{name} received"
        )
    # The same in numbers beside each row.
    for n in range(instance.nodes):
        full = f" ({used[n] / storage[n]:.0%})" if storage[n] > 0 else ""
        numbers = f"{number(used[n] / unit)} of {number(storage[n] / unit)} {unit_name}{full}"
        if extra[n] > 0:
            numbers += f"\n+ {number(extra[n] / unit)} {unit_name} received"
        axes.annotate(
            numbers,
            (1.0, n),
            xycoords=("axes fraction", "data"),
            xytext=(8, 0),
            textcoords="offset points",
            va="center",
            fontsize=SMALL_PT,
            color=INK,
        )
    axes.grid(axis="x", color=FAINT, alpha=0.3, linewidth=0.6)
    axes.set_axisbelow(True)


def _legend(
    library: ModelLibrary, colours: dict[str, str], *, off_the_scale: bool
) -> list[Patch | Line2D]:
    """Return the handles of the legend."""
    handles: list[Patch | Line2D] = [
        *(
            Patch(facecolor=colour, label=family_label(name))
            for name, colour in colours.items()
            if name in library.block_family
        ),
        Patch(facecolor="white", edgecolor=INK, hatch=HATCH, label="in several models (shared)"),
        Patch(facecolor="white", edgecolor=INK, label="in one model"),
        Patch(facecolor=pale(MIXED_COLOUR), edgecolor=INK, label="received in the slot"),
        Line2D([], [], color=INK, linewidth=2.5, label="storage"),
    ]
    if off_the_scale:
        handles.append(
            Line2D([], [], color=INK, linewidth=2.5, linestyle=":", label="storage, off the scale")
        )
    return handles


def _bars(
    axes: Axes,
    left: FloatArray,
    part: FloatArray,
    unit: float,
    face: str,
    edge: str,
    name: str,
) -> FloatArray:
    """Draw the shared and the own bytes of a family from `left` on; return where they end."""
    for column, hatch in ((0, HATCH), (1, None)):
        rows = np.flatnonzero(part[:, column])
        for bar in axes.barh(
            rows,
            part[rows, column] / unit,
            BAR,
            left=left[rows] / unit,
            facecolor=face,
            edgecolor=edge,
            hatch=hatch,
            linewidth=0.8,
            zorder=3,
        ):
            bar.set_gid(f"{name} {'shared' if hatch else 'own'}")
        left = left + part[:, column]
    return left
