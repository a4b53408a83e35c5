"""A solver's solution file as names and values: HiGHS, Gurobi, CPLEX (XML) and SCIP.

HiGHS    "Model status" first, then "# Columns N" and N lines "name value" (solution style 0)
Gurobi   "# Objective value = v", then lines "name value"
CPLEX    XML with <header objectiveValue="v"> and <variable name="..." value="..."/>
SCIP     "solution status: ...", "objective value: v", then "name value (obj:c)", zeros left out
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from xml.etree import ElementTree

from finecast.problem.files import FormatError, one_line, read_text

MOST_SHOWN = 80
"""Most characters of a line that a message shows."""


@dataclass(frozen=True)
class SolverValues:
    """What a solution file says.

    Parameters
    ----------
    solver
        "HiGHS", "Gurobi", "CPLEX" or "SCIP".
    values
        The value of each variable by name.
    objective
        What the solver says its objective is; None where it says nothing.
    complete
        Every variable is there; else those that are not are zero.
    """

    solver: str
    values: dict[str, float]
    objective: float | None
    complete: bool


def read_sol(path: str | os.PathLike[str]) -> SolverValues:
    """Read a solution file.

    Raises
    ------
    FormatError
        It is of none of the four forms, is cut, has no solution, names a variable twice, or has a
        value that is no finite number; one line says where.
    """
    text = read_text(path)
    lines = text.splitlines()
    first = next((line.strip() for line in lines if line.strip()), "")
    if first.startswith("<"):
        return _cplex(path, text)
    if first == "Model status":
        return _highs(path, lines)
    if first.startswith("solution status:"):
        return _scip(path, lines)
    if first == "Columns":
        raise FormatError(
            path, "is in the readable style of HiGHS; write it with write_solution_style 0"
        )
    if first.startswith("#"):
        return _gurobi(path, lines)
    raise FormatError(path, "is no solution file of HiGHS, Gurobi, CPLEX (XML) or SCIP")


def _highs(path: str | os.PathLike[str], lines: list[str]) -> SolverValues:
    start = next((i for i, line in enumerate(lines) if line.startswith("# Columns ")), None)
    if start is None:
        raise FormatError(path, "has no '# Columns', so no solution, or it is cut")
    said = [line.split() for line in lines[:start]]
    objective = next((words[1] for words in said if words[:1] == ["Objective"] and words[1:]), None)
    count = lines[start].split()[2] if len(lines[start].split()) == 3 else ""
    if not count.isdecimal() or len(count) > 12:
        raise FormatError(path, f"line {start + 1}: {_shown(lines[start])}, expected '# Columns N'")
    values: dict[str, float] = {}
    for i in range(start + 1, start + 1 + int(count)):
        if i >= len(lines) or lines[i].startswith("#"):
            raise FormatError(path, f"is cut: has {len(values)} of {count} variables")
        _take(path, i, lines[i].split(), values)
    return SolverValues("HiGHS", values, _number_or_none(objective), True)


def _gurobi(path: str | os.PathLike[str], lines: list[str]) -> SolverValues:
    objective = None
    values: dict[str, float] = {}
    for i, line in enumerate(lines):
        if line.startswith("#"):
            head, equals, value = line.partition("=")
            if equals and head.strip().lower() == "# objective value":
                objective = value.strip()
        elif line.strip():
            _take(path, i, line.split(), values)
    if not values:
        raise FormatError(path, "has no variable, so no solution, or it is cut")
    return SolverValues("Gurobi", values, _number_or_none(objective), True)


def _scip(path: str | os.PathLike[str], lines: list[str]) -> SolverValues:
    objective = None
    values: dict[str, float] = {}
    for i, line in enumerate(lines):
        if line.strip() == "no solution available":
            raise FormatError(path, "says that there is no solution")
        if line.startswith("objective value:"):
            objective = line.partition(":")[2].strip()
        elif line.strip() and not line.startswith("solution status:"):
            words = line.split()
            _take(
                path, i, words[:2] if words[2:] and words[2].startswith("(obj:") else words, values
            )
    if objective is None:
        raise FormatError(path, "has no 'objective value:', so no solution, or it is cut")
    return SolverValues("SCIP", values, _number_or_none(objective), False)


def _cplex(path: str | os.PathLike[str], text: str) -> SolverValues:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise FormatError(path, "declares a document type or entities, which is not allowed")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:  # ValueError: a declared encoding
        raise FormatError(path, f"is no valid XML, or cut: {one_line(str(error))}") from None
    solution = root if root.tag == "CPLEXSolution" else root.find("CPLEXSolution")
    if solution is None:
        raise FormatError(path, f"has <{root.tag[:MOST_SHOWN]}>, expected <CPLEXSolution>")
    values: dict[str, float] = {}
    for i, variable in enumerate(solution.iterfind("variables/variable")):
        words = [variable.get("name", ""), variable.get("value", "")]
        _take(path, i, words, values, where="variable")
    if not values:
        raise FormatError(path, "has no variable, so no solution")
    header = solution.find("header")
    objective = None if header is None else header.get("objectiveValue")
    return SolverValues("CPLEX", values, _number_or_none(objective), True)


def _take(
    path: str | os.PathLike[str],
    i: int,
    words: list[str],
    values: dict[str, float],
    where: str = "line",
) -> None:
    """Take one variable; `words` are its name and its value."""
    place = f"{where} {i + 1}"
    if len(words) != 2:
        raise FormatError(path, f"{place}: {_shown(' '.join(words))}, expected a name and a value")
    name, value = words[0], _number_or_none(words[1])
    if value is None:
        raise FormatError(
            path, f"{place}: {_shown(name)} has the value {_shown(words[1])}, expected a number"
        )
    if name in values:
        raise FormatError(path, f"{place}: {_shown(name)} is there twice")
    values[name] = value


def _number_or_none(text: str | None) -> float | None:
    """Return a finite number, None for any other text."""
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _shown(text: str) -> str:
    return repr(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}...")
