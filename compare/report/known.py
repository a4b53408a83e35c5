"""Lower bounds that are known besides those of the runs, such as the shipped best known ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from finecast.compare.runs.best_known import read_best_known
from finecast.compare.runs.records import Record
from finecast.compare.runs.store import instance_path
from finecast.problem.files import FormatError
from finecast.problem.instance import read_instance
from finecast.problem.shipped import find

BEST_KNOWN = "data/best_known.json"
"""Bounds that count besides those of the runs, if the file is there."""


def known_bounds(
    folder: str | os.PathLike[str],
    records: Sequence[Record],
    best_known: str | os.PathLike[str] | None = None,
) -> dict[str, tuple[float, str]]:
    """Return the lower bounds known besides, s, with what they rest on.

    They are by the hash of the instance as solved.
    A known bound is for the instance as drawn: it counts for the runs with that delivery and
    schedule.

    Parameters
    ----------
    folder
        Result folder, where the instances are.
    records
        Its runs.
    best_known
        File of bounds; the shipped one by default, if it is there.

    Raises
    ------
    FormatError
        A file cannot be read.
    """
    try:
        file = find(BEST_KNOWN if best_known is None else best_known)
    except FormatError:
        if best_known is not None:
            raise
        return {}
    solved: dict[str, dict[tuple[str, str], set[str]]] = {}
    for r in records:
        systems = solved.setdefault(r.instance_hash, {})
        systems.setdefault((r.delivery, r.schedule), set()).add(r.solved_hash)
    bounds = {}
    for instance_hash, entry in read_best_known(file).items():
        where = instance_path(Path(folder), instance_hash)
        if entry["lower_bound"] is None or instance_hash not in solved or not where.is_file():
            continue
        drawn = read_instance(where)
        for solved_hash in solved[instance_hash].get((drawn.delivery, drawn.schedule), ()):
            bounds[solved_hash] = (
                float(entry["lower_bound"]),
                str(entry["bound_from"]["bound_kind"]),
            )
    return bounds
