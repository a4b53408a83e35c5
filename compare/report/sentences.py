"""What a comparison says in sentences, and how each run is made again."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from finecast.compare.report.comparison import Comparison, failed
from finecast.compare.report.statistics import Estimate
from finecast.compare.report.table import Table, Value, shown
from finecast.compare.runs.records import Record, Status
from finecast.solvers.registry import methods


def sentences(comparison: Comparison, by_method: Table, by_pair: Table) -> list[str]:
    """Return the answer in sentences: which method, how far from optimal, how fast.

    Parameters
    ----------
    comparison
        The runs shown.
    by_method, by_pair
        `methods_table` and `pairs_table` of it.
    """
    full = set(comparison.same_system)
    ranked = [_ranked(row) for row in by_method.by_name() if row["method"] in full]
    best = ranked[0]
    fastest = min(ranked, key=lambda row: row.time_s)
    registry = methods()
    online = [
        row
        for row in ranked
        if (method := registry.get(comparison.of(row.label)[0].method)) is not None
        and method.setting == "online"
    ]
    answer = [*_closest(best), *_against(best.label, by_pair, full)]
    if fastest is not best:
        answer.append(f"Fastest is {fastest.label}: {fastest.time} a run, {fastest.distance}.")
    if 0 < len(online) < len(ranked):
        answer += _closest_online(online[0])
    return [*answer, *_ended(comparison), *comparison.doubted]


@dataclass(frozen=True)
class _Ranked:
    """What the sentences need of one row of `methods_table`; time in seconds a run."""

    label: str
    runs: Value
    gap: Estimate
    solver_gap: Value
    time_s: float

    @property
    def time(self) -> str:
        """The time of a run, as people read it."""
        return shown(self.time_s, "seconds")

    @property
    def distance(self) -> str:
        """How far from optimal, as half a sentence."""
        if np.isfinite(self.gap.value):
            return f"at most {shown(self.gap, 'percent')} above the optimum"
        return "how far from optimal is not known"


def _ranked(row: Mapping[str, Value]) -> _Ranked:
    gap, time_s = row["gap"], row["wall_s"]
    assert isinstance(gap, Estimate)
    assert isinstance(time_s, float)
    return _Ranked(str(row["method"]), row["runs"], gap, row["solver_gap"], time_s)


def _closest(best: _Ranked) -> list[str]:
    """Say which method is closest to optimal."""
    if not np.isfinite(best.gap.value):
        return ["How far from optimal the methods are is not known: no certified bounds."]
    said = [
        f"Closest to optimal is {best.label}: its delay is {best.distance}, in {best.time} a run "
        f"({best.runs} runs)."
    ]
    if isinstance(best.solver_gap, float) and best.solver_gap < 0.9 * best.gap.value:
        said.append(
            "By the word of a MILP solver, which is no certificate, its gap is "
            f"{shown(best.solver_gap, 'percent')}."
        )
    return said


def _against(label: str, by_pair: Table, full: set[str]) -> list[str]:
    """Say which methods the best one beats, and which it does not, of those that solve the same."""
    beaten: list[str] = []
    level: list[str] = []
    for row in by_pair.by_name():
        pair = [str(row["a"]), str(row["b"])]
        if label in pair and set(pair) <= full:
            rival = pair[1 - pair.index(label)]
            (beaten if row["verdict"] == f"{label} better" else level).append(rival)
    said = []
    if beaten:
        said.append(f"Its delays are significantly smaller than those of {_listed(beaten)}.")
    if level:
        said.append(f"No significant advantage over {_listed(level)} is shown.")
    return said


def _closest_online(best: _Ranked) -> list[str]:
    """Say which online method is closest to optimal, if bounds tell."""
    if not np.isfinite(best.gap.value):
        return []
    return [
        f"Of the online methods, which do not see the future, {best.label} is closest: "
        f"{best.distance}, in {best.time} a run."
    ]


def _ended(comparison: Comparison) -> list[str]:
    """Say how many runs failed, and how many there should be besides."""
    broken = Counter(record.status for record in comparison.records if failed(record))
    total = len(comparison.records)
    if broken:
        kinds = ", ".join(f"{n} {Status(s).value}" for s, n in sorted(broken.items()))
        said = [f"{broken.total()} of {total:,} runs failed: {kinds}."]
    else:
        said = [f"All {total:,} runs brought a feasible solution."]
    missing = len(comparison.instances) * len(comparison.labels) - len(comparison.runs)
    if missing:
        said.append(
            f"{missing:,} pairs of method and instance have no run; methods are compared on what "
            "they share."
        )
    return said


def solve_command(run: Record, folder: str = "out") -> str:
    """Return the command line that makes one run again, on the stored instance.

    Parameters
    ----------
    run
        Its names come from files and are quoted for a shell.
    folder
        The result folder, where the instance is.
    """
    parts = [
        f"finecast solve {_q(f'{folder}/instances/{run.instance_hash}.npz')}",
        f"--method {_q(run.method)} --seed {run.seed}",
    ]
    if run.time_limit_s is not None:
        parts.append(f"--time-limit {run.time_limit_s:g}")
    if run.restrict:
        parts.append(f"--restrict {_q(run.restrict)}")
    settings = {"delivery": run.delivery, "schedule": run.schedule} | _options(run)
    defaults = {"delivery": "sequential", "schedule": "sequential"}
    parts += [
        f"--set {_q(f'{key}={value if isinstance(value, str) else json.dumps(value)}')}"
        for key, value in settings.items()
        if defaults.get(key) != value
    ]
    return " ".join(parts)


def _options(run: Record) -> dict[str, object]:
    try:
        options = json.loads(run.options or "{}")
    except ValueError:
        return {}
    return options if isinstance(options, dict) else {}


def _q(text: str) -> str:
    return shlex.quote(text)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
