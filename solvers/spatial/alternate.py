"""Spatial delivery of any method's answer, and its placement in turn with it.

The messages of an answer share the air (`finecast.solvers.spatial.delivery`). A method that can
place again does so at the prices of that air (`finecast.solvers.spatial.replan`). The new messages
share the air in turn, and so on. The solution that the judge finds best is kept.
"""

from __future__ import annotations

import multiprocessing
import os
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
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.result import Answer, Callback, Termination, TracePoint
from finecast.solvers.signals import SearchInterrupt, die_with_parent
from finecast.solvers.spatial.delivery import SharedAir, share_the_air

ALTERNATIONS = 2
"""Placements at new prices, at most."""

LONG_HORIZON = 4
"""Slots from which on processes pay. Threads never do: steps on matrices this small are mostly
Python's own time, under one lock."""

LONG_S = 15.0
"""Seconds from which on processes pay: they need 3 s to start, a slot takes 1 to 7 s."""

TURN_SHARE = 0.5
"""Share of the time left for each placement and for each delivery, where both take turns."""


def on_shared_air(
    instance: Instance,
    answer: Answer,
    *,
    began: float,
    deadline: Deadline = NEVER,
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
        When the solving began, as `time.monotonic` counts.
    deadline
        When everything here has to end. Where the method can place again, each placement and each
        delivery gets half of what is left.
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
    replan = None if slot_time == 0 else answer.replan
    share = 1.0 if replan is None else TURN_SHARE
    goal = 0.0 if gap is None else answer.lower_bound * (1.0 + gap)

    def delivered(plan: Solution) -> tuple[SharedAir, float]:
        shared = share_the_air(
            judged, plan, deadline=deadline.share(share).of("spatial delivery"),
            slot_time=slot_time, seed=seed, callback=callback, pool=pool, workers=workers,
        )  # fmt: skip
        return shared, evaluate(judged, shared.solution).planned_delay

    def now(delay: float) -> TracePoint:
        return TracePoint(time.monotonic() - began, delay, answer.lower_bound)

    # Processes pay where there are many slots and time to search them.
    short = slot_time == 0 or deadline.left() < LONG_S
    workers = 1 if short or judged.slots < LONG_HORIZON else min(workers, judged.slots)
    with _processes(workers) as pool:
        shared, least = delivered(plan)
        best, trace, notes = shared.solution, [now(least)], [*shared.notes]
        ending = shared.termination
        # Each new placement starts from the last one, even where that one was no better.
        for _ in range(ALTERNATIONS):
            done = ending is Termination.INTERRUPTED or least <= goal
            if replan is None or done or deadline.of("spatial prices").over():
                break
            try:
                moved = replan(plan, shared.seconds_per_bit, deadline.share(share).limit())
            except SearchInterrupt:
                ending = Termination.INTERRUPTED
                break
            if _same_placement(moved, plan):
                break  # the same messages would share the air in the same way
            plan = moved
            shared, delay = delivered(plan)
            ending = shared.termination
            notes += shared.notes
            if delay < least:
                best, least = shared.solution, delay
                trace.append(now(least))
    # What ended it: the gap, a limit here, or else what ended the placement.
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
        notes=(*answer.notes, *dict.fromkeys(notes)),
    )


def _same_placement(left: Solution, right: Solution) -> bool:
    return np.array_equal(left.cache, right.cache) and np.array_equal(left.source, right.source)


@contextmanager
def _processes(workers: int) -> Iterator[Executor | None]:
    """Yield so many processes, or None for one. They leave Ctrl-C to this one, and die with it."""
    if workers <= 1:
        yield None
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, _begin_worker, (os.getpid(),)) as pool:
        yield pool


def _begin_worker(parent: int) -> None:
    signal(SIGINT, SIG_IGN)
    die_with_parent(parent)
