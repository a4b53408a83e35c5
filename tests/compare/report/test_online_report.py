"""Figures of online methods: ratios of means by hand, their parts, and gaps that cannot be."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from synthetic_records import synthetic_records

from finecast.compare.report.comparison import compare_runs
from finecast.compare.report.online import (
    OnlineFigures,
    impossible_gaps,
    online_figures,
    online_rows,
    online_table,
)
from finecast.compare.report.page import contents, html_report, text_report
from finecast.compare.report.statistics import ratio_of_means
from finecast.compare.report.svg import Bar, bar_chart
from finecast.compare.runs.records import Record, Status

ONE = synthetic_records(1)[0]

PATHS = {(1, 0): (90.0, 95.0), (1, 1): (100.0, 105.0), (2, 0): (50.0, 58.0), (2, 1): (70.0, 70.0)}
"""Hindsight bound and online bound in s, by network and path."""


def run(
    label: str,
    place: tuple[int, int],
    delay: float | None,
    gap: float | None,
    method: str = "rolling",
    **changes: object,
) -> Record:
    """Return a run on a path of `PATHS` with a delay and a controlled gap in s."""
    hindsight, online = PATHS[place]
    given: dict[str, object] = {
        "key": f"{label}-{place}-{changes.get('seed', 0)}",
        "label": label,
        "method": method,
        "options": "{}",
        "instance_class": "c",
        "instance_seed": place[0],
        "path": place[1],
        "instance_hash": f"{place}",
        "solved_hash": f"{place}",
        "status": Status.FAILED if delay is None else Status.COMPLETED,
        "delay": delay,
        "lower_bound": hindsight - 1.0,
        "bound_kind": "certified",
        "hindsight_bound": hindsight,
        "online_bound": online,
        "controlled_gap": gap,
        "trace": (),
    }
    return replace(ONE, **{**given, **changes})  # type: ignore[arg-type]


def runs(label: str, over: float, **changes: object) -> list[Record]:
    """Return a run a path, each with penalties of 2 s or -2 s and a controlled gap of `over` s."""
    return [
        run(label, place, PATHS[place][1] + penalty + over, over, **changes)  # type: ignore[arg-type]
        for place, penalty in zip(PATHS, (2.0, -2.0, -2.0, 2.0), strict=True)
    ]


def only(figures: list[OnlineFigures], label: str) -> OnlineFigures:
    (found,) = (f for f in figures if f.label == label)
    return found


def test_figures_by_hand():
    """Hindsight 310 s, online 328 s, delays 348 s in all: 18 / 310, 20 / 328 and 38 / 310."""
    (f,) = online_figures(compare_runs(runs("a", 5.0)))
    assert (f.networks, f.paths, f.least_gap) == (2, 4, 5.0)
    assert f.information.value == pytest.approx(18 / 310)
    assert f.over_online.value == pytest.approx(20 / 328)
    assert f.over_hindsight.value == pytest.approx(38 / 310)
    assert (1 + f.information.value) * (1 + f.over_online.value) == pytest.approx(
        1 + f.over_hindsight.value
    )


def test_penalties_take_the_variance_of_the_draw_away():
    """A path whose bound is 40 s high by luck has penalties of -40 s: the estimate stays as it was.

    Without the penalties the information would be 58 / 310.
    """
    lucky = [
        replace(r, online_bound=r.online_bound + 40.0)
        if r.path == 0 and r.instance_seed == 1
        else r
        for r in runs("a", 5.0)
        if r.online_bound is not None
    ]
    (f,) = online_figures(compare_runs(lucky))
    assert f.information.value == pytest.approx(18 / 310)


def test_the_keep_rule_is_the_difference_to_the_joint_one():
    """In turn 12 s a path, jointly 4 s: 32 / 328 is the rule's, 16 / 328 is left to both."""
    records = [
        *runs("in turn", 12.0, options='{"keep": "in-turn"}'),
        *runs("joint", 4.0, options='{"keep": "joint"}'),
        *runs("lru", 60.0, method="lru"),
    ]
    figures = online_figures(compare_runs(records))
    assert [f.label for f in figures] == ["joint", "in turn", "lru"]
    turn, joint, lru = (only(figures, label) for label in ("in turn", "joint", "lru"))
    assert turn.keep is not None
    assert turn.keep.value == pytest.approx(32 / 328)
    assert turn.rest.value == pytest.approx(16 / 328)
    assert turn.over_online.value == pytest.approx(turn.keep.value + turn.rest.value)
    assert joint.keep is not None
    assert (joint.keep.value, joint.keep.high) == (0.0, 0.0)
    assert joint.rest == joint.over_online
    assert lru.keep is None
    assert lru.rest == lru.over_online


