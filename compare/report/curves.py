"""Curves of a comparison: the profiles of the methods shown, and delay and bound over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from finecast.compare.report.comparison import Comparison
from finecast.compare.report.profiles import (
    Steps,
    convergence_target,
    excess,
    first_time,
    mean_curve,
    performance_ratios,
    profile,
    shortfall,
)
from finecast.compare.runs.records import Record
from finecast.problem.arrays import FloatArray

TOLERANCES = (0.1, 0.01, 0.001)
"""tau of the convergence test, first to last as the page offers them."""
DEFAULT_TOLERANCE = 0.01
TIME_DIGITS = 4
"""Significant digits kept of times: the page computes with them, so that both agree."""
DELAY_DIGITS = 7
"""Significant digits kept of delays."""
MOST_POINTS = 40
"""Of one trace, thinned evenly."""
GRID_POINTS = 160

Trace = tuple[tuple[float, ...], tuple[float, ...]]
"""Times, s, and strictly falling delays, s; empty without an answer."""


@dataclass(frozen=True, eq=False)
class ProfileData:
    """What profiles are computed from, in Python and in the page.

    A problem is an instance and a seed; a method with fewer seeds repeats its runs.

    Parameters
    ----------
    labels
        (S,) methods.
    classes
        (C,) names.
    problem_class
        (P,) index into the classes.
    traces
        [s][p] the trace of a method on a problem; None where it has not been run.
    """

    labels: tuple[str, ...]
    classes: tuple[str, ...]
    problem_class: tuple[int, ...]
    traces: tuple[tuple[Trace | None, ...], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain lists for the page."""
        return {
            "labels": self.labels,
            "classes": self.classes,
            "problem_class": self.problem_class,
            "traces": self.traces,
        }


def profile_data(comparison: Comparison) -> ProfileData:
    """Collect the traces of the methods that solve the same system, rounded."""
    labels = comparison.same_system
    seeds = {
        instance: max(len(comparison.runs.get((s, instance), ())) for s in labels)
        for instance in comparison.instances
    }
    problems = [(instance, k) for instance in comparison.instances for k in range(seeds[instance])]
    class_of = dict(zip(comparison.instances, comparison.instance_class, strict=True))
    index = {name: i for i, name in enumerate(comparison.classes)}

    def trace(label: str, instance: str, k: int) -> Trace | None:
        runs = comparison.runs.get((label, instance), ())
        return falling(runs[k % len(runs)]) if runs else None

    return ProfileData(
        labels,
        comparison.classes,
        tuple(index[class_of[instance]] for instance, _ in problems),
        tuple(tuple(trace(s, *p) for p in problems) for s in labels),
    )


def falling(run: Record) -> Trace:
    """Return the improvements of a run: what it had found, and when.

    Points on the way are the method's word, the last is the judge's: no earlier one counts as
    better than that, and a run without a judged delay has none.
    """
    if run.delay is None:
        return (), ()
    points = sorted((t, max(d, run.delay)) for t, d, _ in run.trace if d is not None)
    points.append((run.wall_s, run.delay))
    kept: list[tuple[float, float]] = []
    for t, d in points:
        rounded = _rounded(d, DELAY_DIGITS)
        if not kept or rounded < kept[-1][1]:
            kept.append((_rounded(min(t, run.wall_s), TIME_DIGITS), rounded))
    if len(kept) > MOST_POINTS:
        kept = [kept[i] for i in np.linspace(0, len(kept) - 1, MOST_POINTS).round().astype(int)]
    return tuple(t for t, _ in kept), tuple(d for _, d in kept)


def common_problems(
    data: ProfileData, shown: Sequence[int], of_class: int | None = None
) -> list[int]:
    """Return the problems that every shown method has run.

    Parameters
    ----------
    data
        All traces.
    shown
        Indices of the methods.
    of_class
        Index of a class; None for all.
    """
    return [
        p
        for p, c in enumerate(data.problem_class)
        if of_class in (None, c) and all(data.traces[s][p] is not None for s in shown)
    ]


