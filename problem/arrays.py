"""Arrays of frozen dataclasses: checked on the way in, read-only ever after."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
ComplexArray = NDArray[np.complex128]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

Kind = Literal["float", "complex", "int", "short", "bool"]

_DTYPE: dict[str, Any] = {
    "float": np.float64,
    "complex": np.complex128,
    "int": np.int64,
    "short": np.int16,
    "bool": np.bool_,
}
_CASTABLE_FROM: dict[str, str] = {
    "float": "fiu", "complex": "cfiu", "int": "iu", "short": "iu", "bool": "b"
}  # fmt: skip


def checked(
    name: str,
    value: ArrayLike,
    kind: Kind,
    shape: tuple[int, ...],
    *,
    low: float | None = None,
    high: float | None = None,
    finite: bool = True,
) -> NDArray[Any]:
    """Return `value` as a read-only array of the wanted kind, shape and range.

    It is a copy, unless nobody can write to `value` any more and it is no part of a larger array.

    Parameters
    ----------
    name
        What the array is called in error messages.
    value
        Array-like; integers pass for floats, floats never for integers, nothing but bool for bool.
    kind
        Element kind; the result is float64, complex128, int64, int16 or bool.
    shape
        Required shape.
    low, high
        Inclusive range of every element; None for no limit.
    finite
        Refuse NaN and infinities.

    Raises
    ------
    ValueError
        One line with the name, the offending value, its index and what is allowed.
    """
    array = np.asarray(value)
    if array.dtype.kind not in _CASTABLE_FROM[kind] and array.size:
        raise ValueError(f"{name}: elements are {array.dtype}, expected {kind}")
    if array.shape != shape:
        raise ValueError(f"{name}: shape is {array.shape}, expected {shape}")
    if kind == "short":  # before the numbers are cut to 16 bits
        _refuse_outside(name, array, -(2**15), 2**15 - 1)
    array = array.astype(_DTYPE[kind], order="C", copy=not _frozen(array))
    if kind in ("float", "complex") and finite:
        _refuse(name, array, ~np.isfinite(array), "a finite number")
    if kind == "float" and not finite:
        _refuse(name, array, np.isnan(array), "a number, not NaN")
    _refuse_outside(name, array, low, high)
    array.setflags(write=False)
    return array


def checked_number(
    name: str,
    value: float,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    finite: bool = True,
) -> float:
    """Return `value` as a float within [low, high] and strictly above `above`.

    Raises
    ------
    ValueError
        One line with the name, the value and what is allowed.
    """
    try:
        number = np.nan if isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{name}: {repr(value)[:40]} is not allowed, must be a number that float64 holds"
        ) from None
    allowed = [
        text
        for text, holds in (
            (
                "finite" if finite else "not NaN",
                np.isfinite(number) or (not finite and number == number),
            ),
            (f">= {low}", low is None or number >= low),
            (f"> {above}", above is None or number > above),
            (f"<= {high}", high is None or number <= high),
        )
        if not holds
    ]
    if allowed:
        raise ValueError(f"{name}: {number!r} is not allowed, must be {' and '.join(allowed)}")
    return number


def checked_choice(name: str, value: object, allowed: tuple[str, ...]) -> str:
    """Return `value`, one of some texts.

    Raises
    ------
    ValueError
        It is not: one line with the name, the value and what is allowed.
    """
    if not isinstance(value, str) or value not in allowed:
        names = " or ".join(repr(text) for text in allowed)
        raise ValueError(f"{name}: {repr(value)[:40]} is not allowed, must be {names}")
    return value


def _frozen(array: NDArray[Any]) -> bool:
    """Return whether neither the array nor what it is a view of can be written to.

    Part of a larger array counts as not frozen: a copy neither holds nor shows the rest, such as
    the slots to come.
    """
    size = array.size
    while array.base is not None and not array.flags.writeable:
        if not isinstance(array.base, np.ndarray):
            return False
        array = array.base
    return not array.flags.writeable and array.size == size


def _refuse_outside(name: str, array: NDArray[Any], low: float | None, high: float | None) -> None:
    if low is not None and array.size and array.min() < low:
        _refuse(name, array, array < low, f">= {low:g}")
    if high is not None and array.size and array.max() > high:
        _refuse(name, array, array > high, f"<= {high:g}")


def _refuse(name: str, array: NDArray[Any], bad: NDArray[np.bool_], allowed: str) -> None:
    if bad.any():
        index = tuple(int(i) for i in np.argwhere(bad)[0]) if array.ndim else ()
        where = f"[{', '.join(map(str, index))}]" if index else ""
        raise ValueError(f"{name}{where}: {array[index]!s} is not allowed, must be {allowed}")
