"""The reference library: what is known of instances, drift, denied claims, submissions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from finecast.cli.main import main
from finecast.compare.runs import best_known
from finecast.compare.runs.best_known import read_best_known, solution_file, submit, update
from finecast.compare.runs.reference import (
    Standing,
    all_suites,
    faults,
    named_instance,
    standings,
    write_instances,
)
from finecast.compare.runs.runner import run_suite
from finecast.compare.runs.suite import draw, freeze, hashes_path, instance_hash, read_suite
from finecast.problem.evaluation import evaluate
from finecast.problem.files import FormatError
from finecast.problem.instance import read_instance
from finecast.problem.shipped import find
from finecast.problem.solution import read_solution, write_solution
from finecast.solvers.solve import solve

SUITE = """
name = "two"
description = "two draws of tiny"
time_limit_s = 20.0
[[methods]]
method = "greedy"
[[classes]]
name = "tiny"
scenario = { base = "tiny" }
seeds = "0-1"
"""


@pytest.fixture
def frozen(tmp_path: Path) -> Path:
    """Return the file of a frozen suite of two instances."""
    file = tmp_path / "two.toml"
    file.write_text(SUITE)
    freeze(read_suite(file))
    return file


@pytest.fixture
def known(frozen: Path, tmp_path: Path) -> Path:
    """Return best known values of it, by greedy, with the solutions."""
    ran = run_suite(read_suite(frozen), tmp_path / "ran")
    assert all(record.status == "completed" for record in ran.records)
    update(tmp_path / "ran", tmp_path / "best.json")
    return tmp_path / "best.json"


def told(frozen: Path, known: Path) -> list[str]:
    """Return the faults."""
    return list(faults([read_suite(frozen)], read_best_known(known), known))


def test_the_shipped_library_holds() -> None:
    """All frozen instances are drawn again, and the judge confirms the stored solutions."""
    file = find("data/best_known.json")
    assert list(faults(all_suites(), read_best_known(file), file)) == []


def test_states_by_hand() -> None:
    """Proven, by a solver's word, open and unsolved."""
    one = Standing("s", "c", 3, None, "h", 1.0, 1.0, "certified")
    assert (one.name, one.gap, one.state) == ("s/c/3", 0.0, "proven")
    assert replace(one, bound_kind="milp").state == "proven by MILP"
    assert replace(one, delay=1.5).state == "open"
    assert replace(one, delay=1.5).gap == pytest.approx(0.5)
    assert replace(one, lower_bound=None).state == "unsolved"
    assert replace(one, delay=None, path=2).name == "s/c/3/2"


def test_solutions_are_stored_and_confirmed(frozen: Path, known: Path) -> None:
    """What the runs found is there with its solution, and nothing is at fault."""
    suite = read_suite(frozen)
    found = standings(suite, read_best_known(known))
    assert [one.state for one in found] == ["open", "open"]
    for one in found:
        assert one.lower_bound is not None
        stored = solution_file(known, one.hash)
        instance = draw(suite, suite.classes[0], one.seed).instance
        assert evaluate(instance, read_solution(stored)).delay == one.delay
    assert told(frozen, known) == []


def test_what_the_judge_denies_is_a_fault(frozen: Path, known: Path) -> None:
    """A better delay in the file, a bound above it, the solution of another instance, a drift."""
    entries = json.loads(known.read_text())
    first, second = list(entries["instances"])

    def changed(**values: object) -> list[str]:
        table = json.loads(json.dumps(entries))
        table["instances"][first] |= values
        known.write_text(json.dumps(table))
        return told(frozen, known)

    delay = entries["instances"][first]["delay"]
    (line,) = changed(delay=delay * 0.999, lower_bound=delay / 2)
    assert "best known is" in line
    assert first in line
    (line,) = changed(lower_bound=delay * 1.01)
    assert "is above the delay" in line
    changed()
    solution_file(known, first).write_bytes(solution_file(known, second).read_bytes())
    (line,) = told(frozen, known)
    assert f"{first}.npz" in line
    solution_file(known, first).write_bytes(b"nothing")
    (line,) = told(frozen, known)
    assert f"{first}.npz" in line
    solution_file(known, first).unlink()
    assert told(frozen, known) == []
    # An instance of the file that the suite does not have, and a generator that draws another one.
    path = hashes_path(read_suite(frozen))
    table = json.loads(path.read_text())
    table["hashes"]["tiny"]["0"] = "0" * 64
    path.write_text(json.dumps(table))
    drift, stranger = told(frozen, known)
    assert "the generator or the scenario has changed" in drift
    assert stranger.endswith("is of suite 'two', which has no such instance")
    del table["hashes"]["tiny"]["0"]
    path.write_text(json.dumps(table))
    assert "is not frozen" in told(frozen, known)[0]
    with pytest.raises(FormatError, match="is not frozen"):
        standings(read_suite(frozen), {})


