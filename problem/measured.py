"""Measured or ray-traced channels from NumPy `.npz` and MATLAB `.mat` files, read without trust.

MATLAB files are read here and not by `scipy.io.loadmat`: that one follows an unknown data type in a
damaged file out of its table and takes the interpreter down with it.
"""

from __future__ import annotations

import io
import math
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finecast.problem.arrays import ComplexArray, FloatArray, checked
from finecast.problem.files import FormatError, array_names, read_arrays, read_bytes, reading

Shape = tuple[int, int, int, int]
NAMES = ("channel", "channel_real", "channel_imag")

PARTS = (("real", "imag"), ("re", "im"), ("r", "i"))
"""How records of complex numbers call their parts."""

LARGEST_NUMBER_BYTES = 32
"""Of the widest complex number that NumPy knows."""


def read_channels(path: str | os.PathLike[str], shape: Shape) -> ComplexArray:
    """Return the channels in a file, as amplitude gains.

    The file holds `channel`, complex (or real) of shape (T, K, N, A), or the pair `channel_real`
    and `channel_imag`. Complex numbers may also be records, and in a MATLAB 7.3 file a struct, of
    `real` and `imag` or `re` and `im`. MATLAB drops trailing dimensions of size 1: they are put
    back.

    Parameters
    ----------
    path
        `.npz`, or `.mat` as MATLAB's `save -v7` or `-v6` and `scipy.io.savemat` write it, or as
        `save -v7.3` does, where h5py is installed (`pip install 'finecast[matlab]'`).
    shape
        (T, K, N, A) that the file must have.

    Returns
    -------
    ComplexArray
        (T, K, N, A) complex amplitude gain, read-only.

    Raises
    ------
    FormatError
        The file is missing, a directory, damaged, of another kind, holds pickles, lacks the
        variable, or has another shape, NaN or infinities; one line.
    """
    with reading(path):
        return _read_channels(path, shape)


def _read_channels(path: str | os.PathLike[str], shape: Shape) -> ComplexArray:
    suffix = Path(path).suffix.lower()
    content = b"" if suffix == ".npz" else read_bytes(path)
    if suffix not in (".npz", ".mat"):
        raise FormatError(path, f"ends in {suffix!r}, expected '.npz' or '.mat'")
    if suffix == ".npz":
        # What an array of the shape can take, for the three; others may be there and are not read.
        most_bytes = len(NAMES) * (LARGEST_NUMBER_BYTES * math.prod(shape) + _MOST_HEAD_BYTES)
        arrays = read_arrays(path, only=NAMES, most_bytes=most_bytes)
        if not arrays:
            arrays = dict.fromkeys(array_names(path), np.empty(0))
    elif content.startswith(b"MATLAB 7.3") or _HDF5 in (content[:4], content[512:516]):
        arrays = _read_hdf5(path, content, shape)
    else:
        arrays = _read_mat(path, content, shape)
    if "channel" in arrays:
        parts = [name for name in NAMES[1:] if name in arrays]
        if parts:
            raise FormatError(
                path,
                f"has 'channel' and {' and '.join(map(repr, parts))}: give one complex 'channel', "
                "or the pair 'channel_real' and 'channel_imag'",
            )
        channel = _complex_of(path, "channel", arrays["channel"])
        return _checked(path, "channel", channel, "complex", shape)
    if "channel_real" in arrays and "channel_imag" in arrays:
        real = _checked(path, "channel_real", arrays["channel_real"], "float", shape)
        imag = _checked(path, "channel_imag", arrays["channel_imag"], "float", shape)
        channel = real + 1j * imag
        channel.setflags(write=False)
        return channel
    names = ", ".join(sorted(map(repr, arrays))) or "none"
    raise FormatError(
        path,
        "has no variable 'channel' (nor the pair 'channel_real', 'channel_imag') of shape "
        f"(T, K, N, A) = {shape}; found {names}",
    )


def _checked(
    path: str | os.PathLike[str],
    name: str,
    array: NDArray[Any],
    kind: Literal["float", "complex"],
    shape: Shape,
) -> NDArray[Any]:
    _check_shape(path, name, array.shape, shape)
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # a long double too large is infinite
            return checked(name, array.reshape(shape), kind, shape)
    except ValueError as error:
        raise FormatError(path, f"variable {error}; (T, K, N, A) = {shape}") from None


def _check_shape(
    path: str | os.PathLike[str], name: str, found: tuple[int, ...], shape: Shape
) -> None:
    if _without_trailing_ones(found) != _without_trailing_ones(shape):
        turned = _without_trailing_ones(found[::-1]) == _without_trailing_ones(shape)
        why = ": its dimensions are in the reverse order" if turned else ""
        raise FormatError(
            path, f"variable {name!r} has shape {found}, expected (T, K, N, A) = {shape}{why}"
        )


