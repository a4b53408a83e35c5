"""The storage polytope: projection against a quadratic programme, rounding against its mean."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finecast.solvers.heuristics.fractional import (
    diameter,
    draw_caches,
    evenly,
    project,
    round_dependently,
)

sizes = st.lists(st.integers(1, 10**10), min_size=1, max_size=8)


def nearest(point, size, storage):
    """Return the projection by a quadratic programme."""
    y = cp.Variable(len(point))
    unit = size.mean()
    limits = [y >= 0, y <= (size <= storage), (size / unit) @ y <= storage / unit]
    cp.Problem(cp.Minimize(cp.sum_squares(y - point)), limits).solve(
        solver="CLARABEL", tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12
    )
    return y.value


@pytest.mark.parametrize("seed", range(12))
def test_projection_is_the_quadratic_programme(seed):
    """Sizes over three decades, blocks that do not fit, storage from next to none to more than all.

    Clarabel is exact to about 1e-6 in the point.
    """
    rng = np.random.default_rng(seed)
    size = np.round(10 ** rng.uniform(4, 7, 12)).astype(np.int64)
    storage = int(size.sum() * rng.choice([0.02, 0.2, 0.5, 1.5]))
    point = rng.normal(0.5, 10 ** rng.uniform(-1, 1), 12)
    assert project(point, size, storage) == pytest.approx(nearest(point, size, storage), abs=2e-6)


@settings(deadline=None, max_examples=200)
@given(sizes, st.integers(0, 10**11), st.integers(0, 2**32 - 1))
def test_projection_by_its_optimality(size, storage, seed):
    """In the polytope, and no way into it leads nearer: (z - y) . (y' - y) <= 0 for y' in it."""
    size, rng = np.array(size), np.random.default_rng(seed)
    z = rng.normal(0.5, 2.0, len(size))
    y = project(z, size, storage)
    fits = size <= storage
    assert ((y >= 0) & (y <= 1)).all()
    assert (y[~fits] == 0).all()
    assert size @ y <= storage * (1 + 1e-9)
    for _ in range(5):
        other = np.where(fits, rng.random(len(size)), 0.0)
        other *= min(1.0, storage / max(size @ other, 1e-9))
        assert (z - y) @ (other - y) <= 1e-7 * (1.0 + np.abs(z).max())


def test_projection_by_hand():
    """Inside it stays. Equal blocks share what is there; the larger gives way first."""
    size = np.array([2, 2])
    assert project(np.array([0.4, 0.3]), size, 4).tolist() == [0.4, 0.3]
    assert project(np.array([1.0, 1.0]), size, 2) == pytest.approx([0.5, 0.5])
    # z = (1, 1), s = (1, 3), S = 3: 4 - 10 mu = 3, so mu = 0.1 and y = (0.9, 0.7).
    assert project(np.ones(2), np.array([1, 3]), 3) == pytest.approx([0.9, 0.7])
    assert project(np.ones(2), np.array([3, 3]), 2).tolist() == [0.0, 0.0]
    assert project(np.ones(2), size, 0).tolist() == [0.0, 0.0]
    assert project(np.zeros(0), np.zeros(0, dtype=int), 5).tolist() == []


def test_rounding_keeps_the_mean_and_the_bytes():
    """20,000 draws: every block has its mean within 4.5 sigma, and every draw its bytes."""
    size = np.array([3, 1, 4, 1, 5, 9, 2, 6])
    y = project(np.linspace(0.1, 0.9, 8), size, 14)
    rng = np.random.default_rng(0)
    drawn = np.array([round_dependently(y, size, rng) for _ in range(20_000)])
    fractions = (drawn > 0) & (drawn < 1)
    assert fractions.sum(axis=1).max() <= 1
    assert drawn @ size == pytest.approx(np.full(20_000, size @ y))
    assert np.abs(drawn.mean(axis=0) - y).max() < 4.5 * 0.5 / np.sqrt(20_000)
    assert fractions.any()  # bytes do not come out even here: one block is left in part


def test_rounding_of_equal_blocks_is_whole():
    """Two of four blocks of one size: always exactly two, each in half of the draws."""
    rng = np.random.default_rng(1)
    drawn = np.array(
        [round_dependently(np.full(4, 0.5), np.ones(4, int), rng) for _ in range(4000)]
    )
    assert (drawn.sum(axis=1) == 2).all()
    assert np.isin(drawn, [0, 1]).all()
    assert np.abs(drawn.mean(axis=0) - 0.5).max() < 4.5 * 0.5 / np.sqrt(4000)


def test_coupled_rounding_moves_as_little_as_the_fractions():
    """The same seed: of two blocks with room for one, x changes in the share that y moves by."""
    size, held = np.ones(2, int), np.ones((1, 2), dtype=bool)
    changed = 0
    for seed in range(2000):
        first, second = (
            draw_caches(np.array([[part, 1.0 - part]]), held, size, np.array([1]), seed)
            for part in (0.5, 0.6)
        )
        changed += int((first != second).any())
    assert changed / 2000 == pytest.approx(0.1, abs=0.03)  # independent draws would change in 1/2


@settings(deadline=None, max_examples=100)
@given(sizes, st.lists(st.integers(0, 10**11), min_size=1, max_size=3), st.integers(0, 1000))
def test_drawn_caches_fit_to_the_byte(size, storage, seed):
    """Never a byte too much, nothing that is not there, nothing left out that would still fit."""
    size, storage, rng = np.array(size), np.array(storage), np.random.default_rng(seed)
    y = np.stack([project(rng.normal(0.5, 1, len(size)), size, int(s)) for s in storage])
    held = rng.random(y.shape) < 0.7
    keep = draw_caches(y, held, size, storage, seed)
    assert not (keep & ~held).any()
    free = storage - keep @ size
    assert (free >= 0).all()
    assert not (held & ~keep & (size <= free[:, None])).any()


@settings(deadline=None, max_examples=50)
@given(sizes, st.integers(0, 10**11), st.integers(0, 1000))
def test_diameter_is_never_less_than_a_distance(size, storage, seed):
    """Against points of the polytope, corners among them."""
    size, rng = np.array(size), np.random.default_rng(seed)
    points = [project(rng.normal(0.5, 20, len(size)), size, storage) for _ in range(10)]
    distance = max(np.linalg.norm(a - b) for a in points for b in points)
    assert distance <= diameter(size, np.array([storage]))[0] * (1 + 1e-9)


def test_even_fractions():
    """Half of everything where that fits, what fits else, all of the same fraction by bytes."""
    assert evenly(np.ones(4, int), np.array([4, 1, 0])).tolist() == [
        [0.5] * 4,
        [0.25] * 4,
        [0.0] * 4,
    ]
