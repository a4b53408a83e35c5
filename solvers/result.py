"""What every method returns: an answer of its own making, then judged into a Result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from finecast.problem.arrays import FloatArray
from finecast.problem.evaluation import Evaluation
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution


class Termination(StrEnum):
    """Why a method stopped."""

    OPTIMAL = "optimal"
    """The answer is proven optimal."""
    GAP_REACHED = "gap_reached"
    """The gap asked for is proven."""
    COMPLETED = "completed"
    """A heuristic came to its own end; nothing is proven beyond the bound."""
    TIME_LIMIT = "time_limit"
    """The time was up; there is a solution."""
    ITERATION_LIMIT = "iteration_limit"
    """The iterations were used up or brought nothing more; there is a solution."""
    INTERRUPTED = "interrupted"
    """The user stopped it; there is a solution."""
    NO_SOLUTION = "no_solution"
    """A limit was reached, or the instance has no finite answer: there is no solution."""
    FAILED = "failed"
    """The method went wrong, or the judge found its answer infeasible."""


class BoundKind(StrEnum):
    """What a lower bound rests on."""

    CERTIFIED = "certified"
    """A dual-feasible point and weak duality, in float64 with a rounding allowance."""
    MILP = "milp"
    """Additionally the word of a MILP solver."""
    NONE = "none"
    """There is none."""


@dataclass(frozen=True)
class TracePoint:
    """Best delay and bound known at a time.

    Parameters
    ----------
    time_s
        Wall-clock seconds since the start.
    delay, lower_bound
        Seconds; infinite and 0 while unknown.
    """

    time_s: float
    delay: float
    lower_bound: float


@dataclass(frozen=True)
class Progress:
    """What a method tells while it runs.

    Parameters
    ----------
    stage
        What it is doing, for people.
    done, total
        Steps done and to do; total 0 when unknown.
    note
        How it stands, for people.
    """

    stage: str
    done: int
    total: int
    note: str = ""


Callback = Callable[[Progress], None]


Replan = Callable[[Solution, tuple[FloatArray, ...], float | None], Solution]
"""Places again at the prices of shared air: from a plan with one message after another, per slot
(I,) the price of a bit of each of its messages (s/bit) and a time limit to another such plan."""


@dataclass(frozen=True)
class Answer:
    """What a method hands to the judge; it states no delay of its own.

    Parameters
    ----------
    solution
        The decisions, or None.
    lower_bound
        Lower bound on D over all decisions, s.
    bound_kind
        What the bound rests on.
    termination
        Why it stopped.
    delay_at_bounded_rates
        Delay of the same placement if every message went at the certified upper bound of its
        rate, s: what splits the gap in two. None when unknown.
    trace
        Delays and bounds over time.
    notes
        What a user should know, one line each.
    instance
        The instance that the solution is for, where a restriction changed it (whole models).
    replan
        Places again at the prices of shared air, for spatial delivery; None where the method
        cannot.
    train_s
        Seconds spent in training before, by a learned method.
    """

    solution: Solution | None
    lower_bound: float
    bound_kind: BoundKind
    termination: Termination
    delay_at_bounded_rates: float | None = None
    trace: tuple[TracePoint, ...] = ()
    notes: tuple[str, ...] = ()
    instance: Instance | None = None
    replan: Replan | None = None
    train_s: float = 0.0


@dataclass(frozen=True)
class Result:
    """A judged answer.

    Parameters
    ----------
    method
        Registered name.
    solution, evaluation
        The decisions and the judge's view of them; None without a solution.
    lower_bound, bound_kind
        Lower bound on D over all decisions, s, and what it rests on.
    delay_at_bounded_rates
        See `Answer`.
    termination
        Why the method stopped.
    wall_s, cpu_s, train_s
        Seconds spent solving, of all threads, and in training before.
    seed, options
        As given.
    trace
        Delays and bounds over time.
    instance_hash
        Content hash of the instance.
    versions
        Of finecast, Python and the libraries at work.
    notes
        What a user should know, one line each.
    """

    method: str
    solution: Solution | None
    evaluation: Evaluation | None
    lower_bound: float
    bound_kind: BoundKind
    delay_at_bounded_rates: float | None
    termination: Termination
    wall_s: float
    cpu_s: float
    seed: int
    instance_hash: str
    train_s: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    trace: tuple[TracePoint, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def delay(self) -> float:
        """Guaranteed delay D by the judge, s; infinite without a feasible, guaranteed solution."""
        return float("inf") if self.evaluation is None else self.evaluation.delay

    @property
    def gap(self) -> float:
        """(delay - lower_bound) / lower_bound: how far from optimal it can be at most."""
        return relative_gap(self.delay, self.lower_bound)

    @property
    def beamforming_gap(self) -> float | None:
        """Share of the gap owed to the beams: delay over the delay at bounded rates, less 1.

        (1 + beamforming_gap)(1 + placement_gap) = 1 + gap. None when unknown.
        """
        if self.delay_at_bounded_rates is None:
            return None
        return relative_gap(self.delay, self.delay_at_bounded_rates)

    @property
    def placement_gap(self) -> float | None:
        """Share of the gap owed to the placement: at bounded rates, over the bound, less 1."""
        if self.delay_at_bounded_rates is None:
            return None
        return relative_gap(self.delay_at_bounded_rates, self.lower_bound)


def relative_gap(delay: float, lower_bound: float) -> float:
    """Return (delay - lower_bound) / lower_bound; 0 when both are 0, infinite without a bound."""
    if delay == lower_bound:
        return 0.0
    return (delay - lower_bound) / lower_bound if lower_bound > 0 else float("inf")
