"""What the documentation tells people to type works as it stands."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

from finecast.testing import CHECKS

DOCS = ROOT / "docs"


def blocks(page: str, language: str) -> list[str]:
    """Return the code blocks of a page in one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)


def run(*arguments: str, cwd: Path) -> str:
    """Run Python in a folder and return what it printed."""
    outcome = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    return outcome.stdout


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """Return a folder with the scenario that the first page tells people to write."""
    folder = tmp_path_factory.mktemp("start")
    (scenario,) = blocks("start.md", "toml")
    (folder / "mine.toml").write_text(scenario)
    return folder


def test_first_page_in_python(mine):
    """The Python of the first page runs on the scenario of the first page."""
    (program,) = blocks("start.md", "python")
    delay, bound, gap, ratio = map(float, run("-c", program, cwd=mine).split())
    assert delay * (1 + 1e-9) >= bound > 0
    assert gap == pytest.approx(delay / bound - 1)
    assert ratio >= 1 - gap  # the online method cannot beat the bound


def test_first_page_commands(mine):
    """The commands of the first page run on its scenario; the picture is there."""
    commands = [
        shlex.split(line)[1:]
        for block in blocks("start.md", "sh")
        for line in block.splitlines()
        if "mine.toml" in line
    ]
    assert [command[0] for command in commands] == ["solve", "show"]
    for command in commands:
        run("-c", "from finecast.cli.main import main; main()", *command, cwd=mine)
    assert (mine / "mine.png").stat().st_size > 1000


def test_every_check_is_explained():
    """The page on adding a method has a row for each check, and for no other."""
    rows = re.findall(r"^\| (`check_.*?) \|", (DOCS / "add-a-method.md").read_text(), re.M)
    named = re.findall(r"check_\w+", " ".join(rows))
    assert named == [check.__name__ for check in CHECKS]
