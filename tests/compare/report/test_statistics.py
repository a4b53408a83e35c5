"""Statistics against published worked examples, definitions and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from finecast.compare.report.statistics import (
    estimate,
    gap_to_bound,
    holm,
    interquartile_mean,
    paired_wilcoxon,
    probability_of_improvement,
    resamples,
    shifted_geometric_mean,
    signed_rank_p,
    stratified_bootstrap,
)

# Demsar (JMLR 7, 2006), table 2: AUC in thousandths of C4.5 and of C4.5 with tuned leaf size,
# on fourteen data sets.
C45 = [763, 599, 954, 628, 882, 936, 661, 583, 775, 1000, 940, 619, 972, 957]
C45_TUNED = [768, 591, 971, 661, 888, 931, 668, 583, 838, 1000, 962, 666, 981, 978]


def test_signed_ranks_of_demsar():
    """Section 3.1.3 ranks by hand: R+ = 93, R- = 12, below the critical value 21 at 5%."""
    difference = np.subtract(C45_TUNED, C45)
    assert stats.wilcoxon(difference, zero_method="zsplit").statistic == 12
    # The normal approximation that Demsar gives for larger samples, with the variance
    # n (n+1) (2n+1) / 24 that ignores ties: z = -2.54.
    z = (12 - 14 * 15 / 4) / np.sqrt(14 * 15 * 29 / 24)
    assert z == pytest.approx(-2.54, abs=0.005)
    assert signed_rank_p(difference) == pytest.approx(2 * stats.norm.cdf(z), abs=0.003)


def test_signed_rank_test_exact_by_hand():
    """Five differences of one sign: the two-sided p-value is 2 / 2^5."""
    assert paired_wilcoxon([1, 2, 3, 4, 5.0], [2, 5, 9, 17, 26.0]) == pytest.approx(2 / 32)


def test_wilcoxon_with_failures_and_ties():
    """A failed run is the worst of all; two failed runs or equal costs say nothing."""
    inf = np.inf
    assert paired_wilcoxon([1, inf, 3], [1, inf, 3]) == 1.0
    failing = paired_wilcoxon([inf, inf, inf, inf, inf], [1, 2, 3, 4, 5])
    assert failing == paired_wilcoxon([9, 9, 9, 9, 9], [1, 1, 1, 1, 1])
    assert paired_wilcoxon([1 + 1e-15, 2, 3], [1, 2, 3]) == 1.0
    with pytest.raises(ValueError, match="shape"):
        paired_wilcoxon([1.0], [1.0, 2.0])


def test_failures_rank_above_every_finite_difference():
    """One failure against four runs that are 10 to 40 times as fast has rank 5 of 5: R+ = 5.

    Of the 32 ways to sign five ranks 10 have a sum of at most 5: {}, 1, 2, 3, 4, 5, 1 + 2, 1 + 3,
    1 + 4, 2 + 3; the two-sided p-value is 20 / 32.
    """
    inf = np.inf
    assert paired_wilcoxon([inf, 1, 1, 1, 1], [1, 10, 20, 30, 40]) == pytest.approx(20 / 32)
    assert paired_wilcoxon([1, 10, 20, 30, 40], [inf, 1, 1, 1, 1]) == pytest.approx(20 / 32)


def test_failures_of_both_are_ties_and_signs_count():
    """Where both fail nothing is said; failures of the one and of the other have opposite signs."""
    inf = np.inf
    assert paired_wilcoxon([inf] * 8, [inf] * 8) == 1.0
    assert paired_wilcoxon([], []) == 1.0
    assert paired_wilcoxon([inf, 1, 1, 1, 1, 1], [1] + [inf] * 5) == signed_rank_p([1] + [-1] * 5)
    # Finite pairs count beside the one failure: six of one sign, 2 / 2^6.
    assert paired_wilcoxon([inf, 2, 3, 4, 5, 6], [1] * 6) == pytest.approx(2 / 64)


@pytest.mark.parametrize(("largest", "tie", "difference"), [(5e6, 1e-7, 1e-4), (0.5, 1e-13, 4e-12)])
def test_differences_of_rounding_are_ties(largest, tie, difference):
    """Ties lie below 1e-12 of the largest difference, or of 1 where all are smaller."""
    rest = [largest * part for part in (0.2, 0.4, 0.6, -0.8, 1.0)]
    without = signed_rank_p([0.0, *rest])
    assert signed_rank_p([-tie, *rest]) == signed_rank_p([tie, *rest]) == without
    assert signed_rank_p([-difference, *rest]) != signed_rank_p([difference, *rest])


def test_holm_of_demsar():
    """Section 3.2.2: 0.016 <= 0.05/3 and 0.019 <= 0.05/2 are rejected, 0.607 is not."""
    adjusted = holm([0.607, 0.016, 0.019])
    assert adjusted == pytest.approx([0.607, 0.048, 0.048])
    assert (adjusted <= 0.05).tolist() == [False, True, True]


def test_holm_steps_down_and_stops():
    """0.01, 0.04, 0.03, 0.005 at 5%: two are rejected, and 0.04 not, though below 0.05."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]).shape == (0,)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_lies_between_p_and_bonferroni(p):
    """p <= Holm <= min(1, m p), and the order of the p-values is kept."""
    adjusted = holm(p)
    assert (adjusted >= np.array(p)).all()
    assert (adjusted <= np.minimum(1, len(p) * np.array(p))).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_interquartile_mean_is_that_of_rliable(values):
    """The definition of rliable is scipy's mean trimmed by a quarter at each end."""
    assert interquartile_mean(np.array(values)) == pytest.approx(
        stats.trim_mean(values, 0.25), rel=1e-12, abs=1e-9
    )


