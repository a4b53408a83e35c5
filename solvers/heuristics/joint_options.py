"""The options of the joint keep rule, and prices of storage for them.

An option of a block is a set of nodes that may keep it. Up to 8 nodes all subsets of the nodes that
have the block are options. Beyond, options are proposed: near a start, and near what is best at the
prices. The bound holds for all sets in both cases.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.node_set_tables import members
from finecast.solvers.rounding import SUM_ALLOWANCE

TEMPERATURES = 14
"""Newton steps, each at a lower temperature."""

HOTTEST, COLDEST = 0.3, 2e-4
"""First and last temperature, in units of the mean range of a block's costs."""

PRICE_ROUNDS = 3
"""Where not all sets are options: how often the prices propose new ones."""


@dataclass(frozen=True, eq=False)
class Options:
    """Sets that each of B blocks may take, P in all, block by block, the empty set first.

    Attributes
    ----------
    block
        (P,) rising.
    chosen
        (P,) the node sets as bit masks.
    first
        (B,) where the options of each block begin.
    charge
        (P,) s_j G_j(X), s.
    size
        (B,) byte.
    bits
        (P, N) 0.0 or 1.0, the nodes of the sets.
    """

    block: IntArray
    chosen: IntArray
    first: IntArray
    charge: FloatArray
    size: IntArray
    bits: FloatArray

    def priced(self, prices: FloatArray) -> FloatArray:
        """Return (P,) the charges with the rent of the storage, s."""
        rent: FloatArray = self.charge + self.size[self.block] * (self.bits @ prices)
        return rent

    def bytes(self) -> IntArray:
        """Return (P, N) the bytes of every option at every node."""
        return self.bits.astype(np.int64) * self.size[self.block][:, None]


def reduced_costs(options: Options, price: FloatArray) -> FloatArray:
    """Return (P,) how much more an option costs at prices (N,) than the best of its block, s."""
    priced = options.priced(price)
    if not len(priced):
        return priced
    least: FloatArray = priced - np.minimum.reduceat(priced, options.first)[options.block]
    return least


def all_options(charge: FloatArray, within: IntArray, size: IntArray, nodes: int) -> Options:
    """Return all subsets of what is held whose charge is finite.

    Parameters
    ----------
    charge
        (B, 2^N) s_j G_j(X), s.
    within
        (B,) the nodes that can keep each block, as node sets.
    size
        (B,) byte.
    nodes
        N.
    """
    sets = np.arange(1 << nodes)
    return _options(((sets & ~within[:, None]) == 0) & np.isfinite(charge), charge, size, nodes)


def _options(allowed: BoolArray, charge: FloatArray, size: IntArray, nodes: int) -> Options:
    """Return the options at which (B, 2^N) is true, and keeping nowhere."""
    allowed[:, 0] = True
    block, chosen = np.nonzero(allowed)
    first = np.flatnonzero(chosen == 0)
    bits = members(chosen, nodes).astype(np.float64)
    return Options(block, chosen, first, charge[block, chosen], size, bits)


