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
    of = np.arange(count)
    back = cost_to_go(classes, of, prices.storage[:, :, None], weights)
    slots, sets, _ = back.cached.shape
    nodes = len(chains.count) - 1
    fitting = np.where(classes.fits, prices.storage[:, :, None], np.inf)
    rent = set_prices(fitting)
    state = np.full((slots, sets, count), np.inf)
    arc = np.full((slots, sets, nodes + 1, count), np.inf)
    drop = np.full((slots, sets, nodes, count), np.inf)
    new = np.ones((sets, nodes + 1), dtype=bool)
    new[:, 1:] = chains.sender[:, 1:] != chains.sender[:, :-1]
    before = np.zeros((sets, count))
    for t in range(slots):
        reached = before + rent[t]
        with np.errstate(invalid="ignore"):
            state[t] = np.where(np.isinf(reached), np.inf, before + back.cached[t])
        needed = classes.needed[t]
        sends = weighted(weights.broadcast[t], classes.broadcast[t])[chains.sender]
        cost = weights.migration[t] * chains.time[:, :, None] + sends
        forward = np.where(new[:, :, None], reached[:, None] + cost, np.inf)
        arc[t] = np.where(needed, forward + back.kept[t][chains.sender], np.inf)
        after = np.full((sets, count), np.inf)
        np.minimum.at(after, chains.sender, forward)
        after = np.where(needed, after, reached)
        for n in range(nodes):  # minimum over supersets
            halves = after.reshape(-1, 2, 1 << n, count)
            np.minimum(halves[:, 0], halves[:, 1], out=halves[:, 0])
        for n in range(nodes):
            held = np.flatnonzero(chains.member[:, n])
            drop[t, held, n] = after[held] + back.kept[t][held & ~(1 << n)]
        before = after
    value = back.value
    return [
        Useful(state[..., c] - value[c], arc[..., c] - value[c], drop[..., c] - value[c])
        for c in range(count)
    ]
