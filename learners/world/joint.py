"""The joint keep rule as a projection: from the costs of node sets to caches that fit.

`finecast.solvers.heuristics.joint_keep` chooses for all blocks and nodes of a slot at once. Here it
goes through the draws of a batch, one after another.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from finecast.learners.world.episodes import Slot
from finecast.solvers.heuristics.joint_keep import keep_jointly


def keep_by_sets(slot: Slot, held: Tensor, cost: Tensor, start: Tensor | None = None) -> Tensor:
    """Return what is kept, (E, N, J) bool: of least cost among all that fits, or nearly so.

    Parameters
    ----------
    slot
        The slot.
    held
        (E, N, J) bool, what there is to keep.
    cost
        (E, J, S) what the time after the slot costs for every set of nodes that keeps the block,
        per byte, in any unit.
    start
        (E, N, J) bool, answers that fit, of which none gets worse; None for none.
    """
    size, storage, there = (
        tensor.detach().cpu().numpy() for tensor in (slot.size, slot.storage, held)
    )
    tables = cost.detach().to(torch.float64).cpu().numpy()
    begin = None if start is None else start.detach().cpu().numpy()
    keep = np.zeros_like(there)
    for draw in range(slot.draws):
        keep[draw] = keep_jointly(
            tables[draw],
            there[draw],
            size[draw].astype(np.int64),
            storage[draw].astype(np.int64),
            start=None if begin is None else begin[draw],
        ).keep
    return torch.from_numpy(keep).to(held.device)
