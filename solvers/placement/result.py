"""What the placement methods return, and the best placement and bound while they run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from finecast.problem.arrays import checked_number
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.placement.bound import Prices
from finecast.solvers.placement.problem import Placement, PlacementProblem, placement_delay
from finecast.solvers.result import BoundKind, Termination, TracePoint, relative_gap

OPTIMAL_GAP = 1e-9
"""Relative gap at which a placement counts as optimal: rounding of the sums of seconds."""


@dataclass(frozen=True)
class PlacementResult:
    """A placement with its certificate.

    Attributes
    ----------
    placement
        The best placement found; always feasible.
    delay
        Its delay (s), recomputed by `placement_delay`.
    lower_bound
        No placement has a smaller delay (s).
    trace
        Every improvement of delay or bound.
    termination
        Why the method stopped; "iteration_limit" when it no longer made progress.
    bound_kind
        "certified": values of the Lagrangian function; "milp": reported by HiGHS.
    prices
        Point of the Lagrangian dual of the best Lagrangian bound, for evaluation with other rates.
    certified_bound
        The best certified bound (s) where `lower_bound` is of another kind; else None.
    """

    placement: Placement
    delay: float
    lower_bound: float
    trace: tuple[TracePoint, ...]
    termination: Termination
    bound_kind: BoundKind = BoundKind.CERTIFIED
    prices: Prices | None = None
    certified_bound: float | None = None

    @property
    def gap(self) -> float:
        """Relative optimality gap, (delay - bound) / bound."""
        return relative_gap(self.delay, self.lower_bound)


class Incumbent:
    """Best placement and bound so far, with the time they were found.

    Parameters
    ----------
    problem
        The problem; every placement is judged by `placement_delay`.
    placement, lower_bound
        A feasible placement, and a bound (s) on every placement.
    deadline
        When the search must stop.
    gap
        Relative gap at which the search may stop.
    callback
        Called with every point of the trace.
    optimal_gap
        Relative gap at which the placement counts as optimal.
    started
        When the method started, by `time.monotonic`; None for now.

    Raises
    ------
    ValueError
        Where `placement` is not feasible, or `gap` is negative.
    """

    def __init__(
        self,
        problem: PlacementProblem,
        placement: Placement,
        lower_bound: float,
        *,
        deadline: Deadline = NEVER,
        gap: float | None = None,
        callback: Callable[[TracePoint], None] | None = None,
        optimal_gap: float = OPTIMAL_GAP,
        started: float | None = None,
    ) -> None:
        if gap is not None:
            checked_number("gap", gap, low=0.0, finite=False)
        self.problem = problem
        self.started = time.monotonic() if started is None else started
        self.deadline = deadline
        self.optimal_gap = optimal_gap
        self.target_gap = max(gap or 0.0, optimal_gap)
        self.callback = callback
        self.placement = placement
        self.delay = placement_delay(problem, placement)
        self.lower_bound = min(lower_bound, self.delay)
        self.interrupted = False
        self.trace: list[TracePoint] = []
        self._record()

    @classmethod
    def after(
        cls,
        found: PlacementResult,
        problem: PlacementProblem,
        *,
        deadline: Deadline,
        gap: float | None,
        callback: Callable[[TracePoint], None] | None,
        optimal_gap: float,
        started: float,
    ) -> Incumbent:
        """Return the incumbent that goes on from what an earlier search found.

        Parameters
        ----------
        found
            Its result; the callback has seen its trace.
        problem, deadline, gap, callback, optimal_gap, started
            As in the class.
        """
        incumbent = cls(
            problem, found.placement, found.lower_bound,
            deadline=deadline, gap=gap, optimal_gap=optimal_gap, started=started,
        )  # fmt: skip
        incumbent.trace = list(found.trace)
        incumbent.callback = callback
        incumbent.interrupted = found.termination is Termination.INTERRUPTED
        return incumbent

    def _record(self) -> None:
        point = TracePoint(time.monotonic() - self.started, self.delay, self.lower_bound)
        self.trace.append(point)
        if self.callback is not None:
            self.callback(point)

    def offer(self, placement: Placement) -> bool:
        """Take a placement if it is better; return whether it was."""
        delay = placement_delay(self.problem, placement)
        if delay >= self.delay:
            return False
        self.placement, self.delay = placement, delay
        self.lower_bound = min(self.lower_bound, delay)
        self._record()
        return True

    def raise_bound(self, lower_bound: float) -> None:
        """Take a bound if it is better."""
        lower_bound = min(lower_bound, self.delay)
        if lower_bound > self.lower_bound:
            self.lower_bound = lower_bound
            self._record()

    @property
    def gap(self) -> float:
        """Relative gap of the best placement and bound."""
        return relative_gap(self.delay, self.lower_bound)

    @property
    def goal(self) -> float:
        """Delay (s) that would reach the target gap."""
        return self.lower_bound * (1.0 + self.target_gap)

    @property
    def reached(self) -> bool:
        """Whether the target gap is reached."""
        return self.gap <= self.target_gap

    @property
    def finished(self) -> bool:
        """Whether there is a reason to stop."""
        return self.reached or self.deadline.over() or self.interrupted

    def result(
        self, prices: Prices | None = None, bound_kind: BoundKind = BoundKind.CERTIFIED
    ) -> PlacementResult:
        """Return the best placement with the reason to stop."""
        termination = Termination.ITERATION_LIMIT
        if self.gap <= self.optimal_gap:
            termination = Termination.OPTIMAL
        elif self.reached:
            termination = Termination.GAP_REACHED
        elif self.interrupted:
            termination = Termination.INTERRUPTED
        elif self.deadline.over():
            termination = Termination.TIME_LIMIT
        return PlacementResult(
            self.placement,
            self.delay,
            self.lower_bound,
            tuple(self.trace),
            termination,
            bound_kind,
            prices,
        )
