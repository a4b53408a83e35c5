"""`finecast plan`: what to store at each site, what that buys, and how sure it is, on one page."""

from __future__ import annotations

import sys

import click

from finecast.cli.common import (
    json_option,
    output_file,
    parse_settings,
    print_json,
    progress_bar,
    say,
)
from finecast.problem.files import FormatError, reading
from finecast.problem.shipped import find


@click.command("plan")
@click.argument("scenario")
@click.option("-o", "--output", help="Page to write: .html, or .pdf; without it, only say.")
@click.option(
    "--draws",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Draws of the demand that the plan is judged on.",
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0),
    default=45.0,
    show_default=True,
    help="Seconds for the computation, about. What must be there takes what it takes.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Seed of what the scenario leaves to chance about the network.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of the scenario, as in users.count=40; repeatable.",
)
@json_option
def command(
    scenario: str,
    output: str | None,
    draws: int,
    time_limit: float,
    seed: int,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Plan the network of SCENARIO, a TOML file or a shipped name such as city-center.

    Says what to store at each site, what moves, what users wait, what the plan buys against other
    ways, and how sure that is. Ctrl-C keeps what there is.
    """
    target = None if output is None else output_file(output, [".html", ".htm", ".pdf"])
    file = find(scenario, "scenario")
    if file.suffix != ".toml":
        raise FormatError(scenario, "is not a scenario, expected a .toml file")

    from finecast.compare.planning.plan import plan
    from finecast.problem.scenario import read_scenario
    from finecast.solvers.signals import SearchInterrupt, ctrl_c_keeps_the_best

    with reading(file):
        read = read_scenario(file)
        chosen = parse_settings(settings)
        if chosen:
            read = read.with_(chosen)
    try:
        with progress_bar() as tell, ctrl_c_keeps_the_best():
            found = plan(read, draws=draws, seed=seed, time_limit=time_limit, callback=tell)
    except SearchInterrupt:
        click.echo("finecast: interrupted before a plan was found", err=True)
        sys.exit(130)
    if as_json:
        print_json({**found.as_dict(), "file": None if target is None else str(target)})
    else:
        for line in [*found.sentences, *(f"note: {note}" for note in found.notes)]:
            say(line)
    if target is not None:
        from finecast.compare.planning.write import write_plan

        write_plan(found, target)
        if not as_json:
            say(f"plan written to {target}")
    if found.interrupted:
        sys.exit(130)
