"""What a time limit buys: delay, gap and overshoot of `lagrangian` beside `greedy` without a limit.

    python3 benchmarks/limits.py --json -o limits.jsonl
    python3 benchmarks/limits.py --limits 1,10 --cases tiny,many-nodes

Every shipped scenario, and 20 nodes with 60 users and 200 blocks (`many-nodes`). `over_s` is how
much longer a run took than its limit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from placement import scenario

import finecast
from finecast.problem.instance import Instance
from finecast.problem.shipped import shipped
from finecast.solvers.solve import versions

MANY_NODES = {"nodes": 20, "blocks": 200, "slots": 2, "users": 60}


def instance_of(case: str, seed: int) -> Instance:
    """Return the instance of a case."""
    if case == "many-nodes":
        return scenario(**MANY_NODES, storage_share=0.3).generate(seed)
    return finecast.read_scenario(case).generate(seed)


def main() -> None:
    """Solve every case at every limit."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--cases", default=",".join([*shipped("scenario"), "many-nodes"]))
    parser.add_argument("--limits", default="1,10")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", help="file for the rows, as JSON lines")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    made_with = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "versions": versions()}
    finecast.solve(instance_of("vision-horizon", 0), time_limit=1)  # imports are not timed
    for case in given.cases.split(","):
        instance = instance_of(case, given.seed)
        greedy = finecast.solve(instance, "greedy")
        for limit in map(float, given.limits.split(",")):
            row = measured(instance, limit) | {"case": case, "seed": given.seed}
            row |= {"greedy": greedy.delay, "greedy_s": greedy.wall_s}
            if given.output:
                with Path(given.output).open("a") as stream:
                    stream.write(json.dumps({**row, **made_with}) + "\n")
            if given.json:
                print(json.dumps(row), flush=True)
            else:
                print(
                    f"| {case} | {limit:g} | {row['wall_s']:.1f} | {row['delay']:.6g} | "
                    f"{greedy.delay:.6g} ({greedy.wall_s:.1f}) | {100 * row['gap']:.3g} |",
                    flush=True,
                )


def measured(instance: Instance, limit: float) -> dict[str, Any]:
    """Return what `lagrangian` finds within a limit (s)."""
    began = time.perf_counter()
    found = finecast.solve(instance, "lagrangian", time_limit=limit)
    wall_s = time.perf_counter() - began
    return {
        "limit_s": limit,
        "wall_s": wall_s,
        "over_s": max(0.0, wall_s - limit),
        "delay": found.delay,
        "gap": found.gap,
        "termination": str(found.termination),
    }


if __name__ == "__main__":
    main()