def test_interquartile_mean_with_failures():
    """Up to a quarter of failed runs is cut off; beyond, the mean is infinite."""
    values = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, np.inf, np.inf])
    assert interquartile_mean(values) == 4.5
    values[5] = np.inf
    assert interquartile_mean(values) == np.inf


def test_interquartile_mean_along_the_last_axis():
    """Two rows of four: the middle two of each."""
    assert interquartile_mean(np.array([[9.0, 1, 2, 3], [0, 0, 4, 8]])).tolist() == [2.5, 2.0]


def test_shifted_geometric_mean_by_hand():
    """Times 0, 3 s and 15 s with a shift of 1 s: (1 * 4 * 16)^(1/3) - 1 = 3 s."""
    assert shifted_geometric_mean([0, 3, 15]) == pytest.approx(3.0)  # 1 s is the shift of tables
    assert shifted_geometric_mean([0, 6], 2.0) == pytest.approx(2.0)  # (2 * 8)^(1/2) - 2
    assert shifted_geometric_mean([7.0, 7.0]) == pytest.approx(7.0)
    for bad in ([], [-0.1], [1.0, -0.1]):
        with pytest.raises(ValueError, match="values"):
            shifted_geometric_mean(bad)


def test_gap_to_bound_at_the_edges():
    """Above, equal, without a bound, without an answer, and where both are zero."""
    delays, bounds = [110, 100, 5, np.inf, 0, 1, np.inf], [100, 100, 0, 50, 0, 0.5, np.inf]
    with np.errstate(all="raise"):
        gap = gap_to_bound(delays, bounds)
    assert gap == pytest.approx([0.1, 0, np.inf, np.inf, 0, 1, np.inf])


def test_probability_of_improvement_by_hand():
    """Task one: 1 and 3 against 2 and 3 win 1 + 1 of the first, lose 1 and tie 1 of the second."""
    p = probability_of_improvement([[1, 3], [np.inf]], [[2, 3], [np.inf]])
    assert p == pytest.approx([(1 + 1 + 0 + 0.5) / 4, 0.5])
    with pytest.raises(ValueError, match="shorter"):
        probability_of_improvement([[1], [2]], [[1]])


@given(
    st.lists(st.integers(0, 5), min_size=1, max_size=8),
    st.lists(st.integers(0, 5), min_size=1, max_size=8),
)
def test_probability_of_improvement_is_that_of_rliable(a, b):
    """rliable takes Mann and Whitney's U over the number of pairs; swapped they add to 1."""
    u = stats.mannwhitneyu(np.negative(a), np.negative(b)).statistic
    p = probability_of_improvement([a], [b])[0]
    assert p == pytest.approx(u / (len(a) * len(b)))
    assert p + probability_of_improvement([b], [a])[0] == pytest.approx(1)


def test_bootstrap_keeps_strata():
    """With one constant a stratum nothing varies; pooled resampling would."""
    values, stratum = [1.0, 1.0, 1.0, 9.0, 9.0], ["a", "a", "a", "b", "b"]
    estimate = stratified_bootstrap(
        values, stratum, lambda x: x.mean(axis=-1), np.random.default_rng(1)
    )
    assert (estimate.low, estimate.value, estimate.high) == pytest.approx((4.2, 4.2, 4.2))
    assert estimate.count == 5


def test_bootstrap_interval_is_that_of_scipy():
    """In one stratum the interval of a mean is that of `scipy.stats.bootstrap`, percentiles."""
    values = np.random.default_rng(3).exponential(size=40)
    ours = stratified_bootstrap(
        values,
        np.zeros(40),
        lambda x: x.mean(axis=-1),
        np.random.default_rng(4),
        repetitions=20_000,
    )
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)


def test_bootstrap_interval_covers():
    """Over 200 samples from three strata the 95% interval covers the true mean about as often.

    The binomial probability of fewer than 174 or more than 199 covers at 0.93 is below 1e-3.
    """
    rng = np.random.default_rng(6)
    stratum = np.repeat([0, 1, 2], 20)
    covered = 0
    for _ in range(200):
        values = rng.normal(stratum * 10.0, 1.0)
        e = stratified_bootstrap(values, stratum, lambda x: x.mean(axis=-1), rng, repetitions=400)
        covered += e.low <= 10.0 <= e.high
    assert 174 <= covered <= 199


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.permutations(list(range(12))))
def test_bootstrap_of_infinities_is_never_nan(seed, order):
    """Failed runs give infinite ends, not NaN; the same seed gives the same interval."""
    values = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, np.inf, np.inf, np.inf])[order]
    first, second = (
        stratified_bootstrap(
            values, np.zeros(12), interquartile_mean, np.random.default_rng(seed), repetitions=50
        )
        for _ in range(2)
    )
    assert first == second
    assert not np.isnan([first.low, first.value, first.high]).any()
    assert first.low <= first.high


def test_interval_over_given_samples():
    """Two samples, one of each value twice: the interval reaches from one to the other."""
    told = estimate([1.0, 9.0], np.array([[0, 0], [1, 1]], np.int32), lambda x: x.mean(axis=-1))
    assert (told.low, told.value, told.high, told.count) == (1.0, 5.0, 9.0, 2)


def test_samples_of_a_report():
    """2,000 of them, as the page says."""
    assert resamples([0, 0, 1], np.random.default_rng(0)).shape == (2000, 3)


def test_bootstrap_needs_values():
    """No observation, no estimate."""
    with pytest.raises(ValueError, match="values"):
        stratified_bootstrap([], [], interquartile_mean, np.random.default_rng(0))
