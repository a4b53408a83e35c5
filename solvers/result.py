"""What every method returns: an answer of its own making, then judged into a Result."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from finecast.problem.arrays import FloatArray
from finecast.problem.evaluation import METRICS, Evaluation
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution
from finecast.problem.wording import counted, gigabytes, html_table, percent, seconds

VIOLATIONS_SHOWN = 20
"""A summary names so many broken rules and no more."""


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
    """The method went wrong, the judge found its answer infeasible, or its bound is no number or
    above its judged delay."""


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
    cut
        Phases that the time limit ended, where the method was not given the `Deadline` itself.
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
    cut: tuple[str, ...] = ()


@dataclass(frozen=True, repr=False)
class Result:
    """A judged answer: `print(result)` says how good it is, `result.summary()` says more.

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
    work
        Counted work, as `finecast.solvers.deadline` counts: the same on every machine.
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
    cut
        The phases that the limit of time or work ended before their own end, such as "rates",
        "search", "polish", "proof" and "bound": the first one first. Without a limit there are
        none.
    mean_completion_bound
        With `order="mean"`, what no order of the plan's messages undercuts in `mean_completion`, s;
        else None.
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
    work: float = 0.0
    options: Mapping[str, Any] = field(default_factory=dict)
    trace: tuple[TracePoint, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    mean_completion_bound: float | None = None

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

    @property
    def _gap_in_words(self) -> str:
        if math.isinf(self.delay):
            return "unknown, no plan is guaranteed"
        return f"{percent(self.gap)} at most above the optimum"

    def as_dict(self) -> dict[str, Any]:
        """Return all but the decisions as plain values, for `finecast.problem.files.json_text`."""
        evaluation = self.evaluation
        return {
            "method": self.method,
            "delay": self.delay,
            "lower_bound": self.lower_bound,
            "bound_kind": self.bound_kind,
            "gap": self.gap,
            "beamforming_gap": self.beamforming_gap,
            "placement_gap": self.placement_gap,
            "feasible": evaluation is not None and evaluation.feasible,
            "violations": [] if evaluation is None else [str(v) for v in evaluation.violations],
            **{
                name: getattr(evaluation, name, None)
                for name in (*METRICS, "guaranteed", "slot_delay")
            },
            "mean_completion_bound": self.mean_completion_bound,
            "termination": self.termination,
            "cut": list(self.cut),
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
            "train_s": self.train_s,
            "work": self.work,
            "seed": self.seed,
            "options": dict(self.options),
            "instance_hash": self.instance_hash,
            "trace": [[point.time_s, point.delay, point.lower_bound] for point in self.trace],
            "notes": list(self.notes),
            "versions": dict(self.versions),
        }

    def summary(self) -> str:
        """Return a table in plain text: delays, bound, gap, hits, traffic, time, notes.

        Examples
        --------
        >>> import finecast
        >>> result = finecast.solve(finecast.read_scenario("tiny").generate(seed=0), "lru")
        >>> print(result.summary().splitlines()[0])
        method             lru, ended: completed
        """
        rows = self.rows()
        width = max(len(label) for label, _ in rows)
        return "\n".join([*(f"{label:{width}}  {text}" for label, text in rows), *self.remarks()])

    def rows(self) -> list[tuple[str, str]]:
        """Return the lines of the summary as labels and texts."""
        evaluation = self.evaluation
        rows = [("method", f"{self.method}, ended: {self.termination.replace('_', ' ')}")]
        if evaluation is not None:
            slots = len(evaluation.slot_delay)
            rows += [
                ("delay, guaranteed", seconds(self.delay)),
                (
                    "mean per slot",
                    f"{seconds(evaluation.mean_slot_delay)}, {counted(slots, 'slot')}",
                ),
            ]
        rows += [
            ("lower bound", f"{seconds(self.lower_bound)} ({self.bound_kind})"),
            ("gap", self._gap_in_words),
        ]
        if self.placement_gap is not None and math.isfinite(self.delay):
            parts = (
                f"beamforming {percent(self.beamforming_gap)}, "
                f"placement {percent(self.placement_gap)}"
            )
            rows.append(("  of which", parts))
        if evaluation is not None:
            rows += _judged_rows(evaluation)
        rows.append(("time", f"{self.wall_s:.2f} s wall, {self.cpu_s:.2f} s CPU"))
        return rows

    def remarks(self) -> list[str]:
        """Return the notes, and the first broken rules, a line each."""
        broken = () if self.evaluation is None else self.evaluation.violations[:VIOLATIONS_SHOWN]
        return [*(f"note: {note}" for note in self.notes), *(f"violation: {v}" for v in broken)]

    def __str__(self) -> str:
        """Return the answer in two lines: delay and gap; bound, ending, time."""
        if self.evaluation is None:
            answer = "no solution"
        elif not self.evaluation.feasible:
            answer = f"infeasible, {self.evaluation.violations[0]}"
        elif not self.evaluation.guaranteed:
            realised = seconds(self.evaluation.realised_delay)
            answer = f"no guaranteed delay, realised {realised} over the true channels"
        elif self.termination is Termination.FAILED:
            answer = f"failed, {self.notes[-1] if self.notes else 'without a reason'}"
        else:
            answer = f"delay {seconds(self.delay)}, {self._gap_in_words}"
        return (
            f"{self.method}: {answer}\n"
            f"lower bound {seconds(self.lower_bound)} ({self.bound_kind}), "
            f"ended: {self.termination.replace('_', ' ')}, after {self.wall_s:.2f} s"
        )

    def _repr_html_(self) -> str:
        """Return the summary as a table, for notebooks."""
        return html_table(self.rows(), self.remarks())

    def plot(self, instance: Instance, slot: int = 0) -> Any:
        """Return a picture of the network, the caches and the messages of a slot.

        Parameters
        ----------
        instance
            The problem that was solved.
        slot
            Which slot.

        Raises
        ------
        ValueError
            There is no solution, no such slot, or the instance has another shape.
        """
        if self.solution is None:
            raise ValueError(f"plot: {self.method} has no solution to draw")
        return self.solution.plot(instance, slot)

    def __repr__(self) -> str:
        return (
            f"Result(method={self.method!r}, delay={self.delay:.6g}, "
            f"lower_bound={self.lower_bound:.6g}, termination={str(self.termination)!r})"
        )


def _judged_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return the lines of a summary that the judge has the word on."""
    return [
        ("delay, realised", f"{seconds(evaluation.realised_delay)} over the true channels"),
        (
            "by schedule",
            f"sequential {seconds(evaluation.sequential_delay)}, "
            f"pipelined {seconds(evaluation.pipelined_delay)}",
        ),
        (
            "user completion",
            f"mean {seconds(evaluation.mean_completion)}, "
            f"95th percentile {seconds(evaluation.p95_completion)}",
        ),
        *_deadline_row(evaluation),
        (
            "hits",
            f"{percent(evaluation.request_hit_ratio, 1)} of requests, "
            f"{percent(evaluation.block_hit_ratio, 1)} of blocks, "
            f"{percent(evaluation.byte_hit_ratio, 1)} of bytes",
        ),
        (
            "migrated",
            f"{gigabytes(evaluation.migrated_bytes)} between nodes, "
            f"{gigabytes(evaluation.cloud_bytes)} from the cloud",
        ),
        ("broadcast gain", f"{evaluation.broadcast_gain:.2f} users reached per bit sent"),
        *area_rows(evaluation),
        ("feasible", "yes" if evaluation.feasible else "NO"),
    ]


def _deadline_row(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return the line on deadlines, where there are any."""
    if math.isnan(evaluation.in_time_ratio):
        return []
    return [("in time", f"{percent(evaluation.in_time_ratio, 1)} of downloads with a deadline")]


def area_rows(evaluation: Evaluation) -> list[tuple[str, str]]:
    """Return what several areas wait for and how they disturb each other; nothing for one area."""
    if evaluation.area_delay.shape[1] == 1:
        return []
    disturbed = evaluation.interference_over_noise_db
    return [
        (
            "areas",
            f"the longest {seconds(evaluation.longest_area_delay)}, "
            f"95th percentile {seconds(evaluation.p95_area_delay)}",
        ),
        ("interference", "-" if math.isnan(disturbed) else f"{disturbed:.1f} dB over the noise"),
        ("sent wide", f"{percent(evaluation.wide_share, 1)} of bytes"),
    ]


def relative_gap(delay: float, lower_bound: float) -> float:
    """Return (delay - lower_bound) / lower_bound; 0 when both are 0.

    Infinite without a bound or a finite delay: no plan is no optimal plan.
    """
    if math.isinf(delay):
        return delay
    if delay == lower_bound:
        return 0.0
    return (delay - lower_bound) / lower_bound if lower_bound > 0 else float("inf")
