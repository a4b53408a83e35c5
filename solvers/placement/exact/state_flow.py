"""Proofs of optimality: a certified tree on small problems, else the state-flow MILP by HiGHS."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import highspy
import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.highs import QuietHighs, run_within
from finecast.solvers.node_set_tables import node_sets
from finecast.solvers.placement.bound import Prices, dual_point
from finecast.solvers.placement.chains import Classes, placement_of_paths
from finecast.solvers.placement.chains import classes as classes_of
from finecast.solvers.placement.exact.certify import EXACT_LIMITS, PROOF_GAP, certified
from finecast.solvers.placement.exact.elimination import excess
from finecast.solvers.placement.exact.state_flow_model import Model, model
from finecast.solvers.placement.exact.useful_paths import room_for
from finecast.solvers.placement.overfull import CUT_ROUNDS, overfull_covers
from finecast.solvers.placement.problem import Placement, PlacementProblem
from finecast.solvers.placement.result import Incumbent, PlacementResult
from finecast.solvers.placement.search.lagrangian import place_by_prices
from finecast.solvers.placement.senders import best_senders
from finecast.solvers.result import BoundKind, TracePoint
from finecast.solvers.signals import SearchInterrupt

LAGRANGIAN_TIME_SHARE = 0.2
"""Share of the time for the search before the MILP."""

TREE_TIME_SHARE = 0.5
"""Share of the time that is left then for the tree, before HiGHS."""

LAGRANGIAN_PATIENCE = 2
"""Rounds without progress after which that search ends."""


def place_by_state_flow(
    problem: PlacementProblem,
    *,
    deadline: Deadline = NEVER,
    gap: float | None = None,
    seed: int = 0,
    start: Placement | None = None,
    callback: Callable[[TracePoint], None] | None = None,
) -> PlacementResult:
    """Find a placement and try to prove it optimal.

    A Lagrangian search comes first: its placement is the one to beat and its prices leave elements
    out. Where few paths are left, the tree of `certify` proves the rest, and its bound is
    certified. Where they are many, or the tree does not come to its end, HiGHS solves the MILP. The
    lower bound is then the one HiGHS reports (of kind "milp"), beside the best certified one.

    Parameters
    ----------
    problem, deadline, gap, seed, start, callback
        As for `place_by_prices`.

    Raises
    ------
    ValueError
        Where `start` is not feasible, or `gap` is negative.
    """
    started = time.monotonic()
    warm = place_by_prices(
        problem, deadline=deadline.share(LAGRANGIAN_TIME_SHARE), gap=gap, seed=seed, start=start,
        callback=callback, patience=LAGRANGIAN_PATIENCE,
    )  # fmt: skip
    incumbent = Incumbent.after(
        warm, problem, deadline=deadline, gap=gap, callback=callback,
        optimal_gap=PROOF_GAP, started=started,
    )  # fmt: skip
    if incumbent.finished or warm.prices is None:
        return incumbent.result(warm.prices)

    # A tree over certified bounds comes first: where it ends, nobody's word is needed.
    sure = warm.lower_bound
    try:
        proof = certified(
            problem, incumbent.placement, warm.prices, gap=incumbent.target_gap,
            limits=EXACT_LIMITS, deadline=deadline.share(TREE_TIME_SHARE).of("proof"),
        )  # fmt: skip
        if proof is not None:
            if proof.placement is not None:
                incumbent.offer(proof.placement)
            incumbent.raise_bound(proof.lower_bound)
            sure = max(sure, proof.lower_bound)
    except SearchInterrupt:
        incumbent.interrupted = True
    if incumbent.finished:
        return incumbent.result(warm.prices)

    # HiGHS proves the rest.
    try:
        incumbent.raise_bound(best_by_highs(incumbent, warm.prices, seed))
    except SearchInterrupt:
        incumbent.interrupted = True
    if incumbent.lower_bound <= sure:
        return incumbent.result(warm.prices)
    result = incumbent.result(warm.prices, BoundKind.MILP)
    return replace(result, certified_bound=min(sure, result.delay))


def best_by_highs(
    incumbent: Incumbent, prices: Prices, seed: int, *, believed: bool = True
) -> float:
    """Solve the MILP by HiGHS, and offer its placements to the incumbent.

    Parameters
    ----------
    incumbent
        What is to be beaten, and when to end.
    prices
        Point of the Lagrangian dual, which leaves out what no better placement can use.
    seed
        Of HiGHS.
    believed
        Whether the incumbent takes the bounds of HiGHS.

    Returns
    -------
    The bound of HiGHS, s, on its word.
    """
    problem = incumbent.problem
    classes = classes_of(problem)
    point = dual_point(problem, classes, prices)
    unit = incumbent.delay
    room = room_for(problem, point, classes, unit)
    milp = model(problem, classes, excess(classes, point), room, unit)
    highs = QuietHighs()
    for option, value in (
        ("threads", 1), ("random_seed", seed),
        ("mip_rel_gap", 0.5 * incumbent.target_gap), ("mip_abs_gap", 0.0),
        ("mip_feasibility_tolerance", 1e-9), ("primal_feasibility_tolerance", 1e-9),
    ):  # fmt: skip
        highs.setOptionValue(option, value)
    columns, rows = len(milp.cost), len(milp.lower)
    order = np.lexsort((milp.row, milp.column))
    begin = np.searchsorted(milp.column[order], np.arange(columns))
    highs.passModel(
        columns, rows, len(order), 1, 1, 0.0, milp.cost, np.zeros(columns), milp.upper,
        milp.lower, milp.above, begin.astype(np.int32), milp.row[order].astype(np.int32),
        milp.value[order], milp.integral.astype(np.int32),
    )  # fmt: skip

    def improved(event: Any) -> None:
        offer_solution(incumbent, classes, milp, np.array(event.data_out.mip_solution))

    def logged(event: Any) -> None:
        bound = event.data_out.mip_dual_bound
        if believed and np.isfinite(bound):
            incumbent.raise_bound(bound * milp.unit)
        if incumbent.reached:
            event.interrupt()

    highs.cbMipImprovingSolution += improved
    highs.cbMipLogging += logged
    highs.cbMipInterrupt += logged
    best = 0.0
    for _ in range(CUT_ROUNDS):
        run_within(highs, incumbent.deadline, integer=True)
        if highs.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
            return incumbent.delay  # nothing below the delay to beat
        info = highs.getInfo()
        bound = float(info.mip_dual_bound) * milp.unit
        best = max(best, bound) if np.isfinite(bound) else best
        if info.primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            return best
        # An answer that overfills a storage within the tolerance hides those that do not.
        covers = offer_solution(incumbent, classes, milp, np.array(highs.getSolution().col_value))
        if not covers or incumbent.finished:
            return best
        for node, blocks in covers:
            for column in milp.x[:, node, blocks]:
                highs.addRow(
                    -np.inf, len(blocks) - 1.0, len(blocks), column.astype(np.int32),
                    np.ones(len(blocks)),
                )  # fmt: skip
    return best


def offer_solution(
    incumbent: Incumbent, classes: Classes, milp: Model, value: FloatArray
) -> list[tuple[int, IntArray]]:
    """Offer the placement of a solution of the MILP, by the values (V,) of its variables.

    Returns
    -------
    list[tuple[int, IntArray]]
        Where it overfills a storage, nothing is offered: nodes, and blocks that they cannot hold.
    """
    problem = incumbent.problem
    cache = value[milp.x] > 0.5
    rows = cache.reshape(-1, problem.blocks)
    covers = overfull_covers(rows, problem.block_size, np.tile(problem.storage, problem.slots))
    if covers:
        return [(row % problem.nodes, blocks) for row, blocks in covers]
    cached = node_sets(cache)
    if problem.schedule == "sequential":
        sender = best_senders(classes, cached)
    else:  # which senders are best depends on the other blocks of the slot
        sender = cached.copy()
        used = value[milp.arc] > 0.5
        t, j, q = milp.arc_at[used].T
        sender[t, j] = q
    incumbent.offer(placement_of_paths(problem, cached, sender))
    return []