def test_large_solutions_are_not_stored(
    frozen: Path, tmp_path: Path, known: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A better solution that is too large takes the place of the old one: no file stays behind."""
    suite = read_suite(frozen)
    drawn = draw(suite, suite.classes[0], 0)
    better = solve(drawn.instance, "lagrangian")
    write_solution(tmp_path / "s.npz", better.solution)
    monkeypatch.setattr(best_known, "MOST_BYTES", 10)
    submit(tmp_path / "s.npz", drawn, suite.name, "me", known)
    assert not solution_file(known, drawn.hash).exists()
    assert told(frozen, known) == []


def test_submissions(frozen: Path, tmp_path: Path, known: Path) -> None:
    """A better solution enters with who found it; the same again, a denied and a worse do not."""
    suite = read_suite(frozen)
    drawn = draw(suite, suite.classes[0], 0)
    better = solve(drawn.instance, "lagrangian")
    write_solution(tmp_path / "s.npz", better.solution)
    before = read_best_known(known)[drawn.hash]["delay"]
    assert submit(tmp_path / "s.npz", drawn, "two", "A. Nyone", known) == (
        before,
        better.evaluation.delay,
    )
    (entry, _) = standings(suite, read_best_known(known))
    assert entry.delay == better.evaluation.delay
    assert entry.delay_from is not None
    assert entry.delay_from["label"] == "A. Nyone"
    assert told(frozen, known) == []
    content = known.read_text()
    with pytest.raises(ValueError, match="not better"):
        submit(tmp_path / "s.npz", drawn, "two", "me", known)
    other = draw(suite, suite.classes[0], 1)
    with pytest.raises(ValueError, match=r"s\.npz: "):
        submit(tmp_path / "s.npz", other, "two", "me", known)
    # A bound that is too high makes a good solution a contradiction, which is told.
    table = json.loads(content)
    entry_of = table["instances"][drawn.hash]
    entry_of |= {"delay": before * 2, "lower_bound": before * 1.5}
    known.write_text(json.dumps(table))
    with pytest.raises(ValueError, match="one of them is wrong"):
        submit(tmp_path / "s.npz", drawn, "two", "me", known)


def test_instances_as_files(tmp_path: Path) -> None:
    """The files hold the frozen instances; paths and classes are in their names."""
    suite = read_suite("online")
    one = suite.classes[0].name
    written = dict(write_instances(suite, tmp_path / "out", [one]))
    assert len(written) == len(suite.draws(suite.classes[0]))
    for name, file in written.items():
        found, instance_class, seed, path = named_instance(name)
        frozen = found.frozen_hash(instance_class, seed, path)
        assert instance_hash(read_instance(file)) == frozen
        assert f"-s{seed}-p{path}.npz" in file.name
    with pytest.raises(ValueError, match="classes: 'none' is none of"):
        list(write_instances(suite, tmp_path / "out", ["none"]))
    (tmp_path / "file").write_text("")
    with pytest.raises(FormatError, match="is a file, expected a folder"):
        list(write_instances(suite, tmp_path / "file"))


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["show", "smok"], "did you mean 'smoke'?"),
        (["get", "smoke"], "Missing option"),
        (["get", "smoke", "-o", "OUT", "--classes", "big"], "classes: 'big' is none of tiny"),
        (["check", "nosuch"], "no such file"),
        (["check", "smoke", "--best-known", "none.json"], "none.json: no such file"),
        (["submit", "smoke/tiny", "tiny.npz", "--by", "me"], "expected SUITE/CLASS/SEED"),
        (["submit", "smoke/tiny/99", "tiny.npz", "--by", "me"], "has no such instance"),
        (["submit", "smoke/big/0", "tiny.npz", "--by", "me"], "has the classes tiny"),
        (["submit", "smoke/tiny/0", "none.npz", "--by", "me"], "none.npz: no such file"),
    ],
)
def test_bad_words(
    args: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """One line, exit code 2."""
    words = [str(tmp_path) if arg == "OUT" else arg for arg in args]
    monkeypatch.setattr("sys.argv", ["finecast", "suites", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert says in said


def test_commands(
    tmp_path: Path, frozen: Path, known: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """List, show, check and submit, for people and as JSON."""

    def said(*words: str, code: int = 0) -> str:
        monkeypatch.setattr("sys.argv", ["finecast", "suites", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code
        return capsys.readouterr().out

    listed = {row["name"]: row for row in json.loads(said("--json"))["suites"]}
    assert listed["smoke"]["instances"] == 8
    assert "smoke" in said()
    (one, _) = json.loads(said("show", str(frozen), "--best-known", str(known), "--json"))[
        "instances"
    ]
    assert one["name"] == "two/tiny/0"
    assert np.isfinite(one["gap"])
    assert said("check", str(frozen), "--best-known", str(known)) == ""
    instance = draw(read_suite("smoke"), read_suite("smoke").classes[0], 0).instance
    write_solution(tmp_path / "s.npz", solve(instance, "greedy").solution)
    new = tmp_path / "new.json"
    words = ["submit", "smoke/tiny/0", str(tmp_path / "s.npz"), "--by", "greedy", "--best-known"]
    assert "entered in" in said(*words, str(new))
    assert said("check", "smoke", "--best-known", str(new)) == ""
    entries = json.loads(new.read_text())
    next(iter(entries["instances"].values()))["delay"] /= 2
    new.write_text(json.dumps(entries))
    faulty = json.loads(said("check", "smoke", "--best-known", str(new), "--json", code=1))
    assert "best known is" in faulty["faults"][0]
