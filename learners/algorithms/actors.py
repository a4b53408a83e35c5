"""Actors: every node scores its actions from what it sees; Gumbel noise where they explore.

    pull     logits of nothing, of every other node that has the block, and of the cloud
    keep     one logit a block; what fits the storage is kept in falling order of the logits

Logits are a start plus what the network has learnt, in units of saving per byte, over the
temperature. The start pulls by the best chain level of the
slot and keeps by expected saving per byte, as the methods `rolling` or `mpc` do. A logit of keeping
stands for (saving - price of storage) / temperature: what maximises expected saving plus
temperature times entropy, and so ranks blocks by what they save.

The network looks once in every stage, for all nodes. In turn, a node adds what those before it have
decided: to the start by looking the saving up that is left, to what is learnt by the scores
`company` of the nodes that receive or keep the block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from finecast.learners.algorithms.set_values import Rows, unit_of
from finecast.learners.networks.action_semantics import Scores, action_network
from finecast.learners.networks.features import CLOUD, NEIGHBOUR, OWN, Features
from finecast.learners.networks.observer import Observer
from finecast.learners.weights import load_module
from finecast.learners.world.environment import View, near_nodes
from finecast.learners.world.lookahead import Lookahead

BEST_LEVEL = 4.0
"""Logit at the start of what the best level of the slot does, over that of anything else."""

MOST_NOISE = 15.0
"""Logistic noise is less: its uniform is at least 1e-6."""

_IN_BEST = OWN.index("in the best level of the slot")
_FASTEST_NODE = NEIGHBOUR.index("is the fastest source")
_FASTEST_CLOUD = CLOUD.index("is the fastest source")


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


@dataclass(eq=False)
class Look:
    """What the network says in one stage of a slot, for all nodes.

    Attributes
    ----------
    key
        The node sets (E, J) at its beginning.
    keeping
        What to keep, else what to pull.
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
    turn
        Turns taken.
    """

    key: Tensor
    keeping: bool
    seen: Features
    near: Tensor
    start: Tensor
    logits: Tensor
    company: Tensor
    turn: int = 0


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
        For exploration, of which `turns` then tells: the pulls and the last round of keeping. None:
        the best actions.
    """

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
        self._last: Look | None = None

    @property
    def seen(self) -> Features:
        """What all nodes saw at the beginning of the stage that was played last."""
        assert self._last is not None
        return self._last.seen

    def pull(self, view: View, n: int | None) -> Tensor:
        """Return sources (E, J), or (E, N, J) for all nodes."""
        if n is None:
            return torch.stack([self.pull(view, m) for m in range(view.slot.nodes)], dim=1)
        look = self._look(view)
        joined = view.held & ~view.cached
        logits = look.logits[:, n].clone()
        logits[..., -1] += (look.company[:, n] * _in_sets(joined, look.near[n])).sum(dim=2)
        if self.generator is not None:
            may = look.seen.may_pull[:, n].any(dim=2)
            noise = gumbel_noise(logits.shape, self.generator).to(logits.device)
            logits = logits + noise
            self._tell(look, n, may, joined, look.start[:, n], noise)
        names = source_names(view.slot.nodes, logits.device)[n]
        return names[logits.argmax(dim=2)]

    def keep(self, view: View, n: int | None) -> Tensor:
        """Return scores (E, J), or (E, N, J) for all nodes; all are positive."""
        if n is None:
            return torch.stack([self.keep(view, m) for m in range(view.slot.nodes)], dim=1)
        slot = view.slot
        if slot.t == slot.slots - 1:  # nothing comes after the last slot
            return torch.ones(view.held.shape, device=view.held.device)
        look = self._look(view)
        others = view.others(n)
        logits = look.logits[:, n].gather(2, others[..., None])[..., 0]
        if self.generator is not None:
            may = look.seen.may_keep[:, n]
            noise = logistic(may.shape, self.generator).to(may.device)
            logits = logits + noise
            if look.turn >= (self.rounds - 1) * slot.nodes:
                start = look.start[:, n].gather(2, others[..., None])[..., 0]
                self._tell(look, n, may, others, start, noise)
        look.turn += 1
        return logits

    def _look(self, view: View) -> Look:
        """Return what the network says in the stage of the view."""
        key = view.held if view.keeping else view.cached
        last = self._last
        if last is None or key is not last.key or last.keeping != view.keeping:
            seen = self.observer(replace(view, in_turn=False), None)
            near = near_nodes(view.slot.nodes, key.device)
            make = self._keeping if view.keeping else self._pulling
            last = self._last = make(view, seen, self.network(seen), near)
        return last

    def _pulling(self, view: View, seen: Features, scores: Scores, near: Tensor) -> Look:
        start = pull_start(seen)
        learnt = torch.cat([scores.source, scores.nothing[..., None]], dim=-1)
        logits, company = start + learnt / self.temperature, scores.company[..., 0]
        return Look(view.cached, False, seen, near, start, logits, company / self.temperature)

    def _keeping(self, view: View, seen: Features, scores: Scores, near: Tensor) -> Look:
        slot, values = view.slot, self.observer.values(view)
        sets = torch.arange(1 << slot.nodes, device=near.device)
        bit = (1 << torch.arange(slot.nodes, device=near.device))[:, None]
        cost = slot.worth[:, 0] if values is None else values.cost
        scale = unit_of(slot)[:, None, None] * self.temperature
        of_block = (cost / scale).float()[
            torch.arange(slot.draws, device=near.device)[:, None], slot.kind
        ]  # (E, J, S)
        saved = of_block[:, :, sets & ~bit] - of_block[:, :, sets | bit]
        start = saved.transpose(1, 2)  # (E, N, J, S)
        company = scores.company[..., 1] @ _in_sets(sets, near[:, None]).transpose(1, 2)
        logits = start + (scores.keep[..., None] + company) / self.temperature
        logits = logits - logits.amin(dim=(1, 2, 3), keepdim=True) + MOST_NOISE
        return Look(view.held, True, seen, near, start, logits, company)

    def _tell(
        self, look: Look, n: int, may: Tensor, others: Tensor, start: Tensor, noise: Tensor
    ) -> None:
        """Note a turn."""
        rows = Rows.where(may)
        if len(rows.draw):
            seen, company = take(look.seen, rows, n), _in_sets(rows.of(others), look.near[n])
            turn = Turn(
                look.keeping, n, rows, seen, others, company, rows.of(start), rows.of(noise)
            )
            self.turns.append(turn)


