"""Records and result folders: what is written is read back, and nothing half-written counts."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finecast.compare.runs.records import Record, Status, record_from_json, run_key
from finecast.compare.runs.store import (
    PARQUET,
    collect,
    known_keys,
    merge,
    open_folder,
    read_records,
    sole_writer,
    solution_path,
    write_record,
)
from finecast.problem.evaluation import METRICS, Evaluation
from finecast.problem.files import FormatError

ASKED: dict[str, Any] = {
    "instance_hash": "i" * 64,
    "method": "lru",
    "options": {"decay": 0.5, "all": True},
    "restrict": "",
    "delivery": "sequential",
    "schedule": "sequential",
    "seed": 0,
    "time_limit_s": 10.0,
    "memory_limit_bytes": None,
}


def record(seed: int = 0, **changes: Any) -> Record:
    key = run_key(**{**ASKED, "seed": seed})
    plain = Record(
        key=key, suite="s", suite_version=1, instance_class="c", scenario="x", instance_seed=0,
        instance_hash="i" * 64, solved_hash="j" * 64, label="lru", method="lru",
        options='{"all":true,"decay":0.5}', restrict="", delivery="sequential",
        schedule="sequential", seed=seed, status="completed", versions={"finecast": "1"},
        delay=2.5, trace=((0.1, None, 1.0), (0.2, 2.5, 2.0)), slot_delay=(1.0, 1.5),
        notes=("a", "b"), migrated_bytes=7,
    )  # fmt: skip
    return replace(plain, **changes)


number = st.none() | st.floats() | st.integers(-9, 9).map(float)


@given(delay=number, gap=number, bound=number, error=st.text(), seed=st.integers(0, 2**31))
def test_records_survive_json(delay: Any, gap: Any, bound: Any, error: str, seed: int) -> None:
    """Any record comes back as it was, but for NaN and infinities, which become null."""
    one = record(seed, delay=delay, gap=gap, error=error, trace=((0.0, delay, bound),))
    line = one.to_json()
    assert "\n" not in line

    def finite(x: float | None) -> float | None:
        return x if x is not None and abs(x) < float("inf") else None

    expected = replace(
        one, delay=finite(delay), gap=finite(gap), trace=((0.0, finite(delay), finite(bound)),)
    )
    assert record_from_json(line) == expected


def test_records_hold_every_number_of_the_judge() -> None:
    """A metric added to the judge must be added here, or said not to be a number of a run."""
    arrays = {
        "slot_migration", "slot_broadcast", "slot_realised_delay", "block_migration",
        "block_air_time", "user_completion", "area_delay", "interference",
    }  # fmt: skip
    held = {field.name for field in fields(Record)}
    assert set(METRICS) <= held
    judged = {field.name for field in fields(Evaluation)}
    assert judged - arrays <= held


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"delay": "2"}, "delay"),
        ({"seed": 1.5}, "seed"),
        ({"seed": True}, "seed"),
        ({"trace": [[0.0, 1.0]]}, "trace"),
        ({"versions": {"a": 1}}, "versions"),
        ({"schema_version": 99}, "schema_version"),
        ({"extra": 1}, "extra: unknown"),
    ],
)
def test_damaged_records_are_refused(change: dict[str, Any], said: str) -> None:
    """A field of another kind, an unknown one or a newer schema: the error names it."""
    data = {**json.loads(record().to_json()), **change}
    with pytest.raises(ValueError, match=said):
        record_from_json(json.dumps(data))


def test_missing_fields_are_refused() -> None:
    """A record without one of its fields is none."""
    data = json.loads(record().to_json())
    del data["wall_s"]
    with pytest.raises(ValueError, match="wall_s: is missing"):
        record_from_json(json.dumps(data))


def test_keys_tell_runs_apart() -> None:
    """Any part of what is asked makes another key; the order of options does not."""
    key = run_key(**ASKED)
    assert run_key(**{**ASKED, "options": {"all": True, "decay": 0.5}}) == key
    others: dict[str, Any] = {
        "instance_hash": "k" * 64, "method": "lfu", "options": {"decay": 0.5},
        "restrict": "coarse", "delivery": "spatial", "schedule": "pipelined", "seed": 1,
        "time_limit_s": None, "memory_limit_bytes": 1,
    }  # fmt: skip
    keys = {run_key(**{**ASKED, name: value}) for name, value in others.items()}
    assert len(keys | {key}) == len(others) + 1


def test_parquet_has_every_field(tmp_path: Path) -> None:
    """One row a record, in a fixed order, with types that hold even when all values are null."""
    folder = open_folder(tmp_path / "r")
    for seed in (2, 0, 1):
        write_record(folder, record(seed, gap=None, rates_s=None), None)
    table = pyarrow.parquet.read_table(collect(folder))
    assert table.column_names == [field.name for field in fields(Record)]
    assert table["seed"].to_pylist() == [0, 1, 2]
    assert table["trace"].to_pylist()[0] == [[0.1, None, 1.0], [0.2, 2.5, 2.0]]
    assert table["versions"].to_pylist()[0] == [("finecast", "1")]
    kinds = {name: str(table.schema.field(name).type) for name in ("gap", "outages", "feasible")}
    assert kinds == {"gap": "double", "outages": "int64", "feasible": "bool"}


def test_an_empty_folder_has_an_empty_parquet(tmp_path: Path) -> None:
    """A comparison stopped before its first run leaves a table with columns and no rows."""
    table = pyarrow.parquet.read_table(collect(open_folder(tmp_path / "r")))
    assert table.num_rows == 0
    assert "delay" in table.column_names


def test_a_full_disk_leaves_no_half_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the record cannot be written, what was there stays and the run does not count."""
    folder = open_folder(tmp_path / "r")
    write_record(folder, record(0), None)
    more = record(1, solution=solution_path(record(1).key))

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FormatError, match="No space left"):
            write_record(folder, more, b"x")
    assert known_keys(folder) == {record(0).key}
    assert [r.seed for r in read_records(folder)] == [0]
    write_record(folder, more, b"x")
    assert len(known_keys(folder)) == 2


