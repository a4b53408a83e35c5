"""The networks that PPO can train, and who plays them.

    pairs       every node scores what it sees (`finecast.learners.networks.action_semantics`)
    sequence    given what the nodes before have decided (`finecast.learners.networks.sequence`)
    graph       after messages between nodes and users (`finecast.learners.networks.graph`)

All are played by `finecast.learners.algorithms.actors.Actors`. Only a sequence decodes anew in
every turn; the others add the scores of the nodes that have decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from finecast.learners.algorithms.actors import (
    ActorOptions,
    Actors,
    actor_network,
    actors_of,
    trained_actors,
)
from finecast.learners.algorithms.noise import MOST_NOISE
from finecast.learners.algorithms.set_values import Rows
from finecast.learners.networks.action_semantics import Embedded, Scores
from finecast.learners.networks.features import Features
from finecast.learners.networks.graph import CrowdObserver, GraphNetwork
from finecast.learners.networks.sequence import HEADS, SequenceNetwork
from finecast.learners.networks.whole import Cells
from finecast.learners.options import one_of
from finecast.learners.weights import load_module, part_of
from finecast.learners.world.environment import View
from finecast.learners.world.lookahead import Lookahead

ARCHITECTURES = ("pairs", "sequence", "graph")


class SequenceActors(Actors):
    """Actors of a sequence model: each decodes what those before it have decided, if any.

    Parameters
    ----------
    network
        What is encoded once a stage, and decoded in every turn.
    like
        Actors that are like these in all else.
    """

    network: SequenceNetwork
    encoded: Embedded
    """What the encoder made of the stage."""

    def __init__(self, network: SequenceNetwork, like: Actors) -> None:
        super().__init__(
            network,
            like.observer,
            temperature=like.temperature,
            in_turn=like.in_turn,
            rounds=like.rounds,
            generator=like.generator,
        )

    def pull(self, view: View, n: int | None) -> Tensor:
        """Return sources (E, J), or (E, N, J) for all nodes."""
        if n is not None:
            rows = Rows.where(self.look.seen.may_pull[:, n].any(dim=2))
            scores = self._decoded(n, rows, view.held & ~view.cached)
            learnt = torch.cat([scores.source, scores.nothing[..., None]], dim=-1)
            logits = self.look.logits[:, n]
            logits[rows.draw, rows.block] += learnt / self.temperature
        return super().pull(view, n)

    def keep(self, view: View, n: int | None) -> Tensor:
        """Return scores (E, J), or (E, N, J) for all nodes; all are positive."""
        if n is not None and not view.last:
            rows = Rows.where(self.look.seen.may_keep[:, n])
            scores = self._decoded(n, rows, view.others(n))
            logits = self.look.start[:, n].clone()
            logits[rows.draw, rows.block] += scores.keep[:, None] / self.temperature
            least = logits.amin(dim=(1, 2), keepdim=True)
            self.look.logits[:, n] = logits - least + MOST_NOISE
        return super().keep(view, n)

    def _scores(self, seen: Features) -> Scores:
        """Return 0 as a stage begins: every node adds what it decodes in its turn."""
        self.encoded = self.network.embed(seen)
        draws, nodes, blocks = seen.may_keep.shape
        zero = self.encoded.whole.new_zeros((draws, nodes, blocks, nodes + 1))
        company = zero[..., : nodes - 1, None].expand(-1, -1, -1, -1, 2)
        return Scores(zero[..., 0], zero[..., :nodes], zero[..., 0], company)

    def _decoded(self, n: int, rows: Rows, sets: Tensor) -> Scores:
        """Return the scores of rows of node n, given the node sets (E, J) that have joined."""
        cells = Cells(rows.draw, torch.full_like(rows.draw, n), rows.block)
        return self.network.at(self.encoded, cells, self._company(n, rows.pick(sets)))

    def _company(self, n: int, sets: Tensor) -> Tensor:
        """Return (..., N - 1): 1 the other node has joined, -1 it has not, 0 it is yet to decide.

        In the first round those before n have decided, in later rounds all have.
        """
        near = self.look.near[n]
        decided = (near < n) | (self._turns_in_stage >= len(near) + 1)
        return (2.0 * (sets[..., None] >> near & 1) - 1.0) * (decided & self.in_turn)

    def _note(
        self, keeping: bool, n: int, may: Tensor, others: Tensor, start: Tensor, noise: Tensor
    ) -> None:
        """Add what node n decided to `turns`, with what it knew of the decisions of others."""
        count = len(self.turns)
        super()._note(keeping, n, may, others, start, noise)
        self.turns[count:] = [
            replace(turn, company=self._company(n, turn.rows.pick(others)))
            for turn in self.turns[count:]
        ]


def check_architecture(options: ActorOptions, architecture: str) -> None:
    """Refuse a network that is unknown, or that the options do not allow.

    Raises
    ------
    ValueError
        Names the option, its value and what is allowed.
    """
    one_of("architecture", architecture, ARCHITECTURES)
    if architecture != "pairs" and not options.action_semantics:
        raise ValueError(
            f"action_semantics: false is not allowed with architecture {architecture!r}, "
            "must be true"
        )
    if architecture == "sequence" and options.width % HEADS:
        raise ValueError(
            f"width: {options.width} is not allowed with architecture 'sequence', "
            f"must be a multiple of {HEADS}"
        )


def network_of(options: ActorOptions, architecture: str, nodes: int) -> nn.Module:
    """Return a new network; only a flat one depends on the number of nodes."""
    if architecture == "sequence":
        return SequenceNetwork(options.width, options.embedding, zero_last=not options.raw)
    if architecture == "graph":
        return GraphNetwork(options.width, options.embedding, zero_last=not options.raw)
    return actor_network(options, nodes)


def players_of(
    options: ActorOptions,
    network: nn.Module,
    values: Lookahead | None,
    generator: Generator | None = None,
) -> Actors:
    """Return the actors of a network; with a generator they explore."""
    actors = actors_of(options, network, values, generator)
    if isinstance(network, SequenceNetwork):
        return SequenceActors(network, actors)
    if isinstance(network, GraphNetwork):
        actors.observer = CrowdObserver(options.lookahead, values, raw=options.raw)
    return actors


def trained_players(
    options: ActorOptions,
    architecture: str,
    tensors: Mapping[str, Tensor],
    values: Lookahead | None = None,
) -> Actors:
    """Return the actors of a checkpoint, as `finecast.learners.algorithms.actors.trained_actors`.

    Raises
    ------
    ValueError
        The tensors are of another architecture.
    """
    if architecture == "pairs":
        return trained_actors(options, tensors, values)
    network = network_of(options, architecture, 1)
    load_module(network, part_of(tensors, "policy"), "policy")
    return players_of(options, network, values)
