"""Intervals of arguments: what is narrowed still holds every argument that was possible."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from finecast.solvers.beamforming.arguments.intervals import Intervals, propagated, split


def around(theta, rng, known):
    """Intervals of random widths that hold the differences of given arguments."""
    users = len(theta)
    intervals = Intervals.whole(1, users)
    for k in range(users):
        for j in range(k):
            if rng.random() < known:
                half = rng.uniform(0.01, 2.5)
                middle = theta[k] - theta[j] + rng.uniform(-half, half)
                middle += 2 * np.pi * rng.integers(-1, 2)
                intervals.middle[0, k, j], intervals.middle[0, j, k] = middle, -middle
                intervals.half[0, k, j] = intervals.half[0, j, k] = half
    return intervals


def holds(intervals, theta):
    """Whether every difference lies within its interval, (B,)."""
    away = theta[:, None] - theta - intervals.middle
    away -= 2 * np.pi * np.round(away / (2 * np.pi))
    return (np.abs(away) <= intervals.half + 1e-12).all((1, 2))


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 6), st.floats(0, 1), st.integers(0, 2**32 - 1))
def test_narrowing_loses_nothing(users, known, seed):
    """Arguments within their intervals are within the narrowed ones, which are possible."""
    rng = np.random.default_rng(seed)
    theta = rng.uniform(-np.pi, np.pi, users)
    given_intervals = around(theta, rng, known)
    narrowed, possible = propagated(given_intervals)
    assert possible[0]
    assert holds(narrowed, theta)[0]
    assert (narrowed.half <= given_intervals.half + 1e-12).all()
    np.testing.assert_array_equal(narrowed.middle, -narrowed.middle.swapaxes(1, 2))
    np.testing.assert_array_equal(narrowed.half, narrowed.half.swapaxes(1, 2))


def test_narrowing_finds_what_is_impossible():
    """On a grid of arguments: boxes called impossible hold none, and most empty boxes are found."""
    rng = np.random.default_rng(0)
    grid = np.linspace(0, 2 * np.pi, 73)[:-1]
    one, two = (x.ravel() for x in np.meshgrid(grid, grid))
    called, empty = 0, 0
    for _ in range(200):
        intervals = Intervals.whole(1, 3)
        for k, j in ((0, 1), (1, 2), (0, 2)):
            middle = rng.uniform(-np.pi, np.pi)
            intervals.middle[0, k, j], intervals.middle[0, j, k] = middle, -middle
            intervals.half[0, k, j] = intervals.half[0, j, k] = rng.uniform(0.1, 1.0)
        theta = np.stack([np.zeros_like(one), one, two], axis=1)
        away = theta[:, :, None] - theta[:, None] - intervals.middle
        away -= 2 * np.pi * np.round(away / (2 * np.pi))
        some = (np.abs(away) <= intervals.half).all((1, 2)).any()
        _, possible = propagated(intervals)
        assert possible[0] or not some
        called, empty = called + (not possible[0]), empty + (not some)
    assert 0.8 * empty < called < 200


def test_parts_cover_the_whole():
    """Every argument within an interval is within one of its parts, two or four, of equal width."""
    rng = np.random.default_rng(1)
    for parts in (2, 4):
        theta = rng.uniform(-np.pi, np.pi, 4)
        whole = around(theta, rng, 1.0)
        cut = split(whole, np.array([1]), np.array([3]), parts)
        assert len(cut.half) == parts
        assert holds(cut, theta).sum() >= 1
        np.testing.assert_allclose(cut.half[:, 1, 3], whole.half[0, 1, 3] / parts, rtol=1e-9)
        assert (cut.half[:, 1, 3] >= whole.half[0, 1, 3] / parts).all()
