"""Figures of sweeps and of training runs: points, intervals, files."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from commands import finecast

from finecast.compare.report import figure
from finecast.compare.report.comparison import compare_runs
from finecast.compare.report.figure import sweep_figure
from finecast.compare.report.paper_curves import curves_csv, learning_curves
from finecast.compare.report.sweep_charts import sweep_charts
from finecast.compare.report.write import write_report
from finecast.compare.runs.store import read_records
from finecast.compare.runs.sweep import run_sweep
from finecast.problem.files import FormatError


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("figure") / "out"
    vary = {"nodes.storage_share": [0.5, 0.2], "channel.los": ["nlos", "mixture"]}
    run_sweep("tiny", vary, folder, methods=["greedy", "lru"], seeds=[0, 1, 2])
    return folder


def test_points_are_means_over_instances(swept: Path) -> None:
    found = sweep_figure(swept)
    assert (found.key, found.panel_key) == ("nodes.storage_share", "channel.los")
    assert found.numeric
    assert len(found.points) == 2 * 2 * 2
    assert [p.x for p in found.points[:2]] == [0.2, 0.5]  # in numeric order
    records = read_records(swept)
    for point in found.points:
        at = {"nodes.storage_share": point.x, "channel.los": point.panel}
        delays = [
            float(str(r.delay))
            for r in records
            if json.loads(str(r.point)) == at and r.label == point.label
        ]
        assert len(delays) == point.value.count == 3
        assert point.value.value == pytest.approx(np.mean(delays), rel=1e-12)
        assert min(delays) * (1 - 1e-12) <= point.value.low <= point.value.value <= point.value.high
        assert point.value.high <= max(delays) * (1 + 1e-12)


def test_a_category_is_across_as_bars(swept: Path) -> None:
    found = sweep_figure(swept, x="channel.los", panels="nodes.storage_share")
    assert not found.numeric
    assert found.panel_key == "nodes.storage_share"
    chosen = sweep_figure(swept, where={"channel.los": "nlos"}, methods=["lru"])
    assert {p.label for p in chosen.points} == {"lru"}
    assert chosen.panel_key == ""


def test_runs_with_another_setting_are_not_mixed_in(
    swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep run again with `--set users.count=2` into the same folder has points of two sorts."""
    records = [r for r in read_records(swept) if "mixture" in str(r.point)]
    point = {**json.loads(str(records[0].point)), "users.count": 2}
    again = replace(records[0], point=json.dumps(point), instance_hash="0" * 64)
    monkeypatch.setattr(figure, "read_records", lambda _: [*records, again])
    with pytest.raises(ValueError, match=r"some runs are with users\.count=2 and others without"):
        sweep_figure(swept)
    assert len(sweep_figure(swept, where={"users.count": 2}).points) == 1
    found = sweep_figure(swept, where={"users.count": None})
    assert {p.value.count for p in found.points} == {3}


