"""Spatial delivery of any method's answer, and its placement in turn with it.

The messages of an answer share the air (`solvers.spatial_delivery`). Where the method can place
again, it does so at the prices of that air (`solvers.shared_prices`), the new messages share the
air, and so on; the best is kept, by the judge.
"""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from problem.evaluation import evaluate
from problem.instance import Instance
from problem.solution import Solution
from solvers.result import Answer, Callback, Termination, TracePoint
from solvers.spatial_delivery import SharedAir, share_the_air

ALTERNATIONS = 2
"""Placements at new prices, at most."""


def on_shared_air(
    instance: Instance,
    answer: Answer,
    *,
    began: float,
    time_limit: float | None = None,
    slot_time: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    callback: Callback | None = None,
) -> Answer:
    """Return the answer with several messages on the air at once where that saves time.

    Parameters
    ----------
    instance
        The problem.
    answer
        A method's, one message after another.
    began
        When the solving began, as `time.perf_counter` counts.
    time_limit
        Seconds for everything here; None for no limit. Where the method can place again, half of
        what is left goes to each placement and to each delivery.
    slot_time, seed, callback
        As in `solvers.spatial_delivery.share_the_air`.
    gap
        Place no more once the delay is within this of the bound.
    """
    plan = answer.solution
    if plan is None:
        return answer
    judged = answer.instance or instance
    start = time.perf_counter()
    part = 1.0 if answer.replan is None else 0.5
    goal = 0.0 if gap is None else answer.lower_bound * (1.0 + gap)

    def some() -> float | None:
        if time_limit is None:
            return None
        return part * max(0.0, time_limit - (time.perf_counter() - start))

    def delivered(plan: Solution) -> tuple[SharedAir, float]:
        shared = share_the_air(
            judged, plan, time_limit=some(), slot_time=slot_time, seed=seed, callback=callback
        )
        return shared, evaluate(judged, shared.solution).planned_delay

    def now(delay: float) -> TracePoint:
        return TracePoint(time.perf_counter() - began, delay, answer.lower_bound)

    shared, least = delivered(plan)
    best, trace = shared.solution, [now(least)]
    ending = shared.termination
    for _ in range(0 if answer.replan is None or slot_time == 0 else ALTERNATIONS):
        if ending is Termination.INTERRUPTED or least <= goal or some() == 0:
            break
        assert answer.replan is not None  # there are no rounds otherwise
        try:
            moved = answer.replan(plan, shared.seconds_per_bit, some())
        except KeyboardInterrupt:
            ending = Termination.INTERRUPTED
            break
        if np.array_equal(moved.cache, plan.cache) and np.array_equal(moved.source, plan.source):
            break
        plan = moved
        shared, delay = delivered(plan)
        ending = shared.termination
        if delay < least:
            best, least = shared.solution, delay
            trace.append(now(least))
    if gap is not None and least <= goal:
        ending = Termination.GAP_REACHED
    elif ending is Termination.COMPLETED and answer.termination is not Termination.OPTIMAL:
        ending = answer.termination  # a proof was of the placement, for sequential delivery
    return replace(
        answer,
        solution=best,
        termination=ending,
        delay_at_bounded_rates=None,
        trace=(*answer.trace, *trace),
    )
