"""The certified tree: its bounds in exact arithmetic, and its optima against enumeration."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from placement_oracle import optimum, random_problem

from finecast.solvers.deadline import Deadline
from finecast.solvers.placement.bound import Prices, dual_point, no_prices
from finecast.solvers.placement.chains import classes
from finecast.solvers.placement.exact import with_proof
from finecast.solvers.placement.exact.certify import PROOF_GAP, Limits, certified
from finecast.solvers.placement.exact.pyomo_model import everything_from_the_cloud
from finecast.solvers.placement.exact.state_flow import place_by_state_flow
from finecast.solvers.placement.exact.tree import dual_value, filled, fitting, prove
from finecast.solvers.placement.exact.useful_paths import UsefulPaths, useful_paths
from finecast.solvers.placement.exact.with_proof import place_with_proof, proven_bound
from finecast.solvers.placement.problem import PlacementProblem, placement_delay
from finecast.solvers.placement.search.lagrangian import place_by_prices
from finecast.solvers.result import BoundKind, Termination

SIZES = [(1, 4, 2), (2, 3, 1), (2, 4, 1), (2, 2, 2), (3, 2, 1), (1, 2, 3)]
TREE = Limits(grown=10**6, paths=10**6, parts=10**6, labels=0)
LAYERS = Limits(grown=10**6, paths=10**6, parts=0, labels=10**6)


def random_paths(rng: np.random.Generator, blocks: int, most: int, storages: int) -> UsefulPaths:
    """Draw paths of every block that cache it at some storages, one of them nowhere."""
    size = rng.integers(1, 30, blocks)
    bits = rng.random((blocks, most, storages)) < 0.5
    bits[:, 0] = False
    copies = bits @ (1 << np.arange(storages))
    cost = size[:, None] * rng.uniform(0.1, 3.0, (blocks, most))
    cost[rng.random((blocks, most)) < 0.2] = np.inf
    cost[:, 0] = size * rng.uniform(3.0, 4.0, blocks)
    storage = rng.integers(0, size.sum() + 1, storages)
    return UsefulPaths(cost, copies, bits * size[:, None, None], storage)


def fastest(paths: UsefulPaths) -> float:
    """Return the delay of the fastest choice of paths that fits, by trial of all."""
    blocks = np.arange(len(paths.cost))
    best = np.inf
    for choice in product(range(paths.cost.shape[1]), repeat=len(blocks)):
        if (paths.holds[blocks, choice].sum(axis=0) <= paths.storage).all():
            best = min(best, float(paths.cost[blocks, choice].sum()))
    return best


def exact_value(paths: UsefulPaths, allowed: np.ndarray, prices: np.ndarray) -> Fraction:
    """Return the Lagrangian function at prices >= 0, in rational numbers."""
    prices = [Fraction(float(p)) for p in prices]
    total = -sum(p * int(s) for p, s in zip(prices, paths.storage, strict=True))
    for j, row in enumerate(paths.cost):
        total += min(
            Fraction(float(row[k]))
            + sum(p * int(b) for p, b in zip(prices, paths.holds[j, k], strict=True))
            for k in np.flatnonzero(allowed[j])
        )
    return total


@given(st.integers(0, 10**6), st.floats(0.0, 1e6))
def test_dual_value_in_exact_arithmetic(seed: int, height: float) -> None:
    """The bound lies below the exact Lagrangian, by no more than a share of 1e-13 of its terms."""
    rng = np.random.default_rng(seed)
    paths = random_paths(rng, 5, 4, 3)
    allowed = np.isfinite(paths.cost)
    prices = height * rng.random(3)
    exact = exact_value(paths, allowed, prices)
    value, _ = dual_value(paths, allowed, prices)
    assert Fraction(value) <= exact
    terms = float(exact) + 2 * float(prices @ paths.storage)
    assert float(exact) - value <= 1e-13 * max(1.0, terms)


@pytest.mark.parametrize("seed", range(20))
def test_corrupt_prices_still_bound(seed: int) -> None:
    """Prices that are wrong, negative, huge or no numbers give no bound above the best choice."""
    rng = np.random.default_rng(seed)
    paths = random_paths(rng, 4, 3, 2)
    allowed = np.isfinite(paths.cost)
    best = fastest(paths)
    wrong = [rng.normal(0.0, 10.0**k, 2) for k in range(-3, 9)]
    for prices in [*wrong, np.array([np.nan, 1.0]), np.array([-np.inf, np.inf])]:
        assert dual_value(paths, allowed, prices)[0] <= best


@pytest.mark.parametrize("seed", range(15))
def test_fitting_and_filled_lose_no_choice(seed: int) -> None:
    """Every choice that fits keeps its paths, and fills no storage beyond what is said."""
    rng = np.random.default_rng([7, seed])
    paths = random_paths(rng, 5, 3, 2)
    allowed = np.isfinite(paths.cost) & (rng.random(paths.cost.shape) < 0.8)
    allowed[:, 0] = True
    kept, most = fitting(paths, allowed), filled(paths, allowed)
    blocks = np.arange(5)
    fullest = np.zeros(2, dtype=np.int64)
    for choice in product(range(3), repeat=5):
        used = paths.holds[blocks, choice].sum(axis=0)
        if allowed[blocks, choice].all() and (used <= paths.storage).all():
            assert kept[blocks, choice].all()
            fullest = np.maximum(fullest, used)
    assert (fullest <= most).all()
    assert (most <= paths.storage).all()


@pytest.mark.parametrize("seed", range(25))
def test_tree_against_all_choices(seed: int) -> None:
    """Where the tree ends, it has the fastest choice; where it is cut short, its bound holds."""
    rng = np.random.default_rng([11, seed])
    paths = random_paths(rng, 6, 3, 2)
    best = fastest(paths)
    slowest = float(paths.cost[:, 0].sum()) * 1.001
    proof = prove(paths, np.zeros(2), slowest, gap=1e-9, most=10**6)
    assert proof.choice is not None
    found = float(paths.cost[np.arange(6), proof.choice].sum())
    assert found == pytest.approx(best, rel=1e-12)
    assert best * (1 - 1e-8) <= proof.lower_bound <= best
    for most in range(4):
        short = prove(paths, np.zeros(2), slowest, gap=1e-9, most=most)
        assert short.parts <= most
        assert short.lower_bound <= best
    assert (
        prove(paths, np.zeros(2), slowest, gap=1e-9, most=9, deadline=Deadline.after(0)).parts == 0
    )


@pytest.mark.parametrize("size", SIZES)
def test_useful_paths_keep_an_optimum(size: tuple[int, int, int]) -> None:
    """The fastest choice of the useful paths, by trial, is the optimum of the enumeration."""
    rng = np.random.default_rng([3, *size])
    checked = 0
    for _ in range(8):
        problem = random_problem(rng, *size)
        best = optimum(problem)
        tables = classes(problem)
        found = place_by_prices(problem, patience=0)
        slow = placement_delay(problem, everything_from_the_cloud(problem)) * (1 + 1e-9)
        for prices in (found.prices, no_prices(problem)):
            point = dual_point(problem, tables, prices)
            paths = useful_paths(problem, tables, point, max(slow, 1e-9), 10**6)
            if paths.cost.shape[1] ** problem.blocks <= 20_000:
                checked += 1
                assert fastest(paths) == pytest.approx(best, rel=1e-12, abs=1e-12)
    assert checked > 4


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("limits", [TREE, LAYERS], ids=["tree", "layers"])
def test_certified_against_enumeration(limits: Limits, size: tuple[int, int, int]) -> None:
    """From the slowest placement and any prices: the optimum, and a certified bound at it."""
    rng = np.random.default_rng([5, *size])
    for _ in range(10):
        problem = random_problem(rng, *size)
        best = optimum(problem)
        cloud = everything_from_the_cloud(problem)
        for prices in (no_prices(problem), Prices(rng.random((problem.slots, problem.nodes)))):
            proof = certified(problem, cloud, prices, gap=PROOF_GAP, limits=limits)
            found = cloud if proof.placement is None else proof.placement
            assert placement_delay(problem, found) <= best * (1 + PROOF_GAP) + 1e-12
            assert best * (1 - PROOF_GAP) <= proof.lower_bound <= best * (1 + 1e-15)
            few = Limits(grown=10**6, paths=10**6, parts=1, labels=0)
            short = certified(problem, cloud, prices, gap=PROOF_GAP, limits=few)
            assert short.lower_bound <= best * (1 + 1e-15)


@pytest.mark.parametrize("place", [place_by_state_flow, place_with_proof])
def test_small_placements_end_in_a_certified_proof(place) -> None:
    """Three nodes, ten blocks, two slots: optimal and certified together, the same every time."""
    for seed in range(3):
        rng = np.random.default_rng([9, seed])
        drawn = random_problem(rng, 3, 10, 2)
        problem = replace(drawn, storage=np.full(3, int(0.3 * drawn.block_size.sum())))
        found = place(problem, seed=seed)
        assert found.termination is Termination.OPTIMAL
        assert found.bound_kind is BoundKind.CERTIFIED
        assert found.lower_bound <= found.delay <= found.lower_bound * (1 + PROOF_GAP)
        again = place(problem, seed=seed)
        assert (again.delay, again.lower_bound) == (found.delay, found.lower_bound)


@pytest.mark.parametrize(
    ("asked", "large_gap", "proven"),
    [
        ({"gap": PROOF_GAP}, 1.0, True),
        ({"deadline": Deadline.after(1e9)}, 0.0, True),
        ({"deadline": Deadline.after(None, 1e9)}, 0.0, True),
        ({"deadline": Deadline.after(1e9)}, 1.0, False),
        ({}, 0.0, False),
    ],
)
def test_a_gap_or_time_that_was_asked_for_is_used(asked, large_gap, proven, monkeypatch) -> None:
    """With a gap, or with time and a large gap, the tree goes on to the proof; else it ends."""
    monkeypatch.setattr(
        with_proof, "SEARCH_LIMITS", Limits(grown=2000, paths=400, parts=0, labels=0)
    )
    monkeypatch.setattr(with_proof, "SMALL", 0)
    monkeypatch.setattr(with_proof, "LARGE_GAP", large_gap)
    rng = np.random.default_rng([9, 1])
    drawn = random_problem(rng, 3, 10, 2)
    problem = replace(drawn, storage=np.full(3, int(0.3 * drawn.block_size.sum())))
    found = place_with_proof(problem, **asked)
    ended = Termination.OPTIMAL if proven else Termination.ITERATION_LIMIT
    assert found.termination is ended


@pytest.mark.parametrize("limit", [Deadline.after(1e9), Deadline.after(None, 1e9)])
def test_time_that_is_left_goes_to_faster_placements(limit, monkeypatch) -> None:
    """After a search that ends too early, and without a proof, HiGHS finds a faster placement. Its
    bounds are not taken: what is certified stays. Without a limit nothing is added.
    """

    def hasty(problem, **given):
        return place_by_prices(problem, **{**given, "patience": 0})

    room = "finecast.solvers.placement.exact.with_proof"
    monkeypatch.setattr(f"{room}.place_by_prices", hasty)
    monkeypatch.setattr(f"{room}.certified", lambda *args, **given: None)
    drawn = random_problem(np.random.default_rng([9, 2]), 3, 12, 3)
    problem = replace(drawn, storage=np.full(3, int(0.3 * drawn.block_size.sum())))
    alone = place_with_proof(problem)
    found = place_with_proof(problem, deadline=limit)
    best = place_by_state_flow(problem)
    assert alone.delay > best.delay * (1 + 1e-4)
    assert found.delay <= best.delay * (1 + PROOF_GAP)
    assert placement_delay(problem, found.placement) == found.delay
    assert found.bound_kind is BoundKind.CERTIFIED
    assert found.lower_bound == alone.lower_bound < best.lower_bound


def test_proofs_before_the_search_report_one_rising_trace() -> None:
    """A proof before the search ends it; the callback sees the trace that is returned."""
    for seed in range(3):
        drawn = random_problem(np.random.default_rng([9, seed]), 3, 10, 1)
        problem = replace(drawn, storage=np.full(3, int(0.3 * drawn.block_size.sum())))
        seen = []
        found = place_with_proof(problem, callback=seen.append)
        assert found.termination is Termination.OPTIMAL
        assert tuple(seen) == found.trace
        late = place_with_proof(problem, deadline=Deadline.after(0), callback=seen.append)
        assert late.termination in (Termination.TIME_LIMIT, Termination.OPTIMAL)


def large() -> PlacementProblem:
    """Return a placement with more paths than either method gives the tree."""
    return random_problem(np.random.default_rng(2), 3, 14, 4)


def test_large_and_pipelined_placements_are_left_alone() -> None:
    """Too many paths, or a pipelined schedule: no tree, and `lagrangian` is what it was."""
    problem = large()
    found = place_by_prices(problem, patience=1)
    few = Limits(grown=10, paths=10, parts=10, labels=0)
    by_hulls = certified(problem, found.placement, found.prices, gap=0.0, limits=few)
    assert by_hulls is not None  # few blocks: a bound, without a part of a tree
    assert by_hulls.parts == 0
    few = replace(few, parts=0)
    assert certified(problem, found.placement, found.prices, gap=0.0, limits=few) is None
    assert (
        place_with_proof(problem, deadline=Deadline.after(0)).termination is Termination.TIME_LIMIT
    )
    pipelined = random_problem(np.random.default_rng(4), 2, 3, 1, "pipelined")
    start = everything_from_the_cloud(pipelined)
    prices = no_prices(pipelined)
    assert certified(pipelined, start, prices, gap=0.0, limits=TREE) is None
    assert proven_bound(pipelined, start, prices, gap=None, deadline=Deadline()) == 0.0
