"""Requests with time stamps, recorded elsewhere: cut into slots, with users and models of ours.

The usual columns are those of BurstGPT (`Timestamp,Session ID,Elapsed time,Model,Request tokens,
Response tokens,Total tokens,Log Type`), of which three count.
"""

from __future__ import annotations

import math
import os
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from finecast.problem.arrays import IntArray
from finecast.problem.csv_rows import csv_rows, first_line, shown
from finecast.problem.files import FormatError
from finecast.problem.wording import counted

COLUMNS = ("Timestamp", "Session ID", "Model")
"""Names of the columns with the time, the user and the model."""

Users = Literal["first-come", "hash"]


@dataclass(frozen=True, eq=False)
class Replay:
    """The requests of a trace, and what became of its lines.

    Attributes
    ----------
    requests
        (T, K) model, -1 for none.
    lines
        Requests in the file.
    outside
        Of them, before the first slot or after the last.
    unknown
        Of the others, for models that have no model of ours.
    second
        Of the others, of a user who has requested something in that slot already.
    models
        Which model of ours stands for which of the trace.
    """

    requests: IntArray
    lines: int
    outside: int
    unknown: int
    second: int
    models: dict[str, int]

    def note(self) -> str:
        """Say how many requests count, and why others do not."""
        used = int((self.requests >= 0).sum())
        left_out = [
            f"{number} {why}"
            for number, why in (
                (self.outside, "outside of the slots"),
                (self.unknown, "for models that none of ours stands for"),
                (self.second, "of a user with one in the same slot"),
            )
            if number
        ]
        rest = f"; left out: {', '.join(left_out)}" if left_out else ""
        return f"trace: {used} of {counted(self.lines, 'request')}{rest}"


def read_replay(
    path: str | os.PathLike[str],
    slots: int,
    users: int,
    model_names: Sequence[str],
    *,
    slot_s: float,
    start_s: float | None = None,
    models: Literal["rank"] | Mapping[str, str | int] = "rank",
    who: Users = "first-come",
    columns: Sequence[str] = COLUMNS,
) -> Replay:
    """Return the requests of a CSV file with time stamps.

    Of several requests of a user in a slot the earliest counts.

    Parameters
    ----------
    path
        CSV file in UTF-8 with one request a line, in any order.
    slots, users
        T and K.
    model_names
        (M,), names of the models of the library.
    slot_s
        Length of a slot, s.
    start_s
        Time stamp at which slot 0 begins, s; None for the earliest.
    models
        `rank`: of the models requested within the slots the most requested one is model 0, and so
        on, ties by name; those beyond M are left out. Or a table from models of the trace to names
        or numbers of ours; others are left out.
    who
        `first-come`: sessions become users in turn, by their first request within the slots.
        `hash`: by a hash of the session, which is the same in every part of a trace.
    columns
        Names of the columns with the time (seconds, or dates of ISO 8601), the user and the model.
        Without the second one every request is a session of its own.

    Raises
    ------
    FormatError
        The file is no such CSV file, or has a time that is none, an empty model, or no request that
        counts. Names the line.
    ValueError
        `models` names a model that is not in the library.
    """
    table = None if models == "rank" else _numbers(models, model_names)
    wanted = list(columns)
    sessions = columns[1] in first_line(path)
    if not sessions:
        del wanted[1]

    # All lines, by time; a line without a session is one.
    found: list[tuple[float, int, str, str]] = []
    for line, fields in csv_rows(path, wanted, others=True):
        stamp, model = _seconds(fields[0]), fields[-1]
        if math.isnan(stamp):
            raise FormatError(
                path,
                f"line {line}, field {columns[0]!r}: {shown(fields[0])} is not allowed, must be "
                "seconds or a date as in 2026-08-01T12:00:00",
            )
        if not model:
            raise FormatError(path, f"line {line}, field {columns[2]!r} is empty, must be a name")
        if sessions and not fields[1]:
            raise FormatError(path, f"line {line}, field {columns[1]!r} is empty, must be a name")
        found.append((stamp, line, fields[1] if sessions else f"line {line}", model))
    found.sort(key=lambda row: row[:2])
    if not found:
        raise FormatError(path, "has no request, must have at least one line")

    # What lies within the slots.
    begin = found[0][0] if start_s is None else start_s
    within = []
    for stamp, _, session, model in found:
        slot = math.floor((stamp - begin) / slot_s)
        if 0 <= slot < slots:
            within.append((slot, session, model))
    if table is None:
        often = Counter(model for _, _, model in within)
        ranked = sorted(often, key=lambda model: (-often[model], model))
        table = {model: rank for rank, model in enumerate(ranked[: len(model_names)])}

    requests = np.full((slots, users), -1)
    number: dict[str, int] = {}
    unknown = second = 0
    for slot, session, model in within:
        if model not in table:
            unknown += 1
            continue
        if who == "hash":
            user = zlib.crc32(session.encode()) % users
        else:
            user = number.setdefault(session, len(number) % users)
        if requests[slot, user] >= 0:
            second += 1
            continue
        requests[slot, user] = table[model]
    if not (requests >= 0).any():
        raise FormatError(
            path,
            f"none of its {counted(len(found), 'request')} counts: {len(found) - len(within)} lie "
            f"outside of {counted(slots, 'slot')} of {slot_s:g} s from {begin:g} s on, {unknown} "
            "are for models that none of ours stands for",
        )
    return Replay(requests, len(found), len(found) - len(within), unknown, second, table)


def _numbers(models: Mapping[str, str | int], names: Sequence[str]) -> dict[str, int]:
    """Return the number of our model for each of the trace."""
    place = {name: m for m, name in enumerate(names)}
    table = {}
    for theirs, ours in models.items():
        m = place.get(ours, -1) if isinstance(ours, str) else ours
        if not 0 <= m < len(names):
            raise ValueError(
                f"demand.replay.models: {ours!r} for {theirs!r} is not allowed, must be the name "
                f"of a model of the library or a number from 0 to {len(names) - 1}"
            )
        table[theirs] = m
    return table


def _seconds(text: str) -> float:
    """Return a time stamp in seconds; NaN if it is none."""
    try:
        value = float(text)
    except ValueError:
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            return math.nan
        value = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
    return value if math.isfinite(value) else math.nan
