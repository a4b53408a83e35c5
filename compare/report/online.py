"""Online methods: how far above what hindsight and what any online method could do, and why.

The online bound holds in the mean over paths, never on one path, so everything here is a ratio of
means: of the networks of a class, or of the paths where there is one network. A run's controlled
gap, its delay less its penalties less the bound of the path, has the mean of delay less bound and
far less variance (docs/online.md).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from finecast.compare.report.comparison import Comparison, cost
from finecast.compare.report.statistics import Estimate, ratio_of_means
from finecast.compare.report.table import Column, Table, Value, shown
from finecast.compare.runs.records import Record
from finecast.problem.tolerances import JUDGE_TOLERANCES
from finecast.solvers.registry import methods

JOINT = "joint"
"""The keep rule that the others are measured against: `keep` of the methods that have a choice."""

IN_THE_MEAN = (
    "The online bound holds in the mean over paths, with the interval given, and not on each path; "
    "what a policy lost on one path is its controlled gap."
)

Network = tuple[str, int, int]
"""Suite, version and seed."""


@dataclass(frozen=True)
class OnlineFigures:
    """An online method in one class of instances.

    (1 + information)(1 + over_online) = 1 + over_hindsight, but for the draw of the paths.

    Parameters
    ----------
    instance_class, label
        Of what.
    networks, paths
        How many networks, and paths of all of them.
    over_hindsight
        Mean delay over the mean hindsight bound, less 1.
    information
        Mean online bound over the mean hindsight bound, less 1: what nobody can know costs at least
        so much. The same for all methods of a class.
    over_online
        Mean controlled gap over the mean online bound: what the policy loses at most.
    keep
        The part of it that the joint keep rule takes away, on the same values; 0 for methods that
        use it, None for those without it or without a run to compare with.
    rest
        `over_online` less `keep`.
    least_gap
        Smallest controlled gap of its runs, s.
    """

    instance_class: str
    label: str
    networks: int
    paths: int
    over_hindsight: Estimate
    information: Estimate
    over_online: Estimate
    keep: Estimate | None
    rest: Estimate
    least_gap: float


@dataclass(frozen=True)
class _Path:
    """What one path says of one method; means over the seeds of its runs, s."""

    network: Network
    delay: float
    controlled_gap: float


def online_figures(comparison: Comparison) -> list[OnlineFigures]:
    """Return the figures of every online method, class by class, the best first.

    Parameters
    ----------
    comparison
        The runs shown. Those with a controlled gap speak: online methods on paths whose online
        bound is known.
    """
    figures: list[OnlineFigures] = []
    for name in comparison.classes:
        runs = {
            label: own
            for label in comparison.labels
            if (own := [r for r in comparison.of(label, name) if _speaks(r, comparison)])
        }
        if runs:
            figures += _of_class(comparison, name, runs)
    return figures


def _speaks(run: Record, comparison: Comparison) -> bool:
    """Return whether a run is one of an online method on a path whose bounds are known."""
    method = methods().get(run.method)
    known = run.online_bound is not None and comparison.bound.get(run.solved_hash, 0.0) > 0.0
    online = method is not None and method.setting == "online"
    return known and online and not run.restrict


def _of_class(
    comparison: Comparison, name: str, runs: Mapping[str, list[Record]]
) -> list[OnlineFigures]:
    by_path = {label: _by_path(own) for label, own in runs.items()}
    network: dict[str, Network] = {}
    hindsight: dict[str, float] = {}
    online: dict[str, float] = {}
    for r in (r for own in runs.values() for r in own):
        assert r.online_bound is not None
        network[r.instance_hash] = _network(r)
        hindsight[r.instance_hash] = comparison.bound[r.solved_hash]
        online[r.instance_hash] = r.online_bound

    # The penalties along a policy's caches have mean zero: added to the bound of a path they take
    # most of the variance that it shares with the delay. The policies' mean serves all methods.
    for path in online:
        penalties = [
            of[path].delay - of[path].controlled_gap - online[path]
            for of in by_path.values()
            if path in of and np.isfinite(of[path].delay)
        ]
        online[path] += float(np.mean(penalties)) if penalties else 0.0

    all_paths = list(online)
    information = _over(
        [online[p] - hindsight[p] for p in all_paths], hindsight, all_paths, network
    )
    joint = _joint_partners(runs)
    figures = []
    for label, of in by_path.items():
        paths = list(of)
        over_online = _over([of[p].controlled_gap for p in paths], online, paths, network)
        keep, rest = None, over_online
        if joint.get(label) == label:
            keep = Estimate(0.0, 0.0, 0.0, over_online.count)
        elif label in joint:
            partner = by_path[joint[label]]
            both = [p for p in paths if p in partner]
            taken = [of[p].controlled_gap - partner[p].controlled_gap for p in both]
            if both and np.isfinite(taken).all():
                keep = _over(taken, online, both, network)
                rest = _over([partner[p].controlled_gap for p in both], online, both, network)
        figures.append(
            OnlineFigures(
                instance_class=name,
                label=label,
                networks=len({network[p] for p in paths}),
                paths=len(paths),
                over_hindsight=_over(
                    [of[p].delay - hindsight[p] for p in paths], hindsight, paths, network
                ),
                information=information,
                over_online=over_online,
                keep=keep,
                rest=rest,
                least_gap=min(of[p].controlled_gap for p in paths),
            )
        )
    return sorted(figures, key=lambda f: f.over_hindsight.value)


def _by_path(runs: Iterable[Record]) -> dict[str, _Path]:
    """Return the means over the seeds of a method, by the hash of the instance."""
    of_path: dict[str, list[Record]] = {}
    for r in runs:
        of_path.setdefault(r.instance_hash, []).append(r)
    return {
        path: _Path(
            _network(own[0]),
            float(np.mean([cost(r) for r in own])),
            float(np.mean([np.inf if r.controlled_gap is None else r.controlled_gap for r in own])),
        )
        for path, own in of_path.items()
    }


def _network(run: Record) -> Network:
    return run.suite, run.suite_version, run.instance_seed


def _over(
    excess: list[float],
    bound: Mapping[str, float],
    paths: list[str],
    network: Mapping[str, Network],
) -> Estimate:
    """Return mean excess over mean bound; networks vary, or paths where there is one network."""
    of_network = [network[p] for p in paths]
    cluster = of_network if len(set(of_network)) > 1 else paths
    return ratio_of_means(excess, [bound[p] for p in paths], cluster)


def _joint_partners(runs: Mapping[str, list[Record]]) -> dict[str, str]:
    """Return by label the method that differs in nothing but that it keeps by the joint rule."""
    same: dict[tuple[str, str, float | None], dict[str, str]] = {}
    for label, own in runs.items():
        options = json.loads(own[0].options or "{}")
        try:
            default = methods()[own[0].method].options().get("keep")
        except ValueError:  # a plug-in that cannot be imported here
            default = None
        rule = options.pop("keep", default)
        if rule is not None:
            asked = (own[0].method, json.dumps(options, sort_keys=True), own[0].time_limit_s)
            same.setdefault(asked, {})[label] = str(rule)
    partners: dict[str, str] = {}
    for rules in same.values():
        best = next((label for label, rule in rules.items() if rule == JOINT), None)
        if best is not None:
            partners |= dict.fromkeys(rules, best)
    return partners


def online_table(figures: Iterable[OnlineFigures]) -> Table:
    """Return the figures as a table."""
    rows: list[tuple[Value, ...]] = [
        (
            f.instance_class,
            f.label,
            f.networks,
            f.paths,
            f.over_hindsight,
            f.information,
            f.over_online,
            0.0 if f.keep and f.keep.low == f.keep.high == 0.0 else f.keep,
            f.rest,
            f.least_gap,
        )
        for f in figures
    ]
    return Table(
        "online",
        "Online methods",
        "Mean delay over the mean hindsight bound, less 1, and what it is made of: information "
        "that nobody has in time (the online bound over the hindsight bound), and what the policy "
        "loses (over the online bound), of which the joint keep rule would save the part given. "
        "(1 + information)(1 + over online bound) = 1 + over hindsight bound, but for the draw of "
        f"the paths. {IN_THE_MEAN} 95% intervals: Student's t of a ratio of means over networks, "
        "over paths where there is one network.",
        (
            Column("class", "Class"),
            Column("method", "Method"),
            Column("networks", "Networks", "count"),
            Column("paths", "Paths", "count"),
            Column("over_hindsight", "Over hindsight bound", "percent"),
            Column("information", "of it information", "percent"),
            Column("over_online", "Over online bound", "percent"),
            Column("keep", "of it keep rule", "percent"),
            Column("rest", "of it rest", "percent"),
            Column("least_gap", "Least controlled gap", "seconds"),
        ),
        tuple(rows),
        tuple((str(row[1]),) for row in rows),
    )


def online_sentences(figures: Iterable[OnlineFigures]) -> list[str]:
    """Return one sentence a class on its best online method, and one on how to read them."""
    given = list(figures)
    said = []
    for name in dict.fromkeys(f.instance_class for f in given):
        best = next(f for f in given if f.instance_class == name)
        if not np.isfinite(best.over_hindsight.value):
            continue
        said.append(
            f"Online, in class {name}, {best.label} is {shown(best.over_hindsight, 'percent')} "
            f"above the hindsight bound; {shown(best.information, 'percent')} is information that "
            f"no online method has, and at most {shown(best.over_online, 'percent')} could be "
            "better."
        )
    if said:
        said.append(IN_THE_MEAN)
    return said


def impossible_gaps(comparison: Comparison) -> list[str]:
    """Return one line a run whose controlled gap is below zero, as none can be."""
    return [
        f"{r.label} on instance {r.instance_hash[:12]} has a controlled gap of "
        f"{r.controlled_gap:.6g} s. None is below zero, whatever the plan: the bound of that path "
        "is wrong."
        for r in comparison.records
        if _speaks(r, comparison)
        and r.controlled_gap is not None
        and r.controlled_gap < -JUDGE_TOLERANCES * cost(r)
    ]


def online_rows(figures: Iterable[OnlineFigures]) -> list[dict[str, object]]:
    """Return the figures for JSON; an interval is a list of value, low and high."""

    def plain(value: Value) -> object:
        if isinstance(value, Estimate):
            return [plain(x) for x in (value.value, value.low, value.high)]
        if isinstance(value, float) and not np.isfinite(value):
            return None
        return value

    return [
        {name: plain(value) for name, value in row.items()}
        for row in online_table(figures).by_name()
    ]
