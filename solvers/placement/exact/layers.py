"""Proof by layers: all partial choices side by side, one block after the other, bounded together.

A label is a choice of paths for the blocks before a layer: what it costs, and what it uses of every
storage. Whatever the prices lambda >= 0 are,

    cost + sum over the other blocks of min over p [c_p + s_j lambda . X_p] - lambda . (S - used)

is a lower bound on every placement that goes on from the label: the Lagrangian function of the rest
within the storage that is left. It is linear in cost and use, so one vector of prices bounds all
labels by one product, and the best of some dozens comes near the linear relaxation of each label
(its value is convex in the storage that is left; every dual solution is a plane below it). HiGHS
proposes the prices for a few labels of every layer, and its word counts for nothing. Labels whose
bound reaches the delay to beat are left out, and so are those that fill a storage beyond its bytes,
in whole numbers.

Blocks of the same size and the same paths are interchangeable: the later one takes no path before
that of the earlier one. Blocks go by size, the largest first.

A tree solves a linear programme for every part, and here one serves thousands of labels. In
return the order of the blocks is fixed. Where labels become too many, the layers end with the least
of their bounds, or those of the greatest bounds are dropped: what is found is then a plan only (a
beam search), and the least bound of what was dropped holds beside the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.deadline import NEVER, STATE_WORK, Deadline, count_work
from finecast.solvers.highs import QuietHighs, run_within
from finecast.solvers.placement.exact.useful_paths import UsefulPaths
from finecast.solvers.rounding import EPSILON, SUM_ALLOWANCE

PRICES = 40
"""Linear programmes of one layer."""

FEW = 200
"""Labels up to which a layer gets fewer programmes."""

PRICES_OF_FEW = 8
"""So many."""

KEPT_PRICES = 120
"""Vectors of prices, the last ones, with which the labels of the next layer are bounded first."""

PENALTY = 10.0
"""Cost of a storage that is used once more, in delays to beat: prices where nothing fits."""


@dataclass(frozen=True)
class Layers:
    """What the layers came to.

    Attributes
    ----------
    lower_bound
        Seconds; no choice of the paths that fits is faster.
    choice
        (J,) the fastest paths found, faster than the delay to beat; None where there are none.
    labels
        Labels of all layers.
    complete
        Whether nothing was dropped.
    """

    lower_bound: float
    choice: IntArray | None
    labels: int
    complete: bool


@dataclass(frozen=True)
class _Labels:
    """Labels of a layer, (L,) each, and `used` (L, T N) bytes.

    `parent` is the label of the layer before, `path` that of the layer's block.
    """

    cost: FloatArray
    used: IntArray
    parent: IntArray
    path: IntArray

    def of(self, index: IntArray) -> _Labels:
        """Return some of the labels."""
        return _Labels(self.cost[index], self.used[index], self.parent[index], self.path[index])


def prove_by_layers(
    paths: UsefulPaths,
    prices: FloatArray,
    delay: float,
    *,
    gap: float,
    most: int,
    drop: bool = False,
    seed: int = 0,
    deadline: Deadline = NEVER,
) -> Layers:
    """Prove that no choice of paths that fits is faster than a delay, or find the fastest.

    Parameters
    ----------
    paths
        The paths.
    prices
        (T N,) s per byte, where the first bound is taken.
    delay
        Seconds to beat.
    gap
        Relative gap to prove: nothing that is faster by less is looked for.
    most
        Labels of a layer, at most, before any is left out by its bound.
    drop
        Drop the labels beyond that and go on, in place of an end there.
    seed
        Which labels get prices of their own.
    deadline
        When to end besides.

    Examples
    --------
    Two blocks of 10 bytes, and room for one and a half: 1 s from the cache and 4 s from the cloud.

    >>> paths = UsefulPaths(
    ...     np.array([[1.0, 4.0]] * 2), np.array([[1, 0]] * 2),
    ...     np.array([[[10], [0]]] * 2), np.array([15]),
    ... )
    >>> proof = prove_by_layers(paths, np.zeros(1), 8.0, gap=1e-9, most=10)
    >>> round(proof.lower_bound, 6), proof.choice.tolist(), proof.complete
    (5.0, [0, 1], True)
    """
    cutoff = delay / (1.0 + gap)
    order = np.argsort(-paths.holds.max(axis=(1, 2)), kind="stable")
    order = _twins_together(paths, order)
    rng = np.random.default_rng(seed)
    relaxation = _Rest(paths, order, cutoff or 1.0)
    known = [np.where(np.isfinite(prices), np.maximum(prices, 0.0), 0.0)]
    nothing = np.zeros((1, len(paths.storage)), dtype=np.int64)
    labels = _Labels(np.zeros(1), nothing, np.zeros(1, np.int64), np.zeros(1, np.int64))
    past: list[_Labels] = []
    count, least, dropped = 0, 0.0, np.inf
    for layer, j in enumerate(order.tolist()):
        # Every label goes on by every path of the block that fits.
        choices = np.flatnonzero(np.isfinite(paths.cost[j]))
        if deadline.over() or len(labels.cost) * len(choices) > most:
            bound = min(cutoff, dropped, least) * (1.0 - SUM_ALLOWANCE)
            return Layers(bound, None, count, False)
        twin = layer > 0 and _twins(paths, int(order[layer - 1]), j)
        labels = _grown(paths, labels, j, choices, twin)
        rest = order[layer + 1 :]
        relaxation.leave_out(j, len(choices))

        # Prices of the layers before come first, then those of labels of this one.
        bounds = np.full(len(labels.cost), least)
        for some in known:
            np.maximum(bounds, _bounds(paths, rest, labels, some), out=bounds)
        labels, bounds = _below(labels, bounds, cutoff)
        rounds = PRICES if len(labels.cost) > FEW else PRICES_OF_FEW
        for turn in range(rounds if len(rest) else 0):
            if not len(labels.cost) or deadline.over():
                break
            at = int(bounds.argmin()) if turn % 2 == 0 else int(rng.integers(len(bounds)))
            known.append(relaxation.prices(paths.storage - labels.used[at]))
            np.maximum(bounds, _bounds(paths, rest, labels, known[-1]), out=bounds)
            labels, bounds = _below(labels, bounds, cutoff)
        known = known[-KEPT_PRICES:]
        count += len(labels.cost)
        if not len(labels.cost):
            bound = min(cutoff, dropped) * (1.0 - SUM_ALLOWANCE)
            return Layers(bound, None, count, bool(np.isinf(dropped)))
        least = float(bounds.min())

        # As many go on as the next layer can take, those of the least bounds.
        room = most // max(1, int(np.isfinite(paths.cost[rest[:1]]).sum()))
        if drop and 0 < room < len(labels.cost):
            ranked = np.argsort(bounds, kind="stable")
            dropped = min(dropped, float(bounds[ranked[room]]))
            labels = labels.of(np.sort(ranked[:room]))
        past.append(labels)

    # What is left is every choice that beats the cutoff; the fastest one, back to the first block.
    label = int(labels.cost.argmin())
    value = float(labels.cost[label])
    choice = np.zeros(len(order), dtype=np.int64)
    for j, these in zip(order[::-1].tolist(), past[::-1], strict=True):
        choice[j] = these.path[label]
        label = int(these.parent[label])
    bound = min(cutoff, dropped, value) * (1.0 - SUM_ALLOWANCE)
    found = choice if value < cutoff else None
    return Layers(bound, found, count, bool(np.isinf(dropped)))


def _grown(paths: UsefulPaths, labels: _Labels, j: int, choices: IntArray, twin: bool) -> _Labels:
    """Return the labels that go on by the choices (P,) of block j and fit.

    Where the block before is its twin, it takes no path before that one's.
    """
    parent = np.repeat(np.arange(len(labels.cost)), len(choices))
    path = np.tile(choices, len(labels.cost))
    if twin:
        later = path >= labels.path[parent]
        parent, path = parent[later], path[later]
    used = labels.used[parent] + paths.holds[j, path]
    fits = (used <= paths.storage).all(axis=1)
    parent, path, used = parent[fits], path[fits], used[fits]
    return _Labels(labels.cost[parent] + paths.cost[j, path], used, parent, path)


def _bounds(paths: UsefulPaths, rest: IntArray, labels: _Labels, prices: FloatArray) -> FloatArray:
    """Return certified bounds (L,) on all that goes on from the labels, at prices (T N,) >= 0.

    A bound is a sum of J costs, J minima of a cost and T N rents, and two sums of T N rents: its
    error is below the number of roundings times the sum of their sizes, as in `dual_value`.
    """
    gain = float((paths.cost[rest] + paths.bytes[rest] @ prices).min(axis=1).sum())
    rent = float(paths.storage @ prices)
    count_work(STATE_WORK * labels.used.size)
    value = labels.cost + labels.used @ prices + (gain - rent)
    roundings = 4 * len(prices) + 2 * len(paths.cost) + 8
    terms = float(labels.cost.max(initial=0.0)) + gain + 2.0 * rent
    bounds: FloatArray = value - 2.0 * roundings * EPSILON * terms
    return bounds


def _below(labels: _Labels, bounds: FloatArray, cutoff: float) -> tuple[_Labels, FloatArray]:
    """Return the labels whose bound is below the cutoff, with their bounds."""
    kept = np.flatnonzero(bounds < cutoff)
    return (labels, bounds) if len(kept) == len(bounds) else (labels.of(kept), bounds[kept])


def _twins(paths: UsefulPaths, one: int, other: int) -> bool:
    """Say whether two blocks are interchangeable: the same paths, of the same bytes and costs."""
    return bool(
        (paths.cost[one] == paths.cost[other]).all()
        and (paths.holds[one] == paths.holds[other]).all()
    )


def _twins_together(paths: UsefulPaths, order: IntArray) -> IntArray:
    """Return the order with every block right behind the first of its twins."""
    first: dict[bytes, int] = {}
    key = []
    for place, j in enumerate(order.tolist()):
        known = paths.cost[j].tobytes() + paths.holds[j].tobytes()
        key.append(first.setdefault(known, place))
    return order[np.argsort(key, kind="stable")]


class _Rest:
    """Shares of the paths of the blocks that are left: minimise c . y within what is left."""

    def __init__(self, paths: UsefulPaths, order: IntArray, unit: float) -> None:
        self.unit = unit
        self.scale = float(paths.storage.max()) or 1.0
        rows, blocks = len(paths.storage), len(order)
        self._rows = rows
        self._highs = QuietHighs()
        for option, value in (("threads", 1), ("presolve", "off"), ("solver", "simplex")):
            self._highs.setOptionValue(option, value)
        block = np.repeat(order, np.isfinite(paths.cost[order]).sum(axis=1))
        path = np.concatenate([np.flatnonzero(np.isfinite(paths.cost[j])) for j in order])
        # A storage that is used once more, first; then the paths by the order of their blocks.
        shares = np.concatenate(
            [paths.holds[block, path] / self.scale, np.eye(blocks)[block]], axis=1
        )
        matrix = np.concatenate([-np.eye(rows, rows + blocks), shares])
        column, row = np.nonzero(matrix)
        count, ones = len(matrix), np.ones(blocks)
        cost = np.concatenate([np.full(rows, PENALTY), paths.cost[block, path] / unit])
        self._highs.passModel(
            count, rows + blocks, len(row), 1, 1, 0.0, cost, np.zeros(count),
            np.full(count, np.inf), np.concatenate([np.full(rows, -np.inf), ones]),
            np.concatenate([paths.storage / self.scale, ones]),
            np.searchsorted(column, np.arange(count)).astype(np.int32), row.astype(np.int32),
            matrix[column, row], np.zeros(count, dtype=np.int32),
        )  # fmt: skip

    def leave_out(self, j: int, count: int) -> None:
        """Leave out the first block j, which has `count` paths."""
        first = np.arange(self._rows, self._rows + count, dtype=np.int32)
        self._highs.deleteCols(count, first)
        self._highs.changeRowBounds(self._rows + j, -np.inf, np.inf)

    def prices(self, free: IntArray) -> FloatArray:
        """Return prices (T N,) for what is left of the storages, s per byte, at least 0."""
        rows = np.arange(self._rows, dtype=np.int32)
        lower = np.full(self._rows, -np.inf)
        self._highs.changeRowsBounds(self._rows, rows, lower, free / self.scale)
        run_within(self._highs, NEVER)
        dual = np.array(self._highs.getSolution().row_dual)[: self._rows]
        return np.maximum(0.0, np.where(np.isfinite(dual), -dual, 0.0)) * (self.unit / self.scale)
