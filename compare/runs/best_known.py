"""Best known delays and bounds of the suites' instances, with where they come from.

A delay enters only when the judge finds it again, from the stored solution and the stored
instance. A bound is a method's certificate, which no stored file proves; it enters from runs of
the full system alone, and never above a best known delay: such a contradiction is told.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finecast.compare.runs.records import Record, Status
from finecast.compare.runs.store import instance_path, read_records, result_folder
from finecast.compare.runs.suite import Drawn
from finecast.problem.evaluation import evaluate
from finecast.problem.files import FormatError, is_number, read_json, write_atomically
from finecast.problem.instance import Instance, read_instance
from finecast.problem.solution import read_solution
from finecast.problem.version import FINECAST_VERSION

FORMAT = "finecast-best-known"
IMPROVES = 1e-9
"""Share by which a delay must be smaller, or a bound larger, to be entered."""

DISAGREES = 1e-9
"""Share by which the judge's delay may differ from the record's."""

MOST_BYTES = 64_000
"""Solutions up to this size are stored beside the file."""


def solution_file(path: str | os.PathLike[str], instance_hash: str) -> Path:
    """Return where the solution of a best known delay is stored, if it is small enough.

    Parameters
    ----------
    path
        Of the file of best known values.
    instance_hash
        Of the instance.
    """
    return Path(path).with_suffix("") / f"{instance_hash}.npz"


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

    Solutions of up to `MOST_BYTES` are stored beside the file.

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
    stored: dict[str, Path] = {}
    for record in read_records(folder):
        if "coarse" in record.restrict.split(","):
            continue  # whole models are another library, so another instance
        entry = entries.get(record.instance_hash) or _new_entry(
            record.suite, record.instance_class, record.instance_seed
        )
        # A smaller delay counts if the judge, on the instance as drawn, agrees.
        where = f"{record.suite}, {record.instance_class}, seed {record.instance_seed}"
        changed = False
        known = entry["delay"]
        if record.delay is not None and (known is None or record.delay < known * (1 - IMPROVES)):
            judged = _judged_again(folder, record)
            if isinstance(judged, str):
                told["refused"].append(f"{where}: {record.label}: {judged}")
            # A plan for another schedule has another delay here, and that may be no better.
            elif known is None or judged < known * (1 - IMPROVES):
                told["delays"].append(f"{where}: {_shown(known)} -> {judged:.9g} s, {record.label}")
                entry |= {"delay": judged, "delay_from": _provenance(record)}
                stored[record.instance_hash] = folder / record.solution
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
        _write(path, entries, stored)
    return told


def submit(
    source: str | os.PathLike[str],
    drawn: Drawn,
    suite: str,
    found_by: str,
    path: str | os.PathLike[str],
) -> tuple[float | None, float]:
    """Enter a solution if the judge finds that it is better than what is known.

    Parameters
    ----------
    source
        Solution file.
    drawn
        The instance.
    suite
        Name of its suite.
    found_by
        Who found it and how, in words.
    path
        File of best known values, made if there is none.

    Returns
    -------
    The delay known before (None without one), and that of the solution, s.

    Raises
    ------
    ValueError
        The judge denies the solution, it is not better, or it contradicts the best known bound.
    FormatError
        One of the files is damaged or cannot be written.
    """
    entries = read_best_known(path)
    judged = judged_delay(drawn.instance, source)
    if isinstance(judged, str):
        raise ValueError(f"{source}: {judged}")
    entry = entries.get(drawn.hash) or _new_entry(suite, drawn.instance_class.name, drawn.seed)
    known, bound = entry["delay"], entry["lower_bound"]
    if known is not None and judged >= known * (1 - IMPROVES):
        raise ValueError(f"{source}: has {judged:.9g} s, known are {known:.9g} s: not better")
    if bound is not None and bound > judged * (1 + IMPROVES):
        raise ValueError(
            f"{source}: has {judged:.9g} s, below the best known bound {bound:.9g} s: one of them "
            "is wrong, please report it"
        )
    now = datetime.now(UTC).isoformat(timespec="seconds")
    said = {"label": found_by, "method": found_by, "options": {}, "restrict": "", "seed": 0}
    said |= {"versions": {"finecast": FINECAST_VERSION}, "commit": "", "started_at": now}
    entries[drawn.hash] = entry | {"delay": judged, "delay_from": said}
    _write(path, entries, {drawn.hash: Path(source)})
    return known, judged


def _new_entry(suite: str, instance_class: str, seed: int) -> dict[str, Any]:
    """Return the entry of an instance of which nothing is known."""
    where = {"suite": suite, "instance_class": instance_class, "instance_seed": seed}
    return {**where, "delay": None, "delay_from": None, "lower_bound": None, "bound_from": None}


def _write(
    path: str | os.PathLike[str], entries: dict[str, dict[str, Any]], stored: dict[str, Path]
) -> None:
    """Write the file in the order of the suites, and the new solutions that are small enough."""
    for instance_hash, source in stored.items():
        target, content = solution_file(path, instance_hash), source.read_bytes()
        if len(content) <= MOST_BYTES:
            target.parent.mkdir(exist_ok=True)
            write_atomically(target, content)
        else:
            target.unlink(missing_ok=True)  # of the delay that was known before
    ordered = sorted(entries.items(), key=lambda item: (
        item[1]["suite"], item[1]["instance_class"], item[1]["instance_seed"]))  # fmt: skip
    content_of = {"format": FORMAT, "version": 1, "instances": dict(ordered)}
    write_atomically(path, (json.dumps(content_of, indent=1, allow_nan=False) + "\n").encode())


def judged_delay(instance: Instance, solution: str | os.PathLike[str]) -> float | str:
    """Return the delay that the judge finds in a solution file, or why it does not count."""
    try:
        evaluation = evaluate(instance, read_solution(solution))
    except FormatError as error:
        return str(error)
    except ValueError as error:
        return f"the solution is for another instance: {error}"
    if not evaluation.feasible:
        return f"the judge finds it infeasible: {evaluation.violations[0]}"
    if not evaluation.guaranteed:
        return "the judge finds that it guarantees nothing"
    return evaluation.delay


def _judged_again(folder: Path, record: Record) -> float | str:
    """Return the judge's delay on the instance as drawn, or why it does not count."""
    if not record.solution:
        return "has no solution file"
    try:
        instance = read_instance(instance_path(folder, record.instance_hash))
    except FormatError as error:
        return str(error)
    judged = judged_delay(instance, folder / record.solution)
    said = record.delay or 0.0
    if isinstance(judged, str) or not _as_drawn(folder, record):
        return judged
    if abs(judged - said) > DISAGREES * said:
        return f"its row says {said:.9g} s, the judge {judged:.9g} s"
    return judged


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
