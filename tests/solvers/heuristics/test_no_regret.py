"""Regret: against the theorems for linear rewards, and the best fixed caches by enumeration.

The systems of the last tests are so small that the best fixed caches are read off or enumerated.
"""

from __future__ import annotations

from functools import partial
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from by_hand import separate_models
from scipy.optimize import linprog

from finecast.solvers.heuristics import oftrl
from finecast.solvers.heuristics.bsca import BipartiteSubgradient, ascend
from finecast.solvers.heuristics.fractional import diameter
from finecast.solvers.heuristics.ftpl import PerturbedLeader
from finecast.solvers.heuristics.oftrl import OptimisticLeader, follow
from finecast.solvers.heuristics.replacement import LeastRecentlyUsed
from finecast.solvers.online import prior_of
from finecast.solvers.placement.problem import PlacementProblem

LEARNERS = [BipartiteSubgradient, OptimisticLeader, partial(PerturbedLeader, noise=1.0)]
"""With the noise that grows as the theory asks for; a short horizon does better with less."""


def best_fixed(total, size, storage):
    """Return the largest sum of rewards of one point of the polytope, by a linear programme."""
    most = (size <= storage).astype(float)
    bounds = list(zip(np.zeros(len(size)), most, strict=True))
    return -linprog(-total, A_ub=[size], b_ub=[storage], bounds=bounds).fun


