"""Bounds of paths in a result folder: by hand, on disk, and in the records of a real comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from finecast.compare.runs import path_bounds
from finecast.compare.runs.path_bounds import (
    StoredBound,
    path_bound_file,
    read_path_bound,
    with_gaps,
    write_path_bound,
)
from finecast.compare.runs.records import SCHEMA_VERSION, record_from_json
from finecast.compare.runs.runner import SuiteRuns, run_suite
from finecast.compare.runs.store import (
    instance_path,
    merge,
    open_folder,
    read_records,
    write_record,
)
from finecast.compare.runs.suite import Suite, draw, freeze, read_suite
from finecast.problem.files import FormatError
from finecast.problem.instance import read_instance
from finecast.problem.solution import read_solution

SUITE = """
name = "paths"
paths = 2
[scenario]
slots = 3
library.synthetic = { models = 3, blocks = 9 }
nodes = { count = 2, antennas = 2, storage_share = 0.4 }
users.count = 3
channel.error = 0.05
demand.persistence = 0.5
[[methods]]
method = "rolling"
[[methods]]
method = "greedy"
[[methods]]
label = "coarse"
method = "lru"
restrict = "coarse"
[[classes]]
name = "a"
seeds = "4-5"
"""


def by_hand() -> StoredBound:
    """Return a bound of two slots, two kinds and two nodes; three blocks of 10, 20 and 5 bytes."""
    penalty = np.zeros((2, 2, 4))
    penalty[0, 0, 0b01], penalty[0, 1, 0b11], penalty[1, 1, 0b10] = 0.5, -1.0, 2.0
    return StoredBound(80.0, 90.0, penalty, np.array([0, 1, 1]), np.array([10, 20, 5]), "x")


def test_a_controlled_gap_by_hand():
    """Penalties 0.5 * 10 - 1 * 5 in slot 0, 2 * 20 in slot 1: the gap is 150 - 40 - 90 s."""
    cache = np.zeros((2, 2, 3), dtype=bool)
    cache[0, 0, 0] = True
    cache[0, :, 2] = True
    cache[1, 1, 1] = True
    assert by_hand().controlled_gap(150.0, cache) == pytest.approx(20.0)
    with pytest.raises(ValueError, match=r"cache: shape is \(2, 3, 2\), expected \(2, 2, 3\)"):
        by_hand().controlled_gap(150.0, cache.transpose(0, 2, 1))


def test_a_bound_is_read_as_it_was_written(tmp_path: Path):
    """Every figure to the bit; a kind that is not there, or no number, is refused."""
    written = by_hand()
    write_path_bound(tmp_path / "b.npz", written)
    read = read_path_bound(tmp_path / "b.npz")
    for name in ("hindsight_bound", "online_bound", "solved_hash"):
        assert getattr(read, name) == getattr(written, name)
    for name in ("penalty", "kind", "block_size"):
        assert np.array_equal(getattr(read, name), getattr(written, name))
    with pytest.raises(ValueError, match=r"kind\[2\]: 2 is not allowed"):
        replace(written, kind=np.array([0, 1, 2]))
    with pytest.raises(ValueError, match="online_bound: nan"):
        replace(written, online_bound=float("nan"))
    (tmp_path / "b.npz").write_bytes(b"PK")
    with pytest.raises(FormatError, match=r"b\.npz"):
        read_path_bound(tmp_path / "b.npz")


def test_paths_are_drawn_and_frozen_one_by_one(tmp_path: Path):
    """Two paths of a network are two instances of one library, each with a hash of its own."""
    (tmp_path / "paths.toml").write_text(SUITE)
    suite = read_suite(tmp_path / "paths.toml")
    (one,) = suite.classes
    assert suite.draws(one) == [(4, 0), (4, 1), (5, 0), (5, 1)]
    first, second = (draw(suite, one, 4, path) for path in (0, 1))
    assert first.hash != second.hash
    assert np.array_equal(first.instance.library.block_size, second.instance.library.block_size)
    freeze(suite)
    frozen = read_suite(tmp_path / "paths.toml")
    assert frozen.frozen_hash(one, 4, 1) == second.hash
    assert frozen.frozen_hash(one, 4) is None
    (tmp_path / "paths.toml").write_text(SUITE.replace("persistence = 0.5", "persistence = 0.6"))
    with pytest.raises(FormatError, match="class 'a', seed 4, path 0: the instance drawn"):
        draw(read_suite(tmp_path / "paths.toml"), one, 4, 0)


@pytest.mark.parametrize("paths", ["0", "-1", "1.5", "true", '"2"', "10001"])
def test_bad_numbers_of_paths_are_refused(tmp_path: Path, paths: str):
    """A suite asks for a whole number of paths, from 1 to 10,000."""
    (tmp_path / "paths.toml").write_text(SUITE.replace("paths = 2", f"paths = {paths}"))
    with pytest.raises(FormatError, match="paths"):
        read_suite(tmp_path / "paths.toml")


def suite_of(folder: Path, text: str = SUITE) -> Suite:
    (folder / "paths.toml").write_text(text)
    return read_suite(folder / "paths.toml")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> SuiteRuns:
    """A comparison of three methods on two paths of two networks."""
    folder = tmp_path_factory.mktemp("paths")
    return run_suite(suite_of(folder), folder / "out")


def test_records_say_what_their_method_lost(ran: SuiteRuns):
    """Online runs have a gap that is theirs, the offline one has bounds, the restricted nothing."""
    assert len(ran.records) == 12
    for r in ran.records:
        bound = read_path_bound(path_bound_file(ran.folder, r.instance_hash))
        if r.label == "coarse":
            assert (r.hindsight_bound, r.online_bound, r.controlled_gap) == (None, None, None)
            continue
        assert (r.hindsight_bound, r.online_bound) == (bound.hindsight_bound, bound.online_bound)
        assert r.delay is not None
        assert r.hindsight_bound is not None
        assert r.hindsight_bound <= r.delay * (1 + 1e-9)
        if r.label == "greedy":
            assert r.controlled_gap is None
            continue
        assert r.controlled_gap is not None
        assert r.controlled_gap >= -1e-9 * r.delay
        cache = read_solution(ran.folder / r.solution).cache
        assert r.controlled_gap == pytest.approx(bound.controlled_gap(r.delay, cache))
    networks = {(r.instance_seed, r.path) for r in ran.records}
    assert networks == {(4, 0), (4, 1), (5, 0), (5, 1)}


def test_the_columns_of_parquet_hold_them(ran: SuiteRuns):
    """Path, bounds and gap are columns like others."""
    table = pyarrow.parquet.read_table(ran.folder / "runs.parquet")
    assert table["path"].to_pylist() == [r.path for r in read_records(ran.folder)]
    assert table["controlled_gap"].null_count == 8


def test_bounds_are_of_the_instances_that_were_run(ran: SuiteRuns):
    """Kinds, sizes and hash of a stored bound are those of the stored instance."""
    for digest in {r.instance_hash for r in ran.records}:
        instance = read_instance(instance_path(ran.folder, digest))
        bound = read_path_bound(path_bound_file(ran.folder, digest))
        assert bound.solved_hash == instance.content_hash
        assert bound.block_size.tolist() == instance.library.block_size.tolist()
        assert bound.penalty.shape[0] == instance.slots


def test_a_method_that_comes_later_finds_the_bounds(
    ran: SuiteRuns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """In a copy of the folder nothing is bounded again, and the new runs have their gaps."""

    def refuse(network: object) -> None:
        raise AssertionError("bounded again")

    monkeypatch.setattr(path_bounds, "bounds_of", refuse)
    copy = merge([ran.folder], tmp_path / "copy")
    later = run_suite(suite_of(tmp_path), copy, methods=["lru"], instances=[4])
    assert [r.controlled_gap is not None for r in later.records] == [True, True]


def test_records_without_gaps_are_completed(ran: SuiteRuns, tmp_path: Path):
    """A comparison that was killed before its gaps were there gets them by the next call."""
    copy = merge([ran.folder], tmp_path / "copy")
    before = read_records(copy)
    for r in before:
        bare = replace(r, hindsight_bound=None, online_bound=None, controlled_gap=None)
        write_record(copy, bare, None)
    with_gaps(copy)
    assert read_records(copy) == before


def test_folders_of_the_first_version_are_read(ran: SuiteRuns, tmp_path: Path):
    """A record without the fields of the second version has none of their values."""
    data = json.loads(ran.records[0].to_json())
    for name in ("path", "hindsight_bound", "online_bound", "controlled_gap"):
        del data[name]
    with pytest.raises(ValueError, match="path: is missing"):
        record_from_json(json.dumps(data))
    old = record_from_json(json.dumps({**data, "schema_version": 1}))
    assert (old.path, old.online_bound, old.controlled_gap) == (None, None, None)
    assert old.schema_version == SCHEMA_VERSION
    folder = open_folder(tmp_path / "old")
    (folder / "online").rmdir()
    (folder / "records" / f"{old.key}.json").write_text(json.dumps({**data, "schema_version": 1}))
    (folder / old.solution).write_bytes((ran.folder / old.solution).read_bytes())
    assert [r.key for r in read_records(merge([folder], tmp_path / "new"))] == [old.key]


def test_scenarios_without_an_online_bound_are_refused_before_any_run(tmp_path: Path):
    """Spatial delivery has none: one line, and no run is made."""
    text = SUITE.replace("slots = 3", 'slots = 3\ndelivery = "spatial"')
    with pytest.raises(ValueError, match="delivery: 'spatial'") as refused:
        run_suite(suite_of(tmp_path, text), tmp_path / "out")
    assert "\n" not in str(refused.value)
    assert read_records(tmp_path / "out") == []
