"""What users install: one name in site-packages, shipped files found from anywhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from repository import ROOT

from finecast.problem.version import FINECAST_VERSION

SOLVE = (
    "import finecast; "
    "print(finecast.solve(finecast.read_scenario('tiny').generate(seed=0)).summary())"
)


def build(source: Path, target: Path) -> None:
    """Build a source archive and a wheel."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(target)],
        cwd=source,
        check=True,
        capture_output=True,
    )


def contents(wheel: Path) -> dict[str, int]:
    """Return the checksum of every file in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {item.filename: item.CRC for item in archive.infolist()}


@pytest.fixture(scope="session")
def dist(tmp_path_factory):
    """Give a folder with the source archive and the wheel."""
    target = tmp_path_factory.mktemp("dist")
    build(ROOT, target)
    return target


@pytest.fixture(scope="session")
def wheel(dist):
    """Give the path of the wheel."""
    [path] = dist.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    """Give a folder in which the wheel is installed."""
    target = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target",
         str(target), str(wheel)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return target


@pytest.fixture(params=["wheel", "checkout"])
def site(request):
    """Give what PYTHONPATH names: the installed wheel, or the checkout."""
    return request.getfixturevalue("installed") if request.param == "wheel" else ROOT


@pytest.fixture
def own(tmp_path):
    """Give a user's folder whose files have the names of our rooms."""
    for name in ("problem", "learners", "compare"):
        (tmp_path / f"{name}.py").write_text("MINE = True\n")
    (tmp_path / "solvers").mkdir()
    (tmp_path / "solvers" / "__init__.py").write_text("MINE = True\n")
    return tmp_path


def python(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with finecast from a site."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


def command(site: Path, folder: Path, *arguments: str) -> str:
    """Run the command line in a folder; return what it prints."""
    run = "from finecast.cli.main import main; main()"
    outcome = python(site, folder, "-c", run, *arguments)
    assert outcome.returncode == 0, outcome.stderr
    return outcome.stdout


def test_wheel_holds_one_package(wheel):
    """The top level is finecast and its metadata; each file stands there once, data included."""
    names = contents(wheel)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"finecast", f"finecast-{FINECAST_VERSION}.dist-info"}
    for path in ("problem/instance.py", "solvers/solve.py", "learners/policy.py",
                 "compare/report/page.py", "data/scenarios/tiny.toml",
                 "data/checkpoints/dcg/policy.json", "data/best_known.json"):  # fmt: skip
        assert f"finecast/{path}" in names
    templates = (ROOT / "compare" / "report" / "templates").iterdir()
    assert {f"finecast/compare/report/templates/{path.name}" for path in templates} <= set(names)


def test_source_archive_gives_the_same_wheel(dist, wheel, tmp_path):
    """A wheel made from the source archive has the same files, bit for bit."""
    [source] = dist.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(tmp_path, filter="data")
    build(tmp_path / source.name.removesuffix(".tar.gz"), tmp_path)
    [again] = tmp_path.glob("*.whl")
    assert contents(again) == contents(wheel)


def test_script_beside_files_of_our_names(site, own):
    """Beside a user's problem.py, solvers/, learners.py and compare.py finecast still solves.

    All rooms are imported, and the user's own modules keep their names.
    """
    outcome = python(site, own, "-c", SOLVE)
    assert outcome.returncode == 0, outcome.stderr
    assert "certified" in outcome.stdout
    script = own / "script.py"
    script.write_text(
        "import problem, solvers, learners, compare\n"
        "import finecast, finecast.problem.instance, finecast.solvers.spatial\n"
        "import finecast.learners.algorithms, finecast.compare.report.page\n"
        "assert problem.MINE and solvers.MINE and learners.MINE and compare.MINE\n"
        "print(finecast.__file__)\n"
    )
    outcome = python(site, own, "script.py")
    assert outcome.returncode == 0, outcome.stderr
    assert Path(outcome.stdout.strip()).parent == site / "finecast"


def test_beside_the_clone(tmp_path):
    """In the folder that holds the clone, `import finecast` finds the package and not the clone."""
    (tmp_path / "finecast").symlink_to(ROOT, target_is_directory=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    outcome = subprocess.run(
        [sys.executable, "-c", SOLVE],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "certified" in outcome.stdout


def test_old_import_paths_are_gone(installed, tmp_path):
    """`import problem` ends in the ordinary ImportError."""
    for name in ("problem", "solvers.solve", "learners", "compare", "finecast.shipped"):
        outcome = python(installed, tmp_path, "-c", f"import {name}")
        assert outcome.stderr.splitlines()[-1].startswith("ModuleNotFoundError: No module named")


def test_commands_from_any_folder(installed, own):
    """The README's commands work outside of the checkout: shipped files by path and by name."""
    command(installed, own, "generate", "data/scenarios/tiny.toml", "--seed", "3", "-o", "a.npz")
    shown = json.loads(command(installed, own, "show", "a.npz", "--json"))
    assert shown == {**json.loads(command(installed, own, "show", "tiny", "--seed", "3", "--json")),
                     "kind": "instance"}  # fmt: skip
    played = [
        json.loads(command(installed, own, "solve", "a.npz", "--method", "policy", "--set",
                           f"checkpoint={name}", "--json"))
        for name in ("data/checkpoints/dcg", "dcg")
    ]  # fmt: skip
    assert played[0]["feasible"]
    assert played[0]["delay"] == played[1]["delay"]
    bound = json.loads(command(installed, own, "bound", "tiny", "--seed", "3", "--json"))
    assert 0 < bound["lower_bound"] <= played[0]["delay"]
    compared = command(installed, own, "compare", "smoke", "-o", "rows", "--methods", "lru",
                       "--instances", "0", "--json")  # fmt: skip
    assert json.loads(compared)["status"].keys() == {"completed"}
    command(installed, own, "report", "rows", "-o", "page.html")
    assert (own / "page.html").stat().st_size > 10_000


def test_training_by_names(installed, own):
    """A learner's TOML, the scenario and the policy to start from are found by name."""
    text = command(
        installed, own, "train", "tiny", "--config", "maasn-da", "--steps", "1",
        "--set", "held_out=1", "--set", "source.draws=1", "--set", "source.augmentation=none",
        "--set", "warm_start=maasn-da", "-o", "run", "--json",
    )  # fmt: skip
    assert json.loads(text)["steps"] == 1
