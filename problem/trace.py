"""Traces: requests recorded elsewhere, from CSV, in place of the demand generator."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import numpy as np

from finecast.problem.arrays import IntArray
from finecast.problem.csv_rows import csv_rows, shown
from finecast.problem.files import FormatError

COLUMNS = ("slot", "user", "model")


def read_trace(
    path: str | os.PathLike[str],
    slots: int,
    users: int,
    models: int,
    model_names: Sequence[str] | None = None,
) -> IntArray:
    """Return the requests (T, K) of a CSV file with the columns slot, user, model.

    The first line names the columns, in any order. Every other line is one request; a user
    without a line in a slot requests nothing (-1).

    Parameters
    ----------
    path
        CSV file in UTF-8, commas between the fields, blank lines skipped.
    slots, users, models
        T, K and M; slots, users and models are counted from 0.
    model_names
        (M,), names that may stand in the file in place of numbers; a name that looks like a
        number is a name.

    Raises
    ------
    FormatError
        The file cannot be read, is not such a CSV file, names something that does not exist, or
        has two requests of one user in one slot. Names line, field and what is allowed.
    ValueError
        `model_names` are not M different names.
    """
    if model_names is not None and len(set(model_names)) != len(model_names):
        raise ValueError("model_names: a name stands twice, names must differ")
    if model_names is not None and len(model_names) != models:
        raise ValueError(f"model_names: {len(model_names)} names, expected {models}")
    number_of = {
        "slot": {str(t): t for t in range(slots)},
        "user": {str(k): k for k in range(users)},
        "model": {str(m): m for m in range(models)},
    }
    number_of["model"] |= {name: m for m, name in enumerate(model_names or ())}

    requests = np.full((slots, users), -1)
    for line, fields in csv_rows(path, COLUMNS):
        try:
            t, k, m = (number_of[name][f] for name, f in zip(COLUMNS, fields, strict=True))
        except KeyError:
            wrong = _first_wrong(fields, number_of, named=model_names is not None)
            raise FormatError(path, f"line {line}, {wrong}") from None
        if requests[t, k] >= 0:
            raise FormatError(
                path,
                f"line {line}: user {k} has a second request in slot {t}, one is allowed",
            )
        requests[t, k] = m
    return requests


def _first_wrong(
    fields: Sequence[str], number_of: Mapping[str, Mapping[str, int]], *, named: bool
) -> str:
    field, value = next(
        (name, value)
        for name, value in zip(COLUMNS, fields, strict=True)
        if value not in number_of[name]
    )
    last = max(number_of[field].values(), default=-1)
    allowed = f"an integer from 0 to {last}"
    if field == "model" and named:
        allowed += " or the name of a model"
    return f"field {field!r}: {shown(value)} is not allowed, must be {allowed}"
