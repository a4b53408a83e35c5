"""Bounds by whole fillings of storages: against all placements and fillings, and by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from placement_oracle import optimum, random_problem

from finecast.solvers.deadline import Deadline
from finecast.solvers.placement.bound import Prices, dual_point, no_prices
from finecast.solvers.placement.chains import classes
from finecast.solvers.placement.exact.certify import EXACT_LIMITS, SEARCH_LIMITS, certified
from finecast.solvers.placement.hulls import (
    MOST_BLOCKS,
    Fillings,
    cheapest_within,
    hull_ascent,
    hull_bound,
)
from finecast.solvers.placement.problem import PlacementProblem, placement_delay
from finecast.solvers.placement.search import joint_responses, lagrangian
from finecast.solvers.placement.search.dual_ascent import best_prices
from finecast.solvers.placement.search.lagrangian import dual_bound, place_by_prices
from finecast.solvers.placement.search.sweeps import Assignment


@pytest.mark.parametrize("seed", range(50))
def test_fillings_against_all_subsets(seed: int) -> None:
    """The largest worth that fits, with a filling that has it; storages of nothing and of all."""
    rng = np.random.default_rng([41, seed])
    blocks = int(rng.integers(1, 9))
    size = rng.integers(1, 40, blocks)
    storage = np.array([0, size.sum(), *rng.integers(0, size.sum() + 1, 2)])
    worth = rng.random((2, 4, blocks)) * (rng.random((2, 4, blocks)) < 0.8)
    value, chosen = Fillings(size, storage).best(worth)
    subsets = np.array(list(product([0, 1], repeat=blocks)))
    for t, n in np.ndindex(value.shape):
        fits = subsets[subsets @ size <= storage[n]]
        assert value[t, n] == pytest.approx((fits @ worth[t, n]).max(), rel=1e-12, abs=1e-12)
        assert size[chosen[t, n]].sum() <= storage[n]
        assert worth[t, n, chosen[t, n]].sum() == pytest.approx(value[t, n], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("seed", range(30))
def test_the_bound_is_below_all_placements_and_above_that_of_the_prices(seed: int) -> None:
    """Random problems of up to 3 nodes, 4 blocks and 3 slots, at any prices, and cut short."""
    rng = np.random.default_rng([42, seed])
    nodes, blocks, slots = (int(rng.integers(1, most)) for most in (4, 5, 4))
    while nodes * slots * blocks > 12:  # the oracle tries 2 to the power of that
        blocks, slots = (blocks - 1, slots) if blocks > 2 else (blocks, slots - 1)
    problem = random_problem(rng, nodes, blocks, slots)
    tables = classes(problem)
    best = optimum(problem)
    anywhere = Prices(rng.exponential(0.5, (slots, nodes)))
    for prices in (
        no_prices(problem),
        anywhere,
        best_prices(problem, tables, tolerance=1e-6).prices,
    ):
        least = dual_point(problem, tables, prices).bound
        for goal in (best, 1.5 * best + 1.0):
            bound = hull_bound(problem, tables, prices, goal)
            assert least * (1 - 1e-9) <= bound <= best
        over = hull_bound(problem, tables, prices, best, deadline=Deadline.after(0.0))
        assert least * (1 - 1e-9) <= over <= best


def test_three_blocks_of_which_two_fit() -> None:
    """Room for 25 bytes, blocks of 10: shares fill it, whole blocks fill 20.

    1 second per byte on the air and 3 from the cloud: 30 + 3 x 10 seconds, 30 + 3 x 5 by prices.
    """
    table = np.array([[np.inf, 1.0]])
    link = np.array([[np.inf], [3.0]])
    problem = PlacementProblem([10] * 3, [25], [[0] * 3], (table,), link)
    tables = classes(problem)
    prices = Prices(np.array([[3.0]]))
    assert dual_point(problem, tables, prices).bound == pytest.approx(45.0)
    assert hull_bound(problem, tables, prices, 60.0) == pytest.approx(60.0)
    # Beyond the blocks of which all fillings are formed there is no bound.
    many = replace(problem, block_size=[10] * (MOST_BLOCKS + 1), group=[[0] * (MOST_BLOCKS + 1)])
    assert hull_bound(many, classes(many), prices, 60.0) == 0.0
    pipelined = replace(problem, schedule="pipelined")
    assert hull_bound(pipelined, classes(pipelined), prices, 60.0) == 0.0


def test_large_blocks_over_slots_get_a_better_bound_than_by_prices() -> None:
    """3 nodes, 12 blocks, 4 slots: hulls lift the bound, also where paths are too many to list."""
    rng = np.random.default_rng(7)
    problem = random_problem(rng, 3, 12, 4)
    found = place_by_prices(problem)
    assert found.prices is not None
    by_prices = dual_bound(problem)
    few = replace(EXACT_LIMITS, paths=10)
    for limits in (few, replace(SEARCH_LIMITS, labels=0, parts=1)):
        proof = certified(problem, found.placement, found.prices, gap=1e-6, limits=limits)
        assert proof is not None
        assert by_prices * (1 + 1e-4) < proof.lower_bound
        plan = found.placement if proof.placement is None else proof.placement
        assert proof.lower_bound <= placement_delay(problem, plan)
    # Without the tree, as in the first and short try of a proof, there are no hulls either.
    assert (
        certified(problem, found.placement, found.prices, gap=1e-6, limits=replace(few, parts=0))
        is None
    )


@pytest.mark.parametrize("seed", range(20))
def test_what_a_filling_allows_is_the_fastest_placement_within_it(seed: int) -> None:
    """Nothing outside is cached, the delay is what was said, and no placement within is faster."""
    rng = np.random.default_rng([43, seed])
    problem = random_problem(rng, 2, 3, 2)
    tables = classes(problem)
    found = hull_ascent(problem, tables, no_prices(problem), 2.0 * optimum(problem))
    assert (found.fillings @ problem.block_size <= problem.storage).all()
    filling = found.fillings[int(rng.integers(len(found.fillings)))]
    delay, paths = cheapest_within(problem, tables, filling)
    placement = Assignment(problem, tables, paths).placement
    assert not (placement.cache & ~filling).any()
    assert placement_delay(problem, placement) == pytest.approx(delay, rel=1e-12)
    held = (np.arange(4)[:, None] >> np.arange(2)) & 1 == 1
    outside = (held[None, :, :, None] & ~filling[:, None]).any(axis=2)
    assert delay == pytest.approx(optimum(problem, 1e9 * outside), rel=1e-12)


def test_a_search_of_few_blocks_also_starts_from_fillings(monkeypatch: pytest.MonkeyPatch) -> None:
    """First from the best placement, then from another, and the bound is that of the hulls."""
    problem = random_problem(np.random.default_rng(7), 3, 12, 4)
    delays = []
    respond = lagrangian.respond_together

    def told(assignment: Assignment, *rest: Any, **options: Any) -> Assignment:
        delays.append(placement_delay(problem, assignment.placement))
        return respond(assignment, *rest, **options)

    monkeypatch.setattr(lagrangian, "respond_together", told)
    monkeypatch.setattr(lagrangian, "whose_turn", lambda efforts, floor: len(efforts) - 1)
    monkeypatch.setattr(joint_responses, "TURN_WORK", 0.05)
    found = place_by_prices(problem)
    first, other = delays[:2]
    assert other != first
    assert dual_bound(problem) * (1 + 1e-4) < found.lower_bound <= found.delay <= min(first, other)
