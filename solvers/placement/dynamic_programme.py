"""The exact dynamic programme over cached sets, for many blocks at once.

With prices lambda on the bytes of every cache, the cheapest path of one block is

    W_t(X) = lambda_t . X + min over l of [alpha_t tau_l(X) + beta_t b_t(Q_l(X)) + A_t(Q_l(X))]
    A_t(Q) = min over X within Q of W_{t+1}(X),      A_{T-1} = 0

per byte; where nobody needs the block W_t(X) = lambda_t . X + A_t(X). Where cached sets have a
charge of their own (`Classes.charge`), it is added to lambda_t . X. Where there is a second way
through a slot (`Classes.second`), the cheaper of the two stands in the brackets. The weights
alpha, beta are 1 for the sequential schedule. Minima over subsets take U passes, one for each of
the U units (up to 10 nodes the nodes themselves, N = U; see `finecast.solvers.placement.units`).

In the pipelined schedule a slot lasts (to a lower bound) as long as the larger of its two sums.
With all other blocks as they are, m_t and o_t seconds per byte of this block, its own part is

    max(m_t + tau_l(X), o_t + b_t(Q_l(X))) - max(m_t, o_t)      in place of the weighted sum.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.deadline import STAGE_WORK, STATE_WORK, count_work
from finecast.solvers.placement.chains import Classes, SecondWay


@dataclass(frozen=True)
class Weights:
    """Weights alpha, beta of migration and broadcast in every slot, (T,) each."""

    migration: FloatArray
    broadcast: FloatArray


def sequential_weights(slots: int) -> Weights:
    """Return the weights of the sequential schedule: every second counts once."""
    return Weights(np.ones(slots), np.ones(slots))


@dataclass(frozen=True)
class CostToGo:
    """Values of the dynamic programme.

    Attributes
    ----------
    cached
        (T, 2^U, B) W_t(X), seconds per byte.
    kept
        (T, 2^U, B) A_t(Q), seconds per byte.
    """

    cached: FloatArray
    kept: FloatArray

    @property
    def value(self) -> FloatArray:
        """(B,) cost of the cheapest path, seconds per byte."""
        value: FloatArray = self.cached[0].min(axis=0)
        return value


@dataclass(frozen=True)
class Paths:
    """One path for each of B blocks or classes.

    Attributes
    ----------
    cached, sender
        (T, B) sets X and Q of units as bit masks.
    migration, broadcast
        (T, B) tau and b, seconds per byte, without weights and prices.
    """

    cached: IntArray
    sender: IntArray
    migration: FloatArray
    broadcast: FloatArray

    @property
    def arrays(self) -> tuple[Any, Any, Any, Any]:
        """The four arrays in order."""
        return self.cached, self.sender, self.migration, self.broadcast

    def columns(self, index: IntArray) -> Paths:
        """Return these paths alone, (T, len(index)) arrays."""
        return Paths(*(array[:, index] for array in self.arrays))

    def joined(self, more: Paths) -> Paths:
        """Return these paths and then `more`."""
        pairs = zip(self.arrays, more.arrays, strict=True)
        return Paths(*(np.concatenate(pair, axis=1) for pair in pairs))

    def replaced(self, index: IntArray, new: Paths) -> Paths:
        """Return these paths with `new`, in order, in place of those at `index`."""
        columns = np.arange(self.cached.shape[1])
        columns[index] = self.cached.shape[1] + np.arange(len(index))
        return self.joined(new).columns(columns)


def weighted(weight: float, seconds: FloatArray) -> FloatArray:
    """Return weight times seconds, where no weight makes an impossible broadcast possible."""
    if weight == 1.0:
        return seconds
    with np.errstate(invalid="ignore"):
        return np.where(np.isinf(seconds), np.inf, weight * seconds)


def set_prices(price: FloatArray) -> FloatArray:
    """Return the price of every set of units.

    Parameters
    ----------
    price
        (..., U, B) price of a byte at every unit; infinite where the block does not fit.

    Returns
    -------
    FloatArray
        (..., 2^U, B) sum over the units of the set.
    """
    units = price.shape[-2]
    total = np.zeros((*price.shape[:-2], 1 << units, price.shape[-1]))
    for n in range(units):
        half = 1 << n
        total[..., half : 2 * half, :] = total[..., :half, :] + price[..., n : n + 1, :]
    return total


def unit_prices(classes: Classes, class_of: IntArray, price: FloatArray) -> FloatArray:
    """Return the price of every unit: the sum over its nodes; infinite where a class does not fit.

    Parameters
    ----------
    classes, class_of, price
        As given to `cost_to_go`.

    Returns
    -------
    FloatArray
        (T, U, B).
    """
    price = np.where(classes.fits[:, class_of], price, np.inf)
    if classes.unit is None:
        return price
    unit = classes.unit[class_of].transpose(2, 1, 0)  # (N, U, B)
    total = np.zeros((len(price), *unit.shape[1:]))
    for n, holds_node in enumerate(unit):
        total += np.where(holds_node, price[:, n, None, :], 0.0)
    return total


def subset_minimum(values: FloatArray) -> FloatArray:
    """Return the minimum over all subsets of every set, (2^U, B) from (2^U, B)."""
    result = values.copy()
    sets, columns = values.shape
    half = 1
    while half < sets:
        pairs = result.reshape(-1, 2, half * columns)
        np.minimum(pairs[:, 1], pairs[:, 0], out=pairs[:, 1])
        half *= 2
    return result


def cost_to_go(
    classes: Classes,
    class_of: IntArray,
    price: FloatArray,
    weights: Weights,
    others: FloatArray | None = None,
) -> CostToGo:
    """Run the dynamic programme backwards.

    Parameters
    ----------
    classes
        The tables.
    class_of
        (B,) class of every column.
    price
        (T, N, B) or (T, N, 1) prices of a byte, at least 0, infinite where it does not fit.
    weights
        Weights of migration and broadcast, where `others` is None.
    others
        (2, T, B) migrations m and broadcasts o of the other blocks, seconds per byte of this one.
    """
    chains = classes.chains
    slots, sets, _ = classes.broadcast.shape
    batch = len(class_of)
    priced = set_prices(unit_prices(classes, class_of, price))
    cached = np.empty((slots, sets, batch))
    kept = np.zeros((slots, sets, batch))
    every_class = batch == classes.broadcast.shape[2] and bool((class_of == np.arange(batch)).all())

    # Rows in the order of the sizes of the sets: the sets that have a level l come first.
    senders, times = chains.sender[chains.order], chains.time[chains.order]
    shared = senders.ndim == 2  # all classes have the same sets and times
    if not shared:
        senders, times = senders[..., class_of], times[..., class_of]
    buffer = np.empty((sets, batch))
    stages, states = slots * (len(chains.count) + 8), slots * batch * int(chains.count.sum())
    count_work(STAGE_WORK * stages + STATE_WORK * states)
    for t in range(slots - 1, -1, -1):
        if t < slots - 1:
            kept[t] = subset_minimum(cached[t + 1])

        # Only the needed columns choose what to send. Copies are spared where all are needed.
        needed = np.flatnonzero(classes.needed[t, class_of])
        whole = len(needed) == batch
        broadcast = classes.broadcast[t]
        if not (every_class and whole):
            broadcast = broadcast[:, class_of[needed]]
        after = kept[t] if whole else kept[t][:, needed]

        # Level 0, Q = X: nothing migrates.
        if others is None:
            after = weighted(weights.broadcast[t], broadcast) + after
            best = after[chains.order]
        else:
            moved, sent = others[:, t, needed]
            longer = np.maximum(moved, sent)
            sends = sent + broadcast - longer
            moves = moved - longer
            best = np.maximum(moves, sends)[chains.order] + after[chains.order]
        second = None
        if classes.second is not None:
            second = _second_way(classes.second, t, class_of[needed], kept[t][:, needed])
            np.minimum(best, second.after[chains.order], out=best)

        # The other levels, each for the sets that have it.
        for level in range(1, len(chains.count)):
            count = chains.count[level]
            if shared:
                row = buffer[:count, : len(needed)] if whole else np.empty((count, len(needed)))
                sender, tau = senders[:count, level], times[:count, level, None]
                np.take(after, sender, axis=0, out=row, mode="clip")
                sent_by = None if others is None else sends[sender]
            else:
                sender, tau = senders[:count, level][:, needed], times[:count, level][:, needed]
                row = np.take_along_axis(after, sender, axis=0)
                sent_by = None if others is None else np.take_along_axis(sends, sender, axis=0)
            if sent_by is None:
                row += weights.migration[t] * tau
            else:
                row += np.maximum(moves + tau, sent_by)
            np.minimum(best[:count], row, out=best[:count])
            if second is not None:
                np.minimum(best[:count], second.level(sender, tau, shared), out=best[:count])

        # Back to rows by X; a column that is not needed keeps what it has.
        if whole:
            np.take(best, chains.position, axis=0, out=cached[t], mode="clip")
        else:
            cached[t] = kept[t]
            cached[t][:, needed] = best[chains.position]
        cached[t] += priced[t]
        if classes.charge is not None:
            cached[t] += classes.charge[t] if every_class else classes.charge[t][:, class_of]
    return CostToGo(cached, kept)


def cheapest_paths(
    classes: Classes,
    class_of: IntArray,
    values: CostToGo,
    weights: Weights,
    others: FloatArray | None = None,
) -> Paths:
    """Follow the values of the dynamic programme forwards; of equal sets, the smaller.

    Parameters
    ----------
    classes, class_of, weights, others
        As given to `cost_to_go`.
    values
        What it returned.
    """
    chains = classes.chains
    slots, _, batch = values.cached.shape
    column = np.arange(batch)
    cached = np.zeros((slots, batch), dtype=np.int64)
    sender = np.zeros((slots, batch), dtype=np.int64)
    migration = np.zeros((slots, batch))
    broadcast = np.zeros((slots, batch))
    held = _smallest(values.cached[0].argmin(axis=0), subset_minimum(values.cached[0]), column)
    for t in range(slots):
        cached[t] = held
        sender[t] = held
        # The level that attains W_t(X), by the same sums as in `cost_to_go`.
        needed = np.flatnonzero(classes.needed[t, class_of])
        choices, times = chains.levels(held[needed], class_of[needed])
        sends = classes.broadcast[t][choices, class_of[needed, None]]
        if others is None:
            total = weights.migration[t] * times + weighted(weights.broadcast[t], sends)
        else:
            moved, sent = others[:, t, needed, None]
            total = np.maximum(moved + times, sent + sends) - np.maximum(moved, sent)
        if classes.second is not None:
            total = np.minimum(
                total, second_seconds(classes.second, t, class_of[needed], choices, times)
            )
        total = total + values.kept[t][choices, needed[:, None]]
        pick = total.argmin(axis=1)
        row = np.arange(len(needed))
        sender[t, needed] = choices[row, pick]
        migration[t, needed] = times[row, pick]
        broadcast[t, needed] = sends[row, pick]
        # What the next slot keeps of it.
        held = _smallest(sender[t], values.kept[t], column)
    return Paths(cached, sender, migration, broadcast)


@dataclass(frozen=True)
class _SecondWay:
    """The second way of a slot for B columns.

    Attributes
    ----------
    weight, floor
        (B,) as in `SecondWay`.
    after
        (2^U, B) broadcast by a set, and what comes after.
    """

    weight: FloatArray
    floor: FloatArray
    after: FloatArray

    def level(self, sender: IntArray, tau: FloatArray, shared: bool) -> FloatArray:
        """Return the cost of a level; senders and times are (S,) and (S, 1) or (S, B)."""
        row = self.after[sender] if shared else np.take_along_axis(self.after, sender, axis=0)
        return np.asarray(row + self.weight * np.maximum(tau - self.floor, 0.0))


def _second_way(second: SecondWay, t: int, class_of: IntArray, kept: FloatArray) -> _SecondWay:
    """Return the second way of slot t for columns (B,) of classes, with A_t(Q) (2^U, B) added."""
    after = second.broadcast[t][:, class_of] + kept
    return _SecondWay(second.weight[t, class_of], second.floor[t, class_of], after)


def second_seconds(
    second: SecondWay, t: int, class_of: IntArray, sender: IntArray, time: FloatArray
) -> FloatArray:
    """Return (B, L) seconds per byte of the second way through slot t.

    Parameters
    ----------
    second, t
        The second way, and the slot.
    class_of
        (B,) classes.
    sender, time
        (B, L) sender sets Q and migration times tau of a byte.
    """
    charged = np.maximum(time - second.floor[t, class_of, None], 0.0)
    sends = second.broadcast[t][sender, class_of[:, None]]
    return np.asarray(second.weight[t, class_of, None] * charged + sends)


def by_second_way(
    classes: Classes, class_of: IntArray, paths: Paths, weights: Weights
) -> BoolArray:
    """Return (T, B) whether paths take the second way, which is where it is the cheaper one.

    Parameters
    ----------
    classes, class_of, weights
        As given to `cost_to_go`; the classes have a second way.
    paths
        Paths of these classes.
    """
    taken = np.zeros(paths.sender.shape, dtype=bool)
    assert classes.second is not None
    for t in range(len(taken)):
        needed = np.flatnonzero(classes.needed[t, class_of])
        tau = paths.migration[t, needed]
        first = weights.migration[t] * tau + weighted(
            weights.broadcast[t], paths.broadcast[t, needed]
        )
        other = second_seconds(
            classes.second, t, class_of[needed], paths.sender[t, needed, None], tau[:, None]
        )
        taken[t, needed] = other[:, 0] < first
    return taken


def _smallest(held: IntArray, least: FloatArray, column: IntArray) -> IntArray:
    """Drop every node that can go without raising the minimum over subsets, (2^N, B) `least`."""
    held = held.copy()
    half = 1
    while half < len(least):
        fewer = held & ~half
        held = np.where(least[fewer, column] == least[held, column], fewer, held)
        half *= 2
    return held
