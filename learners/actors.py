"""Actors: every node scores its actions from what it sees; Gumbel noise where they explore.

    pull     logits of nothing, of every other node that has the block, and of the cloud
    keep     one logit a block; what fits the storage is kept in falling order of the logits

Logits are a start plus what the network has learnt. The start pulls by the best chain level of the
slot and keeps by expected saving per byte, as the methods `rolling` or `mpc` do. A logit of keeping
stands for (saving - price of storage) / temperature: what maximises expected saving plus
temperature times entropy, and so ranks blocks by what they save.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Generator, Tensor, nn

from learners.environment import View
from learners.features import CLOUD, NEIGHBOUR, OWN, Features
from learners.learner import load_module
from learners.lookahead import Lookahead
from learners.networks import Scores, action_network
from learners.observer import Observer
from learners.set_critic import Rows

BEST_LEVEL = 4.0
"""Logit at the start of what the best level of the slot does, over that of anything else."""

_IN_BEST = OWN.index("in the best level of the slot")
_SAVED_NEXT = OWN.index("saved by a copy here, coming slot 1")
_SAVED_AHEAD = OWN.index("lookahead: saved by keeping, before rent")
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
    start
        Logits without the network: (R,) of keeping, (R, N + 1) of pulling.
    noise
        Of the same shape: logistic, or Gumbel.
    """

    keeping: bool
    node: int
    rows: Rows
    seen: Features
    start: Tensor
    noise: Tensor


class Actors:
    """All nodes' policies, one network.

    Parameters
    ----------
    network
        Features to Scores.
    observer
        Makes the features.
    temperature
        Units of saving per byte that a logit stands for.
    in_turn, rounds
        As in `learners.environment.roll`.
    generator
        For exploration, of which `turns` then tells; None: the best actions.
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

    def pull(self, view: View, n: int | None) -> Tensor:
        """Return sources (E, J), or (E, N, J) for all nodes."""
        if n is None:
            return torch.stack([self.pull(view, m) for m in range(view.slot.nodes)], dim=1)
        seen = self.observer(view, n)
        rows = Rows.where(seen.may_pull.any(dim=2))
        source = torch.full_like(view.cached, -1)
        if not len(rows.draw):
            return source
        some = take(seen, rows)
        start = pull_start(some, n)
        logits = start + pull_logits(self.network(some))
        noise = self._noise(logits)
        noise = -torch.log(torch.log1p(torch.exp(-noise)))  # Gumbel, if the noise is logistic
        choice = (logits + noise * (self.generator is not None)).argmax(dim=1)
        names = torch.tensor([*_without(n, view.slot.nodes), view.slot.nodes, -1])
        source[rows.draw, rows.block] = names.to(choice.device)[choice]
        if self.generator is not None:
            self.turns.append(Turn(False, n, rows, some, start, noise))
        return source

    def keep(self, view: View, n: int | None) -> Tensor:
        """Return scores (E, J), or (E, N, J) for all nodes; all are positive."""
        if n is None:
            return torch.stack([self.keep(view, m) for m in range(view.slot.nodes)], dim=1)
        slot = view.slot
        held = (view.held >> n & 1).bool() & slot.real
        score = torch.ones(held.shape, device=held.device)
        if slot.t == slot.slots - 1:  # nothing comes after the last slot
            return score
        seen = self.observer(view, n)
        rows = Rows.where(held)
        if not len(rows.draw):
            return score
        some = take(seen, rows)
        start = self.keep_start(some)
        noise = self._noise(start)
        logits = start + self.network(some).keep + noise
        score = score.index_put((rows.draw, rows.block), 1.0 + logits - logits.amin())
        if self.generator is not None:
            self.turns.append(Turn(True, n, rows, some, start, noise))
        return score

    def keep_start(self, seen: Features) -> Tensor:
        """Return (R,) logits of keeping at the start: expected saving over the temperature."""
        column = _SAVED_AHEAD if self.observer.lookahead else _SAVED_NEXT
        return seen.own[:, column] / self.temperature

    def _noise(self, like: Tensor) -> Tensor:
        """Return logistic noise, or 0 without exploration."""
        if self.generator is None:
            return torch.zeros_like(like)
        uniform = torch.rand(like.shape, generator=self.generator).clamp(1e-6, 1.0 - 1e-6)
        return torch.logit(uniform).to(like.device)


def take(seen: Features, rows: Rows) -> Features:
    """Return what a node sees of some (draw, block) pairs."""
    return Features(
        own=rows.of(seen.own),
        neighbour=rows.of(seen.neighbour),
        cloud=rows.of(seen.cloud),
        state=seen.state[rows.draw],
        real=rows.of(seen.real),
        may_pull=rows.of(seen.may_pull),
        may_keep=rows.of(seen.may_keep),
    )


def pull_start(seen: Features, n: int) -> Tensor:
    """Return (R, N + 1) logits of pulling at the start: what the best level of the slot does.

    The other nodes in their order, the cloud, nothing; minus infinity where not allowed.
    """
    best = seen.own[:, _IN_BEST, None]
    fastest = torch.cat(
        [seen.neighbour[:, :, _FASTEST_NODE], seen.cloud[:, _FASTEST_CLOUD, None]], dim=1
    )
    may = without_own(seen.may_pull, n)
    source = torch.where(may, BEST_LEVEL * best * fastest, -torch.inf)
    return torch.cat([source, BEST_LEVEL * (1.0 - best)], dim=1)


def pull_logits(scores: Scores) -> Tensor:
    """Return (R, N + 1) what the network adds to `pull_start`."""
    return torch.cat([scores.source, scores.nothing[:, None]], dim=1)


def without_own(by_number: Tensor, n: int) -> Tensor:
    """Return (R, N - 1 + ...) from (R, N + ...) by number of the node, without node n itself."""
    return torch.cat([by_number[:, :n], by_number[:, n + 1 :]], dim=1)


def _without(n: int, nodes: int) -> list[int]:
    return [m for m in range(nodes) if m != n]


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
    heads = tensors.get("policy/rest.2.weight")  # of a flat network: two and one for each source
    network = actor_network(config, 1 if heads is None else len(heads) - 2)
    found = {k.removeprefix("policy/"): v for k, v in tensors.items() if k.startswith("policy/")}
    load_module(network, found, "policy")
    return actors_of(config, network, values)
