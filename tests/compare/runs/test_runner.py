"""The runner: every run recorded once, whatever the methods, the disk or a signal do to it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet
import pytest
from dask_cluster import dask_cluster
from interrupts import interruptible
from repository import ROOT

from finecast.compare.runs import runner, supervisor
from finecast.compare.runs.best_known import read_best_known, update
from finecast.compare.runs.records import Record, Status
from finecast.compare.runs.runner import compare as run_all
from finecast.compare.runs.runner import plan
from finecast.compare.runs.store import (
    instance_path,
    known_keys,
    merge,
    open_folder,
    read_records,
    sole_writer,
)
from finecast.compare.runs.suite import MethodEntry, Suite, chosen_entries, read_suite
from finecast.problem.evaluation import evaluate
from finecast.problem.files import FormatError
from finecast.problem.instance import read_instance
from finecast.problem.solution import read_solution
from finecast.solvers.registry import methods

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


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A plug-in with a method that hangs, dies or cheats; gives the file where it logs its runs."""
    info = tmp_path / "plugin" / "probe_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: probe-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[finecast.methods]\nprobe = probe_plugin:METHOD\n")
    (tmp_path / "plugin" / "probe_plugin.py").write_text(PLUG_IN)
    monkeypatch.syspath_prepend(str(tmp_path / "plugin"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "plugin"), str(ROOT)]))
    methods.cache_clear()
    yield tmp_path / "log.txt"
    sys.modules.pop("probe_plugin", None)
    methods.cache_clear()


def suite_of(entries: list[dict[str, Any]], seeds: str = "0", **more: Any) -> Suite:
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
    folder = open_folder(folder)
    run_all(plan(suite, folder), folder, **options)
    return read_records(folder)


def rows(folder: Path) -> list[dict[str, Any]]:
    table = pyarrow.parquet.read_table(folder / "runs.parquet")
    return [
        {name: value for name, value in row.items() if name not in TIMES}
        for row in table.to_pylist()
    ]


@pytest.mark.parametrize("method", ["lagrangian", "greedy", "rolling"])
def test_instances_of_several_areas_are_run(method: str, tmp_path: Path) -> None:
    """Of several areas no whole table of rates is made; the run makes those of every area."""
    suite = suite_of([{"method": method}])
    sections = suite.scenario | {"nodes": {**suite.scenario["nodes"], "areas": 1}}
    (record,) = run(suite.model_copy(update={"scenario": sections}), tmp_path / "out")
    assert record.feasible


def test_methods_are_run_judged_and_recorded(tmp_path: Path) -> None:
    """The row says what the judge says of the stored solution, on the stored instance."""
    entries = [
        {"method": "greedy"},
        {"method": "greedy", "label": "nominal", "restrict": "non-robust"},
        {"method": "greedy", "label": "pipelined", "schedule": "pipelined"},
    ]
    suite = suite_of(entries)
    suite.scenario["channel"] = {"error": 0.1}
    records = {record.label: record for record in run(suite, tmp_path / "r")}
    greedy, nominal, pipelined = (records[e.get("label", "greedy")] for e in entries)
    instance = read_instance(instance_path(tmp_path / "r", greedy.instance_hash))
    judged = evaluate(instance, read_solution(tmp_path / "r" / greedy.solution))
    assert greedy.delay == judged.delay
    assert greedy.realised_delay == judged.realised_delay
    assert greedy.status == "completed"
    assert greedy.feasible
    assert greedy.solved_hash == instance.content_hash
    assert greedy.lower_bound is not None
    assert greedy.lower_bound <= judged.delay * (1 + 1e-9)
    assert greedy.gap == pytest.approx(judged.delay / greedy.lower_bound - 1)
    assert greedy.gap == pytest.approx(
        (1 + (greedy.beamforming_gap or 0)) * (1 + (greedy.placement_gap or 0)) - 1
    )
    assert greedy.rates_s is not None
    assert greedy.work is not None
    assert greedy.work > 0
    assert greedy.peak_memory_bytes is not None
    assert greedy.base_memory_bytes is not None
    assert greedy.peak_memory_bytes >= greedy.base_memory_bytes > 10**7
    assert greedy.versions["numpy"]
    assert greedy.cpu
    assert greedy.cores >= 1
    assert (nominal.status, nominal.guaranteed, nominal.delay) == ("completed", False, None)
    assert nominal.realised_delay is not None
    # Another schedule is another instance to solve, but a row of the same instance.
    assert pipelined.instance_hash == greedy.instance_hash
    assert pipelined.solved_hash != greedy.solved_hash
    assert pipelined.delay is not None
    assert pipelined.delay < judged.delay


