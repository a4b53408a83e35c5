"""The process that runs methods: one run after another, as `finecast.compare.runs.supervisor` asks.

Frames go over stdin and stdout: a line of JSON, and after it as many raw bytes as its `bytes`
says. A run is asked for by one frame; the answers are `ready` once at the start, `solving` when
the clock of the method begins, and `done`. Whatever libraries print goes to stderr.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeVar

from finecast.compare.runs import guard
from finecast.compare.runs.records import Status, canonical_json
from finecast.problem.evaluation import METRICS
from finecast.problem.files import FormatError, open_lock, read_text, write_atomically
from finecast.problem.instance import Instance

Tell = Callable[[dict[str, Any]], None]
T = TypeVar("T")

IN_MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Folder for files that are read at once, on no disk where the system has such a one."""

NOT_KEPT = "rate_cache: "
"""How the warning begins that `solvers.kept_rates` gives where it cannot keep its tables."""


def main() -> None:
    """Answer until stdin ends."""
    asked, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
    guarded_by = _guard()
    from threadpoolctl import threadpool_limits

    from finecast.compare.runs.machine import machine

    runs = _Runs(lambda event: write_frame(answers, event))
    threadpool_limits(int(os.environ["OMP_NUM_THREADS"]))
    write_frame(answers, {"event": "ready", "guard": guarded_by, **machine()})
    while (frame := read_frame(asked)) is not None:
        task, content = frame
        outcome, solution = runs.run(task, content)
        write_frame(answers, {"event": "done", **outcome}, solution)


def _guard() -> int | None:
    """Have the processes that runs start die with this one; return the process that sees to it.

    Whatever they start in turn stays below this process, where its supervisor finds it. Linux only.
    """
    if sys.platform != "linux":
        return None
    import ctypes

    set_child_subreaper = 36  # PR_SET_CHILD_SUBREAPER: orphans become children of this process
    ctypes.CDLL(None).prctl(set_child_subreaper, 1)
    program = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid())]
    return subprocess.Popen(program, stdin=subprocess.DEVNULL, process_group=0).pid


def write_frame(stream: IO[bytes], event: dict[str, Any], content: bytes = b"") -> None:
    """Write a line of JSON and the bytes that go with it."""
    stream.write(json.dumps({**event, "bytes": len(content)}).encode() + b"\n" + content)
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[dict[str, Any], bytes] | None:
    """Return what `write_frame` wrote; None at the end of the stream, even in mid-frame."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    event: dict[str, Any] = json.loads(line)
    content = stream.read(event.pop("bytes"))
    return event, content


class _Runs:
    """Runs one after another, on the instance held since the last one where it is the same."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._held: tuple[str, Instance] | None = None
        self._warm: set[tuple[str, str]] = set()

    def run(self, task: dict[str, Any], content: bytes) -> tuple[dict[str, Any], bytes]:
        """Return the fields of a record that the run makes, and the solution file's content."""
        try:
            if content:
                self._held = (task["instance_hash"], _instance_from(content))
            assert self._held is not None  # the supervisor sends what is not held
            instance = replace(self._held[1], delivery=task["delivery"], schedule=task["schedule"])
            kind = (task["method"], task["delivery"])
            if kind not in self._warm:
                _warm_up(task)
                self._warm.add(kind)
                gc.collect()
                gc.freeze()  # what stays for good need not be looked at before every run
            return _solve(instance, task, self._tell)
        except MemoryError as error:
            return {"status": Status.OUT_OF_MEMORY, "error": one_line(error)}, b""
        except Exception as error:  # a method may raise anything: that is a failed run
            refused = "can't allocate memory" in str(error)  # torch's own kind of MemoryError
            status = Status.OUT_OF_MEMORY if refused else Status.FAILED
            return {"status": status, "error": one_line(error)}, b""


