"""Figures for papers: a metric of a sweep against what was varied, and learning curves.

The points are means over the seeds of the instances with 95 % percentile bootstrap intervals. All
methods have the same instances, so their points are paired. A point of which any run has no answer
is left out and told.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finecast.compare.report.comparison import Comparison, compare_runs
from finecast.compare.report.known import known_bounds
from finecast.compare.report.statistics import Estimate, estimate, resamples
from finecast.compare.runs.grid import shown
from finecast.compare.runs.records import Record, field_kinds
from finecast.compare.runs.store import read_records
from finecast.problem.files import FormatError

GAP = "gap_to_best"
"""Metric: delay over the best certified bound of the full system known, less 1."""

UNITS = {
    "delay": "delay, s",
    "mean_slot_delay": "mean delay of a slot, s",
    "realised_delay": "realised delay, s",
    "planned_delay": "planned delay, s",
    "mean_completion": "mean wait of a user, s",
    "p95_completion": "95th percentile of the wait, s",
    "gap": "gap to own bound, %",
    GAP: "gap to best bound, %",
    "lower_bound": "lower bound, s",
    "in_time_ratio": "downloads within their deadline, %",
    "request_hit_ratio": "requests served from caches, %",
    "block_hit_ratio": "blocks served from caches, %",
    "byte_hit_ratio": "bytes served from caches, %",
    "migrated_bytes": "moved between nodes, GB",
    "cloud_bytes": "from the cloud, GB",
    "storage_saved_bytes": "storage saved by sharing, GB",
    "transmit_energy": "transmit energy, J",
    "wall_s": "time to solve, s",
    "cpu_s": "CPU time to solve, s",
    "peak_memory_bytes": "memory, GB",
}
"""Axis labels of the metrics that have one; the others are told by their name."""

KEYS = {
    "nodes.storage_gb": "storage of a node, GB",
    "nodes.storage_share": "storage of a node, share of the library",
    "nodes.count": "nodes",
    "nodes.antennas": "antennas of a node",
    "nodes.power_dbm": "power of a node, dBm",
    "nodes.inter_site_distance_m": "distance between nodes, m",
    "users.count": "users",
    "links.backhaul_gbps": "links between nodes, Gbit/s",
    "links.cloud_gbps": "links to the cloud, Gbit/s",
    "radio.bandwidth_mhz": "bandwidth, MHz",
    "channel.error": "channel error, share of the norm",
    "channel.correlation": "channel correlation between slots",
    "demand.zipf": "Zipf exponent of the requests",
    "demand.persistence": "probability of asking again",
    "slots": "slots",
}
"""Axis labels of keys of the scenario; the others are told by their name."""


@dataclass(frozen=True)
class Point:
    """One method at one point of a sweep.

    Attributes
    ----------
    panel, x, label
        Value of the second parameter (None without one), value of the first, method.
    value
        Mean over the instances with its 95 % interval, in the unit of `UNITS`.
    """

    panel: Any
    x: Any
    label: str
    value: Estimate


@dataclass(frozen=True, eq=False)
class SweepFigure:
    """What a figure of a sweep shows.

    Attributes
    ----------
    metric
        Name of the metric.
    key, panel_key
        Keys of the scenario across and by panels; `panel_key` is empty with one panel.
    points
        All points, panel by panel and method by method.
    notes
        What was left out and why.
    """

    metric: str
    key: str
    panel_key: str
    points: tuple[Point, ...]
    notes: tuple[str, ...]

    @property
    def numeric(self) -> bool:
        """Whether the parameter is a number: lines, not bars."""
        return all(_is_number(point.x) for point in self.points)

    def csv(self) -> str:
        """Return the points as comma-separated values."""
        lines = [[self.panel_key or "panel", self.key, "method", self.metric, "low", "high", "n"]]
        for point in self.points:
            v = point.value
            numbers = (f"{v.value:.9g}", f"{v.low:.9g}", f"{v.high:.9g}", str(v.count))
            panel = "" if point.panel is None else shown(point.panel)
            lines.append([panel, shown(point.x), point.label, *numbers])
        quoted = [[f'"{cell}"' if "," in cell else cell for cell in line] for line in lines]
        return "".join(",".join(line) + "\n" for line in quoted)


def sweep_figure(
    folder: str | Path,
    metric: str = "delay",
    *,
    x: str = "",
    panels: str = "",
    where: Mapping[str, Any] | None = None,
    methods: Sequence[str] = (),
) -> SweepFigure:
    """Return the points of a sweep's figure.

    Parameters
    ----------
    folder
        Result folder of a sweep.
    metric
        A number of the records, as in `delay`, `gap` or `p95_completion`, or `gap_to_best`.
    x, panels
        Keys across and by panels; by default the first and second that vary.
    where
        Values that other keys must have, by key.
    methods
        Labels to show, in this order; none: all.

    Raises
    ------
    FormatError
        The folder has no rows, or none of a sweep.
    ValueError
        A metric, key, value or method is unknown, or more keys vary than are shown.
    """
    records = [record for record in read_records(Path(folder)) if record.point]
    if not records:
        raise FormatError(folder, "has no rows of a sweep, make some with `finecast sweep`")
    kinds = {name for name, kind in field_kinds().items() if kind in _NUMBERS}
    if metric != GAP and metric not in kinds:
        allowed = ", ".join([*UNITS, *sorted(kinds - set(UNITS))])
        raise ValueError(f"metric: {metric!r} is unknown, known are {allowed}")
    point_of = {text: json.loads(text) for text in {str(record.point) for record in records}}

    # What varies among the rows that `where` leaves.
    for key, value in (where or {}).items():
        there = [point.get(key) for point in point_of.values()]
        if value not in there:
            options = ", ".join(dict.fromkeys(map(shown, there)))
            raise ValueError(
                f"where: {key}={shown(value)} is not in the sweep, there are {options}"
            )
        point_of = {t: p for t, p in point_of.items() if p.get(key) == value}
    records = [record for record in records if record.point in point_of]
    # A sweep that was run again with another setting beside it has points of both sorts.
    for key in dict.fromkeys(key for point in point_of.values() for key in point):
        there = list(dict.fromkeys(shown(p[key]) for p in point_of.values() if key in p))
        if key not in (where or {}) and not all(key in point for point in point_of.values()):
            raise ValueError(
                f"where: some runs are with {key}={' or '.join(there)} and others without it; "
                f"choose one of its values, or {key}=null for the others"
            )
    values: dict[str, list[Any]] = {}
    for point in point_of.values():
        for key, value in point.items():
            if value not in values.setdefault(key, []):
                values[key].append(value)
    varied = [key for key, found in values.items() if len(found) > 1] or list(values)[:1]
    for name, key in (("x", x), ("panels", panels)):
        if key and key not in values:
            raise ValueError(f"{name}: {key!r} is not varied, there are {', '.join(values)}")
    x = x or next(key for key in varied if key != panels)
    rest = [key for key in varied if key not in (x, panels)]
    if not panels and rest:
        panels = rest.pop(0)
    if rest:
        raise ValueError(f"where: {rest[0]!r} varies too, choose one of its values")

    # One point a panel, method and value: the mean over instances, methods' seeds averaged first.
    compared = compare_runs(
        records, methods=methods, known_bounds=known_bounds(Path(folder), records)
    )
    by_place: dict[tuple[str, str], list[Record]] = {}
    for record in compared.records:
        point = point_of[str(record.point)]
        by_place.setdefault((_of(point, panels), _of(point, x)), []).append(record)
    points, notes = [], []
    for (panel, value), here in sorted(by_place.items(), key=lambda item: _order(item[0])):
        for label in compared.labels:
            own = [r for r in here if r.label == label]
            if not own:
                continue
            found = _by_instance(compared, own, metric)
            if not np.isfinite(found).all():
                missing = int((~np.isfinite(found)).sum())
                notes.append(
                    f"{label} at {x}={value}: {missing} of {len(found)} instances have no "
                    f"{metric}, the point is left out"
                )
                continue
            points.append(Point(_raw(panel), _raw(value), label, mean_estimate(found)))
    order = {label: i for i, label in enumerate(compared.labels)}
    points.sort(key=lambda p: (_key(p.panel), order[p.label], _key(p.x)))
    if not points:
        raise ValueError(f"metric: no run has {metric}")
    return SweepFigure(metric, x, panels, tuple(points), tuple(notes))


_NUMBERS = (float, int, float | None, int | None)


def mean_estimate(values: Any) -> Estimate:
    """Return the mean of (n,) values with its 95 % percentile bootstrap interval."""
    found = np.asarray(values, float)
    rng = np.random.default_rng(0)
    samples = resamples(np.zeros(len(found)), rng)
    return estimate(found, samples, lambda v: np.asarray(v.mean(axis=-1)))


def _by_instance(compared: Comparison, runs: Sequence[Record], metric: str) -> Any:
    """Return (n,) a metric by instance, in the unit of the label; NaN where a run has none."""
    by_instance: dict[str, list[float]] = {}
    for run in runs:
        if metric == GAP:
            value: Any = float(compared.gaps([run])[0])
        else:
            value = getattr(run, metric)
        by_instance.setdefault(run.instance_hash, []).append(
            np.nan if value is None else float(value)
        )
    scale = scale_of(metric)
    return np.array([scale * np.mean(of) for of in by_instance.values()])


def scale_of(metric: str) -> float:
    """Return what a number of the records is multiplied with for its label."""
    label = UNITS.get(metric, metric)
    return 100.0 if label.endswith("%") else 1e-9 if label.endswith("GB") else 1.0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _of(point: Mapping[str, Any], key: str) -> str:
    """Return a value of a point as a text that can be compared and read back; "" without key."""
    return json.dumps(point.get(key)) if key else ""


def _raw(text: str) -> Any:
    return json.loads(text) if text else None


def _order(place: tuple[str, str]) -> Any:
    return tuple(_key(_raw(text)) for text in place)


def _key(value: Any) -> tuple[bool, float, str]:
    """Return what values are ordered by: numbers by size, then all others as texts."""
    return (not _is_number(value), float(value) if _is_number(value) else 0.0, json.dumps(value))
