"""What a learner is: one update at a time, a state that can be saved, a policy that can be played.

A learner is a module with three names, found by `finecast.learners.registry.LEARNERS` and imported
when it is used:

    Config                                     frozen dataclass of its options, all with defaults
    Learner(config, source, *, seed, device)   at step 0: the protocol `Learner` below
    trained(config, tensors, values=None)      TrainedPolicy of the tensors of a checkpoint

`finecast.learners.runs.training.train` does the rest: steps, log, held-out evaluation, checkpoints,
resume.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor

from finecast.learners.weights import Part
from finecast.learners.world.environment import NodePolicy, Rollout, roll
from finecast.learners.world.episodes import Episodes
from finecast.learners.world.lookahead import Lookahead


class TrainedPolicy(NodePolicy, Protocol):
    """A node policy that says how it wants to be played.

    Attributes
    ----------
    in_turn, rounds
        As in `finecast.learners.world.environment.roll`. A policy that is trained with the joint
        rule has a `joint` too.
    """

    @property
    def in_turn(self) -> bool:
        """Whether the nodes decide in turn."""

    @property
    def rounds(self) -> int:
        """How often every node decides what to keep, if in turn."""


class Learner(Protocol):
    """What `finecast.learners.runs.training.train` drives."""

    def step(self) -> Mapping[str, float]:
        """Make one update; return what to log. A `loss` that is not finite stops the run."""

    def parts(self) -> Mapping[str, Part]:
        """Return what `step` changes and torch can save: networks, optimisers, generators.

        The networks that the policy needs have names that begin with "policy".
        """

    def extra(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Return what else `step` changes: tensors (a replay, say) and JSON-able counters."""

    def load_extra(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Take back what `extra` returned."""

    def policy(self, values: Lookahead | None = None) -> TrainedPolicy:
        """Return the policy as it stands, without exploration.

        Parameters
        ----------
        values
            Lookahead of all slots of the episodes that it is to play; None: it computes its own,
            if it uses any.
        """


def play(episodes: Episodes, policy: TrainedPolicy) -> Rollout:
    """Play all slots of all draws as the policy wants it, without gradients."""
    with torch.no_grad():
        return roll(
            episodes,
            policy,
            in_turn=policy.in_turn,
            rounds=policy.rounds,
            joint=getattr(policy, "joint", ""),
        )
