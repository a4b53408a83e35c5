"""Tables and curves of the benchmark of the paper's regime, from its rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finecast.compare.report.statistics import Estimate, interquartile_mean, stratified_bootstrap
from finecast.problem.arrays import FloatArray

LEVELS = (10000.0, 6000.0, 5000.0, 4600.0)
"""Mean held-out delays, s, whose first crossing is told."""

Row = dict[str, Any]


def of_variant(rows: Sequence[Row], name: str) -> dict[str, FloatArray]:
    """Return columns (seeds, marks) of a variant, in the order of the seeds."""
    mine = [row for row in rows if row["variant"] == name]
    seeds = sorted({row["seed"] for row in mine})
    by_key = {(row["seed"], row["mark"]): row for row in mine}
    marks = range(1 + max(row["mark"] for row in mine))
    columns = ("delay", "environment_steps", "cpu_s", "step", "prepare_s")
    return {
        column: np.array([[by_key[s, m][column] for m in marks] for s in seeds], float)
        for column in columns
    } | {"seed": np.array(seeds, float)}


def estimated(values: FloatArray) -> Estimate:
    """Return the interquartile mean over seeds with its 95 % bootstrap interval."""
    rng = np.random.default_rng(0)
    return stratified_bootstrap(values, np.zeros(len(values)), interquartile_mean, rng)


def first_crossing(amount: FloatArray, delay: FloatArray, level: float) -> float:
    """Return by what amount a curve first comes to a level, linear between marks; inf if never."""
    below = np.flatnonzero(delay <= level)
    if not len(below):
        return np.inf
    i = below[0]
    if i == 0:
        return float(amount[0])
    part = (np.log(delay[i - 1]) - np.log(level)) / (np.log(delay[i - 1]) - np.log(delay[i]))
    return float(amount[i - 1] + part * (amount[i] - amount[i - 1]))


def tables(rows: Sequence[Row], known: Mapping[str, float], made_with: Mapping[str, Any]) -> str:
    """Return all tables as Markdown."""
    names = list(dict.fromkeys(row["variant"] for row in rows))
    found = {name: of_variant(rows, name) for name in names}
    ends = [
        [
            name,
            str(len(part["delay"])),
            _shown(estimated(part["delay"][:, -1])),
            _shown(estimated(part["delay"].min(axis=1))),
            _paired(found, name),
            f"{part['step'][:, -1].mean():.0f}",
            f"{part['environment_steps'][:, -1].mean():.0f}",
            f"{part['prepare_s'][:, -1].mean():.1f}",
        ]
        for name, part in found.items()
    ]
    head = ["variant", "seeds", "delay at the end, s", "least of the marks, s"]
    head += ["against maasn-da, same seeds, %", "updates", "environment steps", "CPU-s before"]
    mixed = [
        [name, *(f"{np.mean(values):.0f}" for values in columns)]
        for name in names
        if all(
            columns := [
                [row[key] for row in rows if row["variant"] == name and key in row]
                for key in ("delay_own_pulls", "delay_own_keeps")
            ]
        )
    ]
    parts = [
        "\n".join(f"{key}: {value}" for key, value in made_with.items()),
        _table(["rule", "delay, s"], [[name, f"{delay:.0f}"] for name, delay in known.items()]),
        _table(head, ends),
        "At the end, means over seeds, s",
        _table(["variant", "its pulls, static keeps", "best pulls, its keeps"], mixed),
    ]
    for column, what in (("environment_steps", "Environment steps"), ("cpu_s", "CPU seconds")):
        lines = [
            [name, *(_crossings(part, column, level) for level in LEVELS)]
            for name, part in found.items()
        ]
        parts.append(f"{what} to a mean delay of")
        parts.append(_table(["variant", *(f"{level:.0f} s" for level in LEVELS)], lines))
    return "\n\n".join(parts)


def _paired(found: Mapping[str, Mapping[str, FloatArray]], name: str) -> str:
    """Return the mean difference of the last delays to maasn-da, in %, over common seeds."""
    mine, base = found[name], found["maasn-da"]
    common = sorted({*mine["seed"]} & {*base["seed"]})
    last = [{s: d[-1] for s, d in zip(p["seed"], p["delay"], strict=True)} for p in (mine, base)]
    ratio = np.array([100.0 * (last[0][s] / last[1][s] - 1.0) for s in common])
    if name == "maasn-da" or not len(ratio):
        return "–"
    return _shown(estimated(ratio), "+.1f")


def _crossings(part: Mapping[str, FloatArray], column: str, level: float) -> str:
    """Return the interquartile mean of the crossings, and in how many seeds there was one."""
    pairs = zip(part[column], part["delay"], strict=True)
    at = np.array([first_crossing(*pair, level) for pair in pairs])
    reached = at[np.isfinite(at)]
    if not len(reached):
        return "no seed"
    seeds = "" if len(reached) == len(at) else f", {len(reached)} of {len(at)} seeds"
    form = ".0f" if column == "environment_steps" else ".1f"
    return _shown(estimated(reached), form) + seeds


def figure(
    rows: Sequence[Row],
    known: Mapping[str, float],
    groups: Mapping[str, Sequence[str]],
    target: Path,
) -> None:
    """Draw delay against environment steps and CPU seconds: means, 95 % intervals over seeds."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "finecast"
    import matplotlib.pyplot as plt

    present = {row["variant"] for row in rows}
    amounts = {"environment_steps": "environment steps", "cpu_s": "CPU seconds of updates"}
    size = (5.0 * len(amounts), 4.2 * len(groups))
    picture, axes = plt.subplots(len(groups), len(amounts), figsize=size, layout="constrained")
    for line, (title, names) in zip(axes, groups.items(), strict=True):
        for axis, (column, label) in zip(line, amounts.items(), strict=True):
            for index, name in enumerate(name for name in names if name in present):
                part = of_variant(rows, name)
                x = part[column].mean(axis=0)
                ends = [estimated(of_mark) for of_mark in part["delay"].T]
                low, high = ([getattr(e, end) for e in ends] for end in ("low", "high"))
                axis.plot(x, [e.value for e in ends], color=f"C{index}", label=name, lw=1.5)
                axis.fill_between(x, low, high, color=f"C{index}", alpha=0.15, lw=0)
            for style, (rule, delay) in zip((":", "-.", "--", "-"), known.items(), strict=True):
                axis.axhline(delay, color="0.4", lw=0.9, ls=style, label=rule)
            axis.set_yscale("log")
            axis.set_ylim(0.9 * min(known.values()), 20000)
            axis.set(title=title, xlabel=label)
        line[0].set_ylabel("held-out delay, s")
        line[-1].legend(fontsize=7, frameon=False)
    picture.savefig(target, metadata={"Date": None})


def _shown(estimate: Estimate, form: str = ".0f") -> str:
    if estimate.count == 1:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *lines))
