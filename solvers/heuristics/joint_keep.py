"""The joint keep rule: which nodes keep each block, all blocks and nodes at once.

Every block j takes one set X_j of nodes, within those that have it now:

    minimise sum_j s_j G_j(X_j)   such that   sum_j s_j [n in X_j] <= S_n   for every node n

a multiple-choice knapsack with one row a node (Kellerer, Pferschy and Pisinger, Knapsack Problems,
Springer 2004, chapters 9 and 11). Nodes that decide in turn know what the others keep, never what
it would be worth to change places: that costs more than errors in G do.

1. Prices of storage: Newton steps on the dual below, its minima smoothed at a falling temperature T
   (smoothing: Nesterov, Math. Prog. 103 (2005)). By weak duality the dual is a lower bound at any
   prices.
2. Rounding: every block takes its best set at the prices; what is too much leaves by the least
   reduced cost per byte.
3. Search: exchanges of up to four blocks among the options of least reduced cost, from the rounded
   answer or a given one, whichever is better. A better answer has no option whose reduced cost is
   above the gap.

The smoothed dual, to be maximised over lambda > 0, is

    -lambda . S - sum_j T log sum_X exp(-s_j (G_j(X) + lambda . X) / T) + T sum_n log lambda_n

All of it is NumPy on exact bytes, without randomness: equal inputs to the bit give equal outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.heuristics.joint_options import (
    all_options,
    dual_prices,
    proposed_options,
    reduced_costs,
)
from finecast.solvers.heuristics.joint_search import found, repaired, searched
from finecast.solvers.node_set_tables import FULL_TABLES, members, node_sets
from finecast.solvers.rounding import SUM_ALLOWANCE


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
        options = all_options(*problem[:3], nodes)
        price, bound = dual_prices(options, storage, prices)
    else:
        options, price, bound = proposed_options(problem, start_sets, prices)

    # The search begins at the better of the rounded answer and the given one.
    reduced = reduced_costs(options, price)
    answer = repaired(options, reduced, storage)
    if start_sets is not None and len(real):
        given = found(options, start_sets)
        if options.charge[given].sum() < options.charge[answer].sum():
            answer = given
    sets = np.zeros(blocks, dtype=np.int64)
    sets[real] = options.chosen[searched(options, price, reduced, answer, storage)]
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
