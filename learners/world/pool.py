"""What learners draw their training episodes from."""

from __future__ import annotations

from dataclasses import dataclass
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
    values
        Lookahead of all their slots at the storage prices on the path of `mpc`.
    real
        Draws that are real; the others, at the end, are synthetic.
    """

    number: int
    episodes: Episodes
    values: Lookahead
    real: int


class EpisodeSource(Protocol):
    """What learners draw from."""

    def at(self, step: int) -> Pool:
        """Return the pool of a step; the same for the same step, whatever was asked before."""
