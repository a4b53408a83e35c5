"""TrimCaching: gains and programmes by hand; exhaustive search, within the guarantees."""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import DATA

from finecast.problem.scenario import read_scenario
from finecast.solvers.heuristics.trimcaching import hit_problem
from finecast.solvers.heuristics.trimcaching_hits import (
    HitProblem,
    expected_hits,
    generic_greedy,
    rounded_knapsack,
    successive_programme,
)
from finecast.solvers.online import prior_of
from finecast.solvers.solve import solve


def everyone(nodes: int, weight: np.ndarray) -> np.ndarray:
    """Return that every node can deliver everything to everybody."""
    return np.ones((nodes, *weight.shape), dtype=bool)


def by_hand(storage: list[int]) -> HitProblem:
    """Models {s, a}, {s, b}, {c}: sizes s 4, a 1, b 2, c 5; wanted 0.3, 0.25, 0.45 by one user."""
    weight = np.array([[0.3, 0.25, 0.45]])
    contains = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=bool)
    sizes = np.array([4, 1, 2, 5])
    return HitProblem(sizes, np.array(storage), contains, weight, everyone(len(storage), weight))


def random_problem(seed: int, nodes: int) -> HitProblem:
    """Return up to 5 models of up to 6 blocks for 3 users, not all of whom reach every node."""
    rng = np.random.default_rng(seed)
    models, blocks = int(rng.integers(2, 6)), int(rng.integers(3, 7))
    contains = rng.random((models, blocks)) < 0.5
    contains[np.arange(models), rng.integers(blocks, size=models)] = True
    size = rng.integers(1, 10, blocks)
    storage = rng.integers(0, size.sum() + 1, nodes)
    weight = rng.random((3, models))
    return HitProblem(size, storage, contains, weight, rng.random((nodes, 3, models)) < 0.8)


def most_hits(problem: HitProblem) -> float:
    """Return the optimum: every choice of models at every node, from the definition alone."""
    models = range(len(problem.model_blocks))
    choices = []
    for limit in problem.storage:
        fitting = []
        for count in range(len(models) + 1):
            for chosen in combinations(models, count):
                blocks = {j for m in chosen for j in np.flatnonzero(problem.model_blocks[m])}
                if sum(int(problem.size[j]) for j in blocks) <= limit:
                    fitting.append(set(chosen))
        choices.append(fitting)
    best = 0.0
    for stored in product(*choices):
        hits = 0.0
        for k, row in enumerate(problem.weight):
            for m, p in enumerate(row):
                missed = 1.0
                for n, chosen in enumerate(stored):
                    missed *= 1.0 - (m in chosen) * problem.able[n, k, m]
                hits += p * (1.0 - missed)
        best = max(best, hits)
    return best


def test_gen_by_hand():
    """It takes the largest hits first, whatever their bytes, and pays for shared blocks once.

    7 byte: c (0.45, 5 byte), then a and b need 5 and 6: stuck at 0.45, where {s, a, b} has 0.55.
    12 byte: c, then {s, a} (5 byte), then b needs 2 more: all, with 12 of 13 unshared bytes.
    Two nodes of 7: c at the first, {s, a} at the second, then b beside it.
    """
    one = generic_greedy(by_hand([7]))
    assert one.tolist() == [[False, False, False, True]]
    assert generic_greedy(by_hand([12])).all()
    two = generic_greedy(by_hand([7, 7]))
    assert two.tolist() == [[False, False, False, True], [True, True, True, False]]
    assert expected_hits(by_hand([7, 7]), two) == pytest.approx(1.0)


def test_gen_leaves_storage_empty_when_nothing_gains():
    """A second copy of a model hits nobody new: the second node stays empty."""
    assert generic_greedy(by_hand([12, 12])).any(axis=1).tolist() == [True, False]


def test_spec_by_hand():
    """Where the greedy is stuck at 0.45, the combination {s} leaves room for a and b: 0.55."""
    cache, complete = successive_programme(by_hand([7]))
    assert complete
    assert cache.tolist() == [[True, True, True, False]]


def test_hits_need_a_node_that_stores_all():
    """A model spread over two nodes is not a hit; a node that cannot deliver in time is none."""
    problem = by_hand([12, 12])
    spread = np.array([[True, False, False, False], [False, True, False, False]])
    assert expected_hits(problem, spread) == 0.0
    stored = np.array([[True, True, False, False], [False, False, False, False]])
    assert expected_hits(problem, stored) == pytest.approx(0.3)
    late = HitProblem(
        problem.size,
        problem.storage,
        problem.model_blocks,
        problem.weight,
        problem.able & np.array([False, True])[:, None, None],
    )
    assert expected_hits(late, stored) == 0.0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), nodes=st.integers(1, 2))
