"""Rows of one name are of one thing: what an edited suite would mix is kept apart."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
from synthetic_records import synthetic_records

from finecast.compare.report.apart import kept_apart
from finecast.compare.report.comparison import compare_runs
from finecast.compare.report.write import write_report
from finecast.compare.runs.store import open_folder, write_record
from finecast.problem.files import FormatError

RECORDS = synthetic_records(3, labels=("lagrangian", "greedy"))


def test_names_that_stand_for_one_thing_stay():
    """Nothing is renamed, and nothing is said."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kept_apart(RECORDS) == RECORDS


def test_an_edited_method_has_a_row_of_its_own():
    """The same label with other options and another time limit: each label says what differs."""
    first = [replace(r, key=f"old {r.key}", time_limit_s=30.0) for r in RECORDS]
    second = [
        replace(r, key=f"new {r.key}", time_limit_s=5.0, options='{"rounds":2,"units":8}')
        for r in RECORDS
        if r.label == "greedy"
    ]
    with pytest.warns(UserWarning, match="the method 'greedy' stands for several"):
        comparison = compare_runs([*first, *second])
    assert comparison.labels == (
        "lagrangian", "greedy time_limit_s=30", "greedy rounds=2 time_limit_s=5 units=8",
    )  # fmt: skip
    assert all(len(runs) == 1 for runs in comparison.runs.values())


def test_versions_of_a_suite_have_classes_of_their_own():
    """A class of the same name in a new version is another class."""
    newer = [
        replace(r, key=f"new {r.key}", suite_version=r.suite_version + 1, instance_hash=f"new {i}")
        for i, r in enumerate(RECORDS)
        if r.instance_class == "mid"
    ]
    with pytest.warns(UserWarning, match="the class 'mid' stands for several"):
        classes = compare_runs([*RECORDS, *newer]).classes
    suite, version = RECORDS[0].suite, RECORDS[0].suite_version
    assert set(classes) == {
        "small-hard", "slow-links", f"mid ({suite} version {version})",
        f"mid ({suite} version {version + 1})",
    }  # fmt: skip


def test_a_folder_of_an_edited_suite_is_no_report(tmp_path):
    """Two instances of one class and seed, as an earlier version mixed them: refused by name."""
    folder = open_folder(tmp_path / "r")
    for number, digest in enumerate(("aa", "bb")):
        edited = replace(RECORDS[0], key=f"{number}", instance_hash=digest, solution="")
        write_record(folder, edited, None)
    with pytest.raises(FormatError, match=r"class 'small-hard', seed 0, on the instances aa and"):
        write_report(folder, tmp_path / "r.html")
