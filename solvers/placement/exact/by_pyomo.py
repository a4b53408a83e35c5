"""The Pyomo model solved by HiGHS through Pyomo: the reference, and its linear relaxation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pyomo.environ as pyo
from pyomo.contrib.solver.solvers.highs import Highs

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.node_set_tables import node_sets
from finecast.solvers.placement.chains import classes, placement_of_paths
from finecast.solvers.placement.exact.certify import PROOF_GAP
from finecast.solvers.placement.exact.pyomo_model import everything_from_the_cloud, placement_model
from finecast.solvers.placement.fill import keep_by_score
from finecast.solvers.placement.overfull import CUT_ROUNDS, STORAGE_ROOM, overfull_covers
from finecast.solvers.placement.problem import Placement, PlacementProblem
from finecast.solvers.placement.result import Incumbent, PlacementResult
from finecast.solvers.placement.senders import best_senders
from finecast.solvers.result import BoundKind, TracePoint
from finecast.solvers.rounding import SUM_ALLOWANCE
from finecast.solvers.signals import SearchInterrupt

LEAST_SHARE = 1e-6
"""Values of the relaxation below this count as zero: the tolerances of HiGHS."""


def place_by_milp(
    problem: PlacementProblem,
    *,
    deadline: Deadline = NEVER,
    gap: float | None = None,
    seed: int = 0,
    start: Placement | None = None,
    callback: Callable[[TracePoint], None] | None = None,
) -> PlacementResult:
    """Find a placement and try to prove it optimal, by the model as it stands.

    The decisions of HiGHS are rounded and judged by `placement_delay`; its status is not asked.
    The better of them and the start (else everything from the cloud) is returned. Pyomo cannot hand
    HiGHS the start, and building the model, which counts against the deadline, is not interrupted.

    Parameters
    ----------
    problem, deadline, gap, seed, start, callback
        As for `place_by_prices`.

    Raises
    ------
    ValueError
        Where `start` is not feasible, or `gap` is negative.
    """
    return _solve(False, problem, deadline, gap, seed, start, callback)


def place_by_lp(
    problem: PlacementProblem,
    *,
    deadline: Deadline = NEVER,
    gap: float | None = None,
    seed: int = 0,
    start: Placement | None = None,
    callback: Callable[[TracePoint], None] | None = None,
) -> PlacementResult:
    """Round the linear relaxation of the model to a placement; its value is the bound.

    In the order of the slots, every node caches the blocks of the largest x that it can have and
    that still fit; the migrations are then the best ones of the sequential schedule. The better of
    this and the start (else everything from the cloud) is returned.

    Parameters
    ----------
    problem, deadline, gap, seed, start, callback
        As for `place_by_milp`.

    Raises
    ------
    ValueError
        As for `place_by_milp`.
    """
    return _solve(True, problem, deadline, gap, seed, start, callback)


def _solve(
    relaxed: bool,
    problem: PlacementProblem,
    deadline: Deadline,
    gap: float | None,
    seed: int,
    start: Placement | None,
    callback: Callable[[TracePoint], None] | None,
) -> PlacementResult:
    """Solve the model, relaxed or not, and judge the placement that it gives."""
    simple = everywhere(problem)
    incumbent = Incumbent(
        problem, start or everything_from_the_cloud(problem), simple,
        deadline=deadline, gap=gap, callback=callback, optimal_gap=PROOF_GAP,
    )  # fmt: skip
    if incumbent.finished:
        return incumbent.result()
    try:
        _branch_and_bound(incumbent, relaxed, seed)
    except SearchInterrupt:
        incumbent.interrupted = True
    by_milp = incumbent.lower_bound > simple
    return incumbent.result(None, BoundKind.MILP if by_milp else BoundKind.CERTIFIED)


def _branch_and_bound(incumbent: Incumbent, relaxed: bool, seed: int) -> None:
    """Let HiGHS solve the model; the incumbent is offered its placement and its bound."""
    problem = incumbent.problem
    model = placement_model(problem, relaxed=relaxed, room=0.0 if relaxed else STORAGE_ROOM)
    storage = np.tile(problem.storage, problem.slots)
    for _ in range(CUT_ROUNDS):
        if not _solve_once(incumbent, model, relaxed, seed) or incumbent.finished:
            return
        # An answer that overfills a storage within the tolerance hides those that do not.
        cache = _cached(problem, model).reshape(-1, problem.blocks) > 0.5
        covers = [] if relaxed else overfull_covers(cache, problem.block_size, storage)
        if not covers:
            return
        for row, blocks in covers:
            for t in range(problem.slots):
                chosen = [model.x[t, row % problem.nodes, int(j)] for j in blocks]
                model.covers.add(pyo.quicksum(chosen) <= len(blocks) - 1)


def _solve_once(incumbent: Incumbent, model: Any, relaxed: bool, seed: int) -> bool:
    """Solve the model as it stands, offer what comes of it; return whether it has a solution."""
    problem = incumbent.problem
    limit = incumbent.deadline.limit()
    results = Highs().solve(
        model,
        load_solutions=False,
        raise_exception_on_nonoptimal_result=False,
        threads=1,
        time_limit=None if limit is None else max(0.01, limit),
        rel_gap=0.5 * incumbent.target_gap,
        abs_gap=0.0,
        solver_options={
            "random_seed": seed,
            "small_matrix_value": 1e-12,
            "mip_feasibility_tolerance": 1e-9,
            "primal_feasibility_tolerance": 1e-9,
            "dual_feasibility_tolerance": 1e-9,
        },
    )
    if results.incumbent_objective is not None:
        results.solution_loader.load_vars()
        # A solution within the tolerances of HiGHS may still break a rule.
        with suppress(ValueError):
            incumbent.offer(_rounded(problem, model) if relaxed else _decisions(problem, model))
    bound = results.objective_bound
    if bound is not None and np.isfinite(bound):
        incumbent.raise_bound(bound)
    return results.incumbent_objective is not None


def everywhere(problem: PlacementProblem) -> float:
    """Return the bound (s) that every node sends every needed block: sum_tj s_j broadcast[all]."""
    slot, block = np.nonzero(problem.group >= 0)
    fastest = [
        problem.broadcast[t][problem.group[t, j], -1] for t, j in zip(slot, block, strict=True)
    ]
    return float((problem.block_size[block] * np.array(fastest)).sum() * (1.0 - SUM_ALLOWANCE))


def _cached(problem: PlacementProblem, model: Any) -> FloatArray:
    """Return x (T, N, J)."""
    shape = (problem.slots, problem.nodes, problem.blocks)
    return np.array([model.x[index].value for index in np.ndindex(shape)]).reshape(shape)


def _decisions(problem: PlacementProblem, model: Any) -> Placement:
    """Read the placement off the integer solution."""
    cache: BoolArray = _cached(problem, model) > 0.5
    source: IntArray = np.full(cache.shape, -1)
    for (t, j, m, n), receive in model.receive.items():
        if receive.value > 0.5:
            source[t, n, j] = m
    return Placement(cache, source)


def _rounded(problem: PlacementProblem, model: Any) -> Placement:
    """Round the fractional x, slot by slot; take the best migrations."""
    x = _cached(problem, model)
    above_zero = x > LEAST_SHARE
    cache = np.zeros(x.shape, dtype=bool)
    for t in range(problem.slots):
        can_have = cache[t - 1] | (problem.group[t - 1] >= 0) if t else np.ones_like(cache[0])
        cache[t] = keep_by_score(
            x[t], above_zero[t] & can_have, problem.block_size, problem.storage
        )
    cached = node_sets(cache)
    return placement_of_paths(problem, cached, best_senders(classes(problem), cached))