def test_within_the_guarantees(seed, nodes):
    """Storage holds; no more than the optimum; Spec at least (1 - eps) / 2 of it, 1 - eps alone."""
    problem = random_problem(seed, nodes)
    optimum = most_hits(problem)
    greedy = generic_greedy(problem)
    eps = 0.2
    spec, complete = successive_programme(problem, eps=eps)
    assert complete
    for cache in (greedy, spec):
        assert (cache @ problem.size <= problem.storage).all()
        assert expected_hits(problem, cache) <= optimum * (1 + 1e-12)
    share = 1.0 - eps if nodes == 1 else (1.0 - eps) / 2.0
    assert expected_hits(problem, spec) >= share * optimum * (1 - 1e-12)
    # The first step of the greedy is the best single model that fits somewhere.
    singles = [0.0]
    for n in range(nodes):
        for blocks in problem.model_blocks:
            if blocks @ problem.size <= problem.storage[n]:
                alone = np.zeros_like(greedy)
                alone[n] = blocks
                singles.append(expected_hits(problem, alone))
    assert expected_hits(problem, greedy) >= max(singles) * (1 - 1e-12)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), eps=st.sampled_from([0.05, 0.3, 0.9]))
def test_knapsack_against_enumeration(seed, eps):
    """Within the capacity, and at least 1 - eps of the best subset."""
    rng = np.random.default_rng(seed)
    items = int(rng.integers(1, 8))
    value, weight = rng.random(items) + 1e-3, rng.integers(0, 10, items)
    capacity = int(rng.integers(weight.max(), weight.sum() + 2))
    taken = rounded_knapsack(value, weight, capacity, eps)
    assert weight[taken].sum() <= capacity
    best = max(
        value[list(chosen)].sum()
        for count in range(items + 1)
        for chosen in combinations(range(items), count)
        if weight[list(chosen)].sum() <= capacity
    )
    assert value[taken].sum() >= (1 - eps) * best * (1 - 1e-12)


def test_too_many_combinations_are_said():
    """Of 2 independent shared parts there are 4 unions; with 3 allowed the guarantee is void."""
    contains = np.array(
        [[1, 0, 1, 0, 0, 0], [1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1]],
        dtype=bool,
    )
    weight = np.ones((1, 4))
    problem = HitProblem(np.ones(6, int), np.array([6]), contains, weight, everyone(1, weight))
    full, complete = successive_programme(problem, max_combinations=4)
    assert complete
    assert expected_hits(problem, full) == 4.0
    part, complete = successive_programme(problem, max_combinations=3)
    assert not complete
    assert expected_hits(problem, part) == 2.0


def test_method_says_when_the_guarantee_is_void(tiny_instance):
    """The note of the result, not of a log; and options out of range are refused by name."""
    result = solve(tiny_instance, "trimcaching-spec", max_combinations=1)
    assert any("combinations" in note for note in result.notes)
    assert not solve(tiny_instance, "trimcaching-spec").notes
    for option, value in (("eps", 0.0), ("eps", 1.0), ("max_combinations", 0)):
        with pytest.raises(ValueError, match=option):
            solve(tiny_instance, "trimcaching-spec", **{option: value})
    with pytest.raises(ValueError, match="max_latency"):
        solve(tiny_instance, "trimcaching-gen", max_latency=-1.0)


def test_latency_leaves_out_large_models(tiny_instance):
    """Between the typical download times of two models of different size, one is a hit."""
    prior = prior_of(tiny_instance)
    assert hit_problem(prior).able.all()
    size = np.sort(prior.library.model_size)
    slowest = hit_problem(prior, 0.0)
    assert not slowest.able.any()
    bits = 8.0 * size / prior.network.bandwidth
    typical = bits * (0.5 / 4.0 + 0.5 / 0.5)  # one of two nodes is home: 4 and 0.5 bit/s/Hz
    between = hit_problem(prior, float(typical[0] + typical[1]) / 2)
    assert np.array_equal(between.able[0, 0], prior.library.model_size <= size[0])


@pytest.fixture(scope="module")
def tiny_instance():
    """Return the tiny scenario's instance of a seed."""
    path = DATA / "scenarios" / "tiny.toml"
    return read_scenario(path).generate(2)
