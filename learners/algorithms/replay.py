"""Replay: what was played in past slots, by node sets, a few bytes a block.

A slot of a batch is what the learner has to know to see it again: which draws of which pool, the
slot, and the node sets before and after the pulls. Features are computed anew when it is drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Generator, Tensor

MOST_SETS = 8
"""Node sets are kept as bytes: up to so many nodes."""


@dataclass(frozen=True, eq=False)
class Played:
    """A slot of a batch that was played, and what the nodes had in the next one.

    Attributes
    ----------
    pool
        Number of the pool.
    t
        The slot.
    draw
        (B,) int64 which draws of the pool.
    cached, held, kept
        (B, J) uint8 node sets: before the pulls, after them, and in the next caches.
    next_held
        (B, J) uint8 after the pulls of the next slot.
    next_delay
        (B, J) float32 delays of the next slot, s; empty in replays of earlier versions.
    """

    pool: int
    t: int
    draw: Tensor
    cached: Tensor
    held: Tensor
    kept: Tensor
    next_held: Tensor
    next_delay: Tensor = field(default_factory=lambda: torch.zeros(0))


class Replay:
    """The newest slots that were played.

    Parameters
    ----------
    capacity
        Slots of a batch.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.slots: list[Played] = []

    def add(self, played: Played) -> None:
        """Add a slot; the oldest goes when there are too many."""
        self.slots = [*self.slots, played][-self.capacity :]

    def forget_other(self, pool: int) -> None:
        """Drop the slots of other pools, whose draws are no longer there."""
        self.slots = [slot for slot in self.slots if slot.pool == pool]

    def draw(self, generator: Generator) -> Played:
        """Return one of the slots, all with equal probability."""
        return self.slots[int(torch.randint(len(self.slots), (), generator=generator))]

    def tensors(self) -> dict[str, Tensor]:
        """Return all as tensors."""
        tensors = {}
        for i, slot in enumerate(self.slots):
            tensors[f"replay.{i:05d}.where"] = torch.tensor([slot.pool, slot.t])
            for name in _TENSORS:
                tensors[f"replay.{i:05d}.{name}"] = getattr(slot, name)
        return tensors

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take back what `tensors` returned."""
        rows: dict[str, dict[str, Any]] = {}
        for key, value in tensors.items():
            if key.startswith("replay."):
                _, index, name = key.split(".")
                rows.setdefault(index, {})[name] = value
        self.slots = []
        for index in sorted(rows):
            pool, t = rows[index].pop("where").tolist()
            self.slots.append(Played(pool=pool, t=t, **rows[index]))


_TENSORS = tuple(item.name for item in fields(Played) if item.name not in ("pool", "t"))
