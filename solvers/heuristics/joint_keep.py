"""The joint keep rule: which nodes keep each block, all blocks and nodes at once.

Every block j takes one set X_j of nodes, within those that have it now:

    minimise sum_j s_j G_j(X_j)   such that   sum_j s_j [n in X_j] <= S_n   for every node n

a multiple-choice knapsack with one row a node (Kellerer, Pferschy and Pisinger, Knapsack Problems,
Springer 2004, chapters 9 and 11). Nodes that decide in turn know what the others keep, never what
it would be worth to change places: that costs more than errors in G do.

1. Prices of storage: Newton steps on the dual with its minima smoothed at a falling temperature T,

       -lambda . S - sum_j T log sum_X exp(-s_j (G_j(X) + lambda . X) / T) + T sum_n log lambda_n

   (smoothing: Nesterov, Math. Prog. 103 (2005)). By weak duality the dual is a lower bound at any
   prices.
2. Rounding: every block takes its best set at the prices; what is too much leaves by the least
   reduced cost per byte.
3. Search: single moves and pairs of moves among the options of least reduced cost, from the rounded
   answer or a given one, whichever is better. A better answer has no option whose reduced cost is
   above the gap.

All of it is NumPy on exact bytes, without randomness: equal inputs to the bit give equal outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.node_set_tables import FULL_TABLES, members, node_sets
from finecast.solvers.rounding import SUM_ALLOWANCE

TEMPERATURES = 16
"""Newton steps, each at a lower temperature."""

HOTTEST, COLDEST = 0.3, 1e-4
"""First and last temperature, in units of the mean range of a block's costs."""

CORE = 200
"""Options that the search exchanges, those of least reduced cost."""

REPAIR = 4 * CORE
"""Options that may replace what is too much for a node, besides keeping it nowhere."""

PRICE_ROUNDS = 3
"""Where not all sets are options: how often the prices propose new ones."""


@dataclass(frozen=True, eq=False)
class JointKeep:
    """What is kept.

    Attributes
    ----------
    keep
        (N, J) bool.
    prices
        (N,) of storage, seconds per byte, at which `bound` holds.
    value
        sum_j s_j G_j(X_j), s; infinite if a block had to go whose absence costs so.
    bound
        A lower bound on the value of every answer that fits, s.
    """

    keep: BoolArray
    prices: FloatArray
    value: float
    bound: float


@dataclass(frozen=True, eq=False)
class _Options:
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


def keep_jointly(
    cost: FloatArray,
    held: BoolArray,
    size: IntArray,
    storage: IntArray,
    *,
    start: BoolArray | None = None,
    prices: FloatArray | None = None,
) -> JointKeep:
    """Choose what all nodes keep at once, so that the coming cost is small.

    Parameters
    ----------
    cost
        (J, 2^N) G_j(X), seconds per byte, if the nodes X keep block j; of any sign, rising or
        falling in X. Infinite is allowed: such a set is taken only where nothing else fits.
    held
        (N, J) bool, what there is to keep.
    size
        (J,) byte, at least 0.
    storage
        (N,) byte, at least 0.
    start
        (N, J) bool, an answer that fits and that is improved too, such as that of nodes in turn;
        None for none. What is returned is never worse.
    prices
        (N,) seconds per byte from which the dual starts, such as those of the slot before; None
        for the mean worth of a byte.

    Raises
    ------
    ValueError
        Arrays do not fit together, a cost is NaN or minus infinity, a price is negative or not
        finite, or `start` does not fit.
    """
    cost = np.asarray(cost, dtype=np.float64)
    held = np.asarray(held, dtype=bool)
    size, storage = np.asarray(size, dtype=np.int64), np.asarray(storage, dtype=np.int64)
    _check(cost, held, size, storage, start, prices)
    nodes, blocks = held.shape
    fitting = held & (size <= storage[:, None])
    within = node_sets(fitting)
    charge = _charges(cost, size)

    # Blocks that nobody can keep, or that have no bytes, have nothing to choose.
    real = np.flatnonzero((within != 0) & (size > 0))
    problem = charge[real], within[real], size[real], storage
    start_sets = None if start is None else node_sets(np.asarray(start, dtype=bool))[real]
    if nodes <= FULL_TABLES:
        options = _all_options(*problem[:3], nodes)
        price, bound = _prices(options, storage, prices)
    else:
        options, price, bound = _proposed_options(problem, start_sets, prices)

    # The search begins at the better of the rounded answer and the given one.
    answer = _repaired(options, price, storage)
    if start_sets is not None and len(real):
        given = _found(options, start_sets)
        if options.charge[given].sum() < options.charge[answer].sum():
            answer = given
    core = _core(options, price, answer, bound + float(price @ storage), storage)
    sets = np.zeros(blocks, dtype=np.int64)
    sets[real] = options.chosen[_improved(options, core, answer, storage)]
    keep = _filled(cost, members(sets, nodes).T, fitting, size, storage)
    value = value_of(cost, size, keep)
    if start is not None and value_of(cost, size, start) < value:  # by rounding alone
        keep, value = np.array(start, dtype=bool), value_of(cost, size, start)
    elsewhere = np.delete(charge[:, 0], real)
    bound += float(elsewhere.sum()) - SUM_ALLOWANCE * float(np.abs(elsewhere).sum())
    return JointKeep(keep, price, value, bound)


