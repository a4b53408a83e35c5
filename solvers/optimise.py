"""The certified offline methods: placement by bound and search, at the rates of certified beams."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from problem.instance import Instance
from problem.solution import Solution
from solvers.alternate import alternate
from solvers.joint import ROUNDING, Prepared, answer, everywhere_bound, prepare, unserved
from solvers.placement.bound import dual_point
from solvers.placement.chains import classes
from solvers.placement.lagrangian import solve_lagrangian as place_by_prices
from solvers.placement.problem import Placement, PlacementProblem
from solvers.placement.result import PlacementResult
from solvers.placement.state_flow import solve_state_flow
from solvers.polish import polished
from solvers.result import Answer, BoundKind, Callback, Progress, Termination, TracePoint

Place = Callable[..., PlacementResult]

SPATIAL_SHARE = 0.5
"""Share of the time for the first placement, the rest being for modes and further placements."""

PLACEMENT_SHARE = 0.8
"""Share of the time for the placement; the rest is for the bound at the bounded rates."""

WORTH_ANOTHER_ROUND = 1e-4
"""Place again when better beams made the placement faster by this share."""


def solve_lagrangian(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    beamforming: str = "multicast",
    restrict: Iterable[str] = (),
    rate_cache: str | None = None,
    spatial_time: float | None = None,
) -> Answer:
    """Place by storage prices and priced best responses; certify by the Lagrangian bound.

    With spatial delivery, placement and modes are found in turn; see `solvers.alternate`.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback, spatial_time
        As in `solvers.solve.solve`.
    beamforming, restrict, rate_cache
        As in `solvers.joint.prepare`.
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
    spatial = instance.delivery == "spatial"
    share = SPATIAL_SHARE * time_limit if spatial and time_limit else time_limit
    prepared, found = _place(place_by_prices, prepared, began, share, gap, seed, start, callback)
    in_turn = _answer(prepared, found, began, "lagrangian", _price_bound(prepared, found))
    if not spatial or found.termination is Termination.INTERRUPTED:
        return in_turn
    offset = time.perf_counter() - began
    solution, termination, trace = alternate(
        lambda problem, begin, limit: (
            place_by_prices(problem, gap=gap, time_limit=limit, seed=seed, start=begin).placement
        ),
        prepared,
        found.placement,
        method="lagrangian",
        time_limit=_left(time_limit, began),
        slot_time=spatial_time,
        seed=seed,
        callback=callback,
    )
    return replace(
        in_turn,
        solution=solution,
        termination=termination,
        delay_at_bounded_rates=None,
        trace=(
            *in_turn.trace,
            *(TracePoint(offset + p.time_s, p.delay, in_turn.lower_bound) for p in trace),
        ),
    )


def solve_exact(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    beamforming: str = "multicast",
    restrict: Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Place by the state-flow MILP (HiGHS), to a proof where the size allows.

    The placement is proven at the achieved rates; a second solve at the certified upper bounds of
    the rates gives the lower bound on the joint problem.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `solvers.solve.solve`.
    beamforming, restrict, rate_cache
        As in `solvers.joint.prepare`.
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
    prepared, found = _place(solve_state_flow, prepared, began, share, gap, seed, start, callback)
    certified = _price_bound(prepared, found)
    if prepared.bounded is None or found.termination is Termination.INTERRUPTED:
        return _answer(prepared, found, began, "exact", certified)
    second = solve_state_flow(
        prepared.bounded,
        gap=gap,
        time_limit=_left(time_limit, began),
        seed=seed,
        start=found.placement,
    )
    if second.bound_kind is BoundKind.CERTIFIED or second.lower_bound <= certified:
        return _answer(prepared, found, began, "exact", max(certified, second.lower_bound))
    by_milp = second.lower_bound * (1.0 - ROUNDING)
    return _answer(prepared, found, began, "exact", by_milp, BoundKind.MILP)


def _place(
    place: Place,
    prepared: Prepared,
    began: float,
    time_limit: float | None,
    gap: float | None,
    seed: int,
    start: Solution | None,
    callback: Callback | None,
) -> tuple[Prepared, PlacementResult]:
    """Place, recompute the beams in use with more starts, and place again where that pays."""

    def run(problem: PlacementProblem, begin: Placement | None) -> PlacementResult:
        def tell(point: object) -> None:
            if callback is not None:
                delay, bound = getattr(point, "delay", 0.0), getattr(point, "lower_bound", 0.0)
                callback(Progress("placement", 0, 0, f"{delay:.6g} s, bound {bound:.6g} s"))

        return place(
            problem,
            gap=gap,
            time_limit=_left(time_limit, began),
            seed=seed,
            start=begin,
            callback=tell,
        )

    assert prepared.achieved is not None  # the caller has looked
    begin = None if start is None else Placement(start.cache, start.source)
    found = run(prepared.achieved, begin)
    better, gain = polished(prepared, found.placement, seed=seed)
    if gain > WORTH_ANOTHER_ROUND and better.achieved is not None:
        found = run(better.achieved, found.placement)
    return better, found


def _left(time_limit: float | None, began: float) -> float | None:
    return None if time_limit is None else max(0.0, time_limit - (time.perf_counter() - began))


def _price_bound(prepared: Prepared, found: PlacementResult) -> float:
    """Return the certified bound: the Lagrangian at the found prices, at bounded rates."""
    bound = everywhere_bound(prepared)
    # The Lagrangian speaks of one broadcast per block, which spatial delivery can beat.
    if prepared.instance.delivery == "spatial" or prepared.bounded is None or not found.prices:
        return bound
    point = dual_point(prepared.bounded, classes(prepared.bounded), found.prices)
    return max(bound, point.bound)


def _answer(
    prepared: Prepared,
    found: PlacementResult,
    began: float,
    method: str,
    lower_bound: float,
    bound_kind: BoundKind = BoundKind.CERTIFIED,
) -> Answer:
    offset = time.perf_counter() - began - (found.trace[-1].time_s if found.trace else 0.0)
    trace = tuple(
        TracePoint(max(0.0, offset) + p.time_s, p.delay, min(p.lower_bound, lower_bound))
        for p in found.trace
    )
    return answer(
        prepared,
        found.placement,
        method=method,
        lower_bound=lower_bound,
        termination=found.termination,
        bound_kind=bound_kind,
        trace=trace,
    )
