"""Tables and curves of the learners' benchmark, from the rows that were measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from draws import CLASSES
from play import BASELINES, CURVE_DRAWS, SHIPPED, described
from runs import GROUPS, RUNS

from finecast.compare.report.statistics import Estimate, interquartile_mean, stratified_bootstrap
from finecast.problem.arrays import FloatArray

REACHED = 0.5
"""Percentage points below `rolling` that make the level of the steps-to-reach column."""

Row = dict[str, Any]
Key = tuple[str, str, int | None, int | None]
"""Class, method, training seed, mark."""


def measured(folder: Path) -> dict[Key, FloatArray]:
    """Return gaps in percent by class, method, seed and mark, in the order of the draws."""
    found: dict[Key, dict[int, float]] = {}
    for line in (folder / "results.jsonl").read_text().splitlines():
        row = json.loads(line)
        key = (row["class"], row["method"], row["seed"], row["mark"])
        found.setdefault(key, {})[row["draw"]] = 100.0 * row["gap"]
    return {key: np.array([by[d] for d in sorted(by)]) for key, by in found.items()}


def tables(folder: Path, made_with: Mapping[str, Any]) -> str:
    """Return all tables as Markdown."""
    gaps = measured(folder)
    classes = [c for c in CLASSES if any(key[0] == c for key in gaps)]
    methods = [m for m in (*BASELINES, *RUNS, *SHIPPED) if any(key[1] == m for key in gaps)]
    counts = {c: max(len(v) for key, v in gaps.items() if key[0] == c) for c in classes}
    parts = [
        "\n".join(f"{key}: {value}" for key, value in made_with.items()),
        "Above the certified bound, %, interquartile mean (95 % interval)",
        _table(
            ["method", "seeds", *(f"{c}, {counts[c]} draws" for c in classes)],
            ([m, _seeds(gaps, m), *(_gap(gaps, c, m) for c in classes)] for m in methods),
        ),
        "Against `rolling`, percentage points, mean over draws (95 % interval)",
        _table(
            ["method", *classes],
            ([m, *(_difference(gaps, c, m) for c in classes)] for m in methods if m != "rolling"),
        ),
        "Runs",
        _runs_table(described(folder)),
        _reach_tables(folder, gaps),
    ]
    times = folder / "times.jsonl"
    if times.exists():
        rows = [json.loads(line) for line in times.read_text().splitlines()]
        shown = [[r["class"], r["method"], f"{r['ms']:.2f}"] for r in rows]
        parts += ["Decision time", _table(["class", "method", "ms a slot"], shown)]
    return "\n\n".join(parts)


def by_seed(gaps: Mapping[Key, FloatArray], kind: str, method: str) -> list[FloatArray]:
    """Return the gaps of a method's final policies, one array for each training seed."""
    return [v for (c, m, _, mark), v in gaps.items() if (c, m, mark) == (kind, method, None)]


def _seeds(gaps: Mapping[Key, FloatArray], method: str) -> str:
    seeds = {key[2] for key in gaps if key[1] == method and key[3] is None}
    return "" if seeds == {None} else str(len(seeds))


def estimated(
    found: Sequence[FloatArray], statistic: Callable[[FloatArray], FloatArray]
) -> Estimate:
    """Return a statistic over draws and seeds; draws are resampled within every seed."""
    stratum = np.repeat(np.arange(len(found)), [len(v) for v in found])
    rng = np.random.default_rng(0)
    return stratified_bootstrap(np.concatenate(found), stratum, statistic, rng)


def _gap(gaps: Mapping[Key, FloatArray], kind: str, method: str) -> str:
    found = by_seed(gaps, kind, method)
    return _shown(estimated(found, interquartile_mean)) if found else ""


def _difference(gaps: Mapping[Key, FloatArray], kind: str, method: str) -> str:
    """Return method - rolling, paired by draw; seeds are averaged first."""
    found, reference = by_seed(gaps, kind, method), by_seed(gaps, kind, "rolling")
    if not found or not reference:
        return ""
    most = min(len(v) for v in (*found, *reference))
    difference = np.mean([v[:most] for v in found], axis=0) - reference[0][:most]
    return _shown(estimated([difference], lambda v: np.asarray(v.mean(axis=-1))), signed=True)


def _shown(one: Estimate, signed: bool = False) -> str:
    sign = "+" if signed else ""
    return f"{one.value:{sign}.2f} ({one.low:{sign}.2f} to {one.high:{sign}.2f})"


