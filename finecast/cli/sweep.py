"""`finecast sweep`: methods over a parameter of a scenario."""

from __future__ import annotations

import click

from finecast.cli.common import json_option, parse_settings, resumable, words, workers_options
from finecast.cli.compare import seeds_of, tell_runs


@click.command("sweep")
@click.argument("scenario")
@click.option(
    "--vary",
    "axes",
    multiple=True,
    required=True,
    metavar="KEY=VALUES",
    help="A key of the scenario and its values by commas, as in nodes.storage_gb=1,2,4; lists in "
    "brackets; repeatable.",
)
@click.option("--methods", required=True, help="Names of methods, by commas.")
@click.option("--seeds", default="0", show_default=True, metavar="LIST", help="Of the instances.")
@click.option("--time-limit", type=float, default=30.0, show_default=True, help="s for each run.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of every method, delivery=, schedule=, restrict=, or a key of the scenario as in "
    "users.count=6; repeatable.",
)
@workers_options("Runs at once.", "runs are made", all_cores=True)
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True,
              help="Of each run.")  # fmt: skip
@click.option("--retry-failed", is_flag=True, help="Run failed and killed runs again.")
@click.option("-o", "--output", required=True, help="Result folder, made if there is none.")
@json_option
def command(
    scenario: str,
    axes: tuple[str, ...],
    methods: str,
    seeds: str,
    time_limit: float,
    settings: tuple[str, ...],
    workers: int,
    threads: int,
    engine: str,
    scheduler: str | None,
    retry_failed: bool,
    output: str,
    as_json: bool,
) -> None:
    """Run methods on SCENARIO at every value of what is varied, on the same seeds.

    Only what -o does not hold yet is run. Draw it with: finecast figure FOLDER -o delay.pdf

    Example: finecast sweep vision-small --vary nodes.storage_gb=1,2,4,8 --methods lagrangian,greedy
    --seeds 0-4 -o out
    """
    from finecast.compare.runs.grid import parse_axis
    from finecast.compare.runs.sweep import run_sweep

    vary: dict[str, list[object]] = {}
    for text in axes:
        key, values = parse_axis(text)
        if key in vary:
            raise ValueError(f"--vary: {key!r} is given twice")
        vary[key] = values
    with resumable(output) as tell:
        ran = run_sweep(
            scenario,
            vary,
            output,
            methods=words("--methods", methods),
            options=parse_settings(settings),
            seeds=seeds_of("--seeds", seeds),
            time_limit_s=time_limit,
            workers=workers,
            threads=threads,
            engine=engine,  # type: ignore[arg-type]
            scheduler=scheduler,
            retry_failed=retry_failed,
            callback=tell,
        )
    tell_runs(ran, as_json)
