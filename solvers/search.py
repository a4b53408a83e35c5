"""What a method is asked for, besides its own options."""

from __future__ import annotations

from dataclasses import dataclass

from finecast.problem.solution import Solution
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.result import Callback
from finecast.solvers.workers import ALONE, Workers


@dataclass(frozen=True)
class Search:
    """When to end, where to begin, whom to tell.

    Attributes
    ----------
    deadline
        When to be done.
    gap
        The search stops when this relative gap is proven; None for the method's own end.
    seed
        Seed of every random choice, >= 0.
    start
        A solution to start from, for methods that can.
    callback
        Receives the progress now and then.
    workers
        Who does independent tasks.
    """

    deadline: Deadline = NEVER
    gap: float | None = None
    seed: int = 0
    start: Solution | None = None
    callback: Callback | None = None
    workers: Workers = ALONE