def _runs_table(runs: Sequence[Row]) -> str:
    rows = []
    for name in RUNS:
        some = [run for run in runs if run["run"] == name]
        if some:
            rows.append(
                [
                    name,
                    RUNS[name].summary,
                    ", ".join(RUNS[name].scenarios),
                    f"{some[0]['budget_s']:.0f}",
                    ", ".join(str(run["steps"]) for run in some),
                    ", ".join(str(run["best_step"]) for run in some),
                    f"{np.mean([run['prepare_s'] for run in some]):.0f}",
                ]
            )
    head = ["run", "what", "trained on", "CPU-s", "steps made", "steps of the policy kept"]
    return _table([*head, "CPU-s for the first draws"], rows)


def curves(
    folder: Path, gaps: Mapping[Key, FloatArray], kind: str
) -> dict[str, tuple[FloatArray, FloatArray, FloatArray]]:
    """Return by run the CPU seconds and steps of the marks (R, M), and the mean gaps (R, M), %."""
    found = {}
    for name in RUNS:
        runs = [run for run in described(folder) if run["run"] == name]
        rows = [
            (
                [mark["cpu_s"] for mark in run["marks"]],
                [mark["step"] for mark in run["marks"]],
                [
                    gaps[kind, name, run["seed"], mark][:CURVE_DRAWS].mean()
                    for mark in range(len(run["marks"]))
                ],
            )
            for run in runs
            if (kind, name, run["seed"], len(run["marks"]) - 1) in gaps
        ]
        if rows:
            cpu, steps, gap = (np.array(part) for part in zip(*rows, strict=True))
            found[name] = (cpu, steps, gap)
    return found


def _reach_tables(folder: Path, gaps: Mapping[Key, FloatArray]) -> str:
    """Return, for every class with curves, where each run starts and ends, and when it is there."""
    parts = []
    for kind in CLASSES:
        found = curves(folder, gaps, kind)
        if not found:
            continue
        rolling = gaps[kind, "rolling", None, None][:CURVE_DRAWS].mean()
        level = rolling - REACHED
        rows = []
        for name, (cpu, steps, gap) in found.items():
            mean = gap.mean(axis=0)
            below = [np.flatnonzero(row <= level) for row in gap]
            there = [(cpu[r, b[0]], steps[r, b[0]]) for r, b in enumerate(below) if len(b)]
            when = "in no seed"
            if there:
                seconds, made = np.median(np.array(there), axis=0)
                when = f"{seconds:.0f} CPU-s, {made:.0f} steps, in {len(there)} of {len(gap)} seeds"
            change = estimated([gap[:, -1] - gap[:, 0]], lambda v: np.asarray(v.mean(axis=-1)))
            ends = f"{mean[0]:.2f}", f"{mean.min():.2f}", f"{mean[-1]:.2f}"
            rows.append([name, *ends, _shown(change, signed=True), when])
        head = ["run", "start", "least of the marks", "end", "end - start (over seeds)"]
        parts.append(
            f"{kind}, first {CURVE_DRAWS} draws, mean gap in %; `rolling` {rolling:.2f}, "
            f"so the level is {level:.2f}"
        )
        parts.append(_table([*head, "at the level after (median)"], rows))
    return "\n\n".join(parts)


PANELS = (
    ("slow-60", ("leaders", "peers"), "learners"),
    ("slow-60", ("ablations",), "MAASN-DA without its parts"),
    ("periodic", ("periodic",), "popularity that takes turns, 8 real episodes"),
)
"""Class, groups of runs and title of every panel."""


def figure(folder: Path, target: Path) -> None:
    """Draw the curves: mean gap over CPU seconds of learning, the range over seeds as a band."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "finecast"
    import matplotlib.pyplot as plt

    gaps = measured(folder)
    size = (4.6 * len(PANELS), 5.2)
    picture, axes = plt.subplots(1, len(PANELS), figsize=size, layout="constrained")
    for axis, (kind, groups, title) in zip(axes, PANELS, strict=True):
        if (kind, "rolling", None, None) not in gaps:
            continue
        found = curves(folder, gaps, kind)
        names = [name for g in groups for name in GROUPS[g]]
        if groups == ("ablations",):
            names = ["maasn-da", *names]
        for index, name in enumerate(name for name in names if name in found):
            cpu, _, gap = found[name]
            x, colour = cpu.mean(axis=0), f"C{index}"
            label = name.removesuffix(" periodic")
            axis.plot(x, gap.mean(axis=0), color=colour, label=label, lw=1.5)
            axis.fill_between(x, gap.min(axis=0), gap.max(axis=0), color=colour, alpha=0.1, lw=0)
        level = gaps[kind, "rolling", None, None][:CURVE_DRAWS].mean()
        axis.axhline(level, color="0.3", lw=0.9, ls="--", label="rolling")
        axis.set_ylim(0.75 * level, 1.15 * level)
        axis.set(title=f"{title}\n({kind})", xlabel="CPU seconds of learning")
        axis.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8, frameon=False
        )
    axes[0].set_ylabel("above the certified bound, %")
    picture.savefig(target, metadata={"Date": None})


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
