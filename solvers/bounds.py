"""Certified lower bounds on the delay of an instance with the rates of its messages."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

import numpy as np

from finecast.problem.instance import Instance
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.node_set_tables import whole_set
from finecast.solvers.one_area import check_for_areas
from finecast.solvers.placement.chains import classes
from finecast.solvers.placement.hulls import has_hulls, hull_bound
from finecast.solvers.placement.search.dual_ascent import best_prices
from finecast.solvers.placement.search.lagrangian import BOUND_TOLERANCE, dual_bound
from finecast.solvers.prepared import Prepared, prepare
from finecast.solvers.result import Callback
from finecast.solvers.rounding import SUM_ALLOWANCE
from finecast.solvers.spatial.bounds import slot_bounds
from finecast.solvers.workers import Engine, check_workers, workers_of

AIM = 1.02
"""Steps towards a bound from whole fillings go towards this multiple of the bound by prices."""

_ONLINE = ("online_bound", "controlled_gap")
"""Bounds for online methods stand on the methods, a higher floor: imported when asked for."""


def __getattr__(name: str) -> Any:
    if name in _ONLINE:
        return getattr(import_module("finecast.solvers.online_bound"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def certified_lower_bound(
    instance: Instance,
    *,
    restrict: str | Iterable[str] = (),
    time_limit: float | None = None,
    callback: Callback | None = None,
    workers: int = 1,
    engine: Engine = "local",
    scheduler: str | None = None,
) -> float:
    """Return a certified lower bound on D, s, of any decisions.

    Parameters
    ----------
    instance
        The problem.
    restrict
        Restrictions; the bound is then that of the restricted system.
    time_limit
        Seconds for raising the prices, after the rates are there. None for as many steps as it
        takes: the bound is then the same on any machine, however busy.
    callback
        Receives the progress.
    workers, engine, scheduler
        As in `finecast.solvers.solve.solve`, for instances of several areas.

    Raises
    ------
    ValueError
        Unknown restriction, or one that is not for several areas; workers that are none.
    OSError
        There is no Dask scheduler, or it has no workers.
    """
    check_workers(workers, engine, scheduler)
    check_for_areas(instance, workers, engine)
    if instance.area_count > 1:
        from finecast.solvers.areas.solve import areas_bound

        with workers_of(workers, engine, scheduler) as crew:
            return areas_bound(
                instance, restrict=restrict, time_limit=time_limit, callback=callback, workers=crew
            )
    prepared = prepare(instance, restrict=restrict, callback=callback)
    deadline = Deadline.after(time_limit)
    bound = price_bound(prepared, deadline)
    return max(bound, _whole_blocks_bound(prepared, bound, deadline))


def price_bound(prepared: Prepared, deadline: Deadline = NEVER) -> float:
    """Return the certified bound that raising storage prices gives.

    It ends by its own tolerance and number of steps, so that a busy machine finds the same bound.

    Parameters
    ----------
    prepared
        Instance and rates.
    deadline
        When the bound must be there, for those who want it sooner.
    """
    bound = everywhere_bound(prepared, deadline)
    # Prices speak of one broadcast per block, which spatial delivery can beat.
    if prepared.bounded is None or prepared.instance.delivery == "spatial":
        return bound
    if deadline.over():
        return bound
    return max(bound, dual_bound(prepared.bounded, deadline))


def _whole_blocks_bound(prepared: Prepared, bound: float, deadline: Deadline) -> float:
    """Return the certified bound that whole fillings of the storages give; 0 where it has none.

    `bound` is another one, above which this one is looked for.
    """
    problem = prepared.bounded
    if problem is None or prepared.instance.delivery == "spatial" or not has_hulls(problem):
        return 0.0
    if deadline.over():
        return 0.0
    tables = classes(problem)
    start = best_prices(problem, tables, tolerance=BOUND_TOLERANCE, deadline=deadline).prices
    return hull_bound(problem, tables, start, AIM * bound, deadline=deadline)


def everywhere_bound(prepared: Prepared, deadline: Deadline = NEVER) -> float:
    """Return the certified lower bound that all nodes hold everything.

    Sequential delivery: every needed block is sent once to all its users, at no more than the
    rate of its messages with all nodes: D >= sum_t sum_j s_j table_up[t](group_j, all).
    Spatial delivery: the sum of the least times on the air of the slots, from below
    (`finecast.solvers.spatial.bounds`).

    Parameters
    ----------
    prepared
        Instance and rates.
    deadline
        When the search under spatial delivery ends; whatever it finds is certified.
    """
    instance = prepared.instance
    if instance.delivery == "spatial":
        bounds = slot_bounds(instance, prepared.plans, robust=prepared.robust, deadline=deadline)
        return float(bounds.sum()) * (1.0 - SUM_ALLOWANCE)
    total = 0.0
    for plan, slot in zip(prepared.plans, prepared.rates, strict=True):
        needed = np.flatnonzero(plan.group >= 0)
        seconds = whole_set(plan.seconds_per_byte(slot.bound), instance.nodes)
        total += float((instance.library.block_size[needed] * seconds[plan.group[needed]]).sum())
    return total * (1.0 - SUM_ALLOWANCE)
