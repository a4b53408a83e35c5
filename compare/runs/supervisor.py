"""Limits from outside: every run in a process that is watched, and killed when it oversteps.

The process (`finecast.compare.runs.child`) loads finecast once and serves run after run; only one
that hangs, takes too much memory or dies is replaced. Each thread that supervises has a process of
its own. Whatever a run starts in turn belongs to it: it counts as the run's memory, and ends with
the run.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import psutil

from finecast.compare.runs import guard
from finecast.compare.runs.child import read_frame, write_frame
from finecast.compare.runs.records import Status

POLL_S = 0.05
"""Between two looks at a run's memory and clock."""

START_LIMIT_S = 300.0
"""For a process to load its libraries."""

STARTS = 4
"""Times that a process which dies while it starts is started, before that counts as an error."""

RENEW_SHARE = 0.5
"""A process that holds this share of the memory limit when a run begins is replaced."""

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
)
_CHILD = """
import sys
from finecast.solvers.signals import die_with_parent
die_with_parent(int(sys.argv[1]))
from finecast.compare.runs.child import main
main()
"""
"""The program of a process. It is bound to its parent first, since its libraries take seconds."""

_own = threading.local()


class _DiedAtStartError(ChildProcessError):
    """A process died before it was ready."""


class _Process:
    """A child process that leads a group of its own, its answers in a queue."""

    def __init__(self, threads: int) -> None:
        limits = dict.fromkeys(_THREAD_VARIABLES, str(threads))
        path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
        self.threads = threads
        self.stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", _CHILD, str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.stderr,
            env={**os.environ, **limits, "PYTHONPATH": path, guard.RUN: uuid.uuid4().hex},
            process_group=0,
        )  # fmt: skip
        self.held = ""
        self.guard: int | None = None
        self.seen: dict[int, psutil.Process] = {}
        self.events: queue.SimpleQueue[tuple[dict[str, Any], bytes] | None] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.watched = psutil.Process(self.process.pid)
        self.machine = self._wait_until_ready()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        try:
            while (frame := read_frame(self.process.stdout)) is not None:
                self.events.put(frame)
        except (OSError, ValueError):
            pass
        self.events.put(None)

    def _wait_until_ready(self) -> dict[str, Any]:
        kind: type[ChildProcessError] = _DiedAtStartError
        try:
            frame = self.events.get(timeout=START_LIMIT_S)
        except queue.Empty:
            frame, kind = None, ChildProcessError
        except BaseException:  # Ctrl-C
            self.kill()
            raise
        if frame is None:
            said = self.last_words()
            self.kill()
            raise kind(f"a process for runs did not start: {said}")
        event = frame[0]
        del event["event"]
        self.guard = event.pop("guard")
        return event

    def resident(self) -> int:
        """Return the resident memory of the process and all that it started, bytes; 0 without it.

        Of the others counts their share of what they share, such as the pages of a fork.
        """
        try:
            own = int(self.watched.memory_info().rss)
        except psutil.Error:
            return 0
        return own + sum(_proportional_memory(process) for process in self.started())

    def started(self) -> list[psutil.Process]:
        """Return the living processes that this one and those below it have started."""
        found: dict[int, psutil.Process] = {}
        open_pids = [self.process.pid]
        while open_pids:
            for pid in _children(open_pids.pop()):
                if pid == self.guard or pid in found:
                    continue
                with suppress(psutil.Error):
                    process = self.seen.get(pid) or psutil.Process(pid)
                    if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                        found[pid] = process
                        open_pids.append(pid)
        self.seen = found
        return list(found.values())

    def ask(self, task: dict[str, Any], content: bytes) -> bool:
        """Ask for a run, with its instance where that is not held; say whether it could be sent."""
        assert self.process.stdin is not None
        self.stderr.seek(0)
        self.stderr.truncate()
        try:
            write_frame(self.process.stdin, task, content)
        except OSError:
            return False
        self.held = task["instance_hash"]
        return True

    def last_words(self) -> str:
        """Return the last line on stderr."""
        self.stderr.seek(0, os.SEEK_END)
        self.stderr.seek(max(0, self.stderr.tell() - 4096))
        lines = self.stderr.read().decode(errors="replace").strip().splitlines()
        return " ".join(lines[-1].split())[:300] if lines else "it said nothing"

    def kill(self) -> None:
        """End the process and everything that it started."""
        for process in [*self.seen.values(), *self.started()]:
            with suppress(psutil.Error):
                process.kill()
        with suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.stderr):
            try:
                if stream is not None:
                    stream.close()
            except OSError:  # unsent bytes for a process that is gone
                pass


