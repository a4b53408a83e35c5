"""Tables over all node sets that are too large to keep: entries are computed when asked for.

A table has a row per message, group or block and a column per node set, the bit mask of its nodes.
Up to `FULL_TABLES` nodes it is an array (rows, 2^N); beyond, an `OnDemand`. Both are read by
`table[row, node_set]` with integer arrays that broadcast against each other.

Bit masks are int64 up to `WORD_NODES` nodes, and beyond Python's integers in arrays of objects. The
functions here serve both: what is done to every pair of sets is done on their words or members.
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

WORD_NODES = 62
"""Up to so many nodes a set of them is an int64."""

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
        row, sets = np.broadcast_arrays(key[0], _as_sets(key[1]))
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
    rows = np.arange(len(table))
    column: NDArray[Any] = table[rows, np.full(len(rows), (1 << nodes) - 1, mask_type(nodes))]
    return column


def mask_type(nodes: int) -> Any:
    """Return the dtype of arrays of node sets."""
    return np.int64 if nodes <= WORD_NODES else object


def bits(nodes: int) -> IntArray:
    """Return (N,) the sets of one node each."""
    return np.array([1 << n for n in range(nodes)], dtype=mask_type(nodes))


def node_sets(held: NDArray[Any]) -> IntArray:
    """Return (..., J) the nodes that hold each block, as bit masks, from (..., N, J)."""
    return sets_of(np.moveaxis(held, -2, -1))


def sets_of(member: NDArray[Any]) -> IntArray:
    """Return node sets (...) as bit masks from (..., N) bool.

    Examples
    --------
    >>> member = np.arange(70) % 69 == 0
    >>> int(sets_of(member[:3])), sets_of(member) == 1 + (1 << 69)
    (1, True)
    """
    nodes = member.shape[-1]
    if nodes <= WORD_NODES:
        masks: IntArray = member @ bits(nodes)
        return masks
    packed = np.packbits(member.astype(bool), axis=-1, bitorder="little")
    rows = packed.reshape(-1, packed.shape[-1])
    found = np.empty(len(rows), dtype=object)
    found[:] = [int.from_bytes(row.tobytes(), "little") for row in rows]
    wide: IntArray = found.reshape(packed.shape[:-1])
    return wide if wide.ndim else wide[()]


def members(sets: IntArray, nodes: int) -> BoolArray:
    """Return (..., N) bool from node sets (...) as bit masks.

    Examples
    --------
    >>> np.flatnonzero(members(np.array([5 + (1 << 69)], dtype=object), 70)[0]).tolist()
    [0, 2, 69]
    """
    sets = _as_sets(sets)
    if sets.dtype != object:
        return np.asarray((sets[..., None] >> np.arange(nodes)) & 1, dtype=bool)
    return np.unpackbits(_bytes(sets, nodes), axis=-1, count=nodes, bitorder="little").view(bool)


def words(sets: IntArray) -> NDArray[Any]:
    """Return node sets (...) as (..., W) words, for sums over many pairs of sets."""
    sets = _as_sets(sets)
    if sets.dtype != object:
        return sets[..., None]
    widest = int(sets.max(initial=0)).bit_length()
    return _bytes(sets, 64 * (-(-max(widest, 1) // 64))).view(np.int64)


def lies_within(inner: NDArray[Any], outer: NDArray[Any]) -> BoolArray:
    """Return (...) whether node sets (..., W) are subsets of others, both as `words`.

    Words that the shorter one lacks are zeros.
    """
    shared = min(inner.shape[-1], outer.shape[-1])
    within = (inner[..., 0] & ~outer[..., 0]) == 0
    for word in range(1, inner.shape[-1]):  # all() over so few words is slow
        beyond = inner[..., word]
        within &= (beyond & ~outer[..., word] if word < shared else beyond) == 0
    return np.asarray(within)


def distinct(index: IntArray, sets: IntArray, *more: IntArray) -> tuple[Any, IntArray]:
    """Return the distinct columns of arrays (B,), sorted, and (B,) which one each column is.

    Parameters
    ----------
    index, sets, more
        Whole numbers, the second ones node sets.
    """
    if sets.dtype != object:
        found, which = np.unique(np.stack([index, sets, *more]), axis=1, return_inverse=True)
        return tuple(found), which.ravel()
    known, rank = np.unique(sets, return_inverse=True)
    stacked = np.stack([index, rank.ravel(), *more]).astype(np.int64)
    found, which = np.unique(stacked, axis=1, return_inverse=True)
    return (found[0], known[found[1]], *found[2:]), which.ravel()


def _as_sets(sets: Any) -> NDArray[Any]:
    """Return node sets as an array; NumPy makes an uint64 of one Python integer of 64 bits."""
    array = np.asarray(sets)
    return array.astype(object) if array.dtype == np.uint64 else array


def _bytes(sets: IntArray, nodes: int) -> NDArray[np.uint8]:
    """Return (..., ceil(N / 8)) the bytes of node sets, the lowest first."""
    length = -(-nodes // 8)
    joined = b"".join(int(each).to_bytes(length, "little") for each in sets.flat)
    return np.frombuffer(joined, dtype=np.uint8).reshape(*sets.shape, length)
