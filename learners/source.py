"""Where training episodes come from: a pool of draws, a function of the seed and the step alone.

`source.at(step)` returns the whole pool that is in force in that step; a learner draws from it with
its own generator. So a resumed run finds the same episodes without their being saved.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from learners.episodes import Episodes
from learners.lookahead import Lookahead


@dataclass(frozen=True, eq=False)
class Pool:
    """Draws to train on.

    Attributes
    ----------
    number
        Which pool it is; it rises whenever the pool changes.
    episodes
        The draws.
    values
        Lookahead of all their slots; None unless asked for.
    real
        Draws that are real; the others, at the end, are synthetic.
    """

    number: int
    episodes: Episodes
    values: Lookahead | None
    real: int


class EpisodeSource(Protocol):
    """What learners draw from."""

    def at(self, step: int) -> Pool:
        """Return the pool of a step; the same for the same step, whatever was asked before."""


@dataclass(frozen=True)
class FixedSource:
    """The same pool for ever, for tests and for learners that bring their own episodes."""

    pool: Pool

    def at(self, step: int) -> Pool:
        """Return the pool."""
        return self.pool
