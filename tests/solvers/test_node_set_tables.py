"""Sets of any number of nodes: the same answers in one word and in Python's integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_many_nodes import wide

from finecast.solvers import node_set_tables
from finecast.solvers.node_set_tables import (
    OnDemand,
    bits,
    distinct,
    lies_within,
    mask_type,
    members,
    node_sets,
    sets_of,
    words,
)
from finecast.solvers.placement.greedy import best_levels, greedy_placement
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.solve import solve


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([1, 5, 62, 63, 64, 65, 70, 130]), st.integers(0, 2**32))
def test_sets_are_what_python_says(nodes, seed):
    """Masks, members, subsets and distinct pairs, against sums and sets of Python's own."""
    held = np.random.default_rng(seed).random((3, 6, nodes)) < 0.5
    held[0, 0], held[0, 1] = False, True
    held[1] = held[0]
    masks = sets_of(held)
    expected = [
        [sum(1 << n for n in np.flatnonzero(row).tolist()) for row in rows] for rows in held
    ]
    assert masks.tolist() == expected
    assert masks.dtype == mask_type(nodes)
    assert node_sets(np.moveaxis(held, 2, 1)).tolist() == expected
    assert np.array_equal(members(masks, nodes), held)
    assert bits(nodes).tolist() == [1 << n for n in range(nodes)]
    inside = lies_within(words(masks)[:, :, None], words(masks)[:, None])
    assert inside.tolist() == [[[a & ~b == 0 for b in row] for a in row] for row in expected]
    index = np.repeat([0, 1, 0], 6)
    (first, second), which = distinct(index, masks.ravel())
    pairs = list(zip(index.tolist(), masks.ravel().tolist(), strict=True))
    found = list(zip(first.tolist(), second.tolist(), strict=True))
    assert found == sorted(set(pairs))
    assert [found[i] for i in which] == pairs


def test_words_of_different_numbers():
    """A set of few nodes within one of many, and not the other way round."""
    few, many = np.array([5]), np.array([5 + (1 << 100)], dtype=object)
    assert lies_within(words(few), words(many)).tolist() == [True]
    assert lies_within(words(many), words(few)).tolist() == [False]
    assert members(1 << 63, 70).nonzero()[0].tolist() == [63]


@pytest.mark.parametrize("method", ["greedy", "lagrangian", "lru", "own-savings", "whole-model"])
def test_wide_sets_give_the_same_answers(method, monkeypatch):
    """With Python's integers at thirteen nodes already, every number stays: units stay words."""
    instance = wide(13, users=3, slots=1, antennas=1)
    narrow = solve(instance, method, work=0.5)
    monkeypatch.setattr(node_set_tables, "WORD_NODES", 10)
    broad = solve(instance, method, work=0.5)
    assert np.array_equal(narrow.solution.cache, broad.solution.cache)
    assert (narrow.delay, narrow.lower_bound) == (broad.delay, broad.lower_bound)


def test_greedy_sends_from_nodes_beyond_a_word():
    """70 nodes, each with room for one of two blocks: one number as a set must not stay a word. One
    node caches a block, all others fetch it from there, and all send it together.
    """
    nodes = 70

    def together(group, sets):
        size = np.array([int(q).bit_count() for q in sets.tolist()])
        return 1.0 / np.maximum(size, 1e-9)

    problem = PlacementProblem(
        block_size=[10, 10],
        storage=[10] * nodes,
        group=[[0, 0]],
        broadcast=(OnDemand(1, together),),
        link=np.vstack([np.full((nodes, nodes), 0.01), np.full(nodes, 3.0)]),
    )
    cached = node_sets(greedy_placement(problem).cache)[0]
    assert [x.bit_count() for x in cached] == [1, 1]
    assert cached[0] != cached[1]
    cost, sender = best_levels(problem, 0, np.array([0]), np.array([1]))
    assert sender[0] == (1 << nodes) - 1
    assert cost[0] == pytest.approx(0.01 + 1 / nodes)


@pytest.mark.parametrize("method", ["greedy", "lagrangian", "lru", "ftpl"])
def test_seventy_nodes(method):
    """More nodes than a word has bits: feasible by the judge, and a bound."""
    found = solve(wide(70, users=3, slots=1, antennas=1), method, work=0.0)
    assert found.evaluation.feasible
    assert 0 < found.lower_bound <= found.delay
