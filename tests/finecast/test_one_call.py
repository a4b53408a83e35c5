"""One call each for Python users: run a suite, write a report."""

from __future__ import annotations

import json

import pytest

import finecast
from finecast.compare.report.comparison import Comparison
from finecast.problem.files import FormatError

TINY = """
name = "own"
scenario.base = "tiny"
scenario.slots = 2
time_limit_s = 5
methods = [{ method = "lru" }, { method = "lfu", label = "often", options = { decay = 0.9 } }]
classes = [{ name = "a", seeds = [0, 1] }, { name = "b", seeds = [2], methods = ["lru"] }]
"""


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """Give the file of a suite with 5 runs."""
    path = tmp_path_factory.mktemp("suite") / "own.toml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="module")
def ran(suite, tmp_path_factory):
    """Give what running it has come to, with what the callback was told."""
    told = []
    folder = tmp_path_factory.mktemp("results") / "rows"
    return finecast.run_suite(suite, folder, callback=told.append), told


def test_run_suite(ran):
    """Two methods on two instances and one on a third: five records, all told of."""
    runs, told = ran
    assert (runs.asked, runs.known, runs.done) == (5, 0, 5)
    assert {(r.label, r.instance_class, r.instance_seed) for r in runs.records} == {
        ("lru", "a", 0), ("lru", "a", 1), ("lru", "b", 2), ("often", "a", 0), ("often", "a", 1),
    }  # fmt: skip
    assert all(record.status == "completed" for record in runs.records)
    record = next(r for r in runs.records if (r.label, r.instance_seed) == ("lru", 2))
    instance = finecast.read_scenario("tiny").with_(slots=2).generate(2)
    assert record.delay == finecast.solve(instance, "lru").delay
    assert [(p.stage, p.done, p.total) for p in told] == [
        *(("drawing instances", i, 3) for i in (1, 2, 3)),
        *(("runs", i, 5) for i in range(6)),
    ]


def test_run_suite_goes_on(ran, suite):
    """Again, from a Suite: nothing is done twice; what is chosen and missing is done."""
    runs, _ = ran
    again = finecast.run_suite(finecast.read_suite(suite), runs.folder)
    assert (again.asked, again.known, again.done) == (5, 5, 0)
    assert again.records == runs.records
    more = finecast.run_suite(
        suite, runs.folder, methods=["often", "popular"], options={"schedule": "pipelined"},
        classes=["a"], instances=[1], seeds=[4],
    )  # fmt: skip
    assert (more.asked, more.known, more.done) == (2, 0, 2)
    assert {(r.label, r.method, r.schedule, r.seed) for r in more.records} == {
        ("often schedule=pipelined", "lfu", "pipelined", 4),
        ("popular schedule=pipelined", "popular", "pipelined", 4),
    }
    assert {r.options for r in more.records} == {'{"decay":0.9}', "{}"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"methods": ["lruu"]}, "lruu"),
        ({"options": {"decai": 1}}, "option 'decai' is unknown to 'lru'"),
        ({"options": {"schedule": "piped"}}, "schedule: 'piped'"),
        ({"classes": ["c"]}, "classes: 'c' is none of a, b"),
        ({"instances": [9]}, "seed 9"),
        ({"time_limit_s": 0.0}, "time_limit_s: 0.0 is not allowed, must be finite and > 0"),
        ({"scheduler": "tcp://host:1"}, "scheduler: is for engine dask"),
    ],
)
def test_run_suite_refuses(suite, tmp_path, options, words):
    """One line that names what is wrong, before any run."""
    with pytest.raises(ValueError, match=words) as caught:
        finecast.run_suite(suite, tmp_path / "rows", **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("rows/records/*"))


def test_unknown_suite(tmp_path):
    """A name that is near a shipped one."""
    with pytest.raises(FormatError, match="did you mean 'smoke'"):
        finecast.run_suite("smokee", tmp_path / "rows")


def test_write_report(ran, tmp_path):
    """A page that shows pictures and says what made it, and tables of what is chosen."""
    runs, _ = ran
    page = tmp_path / "page.html"
    what = finecast.write_report(runs.folder, page, classes=["a"], methods=["lru", "often"])
    text = page.read_text()
    assert what.answer[0] in text
    assert text.count('<img class="picture"') == 3
    assert f"finecast report {runs.folder} -o {page} --methods lru,often --classes a" in text
    finecast.write_report(
        runs.folder, tmp_path / "t.csv", form="csv", table="runs", methods=["lru"]
    )
    rows = (tmp_path / "t.csv").read_text().splitlines()
    assert len(rows) == 1 + 3
    finecast.write_report(runs.folder, tmp_path / "t.tex")
    assert (tmp_path / "t.tex").read_text().startswith("\\begin{t")


def test_best_known_bounds_reach_the_report(ran, tmp_path):
    """A bound of the file, by the hash of the suite, halves what separates a run from it."""
    runs, _ = ran
    record = next(r for r in runs.records if (r.label, r.instance_seed) == ("lru", 2))
    better = (record.delay + record.lower_bound) / 2

    def bounds(kind: str, bound: float = better) -> Comparison:
        entry = {
            "suite": "own", "instance_class": "b", "instance_seed": 2, "delay": None,
            "delay_from": None, "lower_bound": bound, "bound_from": {"bound_kind": kind},
        }  # fmt: skip
        file = tmp_path / f"{kind}.json"
        file.write_text(json.dumps({"format": "finecast-best-known", "version": 1,
                                    "instances": {record.instance_hash: entry}}))  # fmt: skip
        what = finecast.write_report(
            runs.folder, tmp_path / "t.csv", table="runs", best_known=file, classes=["b"]
        )
        return what.comparison

    known = bounds("certified")
    assert known.bound[record.solved_hash] == better
    assert bounds("milp").bound[record.solved_hash] == record.lower_bound
    assert bounds("milp").solver_bound[record.solved_hash] == better
    refuted = bounds("certified", 2 * record.delay)
    assert refuted.bound[record.solved_hash] == record.lower_bound
    assert "not believed" in refuted.doubted[0]
    with pytest.raises(FormatError, match="bound_kind: 'hearsay' is not allowed"):
        bounds("hearsay")


def test_write_report_refuses(ran, tmp_path):
    """No runs, an unknown method, a table of a page, an instance without a solution."""
    runs, _ = ran
    page = tmp_path / "page.html"
    for change, words in (
        ({"methods": ["x"]}, "'x'"),
        ({"table": "runs"}, "table: is for csv"),
        ({"instance": "zz"}, "instance: 'zz' has no solution"),
        ({"best_known": "none.json"}, "none.json: no such file"),
    ):
        with pytest.raises(ValueError, match=words):
            finecast.write_report(runs.folder, page, **change)
    with pytest.raises(FormatError, match="not a result folder"):
        finecast.write_report(tmp_path, page)
    assert not page.exists()
