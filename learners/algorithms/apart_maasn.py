"""MAASN-DA with nodes that decide apart: what to keep, all at once, each on its beliefs.

The critic is that of `finecast.learners.algorithms.maasn`: it learns centrally, from everything.
The actors are those of `finecast.learners.algorithms.apart_actors`; they see what the information
structure lets them, and misses come by the best chain level of the slot. A decision is judged by
what all nodes have kept in the slot. Whole slots are learned from, with the memory that the nodes
had when they played them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from finecast.learners.algorithms import maasn, maasn_options
from finecast.learners.algorithms.apart_actors import (
    APART,
    ApartActors,
    ApartOptions,
    Shown,
    apart_network,
    check_apart_architecture,
    trained_apart,
)
from finecast.learners.algorithms.lessons import keep_loss, keep_values
from finecast.learners.algorithms.noise import logistic
from finecast.learners.algorithms.set_values import unit_of
from finecast.learners.networks.apart import Seen, worth_of_a_byte
from finecast.learners.networks.apart_graph import CrowdSeen
from finecast.learners.options import MOST_WIDTH, at_least, one_of
from finecast.learners.weights import follow
from finecast.learners.world.environment import Delivery, packed
from finecast.learners.world.episodes import Slot
from finecast.learners.world.lookahead import Lookahead
from finecast.solvers.heuristics.apart import PLAN_BONUS


@dataclass(frozen=True)
class Config(maasn_options.Config):
    """Options: those of `maasn`, without turns, and besides

    Attributes
    ----------
    information
        What the nodes see: "delayed" or "local"; "full" here means at once on everything.
    memory
        Of a block at a node.
    bonus
        Of a planned copy at the start, in units of what a byte here saves on average.
    architecture
        "pairs" or "graph", as in `finecast.learners.algorithms.apart_actors.ApartOptions`.
    """

    in_turn: bool = False
    information: str = "delayed"
    memory: int = 32
    bonus: float = PLAN_BONUS
    architecture: str = "pairs"

    def __post_init__(self) -> None:
        super().__post_init__()
        one_of("information", self.information, APART)
        at_least(self, 1, "memory", most=MOST_WIDTH)
        at_least(self, 0, "bonus")
        check_apart_architecture(self.architecture, self.action_semantics)
        if self.in_turn:
            raise ValueError("in_turn: true is not allowed where nodes decide apart, must be false")

    @property
    def beliefs(self) -> str:
        """What episodes must have beliefs for."""
        return self.information

    @property
    def actors(self) -> ApartOptions:
        """Options of the actors."""
        return ApartOptions(
            self.width,
            self.embedding,
            self.memory,
            self.action_semantics,
            self.bonus,
            self.information,
            self.architecture,
        )


def trained(
    config: Config, tensors: Mapping[str, Tensor], values: Lookahead | None = None
) -> ApartActors:
    """Return the actors of a checkpoint; `values` are not used.

    Raises
    ------
    ValueError
        The tensors are of another architecture.
    """
    return trained_apart(config.actors, tensors)


@dataclass(frozen=True, eq=False)
class ApartLessons:
    """What a slot teaches, all (draw, node, block) of it.

    Attributes
    ----------
    seen
        What all nodes saw, (E, N, J, ...).
    memory
        (E, N, J, D) before the slot.
    displaced
        (E, N, J) what one more byte at the node displaces, in units of the actors.
    saved
        (E, N, J) what keeping the block there saves beside what the others kept.
    weight
        (E, N, J) byte; 0 where the node does not have the block.
    """

    seen: Seen
    memory: Tensor
    displaced: Tensor
    saved: Tensor
    weight: Tensor

    def tensors(self) -> dict[str, Tensor]:
        """Return all as tensors."""
        of_seen = fields(self.seen)
        seen = {f"seen.{field.name}": getattr(self.seen, field.name) for field in of_seen}
        return seen | {name: getattr(self, name) for name in _TENSORS}

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], device: torch.device) -> ApartLessons:
        """Take back what `tensors` returned."""
        kind = CrowdSeen if "seen.user" in tensors else Seen
        seen = kind(*(tensors[f"seen.{field.name}"].to(device) for field in fields(kind)))
        return cls(seen, *(tensors[name].to(device) for name in _TENSORS))


_TENSORS = tuple(field.name for field in fields(ApartLessons) if field.name != "seen")


class Learner(maasn.Learner):
    """MAASN-DA with actors that decide apart; parameters as in `maasn.Learner`."""

    config: Config
    lesson_type = ApartLessons

    memory: Tensor | None = None
    """(E, N, J, D) of the actors that play, after the last slot; None before the first."""

    def _new_actor(self, nodes: int) -> nn.Module:
        """Return the actors' network before it has learnt anything."""
        return apart_network(self.config.actors)

    def _actors(self, values: Lookahead | None) -> Any:
        """Return the actors that play the slot, with exploration and their memory."""
        self._shown: list[Shown] = []
        self._playing = ApartActors(
            self.actor,  # type: ignore[arg-type]
            self.config.information,
            temperature=self.config.temperature,
            generator=self.generator,
            shown=self._shown,
        )
        self._playing.memory = self.memory
        return self._playing

    def _play(self) -> dict[str, float]:
        """Play a slot, and take note of the memory that it leaves."""
        if self.t == 0:
            self.memory = None
        row = super()._play()
        self.memory = self._playing.memory
        return row

    def _lessons(
        self,
        slot: Slot,
        look: Lookahead | None,
        actors: Any,
        delivery: Delivery,
        keep: Tensor,
        cost: Tensor,
    ) -> Any:
        """Return what the critic says of every copy, given what all others kept."""
        if not self._shown:  # the last slot: nothing to decide
            return None
        shown, kept = self._shown[-1], packed(keep)
        both = [keep_values(n, slot, delivery.sender, cost, kept) for n in range(slot.nodes)]
        # From units of the critic, the time from the cloud, to those of the actors.
        scale = (unit_of(slot).float() / worth_of_a_byte(slot))[:, None, None]
        displaced = torch.stack([displaced for displaced, _ in both], dim=1)[..., None]
        saved = torch.stack([saved for _, saved in both], dim=1)
        weight = shown.seen.may * slot.size[:, None].float()
        return ApartLessons(
            shown.seen, shown.memory, (scale * displaced).expand_as(saved), scale * saved, weight
        )

    def _improve_actors(self) -> dict[str, float]:
        """Move the actors towards what costs less, on some of the newest slots."""
        config = self.config
        drawn = torch.randint(len(self.lessons), (maasn.MIXED,), generator=self.generator).tolist()
        total, weights = torch.zeros(()), torch.zeros(())
        for lesson in (self.lessons[i] for i in drawn):
            scores, _ = self.actor(lesson.seen, lesson.memory)
            noise = logistic((scores.numel(), config.samples), self.generator).to(scores.device)
            loss = keep_loss(
                scores.flatten() / config.temperature,
                noise,
                lesson.displaced.flatten() / config.temperature,
                lesson.saved.flatten() / config.temperature,
                tau=config.tau,
                clip=config.gradient_clip,
            )
            total = total + (lesson.weight.flatten() * loss).sum()
            weights = weights + lesson.weight.sum()
        loss = total / weights
        self.actor_adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.actor.parameters(), config.gradient_clip)
        self.actor_adam.step()
        follow(self.average, self.actor, config.average_rate)
        return {"actor_loss": float(loss.detach())}

    def policy(self, values: Lookahead | None = None) -> Any:
        """Return the running average of the actors, without exploration."""
        return ApartActors(self.average, self.config.information)  # type: ignore[arg-type]

    def extra(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Return what `maasn.Learner` does, and the memory."""
        tensors, counters = super().extra()
        memory = {} if self.memory is None else {"memory": self.memory}
        return {**tensors, **memory}, counters

    def load_extra(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Take back what `extra` returned."""
        super().load_extra(tensors, counters)
        memory = tensors.get("memory")
        self.memory = None if memory is None else memory.to(self.device)
