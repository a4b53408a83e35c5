"""IPPO: `finecast.learners.ppo` with a critic for every node, which sees what the node sees."""

from __future__ import annotations

from dataclasses import dataclass

from finecast.learners import ppo
from finecast.learners.ppo import policy, start

__all__ = ["Config", "policy", "start"]


@dataclass(frozen=True)
class Config(ppo.Config):
    """Options: those of `finecast.learners.ppo`.

    Attributes
    ----------
    centralised
        Not, by default.
    """

    centralised: bool = False
