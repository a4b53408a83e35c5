"""Tables over all node sets that are too large to keep: entries are computed when asked for.

A table has a row per message, group or block and a column per node set, the bit mask of its nodes.
Up to `FULL_TABLES` nodes it is an array (rows, 2^N); beyond, an `OnDemand`. Both are read by
`table[row, node_set]` with integer arrays that broadcast against each other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from finecast.problem.arrays import BoolArray, IntArray

FULL_TABLES = 8
"""Up to so many nodes tables are arrays over all node sets."""

MOST_NODES = 12
"""Methods that run through all node sets stop here."""

CHUNK = 1 << 14
"""Entries computed at a time, to bound the memory."""


@dataclass(frozen=True, eq=False)
class OnDemand:
    """A table (rows, 2^N) given by a function.

    Parameters
    ----------
    rows
        Number of rows.
    compute
        From rows (B,) and node sets (B,) as bit masks to the entries (B,).
    """

    rows: int
    compute: Callable[[IntArray, IntArray], NDArray[Any]]

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, key: tuple[Any, Any]) -> NDArray[Any]:
        row, sets = np.broadcast_arrays(*key)
        shape, row, sets = row.shape, row.reshape(-1), sets.reshape(-1)
        parts = [
            self.compute(row[begin : begin + CHUNK], sets[begin : begin + CHUNK])
            for begin in range(0, max(len(row), 1), CHUNK)
        ]
        return np.concatenate(parts).reshape(shape)


Table: TypeAlias = NDArray[Any] | OnDemand
"""(rows, 2^N), as an array or on demand."""


def table_of(rows: int, nodes: int, compute: Callable[[IntArray, IntArray], NDArray[Any]]) -> Table:
    """Return a table: as an array where it is small enough, else on demand.

    Parameters
    ----------
    rows
        Number of rows.
    nodes
        N.
    compute
        As in `OnDemand`.
    """
    lazy = OnDemand(rows, compute)
    if nodes > FULL_TABLES:
        return lazy
    return lazy[np.arange(rows)[:, None], np.arange(1 << nodes)]


def whole_set(table: Table, nodes: int) -> NDArray[Any]:
    """Return the column of the set of all nodes, (rows,)."""
    column: NDArray[Any] = table[np.arange(len(table)), (1 << nodes) - 1]
    return column


def node_sets(held: NDArray[Any]) -> IntArray:
    """Return (..., J) the nodes that hold each block, as bit masks, from (..., N, J)."""
    masks: IntArray = (1 << np.arange(held.shape[-2])) @ held
    return masks


def members(sets: IntArray, nodes: int) -> BoolArray:
    """Return (..., N) bool from node sets (...) as bit masks."""
    return np.asarray((sets[..., None] >> np.arange(nodes)) & 1, dtype=bool)
