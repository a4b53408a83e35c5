"""The report: its numbers by hand, its formats read back, its page in a real browser."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chromium import Chromium
from repository import ROOT
from synthetic_records import synthetic_records

from finecast.compare.report.comparison import Comparison, compare_runs
from finecast.compare.report.curves import (
    anytime_curves,
    delay_ratios,
    falling,
    profile_data,
    profiles,
    times_to_target,
)
from finecast.compare.report.gains import gain_sentences, gains, verdict
from finecast.compare.report.learning import Learning, learning_figures, read_learning
from finecast.compare.report.page import Contents, contents, html_report, text_report
from finecast.compare.report.result_tables import methods_table, pairs_table
from finecast.compare.report.sentences import sentences, solve_command
from finecast.compare.report.statistics import Estimate
from finecast.compare.report.table import (
    Column,
    Table,
    shown,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
)
from finecast.compare.report.write import write_report
from finecast.compare.runs.records import Record, Status
from finecast.compare.runs.store import instance_path, open_folder, solution_path, write_record
from finecast.problem.files import FormatError
from finecast.problem.instance import write_instance
from finecast.problem.scenario import read_scenario
from finecast.problem.solution import write_solution
from finecast.problem.wording import printable
from finecast.solvers.solve import solve

ONE = synthetic_records(1)[0]


def run(label: str, instance: str, delay: float | None, **changes: object) -> Record:
    """Return a record with a delay; a bound of 10 s is known of every instance."""
    given: dict[str, object] = {
        "key": f"{label}-{instance}-{changes.get('seed', 0)}-{changes.get('delivery', '')}",
        "label": label,
        "method": "lagrangian",
        "instance_hash": instance,
        "solved_hash": instance,
        "instance_class": "c",
        "delay": delay,
        "status": Status.FAILED if delay is None else Status.COMPLETED,
        "realised_delay": delay,
        "lower_bound": 10.0,
        "bound_kind": "certified",
        "trace": (),
        "wall_s": 1.0,
        "suite": "paper",
    }
    return replace(ONE, **{**given, **changes})  # type: ignore[arg-type]


# --- Numbers ---


def test_gaps_are_to_the_best_certified_bound_of_the_full_system():
    """A restricted system's bound, or a solver's word, does not count; another method's does."""
    c = compare_runs(
        [
            run("a", "i", 12.0, lower_bound=8.0),
            run("b", "i", 15.0, lower_bound=10.0),
            run("coarse", "i", 20.0, lower_bound=19.0, restrict="coarse"),
            run("milp", "i", 11.0, lower_bound=11.0, bound_kind="milp"),
        ]
    )
    assert c.gaps(c.of("a")) == pytest.approx([0.2])
    assert c.gaps(c.of("coarse")) == pytest.approx([1.0])
    assert c.gaps(c.of("milp"), solver_word=True) == pytest.approx([0.0])
    assert c.best_delay == {"i": 11.0}
    assert c.same_system == ("a", "b", "milp")


def test_known_bounds_from_elsewhere_count():
    """A better bound from the file of best known values makes the gap smaller."""
    c = compare_runs([run("a", "i", 12.0)], known_bounds={"i": (11.0, "certified")})
    assert c.gaps(c.of("a")) == pytest.approx([1 / 11])
    c = compare_runs([run("a", "i", 12.0, lower_bound=8.0)], known_bounds={"i": (11.0, "milp")})
    assert c.gaps(c.of("a")) == pytest.approx([0.5])
    assert c.gaps(c.of("a"), solver_word=True) == pytest.approx([1 / 11])


