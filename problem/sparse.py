"""Rows of which most entries are zero, as they stand in a file: places, and values for some.

A solution of many areas has ten thousands of messages, each with few users, nodes and blocks, and
beams at the nodes of one area.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finecast.problem.arrays import BoolArray, ComplexArray, IntArray, checked

MOST_BYTES = 2**33
"""What the caches, or the rows, of a file may take once they are whole: more is refused before any
is made."""


def places(rows: Sequence[BoolArray]) -> IntArray:
    """Return (P, 2) row and column of every true entry of arrays (R_t, C), rows counted on."""
    return _counted_on([np.argwhere(part) for part in rows], [len(part) for part in rows])


def beam_places(beams: Sequence[ComplexArray]) -> tuple[IntArray, ComplexArray]:
    """Return (P, 2) row and node, and (P, A), of all beams that have a bit set at that node."""
    found = [np.argwhere(np.ascontiguousarray(beam).view(np.uint64).any(axis=2)) for beam in beams]
    values = [beam[place[:, 0], place[:, 1]] for beam, place in zip(beams, found, strict=True)]
    return _counted_on(found, [len(beam) for beam in beams]), np.concatenate(values)


def _counted_on(parts: Sequence[IntArray], rows: Sequence[int]) -> IntArray:
    begin = np.cumsum(rows) - rows
    return np.concatenate(
        [part + np.array([first, 0]) for part, first in zip(parts, begin, strict=True)]
    )


def refuse_large(what: dict[str, int]) -> None:
    """Refuse rows that would take too much memory, by their bytes.

    Raises
    ------
    ValueError
        Says which take most, and how much is allowed.
    """
    if sum(what.values()) > MOST_BYTES:
        most = max(what, key=lambda name: what[name])
        raise ValueError(
            f"{most}: would take {what[most]} bytes, all rows may take at most {MOST_BYTES}"
        )


def whole(
    name: str,
    place: NDArray[Any],
    value: NDArray[Any] | None,
    ends: IntArray,
    shape: tuple[int, ...],
) -> list[NDArray[Any]]:
    """Return the arrays (R_t, *shape) of every slot from their places, and values or truth.

    Parameters
    ----------
    name
        For messages.
    place
        (P, 2) row, counted over all slots, and column.
    value
        (P, ...) what stands there; None for true.
    ends
        (T,) the row after the last of each slot.
    shape
        Of a row; its first axis is the column.

    Raises
    ------
    ValueError
        A place is not in the rows.
    """
    rows = int(ends[-1])
    places = checked(name, place, "int", (len(place), 2), low=0)
    beyond = np.flatnonzero((places >= [rows, shape[0]]).any(axis=1))
    if len(beyond):
        raise ValueError(
            f"{name}[{beyond[0]}]: {places[beyond[0]].tolist()} is not allowed, must be below "
            f"{[rows, shape[0]]}"
        )
    kind: Any = bool if value is None else np.complex128
    found = []
    for first, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
        part = np.zeros((end - first, *shape), dtype=kind)
        own = np.flatnonzero((places[:, 0] >= first) & (places[:, 0] < end))
        row, column = places[own].T
        part[row - first, column] = True if value is None else value[own]
        found.append(part)
    return found


def unpacked_bits(name: str, array: NDArray[Any], count: int, axes: int) -> BoolArray:
    """Return bools with `count` in a row, read-only, of bits that are packed in bytes."""
    if array.dtype != np.uint8 or array.ndim != axes or array.shape[-1] != -(-count // 8):
        raise ValueError(
            f"{name}: is {array.dtype} of shape {array.shape}, expected bytes, "
            f"{-(-count // 8)} in a row"
        )
    bits = np.unpackbits(array, axis=-1, count=count)
    bits.setflags(write=False)
    return bits.view(np.bool_)
