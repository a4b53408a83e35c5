"""Joint answers: rates of the messages, placement at these rates, beams, a certified bound."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from problem.arrays import FloatArray
from problem.instance import Instance
from problem.solution import Solution
from solvers.delivery import deliver
from solvers.placement.greedy import greedy_placement
from solvers.placement.problem import Placement, PlacementProblem, placement_delay
from solvers.rates import SlotRates, node_set_family, rate_table
from solvers.restrictions import (
    Messages,
    check_restrictions,
    messages,
    restricted_instance,
    restricted_links,
)
from solvers.result import Answer, BoundKind, Callback, Termination, TracePoint
from solvers.spatial_bounds import slot_bounds

ROUNDING = 1e-12
"""Certified bounds on delays are lowered by this share: sums of at most 1e5 positive terms, each
with a few roundings of 1.1e-16, err by less."""

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
    """

    instance: Instance
    plans: tuple[Messages, ...]
    rates: tuple[SlotRates, ...]
    link: FloatArray
    achieved: PlacementProblem | None
    bounded: PlacementProblem | None
    robust: bool


def prepare(
    instance: Instance,
    *,
    beamforming: str = "multicast",
    restrict: Iterable[str] = (),
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
        Beamforming method; see `solvers.beamforming.methods`.
    restrict
        Restrictions; see `solvers.restrictions`.
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
    restrictions = check_restrictions([restrict] if isinstance(restrict, str) else restrict)
    instance = restricted_instance(instance, restrictions)
    plans = tuple(messages(instance, t, restrictions) for t in range(instance.slots))
    robust = "non-robust" not in restrictions
    singles = 1 << np.arange(instance.nodes)
    rates = rate_table(
        instance,
        [plan.users for plan in plans],
        singles if "no-comp" in restrictions else node_set_family(instance),
        beamforming=beamforming,
        robust=robust,
        seed=seed,
        callback=callback,
        cache=rate_cache,
    )

    with np.errstate(divide="ignore"):
        link = restricted_links(8.0 / instance.network.link_rate, restrictions)
    return with_problems(Prepared(instance, plans, rates, link, None, None, robust))


def with_problems(prepared: Prepared) -> Prepared:
    """Return the same with the placement problems at its rates and at their bounds."""
    return replace(
        prepared,
        achieved=placement_problem(prepared, [slot.achieved for slot in prepared.rates]),
        bounded=placement_problem(prepared, [slot.bound for slot in prepared.rates]),
    )


def placement_problem(prepared: Prepared, tables: list[FloatArray]) -> PlacementProblem | None:
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
    if any(not np.isfinite(table[:, -1]).all() for table in seconds):
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
        notes=notes,
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
    restrict: Iterable[str],
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
    bound = everywhere_bound(prepared)
    placement = place(prepared.achieved, seed)
    delay = placement_delay(prepared.achieved, placement)
    return answer(
        prepared,
        placement,
        method=method,
        lower_bound=bound,
        termination=Termination.COMPLETED,
        trace=(TracePoint(time.perf_counter() - began, delay, bound),),
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
    restrict: Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Place greedily by delay saved per byte, then deliver with the best beams known.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `solvers.solve.solve`; there is nothing to stop early or to start from.
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


def certified_lower_bound(instance: Instance, *, callback: Callback | None = None) -> float:
    """Return a certified lower bound on D, s, of any decisions.

    Parameters
    ----------
    instance
        The problem.
    callback
        Told of progress.
    """
    return everywhere_bound(prepare(instance, callback=callback))


def everywhere_bound(prepared: Prepared) -> float:
    """Return the certified lower bound that all nodes hold everything.

    Sequential delivery: every needed block is sent once to all its users, at no more than the
    rate of its messages with all nodes: D >= sum_t sum_j s_j table_up[t](group_j, all).
    Spatial delivery: D is no less than the time on the air of all slots
    (`solvers.spatial_bounds`).

    Parameters
    ----------
    prepared
        Instance and rates.
    """
    instance = prepared.instance
    if instance.delivery == "spatial":
        return float(slot_bounds(instance, prepared.plans, robust=prepared.robust).sum()) * (
            1.0 - ROUNDING
        )
    total = 0.0
    for plan, slot in zip(prepared.plans, prepared.rates, strict=True):
        needed = np.flatnonzero(plan.group >= 0)
        seconds = plan.seconds_per_byte(slot.bound)[:, -1]
        total += float((instance.library.block_size[needed] * seconds[plan.group[needed]]).sum())
    return total * (1.0 - ROUNDING)
