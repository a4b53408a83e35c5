"""The runner: every run recorded once, whatever the methods or the disk do to it."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from probe_runs import rows, run, suite_of

from finecast.compare.runs import runner
from finecast.compare.runs.best_known import read_best_known, update
from finecast.compare.runs.records import Record, Status
from finecast.compare.runs.runner import compare as run_all
from finecast.compare.runs.runner import plan
from finecast.compare.runs.store import (
    instance_path,
    merge,
    open_folder,
    read_records,
    sole_writer,
)
from finecast.compare.runs.suite import MethodEntry, chosen_entries
from finecast.problem.evaluation import evaluate
from finecast.problem.files import FormatError
from finecast.problem.instance import read_instance
from finecast.problem.solution import read_solution


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


def test_a_plan_for_another_schedule_counts_as_the_judge_times_it(tmp_path: Path) -> None:
    """Its row has the delay of its own schedule; by that of the instance it is no better."""
    entries = [{"method": "greedy"}, {"method": "random", "schedule": "pipelined"}]
    suite, known = suite_of(entries), tmp_path / "best.json"
    records = {record.method: record for record in run(suite, tmp_path / "r")}
    best = records["greedy"].delay
    path = tmp_path / "r" / "records" / f"{records['random'].key}.json"
    assert best is not None
    path.write_text(json.dumps({**json.loads(path.read_text()), "delay": 0.9 * best}))
    update(tmp_path / "r", known)
    (entry,) = read_best_known(known).values()
    assert (entry["delay"], entry["delay_from"]["method"]) == (best, "greedy")
    assert update(tmp_path / "r", known)["delays"] == []


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
