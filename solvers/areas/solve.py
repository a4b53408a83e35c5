"""Methods and bound for an instance of several areas."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from finecast.problem.arrays import BoolArray
from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance
from finecast.problem.wording import percent
from finecast.solvers.areas.deliver import UnreachedError, deliver
from finecast.solvers.areas.gap import gap_parts
from finecast.solvers.areas.on_air import Plan
from finecast.solvers.areas.plan import SEARCH_SHARE, finish_plan, search_plan
from finecast.solvers.areas.rates import (
    PlanSolver,
    Ready,
    check_served,
    prepare_areas,
)
from finecast.solvers.beamforming.by_name import KERNEL
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.placement.greedy import greedy_placement
from finecast.solvers.prepared import UnservableError
from finecast.solvers.restrictions import check_restrictions
from finecast.solvers.result import (
    Answer,
    BoundKind,
    Callback,
    Progress,
    Termination,
    TracePoint,
    relative_gap,
)
from finecast.solvers.search import Search
from finecast.solvers.workers import ALONE, Workers

GREEDY_SHARE = 0.2
"""Share of what is then left for the caches of `greedy`, of methods that go on."""

BOUND_SHARE = 0.35
"""Share of the time for the rates of the areas and the bound."""

WORTH_FINISHING = 1.003
"""A plan that is thought slower than this, over one that is finished, is not finished."""

GREEDY_ROUNDS = 2
"""Rounds of `greedy`: the second knows the interference of the first."""


def solve_areas(
    method: str,
    instance: Instance,
    search: Search,
    *,
    greedy: bool = False,
    beamforming: str = KERNEL,
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Plan an instance of several areas, with a certified bound.

    Parameters
    ----------
    method
        Name to leave in the solution.
    instance
        The problem.
    search
        When to end, where to begin, whom to tell.
    greedy
        Caches of every area by its greedy placement, which stay.
    beamforming, restrict, rate_cache
        As in `finecast.solvers.prepared.prepare`; only what `check_served` lets through.

    Raises
    ------
    ValueError
        Something is asked for that is not for instances of several areas.
    UnservableError
        A user group cannot be served by its area at any rate.
    """
    began = time.monotonic()
    restrictions = check_restrictions(restrict)
    check_served(instance, restrictions, beamforming, rate_cache)
    # A start that the judge accepts gives the first caches, and is the answer if nothing is better.
    start = None if greedy else search.start
    start_delay = np.inf if start is None else evaluate(instance, start).delay
    ready = prepare_areas(
        instance,
        restrict=restrictions,
        seed=search.seed,
        callback=search.callback,
        deadline=search.deadline.share(BOUND_SHARE),
        workers=search.workers,
    )
    bound = ready.point.bound
    rounds = itertools.count(1)

    def report(plan: Plan) -> None:
        if search.callback is not None:
            note = f"about {plan.delay:.6g} s, bound {bound:.6g} s"
            search.callback(Progress("plan of areas", next(rounds), 0, note))

    solver = PlanSolver(ready, seed=search.seed, deadline=search.deadline, workers=search.workers)
    goal = 0.0 if search.gap is None else bound * (1.0 + search.gap)

    def searched(
        cache: BoolArray | None,
        wide: BoolArray | None,
        share: float,
        *,
        sweeps: bool,
        after: Plan | None = None,
    ) -> Plan:
        return search_plan(
            ready.city,
            solver.ready.rates,
            ready.point.prices,
            wide,
            seed=search.seed,
            deadline=search.deadline.share(share),
            goal=goal,
            cache=cache,
            solve=solver,
            report=report,
            sweeps=sweeps,
            workers=search.workers,
            wide_share=ready.wide.share,
            after=after,
        )

    def finished(plan: Plan, after: Plan | None = None) -> Plan:
        return finish_plan(
            ready.city,
            plan,
            after=after,
            seed=search.seed,
            deadline=search.deadline,
            goal=goal,
            workers=search.workers,
        )

    # The plan of `greedy` comes first. Another one is looked for by the prices of the bound.
    share = SEARCH_SHARE if greedy else GREEDY_SHARE
    plans = [
        searched(greedy_caches(ready, search.deadline.share(share)), None, share, sweeps=False)
    ]
    if not (greedy or plans[0].interrupted or plans[0].delay <= goal or search.deadline.over()):
        if start is not None and np.isfinite(start_delay):
            plans.append(searched(start.cache, None, SEARCH_SHARE, sweeps=True))
        else:
            plans.append(searched(None, first_ways(ready), SEARCH_SHARE, sweeps=True))

    # The one that is thought faster gets the beams of its wide messages; where there is as much
    # time left, so does the other if it may be faster.
    first, *others = sorted(plans, key=lambda plan: plan.delay)
    before = search.deadline.left()
    plan = base = finished(replace(first, interrupted=plans[-1].interrupted))

    # What follows takes about as long again.
    ended = greedy or plan.interrupted or plan.delay <= goal
    too_late = not ended and 2.0 * search.deadline.left() < before
    if too_late:
        search.deadline.note()

    def over() -> bool:
        return plan.interrupted or too_late or search.deadline.over() or plan.delay <= goal

    for other in others:
        if not over() and other.delay <= WORTH_FINISHING * plan.delay:
            plan = _faster(plan, finished(other))

    # The rates of the first are known now, also those of wide messages: caches and ways are chosen
    # again at these.
    if not (greedy or over()):
        other = searched(base.state.cache, None, SEARCH_SHARE, sweeps=True, after=base)
        if other.interrupted:
            plan = replace(plan, interrupted=True)
        elif other.delay <= WORTH_FINISHING * plan.delay:
            plan = _faster(plan, finished(other, after=base))
    ready = solver.ready if plan.interrupted else solver.bounded(plan.state)
    bound = ready.point.bound
    try:
        solution = deliver(ready.city, plan, method)
    except UnreachedError as error:
        note = str(error)
        return Answer(None, bound, BoundKind.CERTIFIED, Termination.NO_SOLUTION, notes=(note,))
    if start is not None and start_delay < plan.delay:
        solution = replace(start, method=method)
    termination = Termination.COMPLETED
    if plan.interrupted:
        termination = Termination.INTERRUPTED
    elif search.gap is not None and relative_gap(plan.delay, bound) <= search.gap:
        termination = Termination.GAP_REACHED
    elif too_late or search.deadline.over():
        termination = Termination.TIME_LIMIT
    parts = gap_parts(ready, plan)
    gap = (plan.delay - bound) / bound if bound > 0 else float("inf")
    note = f"gap {percent(gap)} of the bound: " + ", ".join(
        f"{name} {percent(part / bound) if bound > 0 else part}" for name, part in parts.items()
    )
    return Answer(
        solution,
        bound,
        BoundKind.CERTIFIED,
        termination,
        trace=(TracePoint(time.monotonic() - began, plan.delay, bound),),
        notes=(note,),
        instance=ready.city.instance,
    )


