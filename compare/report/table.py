"""Tables: columns and values once, written as HTML, CSV, Markdown or LaTeX."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import dataclass
from html import escape
from typing import Literal

from finecast.compare.report.statistics import Estimate

Value = str | float | int | Estimate | None
Kind = Literal["text", "percent", "seconds", "number", "count", "p", "code"]


@dataclass(frozen=True)
class Column:
    """One column.

    Parameters
    ----------
    name
        For machines, such as `gap`.
    title
        For people.
    kind
        How its values are written.
    """

    name: str
    title: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Table:
    """Rows of values under named columns.

    Parameters
    ----------
    name
        For machines, such as `methods`.
    title, caption
        For people: what it holds, and how to read it.
    columns
        The first one names the row.
    rows
        Values in the order of the columns; None where there is none.
    methods
        Per row, the methods it speaks of: it is hidden when one of them is.
    """

    name: str
    title: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    methods: tuple[tuple[str, ...], ...] = ()

    def by_name(self) -> list[dict[str, Value]]:
        """Return the rows with their values by the names of the columns."""
        names = [column.name for column in self.columns]
        return [dict(zip(names, row, strict=True)) for row in self.rows]


def shown(value: Value, kind: Kind) -> str:
    """Return a value as people read it; intervals in brackets behind it."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, Estimate):
        if value.low == value.high == value.value == math.inf:
            return "∞"
        main, low, high = (shown(x, kind) for x in (value.value, value.low, value.high))
        unit = "%" if kind == "percent" else " s" if kind == "seconds" else ""
        return f"{main} ({low.removesuffix(unit)} to {high.removesuffix(unit)})"
    if isinstance(value, str):
        return value
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if kind == "percent":
        return f"{digits(100 * value)}%"
    if kind == "seconds":
        return f"{digits(value)} s"
    if kind == "p":
        return "<0.001" if value < 0.001 else f"{value:.3f}"
    if kind == "count":
        return f"{int(value):,}"
    return digits(value)


def digits(value: float) -> str:
    """Return three significant digits, all digits before the point, and none below a thousandth."""
    size = abs(value)
    if size >= 100:
        text = f"{value:,.0f}"
    elif size >= 10:
        text = f"{value:.1f}"
    elif size >= 1:
        text = f"{value:.2f}"
    else:
        text = f"{value:.3f}"
        if size < 5e-4:
            text = "0" if size < 1e-9 else ("<0.001" if value > 0 else "−<0.001")
    return text.replace("-", "−")


def sort_key(value: Value) -> str:
    """Return what a browser sorts by: a number, or nothing."""
    number = value.value if isinstance(value, Estimate) else value
    if isinstance(number, str) or number is None or math.isnan(number):
        return ""
    return "Infinity" if number == math.inf else f"{number:.10g}"


def to_html(table: Table) -> str:
    """Return a sortable table in a box of its own that scrolls sideways."""
    heads = "".join(
        f'<th scope="col" aria-sort="none"{"" if _left(c) else " class=n"}>'
        f'<button type="button">{escape(c.title)}'
        '<span class="arrow" aria-hidden="true"></span></button></th>'
        for c in table.columns
    )
    rows = []
    for i, row in enumerate(table.rows):
        cells = []
        for j, (column, value) in enumerate(zip(table.columns, row, strict=True)):
            text = escape(shown(value, column.kind))
            if column.kind == "code":
                text = f"<code>{text}</code>"
            key = "" if column.kind in ("text", "code") else f' data-v="{sort_key(value)}"'
            cells.append(f'<th scope="row">{text}</th>' if j == 0 else f"<td{key}>{text}</td>")
        shown_methods = escape("\n".join(table.methods[i])) if table.methods else ""
        rows.append(f'<tr data-m="{shown_methods}">{"".join(cells)}</tr>')
    kinds = " ".join("t" if c.kind in ("text", "code") else "n" for c in table.columns)
    title = escape(table.title)
    return (
        f'<div class="scroll" role="region" aria-label="{title}" tabindex="0">'
        f'<table class="sortable" id="table-{escape(table.name)}" data-kinds="{kinds}">'
        f"<caption><strong>{title}.</strong> {escape(table.caption)}</caption>"
        f"<thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def to_csv(table: Table) -> str:
    """Return comma-separated values at full precision; an interval takes two more columns."""
    estimates = [
        any(isinstance(row[j], Estimate) for row in table.rows) for j in range(len(table.columns))
    ]
    heads: list[str] = []
    for column, wide in zip(table.columns, estimates, strict=True):
        heads += [column.name, f"{column.name}_low", f"{column.name}_high"][: 3 if wide else 1]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(heads)
    for row in table.rows:
        line: list[object] = []
        for value, wide in zip(row, estimates, strict=True):
            if isinstance(value, Estimate):
                line += [value.value, value.low, value.high]
            else:
                line += [_no_formula(value), *([""] * 2 if wide else [])]
        writer.writerow(line)
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """Return a heading, the caption and a pipe table."""
    lines = [f"## {_markdown(table.title)}", "", _markdown(table.caption), ""]
    lines.append("| " + " | ".join(_markdown(c.title) for c in table.columns) + " |")
    lines.append("|" + "|".join(" :-- " if _left(c) else " --: " for c in table.columns) + "|")
    for row in table.rows:
        cells = (shown(v, c.kind) for c, v in zip(table.columns, row, strict=True))
        lines.append("| " + " | ".join(map(_markdown, cells)) + " |")
    return "\n".join(lines) + "\n"


def to_latex(table: Table) -> str:
    """Return a `table` environment with the rules of the package booktabs."""
    columns = "".join("l" if _left(c) else "r" for c in table.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(table.title)}. {_latex(table.caption)}}}",
        rf"\label{{tab:{_latex_label(table.name)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(_latex(c.title) for c in table.columns) + r" \\",
        r"\midrule",
    ]
    for row in table.rows:
        cells = (shown(v, c.kind) for c, v in zip(table.columns, row, strict=True))
        lines.append(" & ".join(map(_latex, cells)) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]) + "\n"


def _left(column: Column) -> bool:
    return column.kind in ("text", "code")


def _no_formula(value: Value) -> object:
    """Keep a spreadsheet from running a text as a formula."""
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value


_MARKDOWN = str.maketrans({c: f"\\{c}" for c in "\\`*_{}[]<>#|~$"} | {"\n": " ", "\r": " "})
_LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "∞": r"$\infty$",
        "−": "$-$",
        "–": "--",
        "\n": " ",
        "\r": " ",
    }
)


def _markdown(text: str) -> str:
    return text.translate(_MARKDOWN)


def _latex(text: str) -> str:
    return text.translate(_LATEX)


def _latex_label(text: str) -> str:
    return "".join(c for c in text if c.isalnum() or c == "-")
