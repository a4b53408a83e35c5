"""The cheapest senders of given cached sets."""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import IntArray
from finecast.solvers.placement.chains import Classes


def best_senders(classes: Classes, cached: IntArray) -> IntArray:
    """Return the cheapest sender sets (T, J) of the sequential schedule for cached sets (T, J)."""
    chains = classes.chains
    sender = cached.copy()
    for t in range(len(cached)):
        needed = np.flatnonzero(classes.needed[t, classes.of_block])
        choice = chains.sender[cached[t, needed]]
        cost = (
            chains.time[cached[t, needed]]
            + classes.broadcast[t][choice, classes.of_block[needed][:, None]]
        )
        if t + 1 < len(cached):  # what is cached in the next slot must be held at the end of this
            later = cached[t + 1, needed][:, None]
            cost = np.where((choice & later) == later, cost, np.inf)
        sender[t, needed] = choice[np.arange(len(needed)), cost.argmin(axis=1)]
    return sender