def one_line(error: BaseException) -> str:
    """Return what an error says, in one line, with its kind unless it is a plain refusal."""
    text = " ".join(str(error).split())[:500]
    if isinstance(error, ValueError) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _warm_up(task: dict[str, Any]) -> None:
    """Solve a tiny instance, so that no run is charged for imports and first calls."""
    from finecast.problem.scenario import Scenario
    from finecast.solvers.solve import solve

    tiny = Scenario.model_validate(
        {
            "library": {"synthetic": {"models": 2, "blocks": 6, "total_gb": 0.1}},
            "nodes": {"count": 2, "antennas": 2, "storage_share": 0.5},
            "users": {"count": 2},
            "delivery": task["delivery"],
        }
    ).generate(0)
    options = {**task["options"], **({"restrict": task["restrict"]} if task["restrict"] else {})}
    try:
        solve(tiny, task["method"], time_limit=0.5, **options)
    except Exception:  # the run itself will say what is wrong with the method
        return


def _solve(instance: Instance, task: dict[str, Any], tell: Tell) -> tuple[dict[str, Any], bytes]:
    from finecast.problem.solution import write_solution
    from finecast.solvers.own_methods import any_method
    from finecast.solvers.solve import solve

    method = any_method(task["method"])
    options = dict(task["options"])
    if task["restrict"]:
        options["restrict"] = task["restrict"]
    with ExitStack() as temporary:
        rates_s, note = None, ""
        # Of several areas no whole table is made: every area has its own rates, and keeps none.
        if "rate_cache" in method.options() and instance.area_count == 1:
            rates_s, note = _stored_rates(instance, method.setting, options, task, temporary)
        base = _start_of_peak()
        tell({"event": "solving", "base_memory_bytes": base, "rates_s": rates_s})
        # A limit of work is for answers that the clock has no part in.
        limit = None if "work" in options else task["time_limit_s"]
        result = solve(instance, task["method"], time_limit=limit, seed=task["seed"], **options)
        peak = _memory("VmHWM")
    content = b""
    if result.solution is not None:
        solution = result.solution

        def written(file: Path) -> bytes:
            write_solution(file, solution)
            return file.read_bytes()

        content = _with_file("solution.npz", written)
    outcome = {**_outcome(result), "rates_s": rates_s}
    if note:
        outcome["notes"] = [*outcome["notes"], note]
    if base is not None and peak is not None:
        outcome |= {"base_memory_bytes": base, "peak_memory_bytes": peak}
    return outcome, content


def _stored_rates(
    instance: Instance, setting: str, options: dict[str, Any], task: dict[str, Any],
    temporary: ExitStack,
) -> tuple[float | None, str]:  # fmt: skip
    """Have the rates in a folder, and its name in `options`; return their seconds, and a note.

    Where a folder cannot hold them, as on a full disk, the next one is taken. With none the method
    makes them itself, within its time.
    """
    shared, note = task["rates"], ""
    places = [None, IN_MEMORY] if shared is None else [shared, None, IN_MEMORY]
    for place in dict.fromkeys(places):
        try:
            folder = place
            if folder is None or folder != shared:
                own = tempfile.TemporaryDirectory(prefix="finecast-", dir=place)
                folder = temporary.enter_context(own)
            with warnings.catch_warnings():
                warnings.filterwarnings("error", NOT_KEPT)
                seconds = _prepare_rates(instance, setting, options, task["seed"], Path(folder))
        except (OSError, FormatError, UserWarning) as error:
            note = f"the rates were kept elsewhere: {one_line(error)}"
            continue
        options["rate_cache"] = folder
        return seconds, note
    return None, note.replace("kept elsewhere", "computed within the time of the run")


