"""Comparison: the records of a result folder, filtered, and arranged by method and instance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from finecast.compare.report.apart import kept_apart
from finecast.compare.report.statistics import gap_to_bound
from finecast.compare.runs.records import Record, Status
from finecast.problem.arrays import FloatArray
from finecast.problem.tolerances import JUDGE_TOLERANCES


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs of several methods on shared instances.

    Parameters
    ----------
    records
        The runs that are shown.
    labels
        (S,) the methods shown, each one method with one set of options, as in `Record.label`.
    classes
        The classes of instances shown.
    instances
        (P,) hashes of the instances, class by class.
    instance_class
        (P,) class of each.
    runs
        By label and instance hash, in order of the seeds.
    bound
        Best certified lower bound on D of the full system known, s, by the hash of the instance as
        solved; of all runs that there are, shown or not.
    solver_bound
        The same of all bounds, those included that rest on the word of a MILP solver.
    best_delay
        Least guaranteed delay of the full system, s, by the hash of the instance as solved; of all
        runs that there are.
    left_out
        Runs that there are but that are not shown.
    doubted
        Bounds that a judged delay refutes, one line each; they count nowhere.
    """

    records: tuple[Record, ...]
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    instances: tuple[str, ...]
    instance_class: tuple[str, ...]
    runs: Mapping[tuple[str, str], tuple[Record, ...]]
    bound: Mapping[str, float]
    solver_bound: Mapping[str, float]
    best_delay: Mapping[str, float]
    left_out: int
    doubted: tuple[str, ...] = ()

    def of(self, label: str, instance_class: str | None = None) -> list[Record]:
        """Return the runs of a method, in one class or in all."""
        chosen = self._by_label[label]
        if instance_class is None:
            return chosen
        return [r for r in chosen if r.instance_class == instance_class]

    @cached_property
    def same_system(self) -> tuple[str, ...]:
        """The methods that solve one and the same system: of the kinds, the one with most methods.

        Restricted systems and other deliveries are other problems, with other optima.
        """
        kinds: dict[tuple[bool, str, str, str], list[str]] = {}
        for label in self.labels:
            r = self.of(label)[0]
            kinds.setdefault((not r.restrict, r.restrict, r.delivery, r.schedule), []).append(label)
        most = max(kinds, key=lambda kind: (kind[0], len(kinds[kind])))
        return tuple(kinds[most])

    @cached_property
    def _by_label(self) -> dict[str, list[Record]]:
        by_label: dict[str, list[Record]] = {label: [] for label in self.labels}
        for r in self.records:
            by_label[r.label].append(r)
        return by_label

    @cached_property
    def mean_delay(self) -> FloatArray:
        """(P, S) mean guaranteed delay over seeds, s.

        Infinite where any run has no answer, NaN where a method has not been run.
        """
        delay = np.full((len(self.instances), len(self.labels)), np.nan)
        row = {instance: i for i, instance in enumerate(self.instances)}
        column = {label: i for i, label in enumerate(self.labels)}
        for (label, instance), runs in self.runs.items():
            delay[row[instance], column[label]] = np.mean([cost(r) for r in runs])
        return delay

    def gaps(self, runs: Iterable[Record], *, solver_word: bool = False) -> FloatArray:
        """Return (n,) gaps of runs to the best bound of the full system.

        Parameters
        ----------
        runs
            Of any methods.
        solver_word
            Count bounds that rest on the word of a MILP solver too.
        """
        chosen = list(runs)
        bound = self.solver_bound if solver_word else self.bound
        return gap_to_bound(
            [cost(r) for r in chosen], [bound.get(r.solved_hash, 0.0) for r in chosen]
        )


def cost(run: Record) -> float:
    """Return the guaranteed delay of a run, s; infinite without one."""
    return np.inf if run.delay is None else run.delay


