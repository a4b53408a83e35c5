"""Gap of the placement methods over time, at given rates, per class of instances.

    python3 benchmarks/placement.py --json -o placement.jsonl
    python3 benchmarks/placement.py --classes N4-J60-T5 --seeds 3 --methods lagrangian,exact
    python3 benchmarks/placement.py --classes N3-J20-T5 --time-limit 180 --gap 0 --at 60

Rate tables are computed first and timed apart. `gap` is delay over bound less 1 at the same rates;
`bound_s` is when the bound came within 3e-4 of its last value, `target_s` when the target was met.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

from finecast.problem.scenario import Scenario
from finecast.solvers.deadline import Deadline
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.prepared import prepare
from finecast.solvers.registry import method_of
from finecast.solvers.solve import versions

CLASSES: dict[str, tuple[dict[str, int], float, float]] = {
    # name: (sizes, time limit in s, target gap)
    "N4-J1000-T20": ({"nodes": 4, "blocks": 1000, "slots": 20, "users": 20}, 10.0, 0.0015),
    "N6-J1000-T20": ({"nodes": 6, "blocks": 1000, "slots": 20, "users": 30}, 15.0, 0.0025),
    "N8-J1000-T20": ({"nodes": 8, "blocks": 1000, "slots": 20, "users": 20}, 30.0, 0.003),
    "N4-J200-T5": ({"nodes": 4, "blocks": 200, "slots": 5, "users": 12}, 10.0, 0.005),
    "N4-J200-T20": ({"nodes": 4, "blocks": 200, "slots": 20, "users": 12}, 10.0, 0.005),
    "N6-J200-T5": ({"nodes": 6, "blocks": 200, "slots": 5, "users": 12}, 10.0, 0.005),
    "N6-J200-T20": ({"nodes": 6, "blocks": 200, "slots": 20, "users": 20}, 10.0, 0.005),
    "N4-J60-T5": ({"nodes": 4, "blocks": 60, "slots": 5, "users": 12}, 10.0, 0.005),
    "N3-J20-T5": ({"nodes": 3, "blocks": 20, "slots": 5, "users": 8}, 60.0, 0.005),
    "N4-J20-T5": ({"nodes": 4, "blocks": 20, "slots": 5, "users": 8}, 60.0, 0.005),
    "N3-J20-T1": ({"nodes": 3, "blocks": 20, "slots": 1, "users": 8}, 30.0, 0.0),
    "N4-J60-T1": ({"nodes": 4, "blocks": 60, "slots": 1, "users": 12}, 30.0, 0.0),
    "N8-J20-T1": ({"nodes": 8, "blocks": 20, "slots": 1, "users": 8}, 30.0, 0.0),
    "N8-J60-T1": ({"nodes": 8, "blocks": 60, "slots": 1, "users": 12}, 30.0, 0.0),
}


def scenario(nodes: int, blocks: int, slots: int, users: int, storage_share: float) -> Scenario:
    """Return the class of instances: UMi NLOS, 16 antennas, links 1 to 10 Gbit/s, Zipf 0.8."""
    models = max(3, min(32, blocks // 5))
    return Scenario.model_validate(
        {
            "name": f"N{nodes}-J{blocks}-T{slots}",
            "slots": slots,
            "library": {
                "synthetic": {
                    "models": models,
                    "blocks": blocks,
                    "families": max(1, models // 8),
                }
            },
            "nodes": {
                "count": nodes,
                "antennas": 16,
                "inter_site_distance_m": 250.0,
                "storage_share": storage_share,
            },
            "channel": {"los": "nlos"},
            "users": {"count": users},
        }
    )


def measure(
    name: str,
    method: str,
    problem: PlacementProblem,
    limit: float,
    target: float,
    seed: int,
    marks: list[float],
) -> dict[str, Any]:
    """Run one placement method to its time limit or target; report gap and times.

    `gap_at` has the gap after each of the marks (s), the last known one before it.
    """
    place = method_of(method).load()  # lagrangian, exact, cp-sat
    began = time.perf_counter()
    found = place(problem, deadline=Deadline.after(limit), gap=target or None, seed=seed)
    wall_s = time.perf_counter() - began
    settled = (1 - 3e-4) * found.lower_bound
    met = [p.time_s for p in found.trace if p.delay <= (1 + target) * p.lower_bound * (1 + 1e-9)]
    return {
        "class": name,
        "method": method,
        "seed": seed,
        "delay_s": found.delay,
        "lower_bound_s": found.lower_bound,
        "gap": found.gap,
        "gap_at": {
            f"{mark:g}": min(
                (p.delay / p.lower_bound - 1 for p in found.trace if p.time_s <= mark),
                default=None,
            )
            for mark in marks
        },
        "target": target,
        "termination": str(found.termination),
        "wall_s": wall_s,
        "bound_s": next((p.time_s for p in found.trace if p.lower_bound >= settled), None),
        "target_s": met[0] if met else None,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Measure the chosen classes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--classes", default=",".join(CLASSES))
    parser.add_argument("--methods", default="lagrangian")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--time-limit", type=float, help="seconds, in place of the class's own")
    parser.add_argument("--gap", type=float, help="gap to stop at, in place of the class's own")
    parser.add_argument("--at", default="", help="seconds after which to tell the gap: 60,180")
    parser.add_argument("--storage-share", type=float, default=0.3)
    parser.add_argument("-o", "--output", help="file for the rows, as JSON lines")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    marks = [float(mark) for mark in options.at.split(",") if mark]
    made_with = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "versions": versions()}
    for name in options.classes.split(","):
        sizes, limit, target = CLASSES[name]
        limit = limit if options.time_limit is None else options.time_limit
        target = target if options.gap is None else options.gap
        for seed in range(options.seeds):
            instance = scenario(**sizes, storage_share=options.storage_share).generate(seed)
            began = time.perf_counter()
            problem = prepare(instance).achieved
            rates_s = time.perf_counter() - began
            if problem is None:
                continue
            for method in options.methods.split(","):
                row = measure(name, method, problem, limit, target, seed, marks)
                row |= {"rates_s": rates_s, "groups": sum(len(b) for b in problem.broadcast)}
                if options.output:
                    with Path(options.output).open("a") as stream:
                        stream.write(json.dumps({**row, **made_with}) + "\n")
                if options.json:
                    print(json.dumps(row), flush=True)
                else:
                    print(
                        f"{name:14} {method:10} seed {seed}  gap {100 * row['gap']:.3f} %  "
                        f"{row['termination']:15} {row['wall_s']:.1f} s  bound {row['bound_s']}  "
                        f"target at {row['target_s']}  rates {rates_s:.1f} s",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
