"""The certified offline methods: placement by bound and search, at the rates of certified beams."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from finecast.problem.instance import Instance
from finecast.problem.solution import Solution
from finecast.solvers.bounds import BOUND_TIME_S, ROUNDING, everywhere_bound, price_bound
from finecast.solvers.deadline import Deadline
from finecast.solvers.joint import Prepared, answer, prepare, unserved
from finecast.solvers.node_set_tables import FULL_TABLES
from finecast.solvers.placement.bound import Prices, dual_point
from finecast.solvers.placement.exact.state_flow import place_by_state_flow
from finecast.solvers.placement.greedy import greedy_placement
from finecast.solvers.placement.problem import Placement, PlacementProblem, placement_delay
from finecast.solvers.placement.result import PlacementResult
from finecast.solvers.placement.search.lagrangian import place_by_prices
from finecast.solvers.placement.units import UNITS, relaxed_classes
from finecast.solvers.polish import polished
from finecast.solvers.result import (
    Answer,
    BoundKind,
    Callback,
    Progress,
    Termination,
    TracePoint,
    relative_gap,
)
from finecast.solvers.spatial.replan import replanner

Place = Callable[..., PlacementResult]

BOUND_SHARE = 0.4
"""Of the time limit, for the bound of spatial delivery."""

PLACEMENT_SHARE = 0.8
"""Share of the time for the placement; the rest is for the bound at the bounded rates."""

SEQUENTIAL_SHARE = 0.4
"""Share of the time that a pipelined placement spends on the sequential one, as its start."""

PROOF_GAP = 1e-6
"""An answer within this of its bound is called optimal."""

PIPELINED_MODEL = (
    "exact models a pipelined slot as the larger of its two sums, which its bound rests on; "
    "method milp models the order of the messages too"
)

WORTH_ANOTHER_ROUND = 1e-4
"""Place again when better beams made the placement faster by this share."""

EARLY_ROUNDS = (0.25, 0.5)
"""Beyond 8 nodes few node sets have beams of their own: shares of the time after which the sets
in use get them, before the placement is found at last."""


def solve_lagrangian(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Place by storage prices and priced best responses; certify by the Lagrangian bound.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `finecast.solvers.solve.solve`.
    beamforming, restrict, rate_cache
        As in `finecast.solvers.joint.prepare`.
    """
    began = time.perf_counter()
    prepared = prepare(
        instance,
        beamforming=beamforming,
        restrict=restrict,
        seed=seed,
        callback=callback,
        rate_cache=rate_cache,
    )
    if prepared.achieved is None:
        return unserved(prepared)
    prepared, found, prices = _place(
        place_by_prices, prepared, began, time_limit, gap, seed, start, callback
    )
    certified = _price_bound(prepared, prices, time_limit)
    result = _answer(prepared, found, began, "lagrangian", gap, certified)
    return _replannable(result, prepared, place_by_prices, "lagrangian", gap, seed)


def certified_lower_bound(
    instance: Instance,
    *,
    restrict: str | Iterable[str] = (),
    time_limit: float = BOUND_TIME_S,
    callback: Callback | None = None,
) -> float:
    """Return a certified lower bound on D, s, of any decisions.

    Parameters
    ----------
    instance
        The problem.
    restrict
        Restrictions; the bound is then that of the restricted system.
    time_limit
        Seconds, after the rates are there.
    callback
        Told of progress.

    Raises
    ------
    ValueError
        Unknown restriction.
    """
    prepared = prepare(instance, restrict=restrict, callback=callback)
    return price_bound(prepared, Deadline.after(time_limit))


