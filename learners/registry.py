"""The learners by name; a learner's module is imported on first use."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from types import ModuleType
from typing import Any

from finecast.learners.options import dataclass_from


@dataclass(frozen=True)
class LearnerKind:
    """A registered learner.

    Attributes
    ----------
    name
        What users call it.
    module
        Where it is, imported on first use.
    summary
        One line for people.
    reference
        Where it comes from.
    steps, every
        Default number of steps, and steps between held-out evaluations and checkpoints: a step of
        one learner is a batch of pairs, of another a batch of whole episodes.
    augmentation
        Where its synthetic draws come from by default
        (`finecast.learners.runs.config.SourceConfig`).
    preset
        Options whose defaults differ from those of the module.
    apart
        Module that trains nodes that decide apart, each on what it sees; its Config has
        `information`. Empty if there is none.
    apart_steps, apart_every
        As `steps` and `every`, where another module trains nodes that decide apart; 0: the same.
    """

    name: str
    module: str
    summary: str
    reference: str = ""
    steps: int = 20000
    every: int = 1000
    augmentation: str = "none"
    preset: Mapping[str, Any] = field(default_factory=dict)
    apart: str = ""
    apart_steps: int = 0
    apart_every: int = 0

    def length(self, information: str = "full") -> tuple[int, int]:
        """Return the default number of steps, and steps from one evaluation to the next."""
        apart = information != "full"
        return (
            (apart and self.apart_steps) or self.steps,
            (apart and self.apart_every) or self.every,
        )

    def load(self, information: str = "full") -> ModuleType:
        """Import the module that trains for what the nodes see."""
        return import_module(self.module if information == "full" else self.apart)

    def config(self, options: Mapping[str, Any], information: str = "full") -> Any:
        """Return the Config of the module: the user's options over the preset.

        Parameters
        ----------
        options
            By name.
        information
            What each node sees when it decides.

        Raises
        ------
        ValueError
            An option is unknown, of another kind, or out of range, or the learner does not train
            for what the nodes see.
        """
        if information != "full" and not self.apart:
            able = ", ".join(kind.name for kind in LEARNERS if kind.apart)
            raise ValueError(
                f"information: {information!r} is not allowed with learner {self.name!r}, must be "
                f"'full'; learners for other structures: {able}"
            )
        config = self.load(information).Config
        given = {**self.preset, **options}
        if "information" in {item.name for item in fields(config)}:
            given = {**given, "information": information}
        return dataclass_from(config, given, "options")


LEARNERS = (
    LearnerKind(
        "maasn-da",
        "finecast.learners.algorithms.maasn",
        "decentralised actors with action semantics, value-decomposition critic, augmentation",
        "Fu et al., arXiv 2509.19341; Wang et al., Action Semantics Network, ICLR 2020",
        augmentation="echo-state",
        apart="finecast.learners.algorithms.apart_maasn",
    ),
    LearnerKind(
        "imitation",
        "finecast.learners.algorithms.imitation",
        "nodes that decide apart learn from a planner that sees everything",
        "Ross, Gordon, Bagnell, AISTATS 2011; Cho et al., arXiv 1406.1078",
        steps=200,
        every=20,
        apart="finecast.learners.algorithms.imitation",
    ),
    LearnerKind(
        "hindsight",
        "finecast.learners.algorithms.hindsight",
        "regression of marginal values in hindsight (privileged labels), added to those of mpc",
        "imitation on the learner's own states: Ross, Gordon, Bagnell, AISTATS 2011",
        steps=300,
        every=30,
    ),
    LearnerKind(
        "mappo",
        "finecast.learners.algorithms.ppo",
        "PPO, centralised critic",
        "Yu et al., arXiv 2103.01955",
        steps=100,
        every=10,
    ),
    LearnerKind(
        "ippo",
        "finecast.learners.algorithms.ppo",
        "PPO, a critic for every node",
        "de Witt et al., arXiv 2011.09533",
        steps=100,
        every=10,
        preset={"centralised": False},
    ),
    LearnerKind(
        "happo",
        "finecast.learners.algorithms.ppo",
        "PPO, nodes updated one after another",
        "Kuba et al., ICLR 2022, arXiv 2109.11251",
        steps=100,
        every=10,
        preset={"node_by_node": True, "epochs": 1},
    ),
    LearnerKind(
        "mat",
        "finecast.learners.algorithms.ppo",
        "PPO, a sequence model over the nodes",
        "Wen et al., Multi-Agent Transformer, NeurIPS 2022, arXiv 2205.14953",
        steps=100,
        every=10,
        preset={"architecture": "sequence"},
    ),
    LearnerKind(
        "graph",
        "finecast.learners.algorithms.ppo",
        "PPO, a graph network over nodes and users; decided apart, by the critic of maasn-da",
        "Gilmer et al., ICML 2017, arXiv 1704.01212",
        steps=100,
        every=10,
        preset={"architecture": "graph"},
        apart="finecast.learners.algorithms.apart_maasn",
        apart_steps=20000,
        apart_every=1000,
    ),
    LearnerKind(
        "qmix",
        "finecast.learners.algorithms.qmix",
        "values of node sets, monotonic mixing",
        "Rashid et al., arXiv 2003.08839",
        steps=200,
        every=10,
    ),
    LearnerKind(
        "vdn",
        "finecast.learners.algorithms.qmix",
        "values of node sets, summed over nodes",
        "Sunehag et al., arXiv 1706.05296",
        steps=200,
        every=10,
        preset={"mixing": "sum"},
    ),
    LearnerKind(
        "dcg",
        "finecast.learners.algorithms.qmix",
        "values of node sets, summed over nodes and pairs of nodes: a coordination graph",
        "Boehmer, Kurin, Whiteson, ICML 2020, arXiv 1910.00091",
        steps=200,
        every=10,
        preset={"mixing": "sum", "pairs": True},
    ),
)


def learner_kind(name: str) -> LearnerKind:
    """Return a learner by name.

    Raises
    ------
    ValueError
        There is no such learner; the nearest name is suggested.
    """
    table = {kind.name: kind for kind in LEARNERS}
    if name not in table:
        near = difflib.get_close_matches(name, table, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known learners: {', '.join(table)}"
        raise ValueError(f"learner: {name!r} is unknown; {hint}")
    return table[name]
