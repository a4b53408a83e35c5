"""Random arrays of which a larger one holds the smaller one: element by element from its indices.

The generators of NumPy fill an array in order, so that one more user shifts every number after her.
Here the number at indices (i, j, ...) is a hash of the seed, of the number of the call and of the
indices: more users, nodes, antennas or slots leave all others what they had.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

from finecast.problem.arrays import FloatArray

Words = NDArray[np.uint64]

ODD = np.uint64(0x9E3779B97F4A7C15)
"""2^64 over the golden ratio, the increment of SplitMix64."""


class NestedGenerator:
    """The part of `numpy.random.Generator` that drawing an instance takes.

    Parameters
    ----------
    seed
        Non-negative.
    part
        Name of what is drawn: parts are independent.
    number
        Number of the path or of the places; None for those of the seed itself.
    """

    def __init__(self, seed: int, part: str, number: int | None = None) -> None:
        key = np.zeros((), dtype=np.uint64)
        for word in (seed, zlib.crc32(part.encode()), 0 if number is None else number + 1):
            key = _mixed(key, np.uint64(word & (2**64 - 1)))
        self._key = key
        self._calls = 0

    def random(self, shape: int | tuple[int, ...]) -> FloatArray:
        """Return uniform numbers in (0, 1): those of a smaller shape are its corner."""
        self._calls += 1
        sizes = (shape,) if isinstance(shape, int) else shape
        hashed = _mixed(self._key, np.uint64(self._calls))
        for axis, size in enumerate(sizes):
            index = np.arange(size, dtype=np.uint64) + np.uint64((axis << 40) + 1)
            hashed = _mixed(hashed[..., None], index)
        return ((hashed >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53

    def uniform(self, low: float, high: float, shape: int | tuple[int, ...]) -> FloatArray:
        """Return uniform numbers between two ends."""
        return low + (high - low) * self.random(shape)

    def standard_normal(self, shape: int | tuple[int, ...]) -> FloatArray:
        """Return standard Gaussian numbers, by the inverse distribution function."""
        from scipy.special import ndtri

        return np.asarray(ndtri(self.random(shape)))


def _mixed(state: NDArray[np.uint64] | np.uint64, word: NDArray[np.uint64] | np.uint64) -> Words:
    """Return a hash of a state and a word: two rounds of the finaliser of SplitMix64.

    G. Steele, D. Lea, C. Flood, Fast splittable pseudorandom number generators, OOPSLA 2014.
    """
    with np.errstate(over="ignore"):
        mixed = _finalised(np.asarray(state) + np.asarray(word) * ODD + ODD)
        return _finalised(mixed ^ (np.asarray(word) + ODD))


def _finalised(z: Words) -> Words:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