def test_leftovers_of_a_killed_writer_are_cleared(tmp_path: Path) -> None:
    """A temporary file beside a record is not a record, and is gone after the next opening."""
    folder = open_folder(tmp_path / "r")
    left = folder / "records" / f".{record().key}.json.abc123"
    left.write_text('{"half')
    assert known_keys(folder) == set()
    assert read_records(open_folder(folder)) == []
    assert not left.exists()


def test_damaged_files_are_named(tmp_path: Path) -> None:
    """A record that was cut, renamed, or points out of the folder is refused by its path."""
    folder = open_folder(tmp_path / "r")
    write_record(folder, record(), None)
    path = folder / "records" / f"{record().key}.json"
    whole = path.read_text()
    for text in (whole[:-20], "[]", "", whole.replace('"solution":""', '"solution":"../../x"')):
        path.write_text(text)
        with pytest.raises(FormatError, match=record().key):
            read_records(folder)
    path.write_text(whole)
    path.rename(path.with_stem("0" * 32))
    with pytest.raises(FormatError, match="of another run"):
        read_records(folder)


def test_foreign_folders_are_left_alone(tmp_path: Path) -> None:
    """A folder with other files, or a file, is not written to."""
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FormatError, match="something else"):
        open_folder(tmp_path)
    with pytest.raises(FormatError, match="is a file"):
        open_folder(tmp_path / "mine.txt")
    with pytest.raises(FormatError, match="no such folder"):
        read_records(tmp_path / "none")


def test_half_made_folders_are_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full before the folder is known for ours: the next call makes it whole.

    So it does for a folder that an earlier version left: its parts, and nothing in them.
    """
    folder = tmp_path / "r"

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FormatError, match="No space left"):
            open_folder(folder)
    assert read_records(open_folder(folder)) == []
    for name in ("old", "theirs"):
        (tmp_path / name / "records").mkdir(parents=True)
        (tmp_path / name / ".lock").touch()
    assert read_records(open_folder(tmp_path / "old")) == []
    (tmp_path / "theirs" / "records" / "vinyl.json").write_text("mine")
    with pytest.raises(FormatError, match="something else"):
        open_folder(tmp_path / "theirs")


def test_files_of_another_comparison_stay(tmp_path: Path) -> None:
    """What is half written while the folder is held belongs to its holder, and is not deleted."""
    folder = open_folder(tmp_path / "r")
    left = folder / "records" / f".{record().key}.json.abc123"
    left.write_text('{"half')
    with sole_writer(folder):
        open_folder(folder)
        assert left.exists()
    open_folder(folder)
    assert not left.exists()


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    """A second comparison into the same folder is refused while the first holds it."""
    folder = open_folder(tmp_path / "r")
    with sole_writer(folder):
        second = sole_writer(folder)
        with pytest.raises(FormatError, match="another comparison"):
            second.__enter__()
    with sole_writer(folder):
        pass


def test_merge_takes_all_runs_and_the_completed_of_two(tmp_path: Path) -> None:
    """Rows of both folders, one for each run; a completed run replaces a killed one."""
    a, b = open_folder(tmp_path / "a"), open_folder(tmp_path / "b")
    write_record(a, record(0, delay=1.0), None)
    write_record(a, record(1, status=str(Status.TIMED_OUT), delay=None), None)
    write_record(b, record(0, delay=9.0), None)
    done = record(1, delay=3.0, solution=solution_path(record(1).key))
    write_record(b, done, b"the solution")
    write_record(b, record(2), None)
    (b / "instances" / "h.npz").write_bytes(b"instance")
    c = merge([a, b], tmp_path / "c")
    assert [(r.seed, r.delay) for r in read_records(c)] == [(0, 1.0), (1, 3.0), (2, 2.5)]
    assert (c / done.solution).read_bytes() == b"the solution"
    assert (c / "instances" / "h.npz").read_bytes() == b"instance"
    assert pyarrow.parquet.read_table(c / PARQUET).num_rows == 3
    assert len(read_records(a)) == 2  # the sources stay as they were
