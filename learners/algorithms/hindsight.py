"""Hindsight value regression: what copies are worth, learned from what they would have been worth.

It is imitation with *privileged labels*. On every training episode a Lagrangian dynamic programme
that knows all slots (`finecast.learners.algorithms.hindsight_labels`) says what every set of copies
would have been worth. The network learns by how much the marginal values of the known tables are
wrong, on the states that its own policy comes to (DAgger: Ross, Gordon and Bagnell, AISTATS 2011,
arXiv 1011.0686):

    r_nj = [V(Q - n) - V(Q + n)] - [v(Q - n) - v(Q + n)]

Q are the nodes that have the block in the end, V is the value in hindsight, and v that of the
tables. With `lookahead` the tables are those of `mpc`: `after` while pulling, `cost` while keeping.
Without, v is nothing while pulling, and the expected delay of the next slot while keeping. The loss
is the squared error, weighted by size.

The policy pulls by the best chain level, charged v(Q_l) less r_nj of every receiver. It keeps by
the marginal per byte v(kept - n) - v(kept + n) + r_nj, the nodes in turn for some rounds. The
tables say how copies stand in for one another, the network what they are worth.

With `keep = "joint"` the joint rule chooses what is kept, by the costs v(K) - sum over n in K of
r_nj of all node sets, in training too. It chooses twice: first as the network says when all is
delivered, then as it says once it sees that choice. The labels are the joint backups along the
slots that were played (`finecast.learners.algorithms.hindsight_labels.joint_hindsight_of`).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from finecast.learners.algorithms.hindsight_labels import hindsight_of, joint_hindsight_of
from finecast.learners.algorithms.set_values import unit_of
from finecast.learners.networks.action_semantics import ActionSemanticsNetwork
from finecast.learners.networks.features import Features, joined_features
from finecast.learners.networks.observer import Observer
from finecast.learners.options import MOST_ROUNDS, MOST_STEPS, MOST_WIDTH, at_least
from finecast.learners.weights import Part, follow, load_module, part_of, seeded
from finecast.learners.world.baselines import KEEP_ANYWAY, of_blocks
from finecast.learners.world.environment import (
    Delivery,
    JointRule,
    View,
    fastest_sources,
    lookup,
    packed,
    roll,
    rows,
)
from finecast.learners.world.episodes import Slot
from finecast.learners.world.joint import plan_by_sets
from finecast.learners.world.lookahead import Lookahead
from finecast.learners.world.pool import EpisodeSource, Pool
from finecast.solvers.heuristics.rules import KeepRule, check_keep_rule

LABEL_DRAWS = 64
"""Draws whose values in hindsight are computed at once."""


@dataclass(frozen=True)
class Config:
    """Options.

    Attributes
    ----------
    lookahead
        Learn the residual on the tables of `mpc`; else on the expected delay of the next slot.
    width, embedding
        Of the network.
    rounds
        How often every node decides what to keep.
    draws
        Episodes that are played in every step.
    batch, passes
        Rows of a gradient update, and updates in a step as a multiple of what is needed to see
        every row once.
    actor_rate, final_actor_rate
        Step sizes of Adam at the beginning and at the end; they fall along a cosine over
        `decay_steps`.
    decay_steps
        Steps.
    average_rate
        Share of the network that goes into its running average after every update; the average is
        the policy.
    label_steps
        Subgradient steps for the prices in hindsight; none with joint keep.
    keep
        "joint": what is kept in training is chosen for all blocks and nodes at once, and the labels
        are backups of such choices. "in-turn": by every node, and labels at prices that fit the
        paths of the programme.
    """

    lookahead: bool = True
    width: int = 64
    embedding: int = 32
    rounds: int = 3
    draws: int = 16
    batch: int = 4096
    passes: float = 1.0
    actor_rate: float = 1e-3
    final_actor_rate: float = 1e-4
    decay_steps: int = 500
    average_rate: float = 0.01
    label_steps: int = 60
    keep: KeepRule = "joint"

    def __post_init__(self) -> None:
        check_keep_rule(self.keep)
        at_least(self, 1, "width", "embedding", most=MOST_WIDTH)
        at_least(self, 1, "rounds", most=MOST_ROUNDS)
        at_least(self, 1, "draws", "batch")
        at_least(self, 1, "decay_steps", most=MOST_STEPS)
        at_least(self, 2, "label_steps")
        at_least(self, 0, "actor_rate", "final_actor_rate", "passes")
        if not 0 < self.average_rate <= 1:
            raise ValueError(
                f"average_rate: {self.average_rate} is not allowed, must be above 0 and at most 1"
            )


def trained(
    config: Config, tensors: Mapping[str, Tensor], values: Lookahead | None = None
) -> HindsightPolicy:
    """Return the policy of a checkpoint.

    Parameters
    ----------
    config
        Options that it was trained with.
    tensors
        Those of the checkpoint whose names begin with "policy".
    values
        Lookahead of the episodes to be played; None: computed where needed.

    Raises
    ------
    ValueError
        The tensors are of another architecture.
    """
    network = _network(config)
    load_module(network, part_of(tensors, "policy"), "policy")
    return HindsightPolicy(network, config, values)


def _network(config: Config) -> ActionSemanticsNetwork:
    return ActionSemanticsNetwork(config.width, config.embedding, zero_last=True)


class HindsightPolicy:
    """Pulls and keeps by the marginal values of the tables, corrected by the network.

    Parameters
    ----------
    network
        Scores "nothing" and "keep" are the residuals while pulling (negated) and keeping, in units.
    config
        Options.
    values
        Lookahead of all slots; None: computed in every slot.
    shown
        Where to note what the network is shown, for training; None not to.
    """

    in_turn = True

    _residual: Tensor
    """(E, N, J) what the network says in the stage, seconds per byte."""

    _cost: Tensor
    """(E, C, S) what keeping costs by the tables, seconds per byte."""

    _turns_in_stage: int

    def __init__(
        self,
        network: ActionSemanticsNetwork,
        config: Config,
        values: Lookahead | None = None,
        shown: list[_Shown] | None = None,
    ) -> None:
        self.network = network
        self.rounds = config.rounds
        self.joint: JointRule = "batched" if config.keep == "joint" else ""
        self.observer = Observer(config.lookahead, values)
        self.shown = shown

    def begin(self, view: View) -> None:
        """Ask the network once for all nodes: while keeping, it sees who has a block."""
        self._turns_in_stage = 0
        all_at_once = replace(view, in_turn=False)
        if not view.keeping:
            self.observer.begin(all_at_once)
        self._residual = self._ask(all_at_once)
        values = self.observer.values
        self._cost = (view.slot.worth[:, 0] if values is None else values.cost).double()

    def pull(self, view: View, n: int | None) -> Tensor:
        """Return the sources (E, N, J) of the best chain levels, copies charged and credited."""
        slot, cached, values = view.slot, view.cached, self.observer.values
        sender = rows(slot.chain_sender, cached)  # (E, J, L)
        receivers = slot.member[sender & ~cached[..., None]].double()  # (E, J, L, N)
        credit = (receivers @ self._residual.transpose(1, 2)[..., None])[..., 0]
        seconds = rows(slot.chain_time, cached) + lookup(
            slot.broadcast, slot.group[..., None], sender
        )
        after = 0.0 if values is None else lookup(values.after, slot.kind[..., None], sender)
        level = (seconds + after - credit).argmin(dim=2, keepdim=True)
        best_sender = torch.where(slot.needed, sender.gather(2, level)[..., 0], cached)
        return fastest_sources(slot, cached, best_sender)

    def keep(self, view: View, n: int | None) -> Tensor:
        """Return what a copy saves given what the others keep, seconds per byte."""
        if n is None:
            return torch.stack([self.keep(view, m) for m in range(view.slot.nodes)], dim=1)
        # Before the last round the network looks again: at who so far keeps a block. Before the
        # joint rule it does so in `set_costs`.
        if not self.joint and 0 < self._turns_in_stage == (self.rounds - 1) * view.slot.nodes:
            self._residual = self._ask(view)
        self._turns_in_stage += 1
        score = marginal(self._cost, view.slot, view.others(n), n) + self._residual[:, n]
        return score.clamp(min=KEEP_ANYWAY)

    def set_costs(self, view: View) -> Tensor:
        """Return v(K) less the residuals of the nodes in K, (E, J, S), seconds per byte."""
        cost = self._set_costs(view.slot, self._residual)
        if not self.joint:
            return cost
        # The network looks again, at who is to keep a block by what it said first.
        kept = plan_by_sets(view.slot, view.held, cost)
        return self._set_costs(view.slot, self._ask(replace(view, kept=kept, in_turn=True)))

    def _set_costs(self, slot: Slot, residual: Tensor) -> Tensor:
        """Return (E, J, S) by residuals (E, N, J)."""
        saved = residual.transpose(1, 2) @ slot.member.T.double()
        return of_blocks(slot, self._cost) - saved

    def _ask(self, view: View) -> Tensor:
        """Return the residuals (E, N, J) by what all nodes see in a view, seconds per byte."""
        features = self.observer(view)
        with torch.no_grad():
            scores = self.network(features)
        if self.shown is not None:
            self.shown.append(_Shown(features, view.slot, view.keeping))
        residual: Tensor = scores.keep if view.keeping else -scores.nothing
        return residual.double() * unit_of(view.slot)[:, None, None]


def marginal(table: Tensor, slot: Slot, others: Tensor, n: int) -> Tensor:
    """Return (E, J) what a copy at node n saves given the others (E, J), by a table (E, C, S)."""
    without = others & ~(1 << n)
    return lookup(table, slot.kind, without) - lookup(table, slot.kind, without | 1 << n)


@dataclass(frozen=True, eq=False)
class _Shown:
    """What the network was shown in a stage."""

    features: Features
    slot: Slot
    keeping: bool


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows (R, ...) to learn from: a node and a block each, features as of a single block."""

    features: Features
    keeping: Tensor
    target: Tensor
    weight: Tensor

    def select(self, index: Tensor) -> _Rows:
        features = self.features.select(index)
        return _Rows(features, self.keeping[index], self.target[index], self.weight[index])


