"""Areas and slots as tasks of several processes: the same answer, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import pytest
from dask_cluster import dask_cluster
from two_areas import three_areas, two_areas

import finecast
from finecast.problem.instance import Instance
from finecast.problem.scenario import read_scenario
from finecast.solvers.areas import on_air
from finecast.solvers.bounds import certified_lower_bound
from finecast.solvers.deadline import Deadline
from finecast.solvers.result import Progress, Result, Termination
from finecast.solvers.signals import SearchInterrupt, ctrl_c_keeps_the_best
from finecast.solvers.workers import RESTARTS, Workers, check_workers

DECISIONS = ("cache", "source")


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beams need not be good here."""
    monkeypatch.setattr(on_air, "STEPS", 15)
    monkeypatch.setattr(on_air, "POLISH_STEPS", 15)


def assert_same_answer(one: Result, other: Result) -> None:
    """Check that decisions, beams and bounds are equal to the bit."""
    assert (one.delay, one.lower_bound) == (other.delay, other.lower_bound)
    assert one.solution is not None
    assert other.solution is not None
    for name in DECISIONS:
        first, second = getattr(one.solution, name), getattr(other.solution, name)
        assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True)), name
    for ours, theirs in zip(one.solution.broadcasts, other.solution.broadcasts, strict=True):
        assert np.array_equal(ours.beam, theirs.beam)
        assert np.array_equal(ours.rate, theirs.rate)


@cache
def solved_alone(instance: Instance, method: str) -> Result:
    """Return the answer of one process."""
    return finecast.solve(instance, method, seed=1)


@pytest.mark.parametrize("method", ["greedy", "lagrangian"])
def test_the_answer_does_not_depend_on_the_number_of_workers(method: str) -> None:
    """One process, and two."""
    for instance in (two_areas(1, slots=2), three_areas()):
        alone = solved_alone(instance, method)
        assert alone.evaluation.feasible
        assert_same_answer(alone, finecast.solve(instance, method, seed=1, workers=2))


def test_the_bound_does_not_depend_on_the_number_of_workers() -> None:
    """One process, and two."""
    for instance in (two_areas(1, slots=2), three_areas()):
        assert certified_lower_bound(instance, workers=2) == certified_lower_bound(instance)


def die_once(marker: str, number: int, deadline: Deadline) -> int:
    """Kill the process of the task the first time that number 2 is asked for."""
    if number == 2 and not Path(marker).exists():
        Path(marker).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def die_always(number: int, deadline: Deadline) -> int:
    """Kill the process of the task."""
    os.kill(os.getpid(), signal.SIGKILL)
    return number


def test_tasks_of_a_killed_process_are_done_again(tmp_path: Path) -> None:
    """Every task has its answer, in order; where processes die every time there is none."""
    crew = Workers(2)
    try:
        tasks = [(str(tmp_path / "marker"), number) for number in range(6)]
        assert crew.each(die_once, tasks) == [number**2 for number in range(6)]
        assert (tmp_path / "marker").exists()
        with pytest.raises(OSError, match=f"killed {RESTARTS + 1} times"):
            crew.each(die_always, [(1,), (2,)])
    finally:
        crew.close()


def nap(seconds: float, deadline: Deadline) -> float:
    """Take a while."""
    time.sleep(seconds)
    return seconds


def test_ctrl_c_amidst_many_tasks() -> None:
    """The pool ends without an error of its own; an unhandled one in a thread fails this test."""
    crew = Workers(2)
    assert crew.each(nap, [(0.0,)] * 4) == [0.0] * 4
    began = time.monotonic()
    alarm = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    alarm.start()
    with ctrl_c_keeps_the_best(), pytest.raises(SearchInterrupt):
        crew.each(nap, [(0.05,)] * 2000)
    assert time.monotonic() - began < 20
    assert crew.each(nap, [(0.0,)] * 3) == [0.0] * 3  # by the calling process


def test_dask_gives_the_same_answer_though_a_worker_is_killed(tmp_path: Path) -> None:
    """A scheduler and two workers, one of them killed while they are at work."""
    instance = three_areas()
    alone = solved_alone(instance, "lagrangian")
    with dask_cluster(tmp_path) as (where, workers):
        busy = threading.Event()

        def kill_one() -> None:
            # As soon as it has done something for us: CPU time beyond its start.
            until = time.monotonic() + 60
            process = psutil.Process(workers[0].pid)
            idle = process.cpu_times().user
            while time.monotonic() < until and process.cpu_times().user < idle + 1.0:
                time.sleep(0.02)
            workers[0].kill()
            busy.set()

        from distributed import Client

        with Client(where, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        killer = threading.Thread(target=kill_one)
        killer.start()
        found = finecast.solve(instance, "lagrangian", seed=1, engine="dask", scheduler=where)
        killer.join()
        assert busy.is_set()
        again = finecast.solve(instance, "lagrangian", seed=1, engine="dask", scheduler=where)
    assert_same_answer(alone, found)
    assert_same_answer(alone, again)


@pytest.mark.parametrize(
    ("workers", "engine", "scheduler", "said"),
    [
        (0, "local", None, "workers: 0 is not allowed, must be a whole number >= 1"),
        (True, "local", None, "workers: True is not allowed"),
        (1, "mpi", None, "engine: 'mpi' is not allowed, must be local or dask"),
        (1, "dask", None, "scheduler: none is given"),
        (1, "dask", "here", "scheduler: 'here' is not allowed"),
        (2, "dask", "tcp://h:1", "workers: is for engine local"),
        (1, "local", "tcp://h:1", "scheduler: is for engine dask"),
    ],
)
def test_workers_that_are_none(workers: int, engine: str, scheduler: str, said: str) -> None:
    """Refused before anything is computed, in one line."""
    with pytest.raises(ValueError, match=said):
        check_workers(workers, engine, scheduler)
    with pytest.raises(ValueError, match=said):
        finecast.solve(two_areas(0), workers=workers, engine=engine, scheduler=scheduler)


def test_one_area_has_no_tasks() -> None:
    """Said by `solve`, by `bound` and on the command line, which ends with 2."""
    instance = read_scenario("tiny").generate(0)
    for refuse in (finecast.solve, certified_lower_bound):
        with pytest.raises(ValueError, match="workers: 2 is for instances of several areas"):
            refuse(instance, workers=2)
    for command in ("solve", "bound"):
        ended = finecast_command(command, "tiny", "--workers", "2")
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1
    ended = finecast_command(
        "solve", "city-19", "--engine", "dask", "--scheduler", "tcp://127.0.0.1:1"
    )
    assert ended.returncode == 2
    assert "no Dask scheduler at tcp://127.0.0.1:1" in ended.stderr


def finecast_command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line."""
    line = [sys.executable, "-c", "from finecast.cli.main import main; main()", *words]
    return subprocess.run(line, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_leaves_a_plan(workers: int) -> None:
    """SIGINT once there is a first plan: it is the answer, judged feasible, with a bound."""

    def interrupt(progress: Progress) -> None:
        if progress.stage == "plan of areas":
            os.kill(os.getpid(), signal.SIGINT)

    with ctrl_c_keeps_the_best():
        found = finecast.solve(
            three_areas(), "lagrangian", seed=1, workers=workers, callback=interrupt
        )
    assert found.termination is Termination.INTERRUPTED
    assert found.evaluation.feasible
    assert 0 < found.lower_bound <= found.delay
