"""`finecast bound`: the certified lower bound alone."""

from __future__ import annotations

import math
import time

import click

from finecast.cli.common import (
    json_option,
    load_instance,
    parse_settings,
    print_json,
    print_table,
    progress_bar,
    set_option,
    with_settings,
)
from finecast.problem.files import concerning
from finecast.problem.wording import seconds


@click.command("bound")
@click.argument("instance")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="For a TOML scenario.")
@set_option
@json_option
def command(instance: str, seed: int, settings: tuple[str, ...], as_json: bool) -> None:
    """Compute a certified lower bound on the delay of INSTANCE, whatever the decisions."""
    from finecast.problem.reception import gain_notes, unserved
    from finecast.solvers.bounds import certified_lower_bound

    problem, unknown = with_settings(load_instance(instance, seed), parse_settings(settings))
    restrict = unknown.pop("restrict", "")
    if unknown:
        raise ValueError(
            f"--set: {next(iter(unknown))!r} is unknown, expected delivery or schedule"
        )
    began = time.perf_counter()
    with concerning(instance, "restrict"), progress_bar() as tell:
        bound = certified_lower_bound(problem, restrict=restrict, callback=tell)
    wall_s = time.perf_counter() - began
    reason = unserved(problem) if math.isinf(bound) else ""
    notes = [*filter(None, [reason]), *gain_notes(problem)]
    if as_json:
        print_json(
            {
                "lower_bound": bound,
                "bound_kind": "certified",
                "wall_s": wall_s,
                "notes": notes,
                "instance_hash": problem.content_hash,
            }
        )
    else:
        print_table(
            f"{problem.name or 'instance'}, seed {problem.seed}",
            [
                ("lower bound", f"{seconds(bound)} (certified)"),
                ("mean per slot", seconds(bound / problem.slots)),
                ("time", f"{wall_s:.2f} s wall"),
                *(("note", note) for note in notes),
            ],
        )
