"""`finecast generate`: draw instances from a scenario."""

from __future__ import annotations

import click

from finecast.cli.common import json_option, load_instance, output_file, print_json, say
from finecast.problem.shipped import find


@click.command("generate")
@click.argument("scenario")
@click.option("-o", "--output", required=True, help="Instance file to write (.npz).")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="How many, with consecutive seeds; the seed is then added to the file name.",
)
@json_option
def command(scenario: str, output: str, seed: int, count: int, as_json: bool) -> None:
    """Draw instances from SCENARIO, a TOML file or a shipped name such as tiny.

    The same seed gives the same instance.
    """
    from finecast.problem.files import FormatError
    from finecast.problem.instance import write_instance

    target = output_file(output, [".npz"])
    if find(scenario, "scenario").suffix != ".toml":
        raise FormatError(scenario, "is not a scenario, expected a .toml file")
    seeds = range(seed, seed + count)
    paths = [
        target if count == 1 else target.with_stem(f"{target.stem}-seed{draw}") for draw in seeds
    ]
    for path in paths:
        output_file(str(path), holds="finecast-instance")
    # A line as soon as a file is there: the next one may not fit the disk.
    written = []
    for draw, path in zip(seeds, paths, strict=True):
        digest = write_instance(path, load_instance(scenario, draw))
        written.append({"file": str(path), "seed": draw, "instance_hash": digest})
        if not as_json:
            say(f"{path}  seed {draw}  {digest}")
    if as_json:
        print_json({"instances": written})
