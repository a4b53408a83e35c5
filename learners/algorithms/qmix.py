"""QMIX, VDN, DCG: temporal differences on the values of all node sets that may keep a block.

    G_j(K) = base_j(K) + mix_z([1 in K] q_1, ..., [N in K] q_N)

is what the time after a slot costs, per byte of block j, if the nodes K keep it. base_j is the
table of the dynamic programme on expected delays (`finecast.learners.world.lookahead`), or without
it the expected delay of the next slot. The mixed values are what is learned. q_n is the value of
"keep" in the network of node n; it is negative if a copy at node n saves more than the table says.

    VDN    mix is the sum (Sunehag et al., AAMAS 2018, arXiv 1706.05296)
    QMIX   mix is monotonic, with weights from the state (Rashid et al., JMLR 21 (2020), arXiv
           2003.08839)
    DCG    mix is the sum, and every pair of nodes that keep the block has a payoff (W. Böhmer, V.
           Kurin and S. Whiteson, Deep Coordination Graphs, ICML 2020, arXiv 1910.00091):
           q_n(K) = a_n + sum over m in K of b_nm

b_nm is the inner product of what node n sees and what it sees of node m. It says how copies stand
in for one another. The slot delay is a sum over blocks, so the team's value is one too.

Backups are for all actions. The requests of the next slot say what every set K of the 2^N would
have cost there. So all sets of a block learn from one played slot, whichever of them was played:

    y_j(K) = min over l of [tau_l(K) + broadcast(Q_l(K)) + U(Q_l(K))]  if j is needed, else U(K)
    U(Q)   = min over K' within Q of [lambda . K' + gamma G'_j(K')]

lambda are prices of storage, paid as rent, and G' is the target network. With `keep = "joint"` they
are those of the joint keep of the next slot (`joint_rents`), else those of the programme. Only
differences between the sets of a block are learned: what they share is chance. The policy pulls by
the level that is best for the slot and U. (Without the lookahead there are no prices: by the level
that is best for the slot alone.) It keeps by the joint rule on G, or by
G(K without n) - G(K with n), per byte, in turn.

With raw observations there are neither base nor prices, and the delays that were paid are what is
learned from (`finecast.learners.algorithms.paid`).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn.functional import huber_loss

from finecast.learners.algorithms.node_options import (
    KeepsByRule,
    NodeOptions,
    check_observations,
    nodes_of_flat,
)
from finecast.learners.algorithms.paid import (
    costs_of_kept,
    next_kept,
    paid_loss,
    paid_per_byte,
    share_of_bytes,
)
from finecast.learners.algorithms.replay import MOST_SETS, Played, Replay
from finecast.learners.algorithms.set_values import (
    Rows,
    critic_view,
    level_network,
    members,
    rents,
    set_costs,
    set_targets,
    unit_of,
    value_after,
)
from finecast.learners.learner import TrainedPolicy
from finecast.learners.networks.action_semantics import action_network
from finecast.learners.networks.features import OWN, STATE, Features
from finecast.learners.networks.mixers import MIXERS, mixer
from finecast.learners.networks.observer import Observer
from finecast.learners.options import MOST_STEPS, at_least, one_of
from finecast.learners.weights import Part, follow, initialised, load_module, part_of, seeded
from finecast.learners.world.baselines import KEEP_ANYWAY
from finecast.learners.world.environment import (
    JointRule,
    View,
    deliver,
    fastest_sources,
    keep_slot,
    lookup,
    near_nodes,
    packed,
    pull_turns,
)
from finecast.learners.world.environment import rows as rows_of_sets
from finecast.learners.world.lookahead import Lookahead
from finecast.learners.world.pool import EpisodeSource, Pool
from finecast.solvers.heuristics.rules import KeepRule, check_keep_rule


@dataclass(frozen=True)
class Config(KeepsByRule, NodeOptions):
    """Options of QMIX; VDN and DCG are the same with other values of `mixing` and `pairs`.

    Attributes
    ----------
    observations
        "tables": the nodes see expected tables, and values start at them. "raw": they see none.
    mixing
        "monotonic" (QMIX) or "sum" (VDN, DCG), over nodes.
    pairs
        A payoff for every pair of nodes (DCG).
    batch
        Draws that are played in a step.
    updates
        Updates in a step, each on a played slot of a batch from the replay.
    critic_rate
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
    gradient_clip
        Of the gradient's norm.
    keep
        "joint": what is kept in training is chosen for all blocks and nodes at once, and the
        targets are backups of such choices. "in-turn", always so with raw observations and where
        nodes do not decide in turn: by every node, and backups through the prices of the
        programme.
    """

    observations: str = "tables"
    mixing: str = "monotonic"
    pairs: bool = False
    batch: int = 8
    updates: int = 20
    critic_rate: float = 1e-3
    halving: float = 100.0
    average_rate: float = 0.01
    target_rate: float = 0.02
    discount: float = 1.0
    replay: int = 400
    exploration: float = 0.05
    gradient_clip: float = 10.0
    keep: KeepRule = "joint"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_keep_rule(self.keep)
        at_least(self, 1, "batch", "updates", "replay")
        at_least(self, 0, "critic_rate", "average_rate", "target_rate", "discount", "exploration")
        at_least(self, 1e-6, "gradient_clip", "halving", most=MOST_STEPS)
        one_of("mixing", self.mixing, MIXERS)
        check_observations(self.observations, self.lookahead)


def trained(
    config: Config, tensors: Mapping[str, Tensor], values: Lookahead | None = None
) -> TrainedPolicy:
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
    network = SetValues(config, nodes_of_flat(tensors, "policy/nodes.rest.2.weight"))
    load_module(network, part_of(tensors, "policy"), "policy")
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
        # The same for all sets: of the state, and with raw observations of the block too.
        self.raw = config.raw
        self.level = level_network(config.width) if config.raw else nn.Linear(len(STATE), 1)
        if isinstance(self.level, nn.Linear):
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
        level: Tensor = self.level(state if self.raw else seen.state)
        return mixed + level


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

    Attributes
    ----------
    table
        (E, J, S) G(K) of the stage, of the blocks that some node has or will have; else 0.
    """

    table: Tensor

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
        self.joint: JointRule = "batched" if config.joint else ""
        self.exploration, self.generator = config.exploration, generator
        self.observer = Observer(config.lookahead, values, raw=config.raw)

    def begin(self, view: View) -> None:
        """Ask the network once for all turns of the stage, if its values will be used."""
        slot = view.slot
        if slot.t == slot.slots - 1 or not (view.keeping or self.lookahead):
            return  # nothing comes after the last slot; without lookahead pulls are the tables'
        held = view.held if view.keeping else deliver(slot, view.cached, None).sender
        # All is delivered, and nobody has decided what to keep.
        asked = critic_view(slot, view.cached, held)
        if not view.keeping:
            self.observer.begin(view)
        elif not self.lookahead:
            self.observer.begin(asked)
        rows = Rows.where((held != 0) & slot.real)
        self.table = torch.zeros((*held.shape, 1 << slot.nodes), device=held.device)
        with torch.no_grad():
            self.table[rows.draw, rows.block] = set_costs(
                self.network,
                asked,
                self.observer.values,
                rows,
                self.observer.basis,
                raw=self.observer.raw,
            )

    def pull(self, view: View, n: int | None) -> Tensor | None:
        """Return sources (E, N, J): the levels that are best for this slot and after it."""
        slot, cached, values = view.slot, view.cached, self.observer.values
        if values is None or slot.t == slot.slots - 1:
            return None  # the best levels of the slot
        after = value_after((rents(slot, values)[:, None] + self.table).flatten(0, 1))
        after = after.reshape(self.table.shape) * unit_of(slot)[:, None, None]
        sender = rows_of_sets(slot.chain_sender, cached)  # (E, J, L)
        air = lookup(slot.broadcast, slot.group[..., None], sender)
        seconds = rows_of_sets(slot.chain_time, cached) + air + after.gather(2, sender)
        level = seconds.argmin(dim=2, keepdim=True)
        best_sender = torch.where(slot.needed, sender.gather(2, level)[..., 0], cached)
        return fastest_sources(slot, cached, best_sender)

    def keep(self, view: View, n: int | None) -> Tensor:
        """Return what a copy saves given what the others keep, (E, J), or (E, N, J) for all."""
        if n is None:
            return torch.stack([self.keep(view, m) for m in range(view.slot.nodes)], dim=1)
        if view.slot.t == view.slot.slots - 1:  # nothing comes after it: whatever fits
            return torch.ones(view.held.shape, device=view.held.device)
        sets = torch.stack([view.others(n), view.others(n) | 1 << n], dim=2)
        cost = self.table.gather(2, sets)
        score = cost[..., 0] - cost[..., 1]
        if self.observer.raw:  # right up to a level, from sums: only the order counts
            score = score - score.amin(dim=1, keepdim=True)
        score = score.clamp(min=KEEP_ANYWAY)
        if self.generator is None:
            return score
        dice = torch.rand((2, *score.shape), generator=self.generator).to(score.device)
        random = dice[1] * score.amax(dim=1, keepdim=True)
        return torch.where(dice[0] < self.exploration, random, score)

    def set_costs(self, view: View) -> Tensor:
        """Return G(K), (E, J, S), in units; while it explores, of some blocks at random."""
        if self.generator is None:
            return self.table
        # As in `keep`: a random worth of every copy, up to the greatest saving of the draw.
        most = (self.table[..., 0] - self.table.amin(dim=2)).amax(dim=1)[:, None, None]
        dice = torch.rand(self.table.shape[:2], generator=self.generator).to(most.device)
        worth = torch.rand((*dice.shape, view.slot.nodes), generator=self.generator)
        random = -(most * worth.to(most.device)) @ members(view.slot.nodes, most.device).T
        return torch.where((dice < self.exploration)[..., None], random, self.table)


