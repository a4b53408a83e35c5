"""What all pictures share: palette, sizes, texts that fit, checks, and saving."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import TextPath

from finecast.problem.files import write_atomically
from finecast.problem.instance import Instance
from finecast.problem.library import MIXED_FAMILY, ModelLibrary
from finecast.problem.solution import Solution

Container = Figure | SubFigure
"""What a picture is drawn into."""

WIDTH_IN = 12.8
DPI = 125
"""1600 pixels across."""

SMALL_PT = 8.0
TEXT_PT = 9.0
TITLE_PT = 12.0
HEADER_IN = 0.68
"""Room for the title and the line under it."""

INK = "#222222"
FAINT = "#9a9a9a"
NOBODY = "#bbbbbb"
"""Of users without a request."""

FAMILY_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#F0E442")
"""The colour-blind-safe palette of M. Okabe and K. Ito (2008), without its black."""

FAMILY_LABEL_PT = 150.0
"""Room for the name of a family in a legend."""

MIXED_COLOUR = "#666666"

SUFFIXES = (".png", ".svg", ".pdf")


def family_colours(library: ModelLibrary) -> dict[str, str]:
    """Return the colour of every family, in the order of the models, and of mixed contents last.

    After seven families the colours come again, darker.
    """
    colours: dict[str, str] = {}
    for family in library.model_family:
        if family not in colours:
            repeat, index = divmod(len(colours), len(FAMILY_COLOURS))
            colours[family] = blend(FAMILY_COLOURS[index], "#000000", min(0.4 * repeat, 0.8))
    colours.setdefault(MIXED_FAMILY, MIXED_COLOUR)
    return colours


def family_label(family: str) -> str:
    """Return the name of a family for a legend."""
    named = {"": "no family", MIXED_FAMILY: "several families"}.get(family, family)
    return legend_label(named, FAMILY_LABEL_PT)


def blend(colour: str, other: str, share: float) -> str:
    """Return `colour` mixed with a `share` of `other`."""
    mixed = (1 - share) * np.array(to_rgb(colour)) + share * np.array(to_rgb(other))
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in mixed)


def pale(colour: str) -> str:
    """Return the tint that says: came from elsewhere."""
    return blend(colour, "#ffffff", 0.72)


def text_colour(background: str) -> str:
    """Return black or white, whichever reads better (luminance of ITU-R BT.601)."""
    red, green, blue = to_rgb(background)
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def plain(text: str) -> str:
    """Return `text` in one line, nothing in it read as mathematics, in glyphs the font has."""
    known = _glyphs()
    shown = "".join(c if ord(c) in known else "?" for c in " ".join(text.split()))
    return shown.replace("$", r"\$")


def shortened(text: str, width_pt: float, size_pt: float = TEXT_PT) -> str:
    """Return `text` cut in the middle to be no wider than `width_pt`: both ends tell names apart.

    The text is not `plain` yet; the result is.
    """
    narrowest = 0.25 * size_pt
    for keep in range(min(len(text), int(width_pt / narrowest)), 1, -1):
        head = (keep + 1) // 2
        cut = plain(
            text if keep == len(text) else f"{text[:head]}…{text[len(text) - keep + head :]}"
        )
        if text_width(cut, size_pt) <= width_pt:
            return cut
    return "…"


def legend_label(text: str, width_pt: float) -> str:
    """Return `text` cut to a width; not `plain` yet."""
    shown = shortened(text, width_pt, SMALL_PT)
    # A legend leaves out labels that start with an underscore.
    return f"\N{NO-BREAK SPACE}{shown}" if shown.startswith("_") else shown


@cache
def text_width(text: str, size_pt: float = TEXT_PT) -> float:
    """Return the width of one line of `plain` text, pt."""
    if not text.strip():
        return 0.0
    # Letters on a grid of pixels are up to 6% wider than their outlines.
    return 1.06 * float(np.ptp(TextPath((0, 0), text, size=size_pt).vertices[:, 0]))


def text_size(text: str, size_pt: float) -> tuple[float, float]:
    """Return width and height of `plain` lines of text, pt."""
    lines = text.split("\n")
    return max(text_width(line, size_pt) for line in lines), 1.25 * size_pt * len(lines)


def byte_unit(largest: float) -> tuple[float, str]:
    """Return the unit to show up to `largest` bytes in, and its name."""
    return next(
        ((unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if largest >= unit),
        (1e9, "GB") if largest == 0 else (1.0, "byte"),
    )


def number(value: float) -> str:
    """Return three digits, or all before the point."""
    return f"{value:,.0f}" if 1000 <= value < 1e9 else f"{value:.3g}"


def counted(count: int, what: str) -> str:
    """Return "1 user", "2 users"."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def slot_of(instance: Instance, slot: int) -> str:
    """Return "slot 1 (of 0 to 4)" for people; just "slot 0" when there is only one.

    Raises
    ------
    ValueError
        There is no such slot.
    """
    if not 0 <= slot < instance.slots:
        raise ValueError(f"slot: {slot} is not allowed, must be 0 to {instance.slots - 1}")
    return f"slot {slot}" + (f" (of 0 to {instance.slots - 1})" if instance.slots > 1 else "")


