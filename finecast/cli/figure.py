"""`finecast figure`: a sweep or training runs as a figure for a paper."""

from __future__ import annotations

from typing import Any

import click

from finecast.cli.common import output_file, parse_settings, say, words

SUFFIXES = (".pdf", ".svg", ".png", ".pgf", ".csv")


@click.command("figure")
@click.argument("folders", nargs=-1, required=True)
@click.option("-o", "--output", required=True, help="File: .pdf, .svg, .png, .pgf or .csv.")
@click.option(
    "--metric",
    default="",
    help="What is drawn, as in delay, gap_to_best, p95_completion, request_hit_ratio, wall_s; of "
    "training runs held_out_gap or held_out_delay. By default delay and held_out_gap.",
)
@click.option(
    "--x", default="", help="Key across, as in nodes.storage_gb; of training runs step or cpu_s."
)
@click.option("--panels", default="", help="Key that has a panel for each value.")
@click.option("--methods", help="Methods to show, in this order, by commas.")
@click.option("--where", multiple=True, metavar="KEY=VALUE",
              help="Value of a key that varies too; repeatable.")  # fmt: skip
@click.option("--columns", type=click.Choice(["one", "two"]), default="one", show_default=True,
              help="Width: one or two columns of a page.")  # fmt: skip
@click.option("--log", type=click.Choice(["", "x", "y", "xy"]), default="",
              help="Axes with a logarithmic scale.")  # fmt: skip
def command(
    folders: tuple[str, ...],
    output: str,
    metric: str,
    x: str,
    panels: str,
    methods: str | None,
    where: tuple[str, ...],
    columns: Any,
    log: Any,
) -> None:
    """Draw FOLDERS: the result folder of a sweep, or the folders of training runs.

    Points are means over the seeds, with 95 % intervals. The same input gives the same bytes.
    """
    output_file(output, SUFFIXES)
    from finecast.compare.report.figure_file import write_figure

    lines = write_figure(
        folders,
        output,
        metric=metric,
        x=x,
        panels=panels,
        where=parse_settings(where),
        methods=() if methods is None else words("--methods", methods),
        columns=columns,
        log=log,
    )
    for line in lines:
        say(line)
