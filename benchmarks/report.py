"""What `finecast report` takes on a folder of many made-up runs, from start to page.

    python3 benchmarks/report.py --json
    python3 benchmarks/report.py --runs 10000 --one-system

The records have traces of eight points and are those of tests/helpers/synthetic_records.py; with
`--one-system` all methods solve the full system, so that all of their pairs are tested.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))

from synthetic_records import SYSTEMS, synthetic_records

from finecast.compare.runs.store import open_folder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--one-system", action="store_true", help="every method in every pair")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = measure(Path(folder), given.runs, given.one_system)
    if given.json:
        print(json.dumps(row, indent=1))
    else:
        for name, value in row.items():
            print(f"{name:24} {value}")


def measure(work: Path, runs: int, one_system: bool) -> dict[str, Any]:
    """Return seconds from the command to the page, and its size."""
    folder = open_folder(work / "out")
    records = synthetic_records(max(1, runs // len(SYSTEMS)))
    for record in records:
        if one_system:
            record = replace(record, restrict="", delivery="sequential")
        # Not through `write_record`, whose fsync a run can afford and ten thousand at once cannot.
        (folder / "records" / f"{record.key}.json").write_text(record.to_json() + "\n")
    command = "from finecast.cli.main import main; main()"
    page = work / "report.html"
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", command, "report", str(folder), "-o", str(page)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return {
        "runs": len(records),
        "methods": len(SYSTEMS),
        "seconds": round(time.perf_counter() - start, 2),
        "page_mb": round(page.stat().st_size / 1e6, 2),
    }


if __name__ == "__main__":
    main()