class Learner:
    """QMIX, VDN or DCG as it learns.

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
        if nodes > MOST_SETS:
            raise ValueError(f"nodes: {nodes} are not allowed, must be <= {MOST_SETS}")
        self.network = initialised(seed, lambda: SetValues(config, nodes)).to(device)
        self.target = copy.deepcopy(self.network)
        self.average = copy.deepcopy(self.network)
        self.adam = torch.optim.Adam(self.network.parameters(), lr=config.critic_rate)
        self.generator = seeded(seed, "play")
        self.replay = Replay(config.replay)
        self.steps = 0

    def step(self) -> Mapping[str, float]:
        """Play whole episodes of a batch, then make some updates on past slots."""
        pool = self.source.at(self.steps)
        self.replay.forget_other(pool.number)
        self.adam.param_groups[0]["lr"] = self.config.critic_rate / (
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
        episodes = pool.episodes.select(index)
        values = pool.values.select(index) if self.config.lookahead else None
        player = SetPolicy(self.network, self.config, values, self.generator)
        cache, unfinished, total = episodes.start, None, 0.0
        for t in range(episodes.slots):
            slot, cached = episodes.slot(t), packed(cache)
            view = View(slot, cached, cached, cached * 0, in_turn=player.in_turn)
            delivery = deliver(slot, cached, pull_turns(view, player))
            view = replace(view, held=delivery.sender, keeping=True)
            cache = keep_slot(view, player, rounds=player.rounds, joint=player.joint)
            had, held, kept = (
                sets.to(torch.uint8).cpu() for sets in (cached, delivery.sender, packed(cache))
            )
            # A slot can be learned from once it is known what the nodes had in the next one.
            if unfinished is not None:
                delay = delivery.delay.float().cpu()
                self.replay.add(replace(unfinished, next_held=held, next_delay=delay))
            unfinished = Played(pool.number, t, draw, had, held, kept, next_held=held)
            total += float(delivery.delay.sum(dim=1).mean())
        return total

    def _improve(self, pool: Pool) -> float:
        """Make one update on a played slot from the replay; return the loss."""
        played = self.replay.draw(self.generator)
        loss = (self._paid_loss if self.config.raw else self._backup_loss)(pool, played)
        self.adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.gradient_clip)
        self.adam.step()
        follow(self.target, self.network, self.config.target_rate)
        follow(self.average, self.network, self.config.average_rate)
        return float(loss.detach())

    def _paid_loss(self, pool: Pool, played: Played) -> Tensor:
        """Return the error against what was paid after a played slot."""
        episodes = pool.episodes.select(played.draw.to(self.device))
        slot, coming = episodes.slot(played.t), episodes.slot(played.t + 1)
        cached, held, kept, next_held = (
            getattr(played, name).long().to(self.device)
            for name in ("cached", "held", "kept", "next_held")
        )
        with torch.no_grad():
            view = critic_view(coming, kept, next_held)
            coming_kept = next_kept(SetPolicy(self.target, self.config), view)
            target = paid_per_byte(coming, played.next_delay.to(self.device))
            target += self.config.discount * costs_of_kept(self.target, view, coming_kept)
        cost = costs_of_kept(self.network, critic_view(slot, cached, held), kept)
        return paid_loss(cost, target, share_of_bytes(slot), self.config.credit)

    def _backup_loss(self, pool: Pool, played: Played) -> Tensor:
        """Return the error against the backups of a played slot."""
        config = self.config
        # The blocks that somebody had in it.
        index = played.draw.to(self.device)
        episodes = pool.episodes.select(index)
        slot, coming = episodes.slot(played.t), episodes.slot(played.t + 1)
        look = coming_look = None
        if config.lookahead or not config.joint:
            values = pool.values.select(index)
            look, coming_look = values.slot(slot.t), values.slot(coming.t)
        cached, held, kept, next_held = (
            getattr(played, name).long().to(self.device)
            for name in ("cached", "held", "kept", "next_held")
        )
        rows = Rows.where((held != 0) & slot.real)
        # Targets: what every set K would have cost in the next slot, and after it by the target.
        with torch.no_grad():
            target = self.targets(critic_view(coming, kept, next_held), coming_look, rows)
        view = critic_view(slot, cached, held)
        cost = set_costs(self.network, view, look if config.lookahead else None, rows)
        error, weight = cost - target, rows.pick(slot.size).float()
        if config.credit == "block":
            return block_loss(error, weight)
        of_kept = error.gather(1, rows.pick(kept)[:, None])[:, 0] * weight
        share = of_kept / slot.size.sum(dim=1).float()[rows.draw]
        team = torch.zeros(slot.draws, device=self.device).index_add(0, rows.draw, share)
        return huber_loss(team, torch.zeros_like(team))

    def targets(self, view: View, look: Lookahead | None, rows: Rows) -> Tensor:
        """Return (R, S) y(K) of some blocks.

        Parameters
        ----------
        view
            The next slot, when all is delivered.
        look
            Its lookahead; None where neither features nor prices are those of it.
        rows
            The (draw, block) pairs.
        """
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

    def policy(self, values: Lookahead | None = None) -> TrainedPolicy:
        """Return the policy of the running average, without exploration."""
        return SetPolicy(self.average, self.config, values)

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


def block_loss(error: Tensor, weight: Tensor) -> Tensor:
    """Return the mean error over bytes of all sets of all blocks.

    What the sets of a block share is chance: it is left out.

    Parameters
    ----------
    error
        (R, S) what the network says less what it is to say.
    weight
        (R,) byte.
    """
    error = error - error.mean(dim=1, keepdim=True)
    of_block = huber_loss(error, torch.zeros_like(error), reduction="none").mean(dim=1)
    return (weight * of_block).sum() / weight.sum()
