"""Shipped files: by name and by path, from any folder; what lies here comes first."""

from __future__ import annotations

import shutil

import pytest
from repository import DATA, SCENARIOS

from finecast.compare.runs.suite import draw, instance_hash, read_suite
from finecast.learners.policy import load_policy
from finecast.learners.runs.warm_start import read_start
from finecast.problem.files import FormatError
from finecast.problem.library import read_library
from finecast.problem.scenario import read_scenario
from finecast.problem.shipped import find, shipped


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Work in a folder that holds nothing."""
    monkeypatch.chdir(tmp_path)


def test_readers_take_names():
    """A name gives what the path in the checkout gives; a path from `data/` works anywhere."""
    tiny = read_scenario(SCENARIOS / "tiny.toml")
    for same in ("tiny", "data/scenarios/tiny.toml"):
        assert read_scenario(same).model_dump() == tiny.model_dump()
    assert read_scenario("tiny").generate(3).content_hash == tiny.generate(3).content_hash
    sub = SCENARIOS / "learning" / "persist-60.toml"
    assert read_scenario("learning/persist-60").model_dump() == read_scenario(sub).model_dump()
    by_path = read_library(DATA / "libraries" / "vision.json")
    assert read_library("vision").content_hash == by_path.content_hash
    smoke = read_suite(DATA / "suites" / "smoke.toml")
    assert read_suite("smoke").model_dump() == smoke.model_dump()
    assert read_suite("smoke")._hashes == smoke._hashes != {}


def test_checkpoints_by_name():
    """A policy to play and a policy to start from are found in the same way."""
    _, by_name = load_policy("dcg")
    _, by_path = load_policy("data/checkpoints/dcg")
    assert (by_name.learner, by_name.step) == (by_path.learner, by_path.step) == ("dcg", 160)
    options = load_policy("maasn-da")[1].options
    start = read_start("maasn-da", "maasn-da", type("Options", (), dict(options)))
    assert start.header.parent.name == "maasn-da"


def test_files_that_name_files(tmp_path):
    """A scenario names a shipped library, a suite a shipped scenario; a file beside them wins."""
    (tmp_path / "mine").mkdir()
    mine = tmp_path / "mine" / "mine.toml"
    mine.write_text('library.file = "vision"\nnodes.storage_gb = 1\nusers.count = 2\n')
    vision = read_library(DATA / "libraries" / "vision.json")
    assert read_scenario(mine).generate(0).library.content_hash == vision.content_hash

    suite = tmp_path / "mine" / "suite.toml"
    suite.write_text(
        'name = "own"\nscenario.base = "tiny"\nmethods = [{ method = "lru" }]\n'
        'classes = [{ name = "one", seeds = [0] }]\n'
    )
    drawn = draw(read_suite(suite), read_suite(suite).classes[0], 0)
    assert drawn.hash == instance_hash(read_scenario("tiny").generate(0))  # the name set aside
    shutil.copy(mine, tmp_path / "mine" / "tiny")
    assert draw(read_suite(suite), read_suite(suite).classes[0], 0).instance.users == 2


def test_what_is_here_wins(tmp_path):
    """A file or folder of that name is taken, not the shipped one; `data` as a folder of mine too.

    In a folder `data` that lacks the file the shipped one is found all the same.
    """
    (tmp_path / "dcg").mkdir()
    assert find("dcg", "checkpoint").resolve() == (tmp_path / "dcg").resolve()
    (tmp_path / "data" / "scenarios").mkdir(parents=True)
    assert find("data/scenarios/tiny.toml").read_bytes() == (SCENARIOS / "tiny.toml").read_bytes()
    own = tmp_path / "data" / "scenarios" / "tiny.toml"
    own.write_text("")
    assert find("data/scenarios/tiny.toml").resolve() == own.resolve()
    assert find("tiny", "scenario").read_bytes() == (SCENARIOS / "tiny.toml").read_bytes()


@pytest.mark.parametrize(
    ("name", "kinds", "words"),
    [
        ("tyni", ("scenario",), "did you mean 'tiny'?"),
        ("persist-60", ("scenario",), "did you mean 'learning/persist-60'?"),
        ("data/scenarios/tinny.toml", ("scenario",), "did you mean 'tiny'?"),
        ("smoek", ("suite",), "did you mean 'smoke'?"),
        ("dcgg", ("checkpoint",), "did you mean 'dcg'?"),
        (
            "zzz",
            ("checkpoint",),
            "nor a shipped checkpoint: dcg, delayed, hindsight, local, maasn-da",
        ),
        ("data/none.json", (), "here or among the shipped files"),
        ("smoke", ("scenario",), "no such file"),
        ("/tiny", ("scenario",), "no such file"),
    ],
)
def test_unknown_names(name, kinds, words):
    """One line with the name as given and the nearest shipped one of that kind."""
    with pytest.raises(FormatError) as refused:
        find(name, *kinds)
    message = str(refused.value)
    assert message.startswith(f"{name}: no such file")
    assert words in message
    assert "\n" not in message


def test_every_name_is_found():
    """Each kind lists what lies in its folder, and each listed name is found."""
    trained = {"dcg", "delayed", "hindsight", "local", "maasn-da"}
    assert set(shipped("learner")) == trained == set(shipped("checkpoint"))
    assert {"tiny", "vision", "llm", "modern"} == set(shipped("library"))
    assert len(shipped("scenario")) == len(list(SCENARIOS.rglob("*.toml")))
    for kind in ("scenario", "library", "suite", "learner", "checkpoint"):
        for name, path in shipped(kind).items():
            assert find(name, kind) == path
            assert path.exists()
