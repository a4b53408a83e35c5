"""What `convergence.py` measured as tables: norms relative to the gradient, with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from finecast.learners.algorithms.stationarity import squared_norm

TERMS = {
    "price": "(b) prices of storage, over one slot",
    "critic": "(a) the critic, against returns within its pairs",
    "backup": "(a) the critic, against its own backups",
    "misfit": "(b) pairs of nodes, against all returns",
    "synthetic": "(c) share of synthetic draws times their error",
    "relaxation": "(d) relaxation, tau = 1 against 0",
    "older": "(f) rows by actors and critic of B steps before",
    "clip": "(e) costs without their limit",
}
"""Names of the parts, for the table."""


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Return the curves and the terms as Markdown, with intervals by the jackknife over draws."""
    lines = ["| step | " + " | ".join(f"seed {run['seed']}" for run in runs) + " |"]
    lines.append("|---" * (len(runs) + 1) + "|")
    for rows in zip(*(run["curve"] for run in runs), strict=True):
        cells = [f"{row['norm']:.2f}, {row['objective']:.3f}" for row in rows]
        lines.append(f"| {rows[0]['step']} | " + " | ".join(cells) + " |")
    ends = [f"{_root(_square(run, 'gradient', -1)):.2f}" for run in runs]
    lines.append("| end | " + " | ".join(ends) + " |")
    lines += ["", "| term | norm | along | seeds |", "|---|---|---|---|"]
    for name, words in TERMS.items():
        square, error = ratio(runs, lambda run, skip, name=name: _square(run, name, skip))
        here = [_root(x) for x in (square, square - 1.96 * error, square + 1.96 * error)]
        along, width = ratio(runs, lambda run, skip, name=name: _along(run, name, skip))
        each = ", ".join(f"{_root(ratio([run], _of(name))[0]):.2f}" for run in runs)
        lines.append(
            f"| {words} | {here[0]:.2f} ({here[1]:.2f} to {here[2]:.2f}) "
            f"| {along:+.2f} ({along - 1.96 * width:+.2f} to {along + 1.96 * width:+.2f}) "
            f"| {each} |"
        )
    for run in runs:
        batch = run["batch"]
        shown = {name: round(value, 4) for name, value in run["objective"].items()}
        lines.append(
            f"\nseed {run['seed']}: {shown}, share {run['share']:.3f}, limited "
            f"{run['limited']:.3f}, batch gradient {sum(batch) / len(batch):.2f}, at most "
            f"{max(batch):.2f}; rows {run['rows']}; certificate "
            f"{[round(gap, 3) for gap in run['certificate']]}; CPU-s {run['all_cpu_s']:.0f}"
        )
    return "\n".join(lines)


def _of(name: str) -> Callable[[Mapping[str, Any], int], float]:
    return lambda run, skip: _square(run, name, skip)


def _root(square: float) -> float:
    return math.sqrt(max(square, 0.0))


def ratio(
    runs: Sequence[Mapping[str, Any]], part: Callable[[Mapping[str, Any], int], float]
) -> tuple[float, float]:
    """Return the mean of a part over runs, over that of |gradient|^2, and its standard error."""

    def value(which: int, skip: int) -> float:
        skips = [skip if i == which else -1 for i in range(len(runs))]
        above = sum(part(run, s) for run, s in zip(runs, skips, strict=True))
        below = sum(_square(run, "gradient", s) for run, s in zip(runs, skips, strict=True))
        return above / below

    variance = 0.0
    for i, run in enumerate(runs):
        count = len(run["parts"]["gradient"])
        left = torch.tensor([value(i, skip) for skip in range(count)], dtype=torch.float64)
        variance += float((left - left.mean()).square().sum()) * (count - 1) / count
    return value(-1, -1), math.sqrt(variance)


def _parts(run: Mapping[str, Any], name: str, skip: int) -> Tensor:
    parts = run["synthetic"] if name == "synthetic" else run["parts"][name]
    return parts[torch.arange(len(parts)) != skip]


def _square(run: Mapping[str, Any], name: str, skip: int) -> float:
    """Return |term|^2 without bias, leaving out one group of draws."""
    parts = _parts(run, name, skip)
    if name != "synthetic":
        return float(squared_norm(parts))
    real = _parts(run, "gradient", skip)
    far = squared_norm(parts) + squared_norm(real) - 2 * parts.mean(0) @ real.mean(0)
    return float(run["share"] ** 2 * far)


def _along(run: Mapping[str, Any], name: str, skip: int) -> float:
    """Return the inner product of a term and the gradient without bias, likewise."""
    parts, gradient = _parts(run, name, skip), _parts(run, "gradient", skip)
    if name != "synthetic":
        return float(squared_norm(parts, gradient))
    return float(run["share"] * (parts.mean(0) @ gradient.mean(0) - squared_norm(gradient)))
