"""Spatial delivery of any method's answer, and its placement in turn with it.

The messages of an answer share the air (`finecast.solvers.spatial.delivery`). Where the method can
place again, it does so at the prices of that air (`finecast.solvers.spatial.replan`), the new
messages share the air, and so on; the best is kept, by the judge.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from signal import SIG_IGN, SIGINT, signal

import numpy as np

from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution
from finecast.solvers.result import Answer, Callback, Termination, TracePoint
from finecast.solvers.spatial.delivery import SharedAir, share_the_air

ALTERNATIONS = 2
"""Placements at new prices, at most."""

LONG_HORIZON, LONG_S = 4, 15.0
"""Slots and seconds from which on processes pay: they need 3 s to start, a slot takes 1 to 7 s.
Threads do not pay: steps on matrices this small are mostly Python's own time, under one lock."""


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
    workers: int = 1,
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
        As in `finecast.solvers.spatial.delivery.share_the_air`.
    gap
        Place no more once the delay is within this of the bound.
    workers
        Processes that search the slots side by side, where there are slots enough.
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
            judged, plan, time_limit=some(), slot_time=slot_time, seed=seed, callback=callback,
            pool=pool, workers=workers,
        )  # fmt: skip
        return shared, evaluate(judged, shared.solution).planned_delay

    def now(delay: float) -> TracePoint:
        return TracePoint(time.perf_counter() - began, delay, answer.lower_bound)

    short = slot_time == 0 or (time_limit is not None and time_limit < LONG_S)
    workers = 1 if short or judged.slots < LONG_HORIZON else min(workers, judged.slots)
    with _processes(workers) as pool:
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
            if np.array_equal(moved.cache, plan.cache) and np.array_equal(
                moved.source, plan.source
            ):
                break
            plan = moved
            shared, delay = delivered(plan)
            ending = shared.termination
            if delay < least:
                best, least = shared.solution, delay
                trace.append(now(least))
    if gap is not None and least <= goal and ending is not Termination.INTERRUPTED:
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


@contextmanager
def _processes(workers: int) -> Iterator[Executor | None]:
    """Give so many processes, deaf to Ctrl-C, which is for this one; None for one worker."""
    if workers <= 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, signal, (SIGINT, SIG_IGN)) as pool:
        yield pool
