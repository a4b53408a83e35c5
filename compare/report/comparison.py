"""Comparison: the records of a result folder, filtered, and arranged by method and instance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from finecast.compare.report.statistics import gap_to_bound
from finecast.compare.runs.records import Record, Status
from finecast.problem.arrays import FloatArray


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
    known_bounds: Mapping[str, float] | None = None,
) -> Comparison:
    """Arrange records; with `methods` or `classes` only those, in that order.

    Parameters
    ----------
    records
        Of one or several result folders.
    methods
        Labels to show; none: all.
    classes
        Classes to show; none: all.
    known_bounds
        Certified lower bounds known besides, s, by instance hash.

    Raises
    ------
    ValueError
        There are no records, or an unknown label or class is named.
    """
    if not records:
        raise ValueError("records: there are none, run `finecast compare` first")
    labels = _chosen("methods", methods, (r.label for r in records))
    shown_classes = _chosen("classes", classes, (r.instance_class for r in records))
    shown = tuple(r for r in records if r.label in labels and r.instance_class in shown_classes)
    if not shown:
        raise ValueError("classes: none of the methods named has a run in the classes named")

    bound: dict[str, float] = dict(known_bounds or {})
    solver_bound = dict(bound)
    best: dict[str, float] = {}
    for r in records:
        # A restricted system has another optimum, and its bound says nothing of the full one.
        if r.bound_kind != "none" and not r.restrict and r.lower_bound is not None:
            for known in (bound, solver_bound) if r.bound_kind == "certified" else (solver_bound,):
                known[r.solved_hash] = max(known.get(r.solved_hash, 0.0), r.lower_bound)
        if r.delay is not None and not r.restrict:
            best[r.solved_hash] = min(best.get(r.solved_hash, np.inf), r.delay)

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
        best_delay=best,
        left_out=len(records) - len(shown),
    )


def failed(run: Record) -> bool:
    """Return whether a run brought no feasible solution."""
    return run.status != Status.COMPLETED


def _chosen(what: str, wanted: Sequence[str], there: Iterable[str]) -> tuple[str, ...]:
    known = tuple(dict.fromkeys(there))
    for name in wanted:
        if name not in known:
            raise ValueError(f"{what}: {name!r} is not there, there are {', '.join(known)}")
    return tuple(dict.fromkeys(wanted)) or known
