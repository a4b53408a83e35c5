"""`finecast report`: what it writes, and what it refuses."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from chromium import Chromium
from commands import finecast
from repository import ROOT
from synthetic_records import run, synthetic_records

from finecast.compare.report.write import write_report
from finecast.compare.runs.store import instance_path, open_folder, solution_path, write_record
from finecast.problem.instance import write_instance
from finecast.problem.scenario import read_scenario
from finecast.problem.solution import write_solution
from finecast.problem.wording import printable
from finecast.solvers.solve import solve


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result folder with one real run, its instance and solution, and a made-up one."""
    out = open_folder(tmp_path_factory.mktemp("results") / "out")
    instance = read_scenario(ROOT / "data" / "scenarios" / "tiny.toml").generate(1)
    result = solve(instance, "greedy", time_limit=5.0)
    assert result.solution is not None
    written = out / "solution.npz"
    write_solution(written, result.solution)
    record = run("greedy", "h", result.delay, method="greedy", lower_bound=result.lower_bound)
    record = replace(record, key="k1", solution=solution_path("k1"))
    write_record(out, record, written.read_bytes())
    written.unlink()
    write_instance(instance_path(out, "h"), instance)
    write_record(out, replace(run("other", "h", 2 * result.delay), key="k2"), None)
    return out


def test_report_command(folder: Path, tmp_path: Path, browser: Chromium):
    """A page with pictures and a learning curve, read without a message; JSON for machines."""
    log = tmp_path / "learner.jsonl"
    log.write_text('{"step": 0, "delay": 9.0}\n{"step": 5, "delay": 7.0}\n')
    page = tmp_path / "r.html"
    outcome = finecast("report", folder, "-o", page, "--learning", log, "--json")
    assert outcome.returncode == 0, outcome.stderr
    told = json.loads(outcome.stdout)
    assert (told["runs"], told["methods"], told["instances"]) == (2, ["greedy", "other"], 1)
    browser.messages.clear()
    browser.open(page)
    assert browser.messages == []
    loaded = browser.run("Array.from(document.images, i => i.complete && i.naturalWidth > 100)")
    assert loaded == [True, True, True]
    assert browser.run("document.getElementById('chart-learning-delay') !== null")


@pytest.mark.parametrize(
    ("ending", "begins"),
    [("csv", "method,"), ("md", "#"), ("tex", "\\begin"), ("html", "<!DOCTYPE")],
)
def test_the_ending_says_what_is_written(folder: Path, tmp_path: Path, ending: str, begins: str):
    """A file named .csv, .md, .tex or .html holds that."""
    outcome = finecast("report", folder, "-o", tmp_path / f"r.{ending}")
    assert outcome.returncode == 0, outcome.stderr
    assert (tmp_path / f"r.{ending}").read_text().startswith(begins)


def test_report_command_leaves_a_method_out(folder: Path):
    """One method fewer in the command is one fewer in the table."""
    outcome = finecast("report", folder, "--format", "csv", "--methods", "other")
    assert outcome.returncode == 0, outcome.stderr
    assert [row["method"] for row in csv.DictReader(io.StringIO(outcome.stdout))] == ["other"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--methods", "x", "--format", "csv"], "methods: 'x' is not there"),
        ([], "-o: is missing"),
        (["-o", "r.html", "--table", "runs"], "table: is for csv"),
        (["-o", "r.html", "--instance", "z"], "instance: 'z' has no solution"),
        (["--format", "csv", "--best-known", "nowhere.json"], "nowhere.json"),
        (["-o", "r.pdf"], "'.pdf', expected .html, .htm, .csv, .md, .tex"),
        (["-o", "r.html", "--format", "csv"], "has the ending '.html' of html, but csv is asked"),
    ],
)
def test_report_command_refuses(folder: Path, arguments: list[str], words: str):
    """Bad input is one line on stderr, exit code 2, and no page."""
    outcome = finecast("report", folder, *arguments)
    assert outcome.returncode == 2
    assert outcome.stderr.count("\n") == 1
    assert words in outcome.stderr
    assert not (ROOT / "r.html").exists()


def test_report_of_nothing(tmp_path: Path):
    """An empty result folder is told as such."""
    open_folder(tmp_path / "out")
    outcome = finecast("report", tmp_path / "out", "--format", "csv")
    assert outcome.returncode == 2
    assert "holds no runs yet" in outcome.stderr


@pytest.mark.parametrize("suffix", [".html", ".csv", ".md", ".tex"])
def test_a_report_holds_nothing_that_commands_a_terminal(tmp_path: Path, suffix: str) -> None:
    """Escape sequences, turned writing and halves of characters in names are shown, not obeyed."""
    name = "[/] :cd: \x1b[31m\u202e \x9b1m <script>"
    folder = open_folder(tmp_path / "runs")
    for record in synthetic_records(2):
        write_record(folder, replace(record, label=f"{name} {record.label}", solution=""), None)
    write_report(folder, tmp_path / f"report{suffix}")
    text = (tmp_path / f"report{suffix}").read_text()
    assert text == printable(text)
    assert "u202e" in text
    assert "<script> " not in text or suffix == ".csv"