def run_supervised(
    task: dict[str, Any], instance: bytes | os.PathLike[str] | str, *, threads: int
) -> tuple[dict[str, Any], bytes]:
    """Return the fields of a record that a run makes, and the content of its solution file.

    Parameters
    ----------
    task
        `instance_hash`, `method`, `options`, `restrict`, `delivery`, `schedule`, `seed`,
        `time_limit_s`; `rates`, a folder for rate tables or None; `rates_limit_s`,
        `hard_limit_s` and `memory_limit_bytes`, enforced from outside.
    instance
        The instance file, or its content.
    threads
        Threads that the run may use.
    """
    for _ in range(2):
        process = _ready(threads, task["memory_limit_bytes"])
        content = b""
        if process.held != task["instance_hash"]:
            content = instance if isinstance(instance, bytes) else _content(instance)
        if process.ask(task, content):
            break
        close()  # it has died since the last run, which is no fault of this one
    done = False
    try:
        outcome, solution = _watch(process, task)
        done = outcome.pop("alive")
    finally:  # also when Ctrl-C comes while a run is on
        if not done:
            _own.process = None
            process.kill()
    return {**outcome, **process.machine}, solution


def close() -> None:
    """End the calling thread's process, if it has one."""
    process = getattr(_own, "process", None)
    if process is not None:
        _own.process = None
        process.kill()


def _ready(threads: int, memory_limit: int | None) -> _Process:
    """Return this thread's process, a new one where that is gone, grown large, or of other kind."""
    process: _Process | None = getattr(_own, "process", None)
    if process is not None:
        grown = memory_limit is not None and process.resident() > RENEW_SHARE * memory_limit
        if process.process.poll() is not None or process.threads != threads or grown:
            close()
            process = None
    for start in range(STARTS if process is None else 0):
        try:
            process = _own.process = _Process(threads)
            break
        except _DiedAtStartError:
            if start == STARTS - 1:
                raise
    assert process is not None
    return process


def _children(pid: int) -> list[int]:
    """Return the processes that a process has started, dead ones too."""
    if sys.platform != "linux":
        with suppress(psutil.Error):
            return [child.pid for child in psutil.Process(pid).children()]
        return []
    found = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in listed.read_text().split()]
    return found


def _proportional_memory(process: psutil.Process) -> int:
    """Return the memory of a process, of shared pages its share, bytes; 0 when it is gone."""
    try:
        if sys.platform == "linux":
            text = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
            sizes = [line.split()[1] for line in text.splitlines() if line.startswith("Pss:")]
            return 1024 * int(sizes[0])
        return int(process.memory_info().rss)
    except (OSError, IndexError, psutil.Error):
        return 0


def _content(path: os.PathLike[str] | str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _watch(process: _Process, task: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    began = time.monotonic()
    deadline, phase = began + task["rates_limit_s"], "preparing the rates"
    peak = 0
    known: dict[str, Any] = {}
    memory_limit = task["memory_limit_bytes"]

    def killed(status: Status, error: str) -> tuple[dict[str, Any], bytes]:
        wall_s = time.monotonic() - began if phase == "solving" else 0.0
        return {
            "alive": False, "status": status, "error": error, "wall_s": wall_s,
            "peak_memory_bytes": peak or None, **known,
        }, b""  # fmt: skip

    # Wait for its answers: `solving` starts the clock of the method, `done` ends the run.
    while True:
        try:
            frame = process.events.get(timeout=POLL_S)
        except queue.Empty:
            resident = process.resident()
            peak = max(peak, resident)
            if memory_limit is not None and resident > memory_limit:
                said = f"{resident / 1e9:.2f} GB in use, the limit is {memory_limit / 1e9:.2f} GB"
                return killed(Status.OUT_OF_MEMORY, f"killed while {phase}: {said}")
            if time.monotonic() > deadline:
                limit = task["hard_limit_s" if phase == "solving" else "rates_limit_s"]
                return killed(Status.TIMED_OUT, f"killed while {phase}: not done in {limit:g} s")
            # What a run has started can hold its output open when it is dead itself.
            if process.process.poll() is None:
                continue
            try:
                frame = process.events.get(timeout=POLL_S)
            except queue.Empty:
                frame = None
        if frame is None:  # its output has ended, so it has died
            code = process.process.wait()
            how = f"signal {-code}" if code < 0 else f"exit code {code}"
            return killed(
                Status.FAILED, f"the process died ({how}) while {phase}: {process.last_words()}"
            )
        event, solution = frame
        if event.pop("event") == "solving":
            known = {name: value for name, value in event.items() if value is not None}
            began = time.monotonic()
            deadline, phase, peak = began + task["hard_limit_s"], "solving", 0
            continue
        if peak > (event.get("peak_memory_bytes") or 0):  # its own peak knows no other process
            event["peak_memory_bytes"] = peak
        left = process.started()
        if left:
            said = f"{len(left)} processes that the run had started were ended with it"
            event["notes"] = [*event.get("notes", ()), said]
        return {"alive": not left, **event}, solution
