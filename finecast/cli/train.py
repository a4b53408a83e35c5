"""`finecast train`: train a learner; its checkpoint is then a method, `--method policy`."""

from __future__ import annotations

import sys
from typing import Any

import click

from finecast.cli.common import (
    json_option,
    print_json,
    print_table,
    progress_bar,
    settings_of,
    workers_options,
)
from finecast.problem.files import FormatError, reading
from finecast.problem.shipped import find
from finecast.problem.wording import percent, seconds


@click.command("train")
@click.argument("scenarios", nargs=-1, metavar="[SCENARIO]...")
@click.option("--learner", help="See --list.")
@click.option("--steps", type=click.IntRange(min=1), help="Updates; the learner says of what.")
@click.option("--seed", type=click.IntRange(min=0), help="Of draws, networks and exploration.")
@click.option("--config", help="TOML with all options; those given here win.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="An option of the run, as in patience=5, source.draws=64, options.width=32, or a key of "
    "the scenarios, as in users.count=6; repeatable.",
)
@click.option("--device", help="Where torch computes, as in cpu or cuda:0.")
@click.option("--resume", is_flag=True, help="Go on from the newest state in the folder.")
@click.option("-o", "--output", help="Folder for checkpoints and log.")
@workers_options(
    "Processes of this machine that make the draws; the run is the same.", "draws are made"
)
@click.option("--list", "as_list", is_flag=True, help="List the learners and leave.")
@json_option
def command(
    scenarios: tuple[str, ...],
    learner: str | None,
    steps: int | None,
    seed: int | None,
    config: str | None,
    settings: tuple[str, ...],
    device: str | None,
    resume: bool,
    output: str | None,
    workers: int,
    engine: Any,
    scheduler: str | None,
    as_list: bool,
    as_json: bool,
) -> None:
    """Train a learner on draws of SCENARIO (TOML; several of equal size make a mixture).

    Example: finecast train data/scenarios/persist.toml --learner maasn-da -o runs/x
    """
    from finecast.learners.registry import LEARNERS
    from finecast.learners.runs.config import run_config
    from finecast.problem.toml import read_toml

    if as_list:
        _list(LEARNERS, as_json)
        return
    # The file, over it the options of the command line, over them what --set says.
    table: dict[str, Any] = {} if config is None else read_toml(find(config, "learner"))
    given = {"learner": learner, "steps": steps, "seed": seed, "device": device}
    table |= {name: value for name, value in given.items() if value is not None}
    if scenarios:
        table["scenarios"] = list(scenarios)
    changes, others = settings_of(settings)
    if changes:
        table["scenario"] = {**table.get("scenario", {}), **changes}
    for key, value in others.items():
        _put(table, key, value)
    for name, how in (("scenarios", "name a SCENARIO"), ("learner", "give --learner")):
        if name not in table and config is None:
            raise ValueError(f"{name}: is missing, {how} or --config")
        if name not in table and config is not None:
            raise FormatError(find(config, "learner"), f"{name}: is missing, or {how}")
    if output is None:
        raise ValueError("--output: is missing, must be a folder for checkpoints and log")
    if config is None:
        run = run_config(table)
    else:
        file = find(config, "learner")
        with reading(file):
            run = run_config(table, file.parent)

    from finecast.learners.runs.training import TrainingInterrupt, train
    from finecast.solvers.workers import workers_of

    try:
        with workers_of(workers, engine, scheduler) as crew, progress_bar() as tell:
            trained = train(run, output, resume=resume, callback=tell, workers=crew)
    except TrainingInterrupt as interrupt:
        trained = interrupt.trained
    if as_json:
        print_json(
            {
                "learner": run.learner,
                "steps": trained.steps,
                "ended": trained.ended,
                "checkpoint": trained.checkpoint,
                "train_s": trained.train_s,
                "cpu_s": trained.cpu_s,
                **{f"held_out_{name}": value for name, value in trained.best.items()},
            }
        )
    else:
        best = trained.best
        print_table(
            f"{run.learner} on {', '.join(run.scenarios)}",
            [
                ("ended", f"{trained.ended}, after {trained.steps} steps"),
                ("time", f"{seconds(trained.train_s)}, {seconds(trained.cpu_s)} of CPU"),
                ("best, held out", f"{seconds(best['delay'])} a draw on average"),
                ("  above the bound", f"{percent(best['gap'], 2)} at {run.held_out_rates} rates"),
                (
                    "  against",
                    f"lru {percent(best['against_lru'], 2)}, "
                    f"rolling {percent(best['against_rolling'], 2)}",
                ),
                ("checkpoint", trained.checkpoint),
            ],
        )
    if trained.ended == "interrupted":
        sys.exit(130)


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    """Put a value under a key such as source.draws."""
    section, dot, second = key.partition(".")
    if not dot:
        table[section] = value
        return
    inner = table.setdefault(section, {})
    if not isinstance(inner, dict):
        raise ValueError(f"--set: {key!r} is unknown, {section} has no options of its own")
    inner[second] = value


def _list(learners: Any, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "learners": [
                    {"name": kind.name, "summary": kind.summary, "reference": kind.reference}
                    for kind in learners
                ]
            }
        )
        return
    print_table("learners", [(kind.name, f"{kind.summary}\n{kind.reference}") for kind in learners])
