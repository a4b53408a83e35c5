"""`finecast report`: what the runs in a result folder say, as a page or as tables."""

from __future__ import annotations

from typing import Any

import click

from finecast.cli.common import json_option, output_file, print_json, say, words
from finecast.problem.wording import printable

FORMATS = ("html", "csv", "markdown", "latex")


@click.command("report")
@click.argument("folder", metavar="DIR")
@click.option(
    "-o",
    "--output",
    help="File to write: .html for a page, .csv, .md or .tex; without it tables go to stdout.",
)
@click.option("--methods", help="Labels to compare, by commas; all without it.")
@click.option("--classes", help="Classes of instances to compare on, by commas.")
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    help="A self-contained page, or tables; by default what the ending of -o says.",
)
@click.option(
    "--table",
    help="With csv, markdown or latex: methods, classes, online, pairs, gains, failures or runs.",
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
    if output is None and form in (None, "html"):
        raise ValueError("-o: is missing, expected a file for the page")
    target = None if output is None else output_file(output)

    from finecast.compare.report.online import online_rows
    from finecast.compare.report.page import text_report
    from finecast.compare.report.write import form_of, report_contents, write_report

    if target is not None:
        form = form_of(target, form)

    chosen: dict[str, Any] = {
        "methods": [] if methods is None else words("--methods", methods),
        "classes": [] if classes is None else words("--classes", classes),
        "best_known": best_known,
    }
    if target is None:
        text = text_report(report_contents(folder, **chosen), form, table)
        click.echo(printable(text), nl=False)
        return
    what = write_report(
        folder, target, form=form, table=table, instance=instance, learning=learning, **chosen
    )
    if as_json:
        print_json(
            {
                "file": str(target),
                "runs": len(what.comparison.records),
                "methods": list(what.comparison.labels),
                "instances": len(what.comparison.instances),
                "answer": what.answer,
                "online": online_rows(what.online),
            }
        )
    else:
        for sentence in what.answer:
            say(sentence)
        say(f"report written to {target}")
