"""What a copy saved, against the judge's delay; and the rules that keep copies by it."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from by_hand import separate_models
from placement_oracle import random_problem

from finecast.solvers.heuristics.own_savings import OwnSavings
from finecast.solvers.heuristics.qlru import QLruDelta, QLruHS
from finecast.solvers.heuristics.rules import pull
from finecast.solvers.heuristics.savings import copy_savings, table_savings
from finecast.solvers.node_set_tables import members, node_sets
from finecast.solvers.online import prior_of
from finecast.solvers.placement.greedy import total_cost
from finecast.solvers.placement.problem import Placement, PlacementProblem, placement_delay
from finecast.solvers.solve import solve


def delay(problem, cache):
    """Return the delay of a slot with given caches and the best pulls, by the rules."""
    roomy = replace(problem, storage=np.full(problem.nodes, int(problem.block_size.sum())))
    return placement_delay(roomy, Placement(cache[None], pull(problem, cache)[None]))


@pytest.mark.parametrize("seed", range(6))
def test_savings_are_differences_of_the_delay(seed):
    """Every copy, there or not: the delay without it less the delay with it; never negative."""
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, nodes=3, blocks=5, slots=1)
    cache = rng.random((3, 5)) < 0.4
    saved = copy_savings(problem, node_sets(cache))
    assert (saved >= 0).all()
    for n, j in np.ndindex(3, 5):
        without, with_copy = cache.copy(), cache.copy()
        without[n, j], with_copy[n, j] = False, True
        expected = delay(problem, without) - delay(problem, with_copy)
        assert saved[n, j] * problem.block_size[j] == pytest.approx(expected, abs=1e-9)
    by_table = table_savings(total_cost(problem), node_sets(cache), 3)
    assert by_table == pytest.approx(saved)


def test_drawn_caches_estimate_the_gradient_of_the_multilinear_extension():
    """The mean over caches drawn from y is the slope of F(y), by a difference of F itself."""
    rng = np.random.default_rng(3)
    problem = random_problem(rng, nodes=3, blocks=1, slots=1)
    problem = replace(problem, group=np.zeros((1, 1), dtype=int))
    cost = total_cost(problem)[0]
    y = np.array([0.2, 0.5, 0.9])
    sets = np.arange(8)

    def extension(y):
        chance = np.prod(np.where(members(sets, 3), y, 1 - y), axis=1)
        return chance @ (cost[0] - cost)

    chance = np.prod(np.where(members(sets, 3), y, 1 - y), axis=1)
    mean = sum(
        p * copy_savings(problem, np.array([x]))[:, 0] for p, x in zip(chance, sets, strict=True)
    )
    for n in range(3):
        up, down = y.copy(), y.copy()
        up[n], down[n] = 1.0, 0.0
        assert mean[n] == pytest.approx(extension(up) - extension(down))


def slot(needed, blocks, t, storage, size=None, fetch=2.0):
    """Return what one node sees of a slot: from the cloud `fetch` seconds per byte, on air 1."""
    size = np.ones(blocks, int) if size is None else np.array(size)
    group = np.full((1, blocks), -1)
    group[0, needed] = 0
    problem = PlacementProblem(
        size, np.array([storage]), group, ([[np.inf, 1.0]],), [[np.inf], [fetch]]
    )
    return SimpleNamespace(problem=problem, t=t)


def begun(policy, blocks, storage, cache):
    """Return a policy that has placed, with caches of our own."""
    prior = prior_of(separate_models([[0]], models=blocks, storage=[storage]))
    policy.place(prior)
    return np.array([cache], dtype=bool)


def test_own_savings_by_hand():
    """One node with room for one block; a copy saves 2 s in each slot in which it is needed.

    Decay 1/2. Slot 0 needs block 1: 2 against 0, so 1 is kept. Slot 1 needs 0: 2 against 1. Slot 2
    needs 1 and nobody 0: 1 + 1/2 + ... = 2.5 against 1. With nothing needed, what is there stays.
    """
    policy = OwnSavings(decay=0.5)
    cache = begun(policy, 2, 1, [True, False])
    for t, (needed, kept) in enumerate([([], 0), ([1], 1), ([0], 0), ([1], 1), ([], 1)]):
        source, cache = policy.act(slot(needed, 2, t, 1), cache)
        assert np.flatnonzero(cache[0]).tolist() == [kept]
    assert (source == -1).all()


def test_a_second_copy_is_worth_nothing():
    """Two nodes, one sends as fast as both: the copies save nothing beside each other.

    Both then keep what saves something instead, which LFU by the system does not.
    """
    group = np.array([[0, 0]])
    table = np.array([[np.inf, 1.0, 1.0, 1.0]])
    link = np.array([[np.inf, 0.0], [0.0, np.inf], [5.0, 5.0]])
    problem = PlacementProblem([1, 1], [1, 1], group, (table,), link)
    cache = np.array([[True, False], [True, False]])
    saved = copy_savings(problem, node_sets(cache))
    assert saved.tolist() == [[0.0, 5.0], [0.0, 5.0]]


@pytest.mark.parametrize(("method", "chance"), [(QLruHS, 1.0), (QLruDelta, 0.25)])
def test_qlru_moves_by_what_a_copy_is_worth(method, chance):
    """Blocks of 4 and 1 bytes, 2 s a byte each: worth alike per byte, the small one 1/4 in seconds.

    The small one is cached at the end of the list, behind a block of 1 byte that nobody needs. It
    moves to the front with the chance above, and then stays when room is left for only one of them.
    """
    moved = 0
    for seed in range(400):
        policy = method(seed=seed)
        cache = begun(policy, 4, 9, [True, True, True, False])
        policy._front = np.array([[-0.1, -0.9, -0.5, -1.0]])
        seen = slot([0, 1], 4, 0, 9, size=[4, 1, 1, 3])
        _, cache = policy.act(seen, cache)
        moved += int(policy._front[0, 1] >= 0.0)
        assert policy._front[0, 0] >= 0.0  # worth as much as any so far
        assert policy._front[0, 2] == -0.5
    assert moved / 400 == pytest.approx(chance, abs=0.07)


@pytest.mark.parametrize("method", [QLruHS, QLruDelta])
def test_qlru_lets_in_with_q(method):
    """A block that is received and worth as much as any is kept in the share q of the draws."""
    kept = 0
    for seed in range(400):
        policy = method(q=0.3, seed=seed)
        cache = begun(policy, 2, 1, [True, False])
        _, cache = policy.act(slot([1], 2, 0, 1), cache)
        assert cache.sum() == 1
        kept += int(cache[0, 1])
    assert kept / 400 == pytest.approx(0.3, abs=0.07)


@pytest.mark.parametrize(
    ("method", "options", "name"),
    [
        ("own-savings", {"decay": 1.5}, "decay"),
        ("own-savings", {"initial": "best"}, "initial"),
        ("qlru-delta", {"q": 0.0}, "q"),
        ("qlru-hs", {"q": 1.5}, "q"),
        ("bsca", {"step": 0.0}, "step"),
        ("ftpl", {"noise": -0.1}, "noise"),
        ("oftrl", {"step": float("inf")}, "step"),
        ("lru", {"counts": "all"}, "counts"),
        ("lfu", {"initial": "popular"}, "initial"),
    ],
)
def test_options_out_of_range(method, options, name):
    """One line that names the option and what is allowed."""
    instance = separate_models([[0]], models=2, storage=[1])
    with pytest.raises(ValueError, match=f"^{name}: .* is not allowed, must be") as refused:
        solve(instance, method, **options)
    assert "\n" not in str(refused.value)
