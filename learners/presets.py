"""Presets: options of a run that belong together, by name; what the user gives wins over them.

`published` is the regime of the paper that `maasn-da` follows (Fu et al., arXiv 2509.19341), of
which only the parts are published: raw observations without expected tables, all nodes at once, the
reward of the whole team (minus the delay of the slot), random weights and no rule to start from. In
place of penalties for what does not fit stands the projection of the environment. Widths, rates and
the discount are our choice, since the paper's are not known; they are small, for budgets of
CPU-seconds.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from finecast.learners.registry import LearnerKind


@dataclass(frozen=True)
class Preset:
    """Options of a run.

    Attributes
    ----------
    source
        Of the training draws.
    options
        Of the learner, whichever it is.
    learners
        Further ones of some learners, by name.
    """

    source: Mapping[str, Any]
    options: Mapping[str, Any]
    learners: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


_PPO = {"temperature": 1.0, "actor_rate": 1e-3, "batch": 4}
_VALUES = {"batch": 4}

PRESETS = {
    "published": Preset(
        # No table of a coming slot is seen, so one is enough, and no prices are.
        source={"horizon": 1, "price_steps": 1},
        options={
            "observations": "raw",
            "in_turn": False,
            "credit": "team",
            "width": 32,
            "embedding": 16,
            "discount": 0.9,
        },
        learners={
            "maasn-da": {
                "play_every": 2,
                "actor_rate": 1e-3,
                "average_rate": 0.05,
                "target_rate": 0.05,
                "replay": 100,
            },
            "qmix": _VALUES,
            "vdn": _VALUES,
            "dcg": _VALUES,
            **dict.fromkeys(("mappo", "ippo", "happo", "mat", "graph"), _PPO),
        },
    )
}


def preset_of(name: Any, kind: LearnerKind) -> Preset:
    """Return a preset for a learner: `options` with those of the learner.

    Raises
    ------
    ValueError
        There is no such preset, or it has an option that the learner does not know.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(str(name), PRESETS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known presets: {', '.join(PRESETS)}"
        raise ValueError(f"preset: {name!r} is unknown; {hint}")
    preset = PRESETS[name]
    options = {**preset.options, **preset.learners.get(kind.name, {})}
    known = {item.name for item in fields(kind.load().Config)}
    if unknown := [option for option in options if option not in known]:
        raise ValueError(
            f"preset: {name!r} is not allowed with learner {kind.name!r}, "
            f"which has no option {unknown[0]!r}"
        )
    return Preset(preset.source, options)
