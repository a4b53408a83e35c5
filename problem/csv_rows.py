"""Rows of a CSV file with known columns, read without trust."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Sequence

from finecast.problem.files import LARGEST_TEXT_BYTES, FormatError, read_bytes


def csv_rows(
    path: str | os.PathLike[str],
    columns: Sequence[str],
    *,
    others: bool = False,
    absent: Sequence[str] = (),
) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line and its fields, stripped, in the order of `columns`.

    Parameters
    ----------
    path
        CSV file in UTF-8, commas between the fields, blank lines skipped. The first line names the
        columns, in any order.
    columns
        What the first line must name.
    others
        Whether it may name other columns too, which are left out.
    absent
        Those of `columns` that it need not name; their fields are then empty.

    Raises
    ------
    FormatError
        The file cannot be read or is not such a CSV file; names the line.
    """
    lines = csv_lines(path)
    _, header = next(lines)
    there = [name for name in columns if name in header or name not in absent]
    chosen = _places(path, header, there, others)
    if len(there) == len(columns):
        for line, row in lines:
            yield line, [row[place] for place in chosen]
        return
    place_of = dict(zip(there, chosen, strict=True))
    for line, row in lines:
        yield line, [row[place_of[name]] if name in place_of else "" for name in columns]


def csv_lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line of a CSV file and its fields, stripped; the header first.

    The header may be empty. Every line has as many fields as it.

    Raises
    ------
    FormatError
        The file cannot be read or is no CSV, or a line has fewer or more fields; names the line.
    """
    # Decoded as it is read: a trace has hundreds of MB, and a text takes several times that.
    content = io.BytesIO(read_bytes(path, LARGEST_TEXT_BYTES))
    rows = csv.reader(io.TextIOWrapper(content, "utf-8-sig", newline=""), strict=True)
    try:
        header = [name.strip() for name in next(rows, [])]
        yield rows.line_num, header
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise FormatError(
                    path,
                    f"line {rows.line_num}: {len(row)} fields, expected {len(header)}: "
                    f"{', '.join(map(short, header))}",
                )
            yield rows.line_num, [field.strip() for field in row]
    except UnicodeDecodeError as error:
        raise FormatError(path, f"not a CSV text in UTF-8: {error.reason}") from None
    except csv.Error as error:
        raise FormatError(path, f"line {rows.line_num}: not valid CSV: {error}") from None


def shown(text: str, longest: int = 40) -> str:
    """Return a field as it stands in a message."""
    return repr(short(text, longest))


def short(text: str, longest: int = 40) -> str:
    """Return a text, cut where it is long."""
    return text if len(text) <= longest else text[:longest] + "..."


def _places(
    path: str | os.PathLike[str], header: Sequence[str], columns: Sequence[str], others: bool
) -> list[int]:
    names = list(header)
    expected = f"the first line must name the columns {', '.join(columns)}"
    if not names:
        raise FormatError(path, f"line 1 is empty, {expected}")
    for name in names:
        if name not in columns and not others:
            raise FormatError(path, f"line 1: unknown column {shown(name)}, {expected}")
        if name in columns and names.count(name) > 1:
            raise FormatError(path, f"line 1: column {name!r} stands twice, {expected}")
    for name in columns:
        if name not in names:
            raise FormatError(path, f"line 1: column {name!r} is missing, {expected}")
    return [names.index(name) for name in columns]
