"""Profiles and curves against hand-computed examples and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finecast.compare.report.profiles import (
    Steps,
    convergence_target,
    excess,
    first_time,
    mean_curve,
    performance_ratios,
    profile,
    shortfall,
)

INF = np.inf


def test_performance_profile_by_hand():
    """Three methods on four problems, one failure: ratios and shares by hand."""
    cost = [[2, 4, 3], [10, 5, INF], [1, 1, 4], [INF, INF, INF]]
    ratio = performance_ratios(cost)
    assert ratio.tolist() == [[1, 2, 1.5], [2, 1, INF], [1, 1, 4], [INF, INF, INF]]
    first = profile(ratio[:, 0])
    assert first.at.tolist() == [1, 2]
    assert first([0.9, 1, 1.99, 2, 100]).tolist() == [0, 0.5, 0.5, 0.75, 0.75]


def test_profile_without_the_best_is_another():
    """Leaving out the method that was best changes the ratios of the others."""
    cost = np.array([[1.0, 4, 8], [1.0, 6, 3]])
    assert performance_ratios(cost)[:, 1:].tolist() == [[4, 8], [6, 3]]
    assert performance_ratios(cost[:, 1:]).tolist() == [[1, 2], [2, 1]]


@given(
    st.lists(
        st.lists(st.floats(0, 1e6) | st.just(INF), min_size=3, max_size=3), min_size=1, max_size=9
    ),
    st.floats(1e-3, 1e3),
)
def test_ratios_do_not_depend_on_the_unit(cost, scale):
    """A ratio is at least 1, somebody has it where anybody answered, and units cancel."""
    costs = np.array(cost)
    ratio = performance_ratios(costs)
    assert (ratio >= 1).all()
    answered = np.isfinite(costs).any(axis=1)
    assert (ratio.min(axis=1)[answered] == 1).all()
    assert np.isinf(ratio[~answered]).all()
    normal = costs[(costs.min(axis=1) > 1e-9) & answered]
    assert performance_ratios(scale * normal) == pytest.approx(performance_ratios(normal))


def test_zero_cost():
    """A method that needs nothing is best; nothing is a finite multiple of it."""
    assert performance_ratios([[0, 1, 0]]).tolist() == [[1, INF, 1]]


def test_convergence_target_of_more_and_wild():
    """From 100 s down to a best of 20 s, a tolerance of 10% is 28 s; 0 is the best, 1 the start."""
    assert convergence_target([20], [100], 0.1).tolist() == [28]
    assert convergence_target([20], [100], 0.0).tolist() == [20]
    assert convergence_target([20], [100], 1.0).tolist() == [100]
    assert convergence_target([INF], [INF], 0.1).tolist() == [-INF]


def test_data_profile_by_hand():
    """The first time at a target, and a method that reaches it on one problem of two, at 8 s."""
    time, cost = [0.5, 2.0, 8.0], [90.0, 30.0, 25.0]
    assert first_time(time, cost, 30.0) == 2.0
    assert first_time(time, cost, 24.9) == INF
    assert first_time([], [], 1.0) == INF
    assert profile([8.0, INF])([1, 8, 1e9]).tolist() == [0, 0.5, 0.5]


def test_profile_of_nothing():
    """No problem, or none solved: a share of zero everywhere."""
    for values in ([], [INF, INF]):
        assert profile(values)([1.0, 10.0]).tolist() == [0, 0]


def test_excess_and_shortfall_by_hand():
    """Best known 80 s: 100 s is 20% over, no answer 100%; a bound of 60 s falls 25% short."""
    assert excess([100, 80, INF], 80).tolist() == pytest.approx([0.2, 0, 1])
    assert shortfall([60, 80, 0], 80).tolist() == pytest.approx([0.25, 0, 1])
    assert excess([0.0], 0.0).tolist() == [0]
    assert shortfall([0.0], 0.0).tolist() == [0]


def test_mean_curve_by_hand():
    """One run finds its answer at 1 s and betters it at 3 s, the other never finds one."""
    one = Steps(np.array([1.0, 3.0]), np.array([0.4, 0.0]))
    never = Steps(np.array([]), np.array([]))
    grid = np.array([0.5, 1.0, 2.9, 3.0, 50.0])
    assert mean_curve([one, never], grid).tolist() == pytest.approx([1, 0.7, 0.7, 0.5, 0.5])