def test_bounds_above_a_judged_delay_count_nowhere():
    """A plan of 12 s refutes bounds of 13 s and of 20 s, also where its system is restricted."""
    records = [
        run("a", "i", 14.0, lower_bound=10.0),
        run("b", "i", 15.0, lower_bound=13.0),
        run("coarse", "i", 12.0, lower_bound=12.0, restrict="coarse"),
        run("c", "i", 12.5, lower_bound=12.0 * (1 + 1e-9)),
    ]
    c = compare_runs(records, known_bounds={"i": (20.0, "certified")})
    assert c.bound == c.solver_bound == {"i": 12.0}
    assert c.gaps(c.of("coarse")) == pytest.approx([0.0])
    assert len(c.doubted) == 2
    assert "best known values bounds instance i by 20 s" in c.doubted[0]
    assert "b bounds instance i by 13 s" in c.doubted[1]
    rng = np.random.default_rng(0)
    assert set(c.doubted) <= set(sentences(c, methods_table(c, rng), pairs_table(c, rng)))


def test_failed_runs_and_missing_runs_differ():
    """A failed run has an infinite delay, a run never made none at all."""
    c = compare_runs([run("a", "i", None), run("a", "j", 11.0), run("b", "j", 12.0)])
    assert c.mean_delay.tolist()[0][0] == math.inf
    assert math.isnan(c.mean_delay[0, 1])
    rng = np.random.default_rng(0)
    told = sentences(c, methods_table(c, rng), pairs_table(c, rng))
    assert any("1 of 3 runs failed: 1 failed" in s for s in told)
    assert any(s.startswith("1 pairs of method and instance have no run") for s in told)


def test_unknown_names_are_refused():
    """A misspelt method or class is told with what there is, and no records is no report."""
    with pytest.raises(ValueError, match="methods: 'x' is not there, there are a"):
        compare_runs([run("a", "i", 1.0)], methods=["x"])
    with pytest.raises(ValueError, match="classes: 'x' is not there, there are c"):
        compare_runs([run("a", "i", 1.0)], classes=["x"])
    with pytest.raises(ValueError, match="records"):
        compare_runs([])


def test_pairs_are_tested_within_one_system():
    """Six instances, A always better: p = 2/64, times the three pairs by Holm."""
    records = []
    for i in range(6):
        records += [run("a", f"{i}", 10.0 + i), run("b", f"{i}", 12.0 + i), run("c", f"{i}", 11.0)]
        records.append(run("coarse", f"{i}", 30.0, restrict="coarse"))
    table = pairs_table(compare_runs(records), np.random.default_rng(0))
    rows = {(row[0], row[1]): row for row in table.rows}
    assert set(rows) == {("a", "b"), ("a", "c"), ("b", "c")}
    row = rows["a", "b"]
    assert row[2] == 6
    assert row[3] == Estimate(1.0, 1.0, 1.0, 6)
    assert row[5] == pytest.approx(2 / 64)
    assert row[6] == pytest.approx(3 * 2 / 64)
    assert row[7] == "no difference shown"


def test_gain_by_hand():
    """Full 10 s against coarse 40 and 20 s: 1 - 1/4 and 1 - 1/2; certified by its bounds 20, 16."""
    records = []
    for i, (coarse, bound) in enumerate([(40.0, 20.0), (20.0, 16.0), (None, 12.0)]):
        records.append(run("full", f"{i}", 10.0))
        records.append(run("coarse", f"{i}", coarse, restrict="coarse", lower_bound=bound))
    (gain,) = gains(compare_runs(records), np.random.default_rng(0))
    assert gain.claim.claimed == 0.6786
    assert gain.reduction is not None
    assert gain.reduction.value == pytest.approx((0.75 + 0.5) / 2)
    assert gain.certified == pytest.approx((0.5 + 0.375) / 2)
    assert (gain.infinite, gain.reduction.count) == (1, 2)
    assert gain.verdict == "too few instances"


def test_gain_over_non_robust_plans_is_of_what_they_realise():
    """A nominal plan guarantees nothing; it realises 20 s where the robust one guarantees 10 s."""
    records = [
        r
        for i in range(4)
        for r in (
            run("robust", f"{i}", 10.0),
            run("nominal", f"{i}", None, restrict="non-robust", realised_delay=20.0,
                status=Status.COMPLETED, guaranteed=False),
        )
    ]  # fmt: skip
    (gain,) = gains(compare_runs(records), np.random.default_rng(0))
    assert gain.reduction == Estimate(0.5, 0.5, 0.5, 4)
    assert gain.certified is None
    assert gain.verdict == "reached"