def value_of(cost: FloatArray, size: IntArray, keep: BoolArray) -> float:
    """Return sum_j s_j G_j(X_j), s; a block of no bytes counts nothing.

    Parameters
    ----------
    cost
        (J, 2^N) seconds per byte.
    size
        (J,) byte.
    keep
        (N, J) bool.
    """
    taken = cost[np.arange(len(size)), node_sets(keep)]
    return float(np.where(size > 0, size * np.where(size > 0, taken, 0.0), 0.0).sum())


def _check(
    cost: FloatArray,
    held: BoolArray,
    size: IntArray,
    storage: IntArray,
    start: BoolArray | None,
    prices: FloatArray | None,
) -> None:
    nodes, blocks = held.shape
    for name, array, shape in (
        ("cost", cost, (blocks, 1 << nodes)),
        ("size", size, (blocks,)),
        ("storage", storage, (nodes,)),
        ("start", held if start is None else start, (nodes, blocks)),
        ("prices", storage if prices is None else prices, (nodes,)),
    ):
        if np.shape(array) != shape:
            raise ValueError(f"{name}: shape is {np.shape(array)}, must be {shape}")
    if np.isnan(cost).any() or (cost == -np.inf).any():
        raise ValueError("cost: has NaN or minus infinity, must be finite or plus infinity")
    if (size < 0).any() or (storage < 0).any():
        raise ValueError("size, storage: have negative entries, must be >= 0")
    if prices is not None and not (np.isfinite(prices) & (np.asarray(prices) >= 0)).all():
        raise ValueError("prices: have entries below 0 or not finite, must be finite and >= 0")
    if start is not None and ((start & ~held).any() or (start @ size > storage).any()):
        raise ValueError("start: does not fit, must be within `held` and the storage")


def _charges(cost: FloatArray, size: IntArray) -> FloatArray:
    """Return (J, 2^N) s_j G_j(X), s, with a finite number where keeping nowhere costs infinity.

    That number is more than all finite costs together can differ: of two answers the one that
    leaves fewer such blocks out is always the cheaper.
    """
    charge = np.multiply(cost, size[:, None], where=size[:, None] > 0, out=np.zeros(cost.shape))
    endless = np.isinf(charge[:, 0])
    if endless.any():
        finite = np.isfinite(charge)
        most = np.where(finite, charge, -np.inf).max(axis=1, initial=-np.inf)
        least = np.where(finite, charge, np.inf).min(axis=1, initial=np.inf)
        some = finite.any(axis=1)
        spread = float((most - least)[some].sum())
        charge[endless, 0] = np.where(some, most, 0.0)[endless] + 2.0 * spread + 1.0
    return charge


def _all_options(charge: FloatArray, within: IntArray, size: IntArray, nodes: int) -> _Options:
    """Return all subsets of the sets `within` (B,) whose charge is finite."""
    sets = np.arange(1 << nodes)
    return _options(((sets & ~within[:, None]) == 0) & np.isfinite(charge), charge, size, nodes)


def _options(allowed: BoolArray, charge: FloatArray, size: IntArray, nodes: int) -> _Options:
    """Return the options at which (B, 2^N) is true, and keeping nowhere."""
    allowed[:, 0] = True
    block, chosen = np.nonzero(allowed)
    first = np.flatnonzero(chosen == 0)
    bits = members(chosen, nodes).astype(np.float64)
    return _Options(block, chosen, first, charge[block, chosen], size, bits)


