"""What `finecast compare` takes beyond the methods' own time, over many short runs.

    python3 benchmarks/compare.py --json
    python3 benchmarks/compare.py --runs 1000 --seconds 0.1 --workers 2

The method is a plug-in that sleeps (or, with --busy, computes) for so long and returns a trivial
answer. The methods' own time is the sum of the rows' `wall_s` over the workers. `overhead` counts
everything from the first run asked to the Parquet written, the processes' start included;
`overhead_after_start` leaves out the time to the first record.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PLUG_IN = """
import time
from finecast.solvers.registry import Method
from finecast.solvers.result import Answer, BoundKind, Termination

METHOD = Method("pause", "pause_plugin:solve", "offline", "does nothing for a while")

def solve(instance, *, time_limit=None, gap=None, seed=0, start=None, callback=None,
          seconds=0.1, busy=False):
    if busy:
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            pass
    else:
        time.sleep(seconds)
    return Answer(None, 0.0, BoundKind.NONE, Termination.NO_SOLUTION)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--busy", action="store_true", help="compute instead of sleeping")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = measure(Path(folder), given.runs, given.seconds, given.workers, given.busy)
    if given.json:
        print(json.dumps(row, indent=1))
    else:
        for name, value in row.items():
            print(f"{name:24} {value}")


def measure(folder: Path, runs: int, seconds: float, workers: int, busy: bool) -> dict[str, Any]:
    """Run the comparison and return its figures.

    Parameters
    ----------
    folder
        Empty folder for the plug-in and the results.
    runs, seconds, workers, busy
        As on the command line.
    """
    info = folder / "plugin" / "pause_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pause-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[finecast.methods]\npause = pause_plugin:METHOD\n")
    (folder / "plugin" / "pause_plugin.py").write_text(PLUG_IN)
    sys.path.insert(0, str(folder / "plugin"))
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    from finecast.compare.runs.runner import compare, plan
    from finecast.compare.runs.store import open_folder, read_records
    from finecast.compare.runs.suite import Suite

    suite = Suite.model_validate(
        {
            "name": "overhead",
            "methods": [{"method": "pause", "options": {"seconds": seconds, "busy": busy}}],
            "scenario": {"library": {"synthetic": {"models": 4, "blocks": 20}}},
            "classes": [{"name": "one", "seeds": [0]}],
        }
    )
    results = open_folder(folder / "results")
    asked = plan(suite, results, seeds=range(runs))
    first = 0.0

    def tell(done: int, total: int, record: object) -> None:
        nonlocal first
        if record is not None and not first:
            first = time.perf_counter()

    began = time.perf_counter()
    compare(asked, results, workers=workers, tell=tell)
    elapsed = time.perf_counter() - began
    own = sum(record.wall_s for record in read_records(results)) / workers
    after_start = elapsed - (first - began)
    return {
        "runs": runs,
        "workers": workers,
        "elapsed_s": round(elapsed, 3),
        "own_s": round(own, 3),
        "start_s": round(first - began, 3),
        "overhead": round(elapsed / own - 1, 4),
        "overhead_after_start": round(after_start / (own * (1 - workers / runs)) - 1, 4),
        "load_average": os.getloadavg()[0],
    }


if __name__ == "__main__":
    main()
