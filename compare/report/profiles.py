"""Profiles and anytime curves: how methods compare over many instances, at every budget.

A profile belongs to the set of methods that it shows: ratios and targets refer to the best of them,
so that leaving one out means computing anew (N. Gould and J. Scott, ACM TOMS 43, 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from finecast.problem.arrays import FloatArray


@dataclass(frozen=True, eq=False)
class Steps:
    """A function that jumps at points and is constant from each to the next.

    Parameters
    ----------
    at
        (n,) increasing.
    value
        (n,) from `at` on.
    """

    at: FloatArray
    value: FloatArray

    def __call__(self, x: ArrayLike, before: float = 0.0) -> FloatArray:
        """Return the values at `x`, and `before` left of the first point."""
        index = np.searchsorted(self.at, np.asarray(x, float), side="right")
        return np.concatenate(([before], self.value))[index]


def performance_ratios(cost: ArrayLike) -> FloatArray:
    """Return r_ps = cost_ps / min_s cost_ps (E. Dolan and J. More, Math. Programming 91, 2002).

    Parameters
    ----------
    cost
        (problems, methods) >= 0, infinite where a method failed.

    Returns
    -------
    FloatArray
        (problems, methods) >= 1; infinite where a method failed. A cost of 0 has the ratio 1,
        others on the same problem are infinitely worse.
    """
    costs = np.asarray(cost, float)
    best = costs.min(axis=1, keepdims=True, initial=np.inf)
    ratio = np.full(costs.shape, np.inf)
    with np.errstate(over="ignore"):
        np.divide(costs, best, out=ratio, where=np.isfinite(costs) & (best > 0))
    ratio[(costs == best) & np.isfinite(costs)] = 1.0
    return ratio


def profile(values: ArrayLike) -> Steps:
    """Return the share of problems with a value <= x, as a function of x.

    Of ratios it is a performance profile, of times over budget units a data profile.

    Parameters
    ----------
    values
        (problems,) of one method, infinite where it failed: these count as problems all the same.
    """
    v = np.asarray(values, float)
    jumps, count = np.unique(v[np.isfinite(v)], return_counts=True)
    return Steps(jumps, np.cumsum(count) / max(len(v), 1))


def convergence_target(best: ArrayLike, start: ArrayLike, tolerance: float) -> FloatArray:
    """Return f_L + tau (f_0 - f_L): what counts as solved.

    J. More and S. Wild, SIAM J. Optimization 20, 2009, equation 2.2: an answer has made the share
    1 - tau of the way from the start to the best that any shown method reached.

    Parameters
    ----------
    best, start
        (problems,) f_L, f_0: costs, infinite where there are none.
    tolerance
        tau in [0, 1].
    """
    low, high = np.asarray(best, float), np.asarray(start, float)
    known = np.isfinite(low) & np.isfinite(high)
    way = np.subtract(high, low, out=np.zeros(low.shape), where=known)
    return np.where(known, low + tolerance * way, -np.inf)  # nothing reaches minus infinity


def first_time(time: ArrayLike, cost: ArrayLike, target: float) -> float:
    """Return the first time at which a run's cost is at most the target; infinite if never.

    Parameters
    ----------
    time, cost
        (n,) trace of one run, in order of time.
    target
        Cost to reach.
    """
    reached = np.flatnonzero(np.asarray(cost, float) <= target)
    return float(np.asarray(time, float)[reached[0]]) if len(reached) else np.inf


def excess(cost: ArrayLike, reference: float) -> FloatArray:
    """Return 1 - reference / cost: in [0, 1], and 1 without an answer.

    The primal gap of T. Berthold (Operations Research Letters 41, 2013): it can be averaged over
    instances of which some have no answer yet.

    Parameters
    ----------
    cost
        (n,) s, infinite while there is no answer.
    reference
        s, at most every cost: the best known delay.
    """
    costs = np.asarray(cost, float)
    gap = np.zeros(costs.shape)
    np.divide(reference, costs, out=gap, where=costs > 0)
    return np.where(costs > 0, np.clip(1.0 - gap, 0.0, 1.0), 0.0)


def shortfall(bound: ArrayLike, reference: float) -> FloatArray:
    """Return 1 - bound / reference: in [0, 1], and 1 without a bound.

    Parameters
    ----------
    bound
        (n,) s, 0 while there is none.
    reference
        s, at least every bound: the best known delay.
    """
    bounds = np.asarray(bound, float)
    if reference <= 0:
        return np.zeros(bounds.shape)
    return np.clip(1.0 - bounds / reference, 0.0, 1.0)


def mean_curve(runs: Sequence[Steps], grid: FloatArray, before: float = 1.0) -> FloatArray:
    """Return the mean over runs of step functions, at the points of a grid.

    Parameters
    ----------
    runs
        One function a run; before its first point it is `before`.
    grid
        (m,) s.
    before
        Value while there is nothing: 1 for `excess` and `shortfall`.

    Returns
    -------
    FloatArray
        (m,).
    """
    total = np.zeros(len(grid))
    for run in runs:
        total += run(grid, before)
    return total / max(len(runs), 1)
