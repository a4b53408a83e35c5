"""`finecast report`: what the runs in a result folder say, as a page or as tables."""

from __future__ import annotations

import io
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finecast.cli.common import json_option, print_json, refuse_overwriting_folder
from finecast.problem.shipped import find

if TYPE_CHECKING:
    from finecast.compare.report.comparison import Comparison
    from finecast.compare.report.page import Picture
    from finecast.compare.runs.records import Record

BEST_KNOWN = "data/best_known.json"
FORMATS = ("html", "csv", "markdown", "latex")


@click.command("report")
@click.argument("folder", metavar="DIR")
@click.option("-o", "--output", help="File to write; without it tables go to stdout.")
@click.option("--methods", help="Labels to compare, by commas; all without it.")
@click.option("--classes", help="Classes of instances to compare on, by commas.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="html",
    show_default=True,
    help="A self-contained page, or tables.",
)
@click.option(
    "--table",
    help="With csv, markdown or latex: methods, classes, pairs, gains, failures or runs.",
)
@click.option(
    "--instance",
    metavar="HASH",
    help="Instance to draw, by the first letters of its hash; default the first with a solution.",
)
@click.option(
    "--learning",
    multiple=True,
    metavar="FILE",
    help="Training log to draw, JSON lines; those in DIR/learning are drawn anyway. Repeatable.",
)
@click.option(
    "--best-known", metavar="FILE", help="Bounds known besides; default data/best_known.json."
)
@json_option
def command(
    folder: str,
    output: str | None,
    methods: str | None,
    classes: str | None,
    form: Any,
    table: str | None,
    instance: str | None,
    learning: tuple[str, ...],
    best_known: str | None,
    as_json: bool,
) -> None:
    """Report on the runs in DIR, which `finecast compare` made, finished or not.

    Profiles, tests and tables are computed for the methods and classes asked for.
    """
    if form == "html" and output is None:
        raise ValueError("-o: is missing, expected a file for the page")
    if form == "html" and table is not None:
        raise ValueError("--table: is for --format csv, markdown or latex")
    target = None if output is None else refuse_overwriting_folder(output)

    from finecast.compare.report.comparison import compare_runs
    from finecast.compare.report.page import contents, html_report, text_report
    from finecast.compare.report.sentences import solve_command
    from finecast.compare.runs.store import read_records
    from finecast.problem.files import FormatError, write_atomically

    records = read_records(folder)
    if not records:
        raise FormatError(folder, "holds no runs yet")
    comparison = compare_runs(
        records,
        methods=_words("--methods", methods),
        classes=_words("--classes", classes),
        known_bounds=_known_bounds(best_known),
    )
    what = contents(comparison, lambda run: solve_command(run, folder))
    if form == "html":
        text = html_report(
            what,
            pictures=_pictures(comparison, Path(folder), instance),
            learning=_learning(Path(folder), learning),
            commands=_commands(comparison, folder, output or "", methods, classes),
        )
    else:
        text = text_report(what, form, table)
    if target is None:
        click.echo(text, nl=False)
        return
    write_atomically(target, text.encode())
    if as_json:
        print_json(
            {
                "file": str(target),
                "runs": len(comparison.records),
                "methods": list(comparison.labels),
                "instances": len(comparison.instances),
                "answer": what.answer,
            }
        )
    else:
        for sentence in what.answer:
            click.echo(sentence)
        click.echo(f"report written to {target}")


def _known_bounds(path: str | None) -> dict[str, float]:
    from finecast.compare.runs.best_known import read_best_known
    from finecast.problem.files import FormatError

    try:
        found = find(path or BEST_KNOWN)
    except FormatError:
        if path is not None:
            raise
        return {}
    known = read_best_known(found)
    return {h: float(e["lower_bound"]) for h, e in known.items() if e["lower_bound"] is not None}


def _words(option: str, text: str | None) -> list[str]:
    if text is None:
        return []
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError(f"{option}: {text!r} names none")
    return words


def _commands(
    comparison: Comparison, folder: str, output: str, methods: str | None, classes: str | None
) -> list[str]:
    suites = dict.fromkeys(r.suite for r in comparison.records)
    lines = [f"finecast compare {shlex.quote(suite)} -o {shlex.quote(folder)}" for suite in suites]
    report = f"finecast report {shlex.quote(folder)} -o {shlex.quote(output)}"
    for option, value in (("--methods", methods), ("--classes", classes)):
        if value is not None:
            report += f" {option} {shlex.quote(value)}"
    return [*lines, report]


def _learning(folder: Path, given: tuple[str, ...]) -> list[Any]:
    from finecast.compare.report.learning import read_learning

    there = sorted((folder / "learning").glob("*.jsonl"))
    return [read_learning(path) for path in [*there, *map(Path, given)]]


def _pictures(comparison: Comparison, folder: Path, wanted: str | None) -> list[Picture]:
    """Draw network, caches and delivery of the best solution of one instance."""
    from finecast.compare.report.comparison import cost
    from finecast.compare.runs.store import instance_path

    solved = [r for r in comparison.records if r.solution and (folder / r.solution).is_file()]
    if wanted is not None:
        solved = [r for r in solved if r.instance_hash.startswith(wanted)]
        if not solved:
            raise ValueError(f"--instance: {wanted!r} has no solution in {folder}")
    plain = [r for r in solved if not r.restrict] or solved
    if not plain:
        return []
    first = min(plain, key=lambda r: comparison.instances.index(r.instance_hash)).instance_hash
    best = min((r for r in plain if r.instance_hash == first), key=cost)
    path = instance_path(folder, first)
    return _drawn(best, path, folder / best.solution) if path.is_file() else []


def _drawn(run: Record, instance_file: Path, solution_file: Path) -> list[Picture]:
    import dataclasses

    from finecast.compare.report.page import Picture
    from finecast.pictures import cache_picture, network_picture, slot_gantt
    from finecast.problem.instance import read_instance
    from finecast.problem.solution import read_solution
    from finecast.solvers.restrictions import check_restrictions, restricted_instance

    solved_as: dict[str, Any] = {"delivery": run.delivery, "schedule": run.schedule}
    instance = dataclasses.replace(read_instance(instance_file), **solved_as)
    instance = restricted_instance(instance, check_restrictions(run.restrict))
    solution = read_solution(solution_file)
    of = f"{run.instance_class}, instance seed {run.instance_seed}"
    by = f"as {run.label} solved it, with a delay of {run.delay or run.realised_delay or 0:.4g} s"
    drawn = (
        ("Network", f"Cells, users and links of {of}.", network_picture(instance, 0)),
        ("Caches", f"What each node stores, {of}, {by}.", cache_picture(instance, solution, 0)),
        ("Delivery", f"Who sends what when in the first slot, {of}, {by}.",
         slot_gantt(instance, solution, 0)),
    )  # fmt: skip
    pictures = []
    for title, description, figure in drawn:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        pictures.append(Picture(title, description, buffer.getvalue()))
    return pictures
