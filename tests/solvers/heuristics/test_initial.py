"""x[0]: the same for all online methods that adapt, or their own."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import separate_models
from repository import TINY

from finecast.problem.scenario import read_scenario
from finecast.solvers.heuristics.expected import prior_tables
from finecast.solvers.heuristics.expected_on_demand import prior_cost
from finecast.solvers.heuristics.greedy_online import greedy_by_popularity
from finecast.solvers.heuristics.popularity import most_popular
from finecast.solvers.heuristics.rolling import Rolling
from finecast.solvers.online import prior_of
from finecast.solvers.registry import method_of

ADAPTIVE = ["lru", "lfu", "own-savings", "qlru-delta", "qlru-hs", "bsca", "ftpl", "oftrl"]


def prior_of_scenario(**changes):
    """Return the prior of a draw of the scenario `tiny`."""
    return prior_of(read_scenario(TINY).with_(changes).generate(0))


@pytest.mark.parametrize("name", ADAPTIVE)
def test_all_begin_alike_by_default(name):
    """x[0] is that of `rolling`, so that a comparison is of how methods adapt."""
    prior = prior_of_scenario()
    expected = Rolling().place(prior)
    assert np.array_equal(method_of(name).load()().place(prior), expected)
    own = method_of(name).load()(initial="own").place(prior)
    assert (own @ prior.library.block_size <= prior.network.storage).all()
    assert not np.array_equal(own, expected)
    if name in ADAPTIVE[:5]:
        assert np.array_equal(own, most_popular(prior))


@pytest.mark.parametrize("name", ["bsca", "ftpl", "oftrl"])
def test_own_beginnings_are_drawn_by_the_seed(name):
    """Methods without regret begin with no preference: random blocks, full, by the seed."""
    prior = prior_of(separate_models([[0]], models=12, storage=[5, 0, 12]))
    method = method_of(name).load()
    one, again, other = (method(initial="own", seed=seed).place(prior) for seed in (0, 0, 1))
    assert one.sum(axis=1).tolist() == [5, 0, 12]
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("restrictions", [(), ("unicast",), ("no-comp",), ("no-migration",)])
def test_expected_cost_on_demand_is_the_table(restrictions):
    """Every block and every set of three nodes, over one slot and all, under every restriction."""
    instance = read_scenario(TINY).with_({"nodes.count": 3, "slots": 3}).generate(1)
    prior = prior_of(instance, frozenset(restrictions))
    block, sets = np.arange(prior.library.blocks)[:, None], np.arange(8)
    for slots in (1, None):
        table = prior_tables(prior).cost[:slots].sum(axis=0)
        assert prior_cost(prior, slots)[block, sets] == pytest.approx(table, rel=1e-12)


def test_twenty_nodes_begin_greedily_too():
    """Where a table of all node sets is out of reach; the storage is used, and not all alike."""
    prior = prior_of_scenario(**{"nodes.count": 20, "nodes.storage_share": 0.2})
    cache = greedy_by_popularity(prior, 1)
    used = cache @ prior.library.block_size
    assert (used <= prior.network.storage).all()
    assert (used > 0).all()
