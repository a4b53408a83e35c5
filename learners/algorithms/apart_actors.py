"""Actors that decide apart: all nodes at once, each on its beliefs, one network.

Misses come by the best chain level of the slot. What is kept follows from the scores of
`finecast.learners.networks.apart`; the environment fills every storage in their order. The plan
that the scores rest on is the joint keep rule on what all nodes see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator, Tensor

from finecast.learners.algorithms.noise import logistic
from finecast.learners.networks.apart import ApartNetwork, Seen, seen_apart, seen_by_all
from finecast.learners.networks.apart_graph import GraphApartNetwork, with_users
from finecast.learners.options import MOST_WIDTH, at_least, one_of
from finecast.learners.weights import load_module, part_of
from finecast.learners.world.baselines import of_blocks
from finecast.learners.world.environment import NodePolicy, View, lookup, packed, unpacked
from finecast.learners.world.episodes import Slot
from finecast.solvers.heuristics.apart import PLAN_BONUS, kept_by_all

ARCHITECTURES = ("pairs", "graph")
"""Networks: of pairs of nodes, or with messages between nodes and users."""

APART = ("full", "delayed", "local")
"""Information structures that learners train for."""

LEAST_SCORE = 1.0
"""Scores are raised to this at least: whatever fits may be kept."""


@dataclass(frozen=True)
class ApartOptions:
    """Options of actors that decide apart.

    Attributes
    ----------
    width, embedding, memory
        Of the hidden layers, of what is seen of a neighbour, and of the memory of a block.
    action_semantics
        Inner products with what is seen of each neighbour; else their mean beside the rest.
    bonus
        Of a planned copy at the start, in units of what a byte here saves on average.
    information
        What the nodes see: "full", "delayed" or "local".
    architecture
        "pairs": what a node sees of each other one (`finecast.learners.networks.apart`). "graph":
        messages between the nodes and the users that it sees
        (`finecast.learners.networks.apart_graph`).
    """

    width: int = 64
    embedding: int = 32
    memory: int = 32
    action_semantics: bool = True
    bonus: float = PLAN_BONUS
    information: str = "delayed"
    architecture: str = "pairs"

    @property
    def beliefs(self) -> str:
        """What episodes must have beliefs for."""
        return self.information

    def __post_init__(self) -> None:
        at_least(self, 1, "width", "embedding", "memory", most=MOST_WIDTH)
        at_least(self, 0, "bonus")
        one_of("information", self.information, APART)
        check_apart_architecture(self.architecture, self.action_semantics)


@dataclass(frozen=True, eq=False)
class Shown:
    """What the network was shown in a slot.

    Attributes
    ----------
    slot
        The slot.
    seen
        What all nodes saw.
    memory
        (E, N, J, D) before the slot.
    """

    slot: Slot
    seen: Seen
    memory: Tensor


class ApartActors(NodePolicy):
    """All nodes' policies.

    Parameters
    ----------
    network
        Scores and memory.
    information
        What the nodes see: "full", "delayed" or "local".
    temperature
        Of the noise on the scores, in units, where the nodes explore.
    generator
        For exploration; None for the best actions.
    shown
        Where to note what the network is shown; None not to.
    """

    in_turn = False
    rounds = 1

    memory: Tensor | None = None
    """(E, N, J, D) after the last slot; None before the first."""

    def __init__(
        self,
        network: ApartNetwork,
        information: str,
        *,
        temperature: float = 0.0,
        generator: Generator | None = None,
        shown: list[Shown] | None = None,
    ) -> None:
        self.network = network
        self.information = information
        self.temperature = temperature
        self.generator = generator
        self.shown = shown

    def begin(self, view: View) -> None:
        """Forget everything when an episode begins."""
        if not view.keeping and view.slot.t == 0:
            self.memory = None

    def pull(self, view: View, n: int | None) -> None:
        """Leave it to the best chain levels."""
        return

    def keep(self, view: View, n: int | None) -> Tensor:
        """Return scores (E, N, J) of all nodes; all are positive."""
        slot = view.slot
        if view.last:  # nothing comes after it: whatever fits
            return torch.ones((slot.draws, slot.nodes, slot.blocks), device=view.held.device)
        seen = seen_apart(slot, view.cached, view.held, plan_of(view, self.information))
        if isinstance(self.network, GraphApartNetwork):
            seen = with_users(seen, slot)
        memory = self.network.begin(seen) if self.memory is None else self.memory
        if self.shown is not None:
            self.shown.append(Shown(slot, seen, memory))
        with torch.no_grad():
            scores, self.memory = self.network(seen, memory)
        if self.generator is not None:
            noise = logistic(scores.shape, self.generator).to(scores.device)
            scores = scores + self.temperature * noise
        raised: Tensor = scores - scores.amin(dim=2, keepdim=True) + LEAST_SCORE
        return raised


def plan_of(view: View, information: str) -> Tensor:
    """Return (E, J) int64 node sets, the joint rule on what all nodes see.

    Held is what they all know to be held, if they see everything, else what they foresee.
    """
    slot, beliefs = view.slot, view.slot.beliefs
    if beliefs is None:
        raise ValueError("episodes: have no beliefs, must be drawn with an information structure")
    held = view.held
    if information != "full":
        held = lookup(beliefs.foreseen.long(), slot.kind, seen_by_all(slot, view.cached))
    there = unpacked(torch.where(slot.real, held, 0), slot.nodes).cpu().numpy()
    cost = of_blocks(slot, beliefs.cost[:, 0]).double().cpu().numpy()
    size, storage = slot.size.long().cpu().numpy(), slot.storage.long().cpu().numpy()
    draws = zip(cost, there, size, storage, strict=True)
    kept = np.stack([kept_by_all(*draw) for draw in draws])
    return packed(torch.from_numpy(kept).to(held.device))


def check_apart_architecture(architecture: str, action_semantics: bool) -> None:
    """Refuse a network that is unknown, or a graph without action semantics.

    Raises
    ------
    ValueError
        Names the option, its value and what is allowed.
    """
    one_of("architecture", architecture, ARCHITECTURES)
    if architecture == "graph" and not action_semantics:
        raise ValueError(
            "action_semantics: false is not allowed with architecture 'graph', must be true"
        )


def apart_network(options: ApartOptions) -> ApartNetwork:
    """Return the network of new actors."""
    if options.architecture == "graph":
        return GraphApartNetwork(
            options.width, options.embedding, options.memory, bonus=options.bonus
        )
    return ApartNetwork(
        options.width,
        options.embedding,
        options.memory,
        action_semantics=options.action_semantics,
        bonus=options.bonus,
    )


def trained_apart(options: ApartOptions, tensors: Mapping[str, Tensor]) -> ApartActors:
    """Return the actors of a checkpoint.

    Raises
    ------
    ValueError
        The tensors are of another architecture.
    """
    network = apart_network(options)
    load_module(network, part_of(tensors, "policy"), "policy")
    return ApartActors(network, options.information)