class Learner:
    """Plays its own policy on training episodes, and learns the residuals there.

    Parameters
    ----------
    config
        Options.
    source
        Of training episodes.
    seed
        Of network and draws.
    device
        Where it computes.
    """

    def __init__(
        self, config: Config, source: EpisodeSource, *, seed: int, device: torch.device
    ) -> None:
        self.config, self.source = config, source
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded(seed, "network").initial_seed())
            self.network = _network(config).to(device)
        self.average = copy.deepcopy(self.network)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=config.actor_rate)
        self.generator = seeded(seed, "draws of hindsight")
        self.steps = 0
        self._pool: Pool | None = None
        self._labels: Lookahead | None = None

    def step(self) -> Mapping[str, float]:
        """Play some episodes; see every row of them `passes` times."""
        config = self.config
        # Play, and collect rows: what the network was shown, and what it should have said.
        pool = self.source.at(self.steps)
        order = torch.randperm(pool.episodes.draws, generator=self.generator)
        draw = order[: config.draws].to(pool.episodes.size.device)
        data, delay = self._play(pool, draw)
        # The step size of this step, on a cosine.
        progress = min(1.0, self.steps / config.decay_steps)
        rate = config.final_actor_rate + (config.actor_rate - config.final_actor_rate) * 0.5 * (
            1.0 + math.cos(math.pi * progress)
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        # Updates on batches in a random order, from its beginning again where it ends.
        count = len(data.target)
        updates = max(1, round(config.passes * count / config.batch))
        loss_sum = start_sum = 0.0
        order = torch.randperm(count, generator=self.generator)
        for update in range(updates):
            index = order[torch.arange(update * config.batch, (update + 1) * config.batch) % count]
            batch = data.select(index.to(data.target.device))
            loss_sum += self._improve(batch)
            start_sum += float((batch.weight * batch.target**2).sum() / batch.weight.sum())
        self.steps += 1
        return {
            "loss": loss_sum / updates,
            "loss_of_tables": start_sum / updates,
            "delay": delay,
            "rows": float(count),
            "learning_rate": rate,
        }

    def _labels_of(self, pool: Pool) -> Lookahead:
        """Return the values in hindsight of a pool, computed once."""
        if self._labels is None or self._pool is not pool:
            parts = [
                hindsight_of(pool.episodes.select(index), steps=self.config.label_steps).values
                for index in torch.split(torch.arange(pool.episodes.draws), LABEL_DRAWS)
            ]
            self._labels = Lookahead(
                after=torch.cat([part.after for part in parts]),
                cost=torch.cat([part.cost for part in parts]),
                price=torch.cat([part.price for part in parts]),
            )
            self._pool = pool
        return self._labels

    def _play(self, pool: Pool, draw: Tensor) -> tuple[_Rows, float]:
        """Play some draws; return what there is to learn from them, and the mean delay."""
        # By slot, whether keeping or pulling: the nodes that have each block in the end.
        final_sets: list[dict[bool, Tensor]] = []

        def watch(t: int, cache: Tensor, delivery: Delivery, keep: Tensor) -> None:
            final_sets.append({False: delivery.sender, True: packed(keep)})

        shown: list[_Shown] = []
        episodes = pool.episodes.select(draw)
        values = pool.values.select(draw) if self.config.lookahead else None
        policy = HindsightPolicy(self.average, self.config, values, shown)
        rounds, joint = self.config.rounds, policy.joint
        played = roll(episodes, policy, rounds=rounds, joint=joint, watch=watch)
        # The labels of all blocks in every slot, (E, T, J, S).
        if policy.joint:
            held = torch.stack([sets[False] for sets in final_sets], dim=1)
            after, cost = joint_hindsight_of(episodes, held)
        else:
            labels = self._labels_of(pool).select(draw)
            after, cost = (
                torch.stack(
                    [of_blocks(episodes.slot(t), table[:, t]) for t in range(episodes.slots)], 1
                )
                for table in (labels.after, labels.cost)
            )
        parts = []
        for stage in shown:
            t = stage.slot.t
            base = self._base(stage, None if values is None else values.slot(t))
            label = (cost if stage.keeping else after)[:, t]
            parts.append(_rows_of(stage, final_sets[t][stage.keeping], label, base))
        data = _Rows(
            features=joined_features([part.features for part in parts]),
            keeping=torch.cat([part.keeping for part in parts]),
            target=torch.cat([part.target for part in parts]),
            weight=torch.cat([part.weight for part in parts]),
        )
        return data, float(played.total.mean())

    def _base(self, stage: _Shown, values: Lookahead | None) -> Tensor | None:
        """Return the table (E, C, S) whose marginals are corrected; None for 0."""
        if values is not None:
            return values.cost if stage.keeping else values.after
        return stage.slot.worth[:, 0] if stage.keeping else None

    def _improve(self, batch: _Rows) -> float:
        """Make one update on a batch; the average follows. Return the loss."""
        scores = self.network(batch.features)
        residual = torch.where(batch.keeping, scores.keep[:, 0], -scores.nothing[:, 0])
        error = residual - batch.target
        loss = (batch.weight * error**2).sum() / batch.weight.sum()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        follow(self.average, self.network, self.config.average_rate)
        return float(loss.detach())

    def policy(self, values: Lookahead | None = None) -> HindsightPolicy:
        """Return the policy as it stands."""
        return HindsightPolicy(self.average, self.config, values)

    def parts(self) -> Mapping[str, Part]:
        """Return the networks, the optimiser and the generator of draws."""
        return {
            "policy": self.average,
            "network": self.network,
            "optimiser": self.optimiser,
            "generator": self.generator,
        }

    def extra(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Return the steps made."""
        return {}, {"steps": self.steps}

    def load_extra(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Take back the steps made."""
        self.steps = int(counters["steps"])


def _rows_of(stage: _Shown, sets: Tensor, table: Tensor, base: Tensor | None) -> _Rows:
    """Return the rows of a stage: blocks that are needed, or that the node can keep."""
    slot, seen = stage.slot, stage.features
    # Targets: by how much the marginals of the base (E, C, S) are off from those of the labels
    # (E, J, S), given the nodes (E, J) in the end.
    if base is not None:
        table = table - of_blocks(slot, base)
    without = [sets & ~(1 << n) for n in range(slot.nodes)]
    pairs = [torch.stack([others, others | 1 << n], dim=2) for n, others in enumerate(without)]
    saved = [table.gather(2, pair) for pair in pairs]
    target = torch.stack([pair[..., 0] - pair[..., 1] for pair in saved], dim=1)
    target = target / unit_of(slot)[:, None, None]
    weight = slot.size / slot.size.sum(dim=1, keepdim=True) * slot.real.sum(dim=1, keepdim=True)
    # The (draw, node, block) rows, with features as of a single block.
    use = seen.may_keep if stage.keeping else (slot.needed & slot.real)[:, None].expand_as(target)
    draw, node, block = use.nonzero(as_tuple=True)
    index = (draw, node, block)
    features = Features(
        own=seen.own[index][:, None],
        neighbour=seen.neighbour[index][:, None],
        cloud=seen.cloud[index][:, None],
        state=seen.state[draw],
        real=seen.real[draw, block][:, None],
        may_pull=seen.may_pull[index][:, None],
        may_keep=seen.may_keep[index][:, None],
    )
    keeping = torch.full_like(draw, stage.keeping, dtype=torch.bool)
    return _Rows(features, keeping, target[index].float(), weight[draw, block].float())
