"""Statistics of a comparison: gaps, robust means with intervals, paired tests.

Delays, gaps and times are costs: smaller is better. A run without an answer has the cost infinity,
which every statistic here takes as it is: it is worse than any number, never left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from finecast.problem.arrays import FloatArray

REPETITIONS = 2000
"""Bootstrap samples, as in Agarwal et al. (2021)."""
LEVEL = 0.95
"""Of every confidence interval."""
TIME_SHIFT_S = 1.0
"""Shift of the geometric means of times: runs far below a second hardly count."""

Statistic = Callable[[FloatArray], FloatArray]
"""From (..., n) values to (...) statistics."""


@dataclass(frozen=True)
class Estimate:
    """A statistic with its confidence interval.

    Parameters
    ----------
    value
        Of the sample itself.
    low, high
        Ends of the interval; the value itself where there is only one observation a stratum.
    count
        Observations behind it.
    """

    value: float
    low: float
    high: float
    count: int


def gap_to_bound(delay: ArrayLike, lower_bound: ArrayLike) -> FloatArray:
    """Return delay / bound - 1: how far from optimal an answer can be at most.

    Parameters
    ----------
    delay
        (n,) s, infinite without an answer: so is then the gap, whatever the bound.
    lower_bound
        (n,) s, 0 without a bound: the gap is then infinite, unless the delay is 0 too.
    """
    d, b = np.broadcast_arrays(np.asarray(delay, float), np.asarray(lower_bound, float))
    gap, known = np.full(d.shape, np.inf), np.isfinite(d)
    bounded = known & (b > 0)
    gap[bounded] = (d[bounded] - b[bounded]) / b[bounded]
    gap[known & (d == b)] = 0.0
    return gap


def shifted_geometric_mean(values: ArrayLike, shift: float = TIME_SHIFT_S) -> float:
    """Return exp(mean(log(v + shift))) - shift (T. Achterberg, 2007, appendix A.3).

    Parameters
    ----------
    values
        (n,) >= 0, such as seconds.
    shift
        > 0, in the unit of the values.

    Raises
    ------
    ValueError
        No values, or one below 0.
    """
    v = np.asarray(values, float)
    if v.size == 0 or not (v >= 0).all():
        raise ValueError(f"values: {v.min() if v.size else 'none'} is not allowed, must be >= 0")
    return float(np.exp(np.mean(np.log(v + shift))) - shift)


def interquartile_mean(values: FloatArray) -> FloatArray:
    """Return the mean of the middle half: a quarter of the values is cut at each end.

    The definition in rliable (R. Agarwal et al., NeurIPS 2021, section 4.2), along the last axis;
    infinities are values like others.

    Parameters
    ----------
    values
        (..., n), n >= 1.
    """
    return np.asarray(stats.trim_mean(values, 0.25, axis=-1))


def stratified_bootstrap(
    values: ArrayLike,
    stratum: ArrayLike,
    statistic: Statistic,
    rng: np.random.Generator,
    *,
    repetitions: int = REPETITIONS,
) -> Estimate:
    """Return a statistic with its 95% percentile interval; each stratum is resampled by itself.

    Agarwal et al. (2021), section 4.1: runs are drawn with replacement within each task, so that
    every sample holds as many runs of each task as there are.

    Parameters
    ----------
    values
        (n,) observations.
    stratum
        (n,) task of each, any labels: the class of its instance.
    statistic
        Along the last axis.
    rng
        Draws the samples.
    repetitions
        Number of samples.

    Raises
    ------
    ValueError
        No values.
    """
    return estimate(values, resamples(stratum, rng, repetitions), statistic)


def resamples(
    stratum: ArrayLike, rng: np.random.Generator, repetitions: int = REPETITIONS
) -> NDArray[np.int32]:
    """Return (repetitions, n) indices of samples drawn with replacement within each stratum.

    Parameters
    ----------
    stratum
        (n,) any labels.
    rng
        Draws the samples.
    repetitions
        Number of samples.
    """
    _, task = np.unique(np.asarray(stratum), return_inverse=True)
    order = np.argsort(task, kind="stable").astype(np.int32)
    size = np.bincount(task, minlength=1)
    start = np.repeat(np.cumsum(size) - size, size)  # of the stratum, at every place
    drawn = np.empty((repetitions, len(task)), np.int32)
    for sample in drawn:
        sample[:] = order[start + (rng.random(len(task)) * np.repeat(size, size)).astype(np.int32)]
    return drawn


def estimate(values: ArrayLike, samples: NDArray[np.int32], statistic: Statistic) -> Estimate:
    """Return a statistic with its 95% percentile interval over given samples.

    Parameters
    ----------
    values
        (n,) observations.
    samples
        (repetitions, n) indices, from `resamples`.
    statistic
        Along the last axis.

    Raises
    ------
    ValueError
        No values.
    """
    observed = np.asarray(values, float)
    if observed.size == 0:
        raise ValueError("values: none given, at least one is needed")
    step = max(1, 2**22 // len(observed))  # 32 MiB at a time
    sampled = np.concatenate(
        [statistic(observed[samples[i : i + step]]) for i in range(0, len(samples), step)]
    )
    # "nearest" ranks are values that occurred: nothing is interpolated between infinities.
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(sampled, (tail, 1.0 - tail), method="nearest")
    return Estimate(float(statistic(observed)), float(low), float(high), len(observed))


def paired_wilcoxon(cost: ArrayLike, other: ArrayLike) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test on log(cost / other).

    Ties are split evenly between the signs (J. Demsar, JMLR 7, 2006, section 3.1.3). Logarithms,
    as instances differ in size; an infinite cost is worse than any finite one, two are a tie.

    Parameters
    ----------
    cost, other
        (n,) > 0, of two methods on the same instances.

    Raises
    ------
    ValueError
        The shapes differ.
    """
    a, b = np.asarray(cost, float), np.asarray(other, float)
    if a.shape != b.shape:
        raise ValueError(f"other: shape is {b.shape}, expected {a.shape}")
    difference = np.zeros(a.shape)
    finite = np.isfinite(a) & np.isfinite(b)
    with np.errstate(divide="ignore"):
        difference[finite] = np.log(a[finite]) - np.log(b[finite])
    furthest = np.abs(difference).max(initial=0.0) + 1.0
    difference[np.isinf(a) & ~np.isinf(b)] = furthest
    difference[np.isinf(b) & ~np.isinf(a)] = -furthest
    return signed_rank_p(difference)