def proposed_options(
    problem: tuple[FloatArray, IntArray, IntArray, IntArray],
    start: IntArray | None,
    prices: FloatArray | None,
) -> tuple[Options, FloatArray, float]:
    """Return options, prices (N,) and the bound where 2^N sets a block are too many.

    Options are the sets one or two nodes away from keeping nowhere, from the start, and from the
    sets that are best at the prices; those propose anew after every dual. The bound takes the least
    over all sets, whether options or not.

    Parameters
    ----------
    problem
        Charges (B, 2^N), node sets (B,) that can keep each block, sizes (B,), storage (N,).
    start
        (B,) node sets to begin with; None for none.
    prices
        (N,) prices to begin with, seconds per byte; None for none.
    """
    charge, within, size, storage = problem
    nodes, row = len(storage), np.arange(len(size))
    flips = np.array(
        sorted({1 << a | 1 << b for a in range(nodes) for b in range(nodes)} | {0}), dtype=np.int64
    )
    member = members(np.arange(1 << nodes), nodes).astype(np.float64)
    outside = (np.arange(1 << nodes) & ~within[:, None]) != 0
    priced = np.where(outside, np.inf, charge)
    allowed = np.zeros(charge.shape, dtype=bool)

    def propose(sets: IntArray) -> None:
        """Allow the sets near (B,) sets, within what there is."""
        near = (sets[:, None] ^ flips) & within[:, None]
        allowed[row[:, None], near] = np.isfinite(priced[row[:, None], near])

    propose(np.zeros_like(within))
    if start is not None:
        propose(start)
    if prices is not None and len(size):
        propose((priced + size[:, None] * (member @ prices)).argmin(axis=1))
    best_bound, best_prices = -np.inf, np.zeros(nodes)
    for _ in range(PRICE_ROUNDS):
        options = _options(allowed, charge, size, nodes)
        prices, _ = dual_prices(options, storage, prices)
        if not len(size):
            return options, prices, 0.0
        rented = priced + size[:, None] * (member @ prices)
        proposed = rented.argmin(axis=1)
        bound = _safe(rented[row, proposed], prices, storage)
        if bound > best_bound:
            best_bound, best_prices = bound, prices
        propose(proposed)
    return _options(allowed, charge, size, nodes), best_prices, best_bound


def _safe(least: FloatArray, prices: FloatArray, storage: IntArray | FloatArray) -> float:
    """Return the dual from the least priced charges (B,), lowered by what rounding can do."""
    rent = float(prices @ storage)
    return float(least.sum()) - rent - SUM_ALLOWANCE * (float(np.abs(least).sum()) + 2.0 * rent)


def dual_prices(
    options: Options, storage: IntArray, start: FloatArray | None
) -> tuple[FloatArray, float]:
    """Return prices (N,) that are about the best of the dual, and the bound at them.

    One Newton step at every temperature, with a barrier at 0. The prices of the best bound on the
    way are returned.

    Parameters
    ----------
    options
        The options.
    storage
        (N,) byte.
    start
        (N,) prices to begin with, seconds per byte; None for the mean worth of a byte.
    """
    first, block = options.first, options.block
    nodes = len(storage)
    used = np.flatnonzero(options.bits.any(axis=0))  # the others have the price 0
    if not len(used):
        return np.zeros(nodes), _safe(options.charge, np.zeros(nodes), storage)
    # Charges in units of their mean range in a block, bytes in units of the mean size.
    low, high = (f.reduceat(options.charge, first) for f in (np.minimum, np.maximum))
    unit = float((high - low).mean()) or 1.0
    mean_size = float(options.size.mean())
    charge, room = options.charge / unit, storage[used] / mean_size
    weight = options.bits[:, used] * (options.size / mean_size)[block][:, None]
    price = np.ones(len(used))
    if start is not None:
        price = np.maximum(np.asarray(start, dtype=np.float64)[used] * (mean_size / unit), 1e-3)
    best_price, best_bound = price, -np.inf
    for temperature in [*np.geomspace(HOTTEST, COLDEST, TEMPERATURES).tolist(), 0.0]:
        priced = charge + weight @ price
        low = np.minimum.reduceat(priced, first)
        bound = _safe(low, price, room)
        if bound > best_bound:
            best_bound, best_price = bound, price
        if temperature <= 0.0:
            break
        # The chance of every option, and the mean and covariance of the bytes at every node.
        chance = np.exp((low[block] - priced) / temperature)
        chance /= np.add.reduceat(chance, first)[block]
        likely = chance[:, None] * weight
        mean = np.add.reduceat(likely, first)
        covariance = weight.T @ likely - mean.T @ mean
        # A Newton step, which never more than triples a price or divides it by ten.
        slope = mean.sum(axis=0) - room + temperature / price
        curve = covariance / temperature
        curve.flat[:: len(used) + 1] += temperature / price**2
        step = np.linalg.solve(curve, slope)
        price = np.minimum(np.maximum(price + step, 0.1 * price), 3.0 * price)
    prices = np.zeros(nodes)
    prices[used] = best_price * (unit / mean_size)
    return prices, best_bound * unit
