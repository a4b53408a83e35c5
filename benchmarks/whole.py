"""Whole solves, rates and beams included: many nodes, large blocks, and against CVXPY and Pyomo.

    python3 benchmarks/whole.py --json -o whole.jsonl
    python3 benchmarks/whole.py --cases horizon,many-nodes --seeds 0-2

Cases: `horizon` (vision-horizon, 20 s), `many-nodes` (9 to 20 nodes, 40 s), `more-nodes` (70 nodes
and 100 users, 30 s), `thousand` (6 nodes, 1,000 blocks, 20 slots, to a gap of 0.25 %), `proofs`
(suite smoke, until proven), `reference` (3 nodes, 20 blocks, one slot to a gap of 0.1 %: lagrangian
beside semidefinite beams by CVXPY with the placement by Pyomo and HiGHS). All of them take about 25
minutes on one core.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

from placement import scenario

import finecast
from finecast.compare.runs.suite import parse_seeds
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario
from finecast.solvers.solve import versions

Run = tuple[str, Instance, dict[str, Any]]

REFERENCE = {"method": "milp", "beamforming": "sdr"}
"""What `reference` compares with: convex programmes by CVXPY, the model by Pyomo and HiGHS."""


def runs(case: str, seed: int) -> Iterator[Run]:
    """Yield (name, instance, arguments of `finecast.solve`) of a case."""
    if case == "horizon":
        instance = finecast.read_scenario("vision-horizon").generate(seed)
        yield "vision-horizon", instance, {"time_limit": 20.0}
    elif case == "many-nodes":
        for nodes in (9, 12, 16, 20):
            yield (
                f"N{nodes}-J200-T5-K30",
                many_nodes(nodes, 30).generate(seed),
                {"time_limit": 40.0},
            )
    elif case == "more-nodes":
        yield "N70-J200-T1-K100", many_nodes(70, 100, slots=1).generate(seed), {"time_limit": 30.0}
    elif case == "thousand":
        sizes = {"nodes": 6, "blocks": 1000, "slots": 20, "users": 30}
        yield (
            "N6-J1000-T20-K30",
            scenario(**sizes, storage_share=0.3).generate(seed),
            {"gap": 2.5e-3},
        )
    elif case == "proofs":
        for kind in finecast.compare.read_suite("smoke").classes:
            yield kind.name, kind.scenario.generate(seed), {"time_limit": 30.0}
    elif case == "reference":
        sizes = {"nodes": 3, "blocks": 20, "slots": 1, "users": 8}
        instance = scenario(**sizes, storage_share=0.3).generate(seed)
        yield "N3-J20-T1-K8", instance, {"gap": 1e-3}
        yield "N3-J20-T1-K8", instance, {"gap": 1e-3, **REFERENCE}
    else:
        raise ValueError(f"--cases: {case!r} is unknown")


def many_nodes(nodes: int, users: int, slots: int = 5) -> Scenario:
    """Return a class of 200 blocks with 4 antennas a node and errors of 0.05 of the norm."""
    return Scenario.model_validate(
        {
            "name": f"N{nodes}",
            "slots": slots,
            "library": {"synthetic": {"models": 32, "blocks": 200, "families": 4}},
            "nodes": {
                "count": nodes,
                "antennas": 4,
                "inter_site_distance_m": 250.0,
                "storage_share": 0.2,
            },
            "channel": {"error": 0.05},
            "users": {"count": users},
        }
    )


def measured(name: str, instance: Instance, arguments: dict[str, Any]) -> dict[str, Any]:
    """Return what a solve finds, and the seconds and memory that it takes."""
    began, cpu = time.perf_counter(), time.process_time()
    found = finecast.solve(instance, **arguments)
    return {
        "class": name,
        **arguments,
        "wall_s": time.perf_counter() - began,
        "cpu_s": time.process_time() - cpu,
        "delay": found.delay,
        "bound": found.lower_bound,
        "gap": found.gap,
        "bound_kind": str(found.bound_kind),
        "termination": str(found.termination),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main() -> None:
    """Solve the chosen cases."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument(
        "--cases", default="horizon,many-nodes,more-nodes,thousand,proofs,reference"
    )
    parser.add_argument("--seeds", default="0-2")
    parser.add_argument("-o", "--output", help="file for the rows, as JSON lines")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    made_with = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "versions": versions()}
    tiny = finecast.read_scenario("tiny").generate(0)
    importlib.import_module("torch")  # imports are untimed: tiny alone needs no torch
    finecast.solve(tiny, time_limit=1)
    finecast.solve(tiny, time_limit=1, **REFERENCE)
    for case in given.cases.split(","):
        for seed in parse_seeds(given.seeds):
            for name, instance, arguments in runs(case, seed):
                row = {"case": case, "seed": seed} | measured(name, instance, arguments)
                if given.output:
                    with Path(given.output).open("a") as stream:
                        stream.write(json.dumps({**row, **made_with}) + "\n")
                if given.json:
                    print(json.dumps(row), flush=True)
                else:
                    print(
                        f"| {name} | {arguments} | {seed} | {row['delay']:.7g} | {row['bound']:.7g}"
                        f" | {100 * row['gap']:.4g} | {row['cpu_s']:.1f} | {row['wall_s']:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
