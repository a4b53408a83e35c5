"""Draws to train on from scenarios of several areas: one area of a draw at a time.

Nodes of different areas decide apart: an area sees its own users and no others
(`finecast.solvers.online_areas`). So what a node learns in one area serves in all, and a draw of
training is an area of a draw of the scenario. Tensors need equal N and K: areas of the most
frequent number of nodes are drawn, and as many of their users as half of them have at least. The
rates are those of the area alone on the air. What other areas disturb is no part of training.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from finecast.problem.instance import Instance
from finecast.solvers.areas.split import Area, part_of, split

LOOKED_AT = 4
"""Draws of the scenario from which N and K follow."""

MOST_TRIES = 100
"""Draws of the scenario, at most, for one with an area of N nodes and K users."""


class Draws(Protocol):
    """What instances are drawn from: a scenario, or the areas of one."""

    def generate(self, seed: int) -> Instance:
        """Return the instance of a seed."""
        ...


@dataclass(frozen=True)
class AreaDraws:
    """Areas of a scenario's draws, all with N nodes and K users.

    Attributes
    ----------
    scenario
        Of several areas.
    nodes, users
        N and K.
    """

    scenario: Draws
    nodes: int
    users: int

    def generate(self, seed: int) -> Instance:
        """Return an area of a draw, chosen by the seed, with K of its users.

        Raises
        ------
        ValueError
            No area of `MOST_TRIES` draws has N nodes and K users.
        """
        rng = np.random.default_rng([seed, *b"area"])
        for instance in self._drawn(seed, rng):
            fitting = [
                area
                for area in split(instance)
                if len(area.nodes) == self.nodes and len(area.users) >= self.users
            ]
            if fitting:
                area = fitting[int(rng.integers(len(fitting)))]
                users = np.sort(rng.choice(len(area.users), self.users, replace=False))
                return part_of(area.instance, np.arange(self.nodes), users)
        raise ValueError(
            f"areas: none of {MOST_TRIES} draws has one of {self.nodes} nodes and {self.users} "
            "users to train on"
        )

    def _drawn(self, seed: int, rng: np.random.Generator) -> Iterator[Instance]:
        """Yield the draw of the seed, then others."""
        yield self.scenario.generate(seed)
        for _ in range(MOST_TRIES - 1):
            yield self.scenario.generate(int(rng.integers(2**32)))


def trained_on(scenario: Draws) -> Draws:
    """Return what learners draw from: the scenario itself, or its areas where it has several.

    Parameters
    ----------
    scenario
        To train on.

    Raises
    ------
    ValueError
        No area has users.
    """
    drawn = [scenario.generate(seed) for seed in range(LOOKED_AT)]
    if all(instance.area_count == 1 for instance in drawn):
        return scenario
    areas = [area for instance in drawn for area in split(instance)]
    if not areas:
        raise ValueError("areas: none has users, so there is nothing to train on")
    sizes = np.bincount([len(area.nodes) for area in areas])
    nodes = len(sizes) - 1 - int(sizes[::-1].argmax())  # of equally many, the largest
    return AreaDraws(scenario, nodes, _users_of_half(areas, nodes))


def _users_of_half(areas: list[Area], nodes: int) -> int:
    """Return how many users at least half of the areas of N nodes have."""
    counts = np.sort([len(area.users) for area in areas if len(area.nodes) == nodes])
    return int(counts[len(counts) // 2])
