"""Whatever is for one area refuses an instance of several in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from finecast.cli.main import cli
from finecast.learners.world.draws import check_instance
from finecast.problem.instance import write_instance
from finecast.problem.scenario import read_scenario
from finecast.solvers.prepared import prepare
from finecast.solvers.registry import methods
from finecast.solvers.solve import solve

APART = replace(read_scenario("tiny").generate(0), areas=np.array([0, 1]))


@pytest.mark.parametrize("name", [m.name for m in methods().values() if not m.areas])
def test_methods_of_one_area(name: str) -> None:
    """Every registered method either says that it solves areas, or refuses them at once."""
    with pytest.raises(ValueError, match=f"^areas: the instance has 2, method '{name}' is for one"):
        solve(APART, name, time_limit=0.0)


def test_rates_and_learners_of_one_area() -> None:
    """The doors beside `solve`: rate tables, what learners play."""
    for refuse, what in (
        (lambda: prepare(APART), "this computation of rates"),
        (lambda: check_instance(APART, "instance"), r"what a learner trains on \(instance\)"),
    ):
        with pytest.raises(ValueError, match=f"^areas: the instance has 2, {what} is for one area"):
            refuse()


@pytest.mark.parametrize(
    ("command", "asked"),
    [("solve", ["--method", "exact"]), ("solve", ["--restrict", "no-comp"]),
     ("bound", ["--set", "restrict=no-comp"])],
)  # fmt: skip
def test_the_command_line_says_it_in_one_line(
    command: str, asked: list[str], tmp_path: Path
) -> None:
    """Bad input: the message goes up to `main`, which makes one line and exit code 2 of it."""
    write_instance(tmp_path / "i.npz", APART)
    result = CliRunner().invoke(cli, [command, str(tmp_path / "i.npz"), *asked])
    assert isinstance(result.exception, ValueError)
    assert "areas: the instance has 2" in str(result.exception)