def compare_runs(
    records: Sequence[Record],
    *,
    methods: Sequence[str] = (),
    classes: Sequence[str] = (),
    known_bounds: Mapping[str, tuple[float, str]] | None = None,
) -> Comparison:
    """Arrange records; with `methods` or `classes` only those, in that order.

    Parameters
    ----------
    records
        Of one or several result folders. A label or class that stands for several things in them is
        completed (`finecast.compare.report.apart`).
    methods
        Labels to show; none: all.
    classes
        Classes to show; none: all.
    known_bounds
        Lower bounds known besides, s, and what they rest on, by the hash of the instance as solved.

    Raises
    ------
    ValueError
        There are no records, or an unknown label or class is named.
    """
    if not records:
        raise ValueError("records: there are none, run `finecast compare` first")
    records = kept_apart(records)
    labels = _chosen("methods", methods, (r.label for r in records))
    by_number = sorted({r.instance_class for r in records}, key=in_numeric_order)
    shown_classes = _chosen("classes", classes, by_number)
    shown = tuple(r for r in records if r.label in labels and r.instance_class in shown_classes)
    if not shown:
        raise ValueError("classes: none of the methods named has a run in the classes named")

    # The judged plan of any system is one of the full system: a bound above its delay is wrong.
    least: dict[str, float] = {}
    best: dict[str, float] = {}
    for r in records:
        for known in (least,) if r.restrict else (least, best):
            known[r.solved_hash] = min(known.get(r.solved_hash, np.inf), cost(r))

    # A restricted system has another optimum, and its bound says nothing of the full one.
    bound: dict[str, float] = {}
    solver_bound: dict[str, float] = {}
    doubted: dict[str, None] = {}

    def enter(solved_hash: str, value: float, kind: str, by: str) -> None:
        delay = least.get(solved_hash, np.inf)
        if value > delay * (1.0 + JUDGE_TOLERANCES):
            doubted[
                f"{by} bounds instance {solved_hash[:12]} by {value:.6g} s, but there is a judged "
                f"plan of {delay:.6g} s: the bound is not believed."
            ] = None
            return
        for known in (bound, solver_bound) if kind == "certified" else (solver_bound,):
            known[solved_hash] = max(known.get(solved_hash, 0.0), min(value, delay))

    for solved_hash, (value, kind) in (known_bounds or {}).items():
        enter(solved_hash, value, kind, "The file of best known values")
    for r in records:
        broken = r.status in (Status.FAILED, Status.INFEASIBLE)  # what else it says is no better
        if r.bound_kind != "none" and not (broken or r.restrict) and r.lower_bound is not None:
            enter(r.solved_hash, r.lower_bound, r.bound_kind, r.label)
        if r.hindsight_bound is not None:
            enter(r.solved_hash, r.hindsight_bound, "certified", "The search for the online bound")

    class_of = {r.instance_hash: r.instance_class for r in shown}
    order = {name: i for i, name in enumerate(shown_classes)}
    instances = sorted(class_of, key=lambda instance: order[class_of[instance]])
    runs: dict[tuple[str, str], list[Record]] = {}
    for r in shown:
        runs.setdefault((r.label, r.instance_hash), []).append(r)
    present = {r.label for r in shown}
    return Comparison(
        records=shown,
        labels=tuple(label for label in labels if label in present),
        classes=tuple(c for c in shown_classes if c in set(class_of.values())),
        instances=tuple(instances),
        instance_class=tuple(class_of[i] for i in instances),
        runs={
            key: tuple(sorted(of_key, key=lambda r: (r.seed, r.key)))
            for key, of_key in runs.items()
        },
        bound=bound,
        solver_bound=solver_bound,
        best_delay={h: delay for h, delay in best.items() if np.isfinite(delay)},
        left_out=len(records) - len(shown),
        doubted=tuple(doubted),
    )


def failed(run: Record) -> bool:
    """Return whether a run brought no feasible solution."""
    return run.status != Status.COMPLETED


def in_numeric_order(name: str) -> tuple[tuple[str, float], ...]:
    """Return what names are ordered by: their texts, and the numbers between them by size.

    Examples
    --------
    >>> sorted(["k=10", "k=9", "k=-1", "k=0.5", "n199", "n61"], key=in_numeric_order)
    ['k=-1', 'k=0.5', 'k=9', 'k=10', 'n61', 'n199']
    """
    parts = re.split(r"((?:(?<!\w)-)?\d+(?:\.\d+)?)", name)
    texts, numbers = parts[::2], [*map(float, parts[1::2]), 0.0]
    return tuple(zip(texts, numbers, strict=True))


def _chosen(what: str, wanted: Sequence[str], there: Iterable[str]) -> tuple[str, ...]:
    known = tuple(dict.fromkeys(there))
    for name in wanted:
        if name not in known:
            raise ValueError(f"{what}: {name!r} is not there, there are {', '.join(known)}")
    return tuple(dict.fromkeys(wanted)) or known
