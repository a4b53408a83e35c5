"""Comparisons with a plug-in that does what it is told: suites, runs, processes."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet
import pytest

from finecast.compare.runs.records import Record
from finecast.compare.runs.runner import compare as run_all
from finecast.compare.runs.runner import plan
from finecast.compare.runs.store import (
    known_keys,
    open_folder,
    read_records,
)
from finecast.compare.runs.suite import Suite

TIMES = {
    "wall_s", "cpu_s", "train_s", "rates_s", "peak_memory_bytes", "base_memory_bytes",
    "started_at", "trace", "work",
}  # fmt: skip
"""Fields that two runs of the same do not share."""

PLUG_IN = """
import os, signal, subprocess, sys, time
from dataclasses import replace
import numpy as np
from finecast.solvers.registry import Method
from finecast.solvers.result import Answer, BoundKind, Termination

METHOD = Method("probe", "probe_plugin:solve", "offline", "does what it is told")
HOG = "import time; held = bytearray(10**9); time.sleep(600)"

def solve(instance, *, time_limit=None, gap=None, seed=0, start=None, callback=None,
          what="nothing", seconds=0.0, log=""):
    if instance.name == "scenario" and what != "hang first":  # the warm-up's
        return Answer(None, 0.0, BoundKind.NONE, Termination.NO_SOLUTION)
    if log:
        with open(log, "a") as file:
            file.write(f"{instance.name} {instance.seed} {seed}\\n")
    time.sleep(seconds)
    if what in ("hang", "hang first"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(1)
    if what == "hog":
        held = []
        while True:
            held.append(np.ones(4_000_000))
            time.sleep(0.01)
    if what.startswith("fork"):
        child = subprocess.Popen(["sleep", "600"], start_new_session="away" in what)
        hog = subprocess.Popen([sys.executable, "-c", HOG]) if "hog" in what else None
        with open(log, "a") as file:
            file.write(f"{child.pid} {hog.pid if hog else child.pid}\\n")
        if "end" not in what:
            time.sleep(600)
    if what == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "raise":
        raise RuntimeError("broken,\\nin two lines")
    if what == "print":
        print("not a frame")
        os.write(1, b"nor this\\n")
    if what == "cheat":
        from finecast.solvers.registry import method_of
        from finecast.solvers.search import Search
        from finecast.solvers.solve import answer_of

        answer = answer_of(method_of("greedy"), instance, Search(seed=seed))
        full = np.ones_like(answer.solution.cache)
        return replace(answer, solution=replace(answer.solution, cache=full), lower_bound=1e9)
    if what == "nan":
        return Answer(None, float("nan"), BoundKind.CERTIFIED, Termination.NO_SOLUTION)
    return Answer(None, 0.0, BoundKind.NONE, Termination.NO_SOLUTION, notes=("nothing done",))
"""


def suite_of(entries: list[dict[str, Any]], seeds: str = "0", **more: Any) -> Suite:
    """Return a suite of one small class with these methods."""
    return Suite.model_validate(
        {
            "name": "probes",
            "methods": entries,
            "scenario": {
                "library": {"synthetic": {"models": 3, "blocks": 8, "total_gb": 0.5}},
                "nodes": {"count": 2, "antennas": 2, "storage_share": 0.3},
                "users": {"count": 3},
            },
            "classes": [{"name": "small", "seeds": seeds}],
            **more,
        }
    )


def run(suite: Suite, folder: Path, **options: Any) -> list[Record]:
    """Run a suite in a folder; return its records."""
    folder = open_folder(folder)
    run_all(plan(suite, folder), folder, **options)
    return read_records(folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a folder without times."""
    table = pyarrow.parquet.read_table(folder / "runs.parquet")
    return [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in table.to_pylist()
    ]


def gone(*pids: int) -> bool:
    """Whether the processes are dead, within a second."""
    for _ in range(20):
        alive = [pid for pid in pids if psutil.pid_exists(pid)]
        zombies = [pid for pid in alive if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE]
        if len(zombies) == len(alive):
            return True
        time.sleep(0.05)
    return False


def command(folder: Path, suite: Path, *more: str) -> list[str]:
    """Return the command that compares a suite in a process of its own."""
    main = "from finecast.cli.main import main; main()"
    return [sys.executable, "-c", main, "compare", str(suite), "-o", str(folder), *more]


def suite_file(folder: Path, log: Path, runs: int, seconds: float) -> Path:
    """Write a suite of the plug-in with so many runs of so many seconds."""
    path = folder / "probes.toml"
    path.write_text(
        'name = "probes"\nmemory_limit_gb = 1.0\n'
        f'methods = [{{ method = "probe", options = {{ log = "{log}", seconds = {seconds} }} }}]\n'
        f'[[classes]]\nname = "small"\nseeds = "0-{runs - 1}"\n[classes.scenario]\n'
        "library.synthetic = { models = 3, blocks = 8 }\nnodes.count = 2\nusers.count = 3\n"
    )
    return path


def wait_for(folder: Path, count: int) -> None:
    """Wait until so many records are there."""
    for _ in range(1200):
        if (folder / "records").is_dir() and len(known_keys(folder)) >= count:
            return
        time.sleep(0.05)
    pytest.fail(f"{count} records did not come")


def left_behind(folder: Path) -> list[str]:
    """Return the command lines of processes of runs that know the folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in found if "finecast.compare.runs.child" in line or "loky" in line]
