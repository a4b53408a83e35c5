"""Names that stand for one thing each: what an edited suite would mix in one row is kept apart.

A suite that was edited under the same name can ask for other options or limits under an old label,
and another version or suite can have a class of an old name. Such labels and classes are completed
by what they differ in.
"""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from finecast.compare.runs.records import Record


def kept_apart(records: Sequence[Record]) -> list[Record]:
    """Return the records with completed labels and classes where these are of several things.

    A warning names them.

    Parameters
    ----------
    records
        Of one or several result folders.
    """
    # One class of several suites or versions.
    suites: dict[str, set[tuple[str, int]]] = {}
    for r in records:
        suites.setdefault(r.instance_class, set()).add((r.suite, r.suite_version))
    shared = {name for name, of in suites.items() if len(of) > 1}
    # One label for several runs of the same instance and seed.
    asked = Counter((r.label, r.instance_hash, r.seed) for r in records)
    twofold = sorted({label for (label, _, _), count in asked.items() if count > 1})
    names = {label: _distinct(r for r in records if r.label == label) for label in twofold}
    for what, found in (("class", sorted(shared)), ("method", twofold)):
        if found:
            warnings.warn(
                f"the {what} {', '.join(map(repr, found))} stands for several in this folder; "
                "their rows are kept apart",
                stacklevel=2,
            )
    return [
        replace(
            r,
            label=names[r.label][r.key] if r.label in names else r.label,
            instance_class=f"{r.instance_class} ({r.suite} version {r.suite_version})"
            if r.instance_class in shared
            else r.instance_class,
        )
        for r in records
    ]


def _distinct(records: Iterable[Record]) -> dict[str, str]:
    """Return by key the label of records that share one, with all that they differ in."""
    said = {r.key: (r.label, _asked(r)) for r in records}
    keys = {name for _, asked in said.values() for name in asked}
    differ = sorted(k for k in keys if len({asked.get(k) for _, asked in said.values()}) > 1)
    return {
        key: " ".join([label, *(f"{k}={asked[k]}" for k in differ if k in asked)])
        for key, (label, asked) in said.items()
    }


def _asked(r: Record) -> dict[str, str]:
    """Return what a run was asked, in short texts."""
    options = {name: json.dumps(value) for name, value in json.loads(r.options).items()}
    limits = {"time_limit_s": r.time_limit_s, "memory_limit_bytes": r.memory_limit_bytes}
    return {
        **{name: text.strip('"').replace(",", ";") for name, text in options.items()},
        **{name: f"{value:g}" for name, value in limits.items() if value is not None},
        "method": r.method,
        "restrict": r.restrict.replace(",", "+") or "nothing",
        "delivery": r.delivery,
        "schedule": r.schedule,
    }
