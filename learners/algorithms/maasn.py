"""MAASN-DA: decentralised actors with action semantics, a value-decomposition critic, augmentation.

After Fu et al. (arXiv 2509.19341), of whose learner only the parts are known: agents are the edge
nodes; action semantics networks; Gumbel-Softmax; a critic that decomposes values over agents; data
augmentation. What is ours, and why: the critic (`finecast.learners.algorithms.set_values`)
decomposes over blocks too, since the slot delay is a sum over blocks, and gives the cost of a block
under every set of nodes; so the derivative of the mixed value by one relaxed action is an exact
difference. It charges the price of storage, what one more kept byte displaces, without which every
copy would seem worth keeping.

A slot of a batch is played with exploration every few steps. In every step the critic improves on a
played slot from the replay, towards backups by a target network, and the actors improve on some of
the slots that were played last (`finecast.learners.algorithms.lessons`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from finecast.learners.algorithms.actors import (
    Turn,
    actor_network,
    actors_of,
    gumbel_noise,
    keep_logits,
    logistic,
    pull_logits,
    trained_actors,
)
from finecast.learners.algorithms.lessons import (
    Lessons,
    joined_lessons,
    keep_loss,
    lessons_of,
    pull_loss,
)
from finecast.learners.algorithms.replay import MOST_SETS, Played, Replay
from finecast.learners.algorithms.set_values import (
    Rows,
    SetCritic,
    backup,
    base_costs,
    critic_view,
    rents,
    seen_of,
    value_after,
)
from finecast.learners.learner import TrainedPolicy
from finecast.learners.networks.features import features
from finecast.learners.networks.mixers import MIXERS
from finecast.learners.options import at_least, one_of
from finecast.learners.weights import Part, follow, seeded
from finecast.learners.world.environment import Delivery, packed, step
from finecast.learners.world.episodes import Slot
from finecast.learners.world.lookahead import Lookahead
from finecast.learners.world.pool import EpisodeSource

CREDITS = ("block", "team")

MIXED = 4
"""Slots that an update of the actors draws its pairs from."""


@dataclass(frozen=True)
class Config:
    """Options of MAASN-DA.

    Attributes
    ----------
    batch
        Draws that are played side by side.
    width, embedding
        Of hidden layers and embeddings.
    action_semantics
        Else flat networks.
    credit
        "block": the critic learns from the delay of every block; "team": from their sum alone.
    mixing
        "monotonic" or "sum", over nodes.
    in_turn
        Nodes decide in turn, else all at once.
    play_every
        Steps from one slot that is played to the next.
    rows
        (draw, block) pairs of a slot from the replay, and (node, block) pairs of some of the newest
        slots, that a step learns from.
    lessons
        How many slots count as the newest.
    rounds
        How often every node decides what to keep, if in turn.
    lookahead
        The marginals of `mpc` are features, and the start; else the expected saving in the next
        slot is the start. Without, decisions are faster.
    temperature
        Weight of the entropy, in units of saving per byte.
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
    clip
        Of gradients, in norm, and of advantages, in temperatures.
    delay_actor
        Steps for which the critic alone learns.
    """

    batch: int = 8
    width: int = 64
    embedding: int = 32
    action_semantics: bool = True
    credit: str = "block"
    mixing: str = "monotonic"
    in_turn: bool = True
    play_every: int = 4
    rows: int = 512
    lessons: int = 20
    rounds: int = 3
    lookahead: bool = False
    temperature: float = 0.05
    tau: float = 1.0
    samples: int = 4
    actor_rate: float = 5e-4
    critic_rate: float = 1e-3
    halving: float = 5000.0
    average_rate: float = 0.003
    target_rate: float = 0.01
    discount: float = 1.0
    replay: int = 400
    clip: float = 10.0
    delay_actor: int = 0

    def __post_init__(self) -> None:
        at_least(self, 1, "batch", "width", "embedding", "rounds", "replay", "play_every", "rows")
        at_least(self, 1, "samples", "lessons")
        at_least(self, 0, "actor_rate", "critic_rate", "target_rate", "discount", "delay_actor")
        at_least(self, 0, "average_rate")
        at_least(self, 1e-6, "temperature", "tau", "clip", "halving")
        one_of("credit", self.credit, CREDITS)
        one_of("mixing", self.mixing, MIXERS)


def start(
    config: Config, source: EpisodeSource, *, seed: int, device: torch.device
) -> MaasnLearner:
    """Return the learner at step 0.

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
    return MaasnLearner(config, source, seed, device)


def policy(
    config: Config, tensors: Mapping[str, Tensor], values: Lookahead | None = None
) -> TrainedPolicy:
    """Return the policy of a checkpoint.

    Parameters
    ----------
    config
        Options it was trained with.
    tensors
        Those of the checkpoint whose names begin with "policy".
    values
        Lookahead of the episodes to be played; None: computed where needed.

    Raises
    ------
    ValueError
        The tensors are of another architecture.
    """
    return trained_actors(config, tensors, values)