def delay_ratios(
    data: ProfileData, shown: Sequence[int], of_class: int | None = None
) -> FloatArray:
    """Return (P, S) ratios of final delays to the best of the shown methods."""
    problems = common_problems(data, shown, of_class)
    final = np.array([[_last(data.traces[s][p]) for s in shown] for p in problems])
    return performance_ratios(final.reshape(len(problems), len(shown)))


def times_to_target(
    data: ProfileData, shown: Sequence[int], tolerance: float, of_class: int | None = None
) -> FloatArray:
    """Return (P, S) s until the convergence test of More and Wild; infinite if never.

    The best delay is that of the shown methods, the start the worst of their first delays.
    """
    problems = common_problems(data, shown, of_class)
    times = np.full((len(problems), len(shown)), np.inf)
    for i, p in enumerate(problems):
        traces = [data.traces[s][p] or ((), ()) for s in shown]
        best = min((d[-1] for _, d in traces if d), default=np.inf)
        start = max((d[0] for _, d in traces if d), default=np.inf)
        target = float(convergence_target(best, start, tolerance))
        times[i] = [first_time(t, d, target) for t, d in traces]
    return times


def time_ratios(times: FloatArray) -> FloatArray:
    """Return (P, S) ratios of times to the fastest; the clock's last digit is 0.1 ms."""
    return performance_ratios(np.maximum(times, 1e-4))


def profiles(values: FloatArray) -> list[Steps]:
    """Return the profile of every column."""
    return [profile(values[:, s]) for s in range(values.shape[1])]


@dataclass(frozen=True, eq=False)
class Anytime:
    """Mean curves of one method.

    Parameters
    ----------
    label
        The method.
    delay
        (m,) mean of 1 - best known delay / delay(t).
    bound
        (m,) mean of 1 - bound(t) / best known delay; None for a method that gives no bound on
        the full system.
    """

    label: str
    delay: FloatArray
    bound: FloatArray | None


def anytime_curves(comparison: Comparison) -> tuple[FloatArray, list[Anytime]]:
    """Return a grid of times, s, and the mean curves of every method at them.

    The best known delay of an instance is the least of all runs that there are, so that a curve
    does not depend on which others are shown. A run holds its last values from its end on.
    """
    longest = max((r.wall_s for r in comparison.records), default=1.0)
    earliest = min((t for r in comparison.records for t, *_ in r.trace[:1] if t > 0), default=0.1)
    low = min(max(min(earliest, longest / 10), 1e-3), max(longest / 10, 1e-3))
    grid = np.geomspace(low, max(longest, 10 * low), GRID_POINTS)
    curves = []
    for label in comparison.labels:
        delays, bounds = [], []
        for r in comparison.of(label):
            best = comparison.best_delay.get(r.solved_hash, np.inf)
            times, values = falling(r)
            delays.append(Steps(np.array(times), excess(values, best)))
            if not r.restrict and r.bound_kind != "none":
                bounds.append(_bound_steps(r, best))
        known = mean_curve(bounds, grid) if bounds else None
        curves.append(Anytime(label, mean_curve(delays, grid), known))
    return grid, curves


def _bound_steps(run: Record, best: float) -> Steps:
    points = [(min(t, run.wall_s), b) for t, _, b in run.trace if b is not None]
    if run.lower_bound is not None:
        # What is proven at the end is what counts; nothing on the way was more.
        points = [(t, min(b, run.lower_bound)) for t, b in points]
        points.append((run.wall_s, run.lower_bound))
    points.sort()
    bound = np.maximum.accumulate([b for _, b in points]) if points else np.array([])
    if not np.isfinite(best):
        return Steps(np.array([]), np.array([]))
    return Steps(np.array([t for t, _ in points]), shortfall(bound, best))


def _last(trace: Trace | None) -> float:
    return trace[1][-1] if trace and trace[1] else np.inf


def _rounded(value: float, digits: int) -> float:
    return float(f"{value:.{digits}g}")