def test_rules_are_compared_on_the_same_values_only():
    """Other options beside `keep`, or another method, make no pair."""
    records = [
        *runs("in turn", 12.0, options='{"keep": "in-turn"}'),
        *runs("one round", 4.0, options='{"keep": "joint", "rounds": 1}'),
        *runs("mpc", 4.0, method="mpc", options='{"keep": "joint"}'),
    ]
    assert only(online_figures(compare_runs(records)), "in turn").keep is None


def test_intervals_are_over_networks():
    """Two networks, totals of the deviation +-d: the half width is t_1 |d| / 328 * 2."""
    records = [
        replace(r, controlled_gap=9.0, delay=r.delay + 4.0) if r.instance_seed == 1 else r
        for r in runs("a", 5.0)
        if r.delay is not None
    ]
    f = only(online_figures(compare_runs(records)), "a")
    ratio = 28 / 328
    deviation = np.array([18 - ratio * 200, 10 - ratio * 128])
    half = stats.t.ppf(0.975, 1) * np.std(deviation, ddof=1) * np.sqrt(2) / 328
    assert f.over_online.high - f.over_online.value == pytest.approx(half)


def test_one_network_has_intervals_over_its_paths():
    """With one network what is said is of that network, and its paths vary."""
    records = [r for r in runs("a", 5.0) if r.instance_seed == 1]
    f = only(online_figures(compare_runs(records)), "a")
    assert (f.networks, f.paths) == (1, 2)
    assert f.information.low < f.information.value < f.information.high


def test_only_online_methods_with_a_bound_speak():
    """Offline methods, restricted systems and suites without online bounds have no figures."""
    known = runs("a", 5.0)
    silent = [
        *runs("hindsight", 0.0, method="lagrangian"),
        *runs("coarse", 5.0, restrict="coarse"),
    ]
    assert [f.label for f in online_figures(compare_runs([*known, *silent]))] == ["a"]
    without = [replace(r, online_bound=None, controlled_gap=None) for r in known]
    assert online_figures(compare_runs(without)) == []
    page = html_report(contents(compare_runs(without)))
    assert 'id="online"' not in page


def test_a_failed_run_makes_the_mean_infinite():
    """A path without an answer is worse than any delay, and the other methods keep theirs."""
    records = [*runs("a", 5.0), *runs("b", 1.0)[:3], run("b", (2, 1), None, None)]
    figures = online_figures(compare_runs(records))
    b = only(figures, "b")
    assert b.over_hindsight.value == b.over_online.value == np.inf
    assert only(figures, "a").over_online.value == pytest.approx(20 / 328)
    assert figures[-1] is b
    assert json.dumps(online_rows(figures), allow_nan=False).count("null") >= 6


def test_a_gap_below_zero_is_told():
    """No plan has one, so the bound of that path is wrong: the report says which, and where."""
    records = [*runs("a", 5.0), *runs("b", 3.0)]
    records[-1] = replace(records[-1], controlled_gap=-0.5)
    told = impossible_gaps(compare_runs(records))
    assert len(told) == 1
    assert told[0].startswith("b on instance (2, 1) has a controlled gap of -0.5 s")
    assert told[0] in contents(compare_runs(records)).answer
    rounding = [replace(r, controlled_gap=-1e-12) for r in runs("a", 0.0)]
    assert impossible_gaps(compare_runs(rounding)) == []


