"""Options of MAASN-DA (`finecast.learners.algorithms.maasn`)."""

from __future__ import annotations

from dataclasses import dataclass

from finecast.learners.algorithms.actors import ActorOptions
from finecast.learners.algorithms.node_options import KeepsByRule
from finecast.learners.networks.mixers import MIXERS
from finecast.learners.options import MOST_STEPS, at_least, one_of
from finecast.solvers.heuristics.rules import KeepRule, check_keep_rule

CRITICS = ("sets", "maddpg")


@dataclass(frozen=True)
class Config(KeepsByRule, ActorOptions):
    """Options of MAASN-DA.

    Attributes
    ----------
    batch
        Draws that are played side by side.
    mixing
        "monotonic" or "sum", over nodes.
    critic
        "sets": costs of node sets, decomposed over blocks and nodes. "maddpg": one joint value,
        for raw observations and credit by team.
    play_every
        Steps from one slot that is played to the next.
    rows
        (draw, block) pairs of a slot from the replay, and (node, block) pairs of some of the newest
        slots, that a step learns from.
    lessons
        How many slots count as the newest.
    tau, samples
        Of the soft actions, and how many are drawn of each.
    actor_rate, critic_rate
        Step sizes of Adam at the beginning.
    halving
        Steps after which step sizes are a half, after twice as many a third, and so on.
    average_rate
        Share of the actors that goes into their running average after every step; the average is
        the policy.
    target_rate
        Share of the critic that goes into the target network after every step.
    discount
        gamma.
    replay
        Slots of a batch that are kept.
    gradient_clip
        Of gradients, in norm, and of advantages, in temperatures.
    delay_actor
        Steps for which the critic alone learns.
    keep
        "joint": what is kept is chosen for all blocks and nodes at once, by the scores of the
        actors, in training and in play, and the critic's targets are backups of such choices.
        "in-turn", always so with raw observations and where nodes do not decide in turn: by every
        node, and backups through the prices of the programme.
    """

    batch: int = 8
    mixing: str = "monotonic"
    critic: str = "sets"
    play_every: int = 4
    rows: int = 512
    lessons: int = 20
    tau: float = 1.0
    samples: int = 4
    actor_rate: float = 5e-4
    critic_rate: float = 1e-3
    halving: float = 5000.0
    average_rate: float = 0.003
    target_rate: float = 0.01
    discount: float = 1.0
    replay: int = 400
    gradient_clip: float = 10.0
    delay_actor: int = 0
    keep: KeepRule = "joint"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_keep_rule(self.keep)
        at_least(self, 1, "batch", "replay", "play_every", "rows", "samples", "lessons")
        at_least(self, 0, "actor_rate", "critic_rate", "target_rate", "discount", "average_rate")
        at_least(self, 0, "delay_actor", most=MOST_STEPS)
        at_least(self, 1e-6, "tau", "gradient_clip", "halving", most=MOST_STEPS)
        one_of("mixing", self.mixing, MIXERS)
        one_of("critic", self.critic, CRITICS)
        if self.critic == "maddpg" and not (self.raw and self.credit == "team"):
            raise ValueError(
                "critic: 'maddpg' is not allowed here, must be 'sets' unless observations = 'raw' "
                "and credit = 'team'"
            )
