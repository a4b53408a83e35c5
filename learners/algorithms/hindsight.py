"""Hindsight value regression: what copies are worth, learned from what they would have been worth.

Imitation with *privileged labels*: on every training episode a Lagrangian dynamic programme that
knows all slots (`finecast.learners.algorithms.hindsight_labels`) says what every set of copies
would have been worth. The network learns, on the states that its own policy comes to (DAgger: Ross,
Gordon and Bagnell, AISTATS 2011, arXiv 1011.0686), by how much the marginal values of the known
tables are wrong:

    r_nj = [V(Q - n) - V(Q + n)] - [v(Q - n) - v(Q + n)]

where Q are the nodes that have the block in the end, V is the value in hindsight and v that of the
tables: those of `mpc` (`after` while pulling, `cost` while keeping); or without them nothing while
pulling, and the expected delay of the next slot while keeping. The loss is the squared error,
weighted by size. The policy pulls by the best chain level, charged v(Q_l) less r_nj of every
receiver, and keeps by the marginal per byte v(kept - n) - v(kept + n) + r_nj, the nodes in turn for
some rounds: the tables say how copies stand in for one another, the network what they are worth.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from finecast.learners.algorithms.hindsight_labels import hindsight_of
from finecast.learners.algorithms.set_values import unit_of
from finecast.learners.networks.action_semantics import ActionSemanticsNetwork
from finecast.learners.networks.features import Features, joined_features
from finecast.learners.networks.observer import Observer
from finecast.learners.options import at_least
from finecast.learners.weights import Part, follow, load_module, seeded
from finecast.learners.world.baselines import KEEP_ANYWAY
from finecast.learners.world.environment import (
    Delivery,
    View,
    fastest_sources,
    lookup,
    packed,
    roll,
    rows,
)
from finecast.learners.world.episodes import Slot
from finecast.learners.world.lookahead import Lookahead
from finecast.learners.world.pool import EpisodeSource, Pool

LABEL_DRAWS = 64
"""Draws whose values in hindsight are computed at once."""


@dataclass(frozen=True)
class Config:
    """Options.

    Attributes
    ----------
    mpc
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
    learning_rate, final_learning_rate
        Of Adam; they fall along a cosine over `decay_steps`.
    decay_steps
        Steps.
    averaging
        What the mean of the weights keeps of itself in every update: it is the policy.
    label_steps
        Subgradient steps for the prices in hindsight.
    """

    mpc: bool = True
    width: int = 64
    embedding: int = 32
    rounds: int = 3
    draws: int = 16
    batch: int = 4096
    passes: float = 1.0
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-4
    decay_steps: int = 500
    averaging: float = 0.99
    label_steps: int = 60

    def __post_init__(self) -> None:
        at_least(self, 1, "width", "embedding", "rounds", "draws", "batch", "decay_steps")
        at_least(self, 2, "label_steps")
        at_least(self, 0, "learning_rate", "final_learning_rate", "passes", "averaging")
        if self.averaging >= 1:
            raise ValueError(f"averaging: {self.averaging} is not allowed, must be below 1")


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
    seen
        Where to note what the network is shown, for training; None not to.
    """

    in_turn = True

    def __init__(
        self,
        network: ActionSemanticsNetwork,
        config: Config,
        values: Lookahead | None = None,
        seen: list[_Seen] | None = None,
    ) -> None:
        self.network = network
        self.rounds = config.rounds
        self.observer = Observer(config.mpc, values)
        self.seen = seen
        self._held: Tensor | None = None
        self._turns = 0
        self._cost = self._residual = torch.empty(0)

    def pull(self, view: View, n: int | None) -> Tensor:
        """Return the sources (E, N, J) of the best chain levels, copies charged and credited."""
        slot, cached = view.slot, view.cached
        worth = self._ask(view)
        sender = rows(slot.chain_sender, cached)  # (E, J, L)
        members = slot.member[sender & ~cached[..., None]].double()  # (E, J, L, N)
        credit = (members @ worth.transpose(1, 2)[..., None])[..., 0]
        seconds = rows(slot.chain_time, cached) + lookup(
            slot.broadcast, slot.group[..., None], sender
        )
        values = self.observer.values(view)
        after = 0.0 if values is None else lookup(values.after, slot.kind[..., None], sender)
        level = (seconds + after - credit).argmin(dim=2, keepdim=True)
        chosen = torch.where(slot.needed, sender.gather(2, level)[..., 0], cached)
        return fastest_sources(slot, cached, chosen)

    def keep(self, view: View, n: int | None) -> Tensor:
        """Return what a copy saves given what the others keep, seconds per byte."""
        new = view.held is not self._held
        self._turns = 0 if new else self._turns + 1
        last_round = self._turns == (self.rounds - 1) * view.slot.nodes
        if new or (last_round and n is not None):
            self._held = view.held
            self._residual = self._ask(view)
            values = self.observer.values(view)
            self._cost = (view.slot.worth[:, 0] if values is None else values.cost).double()
        nodes = range(view.slot.nodes) if n is None else [n]
        score = torch.stack([marginal(self._cost, view.slot, view.others(m), m) for m in nodes], 1)
        score = score + (self._residual if n is None else self._residual[:, n : n + 1])
        score = score.clamp(min=KEEP_ANYWAY)
        return score if n is None else score[:, 0]

    def _ask(self, view: View) -> Tensor:
        """Return the residuals (E, N, J) of a stage, seconds per byte.

        All nodes look at once; when they keep, before the first round at who has a block, and
        before the last one at who so far keeps it.
        """
        shown = replace(view, in_turn=view.keeping and self._turns > 0)
        features = self.observer(shown, None)
        with torch.no_grad():
            scores = self.network(features)
        if self.seen is not None:
            self.seen.append(_Seen(features, view.slot, view.keeping))
        residual: Tensor = scores.keep if view.keeping else -scores.nothing
        return residual.double() * unit_of(view.slot)[:, None, None]


