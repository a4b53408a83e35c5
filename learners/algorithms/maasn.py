"""MAASN-DA: decentralised actors with action semantics, a value-decomposition critic, augmentation.

After Fu et al. (arXiv 2509.19341), of whose learner only the parts are known: agents are the edge
nodes; action semantics networks; Gumbel-Softmax; a critic that decomposes values over agents; data
augmentation. What is ours, and why: the critic (`finecast.learners.algorithms.set_values`)
decomposes over blocks too, since the slot delay is a sum over blocks. It gives the cost of a block
under every set of nodes, so the derivative of the mixed value by one relaxed action is an exact
difference. It charges the price of storage, what one more kept byte displaces. Without that price
every copy would seem worth keeping.

With raw observations nothing is known of what comes. The critic then learns from the delays that
were paid (`finecast.learners.algorithms.paid`), without prices: that a kept byte displaces another
shows in what is paid later. `critic = "maddpg"` has one joint value instead of a decomposed one
(`finecast.learners.algorithms.joint_critic`).

With `keep = "joint"` the joint rule chooses what is kept, by the scores of the actors
(`finecast.learners.algorithms.joint_actors`), and the critic backs up through the prices of that
keep (`finecast.learners.algorithms.set_values.joint_rents`).

A slot of a batch is played with exploration every few steps. In every step

    the critic improves on a played slot from the replay, towards backups by a target network;
    the actors improve on some of the newest slots (`finecast.learners.algorithms.lessons`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Generator, Tensor, nn

from finecast.learners.algorithms.actors import (
    Actors,
    actor_network,
    actors_of,
    keep_logits,
    loaded_network,
    pull_logits,
)
from finecast.learners.algorithms.joint_actors import joint_actors_of
from finecast.learners.algorithms.joint_critic import JointCritic, first_order_costs
from finecast.learners.algorithms.lessons import (
    Lessons,
    joined_lessons,
    keep_loss,
    lessons_of,
    pull_loss,
)
from finecast.learners.algorithms.maasn_critic import (
    block_loss,
    cost_of_kept,
    critic_network,
    team_loss,
)
from finecast.learners.algorithms.maasn_options import Config
from finecast.learners.algorithms.noise import gumbel_noise, logistic
from finecast.learners.algorithms.paid import (
    next_kept,
    paid_loss,
    paid_per_byte,
    share_of_bytes,
)
from finecast.learners.algorithms.replay import MOST_SETS, Played, Replay
from finecast.learners.algorithms.set_values import (
    Rows,
    critic_view,
    joint_rents,
    rents,
    set_costs,
    set_targets,
    value_after,
)
from finecast.learners.learner import TrainedPolicy
from finecast.learners.weights import Part, follow, initialised, part_of, seeded
from finecast.learners.world.environment import Delivery, View, packed, step
from finecast.learners.world.episodes import Episodes, Slot
from finecast.learners.world.lookahead import Lookahead
from finecast.learners.world.pool import EpisodeSource

MIXED = 4
"""Slots that an update of the actors draws its pairs from."""


def trained(
    config: Config, tensors: Mapping[str, Tensor], values: Lookahead | None = None
) -> Actors:
    """Return the actors of a checkpoint.

    Parameters
    ----------
    config
        Options that they were trained with.
    tensors
        Those of the checkpoint whose names begin with "policy".
    values
        Lookahead of the episodes to be played; None: computed where needed.

    Raises
    ------
    ValueError
        The tensors are of another architecture.
    """
    return _actors_of(config, loaded_network(config, tensors), values)


def _actors_of(
    config: Config,
    network: nn.Module,
    values: Lookahead | None,
    generator: Generator | None = None,
) -> Actors:
    """Return the actors of a network, by the keep rule; with a generator they explore."""
    make = joint_actors_of if config.joint else actors_of
    return make(config, network, values, generator)


class Learner:
    """MAASN-DA as it learns; `finecast.learners.algorithms.apart_maasn` has other actors.

    Parameters
    ----------
    config
        Options.
    source
        Of training episodes.
    seed
        Of networks and exploration.
    device
        Where the networks are.
    """

    lesson_type: Any = Lessons
    """What actors learn from."""

    def __init__(
        self, config: Config, source: EpisodeSource, *, seed: int, device: torch.device
    ) -> None:
        self.config, self.source, self.device = config, source, device
        nodes = source.at(0).episodes.nodes
        if nodes > MOST_SETS:
            raise ValueError(f"nodes: {nodes} are not allowed, must be <= {MOST_SETS}")

        def networks() -> tuple[nn.Module, nn.Module]:
            return self._new_actor(nodes), critic_network(config, nodes)

        actor, critic = initialised(seed, networks)
        self.actor, self.critic = actor.to(device), critic.to(device)
        self.target = copy.deepcopy(self.critic)
        self.average = copy.deepcopy(self.actor)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=config.actor_rate)
        self.critic_adam = torch.optim.Adam(self.critic.parameters(), lr=config.critic_rate)
        self.generator = seeded(seed, "play")
        self.steps = 0
        # What is played: the draws, the slot, the caches, and the step at which it began.
        self.draw = torch.zeros(0, dtype=torch.int64)
        self.t, self.begun = 0, 0
        self.cache = torch.zeros(0)
        # What is learned from: played slots, the last of them as long as its successor is not
        # known, and what the newest slots teach the actors.
        self.replay = Replay(config.replay)
        self.unfinished: Played | None = None
        self.lessons: list[Any] = []

    def _new_actor(self, nodes: int) -> nn.Module:
        """Return the actors' network before it has learnt anything."""
        return actor_network(self.config, nodes)

    def step(self) -> Mapping[str, float]:
        """Improve the critic and the actors once; play a slot of the batch if it is time."""
        row: dict[str, float] = {}
        for adam, rate in (
            (self.actor_adam, self.config.actor_rate),
            (self.critic_adam, self.config.critic_rate),
        ):
            adam.param_groups[0]["lr"] = rate / (1.0 + self.steps / self.config.halving)
        if self.steps % self.config.play_every == 0:
            row |= self._play()
        if self.replay.slots:
            row |= self._improve_critic()
        if self.lessons:
            row |= self._improve_actors()
        self.steps += 1
        return row

    def _play(self) -> dict[str, float]:
        """Play a slot of the batch with exploration; leave what the critic and actors learn from.

        The pool does not change within an episode: it is that of the step at which it began.
        """
        if self.t == 0:
            self.begun = self.steps
        pool = self.source.at(self.begun)
        if self.t == 0:
            self.replay.forget_other(pool.number)
            size = (self.config.batch,)
            self.draw = torch.randint(pool.episodes.draws, size, generator=self.generator)
            self.cache = pool.episodes.select(self.draw.to(self.device)).start
            self.unfinished = None
        episodes, values = self._drawn(self.draw)
        slot = episodes.slot(self.t)
        actors = self._actors(values)
        with torch.no_grad():
            delivery, keep = step(
                slot,
                self.cache,
                actors,
                in_turn=actors.in_turn,
                rounds=actors.rounds,
                joint=getattr(actors, "joint", ""),
            )
            if self.config.joint:
                actors.note_kept(packed(keep))
            self._remember(pool.number, slot, delivery, keep)
            if self.steps >= self.config.delay_actor:
                look = None if values is None else values.slot(self.t)
                cost = self._costs_of_sets(slot, look, delivery, keep)
                new = self._lessons(slot, look, actors, delivery, keep, cost)
                if new is not None:
                    self.lessons = [*self.lessons, new][-self.config.lessons :]
        self.cache = keep
        self.t = (self.t + 1) % slot.slots
        return {"delay": float(delivery.delay.sum(dim=1).mean())}

    def _drawn(self, draw: Tensor) -> tuple[Episodes, Lookahead | None]:
        """Return these draws of the pool in force, and their lookahead where it is used."""
        pool = self.source.at(self.begun)
        index = draw.to(self.device)
        config = self.config
        used = config.lookahead or not (config.joint or config.raw)
        return pool.episodes.select(index), pool.values.select(index) if used else None

    def _remember(self, pool: int, slot: Slot, delivery: Delivery, keep: Tensor) -> None:
        """Add the slot before to the replay, now that it is known what the nodes had after it."""
        held = delivery.sender.to(torch.uint8).cpu()
        if self.unfinished is not None:
            delay = delivery.delay.float().cpu()
            self.replay.add(replace(self.unfinished, next_held=held, next_delay=delay))
        cached, kept = packed(self.cache).to(torch.uint8).cpu(), packed(keep).to(torch.uint8).cpu()
        self.unfinished = Played(pool, slot.t, self.draw, cached, held, kept, next_held=held)

    def _actors(self, values: Lookahead | None) -> Any:
        """Return the actors that play the slot, with exploration, and note their turns."""
        return _actors_of(self.config, self.actor, values, self.generator)

    def _costs_of_sets(
        self, slot: Slot, look: Lookahead | None, delivery: Delivery, keep: Tensor
    ) -> Tensor:
        """Return (E, J, S) G(K) by the critic, in units; 0 where nobody has the block."""
        cached, held = packed(self.cache), delivery.sender
        if isinstance(self.critic, JointCritic):
            return first_order_costs(self.critic, critic_view(slot, cached, held), packed(keep))
        rows = Rows.where((held != 0) & slot.real)
        cost = torch.zeros((*slot.size.shape, 1 << slot.nodes), device=self.device)
        cost[rows.draw, rows.block] = self._costs(self.critic, slot, look, cached, held, rows)
        return cost

    def _lessons(
        self,
        slot: Slot,
        look: Lookahead | None,
        actors: Any,
        delivery: Delivery,
        keep: Tensor,
        cost: Tensor,
    ) -> Any:
        """Return what the critic says of the turns, given what the others had decided."""
        if self.config.raw:
            rent = torch.zeros_like(cost)
        elif self.config.joint:
            rent = joint_rents(slot, delivery.sender, cost)
        else:
            assert look is not None
            rent = rents(slot, look)[:, None]
        after = value_after((rent + cost).flatten(0, 1)).reshape(cost.shape)
        kept = None if self.config.in_turn else packed(keep)
        new = lessons_of(
            actors.turns,
            slot,
            packed(self.cache),
            delivery,
            cost,
            after,
            kept=kept,
            signed=self.config.raw,
        )
        return None if new is None else new.sample(MIXED * self.config.rows, self.generator)

    def _costs(
        self,
        critic: nn.Module,
        slot: Slot,
        look: Lookahead | None,
        cached: Tensor,
        held: Tensor,
        rows: Rows,
    ) -> Tensor:
        """Return (R, S) G(K) of a slot by a critic; 0 after the last slot."""
        values = look if self.config.lookahead else None
        view = critic_view(slot, cached, held)
        return set_costs(critic, view, values, rows, raw=self.config.raw)

    def _improve_critic(self) -> dict[str, float]:
        """Move the critic towards the targets of one played slot; the target network follows."""
        played = self.replay.draw(self.generator)
        loss = self._paid_loss(played) if self.config.raw else self._backup_loss(played)
        self.critic_adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.critic.parameters(), self.config.gradient_clip)
        self.critic_adam.step()
        follow(self.target, self.critic, self.config.target_rate)
        return {"critic_loss": float(loss.detach())}

    def _backup_loss(self, played: Played) -> Tensor:
        """Return the error of the critic against the backups of a played slot."""
        # Some of the blocks that somebody had in it.
        episodes, values = self._drawn(played.draw)
        slot, coming = episodes.slot(played.t), episodes.slot(played.t + 1)
        look = None if values is None else values.slot(played.t)
        coming_look = None if values is None else values.slot(played.t + 1)
        cached, held, kept, next_held = (
            getattr(played, name).long().to(self.device)
            for name in ("cached", "held", "kept", "next_held")
        )
        rows = Rows.where((held != 0) & slot.real).sample(self.config.rows, self.generator)
        # Targets: what every set K would have cost in the next slot, and after it by the target.
        with torch.no_grad():
            target = self.targets(critic_view(coming, kept, next_held), coming_look, rows)
        cost = self._costs(self.critic, slot, look, cached, held, rows)
        weight = rows.pick(slot.size).float()
        if self.config.credit == "block":
            return block_loss(cost, target, weight)
        return team_loss(cost, target, weight, slot.size, kept, rows)

    def targets(self, view: View, look: Lookahead | None, rows: Rows) -> Tensor:
        """Return (R, S) y(K) of some blocks; parameters as in `set_targets`."""
        config = self.config
        return set_targets(
            self.target,
            view,
            look,
            rows,
            lookahead=config.lookahead,
            discount=config.discount,
            joint=config.joint,
        )

    def _paid_loss(self, played: Played) -> Tensor:
        """Return the error of the critic against what was paid after a played slot."""
        episodes, _ = self._drawn(played.draw)
        slot, coming = episodes.slot(played.t), episodes.slot(played.t + 1)
        cached, held, kept, next_held = (
            getattr(played, name).long().to(self.device)
            for name in ("cached", "held", "kept", "next_held")
        )
        with torch.no_grad():
            view = critic_view(coming, kept, next_held)
            actors = actors_of(self.config, self.average, None)
            actors.observer.begin(view)
            later = cost_of_kept(self.target, view, next_kept(actors, view))
            target = paid_per_byte(coming, played.next_delay.to(self.device))
            target += self.config.discount * later
        cost = cost_of_kept(self.critic, critic_view(slot, cached, held), kept)
        return paid_loss(cost, target, share_of_bytes(slot), self.config.credit)

    def _improve_actors(self) -> dict[str, float]:
        """Move the actors towards what costs less, on some of the lessons; the average follows."""
        config = self.config
        # Some (node, block) pairs of some of the newest slots.
        drawn = torch.randint(len(self.lessons), (MIXED,), generator=self.generator).tolist()
        share = -(-config.rows // MIXED)
        batch = joined_lessons([self.lessons[i].sample(share, self.generator) for i in drawn])
        scores = self.actor(batch.seen)
        keeping = batch.keeping
        loss = torch.zeros_like(batch.weight)
        # Keeping: soft actions by logistic noise.
        size = (len(batch.weight), config.samples)
        noise = logistic(size, self.generator).to(self.device)
        keep = batch.start[:, 0] + keep_logits(scores, batch.company, config.temperature)
        loss[keeping] = keep_loss(
            keep[keeping],
            noise[keeping],
            batch.cost[keeping, 0] / config.temperature,
            batch.cost[keeping, 1] / config.temperature,
            tau=config.tau,
            clip=config.gradient_clip,
        )
        # Pulling: soft actions by Gumbel noise.
        pull = (batch.start + pull_logits(scores, batch.company, config.temperature))[~keeping]
        gumbel = gumbel_noise((len(pull), config.samples, pull.shape[1]), self.generator)
        loss[~keeping] = pull_loss(
            pull,
            gumbel.to(self.device),
            batch.cost[~keeping] / config.temperature,
            tau=config.tau,
            clip=config.gradient_clip,
        )
        # One step of Adam on the mean over bytes.
        loss = (batch.weight * loss).sum() / batch.weight.sum()
        self.actor_adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.actor.parameters(), config.gradient_clip)
        self.actor_adam.step()
        follow(self.average, self.actor, config.average_rate)
        return {"actor_loss": float(loss.detach())}

    def policy(self, values: Lookahead | None = None) -> TrainedPolicy:
        """Return the running average of the actors, without exploration."""
        return _actors_of(self.config, self.average, values)

    def parts(self) -> Mapping[str, Part]:
        """Return networks, optimisers, generator."""
        return {
            "policy": self.average,
            "actor": self.actor,
            "critic": self.critic,
            "target": self.target,
            "actor adam": self.actor_adam,
            "critic adam": self.critic_adam,
            "generator": self.generator,
        }

    def extra(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Return the replay, the lessons and where the play stands."""
        tensors = self.replay.tensors() | {"draw": self.draw, "cache": self.cache.cpu()}
        if self.unfinished is not None:
            last = Replay(1)
            last.add(self.unfinished)
            tensors |= {f"before.{key}": value for key, value in last.tensors().items()}
        for i, lessons in enumerate(self.lessons):
            tensors |= {f"lesson.{i:05d}.{key}": value for key, value in lessons.tensors().items()}
        return tensors, {"steps": self.steps, "t": self.t, "begun": self.begun}

    def load_extra(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Take back what `extra` returned."""
        self.steps, self.t, self.begun = (int(counters[name]) for name in ("steps", "t", "begun"))
        self.draw, self.cache = tensors["draw"], tensors["cache"].to(self.device)
        self.replay.load(tensors)
        last = Replay(1)
        last.load(part_of(tensors, "before", "."))
        self.unfinished = last.slots[0] if last.slots else None
        by_slot: dict[str, dict[str, Tensor]] = {}
        for key, value in part_of(tensors, "lesson", ".").items():
            index, _, name = key.partition(".")
            by_slot.setdefault(index, {})[name] = value
        self.lessons = [
            self.lesson_type.load(by_slot[index], self.device) for index in sorted(by_slot)
        ]
