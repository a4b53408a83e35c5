"""A run that starts from another one's policy: fine-tuning, or actors that begin as imitators.

A policy of the same learner is taken as it is. A policy of `hindsight` can start the actors of
`maasn-da`, `mappo` and `ippo`: both say by how much the tables are off, in the same units.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch.nn import Module

from learners.checkpoints import POLICY, Checkpoint, read_checkpoint
from learners.learner import Learner, load_module
from problem.files import FormatError

TABLES = {"hindsight": "mpc"}
"""Options that say whether the tables of `mpc` are the base, where not `lookahead`."""

IMITATORS = ("maasn-da", "mappo", "ippo")
"""Learners whose actors can start from a policy of `hindsight`."""


def start_from(learner: Learner, name: str, options: Any, checkpoint: Path) -> None:
    """Load the policy of a checkpoint into a learner at step 0.

    Every network of the learner that is built as its policy starts there: target networks and
    running averages too.

    Parameters
    ----------
    learner
        At step 0.
    name, options
        Its registered name and its Config.
    checkpoint
        The folder of a run (its best policy), or a header in it.

    Raises
    ------
    FormatError
        The checkpoint is bad, or of another architecture.
    ValueError
        It is of a learner that this one cannot start from.
    """
    header = checkpoint / f"{POLICY}.json" if checkpoint.is_dir() else checkpoint
    found = read_checkpoint(header)
    state = {
        key.removeprefix("policy/"): tensor
        for key, tensor in found.tensors.items()
        if key.startswith("policy/")
    }
    imitated = found.learner == "hindsight" and name in IMITATORS
    if found.learner != name and not imitated:
        allowed = "hindsight or its own kind" if name in IMITATORS else "its own kind"
        raise ValueError(
            f"warm_start: {header} is of {found.learner!r}; {name!r} starts from {allowed}"
        )
    parts = learner.parts()
    policy = parts["policy"]
    assert isinstance(policy, Module)
    try:
        load_module(policy, state, "policy")
    except ValueError as error:
        raise FormatError(header, str(error)) from None
    for part in parts.values():
        if isinstance(part, Module) and part.state_dict().keys() == state.keys():
            load_module(part, state, "policy")


def _check_tables(found: Checkpoint, name: str, options: Any, header: Path) -> None:
    """Refuse what was learned over other tables than those that the learner starts at."""
    theirs, mine = (TABLES.get(one, "lookahead") for one in (found.learner, name))
    used = found.options.get(theirs)
    if used != getattr(options, mine):
        known = str(used).lower()
        raise ValueError(
            f"warm_start: {header} has {theirs} = {known}, so options.{mine} must be {known} too"
        )