def test_gain_takes_only_methods_run_on_both_sides():
    """A method that was run on the full system alone does not make the full system better."""
    records = [run("full", "i", 10.0), run("coarse", "i", 20.0, restrict="coarse")]
    records.append(run("other", "i", 5.0, method="exact"))
    (gain,) = gains(compare_runs(records), np.random.default_rng(0))
    assert gain.reduction is not None
    assert gain.reduction.value == 0.5


def test_a_gain_pairs_runs_that_differ_in_nothing_else():
    """A pipelined run of the full system is no match for a sequential one of whole models."""
    records = [
        run("full", "i", 10.0),
        run("pipelined", "i", 8.0, schedule="pipelined"),
        run("coarse", "i", 20.0, restrict="coarse"),
    ]
    by_name = {g.claim.name: g for g in gains(compare_runs(records), np.random.default_rng(0))}
    assert {name: g.reduction and g.reduction.value for name, g in by_name.items()} == {
        "fine-grained against coarse-grained caching": 0.5,
        "pipelined against sequential schedule": pytest.approx(0.2),
    }


def test_the_largest_class_of_a_gain_is_named():
    """Over all classes 62.5% does not reach the claim, in one class 75% does; both are said."""
    records = [
        r
        for i in range(6)
        for r in (
            run("full", f"{i}", 10.0, instance_class="ab"[i % 2]),
            run("coarse", f"{i}", 20.0 + 20.0 * (i % 2), restrict="coarse",
                instance_class="ab"[i % 2]),
        )
    ]  # fmt: skip
    (sentence,) = gain_sentences(gains(compare_runs(records), np.random.default_rng(0)))
    said = "62.5% (62.5 to 62.5) less delay, less than the 67.9% that arXiv 2509.19341 claims"
    assert said in sentence
    assert sentence.endswith(
        "Most in class b: 75.0% (75.0 to 75.0) less delay, the 67.9% that arXiv 2509.19341 claims "
        "are reached."
    )
    # On instances of one's own the paper claims nothing.
    own = [replace(r, suite="mine") for r in records]
    (sentence,) = gain_sentences(gains(compare_runs(own), np.random.default_rng(0)))
    assert "claim" not in sentence
    assert "it helps" in sentence


def test_online_methods_are_ranked_among_themselves():
    """The best method that does not see the future is named beside the best of all."""
    records = [
        r
        for i in range(3)
        for r in (run("lagrangian", f"{i}", 11.0), run("lru", f"{i}", 15.0, method="lru"))
    ]
    c = compare_runs(records)
    rng = np.random.default_rng(0)
    told = sentences(c, methods_table(c, rng), pairs_table(c, rng))
    assert told[0].startswith("Closest to optimal is lagrangian")
    assert any("Of the online methods" in s and "lru is closest: at most 50.0%" in s for s in told)


def test_learned_methods_meet_the_online_baselines():
    """A method that needs training is held against online ones, not against those that foresee."""
    records = [
        r
        for i in range(3)
        for r in (
            run("policy", f"{i}", 12.0, method="some-policy", train_s=100.0),
            run("lru", f"{i}", 16.0, method="lru"),
            run("lagrangian", f"{i}", 11.0),
        )
    ]
    (gain,) = gains(compare_runs(records), np.random.default_rng(0))
    assert gain.claim.name == "policy (learned) against lru"
    assert gain.reduction == Estimate(0.25, 0.25, 0.25, 3)
    assert gain.verdict == "smaller here"


@pytest.mark.parametrize(
    ("low", "high", "claimed", "said"),
    [
        (0.7, 0.8, 0.6786, "reached"),
        (0.6, 0.7, 0.6786, "agrees"),
        (0.4, 0.5, 0.6786, "smaller here"),
        (-0.1, 0.5, 0.6786, "not shown"),
        (-0.3, -0.1, 0.6786, "the opposite"),
        (0.1, 0.2, None, "holds"),
        (0.0, 0.0, None, "not shown"),
    ],
)
def test_verdicts(low: float, high: float, claimed: float | None, said: str):
    """What each position of an interval says of a claim."""
    assert verdict(Estimate((low + high) / 2, low, high, 9), claimed) == said


