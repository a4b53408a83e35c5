"""The figures of a sweep in the report: one chart a metric and panel, a line a method."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from finecast.compare.report.charts import figure
from finecast.compare.report.figure import KEYS, UNITS, Point, SweepFigure
from finecast.compare.report.svg import (
    BOTTOM,
    COLOURS,
    HEIGHT,
    LEFT,
    RIGHT,
    WIDTH,
    Axis,
    drawing,
    end_label,
    px_x,
    px_y,
    spread,
    stroke,
    ticks,
)
from finecast.compare.runs.grid import shown

TICK_APART = 26.0
"""Least distance of two texts under a chart, px."""


def sweep_charts(sweeps: Sequence[SweepFigure], colour: Mapping[str, int]) -> str:
    """Return the charts of a sweep, with their numbers in tables.

    Parameters
    ----------
    sweeps
        One for each metric.
    colour
        Number of every method's colour.
    """
    html = []
    for sweep in sweeps:
        for number, panel in enumerate(dict.fromkeys(point.panel for point in sweep.points)):
            points = [point for point in sweep.points if point.panel == panel]
            unit = UNITS.get(sweep.metric, sweep.metric)
            title = f"{unit[:1].upper()}{unit[1:]}"
            if sweep.panel_key:
                title += f", {KEYS.get(sweep.panel_key, sweep.panel_key)} {shown(panel)}"
            caption = (
                f"Mean over {points[0].value.count} instances with its 95% interval, over "
                f"{KEYS.get(sweep.key, sweep.key)}; the same instances for all methods."
            )
            name = f"sweep-{sweep.metric}-{number}"
            body = _chart(name, title, caption, sweep, points, colour) + _table(name, sweep, points)
            html.append(figure(f"{title}.", caption, body))
    notes = dict.fromkeys(note for sweep in sweeps for note in sweep.notes)
    said = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    return f'<div class="figures">{"".join(html)}</div>{said}'


def _chart(
    name: str,
    title: str,
    caption: str,
    sweep: SweepFigure,
    points: Sequence[Point],
    colour: Mapping[str, int],
) -> str:
    """Return the chart of a panel: lines over numbers, points alone over categories."""
    # Numbers stand where they belong; categories at equal distances.
    values = list(dict.fromkeys(point.x for point in points))
    at = {
        shown(value): float(value) if sweep.numeric else float(i) for i, value in enumerate(values)
    }
    ends = [v for p in points for v in (p.value.low, p.value.value, p.value.high)]
    finite = [v for v in ends if math.isfinite(v)] or [0.0]
    room = 0.06 * (max(finite) - min(finite)) or 0.5 * abs(max(finite)) or 0.5
    y = Axis("", min(finite) - room, max(finite) + room, False, "ratio")
    low, high = min(at.values()), max(at.values())
    side = 0.08 * (high - low) or 0.5
    x = Axis("", low - side, high + side, False, "ratio")

    methods = list(dict.fromkeys(point.label for point in points))
    last = [[p for p in points if p.label == label][-1].value.value for label in methods]
    drawn = []
    for label, height in zip(methods, spread([px_y(y, value) for value in last]), strict=True):
        own, index = [p for p in points if p.label == label], colour[label]
        place = [(px_x(x, at[shown(p.x)]), px_y(y, p.value.value)) for p in own]
        parts = []
        if sweep.numeric and len(place) > 1:
            path = "L".join(f"{a:.1f},{b:.1f}" for a, b in place)
            parts.append(f'<path class="line" style="{stroke(index)}" d="M{path}"/>')
        for p, (a, b) in zip(own, place, strict=True):
            v = p.value
            said = f"{label}, {shown(p.x)}: {v.value:.4g} ({v.low:.4g} to {v.high:.4g})"
            parts.append(
                f'<path class="whisker" style="{stroke(index)}" '
                f'd="M{a:.1f},{px_y(y, v.low):.1f}V{px_y(y, v.high):.1f}"/>'
                f'<circle cx="{a:.1f}" cy="{b:.1f}" r="4.5" '
                f'style="fill:var(--c{index % COLOURS})"><title>{escape(said)}</title></circle>'
            )
        parts.append(end_label(label, index, height))
        drawn.append(f'<g class="series" data-m="{escape(label)}">{"".join(parts)}</g>')
    return drawing(name, title, caption, _frame(sweep, at, x, y) + "".join(drawn))


def _frame(sweep: SweepFigure, at: Mapping[str, float], x: Axis, y: Axis) -> str:
    """Return grid, ticks at the values that were swept, and the name of the key."""
    floor, end = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value, text in ticks(y):
        parts.append(
            f'<path class="grid" d="M{LEFT},{px_y(y, value):.1f}H{end}"/>'
            f'<text x="{LEFT - 6}" y="{px_y(y, value) + 4:.1f}" text-anchor="end">{text}</text>'
        )
    before = -math.inf
    for text, value in sorted(at.items(), key=lambda item: item[1]):
        here = px_x(x, value)
        parts.append(f'<path class="tick" d="M{here:.1f},{floor}v5"/>')
        if here - before >= TICK_APART:
            before = here
            parts.append(
                f'<text x="{here:.1f}" y="{floor + 18}" text-anchor="middle">{escape(text)}</text>'
            )
    parts.append(
        f'<path class="base" d="M{LEFT},{floor}H{end}"/>'
        f'<text class="axis" x="{(LEFT + end) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(KEYS.get(sweep.key, sweep.key))}</text>"
    )
    return "".join(parts)


def _table(name: str, sweep: SweepFigure, points: Sequence[Point]) -> str:
    """Return the numbers of a chart, a row a method."""
    values = list(dict.fromkeys(shown(point.x) for point in points))
    heads = "".join(f'<th scope="col">{escape(value)}</th>' for value in values)
    rows = []
    for label in dict.fromkeys(point.label for point in points):
        of = {shown(p.x): p.value for p in points if p.label == label}
        cells = "".join(
            f"<td>{of[v].value:.4g} ({of[v].low:.4g} to {of[v].high:.4g})</td>"
            if v in of
            else "<td>–</td>"
            for v in values
        )
        rows.append(
            f'<tr data-m="{escape(label)}"><th scope="row">{escape(label)}</th>{cells}</tr>'
        )
    return (
        '<details><summary>The numbers</summary><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Numbers of the chart {escape(name)}"><table>'
        f"<caption>Means and 95% intervals, by {escape(KEYS.get(sweep.key, sweep.key))}.</caption>"
        f'<thead><tr><th scope="col">Method</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )
