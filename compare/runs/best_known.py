"""Best known delays and bounds of the suites' instances, with where they come from.

A delay enters only when the judge finds it again, from the stored solution and the stored
instance. A bound is a method's certificate, which no stored file proves; it enters from runs of
the full system alone, and never above a best known delay: such a contradiction is told.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from finecast.compare.runs.records import Record, Status
from finecast.compare.runs.store import instance_path, read_records, result_folder
from finecast.problem.evaluation import evaluate
from finecast.problem.files import FormatError, is_number, read_json, write_atomically
from finecast.problem.instance import read_instance
from finecast.problem.solution import read_solution

FORMAT = "finecast-best-known"
IMPROVES = 1e-9
"""Share by which a delay must be smaller, or a bound larger, to be entered."""

DISAGREES = 1e-9
"""Share by which the judge's delay may differ from the record's."""


def read_best_known(path: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
    """Return the entries by instance hash; none where there is no file.

    Each has `suite`, `instance_class`, `instance_seed`, and `delay` and `lower_bound` (s, or
    null) with `delay_from` and `bound_from`: label, method, options, restrict, seed, versions,
    commit, started_at.

    Raises
    ------
    FormatError
        The file is damaged or something else.
    """
    if not Path(path).exists():
        return {}
    content = read_json(path)
    try:
        if content["format"] != FORMAT or content["version"] != 1:
            raise FormatError(path, f"is not a {FORMAT} file of version 1")
        entries: dict[str, dict[str, Any]] = content["instances"]
        for key, entry in entries.items():
            for name in ("delay", "lower_bound"):
                if entry[name] is not None and not (is_number(entry[name]) and entry[name] >= 0):
                    raise FormatError(
                        path,
                        f"instances.{key}.{name}: {str(entry[name])[:40]} is not allowed, must be "
                        "a number >= 0 or null",
                    )
            for name, wanted in (("suite", str), ("instance_class", str), ("instance_seed", int)):
                if type(entry[name]) is not wanted:
                    raise FormatError(
                        path, f"instances.{key}.{name}: {str(entry[name])[:40]!r} is not allowed"
                    )
            kind = entry["lower_bound"] is not None and entry["bound_from"]["bound_kind"]
            if kind not in (False, "certified", "milp"):
                raise FormatError(
                    path, f"bound_kind: {kind!r} is not allowed, must be certified or milp"
                )
        return entries
    except (KeyError, TypeError, AttributeError):
        raise FormatError(path, f"is not a {FORMAT} file") from None


def update(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Enter what a result folder improves on; return what changed and what was refused.

    Parameters
    ----------
    source
        Result folder.
    path
        File of best known values, made if there is none.

    Returns
    -------
    `delays`, `bounds` and `refused`, a line each.

    Raises
    ------
    FormatError
        One of the files is damaged or cannot be written.
    """
    folder = result_folder(source)
    entries = read_best_known(path)
    told: dict[str, list[str]] = {"delays": [], "bounds": [], "refused": []}
    for record in read_records(folder):
        if "coarse" in record.restrict.split(","):
            continue  # whole models are another library, so another instance
        entry = entries.get(record.instance_hash) or {
            "suite": record.suite,
            "instance_class": record.instance_class,
            "instance_seed": record.instance_seed,
            "delay": None,
            "delay_from": None,
            "lower_bound": None,
            "bound_from": None,
        }
        # A smaller delay counts if the judge, on the instance as drawn, agrees.
        where = f"{record.suite}, {record.instance_class}, seed {record.instance_seed}"
        changed = False
        known = entry["delay"]
        if record.delay is not None and (known is None or record.delay < known * (1 - IMPROVES)):
            judged = _judged_again(folder, record)
            if isinstance(judged, str):
                told["refused"].append(f"{where}: {record.label}: {judged}")
            else:
                told["delays"].append(f"{where}: {_shown(known)} -> {judged:.9g} s, {record.label}")
                entry |= {"delay": judged, "delay_from": _provenance(record)}
                changed = True
        # A larger bound counts for the full system, unless it contradicts the best delay.
        bound, known = record.lower_bound, entry["lower_bound"]
        broken = record.status in (Status.FAILED, Status.INFEASIBLE)
        own_system = not (broken or record.restrict) and _as_drawn(folder, record)
        if own_system and bound and (known is None or bound > known * (1 + IMPROVES)):
            if entry["delay"] is not None and bound > entry["delay"] * (1 + IMPROVES):
                told["refused"].append(
                    f"{where}: {record.label}: its bound {bound:.9g} s is above the best known "
                    f"delay {entry['delay']:.9g} s, so one of them is wrong"
                )
            else:
                told["bounds"].append(f"{where}: {_shown(known)} -> {bound:.9g} s, {record.label}")
                entry |= {"lower_bound": bound, "bound_from": _provenance(record)}
                changed = True
        if changed:
            entries[record.instance_hash] = entry
    if told["delays"] or told["bounds"]:
        ordered = sorted(entries.items(), key=lambda item: (
            item[1]["suite"], item[1]["instance_class"], item[1]["instance_seed"]))  # fmt: skip
        content = {"format": FORMAT, "version": 1, "instances": dict(ordered)}
        write_atomically(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    return told


def _judged_again(folder: Path, record: Record) -> float | str:
    """Return the judge's delay on the instance as drawn, or why it does not count."""
    if not record.solution:
        return "has no solution file"
    try:
        instance = read_instance(instance_path(folder, record.instance_hash))
        evaluation = evaluate(instance, read_solution(folder / record.solution))
    except FormatError as error:
        return str(error)
    except ValueError as error:
        return f"the solution is for another instance: {error}"
    if not evaluation.feasible:
        return f"the judge finds it infeasible: {evaluation.violations[0]}"
    if not evaluation.guaranteed:
        return "the judge finds that it guarantees nothing"
    said = record.delay or 0.0
    if _as_drawn(folder, record) and abs(evaluation.delay - said) > DISAGREES * said:
        return f"its row says {said:.9g} s, the judge {evaluation.delay:.9g} s"
    return evaluation.delay


def _as_drawn(folder: Path, record: Record) -> bool:
    """Return whether the run had the instance's own delivery and schedule."""
    instance = read_instance(instance_path(folder, record.instance_hash))
    return (record.delivery, record.schedule) == (instance.delivery, instance.schedule)


def _provenance(record: Record) -> dict[str, Any]:
    return {
        "label": record.label,
        "method": record.method,
        "options": json.loads(record.options),
        "restrict": record.restrict,
        "seed": record.seed,
        "time_limit_s": record.time_limit_s,
        "bound_kind": record.bound_kind,
        "versions": dict(record.versions),
        "commit": record.commit,
        "started_at": record.started_at,
    }


def _shown(value: float | None) -> str:
    return "none" if value is None else f"{value:.9g} s"
