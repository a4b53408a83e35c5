"""TOML files that a pydantic model describes: every mistake is one line."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from finecast.problem.files import FormatError, one_line, read_text, refuse_deep
from finecast.problem.wording import hint

M = TypeVar("M", bound=BaseModel)

CHOICES = ("function-", "constrained", "list[")
"""How pydantic marks the alternatives of a field in the place of a mistake."""


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the table in a TOML file.

    Raises
    ------
    FormatError
        The file cannot be read or is not TOML.
    """
    text = read_text(path)
    try:
        table = tomllib.loads(text)
        refuse_deep(table)
    except RecursionError:
        raise FormatError(path, "not valid TOML: nested too deeply") from None
    except ValueError as error:
        raise FormatError(path, f"not valid TOML: {one_line(str(error))}") from None
    return table


def read_model(model: type[M], path: str | os.PathLike[str]) -> M:
    """Return a model made of a TOML file.

    Raises
    ------
    FormatError
        As in `read_toml`, or as `validated` says.
    """
    table = read_toml(path)
    try:
        return validated(model, table)
    except ValueError as error:
        raise FormatError(path, str(error)) from None


def validated(model: type[M], table: Mapping[str, Any]) -> M:
    """Return a model made of a table.

    Raises
    ------
    ValueError
        A key is unknown (the nearest known one is suggested), or a value is missing or not
        allowed. The message is one line: the field, its value and what is allowed.
    """
    try:
        return model.model_validate(table)
    except ValidationError as error:
        raise ValueError(_first_problem(error, model)) from None


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return two tables as one, key by key: `over` wins, and its `library` counts as a whole."""
    table = dict(under)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(table.get(key), Mapping)
        table[key] = merged(table[key], value) if both and key != "library" else value
    return table


def _first_problem(error: ValidationError, model: type[BaseModel]) -> str:
    """Say the first problem in one line: field, value, what is allowed."""
    problem = error.errors()[0]
    place = [str(part) for part in problem["loc"] if not str(part).startswith(CHOICES)]
    where = f"{'.'.join(place)}: " if place else ""
    if problem["type"] == "extra_forbidden":
        return f"{where}unknown key; {hint(place[-1], _section(model, place[:-1]).model_fields)}"
    if problem["type"] == "missing":
        return f"{where}is missing"
    message = problem["msg"].removeprefix("Value error, ")
    value = problem["input"]
    shown = f"{value!r}: " if where and isinstance(value, str | int | float | list) else ""
    return f"{where}{shown}{message[:1].lower()}{message[1:]}"


def _section(model: type[BaseModel], place: list[str]) -> type[BaseModel]:
    """Return the model of the table at a place, such as ["library", "families", "0"]."""
    for part in place:
        if part in model.model_fields:
            model = _model_in(model.model_fields[part].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model that an annotation such as `list[Model] | None` names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_in, get_args(annotation))), None)
