"""Sweeps: methods on one scenario at every point of a grid of its values, on the same seeds."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from finecast.compare.runs.runner import SuiteRuns, run_suite
from finecast.compare.runs.suite import suite_from
from finecast.problem.scenario import read_scenario
from finecast.solvers.result import Callback
from finecast.solvers.workers import Engine

SIZES = {"users.count", "nodes.count", "nodes.antennas", "slots"}
"""Keys whose values make an instance larger."""


def run_sweep(
    scenario: str | os.PathLike[str],
    vary: Mapping[str, Sequence[Any]],
    folder: str | os.PathLike[str],
    *,
    methods: Iterable[str],
    seeds: Sequence[int] = (0,),
    time_limit_s: float = 30.0,
    options: Mapping[str, Any] | None = None,
    workers: int = 1,
    threads: int = 1,
    engine: Engine = "local",
    scheduler: str | None = None,
    retry_failed: bool = False,
    callback: Callback | None = None,
) -> SuiteRuns:
    """Run methods on a scenario at all values of what is varied; only what the folder lacks.

    Every row of the folder has its values in `Record.point`. More values, methods or seeds can be
    added to the same folder later. Where a number of users, nodes, antennas or slots is varied,
    draws are nested: a larger instance keeps what the smaller one has.

    Parameters
    ----------
    scenario
        File of a scenario, or the name of a shipped one.
    vary
        Values by key of the scenario, as in `{"nodes.storage_gb": [1, 2, 4]}`; several keys make a
        grid.
    folder
        Result folder, made if there is none.
    methods
        Names of methods, or `module:name` of functions.
    seeds
        Seeds of the instances, the same at every point, so that points are paired.
    time_limit_s
        Of every run, s.
    options
        Of every method; `delivery`, `schedule`, `restrict` and keys of the scenario too.
    workers, threads, engine, scheduler, retry_failed, callback
        As in `finecast.compare.runs.runner.run_suite`.

    Raises
    ------
    FormatError
        The scenario is bad, a key is unknown, a value is not allowed, or the folder holds runs of
        another scenario at the same point.
    ValueError
        Nothing is varied, or a method or option is unknown.
    """
    if not vary:
        raise ValueError("vary: is empty, expected a key of the scenario and its values")
    read = read_scenario(scenario)
    overlay = {"nested": True} if SIZES & set(vary) else {}
    table = {
        "name": "sweep",
        "description": f"{read.name} over {', '.join(vary)}",
        "time_limit_s": time_limit_s,
        "methods": [{"method": name} for name in methods],
        "sweep": [{"vary": key, "values": list(values)} for key, values in vary.items()],
        "classes": [
            {
                "name": read.name,
                "scenario": {"base": str(read.file), **overlay},
                "seeds": list(seeds),
            }
        ],
    }
    return run_suite(
        suite_from(table, read.file),
        folder,
        options=options,
        workers=workers,
        threads=threads,
        engine=engine,
        scheduler=scheduler,
        retry_failed=retry_failed,
        callback=callback,
    )
