"""Figures of sweeps and learning curves in the sizes of papers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from finecast.compare.report.figure import Point, SweepFigure
from finecast.compare.report.paper_curves import Curve
from finecast.pictures.style import FAINT, FAMILY_COLOURS, INK, plain
from finecast.problem.arrays import FloatArray

COLUMN_IN = {"one": 3.5, "two": 7.16}
"""Width of one and of two columns of a two-column page, inches (IEEE)."""

PANEL_IN = 2.35
"""Height of a panel, inches."""

TEXT_PT = 8.0

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)), (0, (8, 2)))
HATCHES = ("", "////", "....", "xxxx", "\\\\\\\\", "oo", "--")
"""Lines and bars differ by marker, dash and hatch too: they are told apart in grey print."""

STYLE = {
    "font.size": TEXT_PT,
    "axes.labelsize": TEXT_PT,
    "axes.titlesize": TEXT_PT,
    "xtick.labelsize": TEXT_PT,
    "ytick.labelsize": TEXT_PT,
    "legend.fontsize": TEXT_PT,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.6,
    "hatch.linewidth": 0.5,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
}


def sweep_picture(
    figure: SweepFigure, *, x_label: str, y_label: str, columns: str = "one", log: str = ""
) -> Figure:
    """Return a figure of a sweep: a line a method, or bars where the parameter is no number.

    Parameters
    ----------
    figure
        The points.
    x_label, y_label
        Labels with units.
    columns
        `one` or `two` columns wide.
    log
        Axes with a logarithmic scale: "", "x", "y" or "xy".
    """
    panels = list(dict.fromkeys(_hashable(point.panel) for point in figure.points))
    labels = list(dict.fromkeys(point.label for point in figure.points))
    across = min(len(panels), 2 if columns == "one" else 4)
    down = -(-len(panels) // across)
    picture = Figure(figsize=(COLUMN_IN[columns], PANEL_IN * down), layout="constrained")
    with rc_context(STYLE):
        grid = picture.subplots(down, across, squeeze=False, sharex=True, sharey=True)
        for index, panel in enumerate(panels):
            axes = grid[index // across][index % across]
            own = [point for point in figure.points if _hashable(point.panel) == panel]
            (_lines if figure.numeric else _bars)(axes, own, labels)
            if figure.panel_key:
                axes.set_title(
                    plain(f"{figure.panel_key.rpartition('.')[2]} = {_text(own[0].panel)}")
                )
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes in grid.flat[: len(panels)]:
            _finish(axes, log)
        picture.supxlabel(plain(x_label), fontsize=TEXT_PT, color=INK)
        picture.supylabel(plain(y_label), fontsize=TEXT_PT, color=INK)
        _legend(picture, grid[0][0], columns)
    return picture


def curves_picture(
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    columns: str = "one",
    log: str = "",
) -> Figure:
    """Return learning curves: mean and interval over seeds.

    Parameters
    ----------
    curves
        Means over seeds and their intervals.
    x_label, y_label
        Labels with units.
    columns, log
        As in `sweep_picture`.
    """
    picture = Figure(figsize=(COLUMN_IN[columns], PANEL_IN), layout="constrained")
    with rc_context(STYLE):
        axes = picture.subplots()
        for i, curve in enumerate(curves):
            colour = FAMILY_COLOURS[i % len(FAMILY_COLOURS)]
            axes.plot(
                curve.amount, curve.mean, color=colour, ls=_dash(i), label=_label(curve.label)
            )
            axes.fill_between(curve.amount, curve.low, curve.high, color=colour, alpha=0.15, lw=0)
        _finish(axes, log)
        axes.set_xlabel(plain(x_label))
        axes.set_ylabel(plain(y_label))
        _legend(picture, axes, columns)
    return picture


def _lines(axes: Axes, points: Sequence[Point], labels: Sequence[str]) -> None:
    """Draw a line with error bars for every method."""
    for i, label in enumerate(labels):
        own = [point for point in points if point.label == label]
        if not own:
            continue
        x = np.array([point.x for point in own], float)
        value, errors = _with_errors(own)
        axes.errorbar(
            x,
            value,
            yerr=errors,
            color=FAMILY_COLOURS[i % len(FAMILY_COLOURS)],
            ls=_dash(i),
            marker=MARKERS[i % len(MARKERS)],
            markerfacecolor="white" if i % 2 else None,
            elinewidth=0.7,
            capsize=1.8,
            label=_label(label),
        )


def _bars(axes: Axes, points: Sequence[Point], labels: Sequence[str]) -> None:
    """Draw a group of bars for every value, one bar a method."""
    values = list(dict.fromkeys(_hashable(point.x) for point in points))
    width = 0.8 / len(labels)
    for i, label in enumerate(labels):
        own = [point for point in points if point.label == label]
        place = [
            values.index(_hashable(point.x)) + (i - (len(labels) - 1) / 2) * width for point in own
        ]
        value, errors = _with_errors(own)
        axes.bar(
            place,
            value,
            width,
            yerr=errors,
            color=FAMILY_COLOURS[i % len(FAMILY_COLOURS)],
            hatch=HATCHES[i % len(HATCHES)],
            edgecolor=INK,
            linewidth=0.5,
            error_kw={"elinewidth": 0.7, "capsize": 1.8},
            label=_label(label),
        )
    named = [_text(next(p.x for p in points if _hashable(p.x) == value)) for value in values]
    axes.set_xticks(range(len(values)), [plain(name) for name in named])


def _with_errors(points: Sequence[Point]) -> tuple[FloatArray, tuple[FloatArray, FloatArray]]:
    """Return (n,) values and how far the intervals reach below and above them."""
    value = np.array([point.value.value for point in points])
    low = np.array([point.value.low for point in points])
    high = np.array([point.value.high for point in points])
    return value, (np.maximum(value - low, 0.0), np.maximum(high - value, 0.0))


def _finish(axes: Axes, log: str) -> None:
    if "x" in log:
        axes.set_xscale("log")
    if "y" in log:
        axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color=FAINT, alpha=0.35, lw=0.4)
    axes.set_axisbelow(True)


def _legend(picture: Figure, axes: Axes, columns: str) -> None:
    """Put the legend above the panels, so that it covers no point."""
    handles, labels = axes.get_legend_handles_labels()
    longest = max(len(label) for label in labels)
    fit = max(1, int(COLUMN_IN[columns] * 72 / (26 + 4.6 * longest)))
    picture.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=min(len(labels), fit),
        frameon=False,
        handlelength=2.6,
        columnspacing=1.2,
    )


def _dash(i: int) -> Any:
    return DASHES[i % len(DASHES)]


def _label(label: str) -> str:
    text = plain(label)
    return f"\N{NO-BREAK SPACE}{text}" if text.startswith("_") else text


def _hashable(value: Any) -> str:
    return repr(value)


def _text(value: Any) -> str:
    return str(value) if not isinstance(value, list) else ", ".join(map(str, value))
