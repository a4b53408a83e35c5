"""VDN: `learners.value_learning` with the sum over nodes in place of the monotonic mixer."""

from __future__ import annotations

from dataclasses import dataclass

from learners import value_learning
from learners.value_learning import policy, start

__all__ = ["Config", "policy", "start"]


@dataclass(frozen=True)
class Config(value_learning.Config):
    """Options: those of `learners.value_learning`.

    Attributes
    ----------
    mixing
        The sum, by default.
    """

    mixing: str = "sum"
