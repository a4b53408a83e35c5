"""What plans of one area and of several have in common: draws, other ways, what was computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from finecast.compare.planning.figures import AreaPlan, Option, Spread, spread
from finecast.problem.evaluation import Evaluation
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario

TRAINING_DRAWS = 3
"""Draws that caches are chosen on."""

FIRST_TRAINING_PATH = 1_000_000
"""Paths from here on are for choosing, those below for judging."""

EXTRA_SHARE = 0.1
"""Share of its storage by which a site is enlarged to see what that is worth; at least the largest
block."""

OPTIONS = {
    "whole-models": "today's practice: whole models, each site keeps those it sent last",
    "no-comp": "no joint sending: every site serves its own users, one site after the other",
    "no-migration": "no moves between sites: what is missing comes from the cloud",
    "whole-models-planned": "whole models, chosen with the same care as the plan",
    "half-storage": "half the storage at every site",
}
"""Other ways of running the network, by key, in plain words."""


@dataclass
class Done:
    """What was computed besides the plan, before it ended or was ended."""

    bound: list[float] = dataclasses.field(default_factory=list)
    options: list[Option] = dataclasses.field(default_factory=list)
    extra: list[tuple[int, Spread]] = dataclasses.field(default_factory=list)
    areas: tuple[AreaPlan, ...] = ()
    interrupted: bool = False


def drawn(scenario: Scenario, seed: int, number: int | None) -> Instance:
    """Return a draw of the demand on the network of a seed; None for the scenario's own."""
    instance = scenario.generate(seed, path=number, places=number)
    return dataclasses.replace(instance, delivery="sequential", schedule="sequential")


def training_draws(scenario: Scenario, seed: int) -> list[Instance]:
    """Return the draws that caches are chosen on."""
    return [drawn(scenario, seed, FIRST_TRAINING_PATH + i) for i in range(TRAINING_DRAWS)]


def judging_draws(scenario: Scenario, seed: int, draws: int) -> list[Instance]:
    """Return the draws that the plan is judged on, the scenario's own instance first."""
    return [drawn(scenario, seed, d or None) for d in range(draws)]


def figures(evaluation: Evaluation) -> tuple[float, float]:
    """Return slot delay and mean wait, s."""
    return evaluation.mean_slot_delay, evaluation.mean_completion


def option(
    key: str,
    label: str,
    found: Sequence[tuple[float, float]],
    base: Sequence[tuple[float, float]],
) -> Option:
    """Return another way against the plan, from `figures` of both, draw by draw."""
    longer = [f[0] / b[0] - 1.0 if b[0] else 0.0 for f, b in zip(found, base, strict=True)]
    return Option(
        key=key,
        label=label,
        slot_delay=spread([delay for delay, _ in found]),
        wait=spread([wait for _, wait in found]),
        longer=spread(longer),
    )
