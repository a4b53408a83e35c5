"""Options: tables to frozen dataclasses, every mistake in one line."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

T = TypeVar("T")


def dataclass_from(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """Return a frozen dataclass from a table of its fields.

    Parameters
    ----------
    cls
        The dataclass; its constructor checks ranges.
    table
        Values by name.
    where
        What to call the table in a message.

    Raises
    ------
    ValueError
        A field is unknown, missing, or of another kind.
    """
    hints = get_type_hints(cls)
    known = [item.name for item in fields(cls)]  # type: ignore[arg-type]
    values = {}
    for name, value in table.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"{where}: {name!r} is unknown; {hint}")
        values[name] = _typed(f"{where}.{name}", value, hints[name])
    try:
        return cls(**values)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None


def _typed(name: str, value: Any, hint: Any) -> Any:
    """Return the value as the annotation wants it; whole numbers serve as numbers."""
    origin = get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{name}: {value!r} is not allowed, must be a list")
        return tuple(_typed(name, item, get_args(hint)[0]) for item in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > sys.float_info.max:
            raise ValueError(f"{name}: {value} is not allowed, must be a number that float64 holds")
        return float(value)
    kinds = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    if hint in kinds and (
        not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool)
    ):
        raise ValueError(f"{name}: {value!r} is not allowed, must be {kinds[hint]}")
    return value


MOST = 10**6
"""No option of a learner is larger, unless its limit is another."""

MOST_STEPS = 10**9
"""What is counted in steps goes further."""

MOST_WIDTH = 4096
"""Units of a layer; more would not fit in memory."""

MOST_ROUNDS = 1000
"""Rounds in which nodes decide."""


def at_least(config: Any, low: float, *names: str, most: float = MOST) -> None:
    """Refuse fields below a limit, above another, or not numbers.

    Raises
    ------
    ValueError
        Names the field, its value and what is allowed.
    """
    for name in names:
        value = getattr(config, name)
        if not low <= value <= most:
            raise ValueError(f"{name}: {value} is not allowed, must be >= {low} and <= {most}")


def one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse another word.

    Raises
    ------
    ValueError
        Names the field, its value and what is allowed.
    """
    if value not in allowed:
        raise ValueError(f"{name}: {value!r} is not allowed, must be one of {', '.join(allowed)}")
