"""MAPPO and IPPO: proximal policy optimisation with a centralised or a decentralised critic.

After Yu et al. (The surprising effectiveness of PPO in cooperative multi-agent games, NeurIPS 2022,
arXiv 2103.01955) and de Witt et al. (arXiv 2011.09533). One step plays whole episodes of a batch,
then makes some epochs of updates on them. The nodes share one network; per block a node

    pulls   from a categorical distribution: nothing, another node that has the block, the cloud;
    keeps   what fits its storage in falling order of logit + logistic noise. Given the noise of the
            other blocks it keeps one with probability sigmoid(logit - margin), margin the noisy
            logit that it has to beat: a Bernoulli choice through the projection.

A slot has two stages with rewards of their own, per byte of block j, in units:

    pull   - delay_j / size_j            keep   - rent, the storage prices of the nodes that keep j

Without the rent every copy would seem worth keeping: what it displaces is another block's loss.
With credit by block, every block has its own rewards, values and advantages. With credit by team,
all share the sum over blocks, without rent, since the sum has the losses of all.

Values are learned as a residual on those of the dynamic programme on expected tables
(`finecast.learners.world.lookahead`). Actors start at its scores, or at the expected saving of the
next slot (`finecast.learners.algorithms.actors`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from finecast.learners.algorithms.actors import (
    ActorOptions,
    Turn,
    actor_network,
    actors_of,
    keep_logits,
    pull_logits,
    trained_actors,
)
from finecast.learners.algorithms.set_values import rents, unit_of
from finecast.learners.learner import TrainedPolicy
from finecast.learners.networks.action_semantics import over_blocks, perceptron
from finecast.learners.networks.features import (
    CLOUD,
    NEIGHBOUR,
    OWN,
    STATE,
    Features,
    joined_features,
)
from finecast.learners.options import MOST_STEPS, at_least
from finecast.learners.weights import Part, initialised, seeded
from finecast.learners.world.environment import (
    View,
    deliver,
    keep_turns,
    lookup,
    packed,
    pull_turns,
)
from finecast.learners.world.environment import rows as rows_of_sets
from finecast.learners.world.episodes import Episodes, Slot
from finecast.learners.world.lookahead import Lookahead
from finecast.learners.world.pool import EpisodeSource

VALUES_AT_ONCE = 64
"""Stages of a draw whose values are computed at once; it bounds the memory."""


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

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "batch", "epochs", "minibatches")
        at_least(self, 0, "actor_rate", "critic_rate", "entropy", "discount", "gae_lambda")
        at_least(self, 1e-6, "ratio_clip", "gradient_clip", most=MOST_STEPS)


trained = trained_actors


class Critic(nn.Module):
    """Values of all blocks over the base, normalised, from what all nodes see.

    Parameters
    ----------
    centralised
        One value from what all nodes see; else one for every node from what it sees.
    width
        Of the hidden layers.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, centralised: bool, width: int) -> None:
        super().__init__()
        self.centralised = centralised
        self.state = nn.Linear(len(STATE), width)
        self.node = nn.Linear(len(OWN) + len(NEIGHBOUR) + len(CLOUD), width)
        self.rest = perceptron((width, width, 1), zero_last=True)
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("spread", torch.ones(()))

    def forward(self, seen: Features) -> Tensor:
        """Return (P, N, J), or (P, 1, J) if centralised, from features of all nodes."""
        near = seen.neighbour.sum(dim=-2) / max(seen.neighbour.shape[-2], 1)
        own = self.node(torch.cat([seen.own, near, seen.cloud], dim=-1))
        hidden = torch.relu(own + over_blocks(self.state(seen.state), own))
        if self.centralised:
            hidden = hidden.mean(dim=1, keepdim=True)
        value: Tensor = self.rest(hidden)[..., 0]
        return value

    def follow(self, values: Tensor, weight: float = 0.1) -> None:
        """Let the scale follow that of values, which `forward` is to return normalised."""
        self.mean.lerp_(values.mean(), weight)
        self.spread.lerp_(values.std().clamp(min=1e-3), weight)


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage of a slot that was played: E draws.

    Attributes
    ----------
    keeping
        The nodes chose what to keep, else what to pull.
    seen
        What all nodes saw at its beginning.
    base
        (E, J) value of the dynamic programme on expected tables, in units per byte.
    reward
        (E, J) in units per byte.
    share
        (E, J) of the block in the bytes of the library.
    turns
        What the nodes decided.
    kept
        (E, N, J) bool: the caches before a stage of pulling, after one of keeping.
    """

    keeping: bool
    seen: Features
    base: Tensor
    reward: Tensor
    share: Tensor
    turns: list[Turn]
    kept: Tensor


@dataclass(frozen=True, eq=False)
class Decisions:
    """Choices of one kind, all rows (R, ...) of all turns.

    Attributes
    ----------
    keeping
        Of keeping, else of pulling.
    seen
        What the node saw.
    company
        (R, N - 1) the other nodes that had decided to keep or to receive the block.
    start
        (R, A) logits without the network: of not keeping, 0, and of keeping, less the margin; or of
        the other nodes, the cloud and nothing.
    choice
        (R,) int64 of A.
    advantage
        (R,) of mean 0 and standard deviation 1.
    weight
        (R,) size over the mean size of the draw's blocks.
    """

    keeping: bool
    seen: Features
    company: Tensor
    start: Tensor
    choice: Tensor
    advantage: Tensor
    weight: Tensor

    def select(self, index: Tensor) -> Decisions:
        """Return some of the rows, by number or by a bool for each."""
        columns = {name: getattr(self, name)[index] for name in _COLUMNS}
        return Decisions(self.keeping, self.seen.select(index), **columns)


_COLUMNS = ("company", "start", "choice", "advantage", "weight")


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
            return actor_network(config, nodes), Critic(config.centralised, config.width)

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
            stages, delay = self._play(pool.episodes.select(draw), pool.values.select(draw))
        row = {"delay": delay, **self._improve(stages)}
        self.steps += 1
        return row

    def _play(self, episodes: Episodes, values: Lookahead) -> tuple[list[Stage], float]:
        """Play all slots with exploration; return the stages and the mean total delay, s."""
        actors = actors_of(self.config, self.actor, values, self.generator)
        cache, stages, total = episodes.start, [], 0.0
        for t in range(episodes.slots):
            slot, look, cached = episodes.slot(t), values.slot(t), packed(cache)
            share = (slot.size / slot.size.sum(dim=1, keepdim=True)).float()
            unit = unit_of(slot)[:, None]
            # Pull: the reward is minus the delay of each block.
            view = View(slot, cached, cached, cached * 0, in_turn=actors.in_turn)
            actors.turns = []
            delivery = deliver(slot, cached, pull_turns(view, actors))
            spent = delivery.delay / (slot.size.clamp(min=1.0) * unit)
            base = -expected_cost(slot, look, cached)
            seen = actors.look.seen
            stages.append(Stage(False, seen, base, -spent.float(), share, actors.turns, cache))
            total += float(delivery.delay.sum(dim=1).mean())
            if t == episodes.slots - 1:
                break
            # Keep: the reward is minus the rent of the storage.
            view = replace(view, held=delivery.sender, keeping=True)
            actors.turns = []
            cache = keep_turns(view, actors, actors.rounds)
            rent = rents(slot, look).gather(1, packed(cache))
            base = (-lookup(look.after, slot.kind, delivery.sender) / unit).float()
            seen = actors.look.seen
            stages.append(Stage(True, seen, base, -rent, share, actors.turns, cache))
        return stages, total

    def _improve(self, stages: Sequence[Stage]) -> dict[str, float]:
        """Make the epochs of updates; return the means of what is logged."""
        config = self.config
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
                for part in torch.split(indices, VALUES_AT_ONCE)
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
                if (kind := self._decisions(stages, advantage, keeping)) is not None
            ]
            old = [self._log_chance_of_choice(kind) for kind in kinds]
        logged: list[dict[str, float]] = []
        for _ in range(config.epochs):
            # Every epoch sees all rows once, in an order of its own.
            kind_parts = [self._split(len(kind.choice)) for kind in kinds]
            for minibatch, part in enumerate(self._split(len(indices))):
                error = self._learnt(seen.select(part), share[part]) - target[part]
                row = self._improve_critic(error)
                rows = [parts[minibatch] for parts in kind_parts]
                row |= self._improve_actor(kinds, old, rows)
                logged.append(row)
        return {name: sum(row.get(name, 0.0) for row in logged) / len(logged) for name in logged[0]}

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

    def _decisions(
        self, stages: Sequence[Stage], advantage: Tensor, keeping: bool
    ) -> Decisions | None:
        return decisions(self.actor, stages, advantage, keeping, self.config.temperature)

    def _log_chance_of_choice(self, kind: Decisions) -> Tensor:
        """Return (R,) the log-probability of what was chosen, by the actor as it is."""
        return chosen(log_chances(self.actor, kind, self.config.temperature), kind.choice)

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
        self, kinds: Sequence[Decisions], old: Sequence[Tensor], rows: Sequence[Tensor]
    ) -> dict[str, float]:
        """Make one step of the actor on some rows of each kind, with their old chances."""
        row, losses = {}, []
        for kind, old_log, index in zip(kinds, old, rows, strict=True):
            if len(index):
                loss, clipped = self._actor_loss(kind.select(index), old_log[index])
                losses.append(loss)
                row["clipped keep" if kind.keeping else "clipped pull"] = clipped
        if losses:
            actor_loss = torch.stack(losses).sum()
            _descend(actor_loss, self.actor_adam, self.actor, self.config.gradient_clip)
            row["actor_loss"] = float(actor_loss.detach())
        return row

    def _actor_loss(self, kind: Decisions, old_log: Tensor) -> tuple[Tensor, float]:
        """Return the clipped loss less entropy, and the share of clipped ratios."""
        clip = self.config.ratio_clip
        log = log_chances(self.actor, kind, self.config.temperature)
        ratio = (chosen(log, kind.choice) - old_log).exp()
        advantage, weight = kind.advantage, kind.weight
        gain = torch.minimum(ratio * advantage, ratio.clamp(1.0 - clip, 1.0 + clip) * advantage)
        entropy = -(log.exp() * log.clamp(min=-100.0)).sum(dim=1)
        loss = -(weight * (gain + self.config.entropy * entropy)).sum() / weight.sum()
        return loss, float(((ratio.detach() - 1.0).abs() > clip).float().mean())

    def policy(self, values: Lookahead | None = None) -> TrainedPolicy:
        """Return the actors, without exploration."""
        return actors_of(self.config, self.actor, values)

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


def expected_cost(slot: Slot, look: Lookahead, cached: Tensor) -> Tensor:
    """Return (E, J) cost of this slot and the coming ones by the tables, in units per byte.

    min over l of [tau_l(X) + broadcast(Q_l(X)) + A(Q_l(X))] if the block is needed, else A(X)

    Parameters
    ----------
    slot, look
        The slot, and its lookahead.
    cached
        (E, J) X.
    """
    sender, kind = rows_of_sets(slot.chain_sender, cached), slot.kind[..., None]
    air = lookup(slot.broadcast, slot.group[..., None], sender)
    needed = rows_of_sets(slot.chain_time, cached) + air + lookup(look.after, kind, sender)
    cost = torch.where(slot.needed, needed.amin(dim=2), lookup(look.after, slot.kind, cached))
    return (cost / unit_of(slot)[:, None]).float()


def advantages(reward: Tensor, value: Tensor, discount: float, gae_lambda: float) -> Tensor:
    """Return generalised advantage estimates of all stages, of the shape of `value`.

    A_s = delta_s + gamma_s lambda A_{s+1},   delta_s = r_s + gamma_s V_{s+1} - V_s

    gamma_s is the discount after a stage of keeping, which ends a slot, and 1 after one of pulling
    (Schulman et al., ICLR 2016, arXiv 1506.02438).

    Parameters
    ----------
    reward, value
        (S, ...) of stages that take turns: pull, keep, ..., pull; shapes that broadcast.
    discount, gae_lambda
        gamma and lambda.
    """
    estimates = torch.zeros_like(value)
    advantage, next_value = torch.zeros_like(value[0]), torch.zeros_like(value[0])
    for s in reversed(range(len(value))):
        gamma = discount if s % 2 else 1.0
        advantage = reward[s] + gamma * next_value - value[s] + gamma * gae_lambda * advantage
        next_value = value[s]
        estimates[s] = advantage
    return estimates


def decisions(
    actor: nn.Module,
    stages: Sequence[Stage],
    advantage: Tensor,
    keeping: bool,
    temperature: float,
) -> Decisions | None:
    """Return all choices of one kind; None if there are none.

    Parameters
    ----------
    actor
        The network that played.
    stages
        What was played.
    advantage
        (S, E, N or 1, J or 1).
    keeping
        Which kind.
    temperature
        Units of saving that a logit stands for.
    """
    parts = []
    for stage, stage_advantage in zip(stages, advantage, strict=True):
        if stage.keeping != keeping:
            continue
        nodes, blocks = stage.seen.own.shape[1:3]
        of_nodes = stage_advantage.expand(-1, nodes, blocks)
        weight = stage.share * stage.seen.real.sum(dim=1, keepdim=True)
        for turn in stage.turns:
            rows, scores = turn.rows, actor(turn.seen)
            if keeping:
                # A Bernoulli choice: the noisy logit against the margin of the projection.
                kept = stage.kept[rows.draw, turn.node, rows.block]
                logits = turn.start + keep_logits(scores, turn.company, temperature) + turn.noise
                margin = margins(logits, kept, rows.draw)
                over = turn.start - margin
                start, choice = torch.stack([torch.zeros_like(over), over], 1), kept.long()
            else:
                # A categorical choice: the largest of the noisy logits.
                start = turn.start
                learnt = pull_logits(scores, turn.company, temperature)
                choice = (start + learnt + turn.noise).argmax(dim=1)
            of_turn = Decisions(
                keeping,
                turn.seen,
                turn.company,
                start,
                choice,
                advantage=of_nodes[rows.draw, turn.node, rows.block],
                weight=rows.pick(weight),
            )
            # Where all blocks fit the storage there is no choice.
            parts.append(of_turn.select(margin.isfinite()) if keeping else of_turn)
    if not sum(len(part.choice) for part in parts):
        return None
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in _COLUMNS}
    joined = Decisions(keeping, joined_features([part.seen for part in parts]), **columns)
    # Advantages of mean 0 and standard deviation 1, over bytes.
    gain, weight = joined.advantage, joined.weight
    mean = (weight * gain).sum() / weight.sum()
    spread = ((weight * (gain - mean) ** 2).sum() / weight.sum()).sqrt()
    return replace(joined, advantage=(gain - mean) / (spread + 1e-6))


def margins(logits: Tensor, kept: Tensor, draw: Tensor) -> Tensor:
    """Return (R,) the noisy logit that decides for each block, given the noise of the others.

    For a dropped block it is the lowest that was kept. For a kept one it is the highest that was
    dropped below all that were kept. It is infinite where all fit.

    Parameters
    ----------
    logits
        (R,) with noise.
    kept
        (R,) bool.
    draw
        (R,) int64 whose storage it is.
    """
    if not len(draw):
        return logits
    infinite = torch.full((int(draw.max()) + 1,), torch.inf, device=draw.device)

    def of_draws(values: Tensor, reduction: str) -> Tensor:
        start = infinite if reduction == "amin" else -infinite
        return start.scatter_reduce(0, draw, values, reduction)[draw]

    lowest_kept = of_draws(torch.where(kept, logits, torch.inf), "amin")
    below = ~kept & (logits < lowest_kept)
    highest_below = of_draws(torch.where(below, logits, -torch.inf), "amax")
    dropped = torch.zeros_like(infinite).index_add(0, draw, (~kept).float())[draw]
    margin = torch.where(kept & (highest_below > -torch.inf), highest_below, lowest_kept)
    return torch.where(dropped > 0, margin, torch.inf)


def log_chances(actor: nn.Module, kind: Decisions, temperature: float) -> Tensor:
    """Return (R, A) log-probabilities of the choices."""
    scores = actor(kind.seen)
    if kind.keeping:
        keep = keep_logits(scores, kind.company, temperature)
        learnt = torch.stack([torch.zeros_like(keep), keep], dim=1)
    else:
        learnt = pull_logits(scores, kind.company, temperature)
    return torch.log_softmax(kind.start + learnt, dim=1)


def chosen(log: Tensor, choice: Tensor) -> Tensor:
    """Return (R,) the entries of log (R, A) at choice (R,)."""
    return log.gather(1, choice[:, None])[:, 0]


def _descend(loss: Tensor, adam: torch.optim.Adam, network: nn.Module, clip: float) -> None:
    """Make one step of Adam with a gradient of clipped norm."""
    adam.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(network.parameters(), clip)
    adam.step()
