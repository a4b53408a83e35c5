"""VDN: `finecast.learners.value_learning` with a sum in place of the monotonic mixer."""

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
    mixing
        The sum, by default.
    """

    mixing: str = "sum"
