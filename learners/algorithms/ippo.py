"""IPPO: `finecast.learners.algorithms.ppo` with a critic for every node, which sees what the node
sees.
"""

from __future__ import annotations

from dataclasses import dataclass

from finecast.learners.algorithms import ppo
from finecast.learners.algorithms.ppo import policy, start

__all__ = ["Config", "policy", "start"]


@dataclass(frozen=True)
class Config(ppo.Config):
    """Options: those of `finecast.learners.algorithms.ppo`.

    Attributes
    ----------
    centralised
        Not, by default.
    """

    centralised: bool = False
