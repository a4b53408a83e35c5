"""`finecast evaluate`: the judge alone."""

from __future__ import annotations

import sys

import click

from finecast.cli.common import (
    instance_for,
    json_option,
    print_json,
    print_table,
    say,
    set_option,
)
from finecast.problem.wording import percent, seconds


@click.command("evaluate")
@click.argument("instance")
@click.argument("solution")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="For a TOML scenario.")
@set_option
@json_option
def command(
    instance: str, solution: str, seed: int, settings: tuple[str, ...], as_json: bool
) -> None:
    """Judge SOLUTION on INSTANCE; exit code 1 and the list of violations if it breaks a rule."""
    from finecast.problem.evaluation import evaluate
    from finecast.problem.files import FormatError
    from finecast.problem.solution import read_solution
    from finecast.solvers.result import area_rows

    problem = instance_for(instance, seed, settings)
    decisions = read_solution(solution)
    try:
        evaluation = evaluate(problem, decisions)
    except ValueError as error:
        raise FormatError(solution, str(error)) from None
    for_another = decisions.instance_hash not in ("", problem.content_hash)
    if as_json:
        print_json(
            {
                "feasible": evaluation.feasible,
                "mean_slot_delay": evaluation.mean_slot_delay,
                **{
                    name: value
                    for name, value in vars(evaluation).items()
                    if name
                    not in ("violations", "block_migration", "block_air_time", "interference")
                },
                "violations": [str(violation) for violation in evaluation.violations],
                "instance_hash": problem.content_hash,
                "made_for_another_instance": for_another,
            }
        )
    else:
        print_table(
            f"{decisions.method or 'solution'} on {problem.name or 'instance'}",
            [
                ("feasible", "yes" if evaluation.feasible else "NO"),
                ("delay, guaranteed", seconds(evaluation.delay)),
                ("delay, realised", seconds(evaluation.realised_delay)),
                ("delay, planned", seconds(evaluation.planned_delay)),
                ("planned, sequential", seconds(evaluation.sequential_delay)),
                ("planned, pipelined", seconds(evaluation.pipelined_delay)),
                ("95th percentile of users", seconds(evaluation.p95_completion)),
                *area_rows(evaluation),
                ("hits, requests", percent(evaluation.request_hit_ratio, 1)),
                ("hits, bytes", percent(evaluation.byte_hit_ratio, 1)),
                ("energy", f"{evaluation.transmit_energy:.4g} J"),
                ("outages", str(evaluation.outages)),
            ],
        )
        if for_another:
            say("note: the solution was made for another instance (another --seed?)")
        for violation in evaluation.violations:
            say(f"violation: {violation}")
    sys.exit(0 if evaluation.feasible else 1)
