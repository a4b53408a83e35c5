"""Intervals for the differences of arguments of received signals, and what they say of each other.

theta_kj = arg y_k - arg y_j lies within half_kj of middle_kj, on the circle. Since
theta_ki + theta_ij = theta_kj, two narrow intervals of a triangle of users narrow the third.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray

SLACK = 1e-13
"""Every interval computed is longer by this at both ends, for its roundings."""

SWEEPS = 3
"""How often all triangles are looked at after a split. Any number gives valid intervals."""


@dataclass(frozen=True)
class Intervals:
    """Intervals of the differences of arguments, one set per box.

    Attributes
    ----------
    middle, half
        (B, K, K), rad; middle is antisymmetric, half symmetric, pi where nothing is known.
    """

    middle: FloatArray
    half: FloatArray

    @classmethod
    def whole(cls, boxes: int, users: int) -> Intervals:
        """Return the intervals that hold everything.

        Examples
        --------
        >>> Intervals.whole(1, 2).half.round(2).tolist()
        [[[0.0, 3.14], [3.14, 0.0]]]
        """
        half = np.full((boxes, users, users), np.pi)
        half[:, np.arange(users), np.arange(users)] = 0
        return cls(np.zeros_like(half), half)

    def take(self, index: IntArray | BoolArray) -> Intervals:
        """Return the boxes that `index`, or a mask, selects."""
        return Intervals(self.middle[index], self.half[index])

    def joined(self, more: Intervals) -> Intervals:
        """Return these boxes followed by `more`."""
        return Intervals(
            np.concatenate([self.middle, more.middle]), np.concatenate([self.half, more.half])
        )


def split(whole: Intervals, first: IntArray, second: IntArray, parts: int) -> Intervals:
    """Return (parts B,) boxes: the interval of one pair of every box cut into equal parts.

    Parameters
    ----------
    whole
        B boxes.
    first, second
        (B,) the users of the pair.
    parts
        How many.

    Examples
    --------
    >>> quarters = split(Intervals.whole(1, 2), np.array([0]), np.array([1]), 4)
    >>> quarters.middle[:, 0, 1].round(2).tolist(), quarters.half[:, 0, 1].round(2).tolist()
    ([-2.36, -0.79, 0.79, 2.36], [0.79, 0.79, 0.79, 0.79])
    """
    row = np.arange(len(first))
    middles, halves = [], []
    for part in range(parts):
        middle, half = whole.middle.copy(), whole.half.copy()
        share = half[row, first, second]
        centre = middle[row, first, second] + share * ((2 * part + 1) / parts - 1)
        middle[row, first, second], middle[row, second, first] = centre, -centre
        half[row, first, second] = half[row, second, first] = share / parts + SLACK
        middles.append(middle)
        halves.append(half)
    return Intervals(np.concatenate(middles), np.concatenate(halves))


def propagated(given: Intervals) -> tuple[Intervals, BoolArray]:
    """Return intervals narrowed by all triangles of users, and (B,) whether any argument is left.

    Two arcs that together are shorter than the circle meet in one arc or not at all. Longer ones
    are left as they are, except that an arc replaces the whole circle.

    Parameters
    ----------
    given
        Intervals.

    Examples
    --------
    Users 0 and 1 within 0.1 of each other, 1 and 2 too: 0 and 2 are within 0.2.

    >>> given = Intervals.whole(1, 3)
    >>> for k, j in ((0, 1), (1, 2)):
    ...     given.half[0, k, j] = given.half[0, j, k] = 0.1
    >>> narrowed, possible = propagated(given)
    >>> float(narrowed.half[0, 0, 2].round(6)), bool(possible[0])
    (0.2, True)

    No third argument is within 0.2 of these two if it is a quarter turn away.

    >>> given.middle[0, 0, 2], given.middle[0, 2, 0] = np.pi / 2, -np.pi / 2
    >>> given.half[0, 0, 2] = given.half[0, 2, 0] = 0.3
    >>> propagated(given)[1].tolist()
    [False]
    """
    middle, half = given.middle.copy(), given.half.copy()
    users = half.shape[1]
    possible = np.ones(len(half), dtype=bool)
    for _ in range(SWEEPS):
        before = half.sum()
        for i in range(users):
            # The arc that the two other sides of the triangle leave for (k, j).
            through = half[:, :, i, None] + half[:, None, i, :]
            centre = middle[:, :, i, None] + middle[:, None, i, :]
            away = centre - middle
            away -= 2 * np.pi * np.round(away / (2 * np.pi))
            low, high = np.maximum(-half, away - through), np.minimum(half, away + through)
            whole = half >= np.pi
            known = through < np.pi
            narrows = known & (whole | (half + through < np.pi))
            low = np.where(whole, away - through, low)
            high = np.where(whole, away + through, high)
            possible &= ~(narrows & (high < low - 4 * SLACK)).any((1, 2))
            length = (high - low) / 2 + 2 * SLACK
            narrows &= length < half - 4 * SLACK
            shift = np.where(narrows, (high + low) / 2, 0)
            middle = middle + shift
            half = np.where(narrows, np.maximum(length, 0), half)
        # (k, j) and (j, k) were narrowed alike, up to rounding: the wider one counts.
        half = np.maximum(half, half.swapaxes(1, 2))
        upper = np.triu(middle, 1)
        off = np.abs(np.triu(middle + middle.swapaxes(1, 2), 1))
        middle = upper - upper.swapaxes(1, 2)
        half = half + off + off.swapaxes(1, 2)
        if half.sum() > before * (1 - 1e-3):
            break
    return Intervals(middle, half), possible
