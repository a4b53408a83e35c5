"""Fixed node policies: training is compared with them, and speed is measured with them.

`finecast.learners.world.environment.roll` plays them on many draws at once. The delays are those of
the methods of the same names in `finecast.solvers.heuristics`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finecast.learners.world.environment import NodePolicy, View, lookup
from finecast.learners.world.episodes import Slot

KEEP_ANYWAY = 1e-30
"""Score of a block that saves nothing: it is kept if there is room after all others."""


@dataclass(frozen=True)
class Static(NodePolicy):
    """Keep what is cached. Missing blocks come by the best chain level."""

    def pull(self, view: View, n: int | None) -> Tensor | None:
        """Leave it to the best chain levels."""
        return None

    def keep(self, view: View, n: int | None) -> Tensor:
        """Score 1 for what was cached."""
        nodes = torch.arange(view.slot.nodes, device=view.cached.device)[:, None]
        score = (view.cached[:, None] >> nodes & 1).to(torch.float32)
        return score if n is None else score[:, n]


@dataclass(frozen=True)
class Replacement(NodePolicy):
    """LRU or LFU: keep the blocks that were used last, or most often.

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
        """Score every block alike at all nodes; also unused blocks score above 0."""
        score: Tensor = getattr(view.slot, self.by) + 2.0
        return score[:, None].expand(-1, view.slot.nodes, -1) if n is None else score


@dataclass(frozen=True)
class Rolling(NodePolicy):
    """Keep what saves most expected delay per byte in the next slot, given what others keep.

    With nodes in turn and 3 rounds this is the method `rolling` with `keep = "in-turn"`; with the
    joint rule besides, that method as it is by default. All at once, every node expects the others
    to keep what they have after the pull: a weak rule, to compare with.
    """

    def pull(self, view: View, n: int | None) -> Tensor | None:
        """Leave it to the best chain levels."""
        return None

    def keep(self, view: View, n: int | None) -> Tensor:
        """Score a block by worth(others) - worth(others and n)."""
        worth = view.slot.worth[:, 0]
        return savings(view, worth) if n is None else saving(view, worth, n)

    def set_costs(self, view: View) -> Tensor:
        """Return the expected delay of the next slot."""
        return of_blocks(view.slot, view.slot.worth[:, 0])


def of_blocks(slot: Slot, table: Tensor) -> Tensor:
    """Return (E, J, S) of every block from a table of kinds (E, C, S)."""
    return table.gather(1, slot.kind[..., None].expand(-1, -1, table.shape[2]))


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


def savings(view: View, cost: Tensor) -> Tensor:
    """Return `saving` of all nodes, (E, N, J)."""
    return torch.stack([saving(view, cost, n) for n in range(view.slot.nodes)], dim=1)