def marginal(table: Tensor, slot: Slot, others: Tensor, n: int) -> Tensor:
    """Return (E, J) what a copy at node n saves given the others (E, J), by a table (E, C, S)."""
    without = others & ~(1 << n)
    return lookup(table, slot.kind, without) - lookup(table, slot.kind, without | 1 << n)


@dataclass(frozen=True, eq=False)
class _Seen:
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
        seen = self.features.select(index)
        return _Rows(seen, self.keeping[index], self.target[index], self.weight[index])


class HindsightLearner:
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
        self.average = _network(config).to(device)
        self.average.load_state_dict(self.network.state_dict())
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=config.learning_rate)
        self.generator = seeded(seed, "draws of hindsight")
        self.steps = 0
        self._pool: Pool | None = None
        self._labels: Lookahead | None = None

    def step(self) -> Mapping[str, float]:
        """Play some episodes; see every row of them `passes` times."""
        config = self.config
        pool = self.source.at(self.steps)
        labels = self._labels_of(pool)
        draws = pool.episodes.draws
        chosen = torch.randperm(draws, generator=self.generator)[: config.draws]
        found, delay = self._played(pool, labels, chosen.to(pool.episodes.size.device))
        done = min(1.0, self.steps / config.decay_steps)
        rate = config.final_learning_rate + (
            config.learning_rate - config.final_learning_rate
        ) * 0.5 * (1.0 + math.cos(math.pi * done))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        count = len(found.target)
        updates = max(1, round(config.passes * count / config.batch))
        loss_sum = start_sum = 0.0
        order = torch.randperm(count, generator=self.generator)
        for update in range(updates):
            index = order[torch.arange(update * config.batch, (update + 1) * config.batch) % count]
            rows_ = found.select(index.to(found.target.device))
            scores = self.network(rows_.features)
            residual = torch.where(rows_.keeping, scores.keep[:, 0], -scores.nothing[:, 0])
            total = rows_.weight.sum()
            loss = (rows_.weight * (residual - rows_.target) ** 2).sum() / total
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            follow(self.average, self.network, 1.0 - config.averaging)
            loss_sum += float(loss.detach())
            start_sum += float((rows_.weight * rows_.target**2).sum() / total)
        self.steps += 1
        return {
            "loss": loss_sum / updates,
            "loss_of_tables": start_sum / updates,
            "delay": delay,
            "rows": float(count),
            "learning_rate": rate,
        }

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

    def policy(self, values: Lookahead | None = None) -> HindsightPolicy:
        """Return the policy as it stands."""
        return HindsightPolicy(self.average, self.config, values)

    def _labels_of(self, pool: Pool) -> Lookahead:
        """Return the values in hindsight of a pool, computed once."""
        if self._labels is None or self._pool is not pool:
            parts = [
                hindsight_of(pool.episodes.select(index), steps=self.config.label_steps).values
                for index in torch.split(torch.arange(pool.episodes.draws), LABEL_DRAWS)
            ]
            self._labels = Lookahead(
                *(torch.cat([getattr(p, name) for p in parts]) for name in _LOOKAHEAD)
            )
            self._pool = pool
        return self._labels

    def _played(self, pool: Pool, labels: Lookahead, chosen: Tensor) -> tuple[_Rows, float]:
        """Play some draws; return what there is to learn from them, and the mean delay."""
        seen: list[_Seen] = []
        final: list[dict[bool, Tensor]] = []

        def watch(t: int, cache: Tensor, delivery: Delivery, keep: Tensor) -> None:
            final.append({False: delivery.sender, True: packed(keep)})

        values, labels = pool.values.select(chosen), labels.select(chosen)
        policy = HindsightPolicy(self.average, self.config, values, seen)
        played = roll(pool.episodes.select(chosen), policy, rounds=self.config.rounds, watch=watch)
        parts = []
        for shown in seen:
            t = shown.slot.t
            sets = final[t][shown.keeping]
            parts.append(_rows_of(shown, sets, labels.slot(t), self._base(shown, values)))
        joined = joined_features([part.features for part in parts])
        rest = (torch.cat([getattr(p, name) for p in parts]) for name in _ROWS)
        return _Rows(joined, *rest), float(played.total.mean())

    def _base(self, shown: _Seen, values: Lookahead) -> Tensor | None:
        """Return the table (E, C, S) whose marginals are corrected; None for 0."""
        now = values.slot(shown.slot.t)
        if shown.keeping:
            return now.cost if self.config.mpc else shown.slot.worth[:, 0]
        return now.after if self.config.mpc else None


