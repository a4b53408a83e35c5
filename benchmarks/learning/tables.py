"""Tables and curves of the learners' benchmark, from the measured rows."""

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
"""Percentage points below `rolling` at which the level of the reach tables lies."""

Row = dict[str, Any]
Key = tuple[str, str, int | None, int | None]
"""Class, method, training seed, mark."""


def measured(folder: Path) -> dict[Key, FloatArray]:
    """Return gaps in percent by class, method, seed and mark, in the order of the draws."""
    gaps: dict[Key, dict[int, float]] = {}
    for line in (folder / "results.jsonl").read_text().splitlines():
        row = json.loads(line)
        key = (row["class"], row["method"], row["seed"], row["mark"])
        gaps.setdefault(key, {})[row["draw"]] = 100.0 * row["gap"]
    return {key: np.array([by_draw[d] for d in sorted(by_draw)]) for key, by_draw in gaps.items()}


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
        "Probability of improvement over `rolling`, on the same draw (95 % interval)",
        _table(
            ["method", *classes],
            ([m, *(_improvement(gaps, c, m) for c in classes)] for m in methods if m != "rolling"),
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
    seeds: Sequence[FloatArray], statistic: Callable[[FloatArray], FloatArray]
) -> Estimate:
    """Return a statistic over draws and seeds. Draws are resampled within every seed."""
    stratum = np.repeat(np.arange(len(seeds)), [len(gaps) for gaps in seeds])
    rng = np.random.default_rng(0)
    return stratified_bootstrap(np.concatenate(seeds), stratum, statistic, rng)


def _gap(gaps: Mapping[Key, FloatArray], kind: str, method: str) -> str:
    seeds = by_seed(gaps, kind, method)
    return _shown(estimated(seeds, interquartile_mean)) if seeds else ""


def _difference(gaps: Mapping[Key, FloatArray], kind: str, method: str) -> str:
    """Return method - rolling, paired by draw; seeds are averaged first."""
    seeds, reference = by_seed(gaps, kind, method), by_seed(gaps, kind, "rolling")
    if not seeds or not reference:
        return ""
    draws = min(len(v) for v in (*seeds, *reference))
    difference = np.mean([v[:draws] for v in seeds], axis=0) - reference[0][:draws]
    return _shown(estimated([difference], lambda v: np.asarray(v.mean(axis=-1))), signed=True)


def _improvement(gaps: Mapping[Key, FloatArray], kind: str, method: str) -> str:
    """Return how likely a policy has a smaller delay than `rolling` on a draw; ties count half."""
    seeds, reference = by_seed(gaps, kind, method), by_seed(gaps, kind, "rolling")
    if not seeds or not reference:
        return ""
    draws = min(len(v) for v in (*seeds, *reference))
    better = [
        (v[:draws] < reference[0][:draws]) + 0.5 * (v[:draws] == reference[0][:draws])
        for v in seeds
    ]
    return _shown(estimated(better, lambda v: np.asarray(v.mean(axis=-1))))


def _shown(estimate: Estimate, signed: bool = False) -> str:
    form = "+.2f" if signed else ".2f"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def _runs_table(runs: Sequence[Row]) -> str:
    rows = []
    for name in RUNS:
        of_seeds = [run for run in runs if run["run"] == name]
        if of_seeds:
            rows.append(
                [
                    name,
                    RUNS[name].summary,
                    ", ".join(RUNS[name].scenarios),
                    f"{of_seeds[0]['budget_s']:.0f}",
                    ", ".join(str(run["steps"]) for run in of_seeds),
                    ", ".join(str(run["best_step"]) for run in of_seeds),
                    f"{np.mean([run['prepare_s'] for run in of_seeds]):.0f}",
                ]
            )
    head = ["run", "what", "trained on", "CPU-s", "steps made", "steps of the policy kept"]
    return _table([*head, "CPU-s for the first draws"], rows)


def curves(
    folder: Path, gaps: Mapping[Key, FloatArray], kind: str
) -> dict[str, tuple[FloatArray, FloatArray, FloatArray]]:
    """Return by run the CPU seconds and steps of the marks (R, M), and the mean gaps (R, M), %."""
    by_run = {}
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
            by_run[name] = (cpu, steps, gap)
    return by_run


def _reach_tables(folder: Path, gaps: Mapping[Key, FloatArray]) -> str:
    """Return a table for every class with curves: start and end of each run, and when it is at
    the level.
    """
    parts = []
    for kind in CLASSES:
        by_run = curves(folder, gaps, kind)
        if not by_run:
            continue
        rolling = gaps[kind, "rolling", None, None][:CURVE_DRAWS].mean()
        level = rolling - REACHED
        rows = []
        for name, (cpu, steps, gap) in by_run.items():
            mean = gap.mean(axis=0)
            below = [np.flatnonzero(row <= level) for row in gap]  # marks of each seed
            reached = [(cpu[r, b[0]], steps[r, b[0]]) for r, b in enumerate(below) if len(b)]
            when = "in no seed"
            if reached:
                seconds, step = np.median(np.array(reached), axis=0)
                count = f"{len(reached)} of {len(gap)} seeds"
                when = f"{seconds:.0f} CPU-s, {step:.0f} steps, in {count}"
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
    ("persist-60", ("leaders", "peers"), "learners"),
    ("slow-60", ("in-turn", "ablations"), "without a part"),
)
"""Class, groups of runs and title of every panel."""


def figure(folder: Path, target: Path) -> None:
    """Draw the curves: mean gap over CPU seconds of learning, the range over seeds as a band."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "finecast"
    import matplotlib.pyplot as plt

    gaps = measured(folder)
    by_kind = {kind: curves(folder, gaps, kind) for kind, _, _ in PANELS}
    shown = [
        panel
        for panel in PANELS
        if any(name in by_kind[panel[0]] for g in panel[1] for name in GROUPS[g])
    ]
    size = (4.6 * len(shown), 5.2)
    picture, axes = plt.subplots(1, len(shown), figsize=size, layout="constrained", squeeze=False)
    for axis, (kind, groups, title) in zip(axes[0], shown, strict=True):
        by_run = by_kind[kind]
        names = [name for g in groups for name in GROUPS[g]]
        if "ablations" in groups:
            names = [*GROUPS["leaders"], *names]
        for index, name in enumerate(name for name in names if name in by_run):
            cpu, _, gap = by_run[name]
            x, colour = cpu.mean(axis=0), f"C{index}"
            axis.plot(x, gap.mean(axis=0), color=colour, label=name, lw=1.5)
            axis.fill_between(x, gap.min(axis=0), gap.max(axis=0), color=colour, alpha=0.1, lw=0)
        level = gaps[kind, "rolling", None, None][:CURVE_DRAWS].mean()
        axis.axhline(level, color="0.3", lw=0.9, ls="--", label="rolling")
        axis.set(title=f"{title}\n({kind})", xlabel="CPU seconds of learning")
        axis.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2, fontsize=8, frameon=False
        )
    axes[0][0].set_ylabel("above the certified bound, %")
    picture.savefig(target, metadata={"Date": None})


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
