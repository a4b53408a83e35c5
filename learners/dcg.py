"""DCG: `finecast.learners.value_learning` with a payoff for every pair of nodes, summed."""

from __future__ import annotations

from dataclasses import dataclass

from finecast.learners import value_learning
from finecast.learners.value_learning import policy, start

__all__ = ["Config", "policy", "start"]


@dataclass(frozen=True)
class Config(value_learning.Config):
    """Options: those of `finecast.learners.value_learning`.

    Attributes
    ----------
    mixing, pairs
        The sum, with pairs, by default.
    """

    mixing: str = "sum"
    pairs: bool = True
