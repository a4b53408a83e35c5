"""The numbers of the report, by hand."""

from __future__ import annotations

import math
import shlex
from dataclasses import replace

import numpy as np
import pytest
from synthetic_records import run

from finecast.compare.report.comparison import compare_runs
from finecast.compare.report.curves import (
    anytime_curves,
    delay_ratios,
    falling,
    profile_data,
    times_to_target,
)
from finecast.compare.report.gains import gain_sentences, gains, verdict
from finecast.compare.report.result_tables import methods_table, pairs_table
from finecast.compare.report.sentences import sentences, solve_command
from finecast.compare.report.statistics import Estimate
from finecast.compare.runs.records import Status


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
