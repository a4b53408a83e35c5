"""Joint answers: rates of the messages, placement at these rates, beams, a certified bound."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.arrays import FloatArray
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution
from finecast.solvers.bounds import everywhere_bound, price_bound
from finecast.solvers.delivery import deliver
from finecast.solvers.node_set_tables import Table, whole_set
from finecast.solvers.placement.greedy import greedy_placement
from finecast.solvers.placement.problem import Placement, PlacementProblem, placement_delay
from finecast.solvers.rates import SlotRates, node_sets_to_solve, rate_table, same_for_all
from finecast.solvers.restrictions import (
    Messages,
    check_restrictions,
    messages,
    restricted_instance,
    restricted_links,
)
from finecast.solvers.result import Answer, BoundKind, Callback, Termination, TracePoint
from finecast.solvers.spatial.replan import replanner

NOMINAL = (
    "a nominal plan guarantees nothing: compare its realised delay; the bound printed is for the "
    "planned delay of nominal plans"
)

UNSERVED = "a user group cannot be served at any rate: its channel errors are too large"


@dataclass(frozen=True, eq=False)
class Prepared:
    """An instance with the rates of its messages.

    Parameters
    ----------
    instance
        The instance of the (restricted) system, which the solution is for.
    plans, rates
        Per slot, the messages and their rates.
    link
        (N + 1, N) seconds per byte from node to node that may be used, the last row from the cloud.
    achieved, bounded
        The placement problems at achieved rates and at their certified upper bounds; None when
        some group cannot be served.
    robust
        Rates hold over the error balls.
    beamforming
        The method that made the beams.
    """

    instance: Instance
    plans: tuple[Messages, ...]
    rates: tuple[SlotRates, ...]
    link: FloatArray
    achieved: PlacementProblem | None
    bounded: PlacementProblem | None
    robust: bool
    beamforming: str


def prepare(
    instance: Instance,
    *,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    seed: int = 0,
    callback: Callback | None = None,
    rate_cache: str | os.PathLike[str] | None = None,
) -> Prepared:
    """Compute the rates of all messages and the placement problems at these rates.

    Parameters
    ----------
    instance
        The problem.
    beamforming
        Beamforming method; see `finecast.solvers.beamforming.by_name`.
    restrict
        Restrictions; see `finecast.solvers.restrictions`.
    seed
        Seed of the beamforming method's random starts.
    callback
        Told of progress.
    rate_cache
        Folder in which rate tables are kept; None for none.

    Raises
    ------
    ValueError
        Unknown method or restriction.
    """
    restrictions = check_restrictions(restrict)
    instance = restricted_instance(instance, restrictions)
    plans = tuple(messages(instance, t, restrictions) for t in range(instance.slots))
    robust = "non-robust" not in restrictions
    users = [plan.users for plan in plans]
    if "no-comp" in restrictions:
        node_sets = same_for_all(1 << np.arange(instance.nodes), users)
    else:
        node_sets = node_sets_to_solve(instance, users, robust)
    rates = rate_table(
        instance,
        users,
        node_sets,
        beamforming=beamforming,
        robust=robust,
        seed=seed,
        callback=callback,
        cache=rate_cache,
    )

    with np.errstate(divide="ignore"):
        link = restricted_links(8.0 / instance.network.link_rate, restrictions)
    return with_problems(Prepared(instance, plans, rates, link, None, None, robust, beamforming))


def with_problems(prepared: Prepared) -> Prepared:
    """Return the same with the placement problems at its rates and at their bounds."""
    return replace(
        prepared,
        achieved=placement_problem(prepared, [slot.achieved for slot in prepared.rates]),
        bounded=placement_problem(prepared, [slot.bound for slot in prepared.rates]),
    )


def placement_problem(prepared: Prepared, tables: list[Table]) -> PlacementProblem | None:
    """Return the placement problem at given rates; None when some group cannot be served.

    Parameters
    ----------
    prepared
        Instance, messages and links.
    tables
        Per slot (P, 2^N), rate of every message by every node set, bit/s.
    """
    instance = prepared.instance
    seconds = tuple(
        plan.seconds_per_byte(table) for plan, table in zip(prepared.plans, tables, strict=True)
    )
    if any(not np.isfinite(whole_set(table, instance.nodes)).all() for table in seconds):
        return None
    return PlacementProblem(
        block_size=instance.library.block_size,
        storage=instance.network.storage,
        group=np.stack([plan.group for plan in prepared.plans]),
        broadcast=seconds,
        link=prepared.link,
        schedule=instance.schedule,
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
        planned="guaranteed" if prepared.robust else "nominal",
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


def unserved(prepared: Prepared) -> Answer:
    """Return the answer where some user group cannot be served at all: there is none."""
    return Answer(
        None,
        everywhere_bound(prepared),
        BoundKind.CERTIFIED,
        Termination.NO_SOLUTION,
        notes=(UNSERVED,),
        instance=prepared.instance,
    )


def solve_by_placement(
    place: Callable[[PlacementProblem, int], Placement],
    method: str,
    instance: Instance,
    *,
    seed: int,
    callback: Callback | None,
    beamforming: str,
    restrict: str | Iterable[str],
    rate_cache: str | None,
) -> Answer:
    """Solve by a placement heuristic that needs nothing but the problem and a seed.

    Parameters
    ----------
    place
        From the placement problem at achieved rates, and the seed, to a placement.
    method
        Name to leave in the solution.
    instance, seed, callback, beamforming, restrict, rate_cache
        As in `prepare`.
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
    bound = price_bound(prepared)
    placement = place(prepared.achieved, seed)
    delay = placement_delay(prepared.achieved, placement)
    found = answer(
        prepared,
        placement,
        method=method,
        lower_bound=bound,
        termination=Termination.COMPLETED,
        trace=(TracePoint(time.perf_counter() - began, delay, bound),),
    )
    return replace(
        found, replan=replanner(prepared, lambda problem, *_: place(problem, seed), method)
    )


def solve_greedy(
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
    """Place greedily by delay saved per byte, then deliver with the best beams known.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `finecast.solvers.solve.solve`; there is nothing to stop early or to start from.
    beamforming, restrict, rate_cache
        As in `prepare`.
    """
    return solve_by_placement(
        lambda problem, _: greedy_placement(problem),
        "greedy",
        instance,
        seed=seed,
        callback=callback,
        beamforming=beamforming,
        restrict=restrict,
        rate_cache=rate_cache,
    )