def _faster(plan: Plan, other: Plan) -> Plan:
    """Return the faster plan, interrupted if the later one was."""
    return replace(other if other.delay < plan.delay else plan, interrupted=other.interrupted)


def areas_bound(
    instance: Instance,
    *,
    restrict: str | Iterable[str] = (),
    time_limit: float | None = None,
    callback: Callback | None = None,
    workers: Workers = ALONE,
) -> float:
    """Return the certified lower bound of an instance of several areas, s.

    Parameters
    ----------
    instance, restrict, callback
        As in `solve_areas`.
    time_limit
        Seconds; None for the end of its own.
    workers
        Who computes the rates of the areas.

    Raises
    ------
    ValueError
        Something is asked for that is not for instances of several areas.
    """
    restrictions = check_restrictions(restrict)
    check_served(instance, restrictions, KERNEL, None)
    try:
        ready = prepare_areas(
            instance,
            restrict=restrictions,
            callback=callback,
            deadline=Deadline.after(time_limit),
            workers=workers,
        )
    except UnservableError:
        return 0.0
    return ready.point.bound


def first_ways(ready: Ready) -> BoolArray:
    """Return (T, J) which blocks go wide where the bound's areas, by weight, say so."""
    whole = ready.city.whole
    votes = np.zeros(whole.users.shape[:2])
    for table, part in zip(ready.tables, ready.point.parts, strict=True):
        mine = np.flatnonzero(table.of_whole >= 0)
        vote = np.where(part.wide, 1.0, -1.0) * table.weights.broadcast[:, None]
        votes[:, table.of_whole[mine]] += np.where(table.classes.needed, vote, 0.0)[:, mine]
    return np.asarray((votes > 0)[:, whole.kind])


def greedy_caches(ready: Ready, deadline: Deadline = NEVER) -> BoolArray:
    """Return (T, N, J) the caches of every area's greedy placement, from its own links alone.

    Parameters
    ----------
    ready
        The problem, and the rates of every area.
    deadline
        For all areas; each gets an equal part of it.
    """
    instance = ready.city.instance
    cache = np.zeros((instance.slots, instance.nodes, instance.blocks), dtype=bool)
    for done, (area, prepared) in enumerate(zip(ready.city.areas, ready.prepared, strict=True)):
        mine = deadline.share(1.0 / (len(ready.prepared) - done))
        cache[:, area.nodes] = greedy_placement(prepared.achieved, mine).cache
    return cache
