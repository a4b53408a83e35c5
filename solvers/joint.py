"""Joint answers: a placement, its messages with the best beams known, and a certified bound."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from inspect import signature

import numpy as np

from finecast.problem.instance import Instance
from finecast.solvers.bounds import everywhere_bound, price_bound
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.delivery import deliver
from finecast.solvers.placement.greedy import greedy_placement
from finecast.solvers.placement.problem import Placement, placement_delay
from finecast.solvers.prepared import Prepared, UnservableError, prepare
from finecast.solvers.result import Answer, BoundKind, Callback, Termination, TracePoint
from finecast.solvers.signals import SearchInterrupt
from finecast.solvers.spatial.replan import replanner

RATES_SHARE = 0.5
"""Share of the time limit of a heuristic for the rates."""

NOMINAL = (
    "a nominal plan guarantees nothing: compare its realised delay; the bound printed is for the "
    "planned delay of nominal plans"
)


def answer(
    prepared: Prepared,
    placement: Placement,
    *,
    method: str,
    lower_bound: float,
    termination: Termination,
    bound_kind: BoundKind = BoundKind.CERTIFIED,
    trace: tuple[TracePoint, ...] = (),
    notes: tuple[str, ...] = (),
) -> Answer:
    """Return the answer that delivers a placement with the best beams known.

    Parameters
    ----------
    prepared
        Instance and rates.
    placement
        Caches and sources.
    method, lower_bound, termination, bound_kind, trace, notes
        As in `Answer`.
    """
    solution = deliver(
        prepared.instance,
        placement,
        prepared.plans,
        prepared.rates,
        robust=prepared.robust,
        method=method,
    )
    at_bounds = None if prepared.bounded is None else placement_delay(prepared.bounded, placement)
    return Answer(
        solution,
        lower_bound,
        bound_kind,
        termination,
        delay_at_bounded_rates=at_bounds,
        trace=trace,
        notes=notes if prepared.robust else (*notes, NOMINAL),
        instance=prepared.instance,
    )


def heuristic_answer(
    prepared: Prepared,
    placement: Placement,
    *,
    method: str,
    began: float,
    deadline: Deadline,
    notes: tuple[str, ...] = (),
) -> Answer:
    """Return the answer of a method that proves nothing itself, with a bound from prices.

    Parameters
    ----------
    prepared
        Instance and rates.
    placement
        Caches and sources.
    method, notes
        As in `Answer`.
    began
        When the method began, as `time.monotonic` counts.
    deadline
        When the bound must be there.
    """
    termination = Termination.COMPLETED
    try:
        bound = price_bound(prepared, deadline.of("bound"))
    except SearchInterrupt:  # the plan is there
        bound = everywhere_bound(prepared, Deadline.after(0.0))
        termination = Termination.INTERRUPTED
    delay = placement_delay(prepared.achieved, placement)
    return answer(
        prepared,
        placement,
        method=method,
        lower_bound=bound,
        termination=termination,
        trace=(TracePoint(time.monotonic() - began, delay, bound),),
        notes=notes,
    )


def out_of_time(prepared: Prepared, deadline: Deadline) -> tuple[str, ...]:
    """Return a note where the time limit cut the rates short.

    Parameters
    ----------
    prepared
        Instance and rates.
    deadline
        The limit.
    """
    solved = [np.isfinite(slot.snr_bound) for slot in prepared.rates if slot.snr_bound.size]
    share = min((float(of_slot.mean()) for of_slot in solved), default=1.0)
    if deadline.endless or share == 1.0:
        return ()
    return (
        f"time limit: of the rates of a slot {100 * share:.2g} % or more have beams of their own, "
        "the others those of more nodes",
    )


def unserved(reason: UnservableError) -> Answer:
    """Return the answer where some user group cannot be served at all: there is no solution."""
    return Answer(
        None,
        everywhere_bound(reason.prepared),
        BoundKind.CERTIFIED,
        Termination.NO_SOLUTION,
        notes=(str(reason),),
        instance=reason.prepared.instance,
    )


def at_hand(prepared: Prepared, *, method: str, began: float) -> Answer:
    """Return the greedy plan: for Ctrl-C after the rates and before a method has a plan.

    Parameters
    ----------
    prepared
        Instance and rates.
    method, began
        As in `heuristic_answer`.

    Raises
    ------
    UnservableError
        A user group cannot be served at any rate.
    """
    greedy = heuristic_answer(
        prepared,
        greedy_placement(prepared.achieved),
        method=method,
        began=began,
        deadline=Deadline.after(0.0),
        notes=(f"interrupted before {method} had a plan: this is the greedy one",),
    )
    return replace(greedy, termination=Termination.INTERRUPTED)


def solve_by_placement(
    place: Callable[..., Placement],
    method: str,
    instance: Instance,
    *,
    deadline: Deadline = NEVER,
    seed: int = 0,
    callback: Callback | None = None,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Solve by a placement heuristic.

    Parameters
    ----------
    place
        Maps the placement problem at achieved rates, the library of the (restricted) instance and
        the seed to a placement. Where it has a parameter `deadline`, it gets that, too.
    method
        Name to leave in the solution.
    instance
        The problem.
    deadline
        When to be done. Rates get half of the time, and are quickly found ones where that is
        too little; what is left is for the placement and the bound.
    seed, callback, beamforming, restrict, rate_cache
        As in `finecast.solvers.prepared.prepare`.

    Raises
    ------
    ValueError
        Unknown beamforming method or restriction.
    UnservableError
        A user group cannot be served at any rate.
    """
    began = time.monotonic()
    prepared = prepare(
        instance,
        beamforming=beamforming,
        restrict=restrict,
        seed=seed,
        callback=callback,
        rate_cache=rate_cache,
        deadline=deadline.share(RATES_SHARE).of("rates"),
    )
    library = prepared.instance.library
    notes = out_of_time(prepared, deadline)
    in_time: dict[str, Deadline] = {}
    if "deadline" in signature(place).parameters:
        in_time["deadline"] = deadline.of("placement")
    try:
        placement = place(prepared.achieved, library, seed, **in_time)
    except SearchInterrupt:
        return at_hand(prepared, method=method, began=began)
    result = heuristic_answer(
        prepared, placement, method=method, began=began, deadline=deadline, notes=notes
    )
    again = replanner(prepared, lambda problem, *_: place(problem, library, seed), method)
    return replace(result, replan=again)
