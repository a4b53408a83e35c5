"""DCG: `finecast.learners.algorithms.qmix` with a payoff for every pair of nodes, summed."""

from __future__ import annotations

from dataclasses import dataclass

from finecast.learners.algorithms import qmix
from finecast.learners.algorithms.qmix import policy, start

__all__ = ["Config", "policy", "start"]


@dataclass(frozen=True)
class Config(qmix.Config):
    """Options: those of `finecast.learners.algorithms.qmix`.

    Attributes
    ----------
    mixing, pairs
        The sum, with pairs, by default.
    """

    mixing: str = "sum"
    pairs: bool = True
