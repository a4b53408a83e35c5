"""`finecast compare`: run the methods of a suite on its instances, and what goes with that."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finecast.cli.common import json_option, parse_settings, print_json
from finecast.problem.shipped import find

if TYPE_CHECKING:
    from finecast.compare.runs.records import Record
    from finecast.compare.runs.runner import Tell
    from finecast.compare.runs.suite import MethodEntry, Suite


@click.command("compare")
@click.argument("sources", metavar="SUITE", nargs=-1, required=True)
@click.option("-o", "--output", help="Result folder; runs that it holds are not done again.")
@click.option("--methods", help="Labels of the suite's methods, or names of any, by commas.")
@click.option("--classes", help="Names of the suite's classes, by commas.")
@click.option("--instances", metavar="LIST", help="Seeds of the instances, as in 0-4 or 0,2,5.")
@click.option("--seeds", metavar="LIST", help="Seeds of the methods, as in 0-4 or 0,2,5.")
@click.option(
    "--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Runs at once."
)
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of each run."
)
@click.option(
    "--engine",
    type=click.Choice(["local", "dask"]),
    default="local",
    show_default=True,
    help="Where runs are made: on this machine, or by the workers of a Dask scheduler.",
)
@click.option("--scheduler", metavar="ADDRESS", help="Of Dask, as in tcp://host:8786.")
@click.option("--time-limit", type=float, help="Seconds for each run, in place of the suite's.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of every method, or delivery=, schedule=, restrict=; repeatable.",
)
@click.option("--retry-failed", is_flag=True, help="Run failed and killed runs again.")
@click.option("--freeze", "mode", flag_value="--freeze", help="Write the hashes of SUITE.")
@click.option(
    "--merge", "mode", flag_value="--merge", help="Merge result folders, in place of SUITE, to -o."
)
@click.option(
    "--update-best-known",
    "mode",
    flag_value="--update-best-known",
    help="Enter what a result folder, in place of SUITE, improves on, if the judge agrees.",
)
@click.option("--best-known", default="data/best_known.json", show_default=True, help="That file.")
@json_option
def command(
    sources: tuple[str, ...],
    output: str | None,
    methods: str | None,
    classes: str | None,
    instances: str | None,
    seeds: str | None,
    workers: int,
    threads: int,
    engine: Any,
    scheduler: str | None,
    time_limit: float | None,
    settings: tuple[str, ...],
    retry_failed: bool,
    mode: str | None,
    best_known: str,
    as_json: bool,
) -> None:
    """Run the methods of SUITE on its instances: only what -o does not hold yet.

    SUITE is a file, or the name of a shipped suite: smoke, exact, small-hard, mid, slow-links,
    persist, persist-slow, large, paper, llm.
    """
    if mode != "--merge" and len(sources) > 1:
        raise ValueError(f"SUITE: one is expected, {len(sources)} are given")
    if mode == "--freeze":
        _freeze(sources[0], as_json)
        return
    if mode == "--update-best-known":
        _update_best_known(sources[0], best_known, as_json)
        return
    if output is None:
        raise ValueError("-o: is missing, expected a result folder")
    if mode == "--merge":
        _merge(sources, output, as_json)
        return
    if time_limit is not None and not 0 < time_limit < float("inf"):
        raise ValueError(f"--time-limit: {time_limit} is not allowed, must be finite and > 0")
    if scheduler is not None and engine != "dask":
        raise ValueError("--scheduler: is for --engine dask")

    from finecast.compare.runs.runner import compare, plan
    from finecast.compare.runs.store import PARQUET, open_folder
    from finecast.compare.runs.suite import parse_seeds, read_suite

    suite = read_suite(sources[0])
    entries = _entries(suite, methods, settings)
    chosen = None if classes is None else _words("--classes", classes)
    folder = open_folder(output)
    with _bar("drawing instances") as tell_drawn:
        runs = plan(
            suite,
            folder,
            entries=entries,
            classes=chosen,
            instances=None if instances is None else parse_seeds(instances),
            seeds=None if seeds is None else parse_seeds(seeds),
            time_limit_s=time_limit,
            drawn=lambda done, total: tell_drawn(done, total, None),
        )
    try:
        with _bar("runs") as tell:
            counts = compare(
                runs,
                folder,
                workers=workers,
                threads=threads,
                engine=engine,
                scheduler=scheduler,
                retry_failed=retry_failed,
                tell=tell,
            )
    except KeyboardInterrupt:
        click.echo(
            f"finecast: interrupted; the same command goes on from what is in {folder}", err=True
        )
        sys.exit(130)
    _tell(suite, runs, folder, counts, folder / PARQUET, as_json)


def _words(option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError(f"{option}: {text!r} names none")
    if len(set(words)) < len(words):
        raise ValueError(f"{option}: {text!r} names one twice")
    return words


def _entries(
    suite: Suite, methods: str | None, settings: tuple[str, ...]
) -> list[MethodEntry] | None:
    """Return the methods asked for, with the settings of the command line; None for the suite's."""
    from finecast.compare.runs.suite import MethodEntry

    if methods is None and not settings:
        return None
    by_label = {entry.label: entry for entry in suite.methods}
    labels = list(by_label) if methods is None else _words("--methods", methods)
    options = parse_settings(settings)
    own: dict[str, Any] = {
        key: options.pop(key) for key in ("restrict", "delivery", "schedule") if key in options
    }
    # A label names no path: of checkpoint=runs/x it says checkpoint=x.
    said = "".join(
        f" {key}={value.rstrip('/').rsplit('/', 1)[-1]}"
        for key, _, value in (setting.partition("=") for setting in settings)
    )
    chosen = []
    for label in labels:
        entry = by_label.get(label) or MethodEntry(method=label, label=label)
        changed: dict[str, Any] = {**entry.model_dump(), **own, "label": f"{entry.label}{said}"}
        chosen.append(
            MethodEntry.model_validate({**changed, "options": {**entry.options, **options}})
        )
    return chosen


