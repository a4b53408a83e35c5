"""Layers: their bounds in exact arithmetic, their optima against all choices, twins in order."""

from __future__ import annotations

from fractions import Fraction
from itertools import product

import numpy as np
import pytest

from finecast.solvers.deadline import Deadline
from finecast.solvers.placement.exact.layers import _bounds, _Labels, prove_by_layers
from finecast.solvers.placement.exact.tree import prove
from finecast.solvers.placement.exact.useful_paths import UsefulPaths


def drawn(seed: int, blocks: int, most: int, storages: int, twins: bool = False) -> UsefulPaths:
    """Draw paths of every block, one of them nowhere; with twins every second block is like the
    one before it."""
    rng = np.random.default_rng([31, seed])
    size = rng.integers(1, 30, blocks)
    bits = rng.random((blocks, most, storages)) < 0.5
    bits[:, 0] = False
    cost = size[:, None] * rng.uniform(0.1, 3.0, (blocks, most))
    cost[rng.random((blocks, most)) < 0.2] = np.inf
    cost[:, 0] = size * rng.uniform(3.0, 4.0, blocks)
    if twins:
        like = np.arange(blocks) // 2 * 2
        size, bits, cost = size[like], bits[like], cost[like]
    copies = bits @ (1 << np.arange(storages))
    storage = rng.integers(0, size.sum() + 1, storages)
    return UsefulPaths(cost, copies, bits * size[:, None, None], storage)


def fastest(paths: UsefulPaths) -> float:
    """Return the delay of the fastest choice of paths that fits, by trial of all."""
    blocks = np.arange(len(paths.cost))
    best = np.inf
    for choice in product(range(paths.cost.shape[1]), repeat=len(blocks)):
        if (paths.holds[blocks, choice].sum(axis=0) <= paths.storage).all():
            best = min(best, float(paths.cost[blocks, choice].sum()))
    return best


@pytest.mark.parametrize("twins", [False, True])
@pytest.mark.parametrize("seed", range(40))
def test_layers_against_all_choices_and_the_tree(seed: int, twins: bool) -> None:
    """The fastest choice and a bound at it; cut short anywhere, or out of time, the bound holds."""
    paths = drawn(seed, 6, 3, 2, twins)
    best = fastest(paths)
    slowest = float(paths.cost[:, 0].sum()) * 1.001
    for prices in (np.zeros(2), np.array([0.3, np.nan]), np.array([1e6, -1.0])):
        proof = prove_by_layers(paths, prices, slowest, gap=1e-9, most=10**6)
        assert proof.complete
        assert proof.choice is not None
        held = paths.holds[np.arange(6), proof.choice].sum(axis=0)
        assert (held <= paths.storage).all()
        cost = float(paths.cost[np.arange(6), proof.choice].sum())
        assert cost == pytest.approx(best, rel=1e-12)
        assert best * (1 - 1e-8) <= proof.lower_bound <= best
    tree = prove(paths, np.zeros(2), slowest, gap=1e-9, most=10**6)
    assert proof.lower_bound == pytest.approx(tree.lower_bound, rel=1e-8)
    for most in (0, 2, 5, 10, 30):
        short = prove_by_layers(paths, np.zeros(2), slowest, gap=1e-9, most=most)
        assert short.lower_bound <= best
        assert short.complete or short.choice is None
        beam = prove_by_layers(paths, np.zeros(2), slowest, gap=1e-9, most=most, drop=True)
        assert beam.lower_bound <= best
        if beam.choice is not None:
            held = paths.holds[np.arange(6), beam.choice].sum(axis=0)
            assert (held <= paths.storage).all()
            assert paths.cost[np.arange(6), beam.choice].sum() >= best * (1 - 1e-12)
        if beam.complete:
            assert beam.lower_bound == pytest.approx(best, rel=1e-8)
    late = prove_by_layers(
        paths, np.zeros(2), slowest, gap=1e-9, most=10**6, deadline=Deadline.after(0)
    )
    assert not late.complete
    assert late.lower_bound <= best


@pytest.mark.parametrize("seed", range(10))
def test_nothing_below_the_delay(seed: int) -> None:
    """Against the fastest choice itself, or a delay below it, there is no choice but a bound."""
    paths = drawn(seed, 5, 3, 2)
    best = fastest(paths)
    for delay in (best, 0.9 * best):
        proof = prove_by_layers(paths, np.zeros(2), delay, gap=1e-6, most=10**6)
        assert proof.complete
        assert proof.choice is None
        assert delay * (1 - 2e-6) <= proof.lower_bound <= delay


@pytest.mark.parametrize("seed", range(20))
def test_bounds_of_labels_in_exact_arithmetic(seed: int) -> None:
    """A bound lies below the exact Lagrangian of the rest, by a share of 1e-12 of its terms."""
    rng = np.random.default_rng([32, seed])
    paths = drawn(seed, 6, 4, 3)
    rest = np.arange(3, 6)
    chosen = rng.integers(0, 4, (50, 3))
    chosen[~np.isfinite(paths.cost[np.arange(3), chosen])] = 0
    cost = paths.cost[np.arange(3), chosen].sum(axis=1)
    used = paths.holds[np.arange(3), chosen].sum(axis=1)
    labels = _Labels(cost, used, np.zeros(50, np.int64), np.zeros(50, np.int64))
    for height in (1e-3, 1.0, 1e6):
        prices = height * rng.random(3)
        bounds = _bounds(paths, rest, labels, prices)
        price = [Fraction(float(p)) for p in prices]
        gain = sum(
            min(
                Fraction(float(paths.cost[j, k]))
                + sum(p * int(b) for p, b in zip(price, paths.holds[j, k], strict=True))
                for k in np.flatnonzero(np.isfinite(paths.cost[j]))
            )
            for j in rest
        )
        for bound, row, have in zip(bounds, chosen, used, strict=True):
            paid = sum(Fraction(float(paths.cost[j, k])) for j, k in enumerate(row))
            left = sum(
                p * (int(s) - int(u)) for p, s, u in zip(price, paths.storage, have, strict=True)
            )
            exact = paid + gain - left
            assert Fraction(float(bound)) <= exact
            terms = float(paid + gain) + 2 * float(prices @ paths.storage)
            assert float(exact) - bound <= 1e-12 * max(1.0, terms)


def test_twins_are_ordered() -> None:
    """Eight equal blocks with two paths each: nine counts of cached blocks, and not 256 choices."""
    paths = UsefulPaths(
        np.array([[1.0, 4.0]] * 8), np.array([[1, 0]] * 8),
        np.array([[[10], [0]]] * 8), np.array([35]),
    )  # fmt: skip
    proof = prove_by_layers(paths, np.zeros(1), 100.0, gap=1e-9, most=10**6)
    assert proof.lower_bound == pytest.approx(3 * 1.0 + 5 * 4.0, rel=1e-9)
    assert proof.labels <= sum(range(2, 10))
