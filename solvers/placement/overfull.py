"""Storage to the byte: what a solver with tolerances lets in, and the rule that keeps it out.

Solvers keep a rule to a share of about 1e-9, which is 10 bytes of 10 GB, and blocks that miss a
storage by less mislead them both ways. So a proof gives every storage some room beyond, far above
the tolerance (`STORAGE_ROOM`). Every cached set that the solver gives is then added up in whole
bytes. Where it is too large, a cover says so in numbers that no tolerance blurs: of blocks
C that do not fit together at most |C| - 1 can be cached.
"""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import BoolArray, IntArray

STORAGE_ROOM = 1e-6
"""Share by which a storage counts as larger in a proof, before covers."""

CUT_ROUNDS = 200
"""Most rounds of cuts after which a solver's answer is left as it is."""


def overfull_covers(
    cache: BoolArray, size: IntArray, storage: IntArray
) -> list[tuple[int, IntArray]]:
    """Return covers that the cached sets break: a row of `cache` and blocks that do not fit there.

    The largest blocks first, until they do not fit: few blocks make a strong rule.

    Parameters
    ----------
    cache
        (R, J) bool, the blocks that go to each storage.
    size
        (J,) byte.
    storage
        (R,) byte.

    Examples
    --------
    Blocks of 10, 5 and 1 bytes, and room for one byte less than the larger two.

    >>> cache = np.array([[True, True, False], [True, False, True]])
    >>> overfull_covers(cache, np.array([10, 5, 1]), np.array([14, 14]))
    [(0, array([0, 1]))]
    """
    covers = []
    for row in np.flatnonzero(cache @ size > storage):
        blocks = np.flatnonzero(cache[row])
        blocks = blocks[np.argsort(-size[blocks], kind="stable")]
        needed = np.searchsorted(np.cumsum(size[blocks]), storage[row], side="right") + 1
        covers.append((int(row), np.sort(blocks[:needed])))
    return covers