def test_misbehaving_methods_become_records(probe: Path, tmp_path: Path) -> None:
    """Memory, crashes, errors and cheats are rows that say so; the run after is sound."""
    whats = ["raise", "hog", "nan", "die", "print", "cheat", "nothing"]
    entries = [{"method": "probe", "label": what, "options": {"what": what}} for what in whats]
    suite = suite_of(entries, time_limit_s=60.0, memory_limit_gb=0.6)
    records = {record.label: record for record in run(suite, tmp_path / "r")}
    status = {label: record.status for label, record in records.items()}
    assert status == {
        "raise": Status.FAILED,
        "hog": Status.OUT_OF_MEMORY,
        "nan": Status.FAILED,
        "die": Status.FAILED,
        "print": Status.NO_SOLUTION,
        "cheat": Status.INFEASIBLE,
        "nothing": Status.NO_SOLUTION,
    }
    assert records["raise"].error == "RuntimeError: broken, in two lines"
    assert "limit is 0.60 GB" in records["hog"].error
    assert (records["hog"].peak_memory_bytes or 0) > 6e8
    assert "signal 11" in records["die"].error
    assert records["cheat"].violations > 0
    assert records["cheat"].delay is None
    assert "storage" in records["cheat"].error
    assert records["nan"].lower_bound is None
    assert all("\n" not in record.error for record in records.values())
    for record in records.values():
        assert record.solution == "" or (tmp_path / "r" / record.solution).exists()


def test_hanging_methods_are_killed(probe: Path, tmp_path: Path) -> None:
    """A run that never ends is a row, be it the run itself or what comes before its clock."""
    limits = {"time_limit_s": 0.1, "grace_s": 0.2}
    entry = {"method": "probe", "options": {"what": "hang"}}
    (own,) = run(suite_of([entry], **limits), tmp_path / "own")
    assert (own.status, own.hard_limit_s) == (Status.TIMED_OUT, pytest.approx(0.3))
    assert own.error == "killed while solving: not done in 0.3 s"
    assert own.wall_s >= 0.3
    entry = {"method": "probe", "options": {"what": "hang first"}}
    (before,) = run(suite_of([entry], **limits, rates_limit_s=0.5), tmp_path / "before")
    assert before.status == Status.TIMED_OUT
    assert before.error == "killed while preparing the rates: not done in 0.5 s"


def test_rates_that_cannot_be_stored_lose_no_run(tmp_path: Path) -> None:
    """On a full disk the rates are kept elsewhere, and the run is what it is; a note says so."""
    suite = suite_of([{"method": "greedy"}, {"method": "lru"}])
    usual = run(suite, tmp_path / "usual")
    folder = open_folder(tmp_path / "full")
    (folder / "rates").touch()  # a file, so that no folder can be made
    for record, same in zip(run(suite, folder), usual, strict=True):
        assert record.status == Status.COMPLETED
        assert record.delay == same.delay
        assert record.rates_s is not None
        assert record.notes[-1].startswith("the rates were kept elsewhere: FileExistsError")


def test_a_damaged_time_of_the_rates_is_made_anew(tmp_path: Path) -> None:
    """A process that was killed while it wrote the file leaves no folder that fails for ever."""
    suite, folder = suite_of([{"method": "greedy"}]), open_folder(tmp_path / "r")
    places = []

    def halved(done: int, _asked: int, record: Record | None) -> None:
        if record is not None and done == 1:
            places.extend((folder / "rates").glob("*.seconds"))

    run(suite, folder, tell=halved)
    (place,) = places
    place.parent.mkdir()
    place.touch()
    for file in (folder / "records").iterdir():
        file.unlink()
    (record,) = run(suite, folder)
    assert record.status == Status.COMPLETED
    assert record.rates_s > 0


def gone(*pids: int) -> bool:
    """Whether the processes are dead, within a second."""
    for _ in range(20):
        alive = [pid for pid in pids if psutil.pid_exists(pid)]
        zombies = [pid for pid in alive if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE]
        if len(zombies) == len(alive):
            return True
        time.sleep(0.05)
    return False