def _without_trailing_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape


# MATLAB 7.3 writes HDF5: a dataset for each variable, its dimensions in the reverse order, complex
# numbers as records of `real` and `imag`, and the class of the variable as an attribute.

_HDF5 = b"\x89HDF"
_STRUCTS = {tuple(sorted(parts)) for parts in PARTS}


def _read_hdf5(
    path: str | os.PathLike[str], content: bytes, shape: Shape
) -> dict[str, NDArray[Any]]:
    """Return the variables of a MATLAB 7.3 file; those not in `NAMES` are left empty."""
    try:
        import h5py
    except ModuleNotFoundError:
        raise FormatError(
            path,
            "is a MATLAB 7.3 (HDF5) file: save it with -v7, or pip install 'finecast[matlab]'",
        ) from None
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with h5py.File(io.BytesIO(content), "r") as file:
            for name in file:
                if name.startswith("#"):  # MATLAB's own, such as "#refs#"
                    continue
                if name not in NAMES:
                    arrays[name] = np.empty(0)
                    continue
                linked = isinstance(file.get(name, getlink=True), h5py.HardLink)
                struct = file[name] if linked else None
                if isinstance(struct, h5py.Group) and tuple(sorted(struct)) in _STRUCTS:
                    part, other = (_hdf5_array(path, key, struct, shape) for key in sorted(struct))
                    arrays[name] = other + 1j * part  # "im" stands before "re"
                else:
                    arrays[name] = _hdf5_array(path, name, file, shape)
    except FormatError:
        raise
    except Exception as error:  # whatever damaged bytes provoke in the HDF5 library
        reason = " ".join(str(error).split())
        raise FormatError(path, f"damaged MATLAB 7.3 (HDF5) file: {reason}") from None
    return arrays


def _hdf5_array(path: str | os.PathLike[str], name: str, group: Any, shape: Shape) -> NDArray[Any]:
    """Return the array in a dataset that is in the file itself, with its dimensions turned back."""
    import h5py

    linked = isinstance(group.get(name, getlink=True), h5py.HardLink)
    variable = group[name] if linked else None
    if not isinstance(variable, h5py.Dataset) or variable.is_virtual:
        raise FormatError(path, f"variable {name!r} is no array, expected numbers")
    if variable.external or variable.shape is None:
        raise FormatError(path, f"variable {name!r} has no numbers in the file")
    _check_shape(path, name, variable.shape[::-1], shape)
    _refuse_no_number(path, name, variable.dtype)  # an element may be of any size
    return _complex_of(path, name, variable[()]).T


