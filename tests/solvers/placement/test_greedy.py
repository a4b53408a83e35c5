"""The greedy placement against one that computes every saving anew, and where its time is short."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from placement_oracle import random_problem

from finecast.solvers.deadline import Deadline
from finecast.solvers.node_set_tables import OnDemand
from finecast.solvers.placement import greedy
from finecast.solvers.placement.greedy import greedy_placement, greedy_sets
from finecast.solvers.placement.problem import placement_delay


def anew(total: np.ndarray, size: np.ndarray, storage: np.ndarray) -> list[int]:
    """Return the cached sets of a greedy that looks at every copy again in every step."""
    cached, free = [0] * len(size), storage.copy()
    while True:
        best, copy = 0.0, None
        for n in range(len(storage)):
            for j in range(len(size)):
                if size[j] <= free[n]:
                    saved = total[j, cached[j]] - total[j, cached[j] | 1 << n]
                    if saved > best:
                        best, copy = saved, (n, j)
        if copy is None:
            return cached
        n, j = copy
        cached[j] |= 1 << n
        free[n] -= size[j]


def some_costs(rng: np.random.Generator, classes: int, nodes: int) -> np.ndarray:
    """Return (C, 2^N) costs that fall with every further node, all savings different."""
    costs = rng.uniform(1.0, 2.0, (classes, 1 << nodes))
    sets = np.arange(1 << nodes)
    for n in range(nodes):
        has = sets[sets >> n & 1 == 1]
        costs[:, has] = np.minimum(costs[:, has], costs[:, has ^ 1 << n])
    return costs


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32), st.booleans(), st.integers(1, 6))
def test_savings_known_before_or_ahead_change_nothing(seed, lazy, ahead):
    """Blocks of one class share what is known; tables may be computed on demand."""
    rng = np.random.default_rng(seed)
    nodes, blocks = int(rng.integers(1, 5)), int(rng.integers(1, 9))
    # Every block its own class, whose costs differ a little: no ties between blocks.
    costs = some_costs(rng, blocks, nodes)
    size, storage = rng.integers(1, 5, blocks), rng.integers(0, 12, nodes)
    table = OnDemand(blocks, lambda row, sets: costs[row, sets]) if lazy else costs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(greedy, "AHEAD", ahead)
        found = greedy_sets(table, size, storage)
        shared = greedy_sets(table, np.tile(size, 2), storage, np.tile(np.arange(blocks), 2))
        alone = greedy_sets(np.tile(costs, (2, 1)), np.tile(size, 2), storage)
    assert found.tolist() == anew(costs, size, storage)
    assert shared.tolist() == alone.tolist()


def test_without_time_every_block_gets_its_first_copy():
    """Where there is room for all, no block is left out, and the plan beats empty caches."""
    rng = np.random.default_rng(3)
    for _ in range(5):
        problem = random_problem(rng, 4, 10, 3)
        problem = replace(problem, storage=np.full(4, problem.block_size.sum()))
        late = greedy_placement(problem, Deadline.after(0.0))
        empty = greedy_placement(replace(problem, storage=np.zeros(4, dtype=np.int64)))
        needed = (problem.group >= 0).any(axis=0)
        assert (late.cache.any(axis=(0, 1)) == needed).all()
        assert (late.cache.sum(axis=1) <= 1).all()
        assert placement_delay(problem, late) < placement_delay(problem, empty)