def test_what_a_run_starts_belongs_to_it(probe: Path, tmp_path: Path) -> None:
    """Its processes count as its memory, and end with it: killed, out of time, or done."""
    whats = ["fork hog", "fork", "fork away", "fork end", "fork end away"]
    hog, *others = [
        {"method": "probe", "label": what, "options": {"what": what, "log": str(probe)}}
        for what in whats
    ]
    suite = suite_of([hog], time_limit_s=60.0, memory_limit_gb=0.9)
    records = {record.label: record for record in run(suite, tmp_path / "hog")}
    suite = suite_of(others, time_limit_s=1.0, grace_s=2.0, memory_limit_gb=0.9)
    records |= {record.label: record for record in run(suite, tmp_path / "others")}
    assert [records[what].status for what in whats] == [
        Status.OUT_OF_MEMORY, Status.TIMED_OUT, Status.TIMED_OUT, Status.NO_SOLUTION,
        Status.NO_SOLUTION,
    ]  # fmt: skip
    assert "limit is 0.90 GB" in records["fork hog"].error
    assert records["fork end"].notes[-1] == (
        "1 processes that the run had started were ended with it"
    )
    lines = [line.split() for line in probe.read_text().splitlines()]
    pids = [int(word) for words in lines if words[0].isdigit() for word in words]
    assert len(pids) == 10
    assert gone(*pids)


@pytest.mark.parametrize("what", ["fork", "fork away"])
def test_a_killed_comparison_leaves_nothing_of_its_runs(
    probe: Path, tmp_path: Path, what: str
) -> None:
    """kill -9 of the comparison ends a run and what it has started, in a session of its own too."""
    suite, folder = suite_file(tmp_path, probe, 1, 0.0), tmp_path / "r"
    suite.write_text(suite.read_text().replace("seconds = 0.0", f'what = "{what}"'))
    started = subprocess.Popen(command(folder, suite), stdout=subprocess.DEVNULL)
    for _ in range(1200):
        if probe.exists() and probe.read_text().count("\n") == 2:
            break
        time.sleep(0.05)
    started.kill()
    started.wait()
    assert gone(int(probe.read_text().split()[-1]))


def test_a_process_that_loads_does_not_outlive_its_comparison(tmp_path: Path) -> None:
    """kill -9 while the process of the runs has only begun to load its libraries."""
    started = subprocess.Popen(
        command(tmp_path / "r", Path("smoke")), stdout=subprocess.DEVNULL, start_new_session=True
    )
    children: list[psutil.Process] = []
    while not children and started.poll() is None:
        children = psutil.Process(started.pid).children()
        time.sleep(0.01)
    assert children, "the comparison ended before it started a run"
    started.kill()
    started.wait()
    until = time.monotonic() + 30
    while time.monotonic() < until and children[0].is_running():
        with suppress(OSError):  # it may end between the two
            loaded = "_multiarray_umath" in Path(f"/proc/{children[0].pid}/maps").read_text()
            assert not loaded
        time.sleep(0.01)
    assert not children[0].is_running()