class MaasnLearner:
    """MAASN-DA as it learns.

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

    def __init__(
        self, config: Config, source: EpisodeSource, seed: int, device: torch.device
    ) -> None:
        self.config, self.source, self.device = config, source, device
        nodes = source.at(0).episodes.nodes
        if nodes > MOST_SETS:
            raise ValueError(f"nodes: {nodes} are not allowed, must be <= {MOST_SETS}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=seeded(seed, "networks"))))
            self.actor = actor_network(config, nodes).to(device)
            self.critic = SetCritic(
                mixing=config.mixing,
                action_semantics=config.action_semantics,
                nodes=nodes,
                width=config.width,
                embedding=config.embedding,
            ).to(device)
        self.target = copy.deepcopy(self.critic)
        self.average = copy.deepcopy(self.actor)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=config.actor_rate)
        self.critic_adam = torch.optim.Adam(self.critic.parameters(), lr=config.critic_rate)
        self.generator = seeded(seed, "play")
        self.replay = Replay(config.replay)
        self.steps, self.t, self.begun = 0, 0, 0
        self.draw = torch.zeros(0, dtype=torch.int64)
        self.cache = torch.zeros(0)
        self.before: Played | None = None
        self.lessons: list[Lessons] = []

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

    def policy(self, values: Lookahead | None = None) -> TrainedPolicy:
        """Return the actors, without exploration."""
        return actors_of(self.config, self.average, values)

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
        """Play a slot of the batch with exploration; leave what the actors can learn from it."""
        if self.t == 0:
            self.begun = self.steps
        pool = self.source.at(self.begun)
        if self.t == 0:
            self.replay.forget_other(pool.number)
            size = (self.config.batch,)
            self.draw = torch.randint(pool.episodes.draws, size, generator=self.generator)
            self.cache = pool.episodes.select(self.draw.to(self.device)).start
            self.before = None
        episodes, values = self._batch(self.draw)
        slot, look = episodes.slot(self.t), values.slot(self.t)
        actors = actors_of(self.config, self.actor, values)
        actors.generator = self.generator
        with torch.no_grad():
            delivery, keep = step(
                slot, self.cache, actors, in_turn=actors.in_turn, rounds=actors.rounds
            )
            self._remember(pool.number, slot, delivery, keep)
            if self.steps >= self.config.delay_actor:
                new = self._lessons(slot, look, actors.turns, delivery, keep)
                if new is not None:
                    new = new.some(MIXED * self.config.rows, self.generator)
                    self.lessons = [*self.lessons, new][-self.config.lessons :]
        self.cache = keep
        self.t = (self.t + 1) % slot.slots
        return {"delay": float(delivery.delay.sum(dim=1).mean())}

    def _batch(self, draw: Tensor) -> Any:
        """Return the draws of the pool in force, and their lookahead."""
        pool = self.source.at(self.begun)
        index = draw.to(self.device)
        return pool.episodes.select(index), pool.values.select(index)

    def _remember(self, pool: int, slot: Slot, delivery: Delivery, keep: Tensor) -> None:
        held = delivery.sender.to(torch.uint8).cpu()
        if self.before is not None:
            self.replay.add(replace(self.before, next_held=held))
        cached, kept = packed(self.cache).to(torch.uint8).cpu(), packed(keep).to(torch.uint8).cpu()
        self.before = Played(pool, slot.t, self.draw, cached, held, kept, held)

    def _costs(
        self,
        network: nn.Module,
        slot: Slot,
        look: Lookahead,
        sets: tuple[Tensor, Tensor],
        rows: Rows,
    ) -> Tensor:
        """Return (R, S) G(K) of a slot by a critic; 0 after the last slot."""
        values = look if self.config.lookahead else None
        base = base_costs(slot, values, rows)
        if slot.t == slot.slots - 1:
            return torch.zeros_like(base)
        seen = seen_of(features(critic_view(slot, *sets), None, values), rows)
        learnt: Tensor = network(seen)
        return base + learnt

    def _improve_critic(self) -> dict[str, float]:
        played = self.replay.draw(self.generator)
        episodes, values = self._batch(played.draw)
        slot, coming = episodes.slot(played.t), episodes.slot(played.t + 1)
        look, ahead = values.slot(played.t), values.slot(played.t + 1)
        cached, held, kept, next_held = (
            getattr(played, name).long().to(self.device)
            for name in ("cached", "held", "kept", "next_held")
        )
        rows = Rows.where((held != 0) & slot.real).some(self.config.rows, self.generator)
        with torch.no_grad():
            later = self._costs(self.target, coming, ahead, (kept, next_held), rows)
            rent = rents(coming, ahead)[rows.draw]
            after = value_after(rent + self.config.discount * later)
            wanted = backup(coming, after, rows)
        found = self._costs(self.critic, slot, look, (cached, held), rows)
        weight = rows.of(slot.size).float()
        if self.config.credit == "block":
            # Only differences between sets matter: what all sets of a block share is chance.
            error = huber_loss(centred(found), centred(wanted), reduction="none").mean(dim=1)
            loss = (weight * error).sum() / weight.sum()
        else:
            chosen = rows.of(kept)[:, None]
            spread = (found.gather(1, chosen) - wanted.gather(1, chosen))[:, 0] * weight
            bytes_ = slot.size.sum(dim=1).float()
            team = torch.zeros_like(bytes_).index_add(0, rows.draw, spread) / bytes_
            loss = huber_loss(team, torch.zeros_like(team))
        self.critic_adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.critic.parameters(), self.config.clip)
        self.critic_adam.step()
        follow(self.target, self.critic, self.config.target_rate)
        return {"critic_loss": float(loss.detach())}

    def _lessons(
        self, slot: Slot, look: Lookahead, turns: list[Turn], delivery: Delivery, keep: Tensor
    ) -> Lessons | None:
        """Return what the critic says of the turns, given what the others had decided."""
        cached = packed(self.cache)
        rows = Rows.where((delivery.sender != 0) & slot.real)
        cost = torch.zeros((*slot.size.shape, 1 << slot.nodes), device=self.device)
        cost[rows.draw, rows.block] = self._costs(
            self.critic, slot, look, (cached, delivery.sender), rows
        )
        rent = rents(slot, look)
        after = value_after((rent[:, None] + cost).flatten(0, 1)).reshape(cost.shape)
        kept = None if self.config.in_turn else packed(keep)
        return lessons_of(turns, slot, cached, delivery, cost, after, kept=kept)

    def _improve_actors(self) -> dict[str, float]:
        """Move the actors towards what costs less, on some of the lessons."""
        config = self.config
        drawn = torch.randint(len(self.lessons), (MIXED,), generator=self.generator).tolist()
        share = -(-config.rows // MIXED)
        chosen = joined_lessons([self.lessons[i].some(share, self.generator) for i in drawn])
        scores = self.actor(chosen.seen)
        keeping, size = chosen.keeping, (len(chosen.weight), config.samples)
        noise = logistic(size, self.generator).to(self.device)
        loss = torch.zeros_like(chosen.weight)
        keep = chosen.start[:, 0] + keep_logits(scores, chosen.company, config.temperature)
        loss[keeping] = keep_loss(
            keep[keeping],
            noise[keeping],
            chosen.cost[keeping, 0] / config.temperature,
            chosen.cost[keeping, 1] / config.temperature,
            tau=config.tau,
            clip=config.clip,
        )
        pull = (chosen.start + pull_logits(scores, chosen.company, config.temperature))[~keeping]
        gumbel = gumbel_noise((len(pull), config.samples, pull.shape[1]), self.generator)
        loss[~keeping] = pull_loss(
            pull,
            gumbel.to(self.device),
            chosen.cost[~keeping] / config.temperature,
            tau=config.tau,
            clip=config.clip,
        )
        loss = (chosen.weight * loss).sum() / chosen.weight.sum()
        self.actor_adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.actor.parameters(), config.clip)
        self.actor_adam.step()
        follow(self.average, self.actor, self.config.average_rate)
        return {"actor_loss": float(loss.detach())}

    def extra(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Return the replay and where the play stands."""
        tensors = self.replay.tensors() | {"draw": self.draw, "cache": self.cache.cpu()}
        if self.before is not None:
            last = Replay(1)
            last.add(self.before)
            tensors |= {f"before.{key}": value for key, value in last.tensors().items()}
        for i, lessons in enumerate(self.lessons):
            tensors |= {f"lesson.{i:05d}.{key}": one for key, one in lessons.tensors().items()}
        return tensors, {"steps": self.steps, "t": self.t, "begun": self.begun}

    def load_extra(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Take back what `extra` returned."""
        self.steps, self.t, self.begun = (int(counters[name]) for name in ("steps", "t", "begun"))
        self.draw, self.cache = tensors["draw"], tensors["cache"].to(self.device)
        self.replay.load(tensors)
        last = Replay(1)
        last.load(
            {k.removeprefix("before."): v for k, v in tensors.items() if k.startswith("before.")}
        )
        self.before = last.slots[0] if last.slots else None
        found: dict[str, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("lesson."):
                _, index, name = key.split(".", maxsplit=2)
                found.setdefault(index, {})[name] = value
        self.lessons = [Lessons.load(found[index], self.device) for index in sorted(found)]


def centred(costs: Tensor) -> Tensor:
    """Return (R, S) costs less their mean over sets."""
    return costs - costs.mean(dim=1, keepdim=True)
