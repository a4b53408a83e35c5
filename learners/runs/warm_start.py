"""A run that starts from another one's policy: fine-tuning, or actors that begin as imitators.

A policy of the same learner is taken as it is. A policy of `hindsight` can start the actors of
`maasn-da`, `mappo` and `ippo`: both say by how much the tables are off, in the same units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module

from finecast.learners.learner import Learner
from finecast.learners.runs.checkpoints import POLICY, Checkpoint, read_checkpoint
from finecast.learners.weights import load_module
from finecast.problem.files import FormatError
from finecast.problem.shipped import find

TABLES = {"hindsight": "mpc"}
"""Options that say whether the tables of `mpc` are the base, where not `lookahead`."""

IMITATORS = ("maasn-da", "mappo", "ippo")
"""Learners whose actors can start from a policy of `hindsight`."""


@dataclass(frozen=True, eq=False)
class Start:
    """A policy to start from.

    Attributes
    ----------
    header
        Path of its checkpoint's header.
    state
        Tensors of its network.
    """

    header: Path
    state: Mapping[str, Tensor]


def read_start(checkpoint: str | Path, name: str, options: Any) -> Start:
    """Return the policy of a checkpoint that a learner may start from.

    Parameters
    ----------
    checkpoint
        The folder of a run (its best policy), a header in it, or the name of a shipped checkpoint.
    name, options
        Registered name and Config of the learner that is to start.

    Raises
    ------
    FormatError
        The checkpoint is bad.
    ValueError
        It is of a learner, or over tables, that this one cannot start from.
    """
    path = find(checkpoint, "checkpoint")
    header = path / f"{POLICY}.json" if path.is_dir() else path
    found = read_checkpoint(header)
    imitated = found.learner == "hindsight" and name in IMITATORS
    if found.learner != name and not imitated:
        allowed = "hindsight or its own kind" if name in IMITATORS else "its own kind"
        raise ValueError(
            f"warm_start: {header} is of {found.learner!r}; {name!r} starts from {allowed}"
        )
    _check_tables(found, name, options, header)
    state = {
        key.removeprefix("policy/"): tensor
        for key, tensor in found.tensors.items()
        if key.startswith("policy/")
    }
    return Start(header, state)


def start_from(learner: Learner, start: Start) -> None:
    """Load a policy into a learner at step 0.

    Every network of the learner that is built as its policy starts there: target networks and
    running averages too.

    Raises
    ------
    FormatError
        It is of another architecture.
    """
    parts = learner.parts()
    policy = parts["policy"]
    assert isinstance(policy, Module)
    try:
        load_module(policy, start.state, "policy")
    except ValueError as error:
        raise FormatError(start.header, str(error)) from None
    for part in parts.values():
        if isinstance(part, Module) and part.state_dict().keys() == start.state.keys():
            load_module(part, start.state, "policy")


def _check_tables(found: Checkpoint, name: str, options: Any, header: Path) -> None:
    """Refuse what was learned over other tables than those that the learner starts at."""
    theirs, mine = (TABLES.get(one, "lookahead") for one in (found.learner, name))
    used = found.options.get(theirs)
    if used != getattr(options, mine):
        known = str(used).lower()
        raise ValueError(
            f"warm_start: {header} has {theirs} = {known}, so options.{mine} must be {known} too"
        )
