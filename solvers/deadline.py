"""One limit for everything that has to end: on the clock, in counted work, or both.

Work is counted where the time goes: messages that are solved, states of dynamic programmes, steps
of the simplex method. A unit is about a second of one core of the machine of 2026 on which the
costs below were measured; on any machine, however busy, the same work gives the same answer.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace

BATCH_WORK = 0.03
"""Of a batch of messages, however small."""

MESSAGE_WORK = 2e-5
"""Of a message, for each pair of its listeners."""

STAGE_WORK = 4e-6
"""Of a step of the dynamic programme over all its states, however few."""

STATE_WORK = 1.4e-8
"""Of a state of the dynamic programme and one of its choices."""

PIVOT_WORK = 4e-7
"""Of a step of the simplex method, for each row."""

GRAIN = 1e-9
"""Work is counted in whole grains, so that sums do not depend on what came before."""

_grains = 0
"""Work of this process so far."""


def count_work(units: float) -> None:
    """Add to the work that is done; no clock is looked at."""
    global _grains
    _grains += round(units / GRAIN)


def grains_done() -> int:
    """Return the work of this process so far, in grains."""
    return _grains


@dataclass(frozen=True)
class Deadline:
    """When to be done: whichever limit comes first.

    Attributes
    ----------
    at
        As `time.monotonic` counts, which all processes of a machine share, s; infinite for never.
    grains
        As `grains_done` counts; infinite for never.
    phase
        What is being done, for people.
    cut
        The phases that this deadline, or one derived from it, ended: the first one first.
    """

    at: float = math.inf
    grains: float = math.inf
    phase: str = "search"
    cut: dict[str, None] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def after(cls, seconds: float | None, work: float | None = None) -> Deadline:
        """Return the deadline in so many seconds, or units of work, from now; None for never."""
        return cls(
            math.inf if seconds is None else time.monotonic() + seconds,
            math.inf if work is None or math.isinf(work) else _grains + round(work / GRAIN),
        )

    @property
    def endless(self) -> bool:
        """Whether there is no limit at all."""
        return math.isinf(self.at) and math.isinf(self.grains)

    def left(self) -> float:
        """Return the seconds left, >= 0."""
        return max(0.0, self.at - time.monotonic())

    def work_left(self) -> float:
        """Return the units of work left, >= 0."""
        return max(0.0, (self.grains - _grains) * GRAIN)

    def over(self) -> bool:
        """Return whether the time is up or the work is done; if so, the phase counts as cut.

        It is asked where there is more to do, not where all is done.
        """
        ended = _grains >= self.grains or time.monotonic() >= self.at
        if ended:
            self.note()
        return ended

    def note(self) -> None:
        """Count the phase as cut."""
        self.cut[self.phase] = None

    def of(self, phase: str) -> Deadline:
        """Return the same deadline for a phase.

        Examples
        --------
        >>> limit = Deadline.after(0.0)
        >>> limit.of("rates").over(), limit.share(0.5).of("bound").over(), [*limit.cut]
        (True, True, ['rates', 'bound'])
        """
        return replace(self, phase=phase)

    def share(self, part: float) -> Deadline:
        """Return the deadline after this part of what is left."""
        if self.endless:
            return self
        return self._moved(Deadline.after(part * self.left(), part * self.work_left()))

    def within(self, seconds: float) -> Deadline:
        """Return the deadline in so many seconds, whatever is left of this one."""
        return self._moved(Deadline.after(seconds))

    def sooner(self, seconds: float | None) -> Deadline:
        """Return this deadline or the one in so many seconds, whichever is sooner."""
        return replace(self, at=min(self.at, Deadline.after(seconds).at))

    def later(self, seconds: float) -> Deadline:
        """Return this deadline, but no sooner than in so many seconds and units of work."""
        least = Deadline.after(seconds, seconds)
        return replace(self, at=max(self.at, least.at), grains=max(self.grains, least.grains))

    def _moved(self, other: Deadline) -> Deadline:
        """Return another time for the same phase."""
        return replace(self, at=other.at, grains=other.grains)

    def limit(self) -> float | None:
        """Return the seconds left for those that take None for no limit."""
        return None if math.isinf(self.at) else self.left()


NEVER = Deadline()
