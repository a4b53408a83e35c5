"""`finecast solve`: solve an instance and say how far from optimal the answer can be."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from finecast.cli.common import (
    gigabytes,
    json_option,
    load_instance,
    parse_settings,
    percent,
    print_json,
    print_table,
    progress_bar,
    refuse_overwriting_folder,
    seconds,
    seed_option,
    set_option,
    with_settings,
)


@click.command("solve")
@click.argument("instance")
@click.option("--method", default="lagrangian", show_default=True, help="See `finecast methods`.")
@click.option(
    "--time-limit",
    type=float,
    default=30.0,
    show_default=True,
    help="Seconds for the search; the rates of the messages come first and are not cut short.",
)
@click.option(
    "--restrict",
    metavar="NAMES",
    help="Restricted system, as in coarse,no-comp; see docs/methods.md.",
)
@click.option("--gap", type=float, help="Stop at this proven relative gap, such as 0.01.")
@seed_option
@set_option
@click.option("-o", "--output", help="Solution file to write (.npz).")
@json_option
def command(
    instance: str,
    method: str,
    time_limit: float | None,
    gap: float | None,
    restrict: str | None,
    seed: int,
    settings: tuple[str, ...],
    output: str | None,
    as_json: bool,
) -> None:
    """Solve INSTANCE: an .npz file, or a scenario (TOML or shipped name) drawn with --seed."""
    from finecast.solvers.solve import solve

    target = None if output is None else refuse_overwriting_folder(output)
    problem, options = with_settings(load_instance(instance, seed), parse_settings(settings))
    for name in ("instance", "method", "time_limit", "gap", "seed", "start", "callback"):
        if name in options:
            raise ValueError(f"--set: {name!r} is not an option of methods; see --help")
    if restrict is not None:
        options["restrict"] = restrict
    options.setdefault("spatial_workers", os.cpu_count() or 1)
    with progress_bar() as tell:
        result = solve(
            problem,
            method,
            time_limit=time_limit,
            gap=gap,
            seed=seed,
            callback=tell,
            **options,
        )
    if target is not None and result.solution is not None:
        from finecast.problem.solution import write_solution

        write_solution(target, result.solution)
    if as_json:
        print_json(as_dict(result))
    else:
        _print(problem, result)
        if target is not None and result.solution is not None:
            click.echo(f"solution written to {target}")
    if result.evaluation is None or not result.evaluation.feasible:
        sys.exit(1)
    if result.termination == "interrupted":
        sys.exit(130)


def as_dict(result: Any) -> dict[str, Any]:
    """Return a result as one JSON-ready object."""
    evaluation = result.evaluation
    judged = {
        name: getattr(evaluation, name, None)
        for name in (
            "mean_slot_delay",
            "realised_delay",
            "planned_delay",
            "sequential_delay",
            "pipelined_delay",
            "guaranteed",
            "mean_completion",
            "p95_completion",
            "request_hit_ratio",
            "block_hit_ratio",
            "byte_hit_ratio",
            "migrated_bytes",
            "cloud_bytes",
            "storage_saved_bytes",
            "broadcast_gain",
            "transmit_energy",
            "outages",
            "slot_delay",
        )
    }
    return {
        "method": result.method,
        "delay": result.delay,
        "lower_bound": result.lower_bound,
        "bound_kind": result.bound_kind,
        "gap": result.gap,
        "beamforming_gap": result.beamforming_gap,
        "placement_gap": result.placement_gap,
        "feasible": evaluation is not None and evaluation.feasible,
        "violations": [] if evaluation is None else [str(v) for v in evaluation.violations],
        **judged,
        "termination": result.termination,
        "wall_s": result.wall_s,
        "cpu_s": result.cpu_s,
        "train_s": result.train_s,
        "seed": result.seed,
        "options": dict(result.options),
        "instance_hash": result.instance_hash,
        "trace": [[point.time_s, point.delay, point.lower_bound] for point in result.trace],
        "notes": list(result.notes),
        "versions": dict(result.versions),
    }


def _print(problem: Any, result: Any) -> None:
    evaluation = result.evaluation
    rows = [("method", f"{result.method}, ended: {result.termination.replace('_', ' ')}")]
    if evaluation is not None:
        rows += [
            ("delay, guaranteed", seconds(result.delay)),
            ("mean per slot", f"{seconds(evaluation.mean_slot_delay)}, {problem.slots} slots"),
        ]
    rows += [
        ("lower bound", f"{seconds(result.lower_bound)} ({result.bound_kind})"),
        ("gap", f"{percent(result.gap)} at most above the optimum"),
    ]
    if result.placement_gap is not None:
        rows.append(
            (
                "  of which",
                f"beamforming {percent(result.beamforming_gap)}, "
                f"placement {percent(result.placement_gap)}",
            )
        )
    if evaluation is not None:
        rows += [
            ("delay, realised", f"{seconds(evaluation.realised_delay)} over the true channels"),
            (
                "by schedule",
                f"sequential {seconds(evaluation.sequential_delay)}, "
                f"pipelined {seconds(evaluation.pipelined_delay)}",
            ),
            (
                "user completion",
                f"mean {seconds(evaluation.mean_completion)}, "
                f"95th percentile {seconds(evaluation.p95_completion)}",
            ),
            (
                "hits",
                f"{percent(evaluation.request_hit_ratio, 1)} of requests, "
                f"{percent(evaluation.block_hit_ratio, 1)} of blocks, "
                f"{percent(evaluation.byte_hit_ratio, 1)} of bytes",
            ),
            (
                "migrated",
                f"{gigabytes(evaluation.migrated_bytes)} between nodes, "
                f"{gigabytes(evaluation.cloud_bytes)} from the cloud",
            ),
            ("broadcast gain", f"{evaluation.broadcast_gain:.2f} users reached per bit sent"),
            ("feasible", "yes" if evaluation.feasible else "NO"),
        ]
    rows.append(("time", f"{result.wall_s:.2f} s wall, {result.cpu_s:.2f} s CPU"))
    print_table(f"{problem.name or 'instance'}, seed {problem.seed}", rows)
    for note in result.notes:
        click.echo(f"note: {note}")
    if evaluation is not None:
        for violation in evaluation.violations[:20]:
            click.echo(f"violation: {violation}")
