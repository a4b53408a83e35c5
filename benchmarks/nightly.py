"""Reruns small tables and compares them with the stored ones; exit code 1 where they are worse.

    python3 benchmarks/nightly.py            compare with benchmarks/nightly.json
    python3 benchmarks/nightly.py --store    write that file anew

Delays and bounds may be worse by `TOLERANCE`: other processors end in other last digits, and
a search can end elsewhere. Speed is compared as a ratio: CPU seconds of a run over those of matrix
products of the same minute, so that a slow machine is slow in both. A ratio may grow by `SLOWER`.
What is better is told, and no fault. About four CPU minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import finecast
from finecast.compare.runs.reference import named_instance
from finecast.compare.runs.suite import draw
from finecast.problem.instance import Instance
from finecast.solvers.solve import versions

STORED = Path(__file__).with_suffix(".json")

TOLERANCE = 2e-3
"""Share by which a delay may be larger, or a bound smaller."""

SLOWER = 2.0
"""Times the stored ratio that a speed may be."""

AGAIN = 2
"""Repetitions of a run that seems slower."""

CASES: dict[str, tuple[str, ...]] = {
    "smoke/tiny/0": ("lagrangian", "exact", "greedy", "rolling", "lru"),
    "smoke/n3-j12-t2/1": ("lagrangian", "exact", "greedy"),
    "exact/n3-j20/0": ("lagrangian", "greedy"),
    "exact/n8-j40/0": ("greedy", "whole-model"),
    "mid/storage-10/0": ("greedy", "rolling", "mpc"),
    "persist/j60/0": ("greedy", "rolling", "programme", "lru"),
    "llm/storage-16/0": ("lagrangian", "greedy"),
    "city/n19/0": ("greedy", "rolling"),
}
"""Methods by instance; every run ends by its own rules, and not by the clock."""


def main() -> None:
    """Run, and store or compare."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--store", action="store_true", help="write the stored tables anew")
    parser.add_argument("--file", type=Path, default=STORED, help="stored tables")
    given = parser.parse_args()
    finecast.solve(finecast.read_scenario("tiny").generate(0))  # imports are not timed
    rows = {}
    for name, row in measured():
        rows[name] = row
        print(f"{name}: {row['delay']:.7g} s, bound {_shown(row['bound'])}, "
              f"{row['ratio']:.3g} times the matrix products", flush=True)  # fmt: skip
    if given.store:
        table = {"made_with": versions(), "rows": rows}
        given.file.write_text(json.dumps(table, indent=1) + "\n")
        return
    stored = json.loads(given.file.read_text())["rows"]
    again(stored, rows)
    worse = list(regressions(stored, rows))
    for line in worse:
        print(f"worse: {line}", flush=True)
    sys.exit(1 if worse else 0)


def measured() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield name and row of every run."""
    for case, methods in CASES.items():
        instance = instance_of(case)
        for method in methods:
            yield f"{case} {method}", row_of(instance, method)


def instance_of(case: str) -> Instance:
    """Return the instance of a suite by its name."""
    suite, instance_class, seed, path = named_instance(case)
    return draw(suite, instance_class, seed, path).instance


def row_of(instance: Instance, method: str) -> dict[str, Any]:
    """Solve, and return delay, bound (s) and CPU seconds over those of the matrix products."""
    reference = matrix_products()
    began = time.process_time()
    found = finecast.solve(instance, method)
    spent = time.process_time() - began
    reference = statistics.mean([reference, matrix_products()])
    if not found.evaluation.feasible:
        raise SystemExit(f"{instance.name}, {method}: the judge finds it infeasible")
    return {"delay": found.delay, "bound": found.lower_bound, "ratio": spent / reference}


def is_slower(before: dict[str, Any], after: dict[str, Any]) -> bool:
    """Whether a run takes more than `SLOWER` times what is stored."""
    return bool(after["ratio"] > SLOWER * before["ratio"] + 1.0)


def again(stored: dict[str, Any], rows: dict[str, Any]) -> None:
    """Repeat what seems slower, up to `AGAIN` times, and keep the least ratio: another process may
    have slowed one run down.
    """
    for name, before in stored.items():
        for _ in range(AGAIN):
            if name not in rows or not is_slower(before, rows[name]):
                break
            case, method = name.rsplit(" ", 1)
            ratio = row_of(instance_of(case), method)["ratio"]
            rows[name]["ratio"] = min(rows[name]["ratio"], ratio)


def matrix_products() -> float:
    """Return the CPU seconds of a fixed amount of work: the median of five."""
    draws = np.random.default_rng(0).standard_normal((64, 48, 48))
    seconds = []
    for _ in range(5):
        began = time.process_time()
        product = draws
        for _ in range(20):
            product = product @ draws
            product /= np.abs(product).max()
        seconds.append(time.process_time() - began)
    return statistics.median(seconds)


def regressions(stored: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """Yield a line for each run that is worse than stored, or is missing."""
    for name, before in stored.items():
        if name not in now:
            yield f"{name}: was not run"
            continue
        after = now[name]
        if after["delay"] > before["delay"] * (1 + TOLERANCE):
            yield f"{name}: delay {after['delay']:.7g} s, stored {before['delay']:.7g} s"
        if before["bound"] is not None:
            bound = after["bound"]
            if bound is None or bound < before["bound"] * (1 - TOLERANCE):
                yield f"{name}: bound {_shown(bound)}, stored {_shown(before['bound'])}"
        if is_slower(before, after):
            yield f"{name}: {after['ratio']:.3g} times the matrix products, {before['ratio']:.3g}"


def _shown(bound: float | None) -> str:
    return "none" if bound is None else f"{bound:.7g} s"


if __name__ == "__main__":
    main()