def _complex_of(path: str | os.PathLike[str], name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return an array of numbers, complex where it has records of them."""
    _refuse_no_number(path, name, array.dtype)
    for real, imag in PARTS:
        if set(array.dtype.names or ()) == {real, imag}:
            return np.asarray(array[real] + 1j * array[imag])
    return array


def _refuse_no_number(path: str | os.PathLike[str], name: str, kind: np.dtype[Any]) -> None:
    """Refuse elements that are neither numbers nor records of two numbers as in `PARTS`."""
    parts = [kind]
    if tuple(sorted(kind.names or ())) in _STRUCTS:
        parts = [kind[part] for part in kind.names or ()]
    # Truth values are refused later, with the place of the first.
    if any(part.kind not in "biufc" or part.shape for part in parts):
        raise FormatError(path, f"variable {name!r} is of type {str(kind)[:60]}, expected numbers")


# MAT-file level 5 (MathWorks, "MAT-File Format"): a header of 128 bytes, then elements. An element
# is a tag (type, bytes) and its data; a matrix element holds elements for its flags, dimensions,
# name, real and imaginary part; a compressed element holds one deflated matrix element.

_HEADER_BYTES = 128
_INT32, _UINT32, _MATRIX, _COMPRESSED = 5, 6, 14, 15
_NUMBER_TYPES = {
    1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8",
}  # fmt: skip
_OTHER_CLASSES = {1: "cell", 2: "struct", 3: "object", 4: "char", 5: "sparse", 16: "function"}
_NUMBER_CLASSES = range(6, 16)
_COMPLEX_FLAG = 0x0800
_MOST_HEAD_BYTES = 4096
"""Flags, dimensions and name of a matrix take less than this, and tags and padding too."""


def _read_mat(
    path: str | os.PathLike[str], content: bytes, shape: Shape
) -> dict[str, NDArray[Any]]:
    """Return the variables of a MATLAB 5 to 7 file; those not in `NAMES` are left empty."""
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None:
        raise FormatError(path, "is not a MATLAB file of version 5 to 7, save it with -v7")
    arrays: dict[str, NDArray[Any]] = {}
    try:
        for matrix in _matrices(memoryview(content), order, 16 * math.prod(shape)):
            flags, dimensions, name, offset = _head(matrix, order)
            if name not in NAMES:
                if name:
                    arrays[name] = np.empty(0)
                continue
            if flags & 0xFF not in _NUMBER_CLASSES:
                kind = _OTHER_CLASSES.get(flags & 0xFF, f"number {flags & 0xFF}")
                raise FormatError(path, f"variable {name!r} is of class {kind}, expected numbers")
            _check_shape(path, name, dimensions, shape)
            array, offset = _numbers(matrix, offset, order, math.prod(shape))
            if flags & _COMPLEX_FLAG:
                real = array
                array = np.empty(real.shape, dtype=np.complex128)
                array.real = real
                array.imag, offset = _numbers(matrix, offset, order, math.prod(shape))
            arrays[name] = array.reshape(dimensions, order="F")
    except FormatError:
        raise
    except (ValueError, struct.error, zlib.error) as error:
        raise FormatError(path, f"damaged MATLAB file: {error}") from None
    return arrays


def _matrices(content: memoryview, order: str, most_data_bytes: int) -> Iterator[memoryview]:
    """Yield the data of every matrix element, inflated no further than a channel can be long."""
    offset = _HEADER_BYTES
    while offset < len(content):
        kind, data, offset = _element(content, offset, order)
        if kind == _COMPRESSED:
            inflater = zlib.decompressobj()
            most_bytes = most_data_bytes + _MOST_HEAD_BYTES
            inflated = memoryview(inflater.decompress(data, most_bytes))
            kind, size = struct.unpack_from(f"{order}II", inflated)
            data = inflated[8 : 8 + size]
            whole = inflater.eof and len(data) == size  # zlib has checked its sum at the end
            if not whole and len(inflated) < most_bytes:
                raise ValueError("a compressed variable is truncated")
        if kind == _MATRIX:
            yield data


def _element(content: memoryview, offset: int, order: str) -> tuple[int, memoryview, int]:
    """Return type and data of the element at `offset`, and where its data end."""
    (kind,) = struct.unpack_from(f"{order}I", content, offset)
    if kind >> 16:  # the small format: type and size in one word, up to 4 bytes of data in the next
        kind, size, start = kind & 0xFFFF, kind >> 16, offset + 4
        if size > 4:
            raise ValueError(f"element at byte {offset} is of no known type")
    else:
        (size,) = struct.unpack_from(f"{order}I", content, offset + 4)
        start = offset + 8
    if start + size > len(content):
        raise ValueError(f"element at byte {offset} is truncated: {size} bytes declared")
    return kind, content[start : start + size], start + size


def _head(matrix: memoryview, order: str) -> tuple[int, tuple[int, ...], str, int]:
    """Return flags, dimensions and name of a matrix, and where its numbers start."""
    flags_type, flags, offset = _element(matrix, 0, order)
    dimensions_type, dimensions, offset = _element(matrix, _padded(offset), order)
    if flags_type != _UINT32 or dimensions_type not in (_INT32, _UINT32):  # some write unsigned
        return 0, (), "", 0  # an object of MATLAB's own, nothing to read
    _, name, offset = _element(matrix, _padded(offset), order)
    return (
        struct.unpack_from(f"{order}I", flags)[0],
        struct.unpack(f"{order}{len(dimensions) // 4}i", dimensions),
        bytes(name).decode("latin-1"),
        _padded(offset),
    )


def _numbers(matrix: memoryview, offset: int, order: str, count: int) -> tuple[FloatArray, int]:
    """Return `count` numbers at `offset` as float64, and where the next element starts."""
    kind, data, offset = _element(matrix, offset, order)
    if kind not in _NUMBER_TYPES:
        raise ValueError(f"numbers of type {kind}, which does not exist")
    numbers = np.frombuffer(data, dtype=f"{order}{_NUMBER_TYPES[kind]}")
    if len(numbers) != count:
        raise ValueError(f"{len(numbers)} numbers where there must be {count}")
    with np.errstate(invalid="ignore"):  # a signalling NaN is refused later, by name
        return numbers.astype(np.float64), _padded(offset)


def _padded(offset: int) -> int:
    return -(-offset // 8) * 8
