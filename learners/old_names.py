"""Options that had another name before: read with a note for one release, then this file goes."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

_OF_PPO = {"clip": "ratio_clip", "gradient": "gradient_clip", "trace": "gae_lambda"}
_OF_SETS = {"rate": "critic_rate", "clip": "gradient_clip"}
_OF_HINDSIGHT = {
    "mpc": "lookahead",
    "learning_rate": "actor_rate",
    "final_learning_rate": "final_actor_rate",
    "averaging": "average_rate",
}

NEW_NAMES: Mapping[str, Mapping[str, str]] = {
    "maasn-da": {"clip": "gradient_clip"},
    "hindsight": _OF_HINDSIGHT,
    "mappo": _OF_PPO,
    "ippo": _OF_PPO,
    "qmix": _OF_SETS,
    "vdn": _OF_SETS,
    "dcg": _OF_SETS,
}
"""By learner: old name of an option, and its new name."""

WITHOUT: Mapping[str, Mapping[str, Any]] = {
    "maasn-da": {"keep": "in-turn"},
    "hindsight": {"keep": "in-turn"},
}
"""By learner: options that older checkpoints lack, and what was done then."""


def with_new_names(learner: str, options: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Return the options of a learner under their new names.

    Parameters
    ----------
    learner
        Registered name.
    options
        Values by old or new name.
    where
        What to call the options in the note on an old name; empty: no note.

    Raises
    ------
    ValueError
        An option is there under both names.
    """
    renamed = NEW_NAMES.get(learner, {})
    result: dict[str, Any] = {}
    for name, value in options.items():
        new = renamed.get(name, name)
        if new in result or (new != name and new in options):
            raise ValueError(f"{where}: {name!r} is the old name of {new!r}, which is there too")
        # What stayed of a running average is now what enters it.
        turned = name == "averaging" and isinstance(value, int | float)
        result[new] = round(1.0 - value, 12) if turned else value
        if new != name and where:
            note = f"{where}: {name!r} is now {new!r}; the old name goes in the next release"
            warnings.warn(note, FutureWarning, stacklevel=3)
    return result
