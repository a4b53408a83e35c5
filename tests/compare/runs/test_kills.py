"""Kills, hangs and Ctrl-C: no run is lost or left behind, whoever was stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from dask_cluster import dask_cluster
from interrupts import interruptible
from probe_runs import command, gone, left_behind, rows, run, suite_file, suite_of, wait_for

from finecast.compare.runs import supervisor
from finecast.compare.runs.records import Record, Status
from finecast.compare.runs.runner import compare as run_all
from finecast.compare.runs.runner import plan
from finecast.compare.runs.store import (
    known_keys,
    open_folder,
    read_records,
)
from finecast.compare.runs.suite import read_suite


def test_a_limit_of_work_moves_the_kill(tmp_path: Path) -> None:
    """A run that counts its work gets the time for it, whatever the time limit of its suite is."""
    entries = [
        {"method": "greedy"},
        {"label": "little", "method": "greedy", "options": {"work": 0.01}},
        {"label": "much", "method": "greedy", "options": {"work": 5.0}},
    ]
    whole = plan(suite_of(entries, time_limit_s=2.0, grace_s=3.0), open_folder(tmp_path / "out"))
    limits = {one.label: (one.time_limit_s, one.hard_limit_s) for one in whole}
    assert limits == {"greedy": (2.0, 5.0), "little": (2.0, 5.0), "much": (2.0, 53.0)}


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