def signed_rank_p(difference: ArrayLike) -> float:
    """Return the two-sided p-value of Wilcoxon's signed-rank test; 1 when nothing differs."""
    d = np.asarray(difference, float)
    if not d.any():
        return 1.0
    # Differences of rounding only are ties.
    scale = np.abs(d).max()
    d = np.where(np.abs(d) < 1e-12 * max(scale, 1.0), 0.0, d)
    if not d.any():
        return 1.0
    return float(stats.wilcoxon(d, zero_method="zsplit").pvalue)


def holm(p: ArrayLike) -> FloatArray:
    """Return p-values adjusted for their number: max over i' <= i of (m - i' + 1) p_(i').

    Holm's step-down procedure (Scand. J. Statistics 6, 1979): rejecting where the adjusted value
    is at most alpha keeps the probability of any false rejection at alpha.

    Parameters
    ----------
    p
        (m,) in [0, 1].
    """
    values = np.asarray(p, float)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    adjusted = np.empty(len(values))
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def probability_of_improvement(
    costs: Sequence[ArrayLike], others: Sequence[ArrayLike]
) -> FloatArray:
    """Return per task P(cost < other) + P(cost = other) / 2, over all pairs of runs.

    Agarwal et al. (2021), section 4.3, where the mean over tasks is the probability that a method
    beats the other on a random task; here smaller is better. The count of pairs is the statistic U
    of Mann and Whitney.

    Parameters
    ----------
    costs, others
        Per task, the runs of the two methods; at least one each.

    Returns
    -------
    FloatArray
        (tasks,) in [0, 1].
    """
    return np.array(
        [
            np.mean(_beats(np.asarray(a, float)[:, None], np.asarray(b, float)[None, :]))
            for a, b in zip(costs, others, strict=True)
        ]
    )


def _beats(cost: FloatArray, other: FloatArray) -> FloatArray:
    return np.where(cost < other, 1.0, np.where(cost == other, 0.5, 0.0))


def ratio_of_means(
    numerator: ArrayLike, denominator: ArrayLike, cluster: Sequence[Any]
) -> Estimate:
    """Return sum(numerator) / sum(denominator) with a 95% interval over clusters.

    The ratio estimator of sampling theory (W. G. Cochran, Sampling Techniques, 1977, section
    6.3): with totals a_c, b_c of C clusters and r = sum a / sum b, the deviations a_c - r b_c are
    nearly independent, and the interval is r +- t_{C-1} sd(a_c - r b_c) sqrt(C) / sum b.

    Parameters
    ----------
    numerator, denominator
        (n,) observations; the denominators have a sum above 0.
    cluster
        (n,) what each belongs to, any labels: observations of one cluster may depend on each other.
        A single cluster has no interval.

    Raises
    ------
    ValueError
        No observations.
    """
    a, b = np.asarray(numerator, float), np.asarray(denominator, float)
    if a.size == 0:
        raise ValueError("numerator: none given, at least one is needed")
    if not np.isfinite(a).all():
        return Estimate(math.inf, math.inf, math.inf, len(a))
    number: dict[Any, int] = {}
    index = [number.setdefault(label, len(number)) for label in cluster]
    totals = np.stack([np.bincount(index, values) for values in (a, b)])
    ratio = float(a.sum() / b.sum())
    if (count := len(number)) == 1:
        return Estimate(ratio, ratio, ratio, len(a))
    deviation = totals[0] - ratio * totals[1]
    half = stats.t.ppf(0.5 + LEVEL / 2.0, count - 1) * deviation.std(ddof=1)
    half *= math.sqrt(count) / b.sum()
    return Estimate(ratio, ratio - float(half), ratio + float(half), len(a))
