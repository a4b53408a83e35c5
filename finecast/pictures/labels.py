"""Texts on a map: each where it hides least of what is drawn or written already."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from finecast.pictures.style import INK, text_size
from finecast.problem.arrays import FloatArray

Box = tuple[float, ...]
"""Left, bottom, right and top, pt on the page."""


def points(axes: Axes, position: FloatArray) -> FloatArray:
    """Return positions in pt on the page."""
    return np.asarray(axes.transData.transform(position) * 72 / axes.figure.dpi)


def box_around(middle: FloatArray, size: tuple[float, float]) -> Box:
    """Return the box of a size (width, height) around its middle."""
    half_width, half_height = size[0] / 2, size[1] / 2
    return (
        float(middle[0] - half_width),
        float(middle[1] - half_height),
        float(middle[0] + half_width),
        float(middle[1] + half_height),
    )


def write(
    axes: Axes,
    text: str,
    candidates: FloatArray,
    taken: list[Box],
    *,
    size: float,
    needed: bool,
    gid: str,
) -> None:
    """Write `text` centred on the candidate (pt on the page) that hides least of what is taken.

    A text that is not needed is left out when it would hide anything.
    """
    width, height = text_size(text, size)
    boxes = np.array([box_around(middle, (width + 3, height)) for middle in candidates])
    page = np.array([[axes.bbox.x0, axes.bbox.y0, axes.bbox.x1, axes.bbox.y1]])
    inside = page * 72 / axes.figure.dpi
    outside = (width + 3) * height - _overlap(boxes, inside)
    hidden = np.round(_overlap(boxes, np.array(taken)) + outside, 6)  # no rounding decides
    best = int(np.argmin(hidden))
    if hidden[best] > 0 and not needed:
        return
    taken.append(tuple(boxes[best]))
    position = axes.transData.inverted().transform(candidates[best] * axes.figure.dpi / 72)
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


def _overlap(boxes: FloatArray, taken: FloatArray) -> FloatArray:
    """Return (C,) how much of every box the taken ones cover, each counted, square pt."""
    low = np.maximum(boxes[:, None, :2], taken[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], taken[None, :, 2:])
    return np.asarray(np.maximum(high - low, 0.0).prod(axis=2).sum(axis=1))


def beside(middle: FloatArray, text: str, size: float, clear: float) -> FloatArray:
    """Return places for a text beside a marker: each side, each corner, then farther off."""
    width, height = text_size(text, size)
    places = []
    for gap in (clear, 1.8 * clear):
        x, y = width / 2 + gap, height / 2 + gap
        places += [(0, -y), (0, y), (x, 0), (-x, 0), (x, -y), (-x, -y), (x, y), (-x, y)]
    return np.asarray(middle + np.array(places))