def rewards(seed, slots=60, blocks=6):
    """Return linear rewards (T, J): random, alternating, and drifting, by the seed; and a node."""
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 20, blocks)
    storage = np.array([int(size.sum() * rng.choice([0.2, 0.5]))])
    kind = seed % 3
    t = np.arange(slots)[:, None]
    if kind == 0:
        return rng.exponential(1.0, (slots, blocks)) * size, size, storage
    if kind == 1:
        return ((t + np.arange(blocks)) % 2 == 0) * 1.0 * size, size, storage
    return (t * blocks // slots == np.arange(blocks)) * rng.uniform(1, 9, blocks), size, storage


@pytest.mark.parametrize("seed", range(9))
def test_ascent_keeps_to_its_regret_bound(seed):
    """Regret <= sqrt(2) D sqrt(sum norm(G)^2), for every sequence of rewards."""
    gain, size, storage = rewards(seed)
    y, squares = np.zeros((1, len(size))), np.zeros(1)
    earned = 0.0
    for g in gain:
        earned += float(y[0] @ g)
        y, squares = ascend(y, g[None], squares, size, storage)
    regret = best_fixed(gain.sum(axis=0), size, storage[0]) - earned
    bound = np.sqrt(2.0) * diameter(size, storage)[0] * np.sqrt(squares[0])
    assert squares[0] == pytest.approx((gain**2).sum())
    assert regret <= bound


@pytest.mark.parametrize("seed", range(9))
def test_the_regularised_leader_pays_for_wrong_hints_alone(seed):
    """Right hints: no regret at all. No hints, and hints of the contrary: within 2 D sqrt(errors).

    sum of min(D e, D e^2 / (2 sqrt(E))) and the regulariser itself come to less than 2 D sqrt(E),
    as e.g. in Mhaisen et al., arXiv 2204.09345, theorem 1.
    """
    gain, size, storage = rewards(seed)
    best = best_fixed(gain.sum(axis=0), size, storage[0])
    for hints in (gain, np.zeros_like(gain), gain.max() - gain):
        total, errors, earned = np.zeros((1, len(size))), np.zeros(1), 0.0
        for g, hint in zip(gain, hints, strict=True):
            y = follow(np.zeros_like(total), total + hint, errors, size, storage)
            earned += float(y[0] @ g)
            total, errors = total + g, errors + ((g - hint) ** 2).sum()
        allowed = 2.0 * diameter(size, storage)[0] * np.sqrt(errors[0])
        assert best - earned <= allowed + 1e-4 * best


def test_the_regulariser_keeps_the_leader_from_being_fooled():
    """Two blocks, room for one, 1/2 once and then 1 in turn: the leader itself earns nothing.

    The regularised one stays within its bound, 2 sqrt(2 T), with hints of nothing.
    """
    gain = np.zeros((400, 2))
    gain[0, 0] = 0.5
    gain[np.arange(1, 400), np.arange(1, 400) % 2] = 1.0
    size, storage = np.ones(2, int), np.array([1])
    total, errors, earned = np.zeros((1, 2)), np.zeros(1), 0.0
    for g in gain:
        earned += float(follow(np.zeros((1, 2)), total, errors, size, storage)[0] @ g)
        total, errors = total + g, errors + (g**2).sum()
    assert gain.sum(axis=0).max() - earned <= 2.0 * np.sqrt(2.0 * 400)


def play(policy, wanted, blocks, storage):
    """Return (T,) whether one node with blocks of 1 byte had what was wanted."""
    prior = prior_of(separate_models([[0]], models=blocks, storage=[storage]))
    cache = policy.place(prior)
    hits = []
    for t, j in enumerate(wanted):
        group = np.full((1, blocks), -1)
        group[0, j] = 0
        problem = PlacementProblem(
            np.ones(blocks, int), [storage], group, ([[np.inf, 1.0]],), [[np.inf], [2.0]]
        )
        hits.append(cache[0, j])
        seen = SimpleNamespace(problem=problem, t=t, prior=prior, requests=np.array([[j]]))
        _, cache = policy.act(seen, cache)
        assert cache.sum() <= storage
    return np.array(hits)


def regrets(method, wanted, blocks, storage, slots):
    """Return the mean regret a slot after some numbers of slots, over three seeds.

    Against the best fixed caches for as many slots, all of them tried.
    """
    hits = np.array([play(method(seed=seed), wanted, blocks, storage) for seed in range(3)])
    regret = []
    for until in slots:
        counts = np.bincount(wanted[:until], minlength=blocks)
        best = max(counts[list(some)].sum() for some in combinations(range(blocks), storage))
        regret.append(best / until - hits[:, :until].mean())
    return regret


@pytest.fixture
def no_hint(monkeypatch):
    """Take the forecast away, which these made-up slots have none of."""
    monkeypatch.setattr(oftrl, "coming_cost", lambda observation: None)


@pytest.mark.usefixtures("no_hint")
@pytest.mark.parametrize("method", LEARNERS, ids=["bsca", "oftrl", "ftpl"])
def test_regret_a_slot_falls_where_lru_loses_all(method):
    """Three blocks in turn, room for two: LRU never has the one that comes, a fixed pair has 2/3.

    The regret of LRU is thus 2/3 a slot, however long it goes on. That of the others falls.
    """
    wanted = np.arange(150) % 3
    early, late = regrets(method, wanted, 3, 2, (30, 150))
    assert late <= 0.8 * early
    assert late < 0.2


def test_lru_and_the_leader_without_noise_are_fooled():
    """On the same requests: LRU never has what comes, and the leader is always about to change."""
    wanted = np.arange(150) % 3
    assert play(LeastRecentlyUsed(), wanted, 3, 2)[2:].sum() == 0
    (regret,) = regrets(partial(PerturbedLeader, noise=0.0), wanted, 3, 2, (150,))
    assert regret > 0.6


@pytest.mark.usefixtures("no_hint")
@pytest.mark.parametrize("method", LEARNERS, ids=["bsca", "oftrl", "ftpl"])
def test_regret_a_slot_falls_for_independent_requests(method):
    """Five blocks, two of them popular, and room for two: hits go to those of the best pair."""
    rng = np.random.default_rng(5)
    wanted = rng.choice(5, 150, p=[0.4, 0.3, 0.1, 0.1, 0.1])
    early, late = regrets(method, wanted, 5, 2, (30, 150))
    assert late <= 0.6 * early
    assert late < 0.06
