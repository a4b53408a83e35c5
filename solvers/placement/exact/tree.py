"""Branch and bound over certified bounds: small placements to a proof that no solver's word is in.

A part of the tree is a set of allowed paths for every block (`useful_paths`). Whatever the prices
lambda >= 0 of the storages are,

    L(lambda) = sum_j min over allowed p [c_p + s_j lambda . X_p] - lambda . S

is a lower bound on every placement of the part (`dual_value`, with its rounding allowed for): the
bound that any dual vector of the linear relaxation gives over variables within [0, 1] (A. Neumaier
and O. Shcherbina, Mathematical Programming 99 (2004) 283-296). HiGHS proposes the prices; what it
says of its own answer counts for nothing. In every part,

* a path whose reduced cost lifts L(lambda) above the delay to beat is left out;
* so is one whose bytes do not fit beside the fewest that the other blocks cache, in whole numbers;
* where the relaxation is whole, its paths are a placement.

What is left is split at one copy, into the paths that have it and those that do not, by pseudo
costs (M. Benichou et al., Mathematical Programming 1 (1971) 76-94). The part of least bound goes
first. Wherever the search ends,

    min of the delay to beat and the bounds of the open parts

holds for every placement. All limits are counts.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
from numpy.typing import NDArray

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.highs import QuietHighs, run_within
from finecast.solvers.placement.exact.useful_paths import UsefulPaths
from finecast.solvers.rounding import EPSILON, SUM_ALLOWANCE

NEAR = 1e-6
"""Shares this near to 0 or 1 count as whole."""

MOST_SUMMED = 12
"""Blocks of which all sums of bytes are formed."""

RAY_LENGTHS = (1.0, 1e2, 1e4, 1e6)
"""How far along a ray prices are tried where HiGHS finds no solution, in its units."""

MOST_PIVOTS = 20_000
"""Simplex steps in one part, after which it is split as it is."""

LEAST_GAIN = 1e-6
"""Gain that a split counts as having at least, as a share of the delay."""


@dataclass(frozen=True)
class Proof:
    """What a tree came to.

    Attributes
    ----------
    lower_bound
        Seconds; no choice of the paths that fits is faster.
    choice
        (J,) the fastest paths found, faster than the delay to beat; None where there are none.
    parts
        How many parts were split.
    """

    lower_bound: float
    choice: IntArray | None
    parts: int


def dual_value(
    paths: UsefulPaths, allowed: BoolArray, prices: FloatArray, storage: IntArray | None = None
) -> tuple[float, FloatArray]:
    """Return the certified bound of a part, and the priced costs of its paths.

    A priced cost is a sum of a cost and T N rents, and the bound one of J of them and T N rents, so
    its error is below their number of roundings times the sum of their sizes (N. J. Higham,
    Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1), in any order.

    Parameters
    ----------
    paths
        The paths.
    allowed
        (J, K) which of them.
    prices
        (T N,) any numbers, s per byte; those that are negative or not finite count as zero.
    storage
        (T N,) bytes that no choice of these paths exceeds; None for the storage itself.

    Returns
    -------
    bound
        Seconds, infinite where a block has no path.
    priced
        (J, K) s, infinite where not allowed.

    Examples
    --------
    Two blocks of 10 bytes and room for one: 1 s from the cache and 4 s from the cloud.

    >>> paths = UsefulPaths(
    ...     np.array([[1.0, 4.0]] * 2), np.array([[1, 0]] * 2),
    ...     np.array([[[10], [0]]] * 2), np.array([10]),
    ... )
    >>> every = np.ones((2, 2), dtype=bool)
    >>> [round(dual_value(paths, every, np.array([p]))[0], 9) for p in (0.0, 0.3, 0.5, -7.0)]
    [2.0, 5.0, 3.0, 2.0]
    """
    prices = np.where(np.isfinite(prices), np.maximum(prices, 0.0), 0.0)
    priced = np.where(allowed, paths.cost + paths.bytes @ prices, np.inf)
    gain = float(priced.min(axis=1).sum())
    if not np.isfinite(gain):
        return np.inf, priced
    rent = float((paths.storage if storage is None else storage) @ prices)
    roundings = 2 * len(prices) + len(priced) + 8
    return gain - rent - 2.0 * roundings * EPSILON * (gain + rent), priced


def fitting(paths: UsefulPaths, allowed: BoolArray) -> BoolArray:
    """Return the paths that fit beside the fewest bytes of the other blocks, in whole numbers."""
    bytes_of = np.where(allowed[:, :, None], paths.holds, np.iinfo(np.int64).max // 4)
    fewest = bytes_of.min(axis=1)
    some = allowed.any(axis=1).reshape(-1, 1)
    room = paths.storage - np.where(some, fewest, 0).sum(axis=0)
    fits: BoolArray = (bytes_of - fewest[:, None] <= room).all(axis=2)
    return allowed & fits


def filled(paths: UsefulPaths, allowed: BoolArray) -> IntArray:
    """Return (T N,) the most bytes that allowed paths can fill of every storage, in whole numbers.

    That is the largest sum of bytes within the storage, over the blocks that may be cached there or
    not, beside those that must be; the storage itself where these are
    more than `MOST_SUMMED`.

    Examples
    --------
    Blocks of 10, 20 and 40 bytes, each cached or not, fill 60 of 65 bytes.

    >>> paths = UsefulPaths(
    ...     np.zeros((3, 2)), np.array([[1, 0]] * 3),
    ...     np.array([[[10], [0]], [[20], [0]], [[40], [0]]]), np.array([65]),
    ... )
    >>> filled(paths, np.ones((3, 2), dtype=bool))
    array([60])
    """
    most = np.where(allowed[:, :, None], paths.holds, 0).max(axis=1)
    least = np.where(allowed[:, :, None], paths.holds, np.iinfo(np.int64).max).min(axis=1)
    storage = paths.storage.copy()
    for at in range(len(storage)):
        free = most[most[:, at] > least[:, at], at]
        if len(free) > MOST_SUMMED or most[:, at].sum() <= storage[at]:
            continue
        room = int(storage[at] - np.minimum(least, most)[:, at].sum())
        sums = np.zeros(1, dtype=np.int64)
        for size in free:
            sums = np.concatenate([sums, sums[sums <= room - size] + size])
        storage[at] += int(sums.max()) - room
    return storage


class _Cutoff:
    """The fastest choice so far, and the bound above which a part holds nothing of use."""

    def __init__(self, delay: float, gap: float) -> None:
        self.delay = delay
        self.gap = gap
        self.choice: IntArray | None = None

    @property
    def value(self) -> float:
        """Seconds: nothing within the gap of the delay is looked for."""
        return self.delay / (1.0 + self.gap)

    def offer(self, paths: UsefulPaths, choice: IntArray) -> None:
        """Take the paths (J,) if they fit and are faster."""
        blocks = np.arange(len(choice))
        cost = float(paths.cost[blocks, choice].sum())
        used = paths.holds[blocks, choice].sum(axis=0)
        if cost < self.delay and (used <= paths.storage).all():
            self.delay, self.choice = cost, choice


class _Relaxation:
    """Shares y_p of the paths: minimise c . y, one for every block, within the storages."""

    def __init__(self, paths: UsefulPaths, allowed: BoolArray, unit: float) -> None:
        self.shape = paths.cost.shape
        self.block, self.path = np.nonzero(allowed)
        self.unit = unit
        self.scale = float(paths.storage.max()) or 1.0
        count, rows = len(self.block), len(paths.storage)
        holds = paths.holds[self.block, self.path] / self.scale
        matrix = np.concatenate([holds, np.eye(self.shape[0])[self.block]], axis=1)
        column, row = np.nonzero(matrix)
        ones = np.ones(self.shape[0])
        self._every = np.arange(count, dtype=np.int32)
        self._rows = rows
        self._highs = QuietHighs()
        for option, value in (
            ("threads", 1), ("presolve", "off"), ("solver", "simplex"),
            ("simplex_iteration_limit", MOST_PIVOTS),
            ("primal_feasibility_tolerance", 1e-9), ("dual_feasibility_tolerance", 1e-9),
        ):  # fmt: skip
            self._highs.setOptionValue(option, value)
        self._highs.passModel(
            count, matrix.shape[1], len(row), 1, 1, 0.0,
            paths.cost[self.block, self.path] / unit, np.zeros(count), np.ones(count),
            np.concatenate([np.full(rows, -np.inf), ones]),
            np.concatenate([paths.storage / self.scale, ones]),
            np.searchsorted(column, np.arange(count)).astype(np.int32), row.astype(np.int32),
            matrix[column, row], np.zeros(count, dtype=np.int32),
        )  # fmt: skip

    def solve(
        self, allowed: BoolArray, storage: IntArray
    ) -> tuple[FloatArray | None, list[FloatArray]]:
        """Return shares (J, K), None where there is no optimum, and prices (T N,) to try."""
        highs = self._highs
        upper = allowed[self.block, self.path].astype(float)
        highs.changeColsBounds(len(upper), self._every, np.zeros(len(upper)), upper)
        rows = np.arange(self._rows, dtype=np.int32)
        highs.changeRowsBounds(self._rows, rows, np.full(self._rows, -np.inf), storage / self.scale)
        run_within(highs, NEVER)
        status = highs.getModelStatus()
        seconds = self.unit / self.scale
        if status == highspy.HighsModelStatus.kOptimal:
            solution = highs.getSolution()
            share = np.zeros(self.shape)
            share[self.block, self.path] = solution.col_value
            return share, [-seconds * np.array(solution.row_dual[: self._rows])]
        ray: Any = highs.getDualRay() if status == highspy.HighsModelStatus.kInfeasible else (0, 0)
        if not ray[1]:
            return None, []
        along = np.abs(np.array(ray[2])[: self._rows]) * seconds
        return None, [length * along for length in RAY_LENGTHS]


class _PseudoCosts:
    """What fixing a copy to 0 or 1 has lifted the bound by, per share that it moved."""

    def __init__(self, blocks: int, copies: int) -> None:
        self.sum = np.zeros((2, blocks, copies))
        self.count = np.zeros((2, blocks, copies))

    def learn(self, at: tuple[int, int], side: int, moved: float, gain: float) -> None:
        """Take in one split."""
        self.sum[side][at] += gain / max(moved, NEAR)
        self.count[side][at] += 1

    def score(self, share: FloatArray, least: float) -> FloatArray:
        """Return the product of the gains expected of both sides (J, T N), s^2."""
        usual = self.sum.sum(axis=(1, 2)) / np.maximum(1, self.count.sum(axis=(1, 2)))
        cost = (self.sum + usual[:, None, None]) / (self.count + 1.0)
        down, up = cost[0] * share, cost[1] * (1.0 - share)
        product: FloatArray = np.maximum(down, least) * np.maximum(up, least)
        return product


@dataclass(frozen=True, order=True)
class _Part:
    """An open part, of which the one of least bound goes first.

    Attributes
    ----------
    bound
        Seconds.
    number
        In the order of their making; of equal bounds the older part goes first.
    allowed
        (J, K) which paths, as packed bits.
    share
        (J, T N) of every copy in the relaxation.
    """

    bound: float
    number: int
    allowed: NDArray[np.uint8]
    share: FloatArray


def prove(
    paths: UsefulPaths,
    prices: FloatArray,
    delay: float,
    *,
    gap: float,
    most: int,
    deadline: Deadline = NEVER,
) -> Proof:
    """Prove that no choice of paths that fits is faster than a delay, or find one.

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
        Parts that are split, at most.
    deadline
        When to end besides.

    Examples
    --------
    Two blocks of 10 bytes, and room for one and a half: 1 s from the cache and 4 s from the cloud.

    >>> paths = UsefulPaths(
    ...     np.array([[1.0, 4.0]] * 2), np.array([[1, 0]] * 2),
    ...     np.array([[[10], [0]]] * 2), np.array([15]),
    ... )
    >>> proof = prove(paths, np.zeros(1), 8.0, gap=1e-9, most=10)
    >>> round(proof.lower_bound, 6), sorted(proof.choice.tolist())
    (5.0, [0, 1])
    """
    cutoff = _Cutoff(delay, gap)
    bits = (paths.holds > 0).astype(float)
    pseudo = _PseudoCosts(bits.shape[0], bits.shape[2])

    # The whole: the paths that fit at all.
    allowed = fitting(paths, np.isfinite(paths.cost))
    relaxation = _Relaxation(paths, allowed, delay or 1.0)
    least = max(0.0, dual_value(paths, allowed, prices)[0])
    root = _examined(
        paths, relaxation, cutoff, bits, allowed, _Part(least, 0, np.packbits(allowed), bits)
    )
    heap = [] if root is None else [root]
    count = number = 0
    while heap and count < most and not deadline.over():
        part = heapq.heappop(heap)
        if part.bound >= cutoff.value:  # and so have all others
            heap = []
            break
        count += 1
        flags = np.unpackbits(part.allowed, count=paths.cost.size).astype(bool)
        allowed = flags.reshape(paths.cost.shape)
        score = _scores(paths, allowed, bits, part.share, pseudo, LEAST_GAIN * delay)
        j, copy = (int(i) for i in np.unravel_index(score.argmax(), score.shape))
        for side in (0, 1):
            child = allowed.copy()
            child[j] &= bits[j, :, copy] == side
            number += 1
            parent = _Part(part.bound, number, part.allowed, part.share)
            found = _examined(paths, relaxation, cutoff, bits, child, parent)
            gain = (cutoff.value if found is None else found.bound) - part.bound
            moved = abs(side - part.share[j, copy])
            pseudo.learn((j, copy), side, moved, max(0.0, gain))
            if found is not None:
                heapq.heappush(heap, found)
    bound = min([cutoff.value, *(part.bound for part in heap[:1])])
    return Proof(bound * (1.0 - SUM_ALLOWANCE), cutoff.choice, count)


def _examined(
    paths: UsefulPaths,
    relaxation: _Relaxation,
    cutoff: _Cutoff,
    bits: FloatArray,
    allowed: BoolArray,
    parent: _Part,
) -> _Part | None:
    """Return the part of the allowed paths with its own bound; None where nothing is left of it."""
    # In whole numbers: what cannot fit goes; one path for every block is a placement.
    allowed = fitting(paths, allowed)
    if not allowed.any(axis=1).all():
        return None
    if (allowed.sum(axis=1) == 1).all():
        cutoff.offer(paths, allowed.argmax(axis=1))
        return None

    # The prices that HiGHS proposes; what is too dear at them goes, by more than any rounding.
    storage = filled(paths, allowed)
    share, tries = relaxation.solve(allowed, storage)
    bound = parent.bound
    for prices in tries:
        value, priced = dual_value(paths, allowed, prices, storage)
        least = priced.min(axis=1)
        bound = max(bound, value)
        if bound >= cutoff.value:
            return None
        limit = cutoff.value + SUM_ALLOWANCE * (cutoff.value + float(least.sum()))
        allowed = allowed & (value + (priced - least[:, None]) <= limit)
    if share is None:  # nothing is known: every copy is as unclear as any other
        return _Part(bound, parent.number, np.packbits(allowed), np.full_like(bits[:, 0], 0.5))
    cutoff.offer(paths, share.argmax(axis=1))
    held = np.clip(np.einsum("jk,jka->ja", share, bits), 0.0, 1.0)
    return _Part(bound, parent.number, np.packbits(allowed), held)


def _scores(
    paths: UsefulPaths,
    allowed: BoolArray,
    bits: FloatArray,
    share: FloatArray,
    pseudo: _PseudoCosts,
    least: float,
) -> FloatArray:
    """Return how good each copy is to split at (J, T N), negative where all paths agree on it.

    Unclear copies come first. Where the relaxation is whole but overfills a storage, within the
    tolerance of HiGHS, the largest block in it is next.
    """
    has = np.einsum("jk,jka->ja", allowed.astype(float), bits)
    mixed = (has > 0) & (has < allowed.sum(axis=1)[:, None])
    unclear = (share > NEAR) & (share < 1 - NEAR)
    held = np.where(share > 0.5, paths.holds.max(axis=1), 0)
    over = np.where(held.sum(axis=0) > paths.storage, held, 0)
    of_whole = over / max(1, int(over.max()))
    score = np.where(unclear, 2.0 + pseudo.score(share, least), of_whole)
    return np.where(mixed, score, -1.0)
