"""The examples run as they stand, each in a process of its own, and say what they promise."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from repository import ROOT

EXAMPLES = ROOT / "examples"
FINECAST = "from finecast.cli.main import main; main()"


def run(*arguments: object, path: Path = ROOT) -> str:
    """Run Python with the packages at `path` and return what it printed."""
    outcome = subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{path}{os.pathsep}{ROOT}"},
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert outcome.stderr == ""
    return outcome.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return a folder with the plug-in as pip lays it out; pip itself would need the network."""
    folder = tmp_path_factory.mktemp("site")
    project = tomllib.loads((EXAMPLES / "plugin" / "pyproject.toml").read_text())
    about = project["project"]
    (package,) = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    shutil.copytree(EXAMPLES / "plugin" / package, folder / package)
    info = folder / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {about['name']}\nVersion: {about['version']}\n"
    )
    groups = [
        "\n".join([f"[{group}]", *(f"{name} = {target}" for name, target in points.items())])
        for group, points in about["entry-points"].items()
    ]
    (info / "entry_points.txt").write_text("\n".join(groups) + "\n")
    return folder


def test_solve_one_instance():
    """The judge agrees with the result after a round trip through files."""
    printed = run(EXAMPLES / "solve_one_instance.py")
    delay = re.search(r"guaranteed delay +(\S+) s", printed)
    again = re.search(r"judged from files (\S+) s, feasible: yes", printed)
    assert delay is not None
    assert again is not None
    assert delay[1] == again[1]


def test_own_checkpoints_and_network():
    """The shared trunk and stage are found by content: six blocks, not nine tensors.

    A trunk (all three), a stage (cats and dogs), a head for each model, and the stage of birds.
    A trunk of 256 x 256 float32 has 262144 bytes.
    """
    printed = run(EXAMPLES / "own_checkpoints_and_network.py")
    blocks = re.findall(r"block \S+: (\d+) bytes, in (.*)", printed)
    assert sorted(owners for _, owners in blocks) == [
        "birds", "birds", "birds, cats, dogs", "cats", "cats, dogs", "dogs",
    ]  # fmt: skip
    assert ("262144", "birds, cats, dogs") in blocks
    assert printed.count("above the optimum") == 2


def test_city_library(tmp_path):
    """Checkpoints a hundredth as large give the shipped library: same models and sharing."""
    from finecast.problem.library import read_library

    small = tmp_path / "small.json"
    said = run(EXAMPLES / "city_library.py", small, "--scale", "0.01")
    assert "12 models, 48 blocks" in said
    made = read_library(small)
    shipped = read_library(ROOT / "data/scenarios/city-center/library.json")
    assert made.model_names == shipped.model_names
    assert sorted(100 * made.model_size) == sorted(shipped.model_size)
    assert (made.model_blocks.sum(axis=0) == shipped.model_blocks.sum(axis=0)).all()


def test_compare_two_methods():
    """The interval holds the mean difference."""
    printed = run(EXAMPLES / "compare_two_methods.py", "popular", "random")
    found = re.search(r"([+-][\d.]+) % delay .*interval ([+-][\d.]+) to ([+-][\d.]+) %", printed)
    assert found is not None
    mean, low, high = map(float, found.groups())
    assert low <= mean <= high


def test_train_and_evaluate():
    """Two steps of training give a policy that is judged like the others, above the bound."""
    printed = run(EXAMPLES / "train_and_evaluate.py", "maasn-da", 2)
    assert "maasn-da: 2 steps" in printed
    gaps = dict(re.findall(r"(\w+): (-?[\d.]+) % above the bound", printed))
    assert gaps.keys() == {"policy", "rolling", "lru"}
    assert all(float(gap) >= 0 for gap in gaps.values())


def test_train_with_other_libraries():
    """PPO is trained and plays an episode; masks leave some choices."""
    printed = run(EXAMPLES / "train_with_other_libraries.py")
    assert "PPO trained for 512 steps" in printed
    assert float(re.search(r"delay of its episode: (\S+) s", printed)[1]) > 0
    assert 0 < int(re.search(r"(\d+) % of the choices", printed)[1]) < 100


def test_whole_study(tmp_path):
    """Each restriction costs delay, richer delivery saves some, no method beats the bound.

    Sharing: 6 trunks, 6 stages and 6 heads have 1.6, 1.6 and 2.4 MB each. Of these 1, 2 and 6 are
    distinct.
    """
    printed = run(EXAMPLES / "whole_study.py", tmp_path / "study")
    share = 1 - (1 * 1.6 + 2 * 1.6 + 6 * 2.4) / (6 * (1.6 + 1.6 + 2.4))
    assert f"6 models are 9 blocks; sharing saves {100 * share:.0f} %" in printed
    change = {
        name: float(value) for name, value in re.findall(r"(\S+): ([+-]\d+) % delay", printed)
    }
    assert change.keys() == {"coarse", "no-comp", "no-migration", "unicast", "pipelined"}
    assert change.pop("pipelined") < 0
    assert all(percent > 0 for percent in change.values())
    gaps = dict(re.findall(r"(\w+): (-?\d+) % above the bound", printed))
    assert gaps.keys() == {"rolling", "lru", "now", "dcg"}
    assert all(float(gap) >= 0 for gap in gaps.values())
    assert "All 16 runs brought a feasible solution." in printed
    page = (tmp_path / "study" / "report.html").read_text()
    assert "coarse-grained" in page
    assert (tmp_path / "study" / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_plugin_is_found_by_its_entry_point(installed):
    """An installed plug-in is listed, solves from the command line, and needs no change of ours."""
    listed = run("-c", FINECAST, "methods", "--json", path=installed)
    assert "every node keeps the blocks that arrived last" in listed
    solved = json.loads(
        run("-c", FINECAST, "solve", "data/scenarios/tiny.toml", "--method", "fifo", "--json",
            path=installed)
    )  # fmt: skip
    assert solved["method"] == "fifo"
    assert solved["feasible"]
    assert 0 < solved["lower_bound"] <= solved["delay"]


def test_plugin_passes_its_own_tests(installed):
    """The plug-in's test file runs every check of `finecast.testing` over it."""
    tests = EXAMPLES / "plugin" / "tests"
    printed = run("-m", "pytest", "-q", "-p", "no:cacheprovider", tests, path=installed)
    assert re.search(r"^1\d passed", printed, re.MULTILINE)


def test_own_heuristic():
    """Five lines, each with a delay and a gap of the heuristic and of `greedy`."""
    lines = run(EXAMPLES / "own_heuristic.py").splitlines()
    assert len(lines) == 5
    for line in lines:
        own, greedy = re.findall(r"([\d.]+) s, at most ([\d.]+)%", line)
        assert float(own[0]) > 0
        assert float(greedy[1]) < 50
