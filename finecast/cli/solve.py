"""`finecast solve`: solve an instance and say how far from optimal the answer can be."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from finecast.cli.common import (
    json_option,
    load_instance,
    output_file,
    path_option,
    print_json,
    print_table,
    progress_bar,
    say,
    seed_option,
    set_option,
    settings_of,
    workers_options,
)
from finecast.problem.files import concerning

OF_SOLVE = ("time_limit", "work", "gap", "seed", "workers", "engine", "scheduler")
"""Options of the command that `finecast.solvers.solve.solve` checks."""


@click.command("solve")
@click.argument("instance")
@click.option("--method", default="lagrangian", show_default=True, help="See `finecast methods`.")
@click.option(
    "--time-limit",
    type=float,
    default=30.0,
    show_default=True,
    help="Seconds for everything: rates, search, beams, bound.",
)
@click.option(
    "--work",
    type=float,
    help="The same in counted work, about seconds, in place of --time-limit: the same answer on "
    "every machine. With both, the first to end counts.",
)
@click.option(
    "--restrict",
    metavar="NAMES",
    help="Restricted system, as in coarse,no-comp; see docs/methods.md.",
)
@click.option("--start", help="Solution file (.npz) to start from, for methods that can.")
@click.option("--gap", type=float, help="Stop at this proven relative gap, such as 0.01.")
@workers_options(
    "For several areas: processes that take areas and slots side by side, for the same answer.",
    "they are taken",
)
@seed_option
@path_option
@set_option
@click.option("-o", "--output", help="Solution file to write (.npz).")
@json_option
def command(
    instance: str,
    method: str,
    time_limit: float | None,
    work: float | None,
    start: str | None,
    gap: float | None,
    restrict: str | None,
    workers: int,
    engine: Any,
    scheduler: str | None,
    seed: int,
    draw: int | None,
    settings: tuple[str, ...],
    output: str | None,
    as_json: bool,
) -> None:
    """Solve INSTANCE: an .npz file, or a scenario (TOML or shipped name) drawn with --seed."""
    from finecast.solvers.signals import SearchInterrupt, ctrl_c_keeps_the_best
    from finecast.solvers.solve import solve

    target = None if output is None else output_file(output, [".npz"], holds="finecast-solution")
    source = click.get_current_context().get_parameter_source("time_limit")
    if work is not None and source is click.core.ParameterSource.DEFAULT:
        time_limit = None
    changes, options = settings_of(settings)
    problem = load_instance(instance, seed, draw, changes)
    for name in ("instance", "method", *OF_SOLVE, "start", "callback"):
        if name in options:
            raise ValueError(f"--set: {name!r} is not an option of methods; see --help")
    if restrict is not None:
        options["restrict"] = restrict
    options.setdefault("spatial_workers", os.cpu_count() or 1)
    first = None
    if start is not None:
        from finecast.problem.solution import read_solution

        first = read_solution(start)
    try:
        with (
            concerning(instance, "method", *OF_SOLVE, *options),
            progress_bar() as tell,
            ctrl_c_keeps_the_best(),
        ):
            result = solve(
                problem,
                method,
                time_limit=time_limit,
                work=work,
                gap=gap,
                seed=seed,
                start=first,
                callback=tell,
                workers=workers,
                engine=engine,
                scheduler=scheduler,
                **options,
            )
    except SearchInterrupt:
        click.echo("finecast: interrupted before a plan was found", err=True)
        sys.exit(130)
    # What was found is said first, and stands there even if the file cannot be written.
    if as_json:
        print_json(result.as_dict())
    else:
        print_table(f"{problem.name or 'instance'}, seed {problem.seed}", result.rows())
        for remark in result.remarks():
            say(remark)
    if target is not None and result.solution is not None:
        from finecast.problem.solution import write_solution

        write_solution(target, result.solution)
        if not as_json:
            say(f"solution written to {target}")
    no_plan = result.evaluation is None or not result.evaluation.feasible
    if no_plan or result.termination == "failed":
        sys.exit(1)
    if result.termination == "interrupted":
        sys.exit(130)
