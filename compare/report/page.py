"""The report: one page that needs nothing else, or its tables as text."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, Literal

import numpy as np

from finecast.compare.report import charts
from finecast.compare.report.comparison import Comparison
from finecast.compare.report.curves import DEFAULT_TOLERANCE, TOLERANCES, ProfileData, profile_data
from finecast.compare.report.figure import SweepFigure
from finecast.compare.report.gains import Gain, gain_sentences, gains, gains_table
from finecast.compare.report.learning import Learning, learning_figures
from finecast.compare.report.online import (
    IN_THE_MEAN,
    OnlineFigures,
    impossible_gaps,
    online_figures,
    online_sentences,
    online_table,
)
from finecast.compare.report.result_tables import (
    Command,
    classes_table,
    failures_table,
    methods_table,
    pairs_table,
    runs_table,
)
from finecast.compare.report.sentences import sentences, solve_command
from finecast.compare.report.svg import COLOURS, DASHES
from finecast.compare.report.sweep_charts import sweep_charts
from finecast.compare.report.table import Column, Table, to_csv, to_html, to_latex, to_markdown
from finecast.problem.version import FINECAST_VERSION

Format = Literal["html", "csv", "markdown", "latex"]
TABLES = ("methods", "classes", "online", "pairs", "gains", "failures", "runs")
SEED = 0
"""Of the bootstrap: the same records give the same report."""


@dataclass(frozen=True)
class Picture:
    """A drawn picture for the page.

    Parameters
    ----------
    title, description
        What it is, and for those who do not see it, what is in it.
    svg
        A complete SVG document. It is embedded as an image, where nothing in it can run.
    """

    title: str
    description: str
    svg: bytes


@dataclass(frozen=True)
class Contents:
    """Everything that a report says, before it is laid out."""

    comparison: Comparison
    tables: dict[str, Table]
    gains: list[Gain]
    online: list[OnlineFigures]
    answer: list[str]


def contents(comparison: Comparison, command: Command = solve_command) -> Contents:
    """Compute the tables and sentences of a report.

    Parameters
    ----------
    comparison
        The runs shown.
    command
        Gives the command line that makes a run again.
    """
    rng = np.random.default_rng(SEED)
    all_gains = gains(comparison, rng)
    online = online_figures(comparison)
    tables = {
        "methods": methods_table(comparison, rng),
        "classes": classes_table(comparison, rng),
        "online": online_table(online),
        "pairs": pairs_table(comparison, rng),
        "gains": gains_table(all_gains),
        "failures": failures_table(comparison, command),
        "runs": runs_table(comparison, command),
    }
    answer = sentences(comparison, tables["methods"], tables["pairs"])
    answer += [*online_sentences(online), *impossible_gaps(comparison), *gain_sentences(all_gains)]
    return Contents(comparison, tables, all_gains, online, answer)


def text_report(what: Contents, form: Format, table: str | None = None) -> str:
    """Return one table, or all but the single runs, as CSV, Markdown or LaTeX.

    Parameters
    ----------
    what
        From `contents`.
    form
        `csv`, `markdown` or `latex`.
    table
        One of `TABLES`; None for all (Markdown and LaTeX) or `methods` (CSV, which holds one).

    Raises
    ------
    ValueError
        There is no such table.
    """
    if table is not None and table not in what.tables:
        raise ValueError(f"table: {table!r} is not there, there are {', '.join(what.tables)}")
    if form == "csv":
        return to_csv(what.tables[table or "methods"])
    chosen = [table] if table else [n for n in TABLES if n != "runs" and what.tables[n].rows]
    write = to_markdown if form == "markdown" else to_latex
    return "\n".join(write(what.tables[name]) for name in chosen)


def html_report(
    what: Contents,
    *,
    pictures: Sequence[Picture] = (),
    learning: Sequence[Learning] = (),
    commands: Sequence[str] = (),
    sweeps: Sequence[SweepFigure] = (),
) -> str:
    """Return the page: style, script, charts and data inside, nothing to fetch.

    Parameters
    ----------
    what
        From `contents`.
    pictures
        Of a chosen instance.
    learning
        Training logs.
    commands
        Command lines that made the runs and the report, to be shown.
    sweeps
        What a sweep varied, a figure for each metric.
    """
    # The sections, in the order of the page; some need what not every folder has.
    c, tables = what.comparison, what.tables
    profiles = profile_data(c)
    colour = {label: i for i, label in enumerate(c.labels)}
    sections = [
        _section("answer", "The answer", _answer(what, colour)),
        _section("methods", "Methods", to_html(tables["methods"])),
        _section("profiles", "Profiles", _profiles(profiles, colour)),
        _section("anytime", "Over time", charts.anytime_figures(c, colour)),
        _section("parts", "Where the gap is", charts.parts_figure(tables["methods"])),
        _section("pairs", "Pairs of methods", _wide(tables["pairs"])),
        _section("classes", "Classes of instances", _wide(tables["classes"])),
    ]
    if sweeps:
        sections.insert(2, _section("sweep", "Over what was varied", sweep_charts(sweeps, colour)))
    if what.online:
        body = f"<p>{escape(IN_THE_MEAN)}</p>" + charts.online_figures_drawn(what.online)
        sections.insert(2, _section("online", "Online", body + _wide(tables["online"])))
    if what.gains:
        body = charts.gains_figure(what.gains) + _wide(tables["gains"])
        sections.append(_section("gains", "Gains and the paper's claims", body))
    if pictures:
        sections.append(_section("pictures", "One instance", "".join(map(_picture, pictures))))
    if learning:
        sections.append(_section("learning", "Learning", learning_figures(learning)))
    failures = tables["failures"]
    body = _wide(failures) if failures.rows else "<p>No run failed.</p>"
    sections.append(_section("failures", "Failed runs", body))
    sections.append(_section("runs", "Every run", _runs(tables["runs"])))
    sections.append(_section("again", "Doing it again", _again(c, commands)))

    # Only the script of this page may run, and nothing may be fetched.
    script = _template("report.js")
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; "
        f"form-action 'none'; script-src 'sha256-{_sha256(script)}'"
    )
    record = c.records[0]
    title = f"Comparison on {record.suite or 'instances'}"
    return Template(_template("report.html")).substitute(
        policy=policy,
        version=escape(FINECAST_VERSION),
        title=escape(title),
        meta=escape(_meta(c)),
        style=_template("report.css"),
        navigation="".join(
            f'<li><a href="#{name}">{escape(heading)}</a></li>' for name, heading, _ in sections
        ),
        sections="\n".join(text for _, _, text in sections),
        data=_json({"profiles": profiles.to_json(), "runs": _run_data(tables["runs"])}),
        script=script,
    )


def _section(name: str, heading: str, body: str) -> tuple[str, str, str]:
    text = (
        f'<section id="{name}" aria-labelledby="{name}-h">'
        f'<h2 id="{name}-h">{escape(heading)}</h2>{body}</section>'
    )
    return name, heading, text


def _answer(what: Contents, colour: dict[str, int]) -> str:
    lead, *more = what.answer
    items = "".join(f"<li>{escape(s)}</li>" for s in more)
    boxes = "".join(
        f'<label><input type="checkbox" value="{escape(label)}" checked>{_swatch(i)}'
        f"<span>{escape(label)}</span></label>"
        for label, i in colour.items()
    )
    return (
        f'<div class="beside"><div><p class="lead">{escape(lead)}</p><ul>{items}</ul></div>'
        + charts.answer_figure(what.tables["methods"], colour)
        + "</div>"
        + '<fieldset class="controls" id="methods-shown"><legend>Methods shown</legend>'
        f'<div class="choices">{boxes}</div>'
        '<p class="note">Hides a method in tables and charts and computes the profiles for those '
        "left. Sentences, tests and Holm's correction stay those of all methods of this page; "
        "<code>finecast report --methods</code> leaves one out of everything.</p></fieldset>"
        '<p id="status" role="status" class="note"></p>'
    )


def _swatch(index: int) -> str:
    dash = DASHES[index // COLOURS % len(DASHES)]
    return (
        '<svg class="swatch" viewBox="0 0 26 10" aria-hidden="true"><path d="M0,5H26" '
        f'stroke-width="4" style="stroke:var(--c{index % COLOURS})'
        + (f';stroke-dasharray:{dash}"' if dash else '"')
        + "/></svg>"
    )


def _profiles(data: ProfileData, colour: dict[str, int]) -> str:
    classes = '<option value="-1" selected>all classes</option>' + "".join(
        f'<option value="{i}">{escape(name)}</option>' for i, name in enumerate(data.classes)
    )
    tolerances = "".join(
        f'<option value="{t}"{" selected" if t == DEFAULT_TOLERANCE else ""}>{100 * t:g}%</option>'
        for t in TOLERANCES
    )
    figures, problems = charts.profile_figures(data, colour)
    return (
        "<p>Shares of the problems, each an instance and a seed, that every method shown has run: "
        f'<span id="profile-count">{problems:,}</span> of them. Ratios and targets refer to the '
        "best of the methods shown. Restricted systems and other deliveries are other problems, "
        "and not in profiles.</p>"
        '<div class="controls choices">'
        f'<label>Class <select id="profile-class">{classes}</select></label> '
        f'<label>Tolerance τ <select id="profile-tolerance">{tolerances}</select></label></div>'
        f'<div class="figures">{figures}</div>'
    )


def _wide(table: Table) -> str:
    html = to_html(table)
    return (
        html.replace('class="scroll"', 'class="scroll tall"', 1) if len(table.rows) > 15 else html
    )


def _picture(picture: Picture) -> str:
    content = base64.b64encode(picture.svg).decode()
    return (
        f"<figure><figcaption><strong>{escape(picture.title)}.</strong> "
        f"{escape(picture.description)}</figcaption>"
        f'<img class="picture" alt="{escape(picture.description)}" '
        f'src="data:image/svg+xml;base64,{content}"></figure>'
    )


def _runs(table: Table) -> str:
    empty = Table(table.name, table.title, table.caption, table.columns, ())
    return (
        '<div class="controls pager"><label>Find <input type="search" id="runs-filter" '
        'placeholder="words, such as a method"></label>'
        '<button type="button" id="runs-back">Back</button>'
        '<button type="button" id="runs-next">Next</button>'
        '<span id="runs-count" role="status"></span></div>' + to_html(empty)
    )


def _run_data(table: Table) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, float):
            if math.isnan(value):
                return None
            return "Infinity" if math.isinf(value) else float(f"{value:.6g}")
        return value

    return {
        "kinds": [c.kind for c in table.columns],
        "rows": [[plain(v) for v in row] for row in table.rows],
    }


def _again(c: Comparison, commands: Sequence[str]) -> str:
    machines = Counter(
        f"{r.cpu}, {r.cores} cores, {r.memory_bytes / 2**30:.0f} GiB, {r.os}; "
        f"{r.workers} runs at a time, {r.threads} threads each"
        for r in c.records
    )
    versions = Counter(
        ", ".join(f"{name} {v}" for name, v in sorted(r.versions.items()))
        + (f", commit {r.commit}" if r.commit else "")
        for r in c.records
    )

    def rows(found: Counter[str]) -> str:
        return "".join(f"<dd>{escape(text)} ({n:,} runs)</dd>" for text, n in found.most_common(10))

    text = "\n".join(commands)
    shown = f"<pre><code>{escape(text)}</code></pre>" if text else ""
    return (
        "<p>The list above gives a command line for every run. Instances are drawn from their "
        "seeds and checked against the hash in the suite; times depend on the machine.</p>"
        f"{shown}<dl><dt>Machine</dt>{rows(machines)}<dt>Versions</dt>{rows(versions)}"
        "<dt>Intervals</dt><dd>95%, percentiles of 2,000 stratified bootstrap samples (Agarwal et "
        f"al., NeurIPS 2021), strata the classes of instances, seed {SEED}.</dd></dl>"
    )


def _meta(c: Comparison) -> str:
    suites = sorted({f"{r.suite} version {r.suite_version}" for r in c.records})
    days = sorted({r.started_at[:10] for r in c.records if r.started_at})
    parts = [
        ", ".join(suites),
        f"{len(c.labels)} methods",
        f"{len(c.instances):,} instances in {len(c.classes)} classes",
        f"{len(c.records):,} runs",
    ]
    if c.left_out:
        parts.append(f"{c.left_out:,} runs left out")
    if days:
        parts.append(days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}")
    return " · ".join([*parts, f"finecast {FINECAST_VERSION}"])


def _template(name: str) -> str:
    return (files("finecast.compare.report") / "templates" / name).read_text(encoding="utf-8")


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _json(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("&", "\\u0026")


__all__ = ["TABLES", "Column", "Contents", "Picture", "contents", "html_report", "text_report"]
