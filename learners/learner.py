"""What a learner is: one update at a time, a state that can be saved, a policy that can be played.

A learner is a module with three names, found by `LEARNERS` and imported when asked for:

    Config                                  frozen dataclass of its options, all with defaults
    start(config, source, *, seed, device)  -> Learner, at step 0
    policy(config, tensors, values=None)    -> TrainedPolicy of the tensors of a checkpoint

`finecast.learners.runs.training.train` does the rest: steps, log, held-out evaluation, checkpoints,
resume.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import Module
from torch.optim import Optimizer

from finecast.learners.world.environment import NodePolicy, Rollout, roll
from finecast.learners.world.episodes import Episodes
from finecast.learners.world.lookahead import Lookahead

Part = Module | Optimizer | Generator


class TrainedPolicy(NodePolicy, Protocol):
    """A node policy that says how it wants to be played.

    Attributes
    ----------
    in_turn, rounds
        As in `finecast.learners.world.environment.roll`.
    """

    @property
    def in_turn(self) -> bool:
        """Whether the nodes decide in turn."""

    @property
    def rounds(self) -> int:
        """How often every node decides what to keep, if in turn."""


class Learner(Protocol):
    """What `finecast.learners.runs.training.train` drives."""

    def step(self) -> Mapping[str, float]:
        """Make one update; return what to log. A `loss` that is not finite stops the run."""

    def parts(self) -> Mapping[str, Part]:
        """Return what `step` changes and torch can save: networks, optimisers, generators.

        The networks that the policy needs have names that begin with "policy".
        """

    def extra(self) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
        """Return what else `step` changes: tensors (a replay, say) and JSON-able counters."""

    def load_extra(self, tensors: Mapping[str, Tensor], counters: Mapping[str, Any]) -> None:
        """Take back what `extra` returned."""

    def policy(self, values: Lookahead | None = None) -> TrainedPolicy:
        """Return the policy as it stands, without exploration.

        Parameters
        ----------
        values
            Lookahead of all slots of the episodes that it is to play; None: it computes its own,
            if it uses any.
        """


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
    """

    name: str
    module: str
    summary: str
    reference: str = ""
    steps: int = 20000
    every: int = 1000
    augmentation: str = "none"

    def load(self) -> ModuleType:
        """Import the module."""
        return import_module(self.module)


LEARNERS = (
    LearnerKind(
        "maasn-da",
        "finecast.learners.algorithms.maasn",
        "decentralised actors with action semantics, value-decomposition critic, augmentation",
        "Fu et al., arXiv 2509.19341; Wang et al., Action Semantics Network, ICLR 2020",
        augmentation="echo-state",
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
        "finecast.learners.algorithms.ippo",
        "PPO, a critic for every node",
        "de Witt et al., arXiv 2011.09533",
        steps=100,
        every=10,
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
        "finecast.learners.algorithms.vdn",
        "values of node sets, summed over nodes",
        "Sunehag et al., arXiv 1706.05296",
        steps=200,
        every=10,
    ),
    LearnerKind(
        "dcg",
        "finecast.learners.algorithms.dcg",
        "values of node sets, summed over nodes and pairs of nodes: a coordination graph",
        "Boehmer, Kurin, Whiteson, ICML 2020, arXiv 1910.00091",
        steps=200,
        every=10,
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


def play(episodes: Episodes, policy: TrainedPolicy) -> Rollout:
    """Play all slots of all draws as the policy wants it, without gradients."""
    with torch.no_grad():
        return roll(episodes, policy, in_turn=policy.in_turn, rounds=policy.rounds)


def follow(slow: Module, fast: Module, rate: float) -> None:
    """Move the weights of one network a share of the way to those of another."""
    with torch.no_grad():
        for one, other in zip(slow.parameters(), fast.parameters(), strict=True):
            one.lerp_(other, rate)


def seeded(seed: int, *names: str) -> Generator:
    """Return a generator that depends on the seed and the names of what it is for."""
    words = [seed, *(int.from_bytes(name.encode()[:16], "big") for name in names)]
    state = np.random.SeedSequence(words).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state))


def tensors_of(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """Return the tensors of networks, optimisers and generators, by part and name."""
    tensors: dict[str, Tensor] = {}
    for name, part in parts.items():
        if isinstance(part, Module):
            found = dict(part.state_dict())
        elif isinstance(part, Generator):
            found = {"state": part.get_state()}
        else:
            found = {
                f"{index}.{key}": value
                for index, moments in part.state_dict()["state"].items()
                for key, value in moments.items()
            }
        tensors |= {f"{name}/{key}": value.detach().cpu() for key, value in found.items()}
    return tensors


def load_tensors(parts: Mapping[str, Part], tensors: Mapping[str, Tensor]) -> None:
    """Take back what `tensors_of` returned.

    Raises
    ------
    ValueError
        A tensor is missing, unknown, or of another shape: another architecture.
    """
    for name, part in parts.items():
        found = {
            key.removeprefix(f"{name}/"): value
            for key, value in tensors.items()
            if key.startswith(f"{name}/")
        }
        if isinstance(part, Module):
            load_module(part, found, name)
        elif isinstance(part, Generator):
            if "state" not in found:
                raise ValueError(f"{name}/state: is missing")
            part.set_state(found["state"])
        else:
            moments: dict[int, dict[str, Tensor]] = {}
            for key, value in found.items():
                index, _, moment = key.partition(".")
                moments.setdefault(int(index), {})[moment] = value
            part.load_state_dict({**part.state_dict(), "state": moments})


def load_module(module: Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Load a network, refusing what does not fit it in one line.

    Raises
    ------
    ValueError
        A tensor is missing, unknown, or of another shape.
    """
    expected = module.state_dict()
    for key in expected.keys() ^ tensors.keys():
        what = "is missing" if key in expected else "is unknown"
        raise ValueError(f"tensor {name}/{key}: {what}: another architecture")
    for key, value in tensors.items():
        if value.shape != expected[key].shape:
            raise ValueError(
                f"tensor {name}/{key}: has shape {tuple(value.shape)}, must have "
                f"{tuple(expected[key].shape)}: another architecture"
            )
    module.load_state_dict(dict(tensors))
