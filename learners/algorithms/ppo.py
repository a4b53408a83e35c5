"""Proximal policy optimisation: MAPPO and IPPO, HAPPO, and both with other networks.

After Yu et al. (The surprising effectiveness of PPO in cooperative multi-agent games, NeurIPS 2022,
arXiv 2103.01955) and de Witt et al. (arXiv 2011.09533). One step plays whole episodes of a batch,
then makes some epochs of updates on them. The nodes share one network; per block a node pulls from
a categorical distribution (nothing, another node that has the block, the cloud), and keeps what
fits its storage in falling order of logit + logistic noise.

HAPPO (`node_by_node`; Kuba et al., ICLR 2022, arXiv 2109.11251) makes the epochs on the decisions
of one node after another, in random order. The advantage of a node is multiplied by the ratios of
those before it, new chance to old, of what they decided on the same block:

    min(r_n M_n A, clip(r_n) M_n A),   M_n = product over m before n of r_m

There every node has a network of its own. Here one network serves any number of nodes, so the
update of a node moves the others too: M is computed anew before every node, and the guarantee of
monotonic improvement is lost. `architecture` is the network: every node for itself (`pairs`), or
`finecast.learners.networks.sequence`, or `finecast.learners.networks.graph`.

With credit by block, every block has its own rewards (`finecast.learners.algorithms.ppo_episodes`),
values and advantages. With credit by team, all share the sum over blocks, without rent, since the
sum has the losses of all.

Values are learned as a residual on those of the dynamic programme on expected tables
(`finecast.learners.world.lookahead`). Actors start at its scores, or at the expected saving of the
next slot (`finecast.learners.algorithms.actors`). With raw observations there are no tables: no
base, no rent, and actors from random weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from finecast.learners.algorithms.actors import ActorOptions
from finecast.learners.algorithms.architectures import (
    check_architecture,
    network_of,
    players_of,
    trained_players,
)
from finecast.learners.algorithms.ppo_decisions import (
    Decisions,
    chosen,
    compounded,
    decisions,
    log_chances,
    looked,
)
from finecast.learners.algorithms.ppo_episodes import Stage, play_with
from finecast.learners.algorithms.ppo_values import Critic, advantages
from finecast.learners.learner import TrainedPolicy
from finecast.learners.networks.features import Features, joined_features
from finecast.learners.networks.whole import WholeNetwork
from finecast.learners.options import MOST_STEPS, at_least
from finecast.learners.weights import Part, initialised, seeded
from finecast.learners.world.lookahead import Lookahead
from finecast.learners.world.pool import EpisodeSource

PLACES_AT_ONCE = 64
"""Stages of a draw that a network looks at at once outside of updates; it bounds the memory."""


@dataclass(frozen=True)
class Config(ActorOptions):
    """Options of MAPPO; IPPO is the same with `centralised` false.

    Attributes
    ----------
    centralised
        The critic sees what all nodes see (MAPPO); else every node's critic what it sees (IPPO).
    batch
        Draws that are played in a step.
    actor_rate, critic_rate
        Step sizes of Adam.
    epochs, minibatches
        Passes over what was played, and updates in each.
    ratio_clip
        Of the ratio of probabilities, from 1.
    entropy
        Weight of the entropy.
    discount, gae_lambda
        gamma and lambda of generalised advantage estimation.
    gradient_clip
        Of the gradient's norm.
    node_by_node
        Updates learn from the decisions of one node after another (HAPPO), with all epochs for each
        of them; else of all.
    architecture
        The network (`finecast.learners.algorithms.architectures`). "pairs": a node scores what it
        sees; "sequence": given what those before it decided; "graph": after messages between nodes
        and users.
    """

    centralised: bool = True
    batch: int = 16
    actor_rate: float = 5e-5
    critic_rate: float = 1e-3
    epochs: int = 4
    minibatches: int = 4
    ratio_clip: float = 0.2
    entropy: float = 0.01
    discount: float = 0.95
    gae_lambda: float = 0.8
    gradient_clip: float = 10.0
    node_by_node: bool = False
    architecture: str = "pairs"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "batch", "epochs", "minibatches")
        at_least(self, 0, "actor_rate", "critic_rate", "entropy", "discount", "gae_lambda")
        at_least(self, 1e-6, "ratio_clip", "gradient_clip", most=MOST_STEPS)
        check_architecture(self, self.architecture)


def trained(
    config: Config, tensors: Mapping[str, Tensor], values: Lookahead | None = None
) -> TrainedPolicy:
    """Return the policy of a checkpoint (`finecast.learners.learner`).

    Raises
    ------
    ValueError
        The tensors are of another architecture.
    """
    return trained_players(config, config.architecture, tensors, values)


class Learner:
    """PPO as it learns.

    Parameters
    ----------
    config
        Options.
    source
        Of training episodes.
    seed
        Of networks, draws and exploration.
    device
        Where the networks are.
    """

    def __init__(
        self, config: Config, source: EpisodeSource, *, seed: int, device: torch.device
    ) -> None:
        self.config, self.source, self.device = config, source, device
        nodes = source.at(0).episodes.nodes

        def networks() -> tuple[nn.Module, Critic]:
            actor = network_of(config, config.architecture, nodes)
            return actor, Critic(config.centralised, config.width)

        actor, critic = initialised(seed, networks)
        self.actor, self.critic = actor.to(device), critic.to(device)
        self.actor_adam = torch.optim.Adam(self.actor.parameters(), lr=config.actor_rate)
        self.critic_adam = torch.optim.Adam(self.critic.parameters(), lr=config.critic_rate)
        self.generator = seeded(seed, "play")
        self.steps = 0

    def step(self) -> Mapping[str, float]:
        """Play whole episodes of a batch, then learn from them."""
        pool = self.source.at(self.steps)
        draw = torch.randint(
            pool.episodes.draws, (self.config.batch,), generator=self.generator
        ).to(self.device)
        with torch.no_grad():
            values = pool.values.select(draw)
            actors = players_of(self.config, self.actor, values, self.generator)
            stages, delay = play_with(actors, pool.episodes.select(draw), values)
        row = {"delay": delay, **self._improve(stages)}
        self.steps += 1
        return row

    def _improve(self, stages: Sequence[Stage]) -> dict[str, float]:
        """Make the epochs of updates; return the means of what is logged."""
        config, temperature = self.config, self.config.temperature
        # What the critic is shown: all P stages of all draws, side by side.
        seen = joined_features([stage.seen for stage in stages])
        share = torch.cat([stage.share for stage in stages])[:, None]
        base = torch.cat([stage.base for stage in stages])[:, None]
        if config.credit == "team":
            base = (base * share).sum(dim=2, keepdim=True)
        indices = torch.arange(len(base), device=self.device)
        with torch.no_grad():
            # Advantages and targets, by the critic as it is.
            learnt = [
                self._learnt(seen.select(part), share[part])
                for part in torch.split(indices, PLACES_AT_ONCE)
            ]
            value = base + torch.cat(learnt)  # (P, N or 1, J or 1)
            value = torch.unflatten(value, 0, (len(stages), -1))  # (2 T - 1, E, ...)
            reward = torch.stack([self._reward(stage) for stage in stages])[:, :, None]
            advantage = advantages(reward, value, config.discount, config.gae_lambda)
            target = (advantage + value).flatten(0, 1) - base
            self.critic.follow(target)
            # What the actors chose, and how likely that was.
            kinds = [
                kind
                for keeping in (False, True)
                if (kind := decisions(self.actor, stages, advantage, keeping, temperature))
                is not None
            ]
            old = [self._log_chance_of_choice(seen, kind) for kind in kinds]
        logged: list[dict[str, float]] = []
        for pass_kinds, pass_old in self._passes(seen, kinds, old):
            for _ in range(config.epochs):
                # Every epoch sees all rows once, in an order of its own.
                for part, rows in self._minibatches(pass_kinds, len(indices)):
                    error = self._learnt(seen.select(part), share[part]) - target[part]
                    row = self._improve_critic(error)
                    row |= self._improve_actor(seen, part, pass_kinds, pass_old, rows)
                    logged.append(row)
        return {name: sum(row.get(name, 0.0) for row in logged) / len(logged) for name in logged[0]}

    def _passes(
        self, seen: Features, kinds: Sequence[Decisions], old: Sequence[Tensor]
    ) -> Iterator[tuple[Sequence[Decisions], Sequence[Tensor]]]:
        """Yield the decisions that a pass of epochs learns from, with their old chances.

        All of them in one pass, or those of one node after another, whose advantages are multiplied
        by what the updates of the nodes before have changed.
        """
        if not self.config.node_by_node:
            yield kinds, old
            return
        updated = torch.zeros(seen.own.shape[1], dtype=torch.bool, device=self.device)
        for n in torch.randperm(len(updated), generator=self.generator).tolist():
            of_node, of_node_old = [], []
            for kind, old_log in zip(kinds, old, strict=True):
                with torch.no_grad():
                    log_ratio = self._log_chance_of_choice(seen, kind) - old_log
                factor = compounded(kind, log_ratio, updated)
                mine = kind.node == n
                weighted = replace(kind, advantage=factor * kind.advantage)
                of_node.append(weighted.select(mine))
                of_node_old.append(old_log[mine])
            yield of_node, of_node_old
            updated[n] = True

    def _minibatches(
        self, kinds: Sequence[Decisions], places: int
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yield places for the critic, and rows of each kind for the actor, all once.

        A network that looks at whole draws gets the rows of these places.
        """
        if isinstance(self.actor, WholeNetwork):
            for part in self._split(places):
                yield part, [torch.isin(kind.place, part).nonzero()[:, 0] for kind in kinds]
            return
        kind_parts = [self._split(len(kind.choice)) for kind in kinds]
        for part, *rows in zip(self._split(places), *kind_parts, strict=True):
            yield part, rows

    def _learnt(self, seen: Features, share: Tensor) -> Tensor:
        """Return values over the base: (P, N or 1, J), of a team (P, N or 1, 1)."""
        value: Tensor = self.critic(seen) * self.critic.spread + self.critic.mean
        team = self.config.credit == "team"
        return (value * share).sum(dim=2, keepdim=True) if team else value

    def _reward(self, stage: Stage) -> Tensor:
        """Return (E, J), or (E, 1) of a team, which pays no rent: it has the losses of all."""
        if self.config.credit == "block":
            return stage.reward
        return (stage.reward * stage.share).sum(dim=1, keepdim=True) * (not stage.keeping)

    def _log_chance_of_choice(self, seen: Features, kind: Decisions) -> Tensor:
        """Return (R,) the log-probability of what was chosen, by the actor as it is."""
        places = torch.arange(len(seen.own), device=self.device)
        if not isinstance(self.actor, WholeNetwork):
            return chosen(self._log_chances(seen, places, [kind])[0], kind.choice)
        log = torch.empty(len(kind.choice), device=self.device)
        for part in torch.split(places, PLACES_AT_ONCE):
            rows = torch.isin(kind.place, part)
            some = kind.select(rows)
            log[rows] = chosen(self._log_chances(seen, part, [some])[0], some.choice)
        return log

    def _log_chances(
        self, seen: Features, part: Tensor, kinds: Sequence[Decisions]
    ) -> list[Tensor]:
        """Return (R, A) log-probabilities of each kind, whose rows are of some of the places.

        A network that looks at whole draws looks at these places once.
        """
        if isinstance(self.actor, WholeNetwork):
            position = torch.zeros(len(seen.own), dtype=torch.int64, device=self.device)
            position[part] = torch.arange(len(part), device=self.device)
            kinds = [replace(kind, place=position[kind.place]) for kind in kinds]
            seen = seen.select(part)
        look = looked(self.actor, seen)
        return [log_chances(self.actor, look, kind, self.config.temperature) for kind in kinds]

    def _split(self, count: int) -> tuple[Tensor, ...]:
        """Return the parts of a random order, as many as minibatches."""
        order = torch.randperm(count, generator=self.generator).to(self.device)
        return order.tensor_split(self.config.minibatches)

    def _improve_critic(self, error: Tensor) -> dict[str, float]:
        """Make one step of the critic."""
        error = error / self.critic.spread
        loss = huber_loss(error, torch.zeros_like(error))
        _descend(loss, self.critic_adam, self.critic, self.config.gradient_clip)
        return {"critic_loss": float(loss.detach())}

    def _improve_actor(
        self,
        seen: Features,
        part: Tensor,
        kinds: Sequence[Decisions],
        old: Sequence[Tensor],
        rows: Sequence[Tensor],
    ) -> dict[str, float]:
        """Make one step of the actor on some rows of each kind, with their old chances."""
        row, losses = {}, []
        some = [
            (kind.select(index), old_log[index])
            for kind, old_log, index in zip(kinds, old, rows, strict=True)
            if len(index)
        ]
        logs = self._log_chances(seen, part, [kind for kind, _ in some])
        for (kind, old_log), log in zip(some, logs, strict=True):
            loss, clipped = self._actor_loss(kind, log, old_log)
            losses.append(loss)
            row["clipped keep" if kind.keeping else "clipped pull"] = clipped
        if losses:
            actor_loss = torch.stack(losses).sum()
            _descend(actor_loss, self.actor_adam, self.actor, self.config.gradient_clip)
            row["actor_loss"] = float(actor_loss.detach())
        return row

    def _actor_loss(self, kind: Decisions, log: Tensor, old_log: Tensor) -> tuple[Tensor, float]:
        """Return the clipped loss less entropy, and the share of clipped ratios."""
        clip = self.config.ratio_clip
        ratio = (chosen(log, kind.choice) - old_log).exp()
        advantage, weight = kind.advantage, kind.weight
        gain = torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)
        entropy = -(log.exp() * log.clamp(min=-100.0)).sum(dim=1)
        loss = -(weight * (gain + self.config.entropy * entropy)).sum() / weight.sum()
        return loss, float(((ratio.detach() - 1.0).abs() > clip).float().mean())

    def policy(self, values: Lookahead | None = None) -> TrainedPolicy:
        """Return the actors, without exploration."""
        return players_of(self.config, self.actor, values)

    def parts(self) -> Mapping[str, Part]:
        """Return networks, optimisers, generator."""
        return {
            "policy": self.actor,
            "critic": self.critic,
            "actor adam": self.actor_adam,
            "critic adam": self.critic_adam,
            "generator": self.generator,
        }

    def extra(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Return the steps made: a step begins and ends between episodes."""
        return {}, {"steps": self.steps}

    def load_extra(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Take back what `extra` returned."""
        self.steps = int(counters["steps"])


def _descend(loss: Tensor, adam: torch.optim.Adam, network: nn.Module, clip: float) -> None:
    """Make one step of Adam with a gradient of clipped norm."""
    adam.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), clip)
    adam.step()
