"""`finecast export`: an instance or a solution for MATLAB."""

from __future__ import annotations

import click

from finecast.cli.common import json_option, load_instance, output_file, print_json, say


@click.command("export")
@click.argument("file")
@click.option("-o", "--output", required=True, help="MATLAB file to write (.mat).")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="For a TOML scenario.")
@json_option
def command(file: str, output: str, seed: int, as_json: bool) -> None:
    """Write FILE, an instance, a scenario or a solution, as arrays for MATLAB.

    docs/files.md says what the arrays are called, their shapes and their units.
    """
    from finecast.problem.files import FormatError, archive_format
    from finecast.problem.matlab import write_mat
    from finecast.problem.shipped import find
    from finecast.problem.solution import read_solution

    target = output_file(output, [".mat"])
    path = find(file, "scenario")
    if target.exists() and target.samefile(path):
        raise FormatError(target, "is the file that is read, give another name")
    if path.suffix != ".toml" and archive_format(path) == "finecast-solution":
        kind = "solution"
        write_mat(target, read_solution(path))
    else:
        kind = "instance"
        write_mat(target, load_instance(file, seed))
    if as_json:
        print_json({"file": str(target), "kind": kind})
    else:
        say(f"{kind} written to {target}")
