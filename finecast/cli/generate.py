"""`finecast generate`: draw instances from a scenario."""

from __future__ import annotations

import click

from finecast.cli.common import json_option, load_instance, print_json, refuse_overwriting_folder
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

    target = refuse_overwriting_folder(output, ".npz")
    if find(scenario, "scenario").suffix != ".toml":
        raise FormatError(scenario, "is not a scenario, expected a .toml file")
    written = []
    for draw in range(seed, seed + count):
        instance = load_instance(scenario, draw)
        path = target if count == 1 else target.with_stem(f"{target.stem}-seed{draw}")
        digest = write_instance(path, instance)
        written.append({"file": str(path), "seed": draw, "instance_hash": digest})
    if as_json:
        print_json({"instances": written})
    else:
        for row in written:
            click.echo(f"{row['file']}  seed {row['seed']}  {row['instance_hash']}")