def test_traces_are_never_better_than_the_judge():
    """Points below the judged delay are lifted to it; a run without one has no trace at all."""
    record = run("a", "i", 20.0, trace=((0.5, 30.0, 1.0), (0.7, 15.0, 1.0)), wall_s=2.0)
    assert falling(record) == ((0.5, 0.7), (30.0, 20.0))
    assert falling(replace(record, delay=None)) == ((), ())


def test_anytime_curves_by_hand():
    """Best known 20 s: 1 - 20/40 until 1 s, then 0; bounds 5 and 10 s fall 75% and 50% short."""
    record = run(
        "a", "i", 20.0, trace=((0.1, 40.0, 5.0), (1.0, 20.0, 10.0)), wall_s=2.0, lower_bound=10.0
    )
    grid, (curve,) = anytime_curves(compare_runs([record]))
    assert curve.bound is not None
    for t, delay, bound in zip(grid, curve.delay, curve.bound, strict=True):
        assert delay == pytest.approx(1.0 if t < 0.1 else 0.5 if t < 1 else 0.0)
        assert bound == pytest.approx(1.0 if t < 0.1 else 0.75 if t < 1 else 0.5)


def test_profiles_belong_to_the_methods_shown():
    """Leaving the best method out of the command gives other profiles than hiding its line."""
    records = [run("a", "i", 10.0), run("b", "i", 20.0), run("c", "i", 40.0)]
    whole = profile_data(compare_runs(records))
    assert delay_ratios(whole, [0, 1, 2]).tolist() == [[1, 2, 4]]
    left = profile_data(compare_runs(records, methods=["b", "c"]))
    assert delay_ratios(left, [0, 1]).tolist() == [[1, 2]]
    assert delay_ratios(whole, [1, 2]).tolist() == [[1, 2]]


def test_fewer_seeds_repeat():
    """A method with one seed meets each of another's seeds; a missing run leaves a problem out."""
    records = [run("a", "i", 10.0, seed=s) for s in (0, 1)]
    records += [run("b", "i", 20.0), run("a", "j", 5.0)]
    data = profile_data(compare_runs(records))
    assert data.problem_class == (0, 0, 0)
    assert delay_ratios(data, [0, 1]).tolist() == [[1, 2], [1, 2]]
    assert delay_ratios(data, [0]).tolist() == [[1], [1], [1]]


def test_times_to_target_by_hand():
    """From 50 s to a best of 10 s at 10%: the target is 14 s, met at 2 s by A and never by B."""
    a = run("a", "i", 10.0, trace=((1.0, 50.0, 0.0), (2.0, 13.0, 0.0)), wall_s=3.0)
    b = run("b", "i", 20.0, wall_s=0.5)
    data = profile_data(compare_runs([a, b]))
    assert times_to_target(data, [0, 1], 0.1).tolist() == [[2.0, math.inf]]
    assert times_to_target(data, [1], 0.1).tolist() == [[0.5]]


def test_command_of_a_run_is_quoted():
    """Names from a record reach a shell as single words."""
    record = run(
        "a", "i", 10.0, method="$(touch x)", options='{"k": "a b"}', restrict="coarse",
        delivery="spatial", seed=3, time_limit_s=5.0,
    )  # fmt: skip
    words = shlex.split(solve_command(record, "my out"))
    assert words[:3] == ["finecast", "solve", "my out/instances/i.npz"]
    assert words[3:7] == ["--method", "$(touch x)", "--seed", "3"]
    assert words[7:] == [
        "--time-limit", "5", "--restrict", "coarse", "--set", "delivery=spatial", "--set", "k=a b",
    ]  # fmt: skip


# --- Formats ---

NASTY = "<img src=x onerror=alert(1)>|&_$\\ `x`"


@pytest.fixture(scope="module")
def nasty_table() -> Table:
    """A table whose texts mean something in every format."""
    return Table(
        "t",
        "A table",
        "50% & more",
        (Column("name", "Name"), Column("gap", "Gap", "percent")),
        ((NASTY, Estimate(0.1, 0.05, math.inf, 3)), ("=1+1", None)),
    )


