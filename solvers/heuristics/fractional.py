"""Fractional caches: projection onto the storage of a node, and rounding to whole blocks.

A node may hold the fractions y of its blocks in the polytope

    Y = {y in R^J : 0 <= y_j <= 1,  sum_j s_j y_j <= S,  y_j = 0 where s_j > S},

a knapsack cut to the blocks that fit at all. Methods that learn without regret move in Y, and hold
whole blocks drawn from y.
"""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.placement.fill import keep_by_score

WHOLE = 1e-9
"""How near to 0 or 1 a fraction counts as 0 or 1: its rounding."""


def project(point: FloatArray, size: IntArray, storage: int) -> FloatArray:
    """Return the point of Y nearest to a point, (J,), exactly up to rounding.

    The conditions of Karush, Kuhn and Tucker say y(mu) = clip(z - mu s, 0, 1), with the least
    mu >= 0 at which the bytes fit. They fall in mu, linearly between the breakpoints at which a
    block leaves 1 or reaches 0, so mu is read off the two breakpoints around the storage.

    Parameters
    ----------
    point
        (J,) z, any finite numbers.
    size
        (J,) byte.
    storage
        Byte.

    Examples
    --------
    Two blocks of 1 byte that both want to be there whole, and one that does not, in 1 byte.

    >>> project(np.array([1.5, 1.0, -1.0]), np.array([1, 1, 1]), 1)
    array([0.75, 0.25, 0.  ])
    """
    fits = size <= storage
    y = np.zeros(len(point))
    if not fits.any():
        return y
    # In units of the mean size, so that the numbers are near 1.
    unit = size[fits].mean()
    s, most, z = size[fits] / unit, storage / unit, point[fits]

    def bytes_at(mu: FloatArray) -> FloatArray:
        return np.asarray(np.clip(z - mu[:, None] * s, 0.0, 1.0) @ s)

    mu = 0.0
    if bytes_at(np.zeros(1))[0] > most:
        breaks = np.concatenate([[0.0], (z - 1.0) / s, z / s])
        breaks = np.unique(breaks[breaks >= 0.0])
        used = bytes_at(breaks)  # falling
        right = int(np.argmax(used <= most))  # the last one uses nothing, the first one too much
        left = right - 1
        part = (used[left] - most) / (used[left] - used[right])
        mu = breaks[left] + part * (breaks[right] - breaks[left])
    y[fits] = np.clip(z - mu * s, 0.0, 1.0)
    return y


def round_dependently(y: FloatArray, size: IntArray, rng: np.random.Generator) -> FloatArray:
    """Return whole blocks, (J,) of 0 and 1, but for at most one fraction, with the mean y.

    Two fractions at a time move against each other, byte for byte, until one of them is 0 or 1. Of
    the two ways to get there one is drawn, such that neither changes in the mean. So sum_j s_j y_j
    stays, up to rounding, and every block has the mean y_j (Srinivasan, *Distributions on
    level-sets with applications to approximation algorithms*, FOCS 2001; Gandhi et al., J. ACM 53,
    2006).

    Parameters
    ----------
    y
        (J,) fractions within [0, 1].
    size
        (J,) byte.
    rng
        Source of the draws. One number is drawn for every block but the first: the same generator
        for near points takes the same ways, so that whole blocks change little with y.
    """
    x = np.where(y < WHOLE, 0.0, np.where(y > 1.0 - WHOLE, 1.0, y))
    drawn = rng.random(len(x))
    carried = -1  # the fraction that is left
    for j in np.flatnonzero((x > 0.0) & (x < 1.0)).tolist():
        if carried < 0:
            carried = j
            continue
        i, ratio = carried, size[j] / size[carried]
        up = min(1.0 - x[i], ratio * x[j])  # how far block i can rise, and fall
        down = min(x[i], ratio * (1.0 - x[j]))
        step = up if drawn[j] * (up + down) < down else -down
        x[i], x[j] = _snapped(x[i] + step), _snapped(x[j] - step / ratio)
        left = [block for block in (i, j) if 0.0 < x[block] < 1.0]
        carried = left[0] if left else -1
    return x


def _snapped(fraction: float) -> float:
    """Return 0 or 1 where a fraction is within rounding of it."""
    return 0.0 if fraction < WHOLE else 1.0 if fraction > 1.0 - WHOLE else fraction


def draw_caches(
    fraction: FloatArray,
    held: BoolArray,
    size: IntArray,
    storage: IntArray,
    seed: int,
) -> BoolArray:
    """Return whole blocks (N, J) drawn from fractions, of those that are there.

    Every node rounds what it holds, with the same random numbers in every call (coupled rounding:
    copies move only as the fractions do). Whatever room is left over, also by blocks that are not
    there, goes to other blocks that are there, by their fractions. A copy for which there is room
    costs nothing. So a block is kept with at least the chance y_nj, less the one fraction of a node
    that rounding leaves and that does not fit.

    Parameters
    ----------
    fraction
        (N, J) y, in the polytope of every node.
    held
        (N, J) cached or received now.
    size, storage
        (J,) and (N,) byte.
    seed
        Seed of the rounding.
    """
    whole = np.zeros_like(held)
    for n, row in enumerate(np.where(held, fraction, 0.0)):
        rounded = round_dependently(row, size, np.random.default_rng([seed, n]))
        whole[n] = rounded == 1.0
    # Fractions are at most 1, so whole blocks come first; keeping by score counts exact bytes.
    return keep_by_score(fraction + 2.0 * whole, held, size, storage)


def diameter(size: IntArray, storage: IntArray) -> FloatArray:
    """Return (N,) how far two points of Y can be from each other, from above.

    norm(y - y')^2 <= sum_j |y_j - y'_j| is at most the number of blocks, and at most twice the
    largest sum_j y_j, which the smallest blocks reach.

    Parameters
    ----------
    size, storage
        (J,) and (N,) byte.
    """
    small = np.sort(size)
    filled = np.clip((storage[:, None] - (np.cumsum(small) - small)) / small, 0.0, 1.0)
    return np.asarray(np.sqrt(np.minimum(len(size), 2.0 * filled.sum(axis=1))))


def evenly(size: IntArray, storage: IntArray) -> FloatArray:
    """Return the fractions (N, J) of a node that prefers no block: all of one fraction."""
    return np.stack([project(np.full(len(size), 0.5), size, int(limit)) for limit in storage])
