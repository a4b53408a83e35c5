"""What no better placement can use, by reduced costs.

With prices lambda, let the cheapest path of block j through a cached set, a sender set or a drop of
copies cost r per byte above its cheapest path of all. Every placement that uses it has a delay of
at least L(lambda) + s_j r. The cost is that of a forward and a backward dynamic programme together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import FloatArray
from finecast.solvers.placement.bound import PricePoint
from finecast.solvers.placement.chains import Classes
from finecast.solvers.placement.dynamic_programme import cost_to_go, set_prices, weighted


@dataclass(frozen=True)
class Useful:
    """Elements of the state flow of one class that a placement below a given delay may use.

    Attributes
    ----------
    state
        (T, 2^N) s per byte above the cheapest path, through X cached in slot t.
    arc
        (T, 2^N, N + 1) the same through level l; infinite for levels that do not exist.
    drop
        (T, 2^N, N) the same through dropping node n from Q after slot t.
    """

    state: FloatArray
    arc: FloatArray
    drop: FloatArray


def excess(classes: Classes, point: PricePoint) -> list[Useful]:
    """Price of the cheapest path through every element above the cheapest path of all.

    Parameters
    ----------
    classes
        The tables.
    point
        Point of the Lagrangian dual.

    Returns
    -------
    list[Useful]
        One for every class.
    """
    chains, prices, weights = classes.chains, point.prices, point.prices.weights
    count = len(classes.size)
    every = np.arange(count)
    onward = cost_to_go(classes, every, prices.storage[:, :, None], weights)
    slots, sets, _ = onward.cached.shape
    nodes = len(chains.count) - 1
    rent = set_prices(np.where(classes.fits, prices.storage[:, :, None], np.inf))
    state = np.full((slots, sets, count), np.inf)
    arc = np.full((slots, sets, nodes + 1, count), np.inf)
    drop = np.full((slots, sets, nodes, count), np.inf)
    # Levels beyond the last of a set repeat it.
    exists = np.ones((sets, nodes + 1), dtype=bool)
    exists[:, 1:] = chains.sender[:, 1:] != chains.sender[:, :-1]

    kept = np.zeros((sets, count))  # cheapest way to keep each set from the slot before
    for t in range(slots):
        # Cached: the way here, and the way on.
        cached = kept + rent[t]
        with np.errstate(invalid="ignore"):
            state[t] = np.where(np.isinf(cached), np.inf, kept + onward.cached[t])

        # Sent: the way here, the level, and the way on from its senders.
        needed = classes.needed[t]
        sends = weighted(weights.broadcast[t], classes.broadcast[t])[chains.sender]
        cost = weights.migration[t] * chains.time[:, :, None] + sends
        sent = np.where(exists[:, :, None], cached[:, None] + cost, np.inf)
        arc[t] = np.where(needed, sent + onward.kept[t][chains.sender], np.inf)

        # Kept: the cheapest way to any larger set, from which nodes drop one after another.
        kept = np.full((sets, count), np.inf)
        np.minimum.at(kept, chains.sender, sent)
        kept = np.where(needed, kept, cached)
        for n in range(nodes):
            without, with_node = kept.reshape(-1, 2, 1 << n, count).swapaxes(0, 1)
            np.minimum(without, with_node, out=without)
        for n in range(nodes):
            held = np.flatnonzero(chains.member[:, n])
            drop[t, held, n] = kept[held] + onward.kept[t][held & ~(1 << n)]
    value = onward.value
    return [
        Useful(state[..., c] - value[c], arc[..., c] - value[c], drop[..., c] - value[c])
        for c in range(count)
    ]
