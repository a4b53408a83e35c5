"""Charts as inline SVG: colours from style sheets, every line labelled at its end.

Text takes the page's colour and lines the variables `--c0` to `--c7`, so that a chart follows the
page into dark mode. Each has a title and a description for screen readers; numbers are in tables
beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Literal

import numpy as np

from finecast.problem.arrays import FloatArray

COLOURS = 8
"""Then the lines are dashed, then dotted."""
DASHES = ("", "7 3", "2 3", "8 3 2 3")

WIDTH = 420
"""Of a chart, px."""
HEIGHT = 310
"""Of a chart, px."""
LEFT = 52
"""Margin of the box for the texts of the vertical axis, px."""
RIGHT = 138
"""Margin of the box for the labels of lines, px."""
TOP = 14
"""Margin above the box, px."""
BOTTOM = 44
"""Margin of the box for the texts of the horizontal axis, px."""
SCATTER_RIGHT = 20
"""Right margin where the labels are inside, px."""
LABEL_STEP = 14
"""Least distance of two labels, px."""
LABEL_LETTERS = 16
"""Longer labels are cut in the middle."""

TickFormat = Literal["percent", "seconds", "ratio"]


@dataclass(frozen=True)
class Axis:
    """One axis.

    Parameters
    ----------
    title
        With its unit.
    low, high
        Ends, low < high, both above 0 when logarithmic.
    log
        Logarithmic.
    form
        How ticks are written.
    """

    title: str
    low: float
    high: float
    log: bool
    form: TickFormat

    def share(self, value: float) -> float:
        """Return where a value lies between the ends, in [0, 1]; what is outside is at the end."""
        if self.log:
            v = (math.log(max(value, 1e-300)) - math.log(self.low)) / math.log(self.high / self.low)
        else:
            v = (value - self.low) / (self.high - self.low)
        return min(max(v, 0.0), 1.0)


@dataclass(frozen=True, eq=False)
class Line:
    """One step function.

    Parameters
    ----------
    label
        Name at its end.
    index
        Which colour and dash.
    at, value
        (n,) where it jumps, and to what.
    before
        Value left of the first jump.
    """

    label: str
    index: int
    at: FloatArray
    value: FloatArray
    before: float


@dataclass(frozen=True)
class Point:
    """One method in a scatter chart: x, and y with its interval."""

    label: str
    index: int
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Bar:
    """One horizontal bar of stacked parts; `note` is written behind it.

    `intervals` are drawn over it: low and high, as lengths from where the bar begins.
    """

    label: str
    parts: tuple[float, ...]
    note: str
    intervals: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Interval:
    """A value with its interval, and a mark where another was claimed."""

    label: str
    value: float
    low: float
    high: float
    mark: float | None
    note: str


def step_chart(
    name: str, title: str, description: str, lines: Sequence[Line], x: Axis, y: Axis
) -> str:
    """Return step functions with a label at the end of each.

    The box and the axes travel as `data-` attributes: the page redraws the lines for a subset.
    """
    ends = [px_y(y, float(line.value[-1]) if len(line.value) else line.before) for line in lines]
    drawn = []
    for line, height in zip(lines, spread(ends), strict=True):
        drawn.append(
            f'<g class="series" data-m="{escape(line.label)}">'
            f'<path class="line" style="{stroke(line.index)}" d="{_step_path(line, x, y)}"/>'
            f"{end_label(line.label, line.index, height)}</g>"
        )
    data = (
        f'data-box="{LEFT} {TOP} {WIDTH - RIGHT} {HEIGHT - BOTTOM}" '
        f'data-x="{x.low:.10g} {x.high:.10g} {int(x.log)}" '
        f'data-y="{y.low:.10g} {y.high:.10g} {int(y.log)}"'
    )
    return _svg(name, title, description, HEIGHT, _frame(x, y) + "".join(drawn), data)


def scatter_chart(
    name: str, title: str, description: str, points: Sequence[Point], x: Axis, y: Axis
) -> str:
    """Return points with vertical intervals, each with its name beside it."""
    drawn = []
    taken: list[tuple[float, float, float, float]] = []
    for p in sorted(points, key=lambda p: -p.y):
        px, py = px_x(x, p.x, SCATTER_RIGHT), px_y(y, p.y)
        label = _short(p.label)
        right = px < WIDTH - 40 - 7.4 * len(label)
        width = 7.4 * len(label)
        left = px + 8 if right else px - 8 - width
        label_y = py + 4
        for shift in (0, 13, -13, 26, -26, 39, -39, 52, -52):
            label_y = min(max(py + 4 + shift, TOP + 8), HEIGHT - BOTTOM - 2)
            box = (left, label_y - 10, left + width, label_y + 2)
            if not any(_overlap(box, earlier) for earlier in taken):
                break
        taken.append((left, label_y - 10, left + width, label_y + 2))
        taken.append((px - 5, py - 5, px + 5, py + 5))
        anchor = "" if right else ' text-anchor="end"'
        drawn.append(
            f'<g class="series" data-m="{escape(p.label)}">'
            f'<path class="whisker" style="{stroke(p.index)}" '
            f'd="M{px:.1f},{px_y(y, p.low):.1f}V{px_y(y, p.high):.1f}"/>'
            f'<circle cx="{px:.1f}" cy="{py:.1f}" r="5" style="fill:var(--c{p.index % COLOURS})"/>'
            f'<text class="end" x="{px + (8 if right else -8):.1f}" y="{label_y:.1f}"{anchor} '
            f'style="fill:var(--c{p.index % COLOURS})">{label}'
            f"<title>{escape(p.label)}</title></text></g>"
        )
    return _svg(name, title, description, HEIGHT, _frame(x, y, SCATTER_RIGHT) + "".join(drawn), "")


def bar_chart(
    name: str,
    title: str,
    description: str,
    bars: Sequence[Bar],
    parts: Sequence[str],
    *,
    limit: float = math.inf,
) -> str:
    """Return stacked horizontal bars in per cent, and which part is which.

    Bars longer than `limit` are cut there and end in a gap.
    """
    left, row, top = 142, 26, 30
    ends = [sum(bar.parts) for bar in bars]
    ends += [high for bar in bars for _, high in bar.intervals]
    longest = min(max(ends, default=0.0), limit) or 1.0
    scale = (WIDTH - left - 112) / longest
    drawn, x = [], float(left)
    for i, part in enumerate(parts):
        drawn.append(
            f'<rect x="{x:.1f}" y="6" width="12" height="12" class="part{i}"/>'
            f'<text x="{x + 17:.1f}" y="16">{escape(part)}</text>'
        )
        x += 36 + 7 * len(part)
    for i, bar in enumerate(bars):
        y, x = top + i * row, float(left)
        drawn.append(f'<g class="series" data-m="{escape(bar.label)}">')
        drawn.append(
            f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{_short(bar.label)}'
            f"<title>{escape(bar.label)}</title></text>"
        )
        for j, size in enumerate(bar.parts):
            width = min(size * scale, left + longest * scale - x)
            drawn.append(
                f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="18" class="part{j}"/>'
            )
            x += width
        if sum(bar.parts) > longest * (1 + 1e-9):
            drawn.append(f'<path class="cut" d="M{x - 14:.1f},{y + 19}l5,-20m5,0l-5,20"/>')
        for low, high in bar.intervals:
            if high > longest * (1 + 1e-9):
                continue
            left_end, right_end = (left + max(end, 0.0) * scale for end in (low, high))
            drawn.append(
                f'<path class="whisker spread" d="M{left_end:.1f},{y + 5}v8m0,-4'
                f'H{right_end:.1f}m0,-4v8"/>'
            )
            x = max(x, right_end)
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{escape(bar.note)}</text></g>')
    return _svg(name, title, description, top + row * len(bars) + 6, "".join(drawn), "")


def interval_chart(
    name: str, title: str, description: str, intervals: Sequence[Interval], x: Axis
) -> str:
    """Return one row an interval: its name above it, a dot, and a diamond for what was claimed."""
    left, right, row, top = 14, 14, 42, 8
    box = left, WIDTH - right

    def px(value: float) -> float:
        return box[0] + x.share(value) * (box[1] - box[0])

    height = top + row * len(intervals) + 40
    floor = height - 34
    drawn = []
    for value, text in ticks(x):
        tick_x = px(value)
        zero = " zero" if value == 0 else ""
        drawn.append(
            f'<path class="grid{zero}" d="M{tick_x:.1f},{top}V{floor}"/>'
            f'<text x="{tick_x:.1f}" y="{floor + 15}" text-anchor="middle">{text}</text>'
        )
    drawn.append(
        f'<text class="axis" x="{WIDTH / 2}" y="{height - 4}" text-anchor="middle">'
        f"{escape(x.title)}</text>"
    )
    for i, v in enumerate(intervals):
        y = top + i * row
        drawn.append(
            f'<text x="{left}" y="{y + 13}" class="halo">{escape(v.label)} '
            f'<tspan class="strong">{escape(v.note)}</tspan></text>'
            f'<path class="whisker" style="stroke:var(--c0)" '
            f'd="M{px(v.low):.1f},{y + 26}H{px(v.high):.1f}"/>'
            f'<circle cx="{px(v.value):.1f}" cy="{y + 26}" r="5" style="fill:var(--c0)"/>'
        )
        if v.mark is not None:
            m = px(v.mark)
            drawn.append(
                f'<path d="M{m:.1f},{y + 19}l6,7l-6,7l-6,-7z" style="fill:var(--c1)">'
                "<title>claimed</title></path>"
            )
    return _svg(name, title, description, height, "".join(drawn), "")


def spread(heights: Sequence[float]) -> list[float]:
    """Return label heights near the given ones, apart from each other and within the box."""
    order = np.argsort(heights, kind="stable")
    step = min(LABEL_STEP, (HEIGHT - TOP - BOTTOM) / max(len(heights), 1))
    placed = [0.0] * len(heights)
    last = -math.inf
    for i in order:
        placed[i] = last = max(heights[i], last + step)
    limit = float(HEIGHT - BOTTOM)
    for i in order[::-1]:
        placed[i] = min(placed[i], limit)
        limit = placed[i] - step
    return placed


def ticks(axis: Axis) -> list[tuple[float, str]]:
    """Return round values along an axis, and their texts."""
    low, high = axis.low, axis.high
    if axis.log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for mantissas in ((1,), (1, 3), (1, 2, 5)):
            values = [m * 10.0**e for e in decades for m in mantissas]
            values = [v for v in values if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]
            if len(values) >= 3:
                step = -(-len(values) // 7)
                return [(v, _tick(v, axis.form)) for v in values[::step]]
    raw = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step_size = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= raw * (1 - 1e-9))
    lowest = math.ceil(low / step_size - 1e-9)
    steps = range(lowest, lowest + 7)
    values = [k * step_size for k in steps if k * step_size <= high * (1 + 1e-9)]
    return [(v, _tick(v, axis.form)) for v in values]


def _tick(value: float, form: TickFormat) -> str:
    if form == "percent":
        return f"{100 * value:.6g}%".replace("-", "−")
    if form == "seconds":
        return f"{value:.6g}" if value >= 1e-3 else f"{value:.0e}"
    return f"{value:.6g}"


def _frame(x: Axis, y: Axis, right: int = RIGHT) -> str:
    floor, end = HEIGHT - BOTTOM, WIDTH - right
    parts = []
    for value, text in ticks(y):
        tick_y = px_y(y, value)
        parts.append(
            f'<path class="grid" d="M{LEFT},{tick_y:.1f}H{end}"/>'
            f'<text x="{LEFT - 6}" y="{tick_y + 4:.1f}" text-anchor="end">{text}</text>'
        )
    for value, text in ticks(x):
        tick_x = px_x(x, value, right)
        parts.append(
            f'<path class="tick" d="M{tick_x:.1f},{floor}v5"/>'
            f'<text x="{tick_x:.1f}" y="{floor + 18}" text-anchor="middle">{text}</text>'
        )
    parts.append(
        f'<path class="base" d="M{LEFT},{floor}H{end}"/>'
        f'<text class="axis" x="{(LEFT + end) / 2}" y="{HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x.title)}</text>"
    )
    return "".join(parts)


def px_x(axis: Axis, value: float, right: int = RIGHT) -> float:
    """Return where a value of the horizontal axis stands, px."""
    return LEFT + axis.share(value) * (WIDTH - right - LEFT)


def px_y(axis: Axis, value: float) -> float:
    """Return where a value of the vertical axis stands, px."""
    return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - BOTTOM - TOP)


def _step_path(line: Line, x: Axis, y: Axis) -> str:
    """Return the path from the low to the high end of x."""
    inside = line.at > x.low
    passed = line.value[~inside]
    start = float(passed[-1]) if len(passed) else line.before
    path = [f"M{LEFT},{px_y(y, start):.1f}"]
    for jump, value in zip(line.at[inside], line.value[inside], strict=True):
        if jump > x.high:
            break
        path.append(f"H{px_x(x, jump):.1f}V{px_y(y, value):.1f}")
    return "".join([*path, f"H{WIDTH - RIGHT}"])


def stroke(index: int) -> str:
    """Return the style of a line: colour, then dash."""
    dash = DASHES[index // COLOURS % len(DASHES)]
    return f"stroke:var(--c{index % COLOURS})" + (f";stroke-dasharray:{dash}" if dash else "")


def end_label(label: str, index: int, height: float) -> str:
    """Return the name of a line at its end."""
    return (
        f'<text class="end" x="{WIDTH - RIGHT + 6}" y="{height + 4:.1f}" '
        f'style="fill:var(--c{index % COLOURS})">{_short(label)}'
        f"<title>{escape(label)}</title></text>"
    )


def _short(label: str) -> str:
    """Cut in the middle: both ends tell names apart."""
    if len(label) > LABEL_LETTERS:
        head = LABEL_LETTERS // 2
        label = f"{label[:head]}…{label[head + 1 - LABEL_LETTERS :]}"
    return escape(label)


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def drawing(name: str, title: str, description: str, content: str) -> str:
    """Return a chart of the usual size with some content."""
    return _svg(name, title, description, HEIGHT, content, "")


def _svg(name: str, title: str, description: str, height: float, content: str, data: str) -> str:
    return (
        f'<svg class="chart" id="chart-{escape(name)}" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'role="img" aria-labelledby="chart-{escape(name)}-t chart-{escape(name)}-d" {data}>'
        f'<title id="chart-{escape(name)}-t">{escape(title)}</title>'
        f'<desc id="chart-{escape(name)}-d">{escape(description)}</desc>{content}</svg>'
    )