def logistic(size: Sequence[int], generator: Generator) -> Tensor:
    """Return logistic noise, less than MOST_NOISE."""
    return torch.logit(_uniform(size, generator))


def gumbel_noise(size: Sequence[int], generator: Generator) -> Tensor:
    """Return Gumbel noise."""
    return -torch.log(-torch.log(_uniform(size, generator)))


def _uniform(size: Sequence[int], generator: Generator) -> Tensor:
    return torch.rand(tuple(size), generator=generator).clamp(1e-6, 1.0 - 1e-6)


def _in_sets(sets: Tensor, nodes: Tensor) -> Tensor:
    """Return (..., M) float32, 1 for the nodes (M,) that are in the node sets (...)."""
    return (sets[..., None] >> nodes & 1).float()


def take(seen: Features, rows: Rows, n: int) -> Features:
    """Return what node n sees of some (draw, block) pairs, from the features of all nodes."""
    at = (rows.draw, n, rows.block)
    return Features(
        own=seen.own[at],
        neighbour=seen.neighbour[at],
        cloud=seen.cloud[at],
        state=seen.state[rows.draw],
        real=rows.of(seen.real),
        may_pull=seen.may_pull[at],
        may_keep=seen.may_keep[at],
    )


def pull_start(seen: Features) -> Tensor:
    """Return (E, N, J, N + 1) logits of pulling at the start: what the best level of the slot does.

    The other nodes in their order, the cloud, nothing; minus infinity where not allowed.
    """
    best = seen.own[..., _IN_BEST, None]
    fastest = torch.cat(
        [seen.neighbour[..., _FASTEST_NODE], seen.cloud[..., _FASTEST_CLOUD, None]], dim=-1
    )
    names = source_names(best.shape[1], best.device)[:, None, :-1]
    may = seen.may_pull.gather(3, names.expand_as(fastest))
    source = torch.where(may, BEST_LEVEL * best * fastest, -torch.inf)
    return torch.cat([source, BEST_LEVEL * (1.0 - best)], dim=-1)


