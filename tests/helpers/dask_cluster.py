"""A Dask scheduler and two workers of this machine, as processes of their own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def dask_cluster(folder: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """Give the scheduler's address and the two workers; end all of them."""
    address = folder / "scheduler.json"
    processes: list[subprocess.Popen[bytes]] = []

    def start(name: str, *words: str) -> None:
        line = [sys.executable, "-W", "ignore", "-m", f"distributed.cli.dask_{name}", *words]
        processes.append(
            subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )

    try:
        start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard",
              "--scheduler-file", str(address))  # fmt: skip
        for _ in range(1200):
            if address.exists() and address.read_text():
                break
            time.sleep(0.05)
        for _ in range(2):
            start("worker", "--scheduler-file", str(address), "--nthreads", "1", "--no-nanny",
                  "--no-dashboard", "--local-directory", str(folder / "dask"))  # fmt: skip
        yield json.loads(address.read_text())["address"], processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait()
