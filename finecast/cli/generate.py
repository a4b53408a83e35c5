"""`finecast generate`: draw instances from a scenario."""

from __future__ import annotations

from typing import Any

import click

from finecast.cli.common import (
    json_option,
    load_instance,
    output_file,
    path_option,
    print_json,
    say,
    settings_of,
)
from finecast.problem.shipped import find


@click.command("generate")
@click.argument("scenario")
@click.option("-o", "--output", required=True, help="Instance file to write (.npz).")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@path_option
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of the scenario, as in users.count=6; repeatable.",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many, with consecutive seeds, or with consecutive paths where --path is given; the "
    "number is then added to the file name.",
)
@json_option
def command(
    scenario: str,
    output: str,
    seed: int,
    draw: int | None,
    settings: tuple[str, ...],
    count: int,
    as_json: bool,
) -> None:
    """Draw instances from SCENARIO, a TOML file or a shipped name such as tiny.

    The same seed and path give the same instance.
    """
    from finecast.cli.describe import areas_in_words, describe_areas
    from finecast.problem.areas import area_notes
    from finecast.problem.files import FormatError
    from finecast.problem.instance import write_instance

    target = output_file(output, [".npz"])
    if find(scenario, "scenario").suffix != ".toml":
        raise FormatError(scenario, "is not a scenario, expected a .toml file")
    changes, others = settings_of(settings)
    if others:
        raise ValueError(
            f"--set: {next(iter(others))!r} is no key of a scenario, as users.count is"
        )
    if draw is None:
        draws = [{"seed": number} for number in range(seed, seed + count)]
    else:
        draws = [{"seed": seed, "path": number} for number in range(draw, draw + count)]
    stem = "seed" if draw is None else "path"
    files = [
        target if count == 1 else target.with_stem(f"{target.stem}-{stem}{numbers[stem]}")
        for numbers in draws
    ]
    for file in files:
        output_file(str(file), holds="finecast-instance")
    # A line as soon as a file is there: the next one may not fit the disk.
    written = []
    for numbers, file in zip(draws, files, strict=True):
        instance = load_instance(scenario, numbers["seed"], numbers.get("path"), changes)
        digest = write_instance(file, instance)
        apart = describe_areas(instance)
        areas = {"areas": len(apart["areas"])} if apart else {}
        written.append({"file": str(file), **numbers, **areas, "instance_hash": digest})
        if not as_json:
            said = [f"{name} {number}" for name, number in numbers.items()]
            said += [areas_in_words(apart["areas"])] if apart else []
            say("  ".join([str(file), *said, digest]))
            for note in area_notes(instance.areas):
                say(f"note: {note}")
    replayed = _replayed(scenario, changes, seed)
    if as_json:
        print_json({"instances": written} | ({"trace": replayed} if replayed else {}))
    elif replayed:
        say(f"note: {replayed}")


def _replayed(scenario: str, changes: dict[str, Any], seed: int) -> str:
    """Say what became of the lines of a trace with time stamps; "" without one."""
    from finecast.problem.scenario import read_scenario

    replay = read_scenario(scenario).with_(changes).replayed(seed)
    return replay.note() if replay else ""
