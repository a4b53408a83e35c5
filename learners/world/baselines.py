"""Fixed node policies: yardsticks of training, and what the environment's speed is measured with.

Played by `finecast.learners.world.environment.roll` they give what the methods of the same names
give (`finecast.solvers.placement`), many draws at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finecast.learners.world.environment import View, lookup

KEEP_ANYWAY = 1e-30
"""Score of a block that saves nothing: kept if there is room when all else has been placed."""


@dataclass(frozen=True)
class Static:
    """Keep what is cached; misses come by the best chain level."""

    def pull(self, view: View, n: int | None) -> Tensor | None:
        """Leave it to the best chain levels."""
        return None

    def keep(self, view: View, n: int | None) -> Tensor:
        """Score 1 for what was cached."""
        nodes = torch.arange(view.slot.nodes, device=view.cached.device)[:, None]
        score = (view.cached[:, None] >> nodes & 1).to(torch.float32)
        return score if n is None else score[:, n]


@dataclass(frozen=True)
class Replacement:
    """LRU or LFU: keep what was used last, or most often.

    Attributes
    ----------
    by
        "recency" (LRU) or "frequency" (LFU with decay 0.8).
    """

    by: str = "recency"

    def pull(self, view: View, n: int | None) -> Tensor | None:
        """Leave it to the best chain levels."""
        return None

    def keep(self, view: View, n: int | None) -> Tensor:
        """Score every block alike at every node; the unused count last, but count."""
        score: Tensor = getattr(view.slot, self.by) + 2.0
        return score[:, None].expand(-1, view.slot.nodes, -1) if n is None else score


@dataclass(frozen=True)
class Rolling:
    """Keep what saves most expected delay per byte in the next slot, given what others keep.

    The method `rolling`: in turn with 3 rounds, or all at once.
    """

    def pull(self, view: View, n: int | None) -> Tensor | None:
        """Leave it to the best chain levels."""
        return None

    def keep(self, view: View, n: int | None) -> Tensor:
        """Score by worth(others) - worth(others and n)."""
        if n is None:
            return torch.stack([saving(view, view.slot.worth[:, 0], m) for m in _nodes(view)], 1)
        return saving(view, view.slot.worth[:, 0], n)


def saving(view: View, cost: Tensor, n: int) -> Tensor:
    """Return (E, J), what a copy at node n saves given the others, at least `KEEP_ANYWAY`.

    Parameters
    ----------
    view
        What the nodes see.
    cost
        (E, C, S) seconds per byte under every node set.
    n
        The node.
    """
    others, kind = view.others(n), view.slot.kind
    saved = lookup(cost, kind, others) - lookup(cost, kind, others | 1 << n)
    return saved.clamp(min=KEEP_ANYWAY)


def _nodes(view: View) -> range:
    return range(view.slot.nodes)
