"""Tables from CSV files, read without trust: every mistake is one line with its row and column."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from finecast.problem.csv_rows import csv_lines, shown
from finecast.problem.files import FormatError
from finecast.problem.wording import hint

MOST_ROWS = 1_000_000


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes
    ----------
    path
        Of the file.
    line
        Number in the file, the line with the names of the columns being 1.
    fields
        Text by column.
    """

    path: Path
    line: int
    fields: dict[str, str]

    def text(self, column: str) -> str:
        """Return what stands in a column.

        Raises
        ------
        FormatError
            Nothing does.
        """
        if not self.fields[column]:
            raise self.wrong(column, "is empty")
        return self.fields[column]

    def number(
        self, column: str, *, low: float = -math.inf, high: float = math.inf, above: bool = False
    ) -> float:
        """Return the number in a column.

        Parameters
        ----------
        column
            Its name.
        low, high
            The least and the largest that is allowed.
        above
            `low` itself is not allowed.

        Raises
        ------
        FormatError
            There is no number, or another one.
        """
        text = self.text(column)
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.wrong(column, f"{shown(text)} is not a number")
        if value < low or value > high or (above and value == low):
            if math.isinf(high):
                allowed = f"{'>' if above else '>='} {low:g}"
            else:
                allowed = f"from {low:g} to {high:g}"
            raise self.wrong(column, f"{shown(text)} is not allowed, must be {allowed}")
        return value

    def whole(self, column: str, *, low: int, high: int) -> int:
        """Return the whole number in a column; as `number`."""
        value = self.number(column, low=low, high=high)
        if value != int(value):
            text = shown(self.text(column))
            raise self.wrong(column, f"{text} is not allowed, must be a whole number")
        return int(value)

    def one_of(self, column: str, known: Sequence[str], kind: str) -> int:
        """Return the place of the name in a column among those known.

        Raises
        ------
        FormatError
            It is unknown; the nearest known one is suggested.
        """
        name = self.text(column)
        if name not in known:
            raise self.wrong(column, f"{kind} {shown(name)} is unknown; {hint(name, known)}")
        return known.index(name)

    def wrong(self, column: str, what: str) -> FormatError:
        """Return the error that something is wrong in a column of this line."""
        return FormatError(self.path, f"line {self.line}, column {column!r}: {what}")


def read_table(
    path: str | os.PathLike[str], needed: Sequence[str], others: Sequence[str] = ()
) -> list[Row]:
    """Return the rows of a CSV file whose first line names the columns, in any order.

    Parameters
    ----------
    path
        CSV file in UTF-8, commas between the fields, blank lines skipped.
    needed, others
        The columns that must and may be there.

    Raises
    ------
    FormatError
        The file cannot be read, is no CSV, lacks a column, has an unknown one or one twice, has no
        rows, or a row has fewer or more fields than there are columns.
    """
    lines = csv_lines(path)
    _, names = next(lines)
    _check_columns(path, names, needed, others)
    rows: list[Row] = []
    for line, fields in lines:
        if len(rows) == MOST_ROWS:
            raise FormatError(path, f"line {line}: more than {MOST_ROWS} rows")
        rows.append(Row(Path(path), line, dict(zip(names, fields, strict=True))))
    if not rows:
        raise FormatError(path, "has no rows under the names of its columns")
    return rows


def _check_columns(
    path: str | os.PathLike[str], names: list[str], needed: Sequence[str], others: Sequence[str]
) -> None:
    known = [*needed, *others]
    for name in names:
        if name not in known:
            raise FormatError(path, f"line 1: unknown column {shown(name)}; {hint(name, known)}")
        if names.count(name) > 1:
            raise FormatError(path, f"line 1: column {name!r} stands twice")
    for name in needed:
        if name not in names:
            raise FormatError(
                path,
                f"line 1: column {name!r} is missing, the first line must name the columns "
                f"{', '.join(needed)}",
            )
