"""The command line on areas: what `generate`, `show` and `evaluate` say of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from area_plans import cloud_plan
from click.testing import CliRunner

from finecast.cli.main import cli
from finecast.problem.evaluation import evaluate
from finecast.problem.instance import read_instance
from finecast.problem.solution import read_solution, write_solution

SCENARIO = """
library.file = "tiny"
users.count = 12
nodes = { count = 6, antennas = 2, areas = 2 }
channel.error = 0.05
"""


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Return a folder with a scenario, its instance of three areas, and a plan."""
    (tmp_path / "s.toml").write_text(SCENARIO)
    said = run("generate", str(tmp_path / "s.toml"), "-o", str(tmp_path / "i.npz"))
    assert "seed 0  3 areas of 2 nodes  " in said
    plan = cloud_plan(read_instance(tmp_path / "i.npz"), wide_from=3)
    write_solution(tmp_path / "p.npz", plan)
    return tmp_path


def run(*arguments: str) -> str:
    """Return what a command prints; it must end well."""
    result = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_instances_say_their_areas(files: Path) -> None:
    """How many, of which nodes, with how many users; nothing of it where there is one area."""
    said = run("show", str(files / "i.npz"))
    assert "3 areas of 2 nodes" in said
    for area in range(3):
        assert f"area {area} " in said
    found = json.loads(run("show", str(files / "i.npz"), "--json"))
    assert sorted(n for nodes in found["areas"] for n in nodes) == list(range(6))
    assert sum(found["area_users"][0]) == 12
    assert "area" not in run("show", "tiny")
    drawn = json.loads(run("generate", str(files / "s.toml"), "-o", str(files / "j.npz"), "--json"))
    assert drawn["instances"][0]["areas"] == 3


def test_solutions_say_what_goes_wide(files: Path) -> None:
    """Messages that go wide, and those that stay in an area."""
    found = json.loads(run("show", str(files / "p.npz"), "--json"))
    area = read_solution(files / "p.npz").broadcasts[0].area
    assert found["wide_messages"] == (area < 0).sum() > 0
    assert found["local_messages"] == (area >= 0).sum() > 0
    assert found["areas_that_send"] == len(set(area[area >= 0]))


def test_the_judge_says_what_areas_wait_for(files: Path) -> None:
    """The longest area, the interference over the noise, the share of bytes that go wide."""
    said = run("evaluate", str(files / "i.npz"), str(files / "p.npz"))
    for row in ("areas", "the longest", "interference", "dB over the noise", "sent wide"):
        assert row in said
    found = json.loads(run("evaluate", str(files / "i.npz"), str(files / "p.npz"), "--json"))
    judged = evaluate(read_instance(files / "i.npz"), cloud_plan(read_instance(files / "i.npz"), 3))
    assert found["delay"] == pytest.approx(judged.delay)
    assert found["wide_share"] == pytest.approx(judged.wide_share)
    assert len(found["area_delay"][0]) == 3


def test_large_areas_are_told(tmp_path: Path) -> None:
    """An area of more nodes than methods keep all sets of is no mistake, but a note."""
    (tmp_path / "s.toml").write_text(
        SCENARIO.replace("count = 6", "count = 18").replace("areas = 2", "areas = 9")
    )
    said = run("generate", str(tmp_path / "s.toml"), "-o", str(tmp_path / "i.npz"))
    assert "note: area 0 has 9 nodes, more than the 8" in said
    assert "area 0 has 9 nodes" in " ".join(run("show", str(tmp_path / "i.npz")).split())
