"""Learning curves of training runs for a paper: mean and 95 % interval over seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from finecast.compare.report.figure import mean_estimate
from finecast.problem.arrays import FloatArray
from finecast.problem.files import FormatError, is_number, read_json, read_text

AMOUNTS = {"step": "steps", "cpu_s": "CPU time, s", "train_s": "time, s"}
"""What a curve may run along, and its axis label."""

VALUES = {
    "held_out_gap": "held-out gap to the bound, %",
    "held_out_delay": "held-out delay, s",
    "held_out_against_rolling": "held-out delay over rolling, less 1, %",
}
"""Metrics of a training log, and their axis labels."""

GRID_POINTS = 80
"""Points of a curve; runs are evaluated at different amounts and interpolated in between."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A learner's curve over its seeds.

    Attributes
    ----------
    label
        The learner, with its folder where two of its runs differ by more than the seed.
    seeds
        How many runs.
    amount, mean, low, high
        (n,) what was spent, the mean of the metric over seeds and its 95 % interval.
    """

    label: str
    seeds: int
    amount: FloatArray
    mean: FloatArray
    low: FloatArray
    high: FloatArray


def learning_curves(
    folders: Sequence[str | Path], metric: str = "held_out_gap", amount: str = "step"
) -> list[Curve]:
    """Return the curves of training runs, one a learner and options.

    Runs that differ by the seed alone are one curve, from the latest start of its runs to their
    earliest end.

    Parameters
    ----------
    folders
        Of `finecast train`.
    metric
        A key of `VALUES`.
    amount
        A key of `AMOUNTS`.

    Raises
    ------
    FormatError
        A folder is no training run, or its log has too few evaluations.
    ValueError
        A metric or amount is unknown.
    """
    for name, given, known in (("metric", metric, VALUES), ("x", amount, AMOUNTS)):
        if given not in known:
            raise ValueError(f"{name}: {given!r} is unknown, known are {', '.join(known)}")
    groups: dict[str, list[tuple[FloatArray, FloatArray]]] = {}
    named: dict[str, tuple[str, str]] = {}
    for folder in map(Path, folders):
        header = read_json(folder / "policy.json")
        if not isinstance(header, dict) or header.get("format") != "finecast-checkpoint":
            raise FormatError(folder, "is no folder of `finecast train`")
        asked = {
            k: v for k, v in dict(header.get("run", {})).items() if k not in ("seed", "device")
        }
        key = json.dumps([header.get("learner"), asked], sort_keys=True)
        groups.setdefault(key, []).append(_evaluations(folder, metric, amount))
        named.setdefault(key, (str(header.get("learner")), folder.name))
    learners = [learner for learner, _ in named.values()]
    curves = []
    for key, runs in groups.items():
        learner, folder_name = named[key]
        label = learner if learners.count(learner) == 1 else f"{learner} ({folder_name})"
        low, high = max(x[0] for x, _ in runs), min(x[-1] for x, _ in runs)
        if not low < high:
            raise FormatError(folder_name, f"its runs have no common range of {AMOUNTS[amount]}")
        grid = np.linspace(low, high, GRID_POINTS)
        found = np.array([np.interp(grid, x, y) for x, y in runs])
        over_seeds = [mean_estimate(column) for column in found.T]
        ends = (np.array([getattr(e, end) for e in over_seeds]) for end in ("value", "low", "high"))
        curves.append(Curve(label, len(runs), grid, *ends))
    return curves


def _evaluations(folder: Path, metric: str, amount: str) -> tuple[FloatArray, FloatArray]:
    """Return (n,) amounts, ascending, and (n,) values of a run's log."""
    percent = VALUES[metric].endswith("%")
    rows: list[tuple[float, float]] = []
    file = folder / "log.jsonl"
    for number, line in enumerate(read_text(file).splitlines(), 1):
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError):
            raise FormatError(file, f"line {number} is not valid JSON") from None
        if isinstance(row, dict) and is_number(row.get(metric)) and is_number(row.get(amount)):
            rows.append((float(row[amount]), (100.0 if percent else 1.0) * float(row[metric])))
    if len(rows) < 2:
        raise FormatError(file, f"has {len(rows)} rows with {metric} and {amount}, expected >= 2")
    x, y = (np.array(column) for column in zip(*sorted(rows), strict=True))
    return x, y


def curves_csv(curves: Sequence[Curve], metric: str, amount: str) -> str:
    """Return the points of curves as comma-separated values."""
    lines = [f"learner,seeds,{amount},{metric},low,high\n"]
    for curve in curves:
        label = f'"{curve.label}"' if "," in curve.label else curve.label
        columns = zip(curve.amount, curve.mean, curve.low, curve.high, strict=True)
        lines += [
            ",".join([label, str(curve.seeds), *(f"{value:.9g}" for value in row)]) + "\n"
            for row in columns
        ]
    return "".join(lines)
