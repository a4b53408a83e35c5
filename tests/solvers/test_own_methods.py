"""A user's own functions, classes and objects as methods, and own instance files in suites."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import finecast
from finecast.compare.runs.runner import run_suite
from finecast.compare.runs.suite import read_suite, suite_from
from finecast.problem.arrays import BoolArray
from finecast.problem.decisions import rows
from finecast.problem.files import FormatError
from finecast.problem.instance import Instance
from finecast.solvers.heuristics.popularity import Popular
from finecast.solvers.own_methods import source_digest
from finecast.solvers.placement.greedy import greedy_placement
from finecast.solvers.placement.problem import Placement, PlacementProblem

MINE = '''
import numpy as np

def nothing(problem):
    """Cache nothing."""
    return np.zeros((problem.nodes, problem.blocks), dtype=bool)

def wrong_shape(problem):
    return np.zeros((1, 1), dtype=bool)

number = 3
'''


@pytest.fixture
def tiny() -> Instance:
    return finecast.read_scenario("tiny").generate(0)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a module of the user's, as the current one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    file = tmp_path / f"{name}.py"
    file.write_text(MINE)
    return file


def test_a_function_that_returns_a_placement_is_a_method(tiny: Instance) -> None:
    def same_as_greedy(problem: PlacementProblem) -> Placement:
        """Do as greedy does."""
        return greedy_placement(problem)

    own, greedy = finecast.solve(tiny, same_as_greedy), finecast.solve(tiny, "greedy")
    assert own.method == "same_as_greedy"
    assert own.delay == greedy.delay
    assert own.lower_bound == greedy.lower_bound


def test_a_function_may_return_what_every_node_caches(tiny: Instance) -> None:
    def fill(problem: PlacementProblem, *, share: float = 1.0) -> BoolArray:
        """Fill in the order of the blocks."""
        held = np.zeros((problem.nodes, problem.blocks), dtype=bool)
        for n, storage in enumerate(problem.storage):
            held[n] = np.cumsum(problem.block_size) <= share * storage
        return held

    full, empty = finecast.solve(tiny, fill), finecast.solve(tiny, fill, share=0.0)
    assert full.solution is not None
    assert empty.solution is not None
    assert full.solution.cache.any()
    assert not empty.solution.cache.any()
    assert full.delay >= full.lower_bound
    with pytest.raises(ValueError, match="'shares' is unknown"):
        finecast.solve(tiny, fill, shares=0.5)


def test_too_full_a_cache_is_the_judges_matter(tiny: Instance) -> None:
    def everything(problem: PlacementProblem) -> BoolArray:
        return np.ones((problem.nodes, problem.blocks), dtype=bool)

    with pytest.raises(ValueError, match=r"storage|cache"):
        finecast.solve(tiny, everything)


def test_policies_are_methods_as_classes_and_as_objects(tiny: Instance) -> None:
    by_name = finecast.solve(tiny, "popular")
    assert finecast.solve(tiny, Popular).delay == by_name.delay
    policy = Popular()
    assert [finecast.solve(tiny, policy).delay for _ in range(2)] == [by_name.delay] * 2


@pytest.mark.parametrize("given", [3, None, Instance, object()])
def test_what_is_no_method_is_refused(tiny: Instance, given: Any) -> None:
    with pytest.raises(ValueError, match="is not allowed, must be a function"):
        finecast.solve(tiny, given)


def test_functions_of_the_wrong_kind_are_refused(tiny: Instance) -> None:
    with pytest.raises(ValueError, match="expected 1 to 3"):
        finecast.solve(tiny, lambda: None)
    with pytest.raises(ValueError, match="returned"):
        finecast.solve(tiny, lambda problem: np.zeros((1, 1), dtype=bool))


def test_code_is_found_by_name(tiny: Instance, mine: Path) -> None:
    found = finecast.solve(tiny, f"{mine.stem}:nothing")
    assert found.method == f"{mine.stem}:nothing"
    assert found.solution is not None
    assert not found.solution.cache.any()
    for name, message in (("lacks", "AttributeError"), ("number", "must be a function")):
        with pytest.raises(ValueError, match=message):
            finecast.solve(tiny, f"{mine.stem}:{name}")
    with pytest.raises(ValueError, match="cannot be imported"):
        finecast.solve(tiny, "no_such_module_here:f")


def test_an_edited_method_is_run_again(tiny: Instance, mine: Path, tmp_path: Path) -> None:
    finecast.write_instance(tmp_path / "a.npz", tiny)
    name = f"{mine.stem}:nothing"
    table = {
        "name": "files",
        "methods": [{"method": name}],
        "classes": [{"name": "files", "files": ["*.npz"]}],
    }
    before = source_digest(name)
    done = [run_suite(suite_from(table, tmp_path / "s.toml"), tmp_path / "out").done for _ in "ab"]
    assert done == [1, 0]
    mine.write_text(MINE + "\n# another\n")
    assert source_digest(name) != before
    again = run_suite(suite_from(table, tmp_path / "s.toml"), tmp_path / "out")
    assert again.done == 1
    assert source_digest("greedy") == ""


def test_a_suite_file_runs_no_code(tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        'name = "s"\nmethods = [{method = "os:getcwd"}]\nclasses = [{name = "x", files = ["a"]}]\n'
    )
    with pytest.raises(FormatError, match="names code"):
        read_suite(file)


def test_files_have_numbers_that_stay(tmp_path: Path) -> None:
    scenario = finecast.read_scenario("tiny")
    for seed in (1, 2):
        finecast.write_instance(tmp_path / f"b{seed}.npz", scenario.generate(seed))
    table = {
        "name": "files",
        "methods": [{"method": "lru"}],
        "classes": [{"name": "mine", "files": ["*.npz"]}],
    }
    suite = suite_from(table, tmp_path / "s.toml")
    two = suite.files_of(suite.classes[0])
    finecast.write_instance(tmp_path / "a.npz", scenario.generate(0))
    three = suite.files_of(suite.classes[0])
    assert [path.name for path in three.values()] == ["a.npz", "b1.npz", "b2.npz"]
    assert set(two) < set(three)
    finecast.write_instance(tmp_path / "c.npz", scenario.generate(0))
    with pytest.raises(FormatError, match="the same instance"):
        suite.files_of(suite.classes[0])
    with pytest.raises(FormatError, match="not with seeds"):
        suite_from({**table, "classes": [{"name": "x", "files": ["a"], "seeds": [1]}]}, tmp_path)


def test_decisions_as_rows(tiny: Instance, tmp_path: Path) -> None:
    solution = finecast.solve(tiny, "greedy").solution
    assert solution is not None
    messages, cached = rows(solution), rows(solution, "cache")
    assert len(cached) == solution.cache.sum()
    assert len(rows(solution, "migrations")) == solution.received.sum()
    assert sum(row["seconds"] for row in messages) == pytest.approx(
        sum(broadcast.duration.sum() for broadcast in solution.broadcasts)
    )
    sent = {(row["slot"], j, k) for row in messages for j in row["blocks"] for k in row["users"]}
    needed = {(t, j, k) for t, k, j in np.argwhere(tiny.wanted).tolist()}
    assert needed <= sent
    with pytest.raises(ValueError, match="what"):
        rows(solution, "beams")  # type: ignore[arg-type]

    # The same from the file, by the command; and a search may start from it.
    finecast.write_instance(tmp_path / "a.npz", tiny)
    finecast.write_solution(tmp_path / "s.npz", solution)
    command = [sys.executable, "-c", "from finecast.cli.main import main; main()"]
    shown = subprocess.run(
        [*command, "show", str(tmp_path / "s.npz"), "--json"], capture_output=True, check=True
    )
    assert json.loads(shown.stdout)["decisions"]["messages"] == messages
    solved = subprocess.run(
        [*command, "solve", str(tmp_path / "a.npz"), "--start", str(tmp_path / "s.npz"), "--json"],
        capture_output=True,
        check=True,
    )
    assert json.loads(solved.stdout)["delay"] <= finecast.solve(tiny, "greedy").delay


def test_frames_say_what_they_need(tiny: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    solution = finecast.solve(tiny, "greedy").solution
    assert solution is not None
    for name in ("pandas", "polars"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match="pip install pandas"):
        solution.to_frame()


def test_notebooks_show_tables_without_markup(tiny: Instance) -> None:
    result = finecast.solve(tiny, "greedy")
    for shown in (tiny, result.solution, result):
        html = shown._repr_html_()  # type: ignore[union-attr]
        assert html.startswith("<table>")
        assert len(repr(shown)) < 300  # names and sizes, not arrays
    from dataclasses import replace

    assert "<script>" not in replace(tiny, name="<script>")._repr_html_()


def test_everything_plots_itself(tiny: Instance) -> None:
    """A picture is shown as PNG where nothing else draws it; without a solution there is none."""
    from dataclasses import replace

    result = finecast.solve(tiny, "greedy")
    assert result.solution is not None
    of_all = [result.plot(tiny), result.solution.plot(tiny), tiny.plot(result.solution)]
    pictures = [figure._repr_png_() for figure in of_all]
    assert pictures[0].startswith(b"\x89PNG")
    assert pictures == [pictures[0]] * 3
    assert tiny.plot()._repr_png_() != pictures[0]
    with pytest.raises(ValueError, match="greedy has no solution to draw"):
        replace(result, solution=None).plot(tiny)