def check_fits(instance: Instance, solution: Solution) -> None:
    """Refuse a solution of another shape.

    Raises
    ------
    ValueError
        One line with both shapes.
    """
    expected = (instance.slots, instance.nodes, instance.blocks)
    if solution.cache.shape != expected:
        raise ValueError(
            f"the solution's caches have shape {solution.cache.shape}, the instance needs "
            f"{expected} = (slots, nodes, blocks)"
        )


class Picture(Figure):
    """A figure that notebooks show, although pyplot knows nothing of it."""

    def _repr_png_(self) -> bytes:
        return picture_bytes(self, ".png")


def new_figure(height_in: float, width_in: float = WIDTH_IN, dpi: float = DPI) -> Figure:
    """Return an empty white figure."""
    return Picture(figsize=(width_in, height_in), dpi=dpi, facecolor="white")


def size_in(container: Container) -> tuple[float, float]:
    """Return width and height of a figure or subfigure, inches."""
    return container.bbox.width / container.dpi, container.bbox.height / container.dpi


def axes_at(
    container: Container, left: float, bottom: float, right: float, top: float, **options: Any
) -> Axes:
    """Return new axes with the given margins on the four sides, inches."""
    width, height = size_in(container)
    across, up = max(width - left - right, 0.1), max(height - bottom - top, 0.1)
    axes = container.add_axes(
        (left / width, bottom / height, across / width, up / height), **options
    )
    axes.tick_params(labelsize=SMALL_PT, colors=INK, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(FAINT)
    return axes


def title(container: Container, heading: str, line: str) -> None:
    """Write a heading and a line under it, cut to the width."""
    width, height = size_in(container)
    for text, size, down, weight in (
        (heading, TITLE_PT, 0.28, "bold"),
        (line, TEXT_PT, 0.52, "normal"),
    ):
        # Bold letters are wider than those that `shortened` measures.
        room = 72 * (width - 0.3) * (0.85 if weight == "bold" else 1.0)
        container.text(
            0.15 / width,
            1 - down / height,
            shortened(text, room, size),
            fontsize=size,
            fontweight=weight,
            color=INK,
        )


def legend_above(container: Container, handles: Sequence[Any], top_in: float) -> float:
    """Put a legend in rows across the container, `top_in` below its top; return its height, inches.

    Columns are as many as the widest entry allows.
    """
    width, height = size_in(container)
    widest = max(text_width(handle.get_label(), SMALL_PT) for handle in handles) + 40
    columns = max(1, min(len(handles), int(72 * (width - 0.3) / widest)))
    rows = -(-len(handles) // columns)
    container.legend(
        handles=_row_by_row(handles, columns),
        loc="upper left",
        bbox_to_anchor=(0.08 / width, 1 - top_in / height),
        ncols=columns,
        fontsize=SMALL_PT,
        frameon=False,
        handlelength=1.8,
        columnspacing=1.4,
        borderaxespad=0.0,
    )
    return rows * 1.75 * SMALL_PT / 72 + 0.08


def _row_by_row(handles: Sequence[Any], columns: int) -> list[Any]:
    """Return the handles such that a legend, which fills column by column, reads row by row."""
    return [handle for column in range(columns) for handle in handles[column::columns]]


def save_picture(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a picture as PNG, SVG or PDF, by the suffix; whole or not at all.

    Raises
    ------
    ValueError
        The suffix is another.
    FormatError
        The file cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"{path}: suffix {suffix!r} is not allowed, must be one of {', '.join(SUFFIXES)}"
        )
    write_atomically(path, picture_bytes(figure, suffix))


def picture_bytes(figure: Figure, suffix: str, **options: Any) -> bytes:
    """Return a picture as a file holds it: the same picture, the same bytes.

    Parameters
    ----------
    figure
        The picture.
    suffix
        As in ".svg".
    **options
        Of `matplotlib.figure.Figure.savefig`.
    """
    undated: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    buffer = io.BytesIO()
    with rc_context({"svg.hashsalt": "finecast"}):  # names of parts are drawn at random without it
        figure.savefig(buffer, format=suffix[1:], metadata=undated.get(suffix, {}), **options)
    return buffer.getvalue()


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family="DejaVu Sans"))).get_charmap())
