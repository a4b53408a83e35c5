"""Storage to the byte: what a solver's tolerance lets in is no placement, and hides none.

A block of 10 GB and one of 5 GB, and room for one byte less than both. A share of 1e-9 of the
storage is 15 bytes.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from placement_oracle import optimum, random_problem

from finecast.solvers.placement.exact.by_pyomo import place_by_milp
from finecast.solvers.placement.exact.state_flow import place_by_state_flow
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.placement.search.lagrangian import place_by_prices

GIGABYTE = 10**9


@pytest.mark.parametrize("place", [place_by_state_flow, place_by_milp, place_by_prices])
@pytest.mark.parametrize(("missing", "delay"), [(1, 16.0), (0, 13.5)])
def test_two_blocks_that_miss_one_byte(place, missing, delay):
    """Node 0 sends in 1 s/GB, node 1 in 1.2, both in 0.9; a link takes 4 s/GB, the cloud 8 or 9.

    With room for both blocks everywhere: 15 x 0.9 = 13.5 s. One byte short of it, the larger goes
    to node 0 and the smaller to node 1: 10 x 1 + 5 x 1.2 = 16 s.
    """
    problem = PlacementProblem(
        block_size=[10 * GIGABYTE, 5 * GIGABYTE],
        storage=[15 * GIGABYTE - missing] * 2,
        group=[[0, 0]],
        broadcast=([[np.inf, 1e-9, 1.2e-9, 0.9e-9]],),
        link=[[np.inf, 4e-9], [4e-9, np.inf], [8e-9, 9e-9]],
    )
    found = place(problem)
    assert found.delay == pytest.approx(delay)
    # Storage prices alone let a node cache the share of a block: 13.5 s.
    least = 13.5 if place is place_by_prices else delay
    assert least * (1 - 1e-6) <= found.lower_bound <= delay * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_storages_one_byte_short_of_some_blocks(seed):
    """Sizes of 5 to 20 GB, every storage a byte less than some of them: the optimum by trial."""
    rng = np.random.default_rng(seed)
    drawn = random_problem(rng, 2, 4, 2)
    size = rng.integers(5, 21, 4) * GIGABYTE + rng.integers(0, 3, 4)
    sums = [size[list(some)].sum() for n in (1, 2, 3) for some in combinations(range(4), n)]
    problem = replace(drawn, block_size=size, storage=rng.choice(sums, 2) - 1)
    best = optimum(problem)
    for place in (place_by_state_flow, place_by_milp):
        found = place(problem)
        assert found.delay == pytest.approx(best, rel=1e-6)
        assert found.lower_bound <= best * (1 + 1e-9)
