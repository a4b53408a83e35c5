"""One clock for everything that has to end in time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Deadline:
    """When to be done.

    Attributes
    ----------
    at
        As `time.monotonic` counts, which all processes of a machine share, s; infinite for never.
    """

    at: float = math.inf

    @classmethod
    def after(cls, seconds: float | None) -> Deadline:
        """Return the deadline in so many seconds from now; None for never."""
        return cls() if seconds is None else cls(time.monotonic() + seconds)

    def left(self) -> float:
        """Return the seconds left, >= 0."""
        return max(0.0, self.at - time.monotonic())

    def over(self) -> bool:
        """Return whether the time is up."""
        return time.monotonic() >= self.at

    def share(self, part: float) -> Deadline:
        """Return the deadline after this part of what is left."""
        return Deadline() if math.isinf(self.at) else Deadline.after(part * self.left())

    def sooner(self, seconds: float | None) -> Deadline:
        """Return this deadline or the one in so many seconds, whichever is sooner."""
        return Deadline(min(self.at, Deadline.after(seconds).at))

    def later(self, seconds: float) -> Deadline:
        """Return this deadline or the one in so many seconds, whichever is later."""
        return Deadline(max(self.at, Deadline.after(seconds).at))

    def limit(self) -> float | None:
        """Return the seconds left for those that take None for no limit."""
        return None if math.isinf(self.at) else self.left()


NEVER = Deadline()
