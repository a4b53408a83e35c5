"""What a comparison says in sentences, and how each run is made again."""

from __future__ import annotations

import json
import shlex
from collections import Counter

import numpy as np

from finecast.compare.report.comparison import Comparison, failed
from finecast.compare.report.statistics import Estimate
from finecast.compare.report.table import Table, shown
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
    ranked = [row for row in by_method.rows if row[0] in full]
    best = ranked[0]
    label, runs, gap, by_solver, time = best[0], best[1], best[3], best[5], best[9]
    assert isinstance(gap, Estimate)
    assert isinstance(time, float)
    if np.isfinite(gap.value):
        answer = [
            f"Closest to optimal is {label}: its delay is at most {shown(gap, 'percent')} above "
            f"the optimum, in {shown(time, 'seconds')} a run ({runs} runs)."
        ]
        if isinstance(by_solver, float) and by_solver < 0.9 * gap.value:
            answer.append(
                "By the word of a MILP solver, which is no certificate, its gap is "
                f"{shown(by_solver, 'percent')}."
            )
    else:
        answer = ["How far from optimal the methods are is not known: no certified bounds."]
    beaten: list[str] = []
    level: list[str] = []
    for row in by_pair.rows:
        if label in (row[0], row[1]):
            other = str(row[1] if row[0] == label else row[0])
            if other in full:
                (beaten if row[7] == f"{label} better" else level).append(other)
    if beaten:
        answer.append(f"Its delays are significantly smaller than those of {_listed(beaten)}.")
    if level:
        answer.append(f"No significant advantage over {_listed(level)} is shown.")
    fastest = min(ranked, key=lambda row: row[9] if isinstance(row[9], float) else np.inf)
    if fastest is not best:
        assert isinstance(fastest[3], Estimate)
        answer.append(
            f"Fastest is {fastest[0]}: {shown(fastest[9], 'seconds')} a run, "
            + (
                f"at most {shown(fastest[3], 'percent')} above the optimum."
                if np.isfinite(fastest[3].value)
                else "how far from optimal is not known."
            )
        )
    registry = methods()
    online = [
        row
        for row in ranked
        if (method := registry.get(comparison.of(str(row[0]))[0].method)) is not None
        and method.setting == "online"
    ]
    if online and len(online) < len(ranked):
        first = online[0]
        assert isinstance(first[3], Estimate)
        if np.isfinite(first[3].value):
            answer.append(
                f"Of the online methods, which do not see the future, {first[0]} is closest: at "
                f"most {shown(first[3], 'percent')} above the optimum, in "
                f"{shown(first[9], 'seconds')} a run."
            )
    broken = Counter(r.status for r in comparison.records if failed(r))
    total = len(comparison.records)
    if broken:
        kinds = ", ".join(f"{n} {Status(s).value}" for s, n in sorted(broken.items()))
        answer.append(f"{broken.total()} of {total:,} runs failed: {kinds}.")
    else:
        answer.append(f"All {total:,} runs brought a feasible solution.")
    missing = len(comparison.instances) * len(comparison.labels) - len(comparison.runs)
    if missing:
        answer.append(
            f"{missing:,} pairs of method and instance have no run; methods are compared on what "
            "they share."
        )
    return answer


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
