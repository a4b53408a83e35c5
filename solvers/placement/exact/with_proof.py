"""The search by storage prices; small instances with a certified proof, and HiGHS in spare time."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.node_set_tables import FULL_TABLES
from finecast.solvers.placement.bound import Prices
from finecast.solvers.placement.exact.certify import (
    ASKED_LIMITS,
    PROOF_GAP,
    SEARCH_LIMITS,
    Limits,
    certified,
)
from finecast.solvers.placement.exact.state_flow import best_by_highs
from finecast.solvers.placement.problem import Placement, PlacementProblem
from finecast.solvers.placement.result import Incumbent, PlacementResult
from finecast.solvers.placement.search.lagrangian import PATIENCE, place_by_prices
from finecast.solvers.placement.units import UNITS
from finecast.solvers.result import Termination, TracePoint
from finecast.solvers.signals import SearchInterrupt

SMALL = 10_000
"""Blocks times slots times node sets up to which a proof is tried before the search."""

EARLY_LIMITS = Limits(grown=2000, paths=2000, parts=0, labels=1_000_000)
"""Of the proof before the search: some tenths of a second, and no tree."""

EARLY_SHARE = 0.3
"""Share of the time for it."""

LARGE_GAP = 1e-3
"""Relative gap for which the time that a limit leaves is spent on the proof, and on HiGHS."""


def place_with_proof(
    problem: PlacementProblem,
    *,
    deadline: Deadline = NEVER,
    gap: float | None = None,
    seed: int = 0,
    start: Placement | None = None,
    callback: Callable[[TracePoint], None] | None = None,
    patience: int = PATIENCE,
    units: int = UNITS,
) -> PlacementResult:
    """Search as `place_by_prices` does, and prove the answer where the instance is small.

    Where a limit leaves time after that, HiGHS looks for faster placements of a small instance.

    Parameters
    ----------
    problem, deadline, gap, seed, start, callback, patience, units
        As for `place_by_prices`. The tree gets the time that the search leaves.

    Raises
    ------
    ValueError
        Where `start` is not feasible, or `gap` is negative.
    """
    started = time.monotonic()
    # A small instance is proven at once: the layers find the fastest placement themselves, and
    # need only something near it to beat. What they do not come to an end with goes the long way.
    small = problem.blocks * problem.slots << problem.nodes <= SMALL
    if small:
        first = place_by_prices(
            problem, deadline=deadline, gap=gap, seed=seed, start=start, patience=0, units=units
        )
        sooner = replace(deadline.share(EARLY_SHARE), cut={})
        proven = _proven(problem, first, sooner, gap, EARLY_LIMITS, started)
        if proven is None or proven.reached or proven.interrupted:
            early = first if proven is None else proven.result(first.prices)
            if callback is not None:
                for point in early.trace:
                    callback(point)
            return early

    # The search to its own end, and then the proof of what it found.
    found = place_by_prices(
        problem, deadline=deadline, gap=gap, seed=seed, start=start, callback=callback,
        patience=patience, units=units,
    )  # fmt: skip
    limits = _limits(gap, deadline, found.gap)
    incumbent = _proven(problem, found, deadline.of("proof"), gap, limits, started, callback)
    if incumbent is None or found.prices is None:
        return found
    # What a limit leaves then goes to placements by HiGHS, whose MILP has all node sets. Its bounds
    # are left aside: they are not certified.
    solvable = small and problem.nodes <= FULL_TABLES
    wanted = incumbent.gap > LARGE_GAP and not incumbent.finished
    if solvable and wanted and not deadline.endless:
        try:
            best_by_highs(incumbent, found.prices, seed, believed=False)
        except SearchInterrupt:
            incumbent.interrupted = True
    return incumbent.result(found.prices)


def _proven(
    problem: PlacementProblem,
    found: PlacementResult,
    deadline: Deadline,
    gap: float | None,
    limits: Limits,
    started: float,
    callback: Callable[[TracePoint], None] | None = None,
) -> Incumbent | None:
    """Return what a search found, with the proof of it; None where it came to no end of its own."""
    if found.prices is None or found.termination is not Termination.ITERATION_LIMIT:
        return None
    incumbent = Incumbent.after(
        found, problem, deadline=deadline, gap=gap, callback=callback,
        optimal_gap=PROOF_GAP, started=started,
    )  # fmt: skip
    try:
        proof = certified(
            problem, found.placement, found.prices,
            gap=incumbent.target_gap, limits=limits, deadline=deadline,
        )  # fmt: skip
        if proof is not None:
            if proof.placement is not None:
                incumbent.offer(proof.placement)
            incumbent.raise_bound(proof.lower_bound)
    except SearchInterrupt:
        incumbent.interrupted = True
    return incumbent


def proven_bound(
    problem: PlacementProblem,
    placement: Placement,
    prices: Prices,
    *,
    gap: float | None,
    deadline: Deadline,
    so_far: float = 0.0,
) -> float:
    """Return the certified bound (s) of the tree where the instance is small, else 0.

    Parameters
    ----------
    problem
        The problem, at bounded rates.
    placement
        A feasible placement.
    prices
        Point of the Lagrangian dual.
    gap
        Relative gap that is to be proven; None for an optimum.
    deadline
        When to end.
    so_far
        Relative gap without the tree.
    """
    proof = certified(
        problem, placement, prices,
        gap=max(gap or 0.0, PROOF_GAP), limits=_limits(gap, deadline, so_far), deadline=deadline,
    )  # fmt: skip
    return 0.0 if proof is None else proof.lower_bound


def _limits(gap: float | None, deadline: Deadline, so_far: float) -> Limits:
    """Return how large a tree may grow: large where a gap is asked for, or is large in spare time.

    `so_far` is the relative gap without the tree.
    """
    spare = not deadline.endless and so_far > LARGE_GAP
    return ASKED_LIMITS if gap is not None or spare else SEARCH_LIMITS