def test_csv_reads_back(nasty_table: Table):
    """Numbers at full precision, an interval in three columns, no formula for a spreadsheet."""
    rows = list(csv.reader(io.StringIO(to_csv(nasty_table))))
    assert rows[0] == ["name", "gap", "gap_low", "gap_high"]
    assert rows[1] == [NASTY, "0.1", "0.05", "inf"]
    assert rows[2] == ["'=1+1", "", "", ""]


def test_markdown_is_escaped(nasty_table: Table):
    """Every row has as many bars as columns, and no HTML gets through."""
    lines = to_markdown(nasty_table).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", row)) for row in rows} == {3}
    assert r"\<img src=x" in rows[2]
    assert "10.0% (5.00 to ∞)" in rows[2]


def test_latex_is_escaped(nasty_table: Table):
    """Special characters are commands; braces balance."""
    text = to_latex(nasty_table)
    assert r"\textless{}img" in text
    assert r"\&\_\$\textbackslash{}" in text
    assert r"50\% \& more" in text
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")


def test_html_table_is_escaped(nasty_table: Table):
    """Nothing of a text is markup; heads have scopes, buttons and a sort state."""
    text = to_html(nasty_table)
    assert "<img" not in text
    assert text.count('scope="col" aria-sort="none"') == 2
    assert text.count('scope="row"') == 2


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0.01234, "percent", "1.23%"),
        (2.5, "percent", "250%"),
        (1e-7, "percent", "<0.001%"),
        (0.0, "percent", "0%"),
        (-0.05, "percent", "−5.00%"),
        (12345.6, "seconds", "12,346 s"),
        (None, "seconds", "–"),
        (math.nan, "seconds", "–"),
        (math.inf, "percent", "∞"),
        (0.0004, "p", "<0.001"),
        (1234, "count", "1,234"),
        (Estimate(0.02, 0.01, 0.03, 5), "percent", "2.00% (1.00 to 3.00)"),
        (Estimate(math.inf, math.inf, math.inf, 5), "percent", "∞"),
    ],
)
def test_numbers_as_people_read_them(value: object, kind: str, text: str):
    """Three digits, thousands apart, a true minus, infinity and nothing told apart."""
    assert shown(value, kind) == text  # type: ignore[arg-type]


def test_learning_logs(tmp_path: Path):
    """Lines without a metric are passed over; a log without any is refused by name."""
    log = tmp_path / "policy.jsonl"
    log.write_text('{"step": 0, "loss": 1}\n{"step": 10, "delay": 5.0}\n{"step": 20, "delay": 4}\n')
    curve = read_learning(log)
    assert (curve.label, curve.metric) == ("policy", "delay")
    assert (curve.step.tolist(), curve.value.tolist()) == ([10, 20], [5, 4])
    log.write_text('{"step": 1}\n')
    with pytest.raises(FormatError, match=r"policy\.jsonl: no line with a step"):
        read_learning(log)
    log.write_text("{")
    with pytest.raises(FormatError, match="line 1 is not valid JSON"):
        read_learning(log)


def test_logs_of_our_own_training(tmp_path: Path):
    """`finecast train` writes DIR/log.jsonl: the curve has the name of the folder and the gap."""
    log = tmp_path / "vdn" / "log.jsonl"
    log.parent.mkdir()
    rows = [{"step": 0, "held_out_gap": 0.08, "held_out_delay": 5.0}, {"step": 5, "delay": 1.0}]
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    curve = read_learning(log)
    assert (curve.label, curve.metric, list(curve.value)) == ("vdn", "held_out_gap", [0.08])


# --- The page ---

EVIL = "</script><script>window.broken=1</script><img src='http://example.org/x' onerror=broken=1>"


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    """A hundred and twenty runs of ten methods, one with a name and an error to beware of."""
    records = synthetic_records(12)
    renamed = {"lru": f'lru "{EVIL}'}
    records = [replace(r, label=renamed.get(r.label, r.label)) for r in records]
    records[0] = replace(records[0], status=Status.FAILED, delay=None, error=EVIL, trace=())
    return compare_runs(records)


