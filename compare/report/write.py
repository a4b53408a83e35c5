"""From a result folder to a report: its records, bounds known besides, pictures, training logs."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from finecast.compare.report.comparison import Comparison, compare_runs, cost
from finecast.compare.report.figure import GAP, SweepFigure, sweep_figure
from finecast.compare.report.known import known_bounds
from finecast.compare.report.learning import read_learning
from finecast.compare.report.page import (
    Contents,
    Format,
    Picture,
    contents,
    html_report,
    text_report,
)
from finecast.compare.report.sentences import solve_command
from finecast.compare.runs.records import Record
from finecast.compare.runs.store import instance_path, one_instance_each, read_records
from finecast.problem.files import FormatError, write_atomically
from finecast.problem.instance import Instance, read_instance
from finecast.problem.solution import read_solution
from finecast.problem.wording import printable

FORM_OF: dict[str, Format] = {
    ".html": "html", ".htm": "html", ".csv": "csv", ".md": "markdown", ".tex": "latex",
}  # fmt: skip
"""What a file of each ending holds."""


def write_report(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    form: Format | None = None,
    table: str | None = None,
    methods: Sequence[str] = (),
    classes: Sequence[str] = (),
    instance: str | None = None,
    learning: Sequence[str | os.PathLike[str]] = (),
    best_known: str | os.PathLike[str] | None = None,
) -> Contents:
    """Write what the runs in a result folder say, as a page or as tables.

    Parameters
    ----------
    folder
        Result folder of `finecast.run_suite`, finished or not.
    path
        File to write; its ending says what it holds, as in `FORM_OF`.
    form
        `html` for a page that needs nothing else; `csv`, `markdown` or `latex` for tables. None
        for what the ending says; another is refused.
    table
        With tables, the one to write: `methods`, `classes`, `online`, `pairs`, `gains`,
        `failures`, `runs`.
    methods, classes
        Labels of methods and names of classes to compare; all by default.
    instance
        Instance to draw in a page, by the first letters of its hash; by default the first that
        has a solution.
    learning
        Training logs to draw in a page, besides those in `folder/learning`.
    best_known
        File of bounds known besides; the shipped one by default.

    Returns
    -------
    Contents
        The tables, and the answer in sentences.

    Raises
    ------
    FormatError
        The folder holds no runs, or runs of two suites of one name and version; a file cannot be
        read or written, or has the ending of another form.
    ValueError
        A method, class, instance or table is unknown.
    """
    form = form_of(path, form)
    what = report_contents(folder, methods=methods, classes=classes, best_known=best_known)
    if form == "html":
        if table is not None:
            raise ValueError("table: is for csv, markdown or latex, a page holds all tables")
        home = Path(folder)
        logs = [*sorted((home / "learning").glob("*.jsonl")), *map(Path, learning)]
        text = html_report(
            what,
            pictures=_pictures(what.comparison, home, instance),
            learning=[read_learning(log) for log in logs],
            sweeps=[] if classes else _sweeps(what.comparison, home),
            commands=_commands(what.comparison, folder, path, methods, classes),
        )
    else:
        text = text_report(what, form, table)
    write_atomically(path, printable(text).encode())  # names may hold what turns a line around
    return what


def form_of(path: str | os.PathLike[str], form: Format | None = None) -> Format:
    """Return what a report of this name holds.

    Raises
    ------
    FormatError
        There is no report of this ending, or the form asked for has another one.
    """
    suffix = Path(path).suffix.lower()
    said = FORM_OF.get(suffix)
    if said is None:
        raise FormatError(path, f"has the ending {suffix!r}, expected {', '.join(FORM_OF)}")
    if form not in (None, said):
        raise FormatError(path, f"has the ending {suffix!r} of {said}, but {form} is asked for")
    return said


def report_contents(
    folder: str | os.PathLike[str],
    *,
    methods: Sequence[str] = (),
    classes: Sequence[str] = (),
    best_known: str | os.PathLike[str] | None = None,
) -> Contents:
    """Return the tables and sentences of a report; parameters and errors as in `write_report`."""
    records = read_records(folder)
    if not records:
        raise FormatError(folder, "holds no runs yet")
    one_instance_each(Path(folder), records)
    comparison = compare_runs(
        records,
        methods=methods,
        classes=classes,
        known_bounds=known_bounds(folder, records, best_known),
    )
    return contents(comparison, lambda run: solve_command(run, os.fspath(folder)))


def _sweeps(comparison: Comparison, folder: Path) -> list[SweepFigure]:
    """Return delay and gap over what a sweep varied; none where there is none, or no one figure."""
    if not any(record.point for record in comparison.records):
        return []
    found = []
    for metric in ("delay", GAP):
        try:
            found.append(sweep_figure(folder, metric, methods=comparison.labels))
        except ValueError:  # more varies than a figure shows: `finecast figure --where` chooses
            continue
    return found


def _commands(
    comparison: Comparison,
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str],
    methods: Sequence[str],
    classes: Sequence[str],
) -> list[str]:
    """Return the command lines that make the runs and the page."""
    where, page = (shlex.quote(os.fspath(name)) for name in (folder, path))
    report = f"finecast report {where} -o {page}"
    for option, names in (("--methods", methods), ("--classes", classes)):
        if names:
            report += f" {option} {shlex.quote(','.join(names))}"
    suites = dict.fromkeys(record.suite for record in comparison.records)
    return [*(f"finecast compare {shlex.quote(suite)} -o {where}" for suite in suites), report]


def _pictures(comparison: Comparison, folder: Path, start: str | None) -> list[Picture]:
    """Draw the best solution of one instance: of that whose hash begins so, or of the first."""
    solved = [r for r in comparison.records if r.solution and (folder / r.solution).is_file()]
    if start is not None:
        solved = [r for r in solved if r.instance_hash.startswith(start)]
        if not solved:
            raise ValueError(f"instance: {start!r} has no solution in {folder}")
    shown = [r for r in solved if not r.restrict] or solved
    if not shown:
        return []
    order = comparison.instances.index
    instance_hash = min((r.instance_hash for r in shown), key=order)
    best = min((r for r in shown if r.instance_hash == instance_hash), key=cost)
    file = instance_path(folder, instance_hash)
    return _drawn(best, _solved_as(best, file), folder / best.solution) if file.is_file() else []


def _solved_as(run: Record, instance_file: Path) -> Instance:
    """Return the instance with the delivery, schedule and restrictions of a run."""
    from finecast.solvers.restrictions import check_restrictions, restricted_instance

    asked: dict[str, Any] = {"delivery": run.delivery, "schedule": run.schedule}
    instance = dataclasses.replace(read_instance(instance_file), **asked)
    return restricted_instance(instance, check_restrictions(run.restrict))


def _drawn(run: Record, instance: Instance, solution_file: Path) -> list[Picture]:
    """Draw network, caches and the delivery of the first slot."""
    from finecast.pictures import cache_picture, network_picture, slot_gantt
    from finecast.pictures.style import picture_bytes

    solution = read_solution(solution_file)
    where = f"{run.instance_class}, instance seed {run.instance_seed}"
    by = f"as {run.label} solved it, with a delay of {run.delay or run.realised_delay or 0:.4g} s"
    drawn = (
        ("Network", f"Cells, users and links of {where}.", network_picture(instance, 0)),
        ("Caches", f"What each node stores, {where}, {by}.", cache_picture(instance, solution, 0)),
        ("Delivery", f"Who sends what when in the first slot, {where}, {by}.",
         slot_gantt(instance, solution, 0)),
    )  # fmt: skip
    pictures = []
    for title, description, figure in drawn:
        pictures.append(Picture(title, description, picture_bytes(figure, ".svg")))
    return pictures
