"""Words for people: numbers with their units, and what an unknown name may have meant."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from html import escape


def seconds(value: float) -> str:
    """Write a duration with its unit."""
    if not math.isfinite(value):
        return "infinite" if value > 0 else "-"
    return f"{value:.4g} s" if value < 1e5 else f"{value:.6g} s"


def percent(value: float | None, digits: int = 3) -> str:
    """Write a share in per cent."""
    if value is None or math.isnan(value):
        return "-"
    return f"{100 * value:.{digits}f} %" if math.isfinite(value) else "infinite"


def gigabytes(value: float) -> str:
    """Write bytes in GB (1e9), below a tenth of one in MB (1e6), below a tenth of one in kB."""
    if value == 0 or value >= 1e8:
        return f"{value / 1e9:.3f} GB"
    return f"{value / 1e6:.3f} MB" if value >= 1e5 else f"{value / 1e3:.3f} kB"


def counted(count: int, noun: str) -> str:
    """Write a number of things, as "1 slot" and "2 slots"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def printable(text: str) -> str:
    """Return a text in which whatever a terminal might obey is shown as an escape.

    Line breaks stay; control characters, marks that turn the direction of writing and halves of
    characters become `\\x1b`, `\\u202e`, `\\ud800`.
    """
    return "".join(
        c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text
    )


def html_table(rows: Iterable[tuple[str, str]], remarks: Iterable[str] = ()) -> str:
    """Return rows of names and values, and lines under them, as HTML in which nothing is markup."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{escape(name)}</th>"
        f"<td style='text-align:left'>{escape(value)}</td></tr>"
        for name, value in rows
    )
    return f"<table>{cells}</table>" + "".join(f"<div>{escape(line)}</div>" for line in remarks)


def hint(name: str, known: Iterable[str], alike: float = 0.5) -> str:
    """Return what to say after an unknown name: the nearest known one, or all that are known.

    It is near where its ratio of matching letters is at least `alike` (difflib).
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=alike)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(names)}"
