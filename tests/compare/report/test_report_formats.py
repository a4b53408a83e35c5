"""The formats of tables, read back."""

from __future__ import annotations

import csv
import io
import math
import re

import pytest

from finecast.compare.report.statistics import Estimate
from finecast.compare.report.table import (
    Column,
    Table,
    shown,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
)

NASTY = "<img src=x onerror=alert(1)>|&_$\\ `x`"


@pytest.fixture(scope="module")
def nasty_table() -> Table:
    """A table whose texts mean something in every format."""
    return Table(
        "t",
        "A table",
        "50% & more",
        (Column("name", "Name"), Column("gap", "Gap", "percent")),
        ((NASTY, Estimate(0.1, 0.05, math.inf, 3)), ("=1+1", None)),
    )


def test_csv_reads_back(nasty_table: Table):
    """Numbers at full precision, an interval in three columns, no formula for a spreadsheet."""
    rows = list(csv.reader(io.StringIO(to_csv(nasty_table))))
    assert rows[0] == ["name", "gap", "gap_low", "gap_high"]
    assert rows[1] == [NASTY, "0.1", "0.05", "inf"]
    assert rows[2] == ["'=1+1", "", "", ""]


def test_markdown_is_escaped(nasty_table: Table):
    """Every row has as many bars as columns, and no HTML gets through."""
    lines = to_markdown(nasty_table).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert r"\<img src=x" in rows[2]
    assert "10.0% (5.00 to ∞)" in rows[2]


def test_latex_is_escaped(nasty_table: Table):
    """Special characters are commands; braces balance."""
    text = to_latex(nasty_table)
    assert r"\textless{}img" in text
    assert r"\&\_\$\textbackslash{}" in text
    assert r"50\% \& more" in text
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")


def test_html_table_is_escaped(nasty_table: Table):
    """Nothing of a text is markup; heads have scopes, buttons and a sort state."""
    text = to_html(nasty_table)
    assert "<img" not in text
    assert text.count('scope="col" aria-sort="none"') == 2
    assert text.count('scope="row"') == 2


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.01234, "percent", "1.23%"),
        (2.5, "percent", "250%"),
        (1e-7, "percent", "<0.001%"),
        (0.0, "percent", "0%"),
        (-0.05, "percent", "−5.00%"),
        (12345.6, "seconds", "12,346 s"),
        (None, "seconds", "–"),
        (math.nan, "seconds", "–"),
        (math.inf, "percent", "∞"),
        (0.0004, "p", "<0.001"),
        (1234, "count", "1,234"),
        (Estimate(0.02, 0.01, 0.03, 5), "percent", "2.00% (1.00 to 3.00)"),
        (Estimate(math.inf, math.inf, math.inf, 5), "percent", "∞"),
    ],
)
def test_numbers_as_people_read_them(value: object, kind: str, text: str):
    """Three digits, thousands apart, a true minus, infinity and nothing told apart."""
    assert shown(value, kind) == text  # type: ignore[arg-type]