_LOOKAHEAD = ("after", "cost", "price")
_ROWS = ("keeping", "target", "weight")


def _rows_of(shown: _Seen, sets: Tensor, label: Lookahead, base: Tensor | None) -> _Rows:
    """Return the rows of a stage: blocks that are needed, or that the node can keep."""
    slot, seen = shown.slot, shown.features
    table = label.cost if shown.keeping else label.after
    if base is not None:
        table = table - base
    nodes = range(slot.nodes)
    target = torch.stack([marginal(table, slot, sets, n) for n in nodes], dim=1)
    target = target / unit_of(slot)[:, None, None]
    weight = slot.size / slot.size.sum(dim=1, keepdim=True) * slot.real.sum(dim=1, keepdim=True)
    use = seen.may_keep if shown.keeping else (slot.needed & slot.real)[:, None].expand_as(target)
    draw, node, block = use.nonzero(as_tuple=True)
    at = (draw, node, block)
    state = seen.state[draw]
    picked = Features(
        seen.own[at][:, None],
        seen.neighbour[at][:, None],
        seen.cloud[at][:, None],
        state,
        seen.real[draw, block][:, None],
        seen.may_pull[at][:, None],
        seen.may_keep[at][:, None],
    )
    keeping = torch.full_like(draw, shown.keeping, dtype=torch.bool)
    return _Rows(picked, keeping, target[at].float(), weight[draw, block].float())


def start(
    config: Config, source: EpisodeSource, *, seed: int, device: torch.device
) -> HindsightLearner:
    """Return the learner at step 0: it plays as the tables say."""
    return HindsightLearner(config, source, seed=seed, device=device)


def policy(
    config: Config, tensors: Mapping[str, Tensor], values: Lookahead | None = None
) -> HindsightPolicy:
    """Return the policy of a checkpoint.

    Raises
    ------
    ValueError
        The tensors are of another architecture.
    """
    network = _network(config)
    own = {key.removeprefix("policy/"): value for key, value in tensors.items()}
    load_module(network, own, "policy")
    return HindsightPolicy(network, config, values)


def _network(config: Config) -> ActionSemanticsNetwork:
    return ActionSemanticsNetwork(config.width, config.embedding, zero_last=True)
