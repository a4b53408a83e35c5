"""QMIX, VDN, DCG: temporal differences on the values of all node sets that may keep a block.

    G_j(K) = base_j(K) + mix_z([1 in K] q_1, ..., [N in K] q_N)

is what the time after a slot costs, per byte of block j, if the nodes K keep it: the table of the
dynamic programme on expected delays (`finecast.learners.world.lookahead`; without it the expected
delay of the next slot), plus what is learned. q_n < 0 if a copy at node n saves more than the table
says; it is the value of "keep" in the network of node n. mix is the sum (VDN, Sunehag et al., AAMAS
2018, arXiv 1706.05296) or monotonic with weights from the state (QMIX, Rashid et al., JMLR 21
(2020), arXiv 2003.08839). With a payoff for every pair of nodes that keep the block,

    q_n(K) = a_n + sum over m in K of b_nm,

the inner product of what node n sees and what it sees of node m (DCG: W. Böhmer, V. Kurin and S.
Whiteson, Deep Coordination Graphs, ICML 2020, arXiv 1910.00091): how copies stand in for one
another. The slot delay is a sum over blocks, so the team's value is one too.

Backups are for all actions: the requests of the next slot say what every set K of the 2^N would
have cost there, so all sets of a block learn from one played slot, whichever of them was played:

    y_j(K) = min over l of [tau_l(K) + broadcast(Q_l(K)) + U(Q_l(K))]  if j is needed, else U(K)
    U(Q)   = min over K' within Q of [lambda . K' + gamma G'_j(K')]

with lambda the storage prices of the programme as rent, and G' the target network. Only differences
between the sets of a block are learned: what they share is chance. The policy pulls by the level
that is best for the slot and U (without the lookahead there are no prices: for the slot alone), and
keeps by G(K without n) - G(K with n), per byte, in turn.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import huber_loss

from finecast.learners.algorithms.replay import MOST_SETS, Played, Replay
from finecast.learners.algorithms.set_values import (
    Rows,
    backup,
    base_costs,
    critic_view,
    members,
    rents,
    seen_of,
    unit_of,
    value_after,
)
from finecast.learners.learner import TrainedPolicy
from finecast.learners.networks.action_semantics import action_network
from finecast.learners.networks.features import OWN, STATE, Features
from finecast.learners.networks.mixers import MIXERS, mixer
from finecast.learners.networks.observer import Observer
from finecast.learners.options import at_least, one_of
from finecast.learners.weights import Part, follow, load_module, seeded
from finecast.learners.world.baselines import KEEP_ANYWAY
from finecast.learners.world.environment import (
    View,
    deliver,
    fastest_sources,
    keep_turns,
    lookup,
    near_nodes,
    packed,
    pull_turns,
)
from finecast.learners.world.environment import rows as rows_of_sets
from finecast.learners.world.lookahead import Lookahead
from finecast.learners.world.pool import EpisodeSource, Pool

CREDITS = ("block", "team")


@dataclass(frozen=True)
class Config:
    """Options of QMIX; VDN and DCG differ in the defaults of `mixing` and `pairs`.

    Attributes
    ----------
    mixing
        "monotonic" (QMIX) or "sum" (VDN, DCG), over nodes.
    pairs
        A payoff for every pair of nodes (DCG).
    batch
        Draws that are played in a step.
    updates
        Updates in a step, each on a played slot of a batch from the replay.
    width, embedding
        Of hidden layers and embeddings.
    action_semantics
        Else flat networks.
    credit
        "block": errors of all sets of every block; "team": of the sum over blocks of what was kept.
    in_turn
        Nodes decide in turn, else all at once.
    rounds
        How often every node decides what to keep, if in turn.
    lookahead
        The table of `mpc` is the base, and its marginals are features; else the expected delay of
        the next slot is the base. Without, decisions are faster.
    rate
        Step size of Adam at the beginning.
    halving
        Steps after which it is a half, after twice as many a third, and so on.
    average_rate
        Share of the network that goes into its running average after every update; the average is
        the policy.
    target_rate
        Share of the network that goes into the target network after every update.
    discount
        gamma.
    replay
        Slots of a batch that are kept.
    exploration
        Share of the scores that are drawn at random while it plays.
    clip
        Of the gradient's norm.
    """

    mixing: str = "monotonic"
    pairs: bool = False
    batch: int = 8
    updates: int = 20
    width: int = 64
    embedding: int = 32
    action_semantics: bool = True
    credit: str = "block"
    in_turn: bool = True
    rounds: int = 3
    lookahead: bool = False
    rate: float = 1e-3
    halving: float = 100.0
    average_rate: float = 0.01
    target_rate: float = 0.02
    discount: float = 1.0
    replay: int = 400
    exploration: float = 0.05
    clip: float = 10.0

    def __post_init__(self) -> None:
        at_least(self, 1, "batch", "updates", "width", "embedding", "rounds", "replay")
        at_least(self, 0, "rate", "average_rate", "target_rate", "discount", "exploration")
        at_least(self, 1e-6, "clip", "halving")
        one_of("credit", self.credit, CREDITS)
        one_of("mixing", self.mixing, MIXERS)


def start(
    config: Config, source: EpisodeSource, *, seed: int, device: torch.device
) -> ValueLearner:
    """Return the learner at step 0: it plays as the base says.

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
    return ValueLearner(config, source, seed, device)


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
    heads = tensors.get("policy/nodes.rest.2.weight")  # of a flat network, 3 N
    network = SetValues(config, 1 if heads is None else len(heads) // 3)
    found = {k.removeprefix("policy/"): v for k, v in tensors.items() if k.startswith("policy/")}
    load_module(network, found, "policy")
    return SetPolicy(network, config, values)


class SetValues(nn.Module):
    """What keeping costs over the base, for all node sets.

    Parameters
    ----------
    config
        Options.
    nodes
        N, which only the flat network depends on.
    """

    def __init__(self, config: Config, nodes: int) -> None:
        super().__init__()
        self.nodes = action_network(
            action_semantics=config.action_semantics,
            nodes=nodes,
            width=config.width,
            embedding=config.embedding,
            zero_last=True,
        )
        self.pairs = config.pairs
        self.mixer = mixer(config.mixing, len(STATE) + len(OWN))
        self.level = nn.Linear(len(STATE), 1)  # of the state, the same for all sets
        nn.init.zeros_(self.level.weight)
        nn.init.zeros_(self.level.bias)

    def forward(self, seen: Features) -> Tensor:
        """Return (R, S) of R (draw, block) pairs, from features (R, N, F) of all nodes."""
        scores = self.nodes(seen)
        value = -scores.keep[:, None]  # (R, 1, N), of every set of other nodes
        nodes = value.shape[2]
        member = members(nodes, value.device)  # (S, N)
        if self.pairs:
            others = member[:, near_nodes(nodes, value.device)]  # (S, N, N - 1)
            value = value - torch.einsum("snm,rnm->rsn", others, scores.company[..., 1])
        state = torch.cat([seen.state, seen.own.mean(dim=1)], dim=1)
        mixed: Tensor = self.mixer(member * value, state)
        level: Tensor = self.level(seen.state)
        return mixed + level


def costs(network: nn.Module, observer: Observer, view: View, rows: Rows) -> Tensor:
    """Return (R, S) G(K) of some (draw, block) pairs, in units per byte.

    Parameters
    ----------
    network
        What is learned.
    observer
        Makes the features; its lookahead, if used, is the base.
    view
        As `finecast.learners.algorithms.set_values.critic_view` returns.
    rows
        The pairs.
    """
    base = base_costs(view.slot, observer.values(view), rows)
    learnt: Tensor = network(seen_of(observer(view, None), rows))
    return base + learnt


class SetPolicy:
    """Pulls and keeps by the values of node sets.

    Parameters
    ----------
    network
        What is learned.
    config
        Options.
    values
        Lookahead of all slots; None: computed in every slot.
    generator
        For exploration; None: the best actions.
    """

    def __init__(
        self,
        network: nn.Module,
        config: Config,
        values: Lookahead | None = None,
        generator: Generator | None = None,
    ) -> None:
        self.network, self.lookahead = network, config.lookahead
        self.in_turn = config.in_turn
        self.rounds = config.rounds if config.in_turn else 1
        self.exploration, self.generator = config.exploration, generator
        self.observer = Observer(config.lookahead, values)
        self._held: Tensor | None = None
        self._table = torch.empty(0)

    def pull(self, view: View, n: int | None) -> Tensor | None:
        """Return sources (E, N, J): the levels that are best for this slot and after it."""
        slot, cached = view.slot, view.cached
        if not self.lookahead or slot.t == slot.slots - 1:
            return None  # the best levels of the slot
        values = self.observer.values(view)
        assert values is not None
        table = self._costs(slot_view(view, deliver(slot, cached, None).sender))
        after = value_after((rents(slot, values)[:, None] + table).flatten(0, 1))
        after = after.reshape(table.shape) * unit_of(slot)[:, None, None]
        sender = rows_of_sets(slot.chain_sender, cached)  # (E, J, L)
        air = lookup(slot.broadcast, slot.group[..., None], sender)
        seconds = rows_of_sets(slot.chain_time, cached) + air + after.gather(2, sender)
        level = seconds.argmin(dim=2, keepdim=True)
        chosen = torch.where(slot.needed, sender.gather(2, level)[..., 0], cached)
        return fastest_sources(slot, cached, chosen)

    def keep(self, view: View, n: int | None) -> Tensor:
        """Return what a copy saves given what the others keep, (E, J), or (E, N, J) for all."""
        if n is None:
            return torch.stack([self.keep(view, m) for m in range(view.slot.nodes)], dim=1)
        slot = view.slot
        if slot.t == slot.slots - 1:  # nothing comes after the last slot
            return torch.ones(view.held.shape, device=view.held.device)
        if view.held is not self._held:
            self._held = view.held
            self._table = self._costs(slot_view(view, view.held))
        sets = torch.stack([view.others(n), view.others(n) | 1 << n], dim=2)
        table = self._table.gather(2, sets)
        score = (table[..., 0] - table[..., 1]).clamp(min=KEEP_ANYWAY)
        if self.generator is None:
            return score
        dice = torch.rand((2, *score.shape), generator=self.generator).to(score.device)
        random = dice[1] * score.amax(dim=1, keepdim=True)
        return torch.where(dice[0] < self.exploration, random, score)

    def _costs(self, view: View) -> Tensor:
        """Return (E, J, S) G(K) of the blocks that some node has or will have; else 0."""
        rows = Rows.where((view.held != 0) & view.slot.real)
        table = torch.zeros((*view.held.shape, 1 << view.slot.nodes), device=view.held.device)
        with torch.no_grad():
            table[rows.draw, rows.block] = costs(self.network, self.observer, view, rows)
        return table


def slot_view(view: View, held: Tensor) -> View:
    """Return what the values are seen from: all is delivered, nobody has decided what to keep."""
    return critic_view(view.slot, view.cached, held)


class ValueLearner:
    """QMIX or VDN as it learns.

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
        self, config: Config, source: EpisodeSource, seed: int, device: torch.device
    ) -> None:
        self.config, self.source, self.device = config, source, device
        nodes = source.at(0).episodes.nodes
        if nodes > MOST_SETS:
            raise ValueError(f"nodes: {nodes} are not allowed, must be <= {MOST_SETS}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(2**62, (), generator=seeded(seed, "networks"))))
            self.network = SetValues(config, nodes).to(device)
        self.target = copy.deepcopy(self.network)
        self.average = copy.deepcopy(self.network)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=config.rate)
        self.generator = seeded(seed, "play")
        self.replay = Replay(config.replay)
        self.steps = 0

    def parts(self) -> Mapping[str, Part]:
        """Return networks, optimiser, generator."""
        return {
            "policy": self.average,
            "network": self.network,
            "target": self.target,
            "adam": self.adam,
            "generator": self.generator,
        }

    def extra(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Return the replay, and the steps made: a step begins and ends between episodes."""
        return self.replay.tensors(), {"steps": self.steps}

    def load_extra(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Take back what `extra` returned."""
        self.replay.load(tensors)
        self.steps = int(counters["steps"])

    def policy(self, values: Lookahead | None = None) -> TrainedPolicy:
        """Return the policy, without exploration."""
        return SetPolicy(self.average, self.config, values)

    def step(self) -> Mapping[str, float]:
        """Play whole episodes of a batch, then make some updates on past slots."""
        pool = self.source.at(self.steps)
        self.replay.forget_other(pool.number)
        self.adam.param_groups[0]["lr"] = self.config.rate / (
            1.0 + self.steps / self.config.halving
        )
        delay = self._play(pool)
        count = self.config.updates if self.replay.slots else 0
        losses = [self._improve(pool) for _ in range(count)]
        self.steps += 1
        return {"delay": delay, "loss": sum(losses) / max(count, 1)}

    def _play(self, pool: Pool) -> float:
        """Play all slots, remember them; return the mean total delay, s."""
        size = (self.config.batch,)
        draw = torch.randint(pool.episodes.draws, size, generator=self.generator)
        index = draw.to(self.device)
        episodes, values = pool.episodes.select(index), pool.values.select(index)
        player = SetPolicy(self.network, self.config, values, self.generator)
        cache, last, total = episodes.start, None, 0.0
        for t in range(episodes.slots):
            slot, cached = episodes.slot(t), packed(cache)
            view = View(slot, cached, cached, cached * 0, in_turn=player.in_turn)
            delivery = deliver(slot, cached, pull_turns(view, player))
            view = replace(view, held=delivery.sender, keeping=True)
            cache = keep_turns(view, player, player.rounds)
            had, held, kept = (
                some.to(torch.uint8).cpu() for some in (cached, delivery.sender, packed(cache))
            )
            if last is not None:
                self.replay.add(replace(last, next_held=held))
            last = Played(pool.number, t, draw, had, held, kept, next_held=held)
            total += float(delivery.delay.sum(dim=1).mean())
        return total

    def _improve(self, pool: Pool) -> float:
        """Make one update on a played slot from the replay; return the loss."""
        config = self.config
        played = self.replay.draw(self.generator)
        index = played.draw.to(self.device)
        episodes, values = pool.episodes.select(index), pool.values.select(index)
        slot, coming = episodes.slot(played.t), episodes.slot(played.t + 1)
        cached, held, kept, next_held = (
            getattr(played, name).long().to(self.device)
            for name in ("cached", "held", "kept", "next_held")
        )
        rows = Rows.where((held != 0) & slot.real)
        observer = Observer(config.lookahead, values)
        with torch.no_grad():
            if coming.t == coming.slots - 1:  # nothing comes after the last slot
                later = torch.zeros((len(rows.draw), 1 << slot.nodes), device=self.device)
            else:
                view = critic_view(coming, kept, next_held)
                later = costs(self.target, observer, view, rows)
            rent = rents(coming, values.slot(coming.t))[rows.draw]
            wanted = backup(coming, value_after(rent + config.discount * later), rows)
        view = critic_view(slot, cached, held)
        error = costs(self.network, observer, view, rows) - wanted
        weight = rows.of(slot.size).float()
        if config.credit == "block":
            error = error - error.mean(dim=1, keepdim=True)
            each = huber_loss(error, torch.zeros_like(error), reduction="none").mean(dim=1)
            loss = (weight * each).sum() / weight.sum()
        else:
            of_kept = error.gather(1, rows.of(kept)[:, None])[:, 0] * weight
            share = of_kept / slot.size.sum(dim=1).float()[rows.draw]
            team = torch.zeros(slot.draws, device=self.device).index_add(0, rows.draw, share)
            loss = huber_loss(team, torch.zeros_like(team))
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), config.clip)
        self.adam.step()
        follow(self.target, self.network, config.target_rate)
        follow(self.average, self.network, config.average_rate)
        return float(loss.detach())
