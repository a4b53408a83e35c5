"""`finecast compare`: run the methods of a suite on its instances, and what goes with that."""

from __future__ import annotations

import glob
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finecast.cli.common import (
    as_text,
    json_option,
    parse_settings,
    print_json,
    resumable,
    say,
    words,
    workers_options,
)
from finecast.problem.shipped import find

if TYPE_CHECKING:
    from finecast.compare.report.comparison import Comparison
    from finecast.compare.report.online import OnlineFigures
    from finecast.compare.runs.runner import SuiteRuns
    from finecast.compare.runs.suite import Suite


@click.command("compare")
@click.argument("sources", metavar="SUITE", nargs=-1, required=True)
@click.option("-o", "--output", help="Result folder; runs that it holds are not done again.")
@click.option("--methods", help="Labels of the suite's methods, or names of any, by commas.")
@click.option("--classes", help="Names of the suite's classes, by commas.")
@click.option("--instances", metavar="LIST", help="Seeds of the instances, as in 0-4 or 0,2,5.")
@click.option("--seeds", metavar="LIST", help="Seeds of the methods, as in 0-4 or 0,2,5.")
@workers_options("Runs at once.", "runs are made")
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of each run."
)
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

    SUITE is a file, or instance files of your own (mine/*.npz) with --methods, or the name of a
    shipped suite: smoke, exact, small-hard, mid, slow-links, persist, persist-slow, online, large,
    paper, llm, city.
    """
    own = mode is None and all(source.endswith(".npz") for source in sources)
    if mode != "--merge" and len(sources) > 1 and not own:
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
    from finecast.compare.runs.runner import run_suite

    if own and methods is None:
        raise ValueError("--methods: is missing, expected names of methods for these files")
    with resumable(output) as tell:
        ran = run_suite(
            _of_files(sources, words("--methods", methods)) if own and methods else sources[0],
            output,
            methods=None if methods is None else words("--methods", methods),
            options=parse_settings(settings),
            classes=None if classes is None else words("--classes", classes),
            instances=None if instances is None else seeds_of("--instances", instances),
            seeds=None if seeds is None else seeds_of("--seeds", seeds),
            time_limit_s=time_limit,
            workers=workers,
            threads=threads,
            engine=engine,
            scheduler=scheduler,
            retry_failed=retry_failed,
            callback=tell,
        )
    tell_runs(ran, as_json)


def _of_files(files: tuple[str, ...], methods: list[str]) -> Suite:
    """Return the suite of instance files, all in one class."""
    from finecast.compare.runs.suite import suite_from

    named = [str(Path(file).resolve()) for file in files]
    table = {
        "name": "files",
        "methods": [{"method": name} for name in methods],
        "classes": [{"name": "files", "files": [glob.escape(name) for name in named]}],
    }
    return suite_from(table, Path("files.toml"))


def seeds_of(option: str, text: str) -> list[int]:
    """Return the seeds that an option names."""
    from finecast.compare.runs.suite import parse_seeds

    try:
        seeds: list[int] = parse_seeds(text)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from None
    return seeds


def tell_runs(ran: SuiteRuns, as_json: bool) -> None:
    """Print what running a suite has come to."""
    from finecast.compare.report.online import impossible_gaps, online_figures, online_rows
    from finecast.compare.runs.store import PARQUET

    suite, parquet = ran.suite, ran.folder / PARQUET
    by_status = dict(sorted(Counter(record.status for record in ran.records).items()))
    unfrozen = 0
    if not any(group.point or group.files for group in suite.classes):
        unfrozen = sum(
            suite.frozen_hash(group, *draw) is None
            for group in suite.classes
            for draw in suite.draws(group)
        )
    comparison = _comparison(ran)
    online = online_figures(comparison) if comparison else []
    if as_json:
        print_json(
            {
                "suite": suite.name,
                "version": suite.version,
                "asked": ran.asked,
                "known": ran.known,
                "done": ran.done,
                "status": by_status,
                "folder": str(ran.folder),
                "parquet": str(parquet),
                "instances_not_frozen": unfrozen,
                "online": online_rows(online),
            }
        )
        return
    if comparison:
        _print_table(ran, comparison)
        _print_online(online)
        for line in (*comparison.doubted, *impossible_gaps(comparison)):
            say(f"note: {line}")
    say(
        f"{ran.asked} runs: {ran.known} were there, {ran.done} done now; "
        + ", ".join(f"{number} {status}" for status, number in by_status.items())
    )
    say(f"rows in {parquet}")
    if unfrozen:
        say(f"note: {unfrozen} instances have no frozen hash; see --freeze")
    made_by = {(r.versions.get("finecast", ""), r.commit.rstrip("+")) for r in ran.records}
    if len(made_by) > 1:
        say("note: the runs were made by several versions or commits; each row says which")


def _comparison(ran: SuiteRuns) -> Comparison | None:
    """Return all runs of the folder, as `finecast report` compares them; None without any."""
    from finecast.compare.report.comparison import compare_runs
    from finecast.compare.report.known import known_bounds
    from finecast.compare.runs.store import read_records

    if not ran.records:
        return None
    there = read_records(ran.folder)
    return compare_runs(there, known_bounds=known_bounds(ran.folder, there))


def _print_table(ran: SuiteRuns, comparison: Comparison) -> None:
    """Print a row a method; gaps are those of `finecast report` on the same folder."""
    import numpy as np
    from rich.console import Console
    from rich.table import Table

    from finecast.problem.wording import percent

    table = Table(title="median over all runs", title_justify="left")
    for column in ("method", "runs", "solved", "gap to best bound", "delay", "wall"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for label in dict.fromkeys(record.label for record in ran.records):
        own = [record for record in ran.records if record.label == label]
        delays = [record.delay for record in own if record.delay is not None]
        table.add_row(
            as_text(label),
            str(len(own)),
            str(sum(record.status == "completed" for record in own)),
            percent(float(np.median(comparison.gaps(own))), 2),
            f"{np.median(delays):.4g} s" if delays else "-",
            f"{np.median([record.wall_s for record in own]):.3g} s",
        )
    Console().print(table)
    say("gap to best bound: delay over the best certified bound of the full system, less 1")


def _print_online(figures: list[OnlineFigures]) -> None:
    """Print a table a class of its online methods, where online bounds are known."""
    from rich.console import Console
    from rich.table import Table

    from finecast.compare.report.online import IN_THE_MEAN
    from finecast.compare.report.table import shown

    for name in dict.fromkeys(f.instance_class for f in figures):
        of_class = [f for f in figures if f.instance_class == name]
        title = (
            f"class {as_text(name)}: means over {of_class[0].networks} networks and "
            f"{of_class[0].paths} paths (95% interval); the online bound is "
            f"{shown(of_class[0].information, 'percent')} over the hindsight bound"
        )
        table = Table(title=title, title_justify="left")
        for column in ("online method", "over hindsight", "over online bound", "of it keep rule"):
            table.add_column(column, justify="left" if column == "online method" else "right")
        for f in of_class:
            parts = (f.over_hindsight, f.over_online, f.keep and f.keep.value)
            table.add_row(as_text(f.label), *(shown(part, "percent") for part in parts))
        Console().print(table)
    if figures:
        say(IN_THE_MEAN)


def _freeze(source: str, as_json: bool) -> None:
    from finecast.compare.runs.suite import freeze, read_suite

    suite = read_suite(source)
    path = freeze(suite)
    count = sum(len(suite.draws(group)) for group in suite.classes)
    if as_json:
        print_json({"suite": suite.name, "version": suite.version, "instances": count,
                    "file": str(path)})  # fmt: skip
    else:
        say(f"{count} hashes of suite {suite.name} version {suite.version} in {path}")


def _merge(sources: tuple[str, ...], output: str, as_json: bool) -> None:
    from finecast.compare.runs.store import PARQUET, merge, read_records

    folder = merge(sources, output)
    count = len(read_records(folder))
    if as_json:
        print_json({"runs": count, "folder": str(folder), "parquet": str(folder / PARQUET)})
    else:
        say(f"{count} runs in {folder / PARQUET}")


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
            say(f"{what.removesuffix('s')}: {line}")
    say(f"{len(report['delays'])} delays and {len(report['bounds'])} bounds improved in {path}")
