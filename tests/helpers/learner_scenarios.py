"""Small scenarios and policies that the tests of the learners share."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from finecast.learners.world.draws import episodes_of
from finecast.learners.world.environment import NodePolicy, View, packed
from finecast.learners.world.episodes import Episodes
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario
from finecast.solvers.online import joined, prepare_slots
from finecast.solvers.prepared import Prepared


def scenario(**changes: Any) -> Scenario:
    """Return a scenario of 3 nodes, 12 blocks and 4 slots with imperfect CSI; links are slow."""
    sections: dict[str, Any] = {
        "name": "small",
        "slots": 4,
        "library": {
            "synthetic": {"models": 6, "blocks": 12, "families": 2, "total_gb": 1.0},
        },
        "nodes": {"count": 3, "antennas": 2, "storage_share": 0.25, "inter_site_distance_m": 300.0},
        "links": {"backhaul_gbps": [0.3, 1.0], "cloud_gbps": [0.1, 0.3]},
        "channel": {"los": "nlos", "error": 0.05},
        "users": {"count": 4},
        "demand": {"zipf": 0.3, "persistence": 0.7, "activity": 0.8, "tastes": 0.5, "drift": 0.3},
    }
    for name, change in changes.items():
        sections[name] = {**sections[name], **change} if isinstance(change, dict) else change
    return Scenario.model_validate(sections)


@cache
def instance(seed: int = 0) -> Instance:
    """Return an instance of the scenario."""
    return scenario().generate(seed)


@cache
def prepared(seed: int = 0) -> Prepared:
    """Return the instance with its rates, every slot's from that slot alone."""
    return joined(instance(seed), prepare_slots(instance(seed)))


@cache
def episodes(count: int = 2) -> Episodes:
    """Return true episodes in float64, so that they can be compared to the methods' numbers."""
    return episodes_of([instance(seed) for seed in range(count)], dtype=torch.float64)


def renumbered(problem: Instance, order: list[int]) -> Instance:
    """Return the instance whose node i is node order[i] of the given one."""
    network = problem.network
    return replace(
        problem,
        network=replace(
            network,
            storage=network.storage[order],
            power=network.power[order],
            backhaul_rate=network.backhaul_rate[np.ix_(order, order)],
            cloud_rate=network.cloud_rate[order],
            node_position=None,
        ),
        channel_estimate=problem.channel_estimate[:, :, order],
        channel_error=problem.channel_error[:, :, order],
        channel_true=problem.channel_true[:, :, order],
    )


def at_start(draws: Episodes, cache: torch.Tensor) -> View:
    """Return the view of slot 0 with these caches."""
    cached = packed(cache)
    return View(draws.slot(0), cached, cached, torch.zeros_like(cached))


class Dice(NodePolicy):
    """Pull from anywhere, allowed or not, and keep by scores of either sign; own generator."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.views: list[tuple[View, int | None]] = []

    def pull(self, view: View, n: int | None) -> Tensor:
        self.views.append((view, n))
        shape = self._shape(view, n)
        # From -2 to N + 1: both ends are never allowed.
        return torch.randint(-2, view.slot.nodes + 2, shape, generator=self.generator)

    def keep(self, view: View, n: int | None) -> Tensor:
        self.views.append((view, n))
        return torch.randn(self._shape(view, n), generator=self.generator)

    def _shape(self, view: View, n: int | None) -> tuple[int, ...]:
        draws, blocks = view.cached.shape
        return (draws, view.slot.nodes, blocks) if n is None else (draws, blocks)
