"""What the commands share: inputs, progress, tables, JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from finecast.problem.files import FormatError, archive_format, json_text, parse_json, reading
from finecast.problem.instance import Instance
from finecast.problem.shipped import find
from finecast.problem.wording import printable

if TYPE_CHECKING:
    from rich.text import Text

    from finecast.solvers.result import Progress

Command = TypeVar("Command", bound=Callable[..., Any])

SPEED_OVER_S = 300.0
"""The time left is estimated from the last so many seconds."""

SPEAK_EVERY_S = 20.0
"""Where stderr is no terminal, progress is a line every so often."""

json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def workers_options(
    what: str, where: str, *, all_cores: bool = False
) -> Callable[[Command], Command]:
    """Return the options --workers, --engine and --scheduler, of a command that does `what`."""

    def add(command: Command) -> Command:
        for option in (
            click.option("--scheduler", metavar="ADDRESS", help="Of Dask, as in tcp://host:8786."),
            click.option(
                "--engine",
                type=click.Choice(["local", "dask"]),
                default="local",
                show_default=True,
                help=f"Where {where}: on this machine, or by the workers of a Dask scheduler.",
            ),
            click.option(
                "--workers",
                type=click.IntRange(min=1),
                default=(os.cpu_count() or 1) if all_cores else 1,
                show_default="all cores" if all_cores else True,
                help=what,
            ),
        ):
            command = option(command)
        return command

    return add


seed_option = click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of the instance (when drawn from a scenario) and of the method.",
)
path_option = click.option(
    "--path",
    "draw",
    type=click.IntRange(min=0),
    help="For a scenario: number of the path (requests, fading, CSI errors) on the network of the "
    "seed; without it, the path of the seed itself.",
)
set_option = click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of the scenario as in users.count=6, delivery= or schedule= of the instance, "
    "restrict=, or a method's option; repeatable.",
)


def load_instance(
    path: str, seed: int, draw: int | None = None, changes: dict[str, Any] | None = None
) -> Instance:
    """Return the instance in an .npz file, or the one drawn from a scenario.

    Parameters
    ----------
    path
        Of an instance or a scenario, or the name of a shipped scenario.
    seed
        Seed of the draw.
    draw
        Number of the path on the network of the seed; see `Scenario.generate`.
    changes
        Other values of the scenario by dotted key, as in `{"users.count": 6}`.

    Raises
    ------
    FormatError
        The file is missing or bad, or holds an instance, which has one path alone and no keys.
    """
    file = find(path, "scenario")
    if file.suffix == ".toml":
        from finecast.problem.scenario import read_scenario

        scenario = read_scenario(file)
        with reading(file):
            return (scenario.with_(changes) if changes else scenario).generate(seed, draw)
    from finecast.problem.instance import read_instance

    if draw is not None:
        raise FormatError(file, "is an instance, --path needs a scenario")
    if changes:
        raise FormatError(file, f"is an instance, --set {next(iter(changes))}= needs a scenario")
    return read_instance(file)


def parse_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Return `KEY=VALUE` texts as a dictionary; values are JSON where they parse, else text.

    Raises
    ------
    ValueError
        A text has no '='.
    """
    options: dict[str, Any] = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ValueError(f"--set: {text!r} is not allowed, must be KEY=VALUE")
        try:
            options[key.strip()] = parse_json(value)
        except json.JSONDecodeError:
            options[key.strip()] = value
        except ValueError as error:
            raise ValueError(f"--set: {key.strip()}: {error}") from None
    return options


