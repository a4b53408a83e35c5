"""The charts of a report: each drawn, described, and with its numbers in a table below."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

import numpy as np

from finecast.compare.report.comparison import Comparison
from finecast.compare.report.curves import (
    DEFAULT_TOLERANCE,
    ProfileData,
    anytime_curves,
    common_problems,
    delay_ratios,
    profiles,
    time_ratios,
    times_to_target,
)
from finecast.compare.report.gains import ALL_CLASSES, Gain
from finecast.compare.report.online import OnlineFigures
from finecast.compare.report.profiles import Steps
from finecast.compare.report.statistics import Estimate
from finecast.compare.report.svg import (
    Axis,
    Bar,
    Interval,
    Line,
    Point,
    bar_chart,
    interval_chart,
    scatter_chart,
    step_chart,
    ticks,
)
from finecast.compare.report.table import Table, shown
from finecast.problem.arrays import FloatArray

SMALLEST_GAP = 1e-4
"""Where logarithmic axes of gaps end: 0.01%."""
LARGEST_RATIO = 1000.0
LONGEST_ONLINE = 6.0
"""Bars of online methods are cut at so many times the shortest."""


def answer_figure(by_method: Table, colour: dict[str, int]) -> str:
    """Draw how far from optimal against how fast, of `methods_table`."""
    points = []
    for row in by_method.by_name():
        label, gap, time = row["method"], row["gap"], row["wall_s"]
        if isinstance(gap, Estimate) and isinstance(time, float) and math.isfinite(gap.value):
            points.append(
                Point(
                    str(label),
                    colour[str(label)],
                    max(time, 1e-3),
                    max(gap.value, SMALLEST_GAP),
                    max(gap.low, SMALLEST_GAP),
                    max(gap.high, SMALLEST_GAP) if math.isfinite(gap.high) else gap.value,
                )
            )
    if not points:
        return ""
    x = log_axis("time a run, s", [p.x for p in points], "seconds")
    y = log_axis("gap", [v for p in points for v in (p.low, p.high)], "percent")
    svg = scatter_chart(
        "answer",
        "Gap against time",
        "One point a method: gap to the certified bound upwards, time of a run to the right; "
        "lower left is better. The numbers are in the table of methods.",
        points,
        x,
        y,
    )
    return figure(
        "How far from optimal, how fast.",
        "Gap to the certified bound with its 95% interval, against the time of a run; lower left "
        f"is better. Gaps below {100 * SMALLEST_GAP:g}% are drawn there.",
        svg,
    )


def profile_figures(data: ProfileData, colour: dict[str, int]) -> tuple[str, int]:
    """Draw the three profiles of all methods; return them and the number of problems."""
    everything = range(len(data.labels))
    quality = delay_ratios(data, everything)
    times = times_to_target(data, everything, DEFAULT_TOLERANCE)
    # Axes hold for every subset, class and tolerance that the page may be asked for.
    reached = [t for row in data.traces for trace in row if trace for t in trace[0] if t > 0]
    time_axis = log_axis("time, s", reached or [1.0], "seconds")
    speed = time_ratios(times)
    share = Axis("share of problems", 0.0, 1.0, False, "percent")
    figures = [
        (
            "quality",
            "Performance profile of delays",
            "Share of problems on which the delay is within a factor of the best "
            "(Dolan and Moré, 2002).",
            quality,
            _ratio_axis("delay over the best", quality),
        ),
        (
            "speed",
            "Performance profile of times",
            "Share of problems on which the delay came within τ of the best in a multiple of the "
            "fastest method's time.",
            speed,
            _ratio_axis("time over the fastest", speed, least=10.0),
        ),
        (
            "data",
            "Data profile",
            "Share of problems on which the delay came within τ of the best by a time; one budget "
            "unit is one second (Moré and Wild, 2009).",
            times,
            time_axis,
        ),
    ]
    html = []
    for name, title, caption, values, x in figures:
        curves = profiles(values)
        lines = [
            Line(label, colour[label], steps.at, steps.value, 0.0)
            for label, steps in zip(data.labels, curves, strict=True)
        ]
        svg = step_chart(name, title, caption, lines, x, share)
        table = values_table(name, x, data.labels, curves, len(values))
        html.append(figure(f"{title}.", caption, svg + table))
    return "".join(html), len(common_problems(data, everything))


def anytime_figures(comparison: Comparison, colour: dict[str, int]) -> str:
    """Draw delay and bound over time, averaged over runs."""
    grid, curves = anytime_curves(comparison)
    x = Axis("time, s", float(grid[0]), float(grid[-1]), True, "seconds")
    y = Axis("", SMALLEST_GAP, 1.0, True, "percent")
    figures = []
    for name, title, caption, chosen in (
        (
            "delay",
            "Delay over time",
            "Mean over runs of 1 − best known delay / delay so far; 100% before the first answer.",
            [(c.label, c.delay) for c in curves],
        ),
        (
            "bound",
            "Bound over time",
            "Mean over runs of 1 − bound so far / best known delay, for methods that bound the "
            "full system; 100% before the first bound.",
            [(c.label, c.bound) for c in curves if c.bound is not None],
        ),
    ):
        if not chosen:
            continue
        lines = [_line(label, colour[label], grid, values) for label, values in chosen]
        svg = step_chart(name, title, caption, lines, x, y)
        steps = [Steps(grid, values) for _, values in chosen]
        table = values_table(name, x, [label for label, _ in chosen], steps, 1, before=1.0)
        figures.append(figure(f"{title}.", caption, svg + table))
    return (
        "<p>Each run counts from its own start and holds its last value when it ends. What methods "
        "say on the way is never counted as better than what the judge found at the end; gaps "
        f"below {100 * SMALLEST_GAP:g}% are drawn there.</p>"
        f'<div class="figures">{"".join(figures)}</div>'
    )


def parts_figure(by_method: Table) -> str:
    """Draw the two parts of the gap, of `methods_table`."""
    bars = []
    for row in by_method.by_name():
        beams, placement = row["beamforming_gap"], row["placement_gap"]
        if isinstance(beams, float) and isinstance(placement, float):
            if not (math.isfinite(beams) and math.isfinite(placement)):
                continue
            note = f"{shown(beams, 'percent')} + {shown(placement, 'percent')}"
            bars.append(Bar(str(row["method"]), (max(beams, 0.0), max(placement, 0.0)), note))
    if not bars:
        return "<p>No method of this report splits its gap.</p>"
    caption = (
        "Interquartile means of the two factors of a run's own gap: how much the beams, and how "
        "much the placement, can still be improved at most. They are in the table of methods."
    )
    svg = bar_chart("parts", "Parts of the gap", caption, bars, ("beamforming", "placement"))
    return figure("Parts of the gap.", caption, svg)


def online_figures_drawn(figures: Iterable[OnlineFigures]) -> str:
    """Draw for every class what the delay over the hindsight bound of each method is made of."""
    given = [f for f in figures if math.isfinite(f.over_hindsight.value)]
    drawn = []
    for number, name in enumerate(dict.fromkeys(f.instance_class for f in given)):
        bars = []
        for f in given:
            if f.instance_class == name:
                # All parts in per cent of the hindsight bound, where the bars begin.
                known = max(f.information.value, 0.0)
                keep, rest = (
                    max(part.value, 0.0) * (1.0 + known) if part else 0.0
                    for part in (f.keep, f.rest)
                )
                whole = f.over_hindsight
                bars.append(
                    Bar(
                        f.label,
                        (known, keep, rest),
                        shown(whole.value, "percent"),
                        ((f.information.low, f.information.high), (whole.low, whole.high)),
                    )
                )
        title = f"Class {name}"
        caption = (
            "Mean delay above the hindsight bound, where the bars begin: information that no "
            "online method has, what the joint keep rule would save, and the rest of what the "
            "policy loses. Brackets: 95% intervals of the information and of the whole. Bars of "
            f"more than {LONGEST_ONLINE:g} times the shortest are cut."
        )
        parts = ("information", "keep rule", "rest")
        limit = LONGEST_ONLINE * sum(bars[0].parts) if sum(bars[0].parts) > 0 else math.inf
        svg = bar_chart(f"online-{number}", title, caption, bars, parts, limit=limit)
        drawn.append(figure(f"{title}.", caption, svg))
    return f'<div class="figures">{"".join(drawn)}</div>' if drawn else ""


def gains_figure(gains: Iterable[Gain]) -> str:
    """Draw the gains over all classes and what was claimed."""
    intervals = [
        Interval(
            g.claim.name,
            g.reduction.value,
            g.reduction.low,
            g.reduction.high,
            g.claim.claimed,
            shown(g.reduction.value, "percent"),
        )
        for g in gains
        if g.reduction is not None and g.instance_class == ALL_CLASSES
    ]
    if not intervals:
        return ""
    ends = [v for i in intervals for v in (i.low, i.high, i.mark or 0.0)]
    x = Axis("reduction of the delay", min(0.0, *ends), max(0.1, *ends) * 1.03, False, "percent")
    caption = (
        "Mean reductions with 95% intervals (dots), and the reductions that the reference paper "
        "claims (diamonds)."
    )
    return figure("Gains.", caption, interval_chart("gains", "Gains", caption, intervals, x))


def log_axis(title: str, values: Sequence[float], form: str) -> Axis:
    """Return a logarithmic axis that holds the values, with a little room."""
    low, high = min(values), max(values)
    if high < 3 * low:
        low, high = low / 2, high * 2
    assert form in ("percent", "seconds")
    return Axis(title, low / 1.15, high * 1.15, True, "percent" if form == "percent" else "seconds")


def _ratio_axis(title: str, ratio: FloatArray, least: float = 1.05) -> Axis:
    finite = ratio[np.isfinite(ratio)]
    high = float(finite.max()) if len(finite) else least
    return Axis(title, 1.0, min(max(high * 1.05, least), LARGEST_RATIO), True, "ratio")


def _line(label: str, index: int, grid: FloatArray, values: FloatArray) -> Line:
    """Keep the points of a curve where it jumps."""
    jumps = np.flatnonzero(np.diff(values, prepend=np.nan) != 0)
    return Line(label, index, grid[jumps], values[jumps], float(values[0]))


def figure(title: str, caption: str, body: str) -> str:
    return (
        f"<figure><figcaption><strong>{escape(title)}</strong> {escape(caption)}</figcaption>"
        f"{body}</figure>"
    )


def values_table(
    name: str,
    x: Axis,
    labels: Sequence[str],
    curves: Sequence[Steps],
    count: int,
    *,
    before: float = 0.0,
    form: str = "percent",
) -> str:
    """Return the curves at the ticks of their chart: what is drawn, for those who read tables."""
    marks = ticks(x)
    heads = "".join(f'<th scope="col">{text}</th>' for _, text in marks)
    rows = []
    for label, curve in zip(labels, curves, strict=True):
        values = curve(np.array([v for v, _ in marks]), before)
        texts = (
            [f"{100 * v:.1f}%" for v in values]
            if form == "percent"
            else [f"{v:.4g}" for v in values]
        )
        cells = "".join(
            f'<td data-v="" data-x="{v:.10g}">{text if count else "–"}</td>'
            for (v, _), text in zip(marks, texts, strict=True)
        )
        own = f' data-m="{escape(label)}"' if not name.startswith("learning") else ""
        rows.append(f'<tr{own}><th scope="row">{escape(label)}</th>{cells}</tr>')
    return (
        f'<details><summary>The numbers</summary><div class="scroll" tabindex="0" role="region" '
        f'aria-label="Numbers of the chart {escape(name)}"><table id="values-{escape(name)}">'
        f"<caption>Values of the chart above, by {escape(x.title)}.</caption>"
        f'<thead><tr><th scope="col">Method</th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div></details>"
    )
