"""Sweeps: grids of scenario values as classes of a suite, and their rows."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finecast.compare.runs.grid import LONGEST_NAME, expanded, parse_axis
from finecast.compare.runs.store import read_records
from finecast.compare.runs.suite import (
    Suite,
    changed,
    instance_hash,
    read_suite,
    scenario_of,
    suite_from,
)
from finecast.compare.runs.sweep import run_sweep
from finecast.problem.files import FormatError
from finecast.problem.scenario import placed, read_scenario, scenario_settings

VARY = {"nodes.storage_share": [0.2, 0.5], "users.count": [2, 3]}


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("nodes.storage_gb=1,2,4.5", "nodes.storage_gb", [1, 2, 4.5]),
        ("channel.los=los, nlos", "channel.los", ["los", "nlos"]),
        ("links.backhaul_gbps=[1,2],[3,4]", "links.backhaul_gbps", [[1, 2], [3, 4]]),
        ("nodes.storage_share=null", "nodes.storage_share", [None]),
        ("nodes.layout=square", "nodes.layout", ["square"]),
    ],
)
def test_axes_are_read(text: str, key: str, values: list[object]) -> None:
    assert parse_axis(text) == (key, values)


@pytest.mark.parametrize(
    "text", ["nodes.count", "=1", "a=", "a=1,,2", "a=1,1", "a=x,x", "a=[1],[1]"]
)
def test_bad_axes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="--vary"):
        parse_axis(text)


numbers = st.lists(st.integers(1, 50), min_size=1, max_size=4, unique=True)


@given(numbers, numbers)
def test_a_grid_has_every_point_once_and_names_tell_points_apart(
    a: list[int], b: list[int]
) -> None:
    table = {
        "sweep": [{"vary": "users.count", "values": a}, {"vary": "slots", "values": b}],
        "classes": [{"name": "one"}, {"name": "two"}],
    }
    classes = expanded(table)["classes"]
    points = [(c["point"]["users.count"], c["point"]["slots"]) for c in classes]
    assert sorted(points) == sorted([(x, y) for x in a for y in b] * 2)
    assert len({c["name"] for c in classes}) == len(classes)
    again = expanded({**table, "classes": classes})
    assert again["classes"] == classes


def test_long_values_are_told_by_number() -> None:
    lists = [[float(i + j) for j in range(40)] for i in range(3)]
    axes = [{"vary": "nodes.storage_gb", "values": lists}]
    classes = expanded({"sweep": axes, "classes": [{"name": "x"}]})["classes"]
    assert [len(c["name"]) <= LONGEST_NAME for c in classes] == [True] * 3
    assert len({c["name"] for c in classes}) == 3


def test_a_value_is_placed_and_the_rest_stays() -> None:
    table = {"nodes": {"storage_share": 0.4, "count": 2}, "library": {"synthetic": {"models": 3}}}
    found = placed(table, "nodes.storage_gb", 2)
    assert found["nodes"] == {"count": 2, "storage_gb": 2}
    assert placed(table, "library.synthetic.blocks", 9)["library"]["synthetic"] == {
        "models": 3,
        "blocks": 9,
    }
    assert table["nodes"] == {"storage_share": 0.4, "count": 2}
    with pytest.raises(ValueError, match="has no values of its own"):
        placed({"slots": 3}, "slots.x", 1)


def test_settings_of_a_scenario_are_told_from_options() -> None:
    found = scenario_settings({"users.count": 6, "slots": 2, "keep": "joint", "options.width": 3})
    assert found == ({"users.count": 6, "slots": 2}, {"keep": "joint", "options.width": 3})
    with pytest.raises(ValueError, match=r"'userz\.count' is unknown; did you mean 'users'\?"):
        scenario_settings({"userz.count": 6})


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("sweep") / "out"
    run_sweep("tiny", VARY, folder, methods=["greedy", "lru"], seeds=[0, 1])
    return folder


def test_rows_have_their_point(swept: Path) -> None:
    records = read_records(swept)
    assert len(records) == 4 * 2 * 2
    for record in records:
        point = json.loads(str(record.point))
        assert set(point) == set(VARY)
        assert all(value in VARY[key] for key, value in point.items())
    # The judge's instance is the one of the point.
    changes = {"nodes.storage_share": 0.5, "users.count": 2, "nested": True}
    scenario = read_scenario("tiny").with_(changes)
    instance = scenario.generate(1)
    hashes = {
        r.instance_hash
        for r in records
        if json.loads(str(r.point)) == {"nodes.storage_share": 0.5, "users.count": 2}
        and r.instance_seed == 1
    }
    assert hashes == {instance_hash(instance)}


def test_a_sweep_goes_on_and_takes_more_values(swept: Path) -> None:
    again = run_sweep("tiny", VARY, swept, methods=["greedy", "lru"], seeds=[0, 1])
    assert (again.asked, again.known, again.done) == (16, 16, 0)
    more = run_sweep(
        "tiny", {**VARY, "users.count": [2, 4]}, swept, methods=["greedy"], seeds=[0, 1]
    )
    assert (more.asked, more.known, more.done) == (8, 4, 4)


def test_a_sweep_of_a_changed_scenario_is_refused(tmp_path: Path) -> None:
    text = read_scenario("tiny").file.read_text()
    library = read_scenario("tiny").file.parent.parent / "libraries" / "tiny.json"
    text = text.replace("../libraries/tiny.json", str(library))
    file, folder = tmp_path / "mine.toml", tmp_path / "out"
    file.write_text(text)
    run_sweep(file, {"users.count": [2]}, folder, methods=["lru"])
    file.write_text(text.replace("inter_site_distance_m = 300.0", "inter_site_distance_m = 310.0"))
    with pytest.raises(FormatError, match=r"edited|another"):
        run_sweep(file, {"users.count": [2]}, folder, methods=["lru"])


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({"nodes.storag_gb": [1]}, "did you mean 'storage_gb'"),
        ({"users.count": [0]}, "users.count: 0"),
        ({}, "vary: is empty"),
        ({"nodes.count": []}, "sweep"),
        ({"NODES": [1]}, "sweep.0.vary"),
    ],
)
def test_bad_sweeps_are_refused_before_anything_runs(
    tmp_path: Path, vary: dict[str, list[object]], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_sweep("tiny", vary, tmp_path / "out", methods=["lru"])
    assert not (tmp_path / "out").exists()


def test_a_suite_may_have_a_sweep(tmp_path: Path) -> None:
    table = {
        "name": "mine",
        "methods": [{"method": "lru"}],
        "sweep": [{"vary": "users.count", "values": [2, 3]}],
        "classes": [{"name": "tiny", "scenario": {"base": "tiny"}, "seeds": "0-1"}],
    }
    suite = suite_from(table, tmp_path / "mine.toml")
    assert [one.name for one in suite.classes] == ["tiny users.count=2", "tiny users.count=3"]
    assert [scenario_of(suite, one).users.count for one in suite.classes] == [2, 3]
    with pytest.raises(FormatError, match="varied twice"):
        suite_from({**table, "sweep": table["sweep"] * 2}, tmp_path / "mine.toml")


def test_changed_suites_say_so_and_have_no_frozen_hashes() -> None:
    suite: Suite = read_suite("smoke")
    other = changed(suite, {"users.count": 2})
    assert [one.name for one in other.classes] == [
        "tiny users.count=2",
        "n3-j12-t2 users.count=2",
    ]
    assert all(scenario_of(other, one).users.count == 2 for one in other.classes)
    assert other.frozen_hash(other.classes[0], 0) is None
    assert changed(suite, {}) is suite
