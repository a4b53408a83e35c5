"""Spatial delivery and placement in turn: the modes' prices tell placement what a bit costs.

On shared air a message costs less time than alone. The least-time programme prices its bits at
pi_i <= 1 / R_i s/bit, so that its user group pays the share rho = pi_i R_i of its time alone.
Placement is solved again with every group's broadcast times at its share rho (fast air makes
migrations dear), delivered on shared air, and kept where the judge finds less delay.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from problem.arrays import FloatArray
from problem.evaluation import evaluate
from problem.solution import Solution
from solvers.joint import Prepared, answer
from solvers.placement.problem import Placement, PlacementProblem
from solvers.result import Callback, Termination, TracePoint
from solvers.spatial_delivery import SharedAir, alone_price, share_the_air

ALTERNATIONS = 2
"""Placements at new prices, at most."""


def alternate(
    place: Callable[[PlacementProblem, Placement, float | None], Placement],
    prepared: Prepared,
    placement: Placement,
    *,
    method: str,
    time_limit: float | None,
    slot_time: float | None,
    seed: int,
    callback: Callback | None,
) -> tuple[Solution, Termination, tuple[TracePoint, ...]]:
    """Return the best solution on shared air, why the search stopped, and its delays over time.

    Parameters
    ----------
    place
        From a placement problem, a placement to start from and a time limit to a placement.
    prepared
        Instance and rates.
    placement
        The placement to begin with.
    method
        Name to leave in the solution.
    time_limit
        Seconds for everything; half of what is left goes to each delivery. None for no limit.
    slot_time, seed, callback
        As in `solvers.spatial_delivery.share_the_air`.
    """
    began = time.perf_counter()
    instance = prepared.instance

    def left() -> float | None:
        return None if time_limit is None else time_limit - (time.perf_counter() - began)

    def delivered(placement: Placement) -> tuple[Solution, SharedAir, float]:
        plan = answer(
            prepared, placement, method=method, lower_bound=0.0, termination=Termination.COMPLETED
        ).solution
        assert plan is not None  # every group can be served, or there were no placement
        rest = left()
        shared = share_the_air(
            instance, plan, time_limit=None if rest is None else max(0.0, rest / 2),
            slot_time=slot_time, seed=seed, callback=callback,
        )  # fmt: skip
        return plan, shared, _planned(prepared, shared.solution)

    plan, shared, delay = delivered(placement)
    best, least = shared.solution, delay
    trace = [TracePoint(time.perf_counter() - began, least, 0.0)]
    for _ in range(ALTERNATIONS):
        rest = left()
        if shared.termination is not Termination.COMPLETED or (rest is not None and rest <= 0):
            break
        scaled = at_shared_prices(prepared, plan, shared.seconds_per_bit)
        try:
            moved = place(scaled, placement, None if rest is None else rest / 2)
        except KeyboardInterrupt:
            return best, Termination.INTERRUPTED, tuple(trace)
        if np.array_equal(moved.cache, placement.cache) and np.array_equal(
            moved.source, placement.source
        ):
            break
        placement = moved
        plan, shared, delay = delivered(placement)
        if delay < least:
            best, least = shared.solution, delay
            trace.append(TracePoint(time.perf_counter() - began, least, 0.0))
    return best, shared.termination, tuple(trace)


def _planned(prepared: Prepared, solution: Solution) -> float:
    """Return the delay that the plan states, which is the guaranteed one where that is planned."""
    return evaluate(prepared.instance, solution).planned_delay


def at_shared_prices(
    prepared: Prepared, plan: Solution, seconds_per_bit: tuple[FloatArray, ...]
) -> PlacementProblem:
    """Return the placement problem with every group's times at its share rho on shared air.

    Parameters
    ----------
    prepared
        Instance and rates.
    plan
        The solution with one message after another that the prices are for.
    seconds_per_bit
        Per slot (I,), the prices.
    """
    assert prepared.achieved is not None  # there is a plan
    instance = prepared.instance
    tables = []
    for t, broadcast in enumerate(plan.broadcasts):
        message, block = broadcast.carried
        group = prepared.plans[t].group[block]
        groups = len(prepared.plans[t].of_group)
        size = instance.library.block_size[block]
        paid, alone = (
            np.bincount(group, size * price[message], minlength=groups)
            for price in (seconds_per_bit[t], alone_price(instance, broadcast))
        )
        share = np.minimum(paid / alone, 1.0) if groups else alone
        tables.append(prepared.achieved.broadcast[t] * share[:, None])
    return replace(prepared.achieved, broadcast=tuple(tables))