@pytest.fixture(scope="module")
def what(comparison: Comparison) -> Contents:
    """Its tables and sentences."""
    return contents(comparison)


@pytest.fixture(scope="module")
def page(what: Contents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page in a file."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html_report(what, commands=[f"finecast report {EVIL}"]))
    return path


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    """One browser for all tests of the page."""
    with Chromium() as chromium:
        yield chromium


@pytest.fixture
def opened(browser: Chromium, page: Path) -> Chromium:
    """The page, freshly loaded, with nothing said or asked for yet."""
    browser.resize(1200, 900)
    browser.messages.clear()
    browser.requests.clear()
    browser.open(page)
    return browser


COLUMN = "Array.from(document.querySelectorAll('#table-methods tbody tr'), r => r.cells[{}].{})"


def test_the_page_says_nothing_and_fetches_nothing(opened: Chromium, page: Path):
    """No message, no request but for itself, nothing of a record's text ran."""
    assert opened.messages == []
    assert opened.requests == [page.as_uri()]
    assert opened.run("window.broken") is None
    assert opened.run("document.images.length") == 0
    assert opened.run("document.querySelectorAll('script').length") == 2


def test_nothing_can_be_fetched_from_the_page(opened: Chromium):
    """Even a script that got in could not: the policy refuses it, and inline handlers too."""
    opened.run("document.body.insertAdjacentHTML('beforeend', '<img src=http://localhost:9/a>')")
    sent = "fetch('http://localhost:9/b').then(() => 'sent', () => 'refused')"
    assert opened.run(sent) == "refused"
    opened.run("document.body.insertAdjacentHTML('beforeend', '<p onclick=\"broken=1\">')")
    opened.run("document.body.lastChild.click()")
    assert len(opened.messages) >= 2
    assert all("Content Security Policy" in message for message in opened.messages)
    assert opened.run("window.broken") is None


def test_sorting_by_click(opened: Chromium):
    """Up, then down, by number; what has no value stays last, and the state is told."""
    head = "document.querySelectorAll('#table-methods thead th')[6]"
    for direction, sign in (("ascending", 1), ("descending", -1)):
        opened.run(f"{head}.querySelector('button').click()")
        assert opened.run(f"{head}.getAttribute('aria-sort')") == direction
        keys = opened.run(COLUMN.format(6, "dataset.v"))
        numbers = [float(k) for k in keys if k]
        assert len(numbers) > 3
        assert numbers == sorted(numbers, key=lambda v: sign * v)
        assert keys.index("") == len(numbers)
        assert direction in opened.run("document.getElementById('status').textContent")
    others = opened.run(
        "Array.from(document.querySelectorAll('#table-methods th[aria-sort=none]')).length"
    )
    columns = opened.run("document.querySelectorAll('#table-methods thead th').length")
    assert others == columns - 1
    assert opened.messages == []


def test_sorting_by_keyboard(opened: Chromium):
    """A column's head takes the focus, and Enter and the space bar sort by it."""
    opened.run("document.querySelector('#table-methods thead button').focus()")
    opened.press("Enter", 13, "\r")
    names = opened.run(COLUMN.format(0, "textContent"))
    assert names == sorted(names, key=str.lower)
    opened.press(" ", 32, " ")
    assert opened.run(COLUMN.format(0, "textContent")) == names[::-1]


def test_profiles_are_computed_anew_in_the_page(opened: Chromium, comparison: Comparison):
    """With a method hidden, a class chosen and another tolerance, as Python computes them."""
    data = profile_data(comparison)
    assert len(data.labels) == 5

    def in_page(name: str) -> list[list[float]]:
        return opened.run(
            f"Array.from(document.querySelectorAll('#values-{name} tbody tr:not([hidden])'), r => "
            "Array.from(r.querySelectorAll('td'), c => [Number(c.dataset.x), "
            "Number(c.textContent.replace('%', ''))]))"
        )

    def check(shown_methods: list[int], of_class: int | None, tolerance: float) -> None:
        ratios = delay_ratios(data, shown_methods, of_class)
        times = times_to_target(data, shown_methods, tolerance, of_class)
        for name, values in (("quality", ratios), ("data", times)):
            rows = in_page(name)
            assert len(rows) == len(shown_methods)
            for row, steps in zip(rows, profiles(values), strict=True):
                for x, percent in row:
                    assert percent == pytest.approx(100 * float(steps(x)), abs=0.051)

    drawn = opened.run("document.querySelector('#chart-quality path.line').getAttribute('d')")
    check([0, 1, 2, 3, 4], None, 0.01)
    opened.run("document.querySelectorAll('#methods-shown input')[1].click()")
    assert comparison.labels[1] == "exact"
    check([0, 2, 3, 4], None, 0.01)
    assert drawn != opened.run(
        "document.querySelector('#chart-quality path.line').getAttribute('d')"
    )
    for control, index in (("profile-class", 2), ("profile-tolerance", 0)):
        opened.run(
            f"(() => {{ const s = document.getElementById('{control}'); s.selectedIndex = {index};"
            " s.dispatchEvent(new Event('change')); })()"
        )
    check([0, 2, 3, 4], 1, 0.1)
    hidden = opened.run("document.querySelectorAll('#table-methods tr[hidden]').length")
    assert hidden == 1
    assert opened.messages == []


def test_profiles_of_python_and_page_are_drawn_alike(opened: Chromium):
    """Hiding and showing again brings back, to a tenth of a pixel, what Python drew."""
    paths = "Array.from(document.querySelectorAll('#{} path.line'), p => p.getAttribute('d'))"
    for name in ("chart-quality", "chart-speed", "chart-data"):
        before = opened.run(paths.format(name))
        opened.run("document.querySelectorAll('#methods-shown input')[0].click()")
        opened.run("document.querySelectorAll('#methods-shown input')[0].click()")
        after = opened.run(paths.format(name))
        for one, other in zip(before, after, strict=True):
            assert re.sub(r"[\d.]+", "", one) == re.sub(r"[\d.]+", "", other)
            numbers = [[float(v) for v in re.findall(r"[\d.]+", path)] for path in (one, other)]
            assert numbers[0] == pytest.approx(numbers[1], abs=0.11)


def test_runs_are_found_and_paged(opened: Chromium, comparison: Comparison):
    """Fifty rows at a time, filtered by words, sorted over all pages."""
    rows = "document.querySelectorAll('#table-runs tbody tr').length"
    assert opened.run(rows) == 50
    opened.run("document.getElementById('runs-next').click()")
    opened.run("document.getElementById('runs-next').click()")
    assert opened.run(rows) == 20
    opened.run(
        "(() => { const f = document.getElementById('runs-filter'); f.value = 'greedy mid';"
        " f.dispatchEvent(new Event('input')); })()"
    )
    expected = [r for r in comparison.of("greedy") if r.instance_class == "mid"]
    assert opened.run(rows) == len(expected)
    opened.run("document.querySelectorAll('#table-runs thead button')[5].click()")
    delays = opened.run(
        "Array.from(document.querySelectorAll('#table-runs tbody tr'), r => r.cells[5].dataset.v)"
    )
    assert [float(d) for d in delays] == pytest.approx(
        sorted(r.delay for r in expected if r.delay), rel=1e-5
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_only_tables_scroll(opened: Chromium, scheme: str):
    """At 360 pixels the page is no wider than the screen; colours follow the system."""
    opened.send(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    opened.resize(360, 740, mobile=True)
    assert opened.run("document.documentElement.scrollWidth") <= 360
    assert opened.run(
        "Array.from(document.querySelectorAll('.scroll')).some(b => b.scrollWidth > b.clientWidth)"
    )
    paper = opened.run("getComputedStyle(document.body).backgroundColor")
    ink = opened.run("getComputedStyle(document.querySelector('#chart-quality text')).fill")
    light, dark = "rgb(255, 255, 255)", "rgb(20, 24, 29)"
    assert paper == (light if scheme == "light" else dark)
    assert _luminance(ink) < 0.2 if scheme == "light" else _luminance(ink) > 0.7


def test_what_a_screen_reader_needs(opened: Chromium):
    """Every chart has a title and a description, every table a caption, every control a name."""
    tree = opened.send("Accessibility.getFullAXTree")["nodes"]
    controls = {"button", "checkbox", "combobox", "searchbox", "image", "table", "region"}
    found = [n for n in tree if not n["ignored"] and n["role"]["value"] in controls]
    assert {n["role"]["value"] for n in found} == controls
    assert [n["role"]["value"] for n in found if not n.get("name", {}).get("value")] == []
    charts = "Array.from(document.querySelectorAll('svg.chart'))"
    assert opened.run(f"{charts}.length") >= 6
    assert opened.run(f"{charts}.every(c => c.querySelector('title') && c.querySelector('desc'))")
    assert opened.run("Array.from(document.querySelectorAll('table')).every(t => t.caption)")
    assert opened.run("document.documentElement.lang") == "en"


def _luminance(colour: str) -> float:
    red, green, blue = (int(v) / 255 for v in re.findall(r"\d+", colour)[:3])
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_answer_in_sentences(what: Contents):
    """Which method, how far from optimal, how fast, what failed, what the claims come to."""
    text = " ".join(what.answer)
    assert re.match(r"Closest to optimal is \S+: its delay is at most [\d.]+% \(", text)
    assert re.search(r"Fastest is lru .*: 0\.\d+ s a run", text)
    assert "of 120 runs failed" in text
    assert "Fine-grained against coarse-grained caching:" in text


def test_the_same_records_give_the_same_page(what: Contents, comparison: Comparison):
    """Intervals are drawn from a fixed seed."""
    assert html_report(contents(comparison)) == html_report(what)


def test_text_formats_of_all_tables(what: Contents):
    """Each table is there; a single one is had by its name, and an unknown one refused."""
    assert text_report(what, "markdown").count("\n## ") == 4
    assert text_report(what, "latex").count(r"\begin{table}") == 5
    rows = list(csv.DictReader(io.StringIO(text_report(what, "csv", "runs"))))
    assert len(rows) == 120
    assert rows[1]["command"].startswith("finecast solve out/instances/")
    with pytest.raises(ValueError, match="table: 'x' is not there"):
        text_report(what, "csv", "x")


# --- The command ---


def finecast(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", "from finecast.cli.main import main; main()", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


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


def test_labels_of_shipped_methods_fit_their_charts(browser: Chromium, tmp_path: Path):
    """No text of a chart lies outside of it, and no caption outside of its table's box."""
    names = {"greedy": "trimcaching-gen", "popularity": "trimcaching-spec", "lru": "own-savings"}
    records = [replace(r, label=names.get(r.label, r.label)) for r in synthetic_records(12)]
    path = tmp_path / "report.html"
    path.write_text(html_report(contents(compare_runs(records))))
    for width in (1400, 390):
        browser.resize(width, 900)
        browser.open(path)
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        outside = browser.run(
            """[...document.querySelectorAll('svg.chart text')].filter(t => {
                const box = t.ownerSVGElement.getBoundingClientRect();
                const r = t.getBoundingClientRect();
                return r.width && (r.left < box.left - 1 || r.right > box.right + 1);
            }).map(t => t.textContent)"""
        )
        assert outside == []
        wide = browser.run(
            """[...document.querySelectorAll('caption')].filter(c =>
                c.getBoundingClientRect().right
                > c.closest('.scroll').getBoundingClientRect().right + 1).length"""
        )
        assert wide == 0


def test_learning_charts_have_units():
    """The gap in per cent, times in seconds."""
    steps = np.array([0.0, 10.0])
    drawn = learning_figures(
        [
            Learning("a", "held_out_gap", steps, np.array([0.3, 0.1])),
            Learning("b", "delay", steps, np.array([5.0, 4.0])),
        ]
    )
    assert ">30%<" in drawn
    assert "Delay in s during training" in drawn
    assert "steps of training" in drawn
