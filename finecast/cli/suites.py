"""`finecast suites`: the reference library of instances, and what is known of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finecast.cli.common import as_text, json_option, print_json, progress_bar, say, words
from finecast.problem.shipped import find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from finecast.compare.runs.reference import Standing

BEST_KNOWN = "data/best_known.json"

best_known_option = click.option(
    "--best-known", default=BEST_KNOWN, show_default=True, help="File of best known values."
)


@click.group("suites", invoke_without_command=True)
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the suites: instances that everybody can compare on, with what is known of them."""
    if context.invoked_subcommand is not None:
        return
    from finecast.compare.runs.best_known import read_best_known
    from finecast.compare.runs.reference import all_suites, standings

    known = read_best_known(find(BEST_KNOWN))
    rows: list[dict[str, Any]] = []
    for suite in all_suites():
        row = {"name": suite.name, "version": suite.version, "description": suite.description}
        rows.append(row | summary(standings(suite, known)))
    if as_json:
        print_json({"suites": rows})
        return
    lines = [
        (
            f"{row['name']}\n  {row['description']}",
            *(str(row[key]) for key in ("instances", "proven", "open", "unsolved")),
            _percent(row["largest_gap"]),
        )
        for row in rows
    ]
    heads = ("suite", "all", "proven", "open", "unsolved", "largest gap")
    _print_lines("suites and their instances", heads, lines)
    say("proven: best delay and best bound agree; finecast suites show NAME lists the instances")


@command.command("show")
@click.argument("name")
@best_known_option
@json_option
def show(name: str, best_known: str, as_json: bool) -> None:
    """List the instances of suite NAME with best delay, best bound and who found them."""
    from finecast.compare.runs.best_known import read_best_known
    from finecast.compare.runs.reference import standings
    from finecast.compare.runs.suite import read_suite

    suite = read_suite(name)
    found = standings(suite, read_best_known(find(best_known)))
    if as_json:
        rows = [
            {**dataclasses.asdict(one), "name": one.name, "gap": one.gap, "state": one.state}
            for one in found
        ]
        print_json({"suite": suite.name, "version": suite.version, "instances": rows})
        return
    lines = [
        (
            one.name,
            _seconds(one.delay),
            _seconds(one.lower_bound),
            _percent(one.gap),
            one.state,
            one.delay_from["label"] if one.delay_from else "",
        )
        for one in found
    ]
    title = f"{suite.name}, version {suite.version}"
    _print_lines(title, ("instance", "delay", "bound", "gap", "state", "by"), lines)


@command.command("get")
@click.argument("name")
@click.option("-o", "--output", required=True, metavar="DIR", help="Folder for the files.")
@click.option("--classes", help="Classes of instances, by commas; all without it.")
@json_option
def get(name: str, output: str, classes: str | None, as_json: bool) -> None:
    """Write the instances of suite NAME as files (.npz), each checked by its hash."""
    from finecast.compare.runs.reference import write_instances
    from finecast.compare.runs.suite import read_suite

    chosen = [] if classes is None else words("--classes", classes)
    written = []
    for instance, file in write_instances(read_suite(name), output, chosen):
        written.append({"instance": instance, "file": str(file)})
        if not as_json:
            say(f"{file}  {instance}")
    if as_json:
        print_json({"instances": written})


@command.command("check")
@click.argument("names", nargs=-1)
@best_known_option
@json_option
def check(names: tuple[str, ...], best_known: str, as_json: bool) -> None:
    """Draw all instances anew and compare hashes; let the judge confirm the stored solutions.

    Quiet if all is well; else a line for each fault and exit code 1. Without NAMES all suites.
    """
    from finecast.compare.runs.best_known import read_best_known
    from finecast.compare.runs.reference import all_suites, faults
    from finecast.solvers.result import Progress

    file = find(best_known)
    known = read_best_known(file)
    found: list[str] = []
    suites = all_suites(names)
    with progress_bar() as told:
        for number, suite in enumerate(suites):
            told(Progress("checking", number, len(suites), suite.name))
            found += faults([suite], known, file)
    if as_json:
        print_json({"suites": [suite.name for suite in suites], "faults": found})
    else:
        for line in found:
            say(line)
    if found:
        raise SystemExit(1)


@command.command("submit")
@click.argument("instance")
@click.argument("solution")
@click.option("--by", "found_by", required=True, help="Who found it and how, in a few words.")
@best_known_option
@json_option
def submit(instance: str, solution: str, found_by: str, best_known: str, as_json: bool) -> None:
    """Enter SOLUTION (.npz) of INSTANCE, as in exact/n3-j20/0, if the judge finds it better."""
    from finecast.compare.runs.best_known import submit as enter
    from finecast.compare.runs.reference import named_instance
    from finecast.compare.runs.suite import draw

    suite, instance_class, seed, path = named_instance(instance)
    target = Path(best_known)
    if not target.exists() and not target.parent.is_dir():
        target = find(best_known)
    drawn = draw(suite, instance_class, seed, path)
    before, delay = enter(find(solution), drawn, suite.name, found_by, target)
    if as_json:
        print_json({"instance": instance, "file": str(target), "before": before, "delay": delay})
    else:
        say(f"{instance}: {_seconds(before) or 'nothing'} before, now {_seconds(delay)}")
        say(f"entered in {target}")


def summary(found: Sequence[Standing]) -> dict[str, Any]:
    """Return how many instances there are, how many of each state, and the largest gap."""
    states = [one.state.split()[0] for one in found]
    gaps = [one.gap for one in found if one.gap is not None]
    return {
        "instances": len(found),
        **{state: states.count(state) for state in ("proven", "open", "unsolved")},
        "largest_gap": max(gaps, default=None),
    }


def _print_lines(title: str, heads: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Print a table; only its first column may take more than a line."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for number, head in enumerate(heads):
        table.add_column(head, no_wrap=number > 0)
    for line in lines:
        table.add_row(*(as_text(cell) for cell in line))
    Console().print(table)


def _seconds(delay: float | None) -> str:
    return "" if delay is None else f"{delay:.6g} s"


def _percent(gap: float | None) -> str:
    from finecast.problem.wording import percent

    return "" if gap is None else percent(gap, 4)
