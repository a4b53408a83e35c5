"""The tables of a comparison: methods, classes, pairs, failed runs, every run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from finecast.compare.report.comparison import Comparison, failed
from finecast.compare.report.statistics import (
    TIME_SHIFT_S,
    Estimate,
    estimate,
    holm,
    interquartile_mean,
    paired_wilcoxon,
    probability_of_improvement,
    resamples,
    shifted_geometric_mean,
    stratified_bootstrap,
)
from finecast.compare.report.table import Column, Table, Value
from finecast.compare.runs.records import Record
from finecast.problem.arrays import BoolArray, FloatArray

SIGNIFICANCE = 0.05

Command = Callable[[Record], str]


def gap_estimate(comparison: Comparison, runs: list[Record], rng: np.random.Generator) -> Estimate:
    """Return the interquartile mean of the gaps to the certified bounds, strata the classes."""
    return stratified_bootstrap(
        comparison.gaps(runs), [r.instance_class for r in runs], interquartile_mean, rng
    )


def methods_table(comparison: Comparison, rng: np.random.Generator) -> Table:
    """Return one row a method: how far from optimal, how fast, how often; best first."""
    rows = []
    for label in comparison.labels:
        runs = comparison.of(label)
        gaps = comparison.gaps(runs)
        rows.append(
            (
                label,
                len(runs),
                1 - sum(map(failed, runs)) / len(runs),
                gap_estimate(comparison, runs, rng),
                float(gaps.max()),
                _middle(comparison.gaps(runs, solver_word=True)),
                _middle(r.beamforming_gap for r in runs),
                _middle(r.placement_gap for r in runs),
                _middle(r.realised_delay for r in runs),
                shifted_geometric_mean([r.wall_s for r in runs]),
                _time_of(r.rates_s for r in runs),
                _time_of(r.train_s for r in runs if r.train_s > 0),
                _middle(r.work or None for r in runs),
                _largest(r.peak_memory_bytes for r in runs),
            )
        )
    rows.sort(key=lambda row: (row[3].value, row[9]))  # by gap, then by time
    return Table(
        "methods",
        "Methods",
        "Gap: delay over the best certified lower bound of the full system on the same instance, "
        "less 1; interquartile mean over runs with its 95% interval (stratified bootstrap, strata "
        "the classes). By MILP: to bounds that rest on the word of a MILP solver too. "
        "The two parts are against the method's own bound: "
        "(1 + beams)(1 + placement) = 1 + gap. A non-robust plan guarantees nothing: its gap is "
        "infinite. Times: shifted geometric means, shift "
        f"{TIME_SHIFT_S:g} s; failed runs count with the time until they ended. Rates: preparing "
        "the rate tables where that was timed apart. Work: interquartile mean of what the method "
        "counted, in units of about a second of one core, the same on every machine where no clock "
        "ended the runs.",
        (
            Column("method", "Method"),
            Column("runs", "Runs", "count"),
            Column("solved", "Solved", "percent"),
            Column("gap", "Gap", "percent"),
            Column("worst_gap", "Worst gap", "percent"),
            Column("solver_gap", "Gap, by MILP", "percent"),
            Column("beamforming_gap", "of it beams", "percent"),
            Column("placement_gap", "of it placement", "percent"),
            Column("realised_delay", "Realised delay", "seconds"),
            Column("wall_s", "Time", "seconds"),
            Column("rates_s", "Rates", "seconds"),
            Column("train_s", "Training", "seconds"),
            Column("work", "Work", "number"),
            Column("peak_memory_gb", "Memory, GB", "number"),
        ),
        tuple(rows),
        tuple((str(row[0]),) for row in rows),
    )


def classes_table(comparison: Comparison, rng: np.random.Generator) -> Table:
    """Return one row a class and method."""
    rows: list[tuple[Value, ...]] = []
    for name in comparison.classes:
        for label in comparison.labels:
            runs = comparison.of(label, name)
            if runs:
                rows.append(
                    (
                        name,
                        label,
                        len(runs),
                        1 - sum(map(failed, runs)) / len(runs),
                        gap_estimate(comparison, runs, rng),
                        _middle(r.delay for r in runs),
                        shifted_geometric_mean([r.wall_s for r in runs]),
                    )
                )
    return Table(
        "classes",
        "Classes of instances",
        "As above, class by class. Delay: interquartile mean of the guaranteed delays.",
        (
            Column("class", "Class"),
            Column("method", "Method"),
            Column("runs", "Runs", "count"),
            Column("solved", "Solved", "percent"),
            Column("gap", "Gap", "percent"),
            Column("delay", "Delay", "seconds"),
            Column("wall_s", "Time", "seconds"),
        ),
        tuple(rows),
        tuple((str(row[1]),) for row in rows),
    )


def pairs_table(comparison: Comparison, rng: np.random.Generator) -> Table:
    """Return one row a pair of methods: which is better on the same instances, and how surely."""
    delay = comparison.mean_delay
    compared: list[tuple[str, str, int, Estimate, Estimate | None, float]] = []
    same = comparison.same_system
    pairs = [
        (i, j)
        for i, j in combinations(range(len(comparison.labels)), 2)
        if comparison.labels[i] in same and comparison.labels[j] in same
    ]
    stratum = np.array(comparison.instance_class)
    drawn: dict[bytes, NDArray[np.int32]] = {}

    def mean_of(values: FloatArray, where: BoolArray) -> Estimate:
        # Pairs on the same instances share their samples.
        if where.tobytes() not in drawn:
            drawn[where.tobytes()] = resamples(stratum[where], rng)
        return estimate(values, drawn[where.tobytes()], _mean)

    for i, j in pairs:
        # What both have run; a run without an answer has an infinite delay.
        both = ~np.isnan(delay[:, i]) & ~np.isnan(delay[:, j])
        if not both.any():
            continue
        a, b = delay[both, i], delay[both, j]
        better = mean_of(probability_of_improvement(a[:, None], b[:, None]), both)
        # Ratios of delays need two that are finite and positive.
        finite = (
            both & np.isfinite(delay[:, [i, j]]).all(axis=1) & (delay[:, [i, j]] > 0).all(axis=1)
        )
        difference = None
        if finite.any():
            ratio = mean_of(np.log(delay[finite, i] / delay[finite, j]), finite)
            low, value, high = np.expm1([ratio.low, ratio.value, ratio.high]).tolist()
            difference = Estimate(value, low, high, ratio.count)
        labels = comparison.labels
        compared.append((labels[i], labels[j], len(a), better, difference, paired_wilcoxon(a, b)))
    # Each pair is a test: the chance of one that errs grows with their number.
    adjusted = holm([p for *_, p in compared])
    rows = [
        (a, b, count, better, difference, p, float(p_holm), _verdict(a, b, better, float(p_holm)))
        for (a, b, count, better, difference, p), p_holm in zip(compared, adjusted, strict=True)
    ]
    return Table(
        "pairs",
        "Methods in pairs",
        "On the instances that both have run. Probability that A has the smaller delay, ties "
        "half, and the delay of A over that of B less 1 (geometric mean where both have one), "
        "with 95% intervals; p of the two-sided Wilcoxon signed-rank test on log delays, and "
        "adjusted for all pairs by Holm. Methods that solve the same system only. "
        "A run without an answer is worse than any with one.",
        (
            Column("a", "A"),
            Column("b", "B"),
            Column("instances", "Instances", "count"),
            Column("better", "P(A better)", "percent"),
            Column("difference", "Delay of A against B", "percent"),
            Column("p", "p", "p"),
            Column("p_holm", "p, Holm", "p"),
            Column("verdict", "At 5%"),
        ),
        tuple(rows),
        tuple((row[0], row[1]) for row in rows),
    )


def failures_table(comparison: Comparison, command: Command) -> Table:
    """Return one row a run without a feasible solution."""
    rows = [
        (
            r.label,
            r.instance_class,
            r.instance_seed,
            r.seed,
            r.status,
            r.error,
            r.wall_s,
            command(r),
        )
        for r in comparison.records
        if failed(r)
    ]
    return Table(
        "failures",
        "Failed runs",
        "Every run without a feasible solution; each counts as worse than any delay above.",
        (
            Column("method", "Method"),
            Column("class", "Class"),
            Column("instance_seed", "Instance seed", "count"),
            Column("seed", "Seed", "count"),
            Column("status", "Status"),
            Column("error", "What happened"),
            Column("wall_s", "After", "seconds"),
            Column("command", "Run it again", "code"),
        ),
        tuple(rows),
        tuple((row[0],) for row in rows),
    )


def runs_table(comparison: Comparison, command: Command) -> Table:
    """Return one row a run, with the command that makes it again.

    Path and controlled gap are columns where instances are paths of networks.
    """
    gaps = comparison.gaps(comparison.records)
    paths = any(r.path is not None for r in comparison.records)
    rows = [
        (
            r.label,
            r.instance_class,
            r.instance_seed,
            *((r.path,) if paths else ()),
            r.seed,
            r.status,
            r.delay,
            r.realised_delay,
            comparison.bound.get(r.solved_hash),
            float(gap),
            r.gap,
            r.beamforming_gap,
            r.placement_gap,
            *((r.controlled_gap,) if paths else ()),
            r.termination,
            r.wall_s,
            r.instance_hash[:12],
            command(r),
        )
        for r, gap in zip(comparison.records, gaps, strict=True)
    ]
    return Table(
        "runs",
        "Every run",
        "Bound: the best certified one of the full system on that instance; own gap: to the bound "
        "that the method itself proved for the system it solved."
        + (
            " Controlled gap: what an online method lost on that path, in the mean at least its "
            "delay over the best online method's."
            if paths
            else ""
        ),
        (
            Column("method", "Method"),
            Column("class", "Class"),
            Column("instance_seed", "Instance seed", "count"),
            *((Column("path", "Path", "count"),) if paths else ()),
            Column("seed", "Seed", "count"),
            Column("status", "Status"),
            Column("delay", "Delay", "seconds"),
            Column("realised_delay", "Realised", "seconds"),
            Column("bound", "Bound", "seconds"),
            Column("gap", "Gap", "percent"),
            Column("own_gap", "Own gap", "percent"),
            Column("beamforming_gap", "Beams", "percent"),
            Column("placement_gap", "Placement", "percent"),
            *((Column("controlled_gap", "Controlled gap", "seconds"),) if paths else ()),
            Column("termination", "Ended"),
            Column("wall_s", "Time", "seconds"),
            Column("instance", "Instance"),
            Column("command", "Run it again", "code"),
        ),
        tuple(rows),
        tuple((row[0],) for row in rows),
    )


def _verdict(a: str, b: str, better: Estimate, p: float) -> str:
    if p > SIGNIFICANCE or better.value == 0.5:
        return "no difference shown"
    return f"{a if better.value > 0.5 else b} better"


def _mean(values: FloatArray) -> FloatArray:
    return np.asarray(values.mean(axis=-1))


def _middle(values: Iterable[float | None]) -> float | None:
    known = np.array([v for v in values if v is not None], float)
    return float(interquartile_mean(known)) if len(known) else None


def _time_of(values: Iterable[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return shifted_geometric_mean(known) if known else None


def _largest(values: Iterable[int | None]) -> float | None:
    known = [v for v in values if v is not None]
    return max(known) / 1e9 if known else None
