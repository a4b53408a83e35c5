"""Grids: a suite's classes at every point of a grid of scenario values.

`[[sweep]]` in a suite names a key of the scenario and its values. Every class then stands for as
many classes as the grid has points, each named by its point.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from finecast.problem.files import parse_json

MOST_POINTS = 10_000
"""Points of one sweep."""

LONGEST_NAME = 80
"""Characters of a class's name."""


def expanded(table: Any) -> Any:
    """Return a suite's table with the classes at all points of its `sweep`.

    What is not a table of the expected kind is left alone, for the checks that come after. Classes
    that have a `point` already stay as they are.

    Raises
    ------
    ValueError
        The grid has too many points, or a key stands twice.
    """
    axes = table.get("sweep") if isinstance(table, Mapping) else None
    classes = table.get("classes") if axes else None
    if not isinstance(axes, list) or not isinstance(classes, list):
        return table
    if not all(_is_axis(axis) for axis in axes) or not all(isinstance(c, dict) for c in classes):
        return table
    if all(one.get("point") for one in classes):
        return table
    keys = [axis["vary"] for axis in axes]
    if len(set(keys)) < len(keys):
        raise ValueError(f"sweep: {next(k for k in keys if keys.count(k) > 1)!r} is varied twice")
    points = 1
    for axis in axes:
        points *= len(axis["values"])
    if points * len(classes) > MOST_POINTS:
        raise ValueError(
            f"sweep: has {points * len(classes)} points, at most {MOST_POINTS} allowed"
        )
    grid = list(product(*(list(enumerate(axis["values"])) for axis in axes)))
    return {
        **table,
        "classes": [_at(one, keys, values) for one in classes for values in grid],
    }


def _is_axis(axis: Any) -> bool:
    return (
        isinstance(axis, dict)
        and isinstance(axis.get("vary"), str)
        and isinstance(axis.get("values"), list)
        and bool(axis["values"])
    )


def _at(
    one: Mapping[str, Any], keys: Sequence[str], numbered: Sequence[tuple[int, Any]]
) -> dict[str, Any]:
    """Return a class at a point: its name and its `point`."""
    values = [(i, (key, value)) for key, (i, value) in zip(keys, numbered, strict=True)]
    return {
        **one,
        "name": named_by(str(one.get("name", "")), values),
        "point": {key: value for _, (key, value) in values},
    }


def named_by(name: str, values: Sequence[tuple[int, tuple[str, Any]]]) -> str:
    """Return a class's name with its values by key; those too long are told by their number."""
    long = " ".join([name, *(f"{key}={shown(value)}" for _, (key, value) in values)])
    if len(long) <= LONGEST_NAME:
        return long
    short = " ".join([name, *(f"{key.rsplit('.')[-1]}#{i}" for i, (key, _) in values)])
    return short[:LONGEST_NAME].strip()


def shown(value: Any) -> str:
    """Return a value as a class's name has it: no slash, no line break."""
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.rstrip("/").rsplit("/", 1)[-1].split())


def parse_axis(text: str) -> tuple[str, list[Any]]:
    """Return the key and the values of `KEY=VALUE,VALUE,...`.

    Values are JSON where they parse, so that lists stand in brackets; else they are texts.

    Raises
    ------
    ValueError
        There is no key or no value, or a value stands twice.
    """
    key, equals, values = text.partition("=")
    key = key.strip()
    if not equals or not key or not values.strip():
        raise ValueError(f"--vary: {text!r} is not allowed, must be KEY=VALUE,VALUE,...")
    try:
        found = list(parse_json(f"[{values}]"))
    except ValueError:
        found = [_value(part.strip()) for part in values.split(",")]
    if "" in found:
        raise ValueError(f"--vary: {text!r} has an empty value")
    for value in found:
        if sum(other == value and type(other) is type(value) for other in found) > 1:
            raise ValueError(f"--vary: {key} has the value {shown(value)} twice")
    return key, found


def _value(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return text