def _proposed_options(
    problem: tuple[FloatArray, IntArray, IntArray, IntArray],
    start: IntArray | None,
    prices: FloatArray | None,
) -> tuple[_Options, FloatArray, float]:
    """Return options, prices (N,) and the bound where 2^N sets a block are too many.

    Options are the sets one or two nodes away from keeping nowhere, from the start, and from the
    sets that are best at the prices; those propose anew after every dual. The bound takes the least
    over all sets, whether options or not.
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
        prices, _ = _prices(options, storage, prices)
        if not len(size):
            return options, prices, 0.0
        rented = priced + size[:, None] * (member @ prices)
        proposed = rented.argmin(axis=1)
        bound = _safe(rented[row, proposed], prices, storage)
        if bound > best_bound:
            best_bound, best_prices = bound, prices
        propose(proposed)
    return _options(allowed, charge, size, nodes), best_prices, best_bound


def _safe(least: FloatArray, prices: FloatArray, storage: IntArray) -> float:
    """Return the dual from the least priced charges (B,), lowered by what rounding can do."""
    rent = float(prices @ storage)
    return float(least.sum()) - rent - SUM_ALLOWANCE * (float(np.abs(least).sum()) + 2.0 * rent)


def _prices(
    options: _Options, storage: IntArray, start: FloatArray | None
) -> tuple[FloatArray, float]:
    """Return prices (N,) that are about the best of the dual, and the bound at them.

    One Newton step at every temperature, with a barrier at 0. The prices of the best bound on the
    way are returned.
    """
    first, block, bits = options.first, options.block, options.bits
    nodes = bits.shape[1]
    if not len(first):
        return np.zeros(nodes), 0.0
    # A node that no option uses has the price 0; the others start at the mean worth of a byte.
    used = bits.any(axis=0)
    least, most = (f.reduceat(options.charge, first) for f in (np.minimum, np.maximum))
    spread = float((most - least).sum())
    typical = spread / float(options.size.sum()) + np.finfo(float).tiny
    price = np.full(nodes, typical)
    if start is not None:
        price = np.maximum(np.asarray(start, dtype=np.float64), 1e-3 * typical)
    price = np.where(used, price, 0.0)
    size = options.size.astype(np.float64)
    temperatures = spread / len(first) * np.geomspace(HOTTEST, COLDEST, TEMPERATURES)
    free = np.flatnonzero(used)
    best_price, best_bound = np.zeros(nodes), -np.inf
    for temperature in [*temperatures, 0.0]:
        priced = options.priced(price)
        low = np.minimum.reduceat(priced, first)
        bound = _safe(low, price, storage)
        if bound > best_bound:
            best_bound, best_price = bound, price
        if temperature <= 0.0 or not len(free):
            break
        # The chance of every option, and the mean and covariance of the bytes at every node.
        chance = np.exp((low[block] - priced) / temperature)
        chance /= np.add.reduceat(chance, first)[block]
        mean = np.add.reduceat(chance[:, None] * bits, first) * size[:, None]
        second = bits.T @ ((chance * size[block] ** 2)[:, None] * bits)
        covariance = second - mean.T @ mean
        # A Newton step, which never more than triples a price or divides it by ten.
        slope = mean.sum(axis=0) - storage + temperature / np.where(used, price, 1.0)
        curve = covariance / temperature + np.diag(temperature / np.where(used, price, 1.0) ** 2)
        step = np.zeros(nodes)
        step[free] = np.linalg.solve(curve[np.ix_(free, free)], slope[free])
        price = np.where(used, np.clip(price + step, 0.1 * price, 3.0 * price), 0.0)
    return best_price, best_bound


def _repaired(options: _Options, price: FloatArray, storage: IntArray) -> IntArray:
    """Return (B,) the best options at the prices, changed until they fit.

    Every change is that of least reduced cost per byte of excess removed.
    """
    priced = options.priced(price)
    low = np.minimum.reduceat(priced, options.first) if len(options.first) else priced
    reduced = priced - low[options.block]
    order = np.argsort(reduced, kind="stable")
    answer = np.full(len(options.first), -1)
    answer[options.block[order][::-1]] = order[::-1]  # the first of the least
    weight = options.bytes()
    # The candidates: the cheapest options, and keeping each block nowhere.
    candidate = np.union1d(order[: len(answer) + REPAIR], options.first)
    block = options.block[candidate]
    excess = weight[answer].sum(axis=0) - storage
    while (excess > 0).any():
        change = weight[candidate] - weight[answer][block]
        over = excess.clip(min=0).sum()
        removed = over - (excess + change).clip(min=0).sum(axis=1)
        loss = reduced[candidate] - reduced[answer][block]
        with np.errstate(divide="ignore", invalid="ignore"):
            rate = np.where(removed > 0, loss / removed, np.inf)
        best = int(rate.argmin())
        excess = excess + change[best]
        answer[block[best]] = candidate[best]
    return answer


def _core(
    options: _Options, price: FloatArray, answer: IntArray, dual: float, storage: IntArray
) -> IntArray:
    """Return the options that the search exchanges, rising.

    They are those of least reduced cost, none above the gap, and the best options of their blocks.
    """
    priced = options.priced(price)
    low = np.minimum.reduceat(priced, options.first) if len(options.first) else priced
    reduced = priced - low[options.block]
    order = np.argsort(reduced, kind="stable")
    best = np.full(len(options.first), -1)
    best[options.block[order][::-1]] = order[::-1]
    gap = float(options.charge[answer].sum()) + float(price @ storage) - dual
    others = np.ones(len(order), dtype=bool)
    others[best] = False
    core = order[others[order]][:CORE]
    core = core[reduced[core] <= gap * (1.0 + 1e-9)]
    return np.union1d(core, best[options.block[core]])


def _found(options: _Options, sets: IntArray) -> IntArray:
    """Return (B,) the options at which the blocks take the sets (B,); keeping nowhere for others.

    A set that is no option costs infinity.
    """
    key = options.block << 32 | options.chosen
    wanted = np.arange(len(sets)) << 32 | sets
    place = np.searchsorted(key, wanted).clip(max=len(key) - 1)
    return np.where(key[place] == wanted, place, options.first)


def _improved(options: _Options, core: IntArray, answer: IntArray, storage: IntArray) -> IntArray:
    """Return the answer (B,) after the best single moves and pairs of moves, until none helps."""
    answer = answer.copy()
    if not len(core):
        return answer
    weight = options.bytes()
    block = np.append(options.block[core], -1)  # the last one is no move at all
    charge, core_weight = options.charge[core], weight[core]
    free = storage - weight[answer].sum(axis=0)
    least = 1e-13 * float(np.abs(options.charge[answer]).sum())
    while True:
        now = answer[block[:-1]]
        gain = np.append(charge - options.charge[now], 0.0)
        change = np.concatenate([core_weight - weight[now], np.zeros((1, len(free)), np.int64)])
        # One of the two saves something; the other may cost what the first saves.
        saving = np.flatnonzero(gain < -least)
        if not len(saving):
            return answer
        other = np.flatnonzero(gain < -gain[saving].min())
        total = gain[saving][:, None] + gain[other]
        fits = (total < -least) & (block[saving][:, None] != block[other])
        for n, room in enumerate(free):
            fits &= change[saving, n][:, None] + change[other, n] <= room
        total[~fits] = 0.0
        best = int(total.argmin())
        if total.flat[best] >= -least:
            return answer
        for move in (saving[best // len(other)], other[best % len(other)]):
            if block[move] >= 0:
                free = free - change[move]
                answer[block[move]] = core[move]


def _filled(
    cost: FloatArray, keep: BoolArray, fitting: BoolArray, size: IntArray, storage: IntArray
) -> BoolArray:
    """Return (N, J) what is kept, and besides it copies for which there is room at no cost.

    Node by node, the copies that save most per byte first, of equal ones the first block.
    """
    keep = keep.copy()
    row = np.arange(len(size))
    for n in range(len(storage)):
        room = int(storage[n] - size[keep[n]].sum())
        sets = node_sets(keep)
        without, with_copy = cost[row, sets], cost[row, sets | 1 << n]
        more = np.flatnonzero(fitting[n] & ~keep[n] & (size <= room) & (with_copy <= without))
        with np.errstate(invalid="ignore"):
            saved = np.nan_to_num(without[more] - with_copy[more], nan=0.0, posinf=np.inf)
        for j in more[np.argsort(-saved, kind="stable")].tolist():
            if size[j] <= room:
                keep[n, j] = True
                room -= int(size[j])
    return keep
