"""Imitation: nodes that see little learn from a planner that sees everything.

The planner is the joint keep rule on the values of the stochastic programme, by all requests up to
now and the caches that the nodes have come to: privileged information, in the states that the
nodes' own policy reaches (DAgger: Ross, Gordon and Bagnell, AISTATS 2011, arXiv 1011.0686). With
p_nj the chance that node n keeps block j, a sigmoid of its score about the end of its storage, G_j
the planner's costs, and lambda_n what a byte at node n is worth, the nodes minimise

    sum over slots, nodes n and blocks j of  s_j p_nj (lambda_n - [G_j(X_j - n) - G_j(X_j + n)])

At first, for `expert_steps`, X is what the planner would keep: nodes learn its decisions, and more
so the more these matter (cost-sensitive imitation: Ross and Bagnell, arXiv 1406.5979). Then X is
what the nodes have kept themselves: they learn to make up for what the others cannot know.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from finecast.learners.algorithms.apart_actors import (
    ApartActors,
    ApartOptions,
    Shown,
    apart_network,
    trained_apart,
)
from finecast.learners.algorithms.lessons import FULL, keep_values
from finecast.learners.networks.apart import worth_of_a_byte
from finecast.learners.options import MOST_STEPS, at_least
from finecast.learners.weights import Part, follow, initialised, seeded
from finecast.learners.world.baselines import of_blocks
from finecast.learners.world.environment import Delivery, packed, roll, unpacked
from finecast.learners.world.episodes import Episodes, Slot
from finecast.learners.world.joint import keep_by_sets
from finecast.learners.world.lookahead import Lookahead
from finecast.learners.world.pool import EpisodeSource


@dataclass(frozen=True)
class Config(ApartOptions):
    """Options.

    Attributes
    ----------
    draws
        Episodes that are played in every step.
    passes
        Updates in every step.
    expert_steps
        Steps in which copies are judged beside the planner's; later beside the nodes' own.
    tau
        Of the relaxation, in units.
    caution
        Weight of half the squared score that is learnt, so that little is changed without reason.
    actor_rate, final_actor_rate
        Step sizes of Adam at the beginning and at the end; they fall along a cosine over
        `decay_steps`.
    decay_steps
        Steps.
    average_rate
        Share of the network that goes into its running average after every update; the average is
        the policy.
    gradient_clip
        Of gradients, in norm.
    """

    draws: int = 8
    passes: int = 4
    expert_steps: int = 0
    tau: float = 0.05
    caution: float = 1.0
    actor_rate: float = 2e-4
    final_actor_rate: float = 2e-5
    decay_steps: int = 200
    average_rate: float = 0.05
    gradient_clip: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "draws", "passes")
        at_least(self, 1, "decay_steps", most=MOST_STEPS)
        at_least(self, 0, "expert_steps", most=MOST_STEPS)
        at_least(self, 0, "caution", "actor_rate", "final_actor_rate")
        at_least(self, 1e-6, "average_rate", most=1)
        at_least(self, 1e-6, "gradient_clip", "tau", most=MOST_STEPS)


def trained(
    config: Config, tensors: Mapping[str, Tensor], values: Lookahead | None = None
) -> ApartActors:
    """Return the policy of a checkpoint; `values` are not used.

    Raises
    ------
    ValueError
        The tensors are of another architecture.
    """
    return trained_apart(config, tensors)


class Learner:
    """The imitator as it learns.

    Parameters
    ----------
    config
        Options.
    source
        Of training episodes, with beliefs.
    seed
        Of the network and the draws.
    device
        Where the network is.
    """

    def __init__(
        self, config: Config, source: EpisodeSource, *, seed: int, device: torch.device
    ) -> None:
        self.config, self.source = config, source
        self.network = initialised(seed, lambda: apart_network(config)).to(device)
        self.average = copy.deepcopy(self.network)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=config.actor_rate)
        self.generator = seeded(seed, "play")
        self.steps = 0

    def step(self) -> Mapping[str, float]:
        """Play some episodes, ask the expert, learn from its answers."""
        config = self.config
        pool = self.source.at(self.steps)
        order = torch.randperm(pool.episodes.draws, generator=self.generator)
        draw = order[: config.draws].to(pool.episodes.size.device)
        shown, lessons, delay = self._play(pool.episodes.select(draw))
        # The step size of this step, on a cosine.
        progress = min(1.0, self.steps / config.decay_steps)
        rate = config.final_actor_rate + (config.actor_rate - config.final_actor_rate) * 0.5 * (
            1.0 + math.cos(math.pi * progress)
        )
        self.adam.param_groups[0]["lr"] = rate
        for _ in range(config.passes):
            loss = self._loss(shown, lessons)
            self.adam.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.network.parameters(), config.gradient_clip)
            self.adam.step()
            follow(self.average, self.network, config.average_rate)
        self.steps += 1
        return {"loss": float(loss.detach()), "delay": delay, "learning_rate": rate}

    def _play(self, episodes: Episodes) -> tuple[list[Shown], list[Lesson], float]:
        """Play all slots; return what was shown, what the planner says of it, the mean delay."""
        lessons: list[Lesson] = []

        def watch(t: int, cache: Tensor, delivery: Delivery, keep: Tensor) -> None:
            if t < episodes.slots - 1:
                imitate = self.steps < self.config.expert_steps
                lessons.append(lesson_of(episodes.slot(t), delivery.sender, keep, imitate))

        shown: list[Shown] = []
        actors = ApartActors(self.average, self.config.information, shown=shown)
        played = roll(episodes, actors, in_turn=False, watch=watch)
        return shown, lessons, float(played.total.mean())

    def _loss(self, shown: list[Shown], lessons: list[Lesson]) -> Tensor:
        """Return the planner's cost of what nodes would keep, over all slots, per byte."""
        memory = self.network.begin(shown[0].seen)
        total, weights = torch.zeros(()), torch.zeros(())
        for note, lesson in zip(shown, lessons, strict=True):
            scores, memory = self.network(note.seen, memory)
            weight = note.seen.may * lesson.size[:, None]
            chance = keep_chance(scores, note.seen.may, lesson.kept, self.config.tau)
            learnt = scores - note.seen.saved - self.network.bonus * note.seen.bonus
            caution = 0.5 * self.config.caution * learnt**2
            total = total + (weight * (chance * lesson.lost + caution)).sum()
            weights = weights + weight.sum()
        return total / weights

    def policy(self, values: Lookahead | None = None) -> ApartActors:
        """Return the running average as a policy."""
        return ApartActors(self.average, self.config.information)

    def parts(self) -> Mapping[str, Part]:
        """Return the networks, the optimiser and the generator of draws."""
        return {
            "policy": self.average,
            "network": self.network,
            "adam": self.adam,
            "generator": self.generator,
        }

    def extra(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Return the steps made."""
        return {}, {"steps": self.steps}

    def load_extra(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Take back the steps made."""
        self.steps = int(counters["steps"])


@dataclass(frozen=True, eq=False)
class Lesson:
    """What the planner says of a slot.

    Attributes
    ----------
    size
        (E, J) float32 byte.
    kept
        (E, N, J) bool what the nodes have kept.
    lost
        (E, N, J) float32 what keeping a block costs, in units (`worth_of_a_byte`): the worth of a
        byte at the node less what the copy saves.
    """

    size: Tensor
    kept: Tensor
    lost: Tensor


def lesson_of(slot: Slot, held: Tensor, kept: Tensor, imitate: bool) -> Lesson:
    """Return what the planner says of a slot.

    Parameters
    ----------
    slot
        The slot, with beliefs.
    held
        (E, J) int64 node sets after the delivery.
    kept
        (E, N, J) bool what the nodes have kept.
    imitate
        Copies are judged beside what the planner would keep; else beside the nodes' own.
    """
    assert slot.beliefs is not None
    cost = of_blocks(slot, slot.beliefs.expert)  # (E, J, S), seconds per byte
    sets = packed(kept)
    if imitate:
        there = unpacked(torch.where(slot.real, held, 0), slot.nodes)
        sets = packed(keep_by_sets(slot, there, cost))
    cost = cost / worth_of_a_byte(slot)[:, None, None]
    displaced = torch.stack(
        [keep_values(n, slot, held, cost, sets)[0] for n in range(slot.nodes)], dim=1
    )
    price = torch.where(displaced > FULL, displaced, 0.0)  # 0 where everything fits
    lost = price[..., None] - saved_beside(cost, sets, slot.nodes)
    return Lesson(slot.size.float(), kept, lost)


def saved_beside(cost: Tensor, sets: Tensor, nodes: int) -> Tensor:
    """Return (E, N, J) what a copy at each node saves beside the nodes of a set.

    Parameters
    ----------
    cost
        (E, J, S).
    sets
        (E, J) int64; the node itself does not count.
    nodes
        N.
    """
    bit = 1 << torch.arange(nodes, device=sets.device)[:, None]
    both = torch.stack([sets[:, None] & ~bit, sets[:, None] | bit], dim=3)  # (E, N, J, 2)
    found = cost[:, None].expand(-1, nodes, -1, -1).gather(3, both)
    return found[..., 0] - found[..., 1]


def keep_chance(scores: Tensor, may: Tensor, kept: Tensor, tau: float) -> Tensor:
    """Return (E, N, J) how likely each node keeps a block, relaxed about the end of its storage.

        sigmoid((score - threshold) / tau)

    The threshold lies between the least score that was kept and the largest that was not. Where a
    node keeps all that it has, there is nothing to decide.

    Parameters
    ----------
    scores, may
        (E, N, J), and which of them there are.
    kept
        (E, N, J) bool what was kept.
    tau
        In units.
    """
    with torch.no_grad():
        least = torch.where(may & kept, scores, torch.inf).amin(dim=2, keepdim=True)
        largest = torch.where(may & ~kept, scores, -torch.inf).amax(dim=2, keepdim=True)
        full = torch.isfinite(least) & torch.isfinite(largest)
        threshold = torch.where(full, 0.5 * (least + largest), 0.0)
    soft = torch.sigmoid((scores - threshold) / tau)
    return torch.where(full, soft, kept.float()) * may
