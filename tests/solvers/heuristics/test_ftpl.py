"""The perturbed leader: its linear programme against enumeration, and pipage rounding."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from placement_oracle import random_problem

from finecast.solvers.heuristics.ftpl import (
    ALL_SUBSETS,
    added,
    options,
    perturbed,
    pipage,
    relaxed_leader,
    saving_of,
)
from finecast.solvers.node_set_tables import OnDemand, members, node_sets
from finecast.solvers.placement.greedy import total_cost


def leader_problem(seed, nodes=3, blocks=4):
    """Return the cost (J, 2^N) of two slots with noise, what is held, sizes and storage."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, nodes, blocks, 2)
    cost = perturbed([total_cost(problem)], rng.normal(0, 0.1, (nodes, blocks)))
    table = cost[np.arange(blocks)[:, None], np.arange(1 << nodes)]
    held = node_sets(rng.random((nodes, blocks)) < 0.8)
    return table, held, problem.block_size, problem.storage


def value(y, table, size):
    """Return the multilinear extension at y (N, J), from its definition."""
    inside = members(np.arange(table.shape[1]), len(y))
    chance = np.prod(np.where(inside[:, :, None], y, 1.0 - y), axis=1)  # (2^N, J)
    return float((size * (chance * table.T).sum(axis=0)).sum())


def best_whole(table, held, size, storage):
    """Return the least cost over all whole placements of what is held."""
    best = np.inf
    choices = [[s for s in range(table.shape[1]) if s & ~q == 0] for q in held.tolist()]
    for sets in product(*choices):
        inside = members(np.array(sets), len(storage))
        if (size @ inside <= storage).all():
            best = min(best, float((size * table[np.arange(len(size)), list(sets)]).sum()))
    return best


@pytest.mark.parametrize("seed", range(8))
def test_the_relaxation_is_fractional_at_few_blocks_and_within_storage(seed):
    """At most one more set a row of storage; only what is held; every byte within the tolerance."""
    table, held, size, storage = leader_problem(seed)
    y = relaxed_leader(table, held, held, size, storage)
    assert (y[~members(held, 3).T] == 0).all()
    assert (y @ size <= storage * (1 + 1e-6)).all()
    parts = ((y > 1e-6) & (y < 1 - 1e-6)).any(axis=0)
    assert parts.sum() <= 3


@pytest.mark.parametrize("seed", range(8))
def test_the_leader_where_storage_does_not_bind(seed):
    """With room for everything the relaxation is whole, and the best of all placements."""
    table, held, size, _ = leader_problem(seed)
    storage = np.full(3, int(size.sum()))
    y = relaxed_leader(table, held, held, size, storage)
    assert value(y, table, size) == pytest.approx(best_whole(table, held, size, storage))


@pytest.mark.parametrize("seed", range(20))
def test_pipage_never_costs(seed):
    """From any fractions: one fraction a node at most, the same bytes, no larger cost."""
    table, _, size, _ = leader_problem(seed)
    y = np.random.default_rng(seed).random((3, 4))
    rounded = pipage(y, table, size)
    assert ((rounded > 0) & (rounded < 1)).sum(axis=1).max() <= 1
    assert rounded @ size == pytest.approx(y @ size)
    assert value(rounded, table, size) <= value(y, table, size) + 1e-9


def test_saving_of_a_copy_is_the_slope():
    """By the definition of the extension, with whole and absent copies among the others."""
    table, _, size, _ = leader_problem(1)
    for y in ([0.3, 0.6, 0.2], [0.3, 1.0, 0.0], [0.5, 0.0, 0.0]):
        up, down = np.zeros((3, 4)), np.zeros((3, 4))
        up[:, 2], down[:, 2] = y, y
        up[0, 2], down[0, 2] = 1.0, 0.0
        slope = (value(down, table, size) - value(up, table, size)) / size[2]
        assert saving_of(np.array(y), 0, 2, table) == pytest.approx(slope)


def test_options():
    """All subsets of few nodes; of many, those near what there is, all of them within."""
    assert options(0b101, 0b001, 3) == (0b001, 0b100, 0b101)
    assert options(0, 0, 3) == ()
    within = (1 << (ALL_SUBSETS + 2)) - 1
    many = options(within, 0b11, 8)
    assert {0b1, within, 0b11, 0b111, within & ~0b1} <= set(many)
    assert all(s and not s & ~within for s in many)


def test_costs_add_up_as_arrays_and_on_demand():
    """Two slots, as arrays and by functions: the same sum, less the noise of the set."""
    rng = np.random.default_rng(2)
    one, two = rng.random((2, 3, 4))
    lazy = [OnDemand(3, lambda j, x, table=table: table[j, x]) for table in (one, two)]
    noise = np.array([[0.5, 0.0, 0.0], [0.25, 0.0, 0.0]])
    block, sets = np.arange(3)[:, None], np.arange(4)
    arrays = added(added([], one), two)
    assert len(arrays) == 1
    expected = one + two
    expected[0] -= [0.0, 0.5, 0.25, 0.75]
    for costs in (arrays, added(added([], lazy[0]), lazy[1])):
        assert perturbed(costs, noise)[block, sets] == pytest.approx(expected)
