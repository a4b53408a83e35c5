"""A run that starts from another one's policy: fine-tuning, or actors that begin as imitators.

A policy of the same learner is taken as it is. A policy of `hindsight` can start the actors of
`maasn-da`, `mappo`, `ippo` and `happo`: both say by how much the tables are off, in the same units.
Where nodes decide apart, a policy of `imitation` can start `maasn-da`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import Module

from finecast.learners.learner import Learner
from finecast.learners.runs.checkpoints import POLICY, read_checkpoint
from finecast.learners.weights import load_module, part_of
from finecast.problem.files import FormatError
from finecast.problem.shipped import find

IMITATORS = ("maasn-da", "mappo", "ippo", "happo")
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


def read_start(path: str | Path, name: str, options: Any) -> Start:
    """Return the policy of a checkpoint that a learner may start from.

    Parameters
    ----------
    path
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
    folder = find(path, "checkpoint")
    header = folder / f"{POLICY}.json" if folder.is_dir() else folder
    checkpoint = read_checkpoint(header)
    apart = checkpoint.learner == "imitation" and name == "maasn-da"
    imitated = apart or (checkpoint.learner == "hindsight" and name in IMITATORS)
    if checkpoint.learner != name and not imitated:
        allowed = "hindsight or its own kind" if name in IMITATORS else "its own kind"
        raise ValueError(
            f"warm_start: {header} is of {checkpoint.learner!r}; {name!r} starts from {allowed}"
        )
    information = getattr(options, "information", "full")
    if checkpoint.options.get("information", "full") != information:
        known = checkpoint.options.get("information", "full")
        raise ValueError(
            f"warm_start: {header} has information = {known!r}, "
            f"so information must be {known!r} too"
        )
    # What was learned over other tables than those that the learner starts at is of no use.
    if checkpoint.options.get("lookahead", False) != getattr(options, "lookahead", False):
        known = str(checkpoint.options.get("lookahead")).lower()
        raise ValueError(
            f"warm_start: {header} has lookahead = {known}, "
            f"so options.lookahead must be {known} too"
        )
    return Start(header, part_of(checkpoint.tensors, "policy"))


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