def settings_of(settings: Iterable[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what `KEY=VALUE` texts change in the scenario, and all other options."""
    from finecast.problem.scenario import scenario_settings

    return scenario_settings(parse_settings(settings))


def with_settings(instance: Instance, options: dict[str, Any]) -> tuple[Instance, dict[str, Any]]:
    """Apply `delivery` and `schedule` to the instance; return it and the other options."""
    fields = {key: options[key] for key in ("delivery", "schedule") if key in options}
    others = {key: value for key, value in options.items() if key not in fields}
    return (dataclasses.replace(instance, **fields) if fields else instance), others


def instance_for(path: str, seed: int, settings: Iterable[str]) -> Instance:
    """Return an instance as `delivery=`, `schedule=` and `restrict=` settings make it.

    Raises
    ------
    ValueError
        Another setting, or an unknown restriction.
    """
    from finecast.solvers.restrictions import check_restrictions, restricted_instance

    changes, options = settings_of(settings)
    instance, others = with_settings(load_instance(path, seed, changes=changes), options)
    restrict = others.pop("restrict", "")
    if others:
        raise ValueError(
            f"--set: {next(iter(others))!r} is unknown, expected a key of the scenario as in "
            "users.count, delivery, schedule or restrict"
        )
    return restricted_instance(instance, check_restrictions(restrict))


def words(option: str, text: str) -> list[str]:
    """Return the words between the commas of an option.

    Raises
    ------
    ValueError
        There is none, or one stands twice.
    """
    names = [word.strip() for word in text.split(",") if word.strip()]
    if not names:
        raise ValueError(f"{option}: {text!r} names none")
    if len(set(names)) < len(names):
        raise ValueError(f"{option}: {text!r} names one twice")
    return names


@contextmanager
def progress_bar(*, time_left: bool = False) -> Iterator[Callable[[Progress], None]]:
    """Give a callback that draws progress on stderr; where that is no terminal, it writes lines."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        ProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        with _speaker() as tell_lines:
            yield tell_lines
        return
    left: list[ProgressColumn] = [TextColumn("left"), TimeRemainingColumn()] if time_left else []
    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *left,
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        transient=True,
        speed_estimate_period=SPEED_OVER_S,
    )
    tasks: dict[str, Any] = {}

    def tell(progress: Progress) -> None:
        if progress.stage not in tasks:  # what is done at once says nothing of the time left
            tasks[progress.stage] = bars.add_task(
                progress.stage, note="", total=None, completed=progress.done
            )
        bars.update(
            tasks[progress.stage],
            completed=progress.done,
            total=progress.total or None,
            note=printable(progress.note),
        )

    with bars:
        yield tell


@contextmanager
def _speaker() -> Iterator[Callable[[Progress], None]]:
    """Give a callback that keeps how it stands; a thread writes it to stderr now and then."""
    began = time.monotonic()
    last = "at work"
    over = threading.Event()

    def tell(progress: Progress) -> None:
        nonlocal last
        done = f" {progress.done} of {progress.total}" if progress.total else ""
        note = f", {progress.note}" if progress.note else ""
        last = f"{progress.stage}{done}{note}"

    def speak() -> None:
        while not over.wait(SPEAK_EVERY_S):
            line = f"{time.monotonic() - began:.0f} s: {last}"
            with suppress(OSError, ValueError):  # stderr may be closed; the work goes on
                click.echo(printable(line), err=True)

    threading.Thread(target=speak, daemon=True).start()
    try:
        yield tell
    finally:
        over.set()


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object."""
    click.echo(json_text(value))


def say(line: str) -> None:
    """Print a line in which nothing commands the terminal."""
    click.echo(printable(line))


def as_text(value: str) -> Text:
    """Return a value for a table: text without markup or pictures, and nothing but text."""
    from rich.text import Text

    return Text(printable(value))


def print_table(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Print a two-column table of names and values; nothing of the title or a value is cut."""
    from rich.console import Console
    from rich.table import Table

    say(title)  # above the table: as its title it would be broken at the table's width
    table = Table(show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*map(as_text, row))
    Console().print(table)


def output_file(path: str, suffixes: Sequence[str] = (), *, holds: str | None = None) -> Path:
    """Return an output path that can be written, so that work is not done for nothing.

    Parameters
    ----------
    path
        As given.
    suffixes
        The endings it may have; none: any.
    holds
        Format of what will be written. A file that is there and holds something else, such as the
        instance or its channels, is not replaced; an empty one is.

    Raises
    ------
    FormatError
        The folder does not exist, or the path is a folder, has another ending or holds another
        kind of file.
    """
    target = Path(path)
    if target.is_dir():
        raise FormatError(target, "is a directory, expected a file name")
    if not target.parent.is_dir():
        raise FormatError(target, f"the folder {target.parent} does not exist")
    if suffixes and target.suffix.lower() not in suffixes:
        allowed = " or ".join(repr(suffix) for suffix in suffixes)
        raise FormatError(target, f"has the ending {target.suffix!r}, expected {allowed}")
    if holds is not None and target.is_file() and target.stat().st_size > 0:
        there = _format_of(target)
        if there != holds:
            raise FormatError(
                target,
                f"is there and is {there or 'no finecast file'}, which {holds} would replace",
            )
    return target


def _format_of(path: Path) -> str | None:
    """Return the format of an archive of ours; None for any other file."""
    try:
        return archive_format(path)
    except FormatError:
        return None


@contextmanager
def resumable(output: str) -> Iterator[Callable[[Progress], None]]:
    """Give the callback of `progress_bar`; Ctrl-C says that the folder can be gone on from."""
    try:
        with progress_bar(time_left=True) as tell:
            yield tell
    except KeyboardInterrupt:
        click.echo(
            f"finecast: interrupted; the same command goes on from what is in {output}", err=True
        )
        sys.exit(130)