def solve_exact(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Place by the state-flow MILP (HiGHS), to a proof where the size allows.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `finecast.solvers.solve.solve`.
    beamforming, restrict, rate_cache
        As in `finecast.solvers.joint.prepare`.
    """
    return place_twice(
        place_by_state_flow,
        "exact",
        instance,
        time_limit=time_limit,
        gap=gap,
        seed=seed,
        start=start,
        callback=callback,
        beamforming=beamforming,
        restrict=restrict,
        rate_cache=rate_cache,
    )


def place_twice(
    place: Place,
    method: str,
    instance: Instance,
    *,
    time_limit: float | None,
    gap: float | None,
    seed: int,
    start: Solution | None,
    callback: Callback | None,
    beamforming: str,
    restrict: str | Iterable[str],
    rate_cache: str | None,
    done: Callable[[PlacementProblem], None] | None = None,
) -> Answer:
    """Place at the achieved rates, then again at the certified upper bounds of the rates.

    The first gives the decisions, the second the lower bound on the joint problem.

    Parameters
    ----------
    place
        Placement method whose lower bounds hold for every placement.
    method
        Name to leave in the solution.
    instance, time_limit, gap, seed, start, callback
        As in `finecast.solvers.solve.solve`.
    beamforming, restrict, rate_cache
        As in `finecast.solvers.joint.prepare`.
    done
        Told of the placement problem, at achieved rates, that the decisions are for.
    """
    began = time.perf_counter()
    prepared = prepare(
        instance,
        beamforming=beamforming,
        restrict=restrict,
        seed=seed,
        callback=callback,
        rate_cache=rate_cache,
    )
    if prepared.achieved is None:
        return unserved(prepared)
    share = None if time_limit is None else PLACEMENT_SHARE * time_limit
    prepared, found, prices = _place(place, prepared, began, share, gap, seed, start, callback)
    if done is not None and prepared.achieved is not None:
        done(prepared.achieved)
    certified = _price_bound(prepared, prices, time_limit)
    # The second says nothing of spatial delivery, which can beat one broadcast per block.
    spatial = prepared.instance.delivery == "spatial"
    if prepared.bounded is None or spatial or found.termination is Termination.INTERRUPTED:
        result = _answer(prepared, found, began, method, gap, certified)
        return _replannable(result, prepared, place, method, gap, seed)
    second = place(
        prepared.bounded,
        gap=gap,
        deadline=Deadline.after(_left(time_limit, began)),
        seed=seed,
        start=found.placement,
    )
    if second.bound_kind is BoundKind.CERTIFIED or second.lower_bound <= certified:
        return _answer(prepared, found, began, method, gap, max(certified, second.lower_bound))
    by_milp = second.lower_bound * (1.0 - ROUNDING)
    return _answer(prepared, found, began, method, gap, by_milp, BoundKind.MILP)


def _place(
    place: Place,
    prepared: Prepared,
    began: float,
    time_limit: float | None,
    gap: float | None,
    seed: int,
    start: Solution | None,
    callback: Callback | None,
) -> tuple[Prepared, PlacementResult, list[Prices | None]]:
    """Place, recompute the beams in use with more starts, and place again where that pays.

    Returns the better rates, the last placement, and the prices of every round.
    """

    def run(
        problem: PlacementProblem, begin: Placement | None, share: float = 1.0
    ) -> PlacementResult:
        left = _left(time_limit, began)

        def tell(point: object) -> None:
            if callback is not None:
                delay, bound = getattr(point, "delay", 0.0), getattr(point, "lower_bound", 0.0)
                callback(Progress("placement", 0, 0, f"{delay:.6g} s, bound {bound:.6g} s"))

        return place(
            problem,
            gap=gap,
            deadline=Deadline.after(left).share(share),
            seed=seed,
            start=begin,
            callback=tell,
        )

    assert prepared.achieved is not None  # the caller has looked
    problem = prepared.achieved
    begin = None if start is None else Placement(start.cache, start.source)
    if problem.schedule == "pipelined":
        # The search aims at the larger of the two sums; what is best in sequence is a good start.
        ahead = None if time_limit is None else SEQUENTIAL_SHARE * time_limit
        sequential = place(
            replace(problem, schedule="sequential"),
            deadline=Deadline.after(ahead),
            gap=gap,
            seed=seed,
        )
        known = [sequential.placement, greedy_placement(problem), *([begin] if begin else [])]
        begin = min(known, key=lambda placement: placement_delay(problem, placement))
    prices: list[Prices | None] = []
    few_sets = prepared.instance.nodes > FULL_TABLES
    for share in (*(EARLY_ROUNDS if few_sets else ()), 1.0):
        assert prepared.achieved is not None  # rates only rise
        found = run(prepared.achieved, begin, share)
        prices.append(found.prices)
        if found.termination is Termination.INTERRUPTED:
            return prepared, found, prices
        prepared, gain = polished(prepared, found.placement, seed=seed)
        begin = found.placement
    if gain > WORTH_ANOTHER_ROUND and not few_sets:
        assert prepared.achieved is not None
        found = run(prepared.achieved, begin)
        prices.append(found.prices)
    return prepared, found, prices


def _replannable(
    result: Answer, prepared: Prepared, place: Place, method: str, gap: float | None, seed: int
) -> Answer:
    """Return the answer with what places again at the prices of shared air."""

    def again(problem: PlacementProblem, begin: Placement, limit: float | None) -> Placement:
        deadline = Deadline.after(limit)
        return place(problem, deadline=deadline, gap=gap, seed=seed, start=begin).placement

    return replace(result, replan=replanner(prepared, again, method))


def _left(time_limit: float | None, began: float) -> float | None:
    return None if time_limit is None else max(0.0, time_limit - (time.perf_counter() - began))


def _price_bound(
    prepared: Prepared, prices: list[Prices | None], time_limit: float | None
) -> float:
    """Return the certified bound: the Lagrangian at the found prices, at bounded rates."""
    share = None if time_limit is None else BOUND_SHARE * time_limit
    bound = everywhere_bound(prepared, share)
    # The Lagrangian speaks of one broadcast per block, which spatial delivery can beat.
    if prepared.instance.delivery == "spatial" or prepared.bounded is None:
        return bound
    tables = relaxed_classes(prepared.bounded, like=prepared.achieved)
    points = [dual_point(prepared.bounded, tables, point).bound for point in prices if point]
    return max([bound, *points])


def _relaxation(prepared: Prepared) -> tuple[str, ...]:
    """Return what the bound leaves out, in words, where it leaves anything out."""
    if prepared.instance.nodes <= UNITS or prepared.instance.delivery == "spatial":
        return ()
    return (
        f"the bound prices the storage of the {UNITS} nodes that matter most to each class of "
        "blocks; the others count as holding its blocks for free",
    )


def _answer(
    prepared: Prepared,
    found: PlacementResult,
    began: float,
    method: str,
    gap: float | None,
    lower_bound: float,
    bound_kind: BoundKind = BoundKind.CERTIFIED,
) -> Answer:
    """Return the answer; it ends as what its final gap proves, beams included."""
    offset = time.perf_counter() - began - (found.trace[-1].time_s if found.trace else 0.0)
    trace = tuple(
        TracePoint(max(0.0, offset) + p.time_s, p.delay, min(p.lower_bound, lower_bound))
        for p in found.trace
    )
    assert prepared.achieved is not None  # there is a placement at these rates
    pipelined = prepared.achieved.schedule == "pipelined"
    reached = relative_gap(placement_delay(prepared.achieved, found.placement), lower_bound)
    termination = found.termination
    if reached <= PROOF_GAP:
        termination = Termination.OPTIMAL
    elif gap is not None and reached <= gap:
        termination = Termination.GAP_REACHED
    elif termination not in (Termination.TIME_LIMIT, Termination.INTERRUPTED):
        termination = (
            Termination.COMPLETED
        )  # nothing more came of it, or the beams are what is open
    return answer(
        prepared,
        found.placement,
        method=method,
        lower_bound=lower_bound,
        termination=termination,
        bound_kind=bound_kind,
        trace=trace,
        notes=(PIPELINED_MODEL,) if method == "exact" and pipelined else _relaxation(prepared),
    )
