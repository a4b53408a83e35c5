"""Actors: every node scores its actions from what it sees; noise on the scores where they explore.

    pull     logits of every other node that has the block, of the cloud, and of nothing
    keep     one logit a block; what fits the storage is kept in falling order of the logits

A logit is a start plus what the network has learnt, in units of saving per byte, over the
temperature. The start pulls by the best chain level of the slot and keeps by the expected saving
per byte, as the methods `rolling` or `mpc` do. A logit of keeping stands for (saving - price of
storage) / temperature. That logit maximises the expected saving plus temperature times entropy, so
it ranks blocks by what they save.

The network looks once in every stage, for all nodes. In turn, a node adds what those before it have
decided: to the start by looking up the saving that is left, to what is learnt by the scores
`company` of the nodes that receive or keep the block.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor, nn

from finecast.learners.algorithms.node_options import (
    NodeOptions,
    Observes,
    check_observations,
    nodes_of_flat,
)
from finecast.learners.algorithms.noise import MOST_NOISE, gumbel_noise, logistic
from finecast.learners.algorithms.set_values import Rows, unit_of
from finecast.learners.networks.action_semantics import Scores, action_network
from finecast.learners.networks.features import CLOUD, NEIGHBOUR, OWN, Features
from finecast.learners.networks.observer import Observer
from finecast.learners.options import at_least
from finecast.learners.weights import load_module, part_of
from finecast.learners.world.baselines import of_blocks
from finecast.learners.world.environment import View, near_nodes
from finecast.learners.world.episodes import Slot
from finecast.learners.world.lookahead import Lookahead

BEST_LEVEL = 4.0
"""Logit at the start of what the best level of the slot does, over that of anything else."""

_IN_BEST = OWN.index("in the best level of the slot")
_FASTEST_NODE = NEIGHBOUR.index("is the fastest source")
_FASTEST_CLOUD = CLOUD.index("is the fastest source")


@dataclass(frozen=True)
class ActorOptions(Observes, NodeOptions):
    """Options that actors have in common, whoever trains them.

    Attributes
    ----------
    temperature
        Units of saving per byte that a logit stands for: the weight of the entropy.
    observations
        "tables": the nodes see expected tables, and actors start at a rule on them. "raw": they see
        none (`finecast.learners.networks.raw_features`); actors start at random weights, and what
        is learned from are the delays that were paid.
    """

    temperature: float = 0.05
    observations: str = "tables"

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1e-6, "temperature")
        check_observations(self.observations, self.lookahead)


@dataclass(frozen=True, eq=False)
class Turn:
    """What one node decided in one turn, and what it saw.

    Attributes
    ----------
    keeping
        What it keeps, else what it pulls.
    node
        n.
    rows
        The R (draw, block) pairs that it decided on.
    seen
        (R, ...) features of them.
    others
        (E, J) int64 node sets: the other nodes that had decided to keep or to receive each block;
        all at once, when they keep, those that have it.
    company
        (R, N - 1) float32, the same as 1 for each of them.
    start
        Logits without the network: (R,) of keeping, (R, N + 1) of pulling.
    noise
        Of the same shape: logistic, or Gumbel.
    """

    keeping: bool
    node: int
    rows: Rows
    seen: Features
    others: Tensor
    company: Tensor
    start: Tensor
    noise: Tensor


@dataclass(frozen=True, eq=False)
class Look:
    """What the network says in one stage of a slot, for all nodes.

    Attributes
    ----------
    seen
        Features.
    near
        (N, N - 1) numbers of the other nodes.
    start
        Logits without the network: (E, N, J, N + 1) of pulling, (E, N, J, S) of keeping what the
        nodes of a set keep too.
    logits
        The same with the network, of keeping raised so that no noise makes them negative.
    company
        What the decisions of others add: (E, N, J, N - 1) to pulling nothing, and (E, N, J, S) to
        keeping, where the logits have it already.
    scores
        What the network says, in units.
    """

    seen: Features
    near: Tensor
    start: Tensor
    logits: Tensor
    company: Tensor
    scores: Scores


class Actors:
    """All nodes' policies, one network.

    Parameters
    ----------
    network
        Features to Scores.
    observer
        Makes the features.
    temperature
        Units (`finecast.learners.algorithms.set_values.unit_of`) of saving per byte that a logit
        stands for.
    in_turn, rounds
        As in `finecast.learners.world.environment.roll`.
    generator
        For exploration. `turns` then has what was decided: the pulls, and the last round of
        keeping. None: the best actions, and no turns.
    """

    look: Look
    """What the network said at the beginning of the stage."""

    def __init__(
        self,
        network: nn.Module,
        observer: Observer,
        *,
        temperature: float,
        in_turn: bool,
        rounds: int,
        generator: Generator | None = None,
    ) -> None:
        self.network = network
        self.observer = observer
        self.temperature = temperature
        self.in_turn = in_turn
        self.rounds = rounds
        self.generator = generator
        self.turns: list[Turn] = []
        self._turns_in_stage = 0

    def begin(self, view: View) -> None:
        """Let the network look, once for all nodes and all turns of the stage."""
        self._turns_in_stage = 0
        all_at_once = replace(view, in_turn=False)
        if not view.keeping:
            self.observer.begin(all_at_once)
            self.look = self._pulling(self.observer(all_at_once))
        elif not _last(view):
            self.look = self._keeping(view, self.observer(all_at_once))

    def pull(self, view: View, n: int | None) -> Tensor:
        """Return sources (E, J), or (E, N, J) for all nodes."""
        if n is None:
            return torch.stack([self.pull(view, m) for m in range(view.slot.nodes)], dim=1)
        look = self.look
        receiving = view.held & ~view.cached
        logits = look.logits[:, n].clone()
        logits[..., -1] += (look.company[:, n] * _in_sets(receiving, look.near[n])).sum(dim=2)
        if self.generator is not None:
            may = look.seen.may_pull[:, n].any(dim=2)
            noise = gumbel_noise(logits.shape, self.generator).to(logits.device)
            logits = logits + noise
            self._note(False, n, may, receiving, look.start[:, n], noise)
        names = source_names(view.slot.nodes, logits.device)[n]
        return names[logits.argmax(dim=2)]

    def keep(self, view: View, n: int | None) -> Tensor:
        """Return scores (E, J), or (E, N, J) for all nodes; all are positive."""
        if n is None:
            return torch.stack([self.keep(view, m) for m in range(view.slot.nodes)], dim=1)
        if _last(view):  # nothing comes after it: whatever fits
            return torch.ones(view.held.shape, device=view.held.device)
        look, others = self.look, view.others(n)
        logits = look.logits[:, n].gather(2, others[..., None])[..., 0]
        if self.generator is not None:
            may = look.seen.may_keep[:, n]
            noise = logistic(may.shape, self.generator).to(may.device)
            logits = logits + noise
            # Only the last round decides what is kept.
            if self._turns_in_stage >= (self.rounds - 1) * view.slot.nodes:
                start = look.start[:, n].gather(2, others[..., None])[..., 0]
                self._note(True, n, may, others, start, noise)
        self._turns_in_stage += 1
        return logits

    def _scores(self, seen: Features) -> Scores:
        """Return what the network says of all nodes as a stage begins."""
        scores: Scores = self.network(seen)
        return scores

    def _pulling(self, seen: Features) -> Look:
        """Return what the network says of pulling."""
        scores = self._scores(seen)
        start = pull_start(seen, raw=self.observer.raw)
        learnt = torch.cat([scores.source, scores.nothing[..., None]], dim=-1)
        logits, company = start + learnt / self.temperature, scores.company[..., 0]
        near = near_nodes(start.shape[1], start.device)
        return Look(seen, near, start, logits, company / self.temperature, scores)

    def _keeping(self, view: View, seen: Features) -> Look:
        """Return what the network says of keeping, whichever set of other nodes keeps too."""
        scores = self._scores(seen)
        slot = view.slot
        near = near_nodes(slot.nodes, view.held.device)
        sets = torch.arange(1 << slot.nodes, device=near.device)
        bit = (1 << torch.arange(slot.nodes, device=near.device))[:, None]
        if self.observer.raw:
            start = scores.keep.new_zeros((*scores.keep.shape, len(sets)))
        else:  # what a copy saves beside every set of others, by the tables
            of_block = self.table_costs(slot)
            saved = of_block[:, :, sets & ~bit] - of_block[:, :, sets | bit]
            start = saved.transpose(1, 2)  # (E, N, J, S)
        # What is learnt is added, and all is raised until no noise makes a score negative.
        company = scores.company[..., 1] @ _in_sets(sets, near[:, None]).transpose(1, 2)
        logits = start + (scores.keep[..., None] + company) / self.temperature
        logits = logits - logits.amin(dim=(1, 2, 3), keepdim=True) + MOST_NOISE
        return Look(seen, near, start, logits, company, scores)

    def table_costs(self, slot: Slot) -> Tensor:
        """Return (E, J, S) what keeping costs by the tables, in temperatures."""
        values = self.observer.values
        cost = slot.worth[:, 0] if values is None else values.cost
        scale = unit_of(slot)[:, None, None] * self.temperature
        return of_blocks(slot, (cost / scale).float())

    def _note(
        self, keeping: bool, n: int, may: Tensor, others: Tensor, start: Tensor, noise: Tensor
    ) -> None:
        """Add what node n decided to `turns`."""
        rows = Rows.where(may)
        if not len(rows.draw):
            return
        self.turns.append(
            Turn(
                keeping=keeping,
                node=n,
                rows=rows,
                seen=seen_by(self.look.seen, rows, n),
                others=others,
                company=_in_sets(rows.pick(others), self.look.near[n]),
                start=rows.pick(start),
                noise=rows.pick(noise),
            )
        )


def _last(view: View) -> bool:
    """Return whether it is the last slot, after which nothing comes."""
    return view.slot.t == view.slot.slots - 1


def _in_sets(sets: Tensor, nodes: Tensor) -> Tensor:
    """Return (..., M) float32, 1 for the nodes (M,) that are in the node sets (...)."""
    return (sets[..., None] >> nodes & 1).float()


def seen_by(seen: Features, rows: Rows, n: int) -> Features:
    """Return what node n sees of some (draw, block) pairs, from the features of all nodes."""
    index = (rows.draw, n, rows.block)
    return Features(
        own=seen.own[index],
        neighbour=seen.neighbour[index],
        cloud=seen.cloud[index],
        state=seen.state[rows.draw],
        real=rows.pick(seen.real),
        may_pull=seen.may_pull[index],
        may_keep=seen.may_keep[index],
    )


def pull_start(seen: Features, *, raw: bool = False) -> Tensor:
    """Return (E, N, J, N + 1) logits of pulling at the start: what the best level of the slot does.

    The order is: the other nodes, the cloud, nothing; minus infinity where not allowed. With raw
    observations, all that is allowed is alike.
    """
    best = seen.own[..., _IN_BEST, None]
    fastest = torch.cat(
        [seen.neighbour[..., _FASTEST_NODE], seen.cloud[..., _FASTEST_CLOUD, None]], dim=-1
    )
    names = source_names(best.shape[1], best.device)[:, None, :-1]
    may = seen.may_pull.gather(3, names.expand_as(fastest))
    level = 0.0 if raw else BEST_LEVEL
    source = torch.where(may, level * best * fastest, -torch.inf)
    return torch.cat([source, level * (1.0 - best)], dim=-1)


def source_names(nodes: int, device: torch.device) -> Tensor:
    """Return (N, N + 1) the sources by the order of the logits: other nodes, the cloud, nothing."""
    cloud_and_nothing = torch.tensor([[nodes, -1]], device=device).expand(nodes, -1)
    return torch.cat([near_nodes(nodes, device), cloud_and_nothing], dim=1)


def pull_logits(scores: Scores, company: Tensor, temperature: float) -> Tensor:
    """Return (R, N + 1) what the network adds to `pull_start`, with the company (R, N - 1)."""
    nothing = scores.nothing + (scores.company[..., 0] * company).sum(dim=-1)
    return torch.cat([scores.source, nothing[..., None]], dim=-1) / temperature


def keep_logits(scores: Scores, company: Tensor, temperature: float) -> Tensor:
    """Return (R,) what the network adds to the start of keeping, with the company (R, N - 1)."""
    return (scores.keep + (scores.company[..., 1] * company).sum(dim=-1)) / temperature


def actor_network(options: ActorOptions, nodes: int) -> nn.Module:
    """Return the network of new actors; only a flat one depends on the number of nodes."""
    return action_network(
        action_semantics=options.action_semantics,
        nodes=nodes,
        width=options.width,
        embedding=options.embedding,
        zero_last=not options.raw,
    )


def actors_of(
    options: ActorOptions,
    network: nn.Module,
    values: Lookahead | None,
    generator: Generator | None = None,
) -> Actors:
    """Return the actors of a network; with a generator they explore."""
    return Actors(
        network,
        Observer(options.lookahead, values, raw=options.raw),
        temperature=options.temperature,
        in_turn=options.in_turn,
        rounds=options.rounds if options.in_turn else 1,
        generator=generator,
    )


def trained_actors(
    options: ActorOptions, tensors: Mapping[str, Tensor], values: Lookahead | None = None
) -> Actors:
    """Return the actors of a checkpoint, whose nodes keep in turn or all at once.

    Parameters
    ----------
    options
        Those that they were trained with.
    tensors
        Those of the checkpoint whose names begin with "policy".
    values
        Lookahead of the episodes to be played; None: computed where needed.

    Raises
    ------
    ValueError
        The tensors are of another architecture.
    """
    return actors_of(options, loaded_network(options, tensors), values)


def loaded_network(options: ActorOptions, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return the network of the actors of a checkpoint; parameters and errors as before."""
    network = actor_network(options, nodes_of_flat(tensors, "policy/rest.2.weight"))
    load_module(network, part_of(tensors, "policy"), "policy")
    return network
