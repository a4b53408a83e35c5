"""The learners' results in the JSON form of marl-eval (Gorsane et al., NeurIPS 2022).

    environment -> task -> algorithm -> seed_S -> step_I -> step_count, elapsed_time, metrics
                                                -> absolute_metrics

A task is a class of draws. `step_I` are the marks of a run: the number of updates, the CPU seconds
and the values on the draws of the curves. `absolute_metrics` are those of the policy that is kept,
on all draws. `return` is the delay with the opposite sign, s, so that larger is better; `gap` is
what the delay is above the certified bound, %.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from play import described

ENVIRONMENT = "finecast"


def marl_eval(folder: Path) -> dict[str, Any]:
    """Return the results of all runs with a training seed."""
    values: dict[tuple[str, str, int, int | None], list[tuple[float, float]]] = {}
    for line in (folder / "results.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["seed"] is not None:
            key = (row["class"], row["method"], row["seed"], row["mark"])
            values.setdefault(key, []).append((-row["delay"], 100.0 * row["gap"]))
    marks = {(run["run"], run["seed"]): run["marks"] for run in described(folder)}
    tasks: dict[str, Any] = {}
    for (kind, method, seed, mark), pairs in sorted(values.items(), key=str):
        run = tasks.setdefault(kind, {}).setdefault(method, {}).setdefault(f"seed_{seed}", {})
        metrics: dict[str, Any] = {
            "return": [float(f"{delay:.6g}") for delay, _ in pairs],
            "gap": [float(f"{gap:.4g}") for _, gap in pairs],
        }
        if mark is None:
            run["absolute_metrics"] = metrics
        else:
            at = marks[method, seed][mark]
            run[f"step_{mark}"] = {"step_count": at["step"], "elapsed_time": at["cpu_s"], **metrics}
    return {ENVIRONMENT: tasks}