def test_the_report_shows_them():
    """Table, chart and sentences of the page; the table in every other form."""
    what = contents(compare_runs([*runs("a", 5.0), *runs("b", 8.0)]))
    page = html_report(what)
    assert 'id="table-online"' in page
    assert 'id="chart-online-0"' in page
    assert page.count("holds in the mean over paths") >= 2
    assert any("Online, in class c, a is 12.3%" in sentence for sentence in what.answer)
    rows = list(csv.DictReader(io.StringIO(text_report(what, "csv", "online"))))
    assert float(rows[0]["over_online"]) == pytest.approx(20 / 328)
    assert {"information_low", "over_hindsight_high", "keep", "rest"} <= set(rows[0])
    assert "of it information" in text_report(what, "markdown", "online")
    assert r"\label{tab:online}" in text_report(what, "latex", "online")
    runs_table = list(csv.DictReader(io.StringIO(text_report(what, "csv", "runs"))))
    assert (runs_table[1]["path"], float(runs_table[1]["controlled_gap"])) == ("1", 5.0)
    assert online_table(what.online).methods == (("a",), ("b",))


def test_seeds_of_a_method_count_as_one_path():
    """Two seeds with gaps of 4 and 6 s are one path with 5 s."""
    records = [r for seed, gap in ((0, 4.0), (1, 6.0)) for r in runs("a", gap, seed=seed)]
    (f,) = online_figures(compare_runs(records))
    assert (f.paths, f.least_gap) == (4, 5.0)
    assert f.over_online.value == pytest.approx(20 / 328)


def test_ratio_of_means_is_the_mean_where_denominators_are_one():
    """Each its own cluster: Student's interval of a mean."""
    values = [1.0, 4.0, 2.0, 7.0, 3.0]
    ratio = ratio_of_means(values, np.ones(5), range(5))
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((np.mean(values), low, high))
    assert ratio_of_means(values, np.ones(5), "aaaaa").low == ratio.value
    assert ratio_of_means([np.inf, 1.0], [1.0, 1.0], range(2)).value == np.inf
    with pytest.raises(ValueError, match="none given"):
        ratio_of_means([], [], [])


def test_ratio_of_means_covers():
    """Of 400 samples of 8 clusters with a true ratio of 1.1 about 95 in 100 intervals hold it.

    Paths of one cluster share a part: intervals over paths would hold it far less often.
    """
    rng = np.random.default_rng(0)
    hits = np.zeros(2)
    for _ in range(400):
        size = 100.0 + 10.0 * rng.standard_normal((8, 4))
        excess = 0.1 * size + rng.standard_normal((8, 1)) + 0.3 * rng.standard_normal((8, 4))
        clusters = np.repeat(np.arange(8), 4)
        for kind, cluster in enumerate((clusters, np.arange(32))):
            interval = ratio_of_means(excess.ravel(), size.ravel(), list(cluster))
            hits[kind] += interval.low <= 0.1 <= interval.high
    assert 0.92 <= hits[0] / 400 <= 0.98
    assert hits[1] / 400 < 0.85


def test_long_bars_are_cut_and_intervals_stay_inside():
    """At a limit of twice the first, the second bar ends there, with a gap and no interval."""
    bars = [
        Bar("a", (1.0, 1.0), "2", ((0.5, 1.5),)),
        Bar("b", (1.0, 99.0), "100", ((90.0, 110.0),)),
    ]
    svg = bar_chart("x", "X", "what", bars, ("one", "two"), limit=4.0)
    widths = [float(w) for w in re.findall(r'width="([\d.]+)" height="18"', svg)]
    assert widths[0] == pytest.approx(widths[1])
    assert widths[2] + widths[3] == pytest.approx(2 * (widths[0] + widths[1]), abs=0.2)
    assert (svg.count('class="cut"'), svg.count("spread")) == (1, 1)
    whole = bar_chart("x", "X", "what", bars, ("one", "two"))
    assert (whole.count('class="cut"'), whole.count("spread")) == (0, 2)
