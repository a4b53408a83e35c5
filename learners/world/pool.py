"""What learners draw their training episodes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from finecast.learners.world.episodes import Episodes
from finecast.learners.world.lookahead import Lookahead


@dataclass(frozen=True, eq=False)
class Pool:
    """Draws to train on.

    Attributes
    ----------
    number
        Which pool it is; it rises whenever the pool changes.
    episodes
        The draws.
    known
        Lookahead of all their slots, or what computes it: that takes seconds, and learners that do
        not use it need not wait.
    real
        Draws that are real; the others, at the end, are synthetic.
    """

    number: int
    episodes: Episodes
    known: Lookahead | Callable[[], Lookahead]
    real: int

    @cached_property
    def values(self) -> Lookahead:
        """Lookahead of all slots at the storage prices on the path of `mpc`."""
        return self.known() if callable(self.known) else self.known


class EpisodeSource(Protocol):
    """What learners draw from."""

    def at(self, step: int) -> Pool:
        """Return the pool of a step; the same for the same step, whatever was asked before."""
