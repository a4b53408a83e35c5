"""Requests with time stamps, recorded elsewhere: cut into slots, with users and models of ours.

The usual columns are those of BurstGPT (`Timestamp,Session ID,Elapsed time,Model,Request tokens,
Response tokens,Total tokens,Log Type`; the first two files lack the second and third), of which
three count. Its requests by an interface have no session, and those that failed have 0 response
tokens.
"""

from __future__ import annotations

import math
import os
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.csv_rows import csv_rows, shown
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
    failed
        Of the lines, those that failed and were to be left out.
    """

    requests: IntArray
    lines: int
    outside: int
    unknown: int
    second: int
    models: dict[str, int]
    failed: int = 0

    def note(self) -> str:
        """Say how many requests count, and why others do not."""
        used = int((self.requests >= 0).sum())
        left_out = [
            f"{number} {why}"
            for number, why in (
                (self.failed, "failed"),
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
    answered: str | None = None,
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
        A request without a session is one of its own; the second column need not be there.
    answered
        Name of a column; a request with 0 there failed, and is left out. None to count all.

    Raises
    ------
    FormatError
        The file is no such CSV file, or has a time that is none, an empty model, a negative number
        in `answered`, or no request that counts. Names the line.
    ValueError
        `models` names a model that is not in the library.
    """
    table = None if models == "rank" else _numbers(models, model_names)
    lines = _read(path, columns, answered)
    stamp, total = lines.stamp, len(lines.stamp) + lines.failed
    if not len(stamp):
        what = "has no request" if not total else f"has only failed requests ({total})"
        raise FormatError(path, f"{what}, must have at least one line that counts")

    # What lies within the slots, the earliest first; of equal times the first line.
    begin = float(stamp.min()) if start_s is None else start_s
    with np.errstate(over="ignore"):
        slot_of = np.floor((stamp - begin) / slot_s)
    within = np.flatnonzero((slot_of >= 0) & (slot_of < slots))
    within = within[np.argsort(stamp[within], kind="stable")]
    if table is None:
        often = np.bincount(lines.model[within], minlength=len(lines.models))
        asked = [m for m in range(len(lines.models)) if often[m]]
        ranked = sorted(asked, key=lambda m: (-often[m], lines.models[m]))
        table = {lines.models[m]: rank for rank, m in enumerate(ranked[: len(model_names)])}
    ours = [table.get(model, -1) for model in lines.models]

    requests = np.full((slots, users), -1)
    number: dict[int, int] = {}
    unknown = second = 0
    for row, slot in zip(within.tolist(), slot_of[within].astype(np.int64).tolist(), strict=True):
        model, session = ours[lines.model[row]], int(lines.session[row])
        if model < 0:
            unknown += 1
            continue
        if who == "hash":
            user = zlib.crc32(lines.name(session).encode()) % users
        else:
            user = number.setdefault(session, len(number) % users)
        if requests[slot, user] >= 0:
            second += 1
            continue
        requests[slot, user] = model
    outside = len(stamp) - len(within)
    if not (requests >= 0).any():
        raise FormatError(
            path,
            f"none of its {counted(total, 'request')} counts: {outside} lie "
            f"outside of {counted(slots, 'slot')} of {slot_s:g} s from {begin:g} s on, {unknown} "
            "are for models that none of ours stands for",
        )
    return Replay(requests, total, outside, unknown, second, table, lines.failed)


@dataclass(frozen=True, eq=False)
class _Lines:
    """The lines of a trace that count, in small arrays: there may be millions.

    Attributes
    ----------
    stamp
        (L,) s.
    model
        (L,) index into `models`.
    session
        (L,) index into `sessions`; minus its number for a line that is a session of its own.
    models, sessions
        Names, in the order in which they came.
    failed
        Lines left out because nothing came of them.
    """

    stamp: FloatArray
    model: IntArray
    session: IntArray
    models: list[str]
    sessions: list[str]
    failed: int

    def name(self, session: int) -> str:
        """Return the name of a session."""
        return self.sessions[session] if session >= 0 else f"line {-session}"


def _read(path: str | os.PathLike[str], columns: Sequence[str], answered: str | None) -> _Lines:
    """Return the lines of a trace; see `read_replay`."""
    stamp, model, session = array("d"), array("q"), array("q")
    models: dict[str, int] = {}
    sessions: dict[str, int] = {}
    failed = 0
    wanted = list(columns) if answered is None else [*columns, answered]
    for line, fields in csv_rows(path, wanted, others=True, absent=columns[1:2]):
        seconds, who, what = _seconds(fields[0]), fields[1], fields[2]
        if math.isnan(seconds):
            raise FormatError(
                path,
                f"line {line}, field {columns[0]!r}: {shown(fields[0])} is not allowed, must be "
                "seconds or a date as in 2026-08-01T12:00:00",
            )
        if not what:
            raise FormatError(path, f"line {line}, field {columns[2]!r} is empty, must be a name")
        if answered is not None and _nothing(path, line, answered, fields[3]):
            failed += 1
            continue
        stamp.append(seconds)
        model.append(models.setdefault(what, len(models)))
        session.append(sessions.setdefault(who, len(sessions)) if who else -line)
    return _Lines(
        np.array(stamp), np.array(model), np.array(session), list(models), list(sessions), failed
    )


def _nothing(path: str | os.PathLike[str], line: int, column: str, text: str) -> bool:
    """Return whether nothing came of a request: the number in a column is 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not value >= 0:
        raise FormatError(
            path, f"line {line}, field {column!r}: {shown(text)} is not allowed, must be >= 0"
        )
    return value == 0


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