def test_processes_killed_before_a_run_are_started_again(
    probe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while they start, or while they wait: the runs are made all the same.

    One that never starts ends the comparison, and says what it said.
    """
    real, started = supervisor._Process._wait_until_ready, []

    def killed_twice(process: Any) -> dict[str, Any]:
        started.append(process)
        if len(started) <= 2:
            process.process.kill()
        return real(process)

    def killed_in_wait(done: int, total: int, record: Record | None) -> None:
        if record is not None:
            started[-1].process.kill()
            started[-1].process.wait()

    monkeypatch.setattr(supervisor._Process, "_wait_until_ready", killed_twice)
    suite, folder = suite_of([{"method": "probe"}], seeds="0-2"), open_folder(tmp_path / "r")
    counts = run_all(plan(suite, folder), folder, tell=killed_in_wait)
    assert counts == {"asked": 3, "known": 0, "done": 3}
    assert {record.status for record in read_records(folder)} == {Status.NO_SOLUTION}
    assert len(started) == 5

    def always(process: Any) -> dict[str, Any]:
        process.process.kill()
        return real(process)

    monkeypatch.setattr(supervisor._Process, "_wait_until_ready", always)
    with pytest.raises(ChildProcessError, match="did not start: it said nothing"):
        run(suite_of([{"method": "probe"}], seeds="7"), tmp_path / "n")


def test_an_edited_suite_is_not_mixed_with_the_old_one(probe: Path, tmp_path: Path) -> None:
    """Other instances under the same name and version are refused; a new version is not."""
    suite, folder = suite_of([{"method": "probe"}], seeds="0-1"), tmp_path / "r"
    run(suite, folder)
    before = sorted(path.name for path in folder.rglob("*"))
    suite.scenario["users"] = {"count": 4}
    with pytest.raises(FormatError, match=r"'probes' version 1, class 'small', seed 0, on"):
        run(suite, folder)
    assert sorted(path.name for path in folder.rglob("*")) == before
    other = tmp_path / "other"
    run(suite, other)
    with pytest.raises(FormatError, match=r"version 1, class 'small', seed 0, on"):
        merge([folder, other], tmp_path / "both")
    assert len(run(suite.model_copy(update={"version": 2}), folder)) == 4


def test_a_second_comparison_is_refused_before_it_writes(probe: Path, tmp_path: Path) -> None:
    """While one comparison holds the folder, another changes nothing in it."""
    suite, folder = suite_of([{"method": "probe"}]), open_folder(tmp_path / "r")
    before = sorted(folder.rglob("*"))
    with sole_writer(folder), pytest.raises(FormatError, match="another comparison"):
        runner.run_suite(suite, folder)
    assert [path for path in sorted(folder.rglob("*")) if path.name != ".lock"] == [
        path for path in before if path.name != ".lock"
    ]


def test_what_is_there_is_not_run_again(probe: Path, tmp_path: Path) -> None:
    """A second call runs nothing; one more seed runs that alone; failed runs only if asked."""
    entries = [
        {"method": "probe", "options": {"log": str(probe)}},
        {"method": "probe", "label": "bad", "options": {"log": str(probe), "what": "raise"}},
    ]
    suite, folder = suite_of(entries, seeds="0-1"), open_folder(tmp_path / "r")
    first = run_all(plan(suite, folder), folder)
    assert first == {"asked": 4, "known": 0, "done": 4}
    assert run_all(plan(suite, folder), folder) == {"asked": 4, "known": 4, "done": 0}
    assert {run.instance_seed for run in plan(suite, folder, instances=[1])} == {1}
    more = plan(suite, folder, seeds=[0, 1])
    assert run_all(more, folder) == {"asked": 8, "known": 4, "done": 4}
    assert len(probe.read_text().splitlines()) == 8
    again = run_all(plan(suite, folder), folder, retry_failed=True)
    assert again == {"asked": 4, "known": 2, "done": 2}
    shorter = plan(suite, folder, entries=suite.methods[:1], time_limit_s=1.0)
    assert run_all(shorter, folder)["done"] == 2  # another limit is another question


def test_a_full_disk_loses_the_run_in_flight_alone(
    probe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write of the third record fails: two rows are kept, and the rest comes afterwards."""
    suite = suite_of([{"method": "probe", "options": {"log": str(probe)}}], seeds="0-4")
    folder = open_folder(tmp_path / "r")
    asked = plan(suite, folder)
    write, count = runner.write_record, 0

    def fails_later(*arguments: Any) -> None:
        nonlocal count
        count += 1
        if count > 2:
            monkeypatch.setattr(os, "fsync", full)
        write(*arguments)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(runner, "write_record", fails_later)
        with pytest.raises(FormatError, match="No space left"):
            run_all(asked, folder)
        monkeypatch.undo()
    assert len(read_records(folder)) == 2


def test_two_workers_give_the_rows_of_one(tmp_path: Path) -> None:
    """loky's processes change nothing but times, and no process is left behind."""
    suite = suite_of([{"method": "greedy"}, {"method": "lru"}], seeds="0-1")
    run(suite, tmp_path / "one")
    run(suite, tmp_path / "two", workers=2)
    one, two = rows(tmp_path / "one"), rows(tmp_path / "two")
    assert [{**row, "workers": 2} for row in one] == two
    assert len(two) == 4


def command(folder: Path, suite: Path, *more: str) -> list[str]:
    main = "from finecast.cli.main import main; main()"
    return [sys.executable, "-c", main, "compare", str(suite), "-o", str(folder), *more]


def suite_file(folder: Path, log: Path, runs: int, seconds: float) -> Path:
    path = folder / "probes.toml"
    path.write_text(
        'name = "probes"\nmemory_limit_gb = 1.0\n'
        f'methods = [{{ method = "probe", options = {{ log = "{log}", seconds = {seconds} }} }}]\n'
        f'[[classes]]\nname = "small"\nseeds = "0-{runs - 1}"\n[classes.scenario]\n'
        "library.synthetic = { models = 3, blocks = 8 }\nnodes.count = 2\nusers.count = 3\n"
    )
    return path


def wait_for(folder: Path, count: int) -> None:
    for _ in range(1200):
        if (folder / "records").is_dir() and len(known_keys(folder)) >= count:
            return
        time.sleep(0.05)
    pytest.fail(f"{count} records did not come")


def left_behind(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(folder).encode() in (entry / "environ").read_bytes():
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return [line for line in found if "finecast.compare.runs.child" in line or "loky" in line]


def test_the_runner_is_loaded_fast() -> None:
    """Every worker of a pool loads it: solvers and their libraries come with the runs alone."""
    script = (
        "import sys, finecast.compare.runs.runner\n"
        "print(sorted({'torch', 'scipy', 'highspy', 'cvxpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill-9", "ctrl-c"])
def test_stopped_half_way_and_started_again(
    probe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    """The rows are those of an uninterrupted comparison, and nothing recorded was run again."""
    monkeypatch.setenv("FINECAST_TEST_FOLDER", str(tmp_path))
    suite, folder, whole = suite_file(tmp_path, probe, 12, 0.3), tmp_path / "r", tmp_path / "w"
    started = subprocess.Popen(
        command(folder, suite, "--workers", "2"), start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=interruptible,
    )  # fmt: skip
    wait_for(folder, 4)
    os.killpg(started.pid, how)
    _, said = started.communicate(timeout=60)
    assert started.returncode == (130 if how == signal.SIGINT else -9)
    if how == signal.SIGINT:
        assert (folder / "runs.parquet").exists()
        assert said.startswith("finecast: interrupted")
        assert "Traceback" not in said
    kept, begun = known_keys(folder), len(probe.read_text().splitlines())
    assert 4 <= len(kept) < 12
    time.sleep(0.3)
    assert left_behind(tmp_path) == []
    again = subprocess.run(
        command(folder, suite, "--workers", "2", "--json"), capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    told = json.loads(again.stdout)
    assert (told["asked"], told["known"], told["done"]) == (12, len(kept), 12 - len(kept))
    lost = begun - len(kept)  # in flight when it was stopped
    assert 0 <= lost <= 3  # two, and one that was done but not yet written
    assert len(probe.read_text().splitlines()) == 12 + lost
    run(read_suite(suite), whole)
    assert [{**row, "workers": 1} for row in rows(folder)] == rows(whole)


def test_ctrl_c_between_two_results_is_no_warning(probe: Path, tmp_path: Path) -> None:
    """joblib warns of tasks that are dropped where Ctrl-C comes while a record is written."""
    suite = suite_of([{"method": "probe", "options": {"seconds": 0.3}}], seeds="0-5")
    folder = open_folder(tmp_path / "r")

    def tell(done: int, total: int, record: Record | None) -> None:
        if record is not None:
            raise KeyboardInterrupt

    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with pytest.raises(KeyboardInterrupt):
            run_all(plan(suite, folder), folder, workers=2, tell=tell)
    assert [w for w in told if "tasks" in str(w.message)] == []
    assert len(read_records(folder)) == 1


def test_a_killed_worker_of_the_pool_is_replaced(probe: Path, tmp_path: Path) -> None:
    """kill -9 of one of loky's processes: the comparison goes on to its end."""
    suite = suite_of([{"method": "probe", "options": {"seconds": 0.3}}], seeds="0-7")
    folder = open_folder(tmp_path / "r")
    killed = []

    def tell(done: int, total: int, record: Record | None) -> None:
        if record is not None and not killed:
            workers = [
                child
                for child in psutil.Process().children()
                if "popen_loky" in " ".join(child.cmdline())
            ]
            workers[0].kill()
            killed.append(workers[0].pid)

    counts = run_all(plan(suite, folder), folder, workers=2, tell=tell)
    assert killed
    assert counts == {"asked": 8, "known": 0, "done": 8}
    assert {record.status for record in read_records(folder)} == {Status.NO_SOLUTION}


def test_dask_survives_the_loss_of_a_worker(probe: Path, tmp_path: Path) -> None:
    """A scheduler and two workers on localhost, one killed mid-run: every run has its row."""
    suite, folder = suite_file(tmp_path, probe, 10, 0.4), tmp_path / "r"
    with dask_cluster(tmp_path) as (where, workers):
        started = subprocess.Popen(
            command(folder, suite, "--engine", "dask", "--scheduler", where, "--json"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        wait_for(folder, 3)
        workers[0].kill()
        said, complaints = started.communicate(timeout=120)
        assert started.returncode == 0, complaints
    told = json.loads(said)
    assert told["status"] == {"no-solution": 10}
    runs = probe.read_text().splitlines()
    assert len(set(runs)) == 10
    assert len(runs) <= 11  # the one in flight is done again
    run(read_suite(suite), tmp_path / "w")
    ours = [{**row, "workers": 1} for row in rows(folder)]
    assert ours == rows(tmp_path / "w")


def test_best_known_values_need_the_judge(tmp_path: Path) -> None:
    """A delay enters when the judge finds it again; a forged row and a worse one do not."""
    suite, known = suite_of([{"method": "greedy"}, {"method": "random"}]), tmp_path / "best.json"
    records = {record.label: record for record in run(suite, tmp_path / "r")}
    greedy, random = records["greedy"], records["random"]
    told = update(tmp_path / "r", known)
    best = min(r.delay for r in (greedy, random) if r.delay is not None)
    bound = max(r.lower_bound for r in (greedy, random) if r.lower_bound is not None)
    (entry,) = read_best_known(known).values()
    assert (entry["delay"], entry["lower_bound"]) == (best, bound)
    assert entry["delay_from"]["method"] in ("greedy", "random")
    assert told["refused"] == []
    assert update(tmp_path / "r", known) == {"delays": [], "bounds": [], "refused": []}
    path = tmp_path / "r" / "records" / f"{random.key}.json"
    forged = {**json.loads(path.read_text()), "delay": best / 2, "lower_bound": best * 2}
    path.write_text(json.dumps(forged))
    told = update(tmp_path / "r", known)
    assert (told["delays"], told["bounds"]) == ([], [])
    assert "the judge" in told["refused"][0]
    assert "one of them is wrong" in told["refused"][1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.toml", "-o", "r"], "no such file"),
        (["nosuch", "-o", "r"], "no such file"),
        (["smoke"], "-o: is missing"),
        (["smoke", "-o", "r", "--methods", "gredy"], "did you mean 'greedy'?"),
        (["smoke", "-o", "r", "--classes", "big"], "none of tiny"),
        (["smoke", "-o", "r", "--seeds", "x"], "expected seeds"),
        (["smoke", "-o", "r", "--instances", "77"], "has an instance of seed 77"),
        (["smoke", "-o", "r", "--set", "speed=9"], "'speed' is unknown"),
        (["smoke", "-o", "r", "--set", "seed=9"], "set by the runner"),
        (["smoke", "-o", "r", "--time-limit", "0"], "time_limit_s: 0.0 is not"),
        (["smoke", "-o", "r", "--workers", "0"], "--workers"),
        (["smoke", "-o", "r", "--engine", "dask"], "scheduler"),
        (["smoke", "-o", "r", "--engine", "dask", "--scheduler", "x"], "'x' is not allowed"),
        (["smoke", "-o", "r", "--scheduler", "tcp://x"], "scheduler: is for engine dask"),
        (["smoke", "-o", "/dev/null"], "is a file"),
        (["smoke", "exact", "-o", "r"], "one is expected"),
        (["--merge", "none", "-o", "r"], "no such folder"),
        (["--update-best-known", "none", "--best-known", "b.json"], "no such folder"),
    ],
)
def test_bad_input_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Exit code 2, one line on stderr that says what is wrong, nothing run."""
    from finecast.cli.main import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["finecast", "compare", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    error = capsys.readouterr().err
    assert ended.value.code == 2
    assert error.count("\n") == 1
    assert said in error


def test_methods_that_are_chosen() -> None:
    """Labels of the suite keep their options, other names are plain methods, options are added."""
    suite = suite_of([{"method": "greedy", "label": "whole", "restrict": "coarse"}])
    assert chosen_entries(suite, None, None) == suite.methods
    more = {"delivery": "spatial", "beamforming": "matched"}
    entries = chosen_entries(suite, ["whole", "lru"], more)
    assert entries == [
        MethodEntry(
            method=method, label=f"{label} delivery=spatial beamforming=matched",
            restrict=restrict, delivery="spatial", options={"beamforming": "matched"},
        )
        for method, label, restrict in (("greedy", "whole", "coarse"), ("lru", "lru", ""))
    ]  # fmt: skip
    told = {"checkpoint": "runs/x/", "rounds": 2, "in_turn": True}
    [entry] = chosen_entries(suite, ["policy"], told)
    assert entry.label == "policy checkpoint=x rounds=2 in_turn=true"
    assert entry.options == told
