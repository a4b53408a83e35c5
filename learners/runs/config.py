"""Options of a run: TOML to frozen dataclasses, every mistake in one line.

learner = "maasn-da"
scenarios = ["data/scenarios/persist.toml"]
steps = 20000
preset = "published"   # options of a published setting; what is given here wins

[source]          # where training episodes come from
draws = 256

[options]         # of the learner
width = 64
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finecast.learners.augmentation.sources import SOURCES
from finecast.learners.old_names import with_new_names
from finecast.learners.options import MOST_STEPS, at_least, dataclass_from, one_of
from finecast.learners.presets import preset_of
from finecast.learners.registry import learner_kind
from finecast.problem.scenario import MOST_SEED
from finecast.solvers.heuristics.rules import KEEP_RULES

AUGMENTATIONS = SOURCES
RATES = ("closed-form", "true")

MOST_DRAWS = 100_000
"""Draws of a scenario that are kept in memory, and subgradient steps for the prices of one."""

MOST_HORIZON = 1000
"""Coming slots in the expected tables."""

MOST_THREADS = 1024
"""Threads of torch."""


@dataclass(frozen=True)
class SourceConfig:
    """Where training episodes come from.

    Attributes
    ----------
    draws
        Real training draws of every scenario.
    rates
        "closed-form" (milliseconds a draw) or "true" (seconds a draw).
    horizon
        H, coming slots in the expected tables.
    price_steps
        Subgradient steps for the storage prices of a draw's first slot; half of them in the
        others. With a quarter of this the prices are several times too high.
    augmentation
        One of `finecast.learners.augmentation.sources.SOURCES`; of a run, by default what the
        learner says (`finecast.learners.registry.LearnerKind`).
    synthetic
        Synthetic share of all draws at the beginning, if the predictor had no error.
    refresh
        Steps after which synthetic draws are made anew.
    """

    draws: int = 128
    rates: str = "closed-form"
    horizon: int = 3
    price_steps: int = 80
    augmentation: str = "none"
    synthetic: float = 0.5
    refresh: int = 2000

    def __post_init__(self) -> None:
        at_least(self, 1, "draws", "price_steps", most=MOST_DRAWS)
        at_least(self, 1, "horizon", most=MOST_HORIZON)
        at_least(self, 1, "refresh", most=MOST_STEPS)
        at_least(self, 0, "synthetic")
        if self.synthetic > 0.99:
            raise ValueError(f"synthetic: {self.synthetic} is not allowed, must be <= 0.99")
        one_of("rates", self.rates, RATES)
        one_of("augmentation", self.augmentation, AUGMENTATIONS)


@dataclass(frozen=True)
class RunConfig:
    """A training run.

    Attributes
    ----------
    learner
        Registered name.
    scenarios
        TOML files; all draws have equal N, K and T.
    steps
        Updates; see the learner for what an update is, and `LearnerKind` for its own default.
    seed
        Of everything: training draws, network, exploration. Held-out draws do not depend on it.
    device
        Where torch computes.
    threads
        Of torch.
    log_every, validate_every, checkpoint_every
        Steps.
    keep
        States kept, the newest ones. In a table "joint" or "in-turn" are taken as `options.keep`.
    patience
        Held-out evaluations without a better one after which the run stops; 0: never.
    held_out
        Held-out draws of every scenario.
    held_out_rates
        As `SourceConfig.rates`; their bounds and those of the draws follow the same rates.
    tensorboard
        Write TensorBoard events too.
    warm_start
        Folder of a run whose best policy this one starts from
        (`finecast.learners.runs.warm_start`); empty: from the tables.
    information
        What each node sees when it decides: "full", "delayed" or "local"
        (`finecast.solvers.information`).
    scenario
        Other values of the scenarios by dotted key, as in `{"users.count": 6}`.
    source
        Where training episodes come from.
    options
        Of the learner.
    """

    learner: str
    scenarios: tuple[str, ...]
    steps: int = 20000
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    log_every: int = 100
    validate_every: int = 1000
    checkpoint_every: int = 1000
    keep: int = 3
    patience: int = 0
    held_out: int = 16
    held_out_rates: str = "closed-form"
    tensorboard: bool = False
    warm_start: str = ""
    information: str = "full"
    scenario: Mapping[str, Any] = field(default_factory=dict)
    source: SourceConfig = field(default_factory=SourceConfig)
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = ("steps", "log_every", "validate_every", "checkpoint_every", "keep")
        at_least(self, 1, *steps, most=MOST_STEPS)
        at_least(self, 1, "threads", most=MOST_THREADS)
        at_least(self, 1, "held_out", most=MOST_DRAWS)
        at_least(self, 0, "patience", most=MOST_STEPS)
        at_least(self, 0, "seed", most=MOST_SEED)
        one_of("held_out_rates", self.held_out_rates, RATES)
        if not self.scenarios:
            raise ValueError("scenarios: is empty, must be at least one")

    @property
    def learner_options(self) -> Any:
        """The learner's Config."""
        return learner_kind(self.learner).config(self.options, self.information)

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON has it."""
        return {**asdict(self), "scenarios": list(self.scenarios), "options": dict(self.options),
                "scenario": dict(self.scenario)}  # fmt: skip


def run_config(table: Mapping[str, Any], folder: Path | None = None) -> RunConfig:
    """Return a run's options from a table; names of files are relative to `folder`.

    A `preset` (`finecast.learners.presets`) puts its options under those of the table.

    Raises
    ------
    ValueError
        An option is unknown, of another kind, or out of range.
    """
    given = dict(table)
    source = given.pop("source", {})
    options = given.pop("options", {})
    for name, part in (("source", source), ("options", options)):
        if not isinstance(part, Mapping):
            raise ValueError(f"{name}: {part!r} is not allowed, must be a table")
    if folder is not None and isinstance(given.get("scenarios"), list):
        given["scenarios"] = [_beside(folder, name) for name in given["scenarios"]]
    if folder is not None and given.get("warm_start"):
        given["warm_start"] = _beside(folder, given["warm_start"])
    if given.get("keep") in KEEP_RULES:  # a rule and no number of states: the learner's option
        options = {"keep": given.pop("keep"), **options}
    if isinstance(given.get("learner"), str):
        kind = learner_kind(given["learner"])
        options = with_new_names(kind.name, options, "options")
        if "preset" in given:
            preset = preset_of(given.pop("preset"), kind)
            source, options = {**preset.source, **source}, {**preset.options, **options}
        information = given.get("information", "full")
        steps, between = kind.length(information)
        every = dict.fromkeys(("validate_every", "checkpoint_every"), between)
        apart = information != "full"  # beliefs are of real draws
        source = {"augmentation": "none" if apart else kind.augmentation, **source}
        given = {"steps": steps, "log_every": max(1, between // 10), **every, **given}
    run = dataclass_from(
        RunConfig,
        {**given, "source": dataclass_from(SourceConfig, source, "source"), "options": options},
        "run",
    )
    run.learner_options  # noqa: B018 refuses unknown options now, not after the draws
    return run


def _beside(folder: Path, name: Any) -> Any:
    beside = folder / name if isinstance(name, str) else name
    return str(beside) if isinstance(beside, Path) and beside.exists() else name
