"""LRU, LFU, popularity and random placement, worked out on paper."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from by_hand import separate_models

from finecast.problem.library import ModelLibrary
from finecast.solvers.heuristics.popularity import most_popular
from finecast.solvers.heuristics.random import RandomBlocks
from finecast.solvers.heuristics.replacement import LeastFrequentlyUsed, LeastRecentlyUsed
from finecast.solvers.heuristics.rules import keep_by_cost
from finecast.solvers.node_set_tables import members, node_sets
from finecast.solvers.online import observation_of, prepare_slots, prior_of, run_online
from finecast.solvers.placement.fill import fill, keep_by_score
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.solve import solve


def rolled(instance, policy):
    """Return per slot the cached blocks of node 0."""
    slots, prior = prepare_slots(instance), prior_of(instance)
    placement = run_online(
        policy, prior, (observation_of(instance, prior, t, s) for t, s in enumerate(slots))
    )
    return [np.flatnonzero(cache[0]).tolist() for cache in placement.cache], placement


REQUESTS = [[0], [1], [0], [2], [1]]
"""One user, one node that holds two of four blocks; 3 and 2 are the most popular at first."""


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        # 0 used in slot 0; 2 and 3 never, of which the first stays. Then the two used last.
        (LeastRecentlyUsed(initial="own"), [[2, 3], [0, 2], [0, 1], [0, 1], [0, 2]]),
        # After slot 3, block 0 counts 2, blocks 1 and 2 count 1 each: the first of them stays.
        (LeastFrequentlyUsed(1.0, initial="own"), [[2, 3], [0, 2], [0, 1], [0, 1], [0, 1]]),
        # Halved every slot: 0 counts 1/8 + 1/2, 1 counts 1/4, 2 counts 1.
        (LeastFrequentlyUsed(0.5, initial="own"), [[2, 3], [0, 2], [0, 1], [0, 1], [0, 2]]),
    ],
)
def test_replacement_by_hand(policy, expected):
    """One node, storage for two: what is held when each slot begins, and what is fetched."""
    instance = separate_models(REQUESTS, models=4, storage=[2])
    cached, placement = rolled(instance, policy)
    assert cached == expected
    for t, ((model,), held) in enumerate(zip(REQUESTS, expected, strict=True)):
        source = np.full(4, -1)
        if model not in held:
            source[model] = 1  # the cloud, the only other place there is
        assert placement.source[t, 0].tolist() == source.tolist()


def test_recency_comes_before_frequency():
    """LRU: a block asked for by all users long ago goes before one asked for by one just now."""
    instance = separate_models([[0, 0, 0], [1, -1, -1], [-1, -1, -1]], models=3, storage=[1])
    cached, _ = rolled(instance, LeastRecentlyUsed(initial="own"))
    assert cached == [[2], [0], [1]]
    cached, _ = rolled(instance, LeastFrequentlyUsed(0.8, initial="own"))
    assert cached == [[2], [0], [0]]  # 3 x 0.8 against 1


@pytest.mark.parametrize(("early", "late", "kept"), [(4, 3, 0), (6, 5, 1)])
def test_lfu_by_default_forgets_a_fifth_each_slot(early, late, kept):
    """Block 0 is requested `early` times, block 1 a slot later `late` times.

    The method lfu keeps block 0 where 0.8 early > late: the two cases bracket its decay between
    3/4 and 5/6. With a decay of 1 block 0 stays in both.
    """
    instance = separate_models(
        [[0] * early, [1] * late + [-1] * (early - late), [-1] * early], models=3, storage=[1]
    )
    for decay, block in ((None, kept), (1.0, 0)):
        options = {} if decay is None else {"decay": decay}
        cache = solve(instance, "lfu", **options).solution.cache
        assert np.flatnonzero(cache[2, 0]).tolist() == [block]


@pytest.mark.parametrize("method", [LeastRecentlyUsed, LeastFrequentlyUsed])
def test_uses_count_where_they_were_served(method):
    """Block 1 is wanted three times while node 1 cannot have it, then both blocks while it can.

    Node 1 has room for one of the two. By the system block 1 was used four times and stays. By what
    node 1 served, each was used once, and the first stays. Node 0 has served block 1 all along.
    """
    prior = prior_of(separate_models([[0, 0]], models=3, storage=[1, 1]))
    for counts, expected in (("system", [1, 1]), ("served", [1, 0])):
        policy = method(counts=counts)
        policy.place(prior)
        cache = np.array([[False, True, False], [False, False, True]])
        for t, requests in enumerate([[1, -1], [1, -1], [1, -1], [1, 0]]):
            wanted = [j for j in requests if j >= 0]
            group = np.full((1, 3), -1)
            group[0, wanted] = 0
            seconds = 100.0 if t < 3 else 0.1
            problem = PlacementProblem(
                np.ones(3, int), [1, 1], group, ([[np.inf, 1.0, 1.0, 0.5]],),
                [[np.inf, seconds], [seconds, np.inf], [seconds, seconds]],
            )  # fmt: skip
            seen = SimpleNamespace(problem=problem, t=t, prior=prior, requests=np.array([requests]))
            _, cache = policy.act(seen, cache)
            assert cache[0, 1]
            assert t == 3 or cache[1, 2]
        assert [np.flatnonzero(row).tolist() for row in cache] == [[j] for j in expected]


def test_decay_is_refused_out_of_range():
    """A decay of 0 or above 1 is named, by the method too."""
    instance = separate_models([[0]], models=2, storage=[1])
    for decay in (0.0, 1.5):
        with pytest.raises(ValueError, match="decay"):
            solve(instance, "lfu", decay=decay)


def prior_with_shared_blocks():
    """Return a prior: models {0, 1}, {0, 2}, {3}, wanted with 0.2, 0.3, 0.5; sizes 4, 2, 3, 5."""
    instance = separate_models([[0]], models=4, storage=[9, 8, 3])
    library = ModelLibrary(
        np.array([4, 2, 3, 5]),
        np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=bool),
    )
    prior = prior_of(instance)
    demand = type(prior.demand)(np.array([[[0.2, 0.3, 0.5]]]), 0.0, np.ones(1))
    return type(prior)(library, prior.network, demand, prior.link)


def test_most_popular_by_hand():
    """Blocks 0 and 3 are wanted with 0.5, 2 with 0.3, 1 with 0.2; models by their own numbers.

    Blocks, node 0 (9 byte): 0 and 3 fill it. Node 1 (8): 0 leaves 4, 3 does not fit, 2 does.
    Node 2 (3): only 2 fits, of those left. Models, node 0: 2 (5 byte), then neither other one
    (6 more). Node 1: 2; node 2: none.
    """
    prior = prior_with_shared_blocks()
    assert most_popular(prior).tolist() == [
        [True, False, False, True],
        [True, False, True, False],
        [False, False, True, False],
    ]
    assert most_popular(prior, "model").tolist() == [
        [False, False, False, True],
        [False, False, False, True],
        [False, False, False, False],
    ]
    with pytest.raises(ValueError, match="unit"):
        most_popular(prior, "byte")


def test_models_share_what_is_there():
    """7 of 9 byte for model 1; model 0 then needs 2 more, where a copy of its own would need 6."""
    prior = prior_with_shared_blocks()
    demand = type(prior.demand)(np.array([[[0.4, 0.5, 0.1]]]), 0.0, np.ones(1))
    prior = type(prior)(prior.library, prior.network, demand, prior.link)
    assert most_popular(prior, "model")[0].tolist() == [True, True, True, False]  # 4 + 3, then 2


def test_random_is_full_and_by_seed():
    """Nothing that is left out would still fit; another seed gives other caches."""
    prior = prior_of(separate_models([[0]], models=12, storage=[5, 0, 12]))
    one, two = (RandomBlocks(seed).place(prior) for seed in (0, 1))
    assert one.sum(axis=1).tolist() == [5, 0, 12]
    assert not np.array_equal(one, two)


def test_fill_skips_what_does_not_fit():
    """In the order 2, 0, 1 with 5 byte: 3 fits, 4 does not, 2 does."""
    assert fill(np.array([2, 0, 1]), np.array([4, 2, 3]), 5).tolist() == [False, True, True]


def test_keep_by_score_keeps_only_what_is_held():
    """The best block is not there; of those there, the better first."""
    held = np.array([[False, True, True]])
    keep = keep_by_score(np.array([9.0, 1.0, 2.0]), held, np.ones(3, int), np.array([1]))
    assert keep.tolist() == [[False, False, True]]


def test_keeping_in_turn_shares_the_work():
    """Two nodes, two blocks, storage for one each: in turn they keep both, at once the same one.

    The first copy of block 0 saves 3, of block 1 saves 2, a second copy 1 each.
    """
    cost = np.array([[3.0, 0.0, 0.0, -1.0], [2.0, 0.0, 0.0, -1.0]])
    held, size, storage = np.ones((2, 2), dtype=bool), np.ones(2, int), np.ones(2, int)
    nobody = np.zeros(2, dtype=int)
    in_turn = keep_by_cost(cost, held, size, storage, nobody)
    assert in_turn.tolist() == [[True, False], [False, True]]
    at_once = keep_by_cost(cost, held, size, storage, nobody, in_turn=False)
    assert at_once.tolist() == [[True, False], [True, False]]


def test_second_round_knows_the_others():
    """Node 0 first counts on node 1 to keep block 0, which it does not hold; then it knows."""
    cost = np.array([[3.0, 0.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0]])
    held = np.array([[True, True], [False, True]])
    size, storage, expected = np.ones(2, int), np.ones(2, int), np.array([2, 0])
    once = keep_by_cost(cost, held, size, storage, expected)
    twice = keep_by_cost(cost, held, size, storage, expected, rounds=2)
    assert once.tolist() == [[False, True], [False, True]]
    assert twice.tolist() == [[True, False], [False, True]]


def test_node_sets_and_back():
    """Bit n is node n."""
    cache = np.array([[True, False, True], [False, False, True]])
    assert node_sets(cache).tolist() == [1, 0, 3]
    assert np.array_equal(members(node_sets(cache), 2).T, cache)