def _tell(
    suite: Suite,
    runs: list[Any],
    folder: Path,
    counts: dict[str, int],
    parquet: Path,
    as_json: bool,
) -> None:
    from finecast.compare.runs.store import read_records

    asked = {run.key for run in runs}
    records = [record for record in read_records(folder) if record.key in asked]
    by_status = dict(sorted(Counter(record.status for record in records).items()))
    unfrozen = sum(
        suite.frozen_hash(one, seed) is None for one in suite.classes for seed in one.seeds
    )
    made_by = {(r.versions.get("finecast", ""), r.commit.rstrip("+")) for r in records}
    if as_json:
        print_json(
            {
                "suite": suite.name,
                "version": suite.version,
                **counts,
                "status": by_status,
                "folder": str(folder),
                "parquet": str(parquet),
                "instances_not_frozen": unfrozen,
            }
        )
        return
    _print_table(records)
    click.echo(
        f"{counts['asked']} runs: {counts['known']} were there, {counts['done']} done now; "
        + ", ".join(f"{number} {status}" for status, number in by_status.items())
    )
    click.echo(f"rows in {parquet}")
    if unfrozen:
        click.echo(f"note: {unfrozen} instances have no frozen hash; see --freeze")
    if len(made_by) > 1:
        click.echo("note: the runs were made by several versions or commits; each row says which")


def _print_table(records: list[Record]) -> None:
    from statistics import median

    from rich.console import Console
    from rich.table import Table

    table = Table(title="median over all runs", title_justify="left")
    for column in ("method", "runs", "solved", "gap", "delay", "wall"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for label in dict.fromkeys(record.label for record in records):
        own = [record for record in records if record.label == label]
        gaps = [record.gap for record in own if record.gap is not None]
        delays = [record.delay for record in own if record.delay is not None]
        table.add_row(
            label,
            str(len(own)),
            str(sum(record.status == "completed" for record in own)),
            f"{100 * median(gaps):.2f} %" if gaps else "-",
            f"{median(delays):.4g} s" if delays else "-",
            f"{median(record.wall_s for record in own):.3g} s",
        )
    Console().print(table, markup=False)


def _freeze(source: str, as_json: bool) -> None:
    from finecast.compare.runs.suite import freeze, read_suite

    suite = read_suite(source)
    path = freeze(suite)
    count = sum(len(one.seeds) for one in suite.classes)
    if as_json:
        print_json({"suite": suite.name, "version": suite.version, "instances": count,
                    "file": str(path)})  # fmt: skip
    else:
        click.echo(f"{count} hashes of suite {suite.name} version {suite.version} in {path}")


def _merge(sources: tuple[str, ...], output: str, as_json: bool) -> None:
    from finecast.compare.runs.store import PARQUET, merge, read_records

    folder = merge(sources, output)
    count = len(read_records(folder))
    if as_json:
        print_json({"runs": count, "folder": str(folder), "parquet": str(folder / PARQUET)})
    else:
        click.echo(f"{count} runs in {folder / PARQUET}")


def _update_best_known(source: str, best_known: str, as_json: bool) -> None:
    from finecast.compare.runs.best_known import update

    path = Path(best_known)
    if not path.exists() and not path.parent.is_dir():
        path = find(best_known)  # the shipped one
    report = update(source, path)
    if as_json:
        print_json({"file": str(path), **report})
        return
    for what in ("delays", "bounds", "refused"):
        for line in report[what]:
            click.echo(f"{what.removesuffix('s')}: {line}")
    click.echo(
        f"{len(report['delays'])} delays and {len(report['bounds'])} bounds improved in {path}"
    )


@contextmanager
def _bar(what: str) -> Iterator[Tell]:
    """Give a callback that draws progress with the time left on stderr, if it is a terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal,
        speed_estimate_period=300.0,
    ) as bars:  # fmt: skip
        tasks: list[Any] = []

        def tell(done: int, total: int, record: Record | None) -> None:
            if not tasks:  # what was there before says nothing of the time that is left
                tasks.append(bars.add_task(what, total=total, completed=done, note=""))
            note = "" if record is None else f"{record.label} on {record.instance_class}"
            bars.update(tasks[0], completed=done, total=total, note=note)

        yield tell