def test_the_report_has_the_figure(swept: Path, tmp_path: Path) -> None:
    """Delay and gap, a chart a panel, a point with its numbers for every one of the figure.

    The same folder gives the same bytes; a page of chosen classes has no sweep.
    """
    write_report(swept, tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert page.count('<svg class="chart" id="chart-sweep-delay-') == 2
    assert page.count('<svg class="chart" id="chart-sweep-gap_to_best-') == 2
    part = page.partition('id="chart-sweep-delay-0"')[2].partition("</svg>")[0]
    panel = [p for p in sweep_figure(swept).points if p.panel == "mixture"]
    for p in panel:
        v = p.value
        said = f"{p.label}, {p.x}: {v.value:.4g} ({v.low:.4g} to {v.high:.4g})"
        assert f"<title>{said}</title></circle>" in part
    assert part.count("<circle") == len(panel) == 4
    assert part.count('class="line"') == 2  # a number is swept: lines
    assert [text for text in (">0.2<", ">0.5<") if text in part] == [">0.2<", ">0.5<"]
    write_report(swept, tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == page
    one = next(str(r.instance_class) for r in read_records(swept))
    write_report(swept, tmp_path / "one.html", classes=[one])
    assert "chart-sweep" not in (tmp_path / "one.html").read_text()


def test_classes_stand_in_numeric_order(swept: Path) -> None:
    """Of a sweep over users 9 comes before 10, wherever classes are listed."""
    records = read_records(swept)[:2]
    named = [replace(records[0], instance_class=f"tiny users.count={n}") for n in (10, 2, 9)]
    named = [replace(r, key=str(i), instance_hash=str(i)) for i, r in enumerate(named)]
    found = compare_runs(named).classes
    assert found == tuple(f"tiny users.count={n}" for n in (2, 9, 10))


def test_categories_have_points_and_no_lines(swept: Path) -> None:
    """What is no number stands at equal distances, and nothing lies between."""
    found = sweep_figure(swept, x="channel.los", panels="nodes.storage_share")
    html = sweep_charts([found], {"greedy": 0, "lru": 1})
    assert html.count("<circle") == len(found.points)
    assert 'class="line"' not in html
    assert ">mixture</text>" in html


def test_gaps_are_percent_over_the_best_bound(swept: Path) -> None:
    for point in sweep_figure(swept, "gap_to_best").points:
        assert point.value.value == np.inf or point.value.value >= -1e-6


def test_a_point_without_an_answer_is_left_out_and_told(
    swept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sweep_figure(swept).notes == ()
    records = read_records(swept)
    lost = replace(records[0], delay=None, status="no-solution")
    monkeypatch.setattr(figure, "read_records", lambda _: [lost, *records[1:]])
    found = sweep_figure(swept)
    assert len(found.points) == 7
    assert [note for note in found.notes if lost.label in note and "1 of 3" in note]
    monkeypatch.setattr(figure, "read_records", lambda _: [lost])
    with pytest.raises(ValueError, match="no run has delay"):
        sweep_figure(swept)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "delays"}, "metric: 'delays' is unknown"),
        ({"x": "users.count"}, "x: 'users.count' is not varied"),
        ({"where": {"channel.los": "los"}}, "there are"),
        ({"methods": ["mpc"]}, "methods: 'mpc' is not there"),
    ],
)
def test_bad_figures_are_refused(swept: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sweep_figure(swept, **options)


def test_a_folder_without_a_sweep_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        sweep_figure(tmp_path)


@pytest.mark.parametrize("suffix", [".pdf", ".svg", ".png"])
def test_the_same_figure_twice_is_the_same_bytes(swept: Path, tmp_path: Path, suffix: str) -> None:
    files = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for file in files:
        ran = finecast("figure", swept, "-o", file)
        assert ran.returncode == 0, ran.stderr
    first, second = (file.read_bytes() for file in files)
    assert first == second
    if suffix == ".pdf":
        assert b"/FontFile2" in first or b"/Type0" in first  # texts stay texts


def test_csv_has_the_points(swept: Path, tmp_path: Path) -> None:
    file = tmp_path / "points.csv"
    assert finecast("figure", swept, "-o", file, "--metric", "wall_s").returncode == 0
    rows = list(csv.reader(io.StringIO(file.read_text())))
    assert rows[0] == ["channel.los", "nodes.storage_share", "method", "wall_s", "low", "high", "n"]
    assert len(rows) == 1 + 8


@pytest.mark.parametrize(
    "arguments",
    [("figure", "nowhere", "-o", "x.pdf"), ("figure", ".", "-o", "x.bmp"),
     ("sweep", "tiny", "--vary", "users.count=2", "--methods", "nothing", "-o", "out"),
     ("solve", "tiny", "--set", "users.cnt=2"),
     ("generate", "tiny", "-o", "x.npz", "--set", "a=1")],
)  # fmt: skip
def test_bad_input_is_one_line(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = finecast(*arguments)
    assert ran.returncode == 2
    assert ran.stderr.startswith("finecast: error: ")
    assert ran.stderr.count("\n") == 1
    assert not list(tmp_path.glob("x*"))


def training_run(folder: Path, seed: int, values: list[float], learner: str = "dcg") -> Path:
    folder.mkdir()
    header = {
        "format": "finecast-checkpoint",
        "learner": learner,
        "run": {"seed": seed, "steps": 9},
    }
    (folder / "policy.json").write_text(json.dumps(header))
    rows = [{"step": 10 * i, "cpu_s": 2.0 * i, "held_out_gap": v} for i, v in enumerate(values)]
    lines = [*rows, {"step": 5, "loss": 1.0}]
    (folder / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    return folder


def test_curves_are_means_over_seeds(tmp_path: Path) -> None:
    folders = [
        training_run(tmp_path / "a", 0, [0.3, 0.2, 0.1]),
        training_run(tmp_path / "b", 1, [0.5, 0.4, 0.3, 0.2]),
        training_run(tmp_path / "c", 0, [0.4, 0.4], "qmix"),
    ]
    curves = learning_curves(folders)
    assert [(c.label, c.seeds) for c in curves] == [("dcg", 2), ("qmix", 1)]
    dcg = curves[0]
    assert [dcg.amount[0], dcg.amount[-1]] == [0, 20]  # to the earliest end
    assert dcg.mean == pytest.approx(40.0 - dcg.amount)
    assert np.all((dcg.low <= dcg.mean) & (dcg.mean <= dcg.high))
    assert learning_curves(folders[:1], amount="cpu_s")[0].amount[-1] == 4.0
    assert curves_csv(curves, "held_out_gap", "step").count("\n") == 1 + 2 * 80
    ran = finecast("figure", *folders, "-o", tmp_path / "curves.pdf")
    assert ran.returncode == 0, ran.stderr


def test_runs_that_are_none_are_refused(tmp_path: Path) -> None:
    short = training_run(tmp_path / "short", 0, [0.3])
    with pytest.raises(FormatError, match="expected >= 2"):
        learning_curves([short])
    with pytest.raises(ValueError, match="metric"):
        learning_curves([short], "loss")


def test_a_report_twice_is_the_same_bytes(swept: Path, tmp_path: Path) -> None:
    made = []
    for _ in range(2):
        write_report(swept, tmp_path / "page.html")
        made.append((tmp_path / "page.html").read_bytes())
    assert b"data:image/svg" in made[0]
    assert made[0] == made[1]
