"""Gap and time of plans for a city in areas, against everything wide and everything local.

    python3 benchmarks/areas.py --classes n19,n61 --seeds 3 -o areas.jsonl

A row for each draw: delay, bound, gap, its parts, CPU seconds of one core, share of bytes that go
wide, and the delay at the same first rates where all goes wide, and where all goes locally.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np

from finecast.problem.scenario import read_scenario
from finecast.solvers.areas.plan import finish_plan, search_plan
from finecast.solvers.areas.rates import PlanSolver, prepare_areas
from finecast.solvers.deadline import NEVER
from finecast.solvers.solve import solve, versions

CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "n19": ("city-19", {}),
    "n61": ("city-61", {}),
    "n61-nlos": ("city-61", {"channel.los": "nlos"}),
    "n199": ("city-199", {}),
}


def row(name: str, seed: int, limit: float | None, others: bool) -> dict[str, Any]:
    """Return what one draw gives."""
    base, changes = CLASSES[name]
    instance = read_scenario(base).with_(changes).generate(seed=seed)
    result = solve(instance, time_limit=limit, seed=0)
    assert result.evaluation is not None
    figures: dict[str, Any] = {
        "class": name,
        "seed": seed,
        "areas": instance.area_count,
        "delay": result.delay,
        "lower_bound": result.lower_bound,
        "gap": result.gap,
        "parts": result.notes[0],
        "wide_share": result.evaluation.wide_share,
        "interference_db": result.evaluation.interference_over_noise_db,
        "cpu_s": result.cpu_s,
        "wall_s": result.wall_s,
        "feasible": result.evaluation.feasible,
    }
    if others:
        figures |= {f"all_{way}": forced(instance, way == "wide") for way in ("wide", "local")}
    return figures


def forced(instance: Any, wide: bool) -> float:
    """Return the delay where every block goes the same way."""
    ready = prepare_areas(instance)
    plan = search_plan(
        ready.city, ready.rates, ready.point.prices, np.full(instance.needed.shape, wide),
        solve=PlanSolver(ready, seed=0, deadline=NEVER), keep_ways=True,
    )  # fmt: skip
    return finish_plan(ready.city, plan).delay


def main() -> None:
    """Run, and print a row for each draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", default="n19")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--time-limit", type=float)
    parser.add_argument("--others", action="store_true", help="everything wide, everything local")
    parser.add_argument("-o", "--output", type=Path)
    given = parser.parse_args()
    machine = {"machine": platform.machine(), "versions": versions()}
    for name in given.classes.split(","):
        for seed in range(given.seeds):
            began = time.process_time()
            figures = row(name, seed, given.time_limit, given.others)
            figures["all_cpu_s"] = time.process_time() - began
            print(json.dumps(figures), flush=True)
            if given.output is not None:
                with given.output.open("a") as file:
                    file.write(json.dumps(figures | machine) + "\n")


if __name__ == "__main__":
    main()