def source_names(nodes: int, device: torch.device) -> Tensor:
    """Return (N, N + 1) the sources by the order of the logits: other nodes, the cloud, nothing."""
    rest = torch.tensor([[nodes, -1]], device=device).expand(nodes, -1)
    return torch.cat([near_nodes(nodes, device), rest], dim=1)


def pull_logits(scores: Scores, company: Tensor, temperature: float) -> Tensor:
    """Return (R, N + 1) what the network adds to `pull_start`, with the company (R, N - 1)."""
    nothing = scores.nothing + (scores.company[..., 0] * company).sum(dim=-1)
    return torch.cat([scores.source, nothing[..., None]], dim=-1) / temperature


def keep_logits(scores: Scores, company: Tensor, temperature: float) -> Tensor:
    """Return (R,) what the network adds to the start of keeping, with the company (R, N - 1)."""
    return (scores.keep + (scores.company[..., 1] * company).sum(dim=-1)) / temperature


class ActorConfig(Protocol):
    """Options that actors have in common, whoever trains them."""

    @property
    def action_semantics(self) -> bool:
        """Inner products per neighbour, else a flat network."""

    @property
    def width(self) -> int:
        """Of the hidden layers."""

    @property
    def embedding(self) -> int:
        """Size of the embeddings."""

    @property
    def lookahead(self) -> bool:
        """Whether the nodes see the values of `mpc`."""

    @property
    def temperature(self) -> float:
        """Units of saving that a logit stands for."""

    @property
    def in_turn(self) -> bool:
        """Whether the nodes decide in turn."""

    @property
    def rounds(self) -> int:
        """How often every node decides what to keep, if in turn."""


def actor_network(config: ActorConfig, nodes: int) -> nn.Module:
    """Return the network of new actors; only a flat one depends on the number of nodes."""
    return action_network(
        action_semantics=config.action_semantics,
        nodes=nodes,
        width=config.width,
        embedding=config.embedding,
        zero_last=True,
    )


def actors_of(config: ActorConfig, network: nn.Module, values: Lookahead | None) -> Actors:
    """Return the actors of a network, without exploration."""
    return Actors(
        network,
        Observer(config.lookahead, values),
        temperature=config.temperature,
        in_turn=config.in_turn,
        rounds=config.rounds if config.in_turn else 1,
    )


def trained_actors(
    config: ActorConfig, tensors: Mapping[str, Tensor], values: Lookahead | None = None
) -> Actors:
    """Return the actors of a checkpoint.

    Parameters
    ----------
    config
        Options they were trained with.
    tensors
        Those of the checkpoint whose names begin with "policy".
    values
        Lookahead of the episodes to be played; None: computed where needed.

    Raises
    ------
    ValueError
        The tensors are of another architecture.
    """
    heads = tensors.get("policy/rest.2.weight")  # of a flat network, 3 N
    network = actor_network(config, 1 if heads is None else len(heads) // 3)
    found = {k.removeprefix("policy/"): v for k, v in tensors.items() if k.startswith("policy/")}
    load_module(network, found, "policy")
    return actors_of(config, network, values)