def _prepare_rates(
    instance: Instance, setting: str, options: dict[str, Any], seed: int, folder: Path
) -> float:
    """Have the rates of all messages in `folder`; return the seconds that they took, then or now.

    They are the same for all methods (with the same beams, restrictions and seed), which are timed
    without them. An online method has those of every slot made from that slot alone.
    """
    from finecast.solvers.online import prepare_slots
    from finecast.solvers.prepared import prepare
    from finecast.solvers.restrictions import check_restrictions

    chosen = {name: options[name] for name in ("beamforming", "restrict") if name in options}
    # Rates do not depend on delivery, schedule, or where blocks may come from.
    same = replace(instance, delivery="sequential", schedule="sequential").content_hash
    restrictions = sorted(check_restrictions(chosen.get("restrict", "")) - {"no-migration"})
    name = _hash_of(
        {"instance": same, "setting": setting, "seed": seed, **chosen, "restrict": restrictions}
    )
    folder.mkdir(parents=True, exist_ok=True)
    known = folder / f"{name}.seconds"
    with _locked(folder / f"{name}.lock"):
        with suppress(FormatError, ValueError):
            return float(read_text(known))
        began = time.perf_counter()
        make = prepare_slots if setting == "online" else prepare
        make(instance, seed=seed, rate_cache=str(folder), **chosen)
        seconds = time.perf_counter() - began
        write_atomically(known, repr(seconds).encode())
    return seconds


def _hash_of(value: Any) -> str:
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:32]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let no other process make the same rates meanwhile."""
    try:
        import fcntl
    except ImportError:  # no such locks on this system: two processes may make the same rates
        yield
        return
    with open_lock(path) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _outcome(result: Any) -> dict[str, Any]:
    """Return what a result says, as fields of a record."""
    judged = result.evaluation
    fields: dict[str, Any] = {
        "solved_hash": result.instance_hash,
        "termination": str(result.termination),
        "bound_kind": str(result.bound_kind),
        "wall_s": result.wall_s,
        "cpu_s": result.cpu_s,
        "train_s": result.train_s,
        "work": result.work,
        "notes": list(result.notes),
        "trace": [
            [point.time_s, _number(point.delay), _number(point.lower_bound)]
            for point in result.trace
        ],
        "versions": dict(result.versions),
        **_status(result),
    }
    bounded = str(result.bound_kind) != "none" and math.isfinite(result.lower_bound)
    if bounded:
        fields["lower_bound"] = result.lower_bound
    if judged is None:
        return fields
    fields |= {
        "feasible": judged.feasible,
        "violations": len(judged.violations),
        "guaranteed": bool(judged.guaranteed),
        "delay": None if fields["status"] == Status.FAILED else _number(judged.delay),
        "slot_delay": [_number(float(value)) for value in judged.slot_delay],
    }
    fields |= {name: _number(getattr(judged, name)) for name in METRICS}
    if bounded:
        fields |= {
            name: _number(getattr(result, name))
            for name in ("gap", "beamforming_gap", "placement_gap")
        }
    return fields


def _status(result: Any) -> dict[str, str]:
    judged = result.evaluation
    if judged is None and result.termination == "failed":
        return {"status": Status.FAILED, "error": " ".join(result.notes) or "the method failed"}
    if judged is None:
        return {"status": Status.NO_SOLUTION, "error": " ".join(result.notes)}
    if not judged.feasible:
        return {"status": Status.INFEASIBLE, "error": str(judged.violations[0])}
    if result.termination == "failed":  # its bound is not believed, so neither is its plan
        return {"status": Status.FAILED, "error": " ".join(result.notes[-1:]) or "it failed"}
    return {"status": Status.COMPLETED, "error": ""}


def _number(value: Any) -> Any:
    if value is None or isinstance(value, int):
        return value
    return float(value) if math.isfinite(value) else None


def _instance_from(content: bytes) -> Instance:
    from finecast.problem.instance import read_instance

    def read(file: Path) -> Instance:
        file.write_bytes(content)
        return read_instance(file)

    return _with_file("instance.npz", read)


def _with_file(name: str, use: Callable[[Path], T]) -> T:
    """Return what is done with a file that is then deleted: in memory, or on disk if that fails."""
    for place in dict.fromkeys([IN_MEMORY, None]):
        try:
            with tempfile.TemporaryDirectory(prefix="finecast-", dir=place) as folder:
                return use(Path(folder) / name)
        except (OSError, FormatError):
            if place is None:
                raise
    raise AssertionError("the last place is None")


def _start_of_peak() -> int | None:
    """Collect garbage of earlier runs and begin a new peak; return the memory in use, bytes."""
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return _memory("VmRSS")


def _memory(name: str) -> int | None:
    """Return an entry of this process's memory account, bytes; None where there is none."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return None
