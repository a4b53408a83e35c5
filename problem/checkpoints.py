"""Model libraries from real checkpoints: blocks found by content in `.safetensors` files.

Two tensors are the same *content* when dtype, shape and bytes agree, whatever they are called and
wherever they stand. A block is all content that appears in exactly the same set of models: the
largest groups that any two models either share whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from finecast.problem.files import FormatError
from finecast.problem.library import ModelLibrary

SUFFIX = ".safetensors"

CHUNK_BYTES = 4 * 2**20
"""Most bytes of a checkpoint in memory at a time, next to its header."""


@dataclass
class _Content:
    size_bytes: int
    tensor: str  # the alphabetically first of the names it goes by
    models: set[int] = field(default_factory=set)


def library_from_checkpoints(
    folder: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ModelLibrary:
    """Return the library of the checkpoints in a folder.

    Each `x.safetensors` in it is a model "x"; each subfolder that holds `.safetensors` files is
    one model, named after the subfolder, whose shards these are. Hidden entries are skipped.
    Content that a model has several times counts once in it: a model's size is the bytes of its
    distinct content. Tensors of no bytes are ignored.

    The result does not depend on the order of files or tensors: models are sorted by name,
    blocks by number of models (most first), then by models. A block is named by the
    alphabetically first tensor name in it and a hash of its content.

    Parameters
    ----------
    folder
        Where the checkpoints are.
    names
        Models to take; default all.
    progress
        Called with the bytes read so far and the bytes of all files.

    Raises
    ------
    FormatError
        `folder` is missing, not a folder or has no checkpoint; a name is unknown; a file is
        corrupt, truncated or unreadable; a model has no bytes.
    """
    checkpoints = _find(Path(folder), names)
    total = sum(_size(file) for files in checkpoints.values() for file in files)
    done = 0
    contents: dict[bytes, _Content] = {}
    for m, (name, files) in enumerate(checkpoints.items()):
        empty = True
        for file in files:
            for tensor, size, digest in _tensors(file):
                entry = contents.setdefault(digest, _Content(size, tensor))
                entry.tensor = min(entry.tensor, tensor)
                entry.models.add(m)
                empty = False
                if progress is not None:
                    progress(done := done + size, total)
        if empty:
            raise FormatError(files[0], f"model {name!r} has no tensor with any bytes")
    if progress is not None:
        progress(total, total)

    groups: dict[tuple[int, ...], list[bytes]] = {}
    for digest in sorted(contents):
        groups.setdefault(tuple(sorted(contents[digest].models)), []).append(digest)
    order = sorted(groups, key=lambda models: (-len(models), models))
    contains = np.zeros((len(checkpoints), len(order)), np.bool_)
    for j, models in enumerate(order):
        contains[list(models), j] = True
    try:
        return ModelLibrary(
            block_size=np.array(
                [sum(contents[digest].size_bytes for digest in groups[key]) for key in order]
            ),
            model_blocks=contains,
            block_names=tuple(_block_name(groups[key], contents) for key in order),
            model_names=tuple(checkpoints),
        )
    except ValueError as error:  # such as a file name that cannot be printed
        raise FormatError(folder, str(error)) from None


def _find(folder: Path, names: Sequence[str] | None) -> dict[str, list[Path]]:
    """Return the files of each model, sorted by model name."""
    checkpoints: dict[str, list[Path]] = {}
    try:
        if not folder.exists():
            raise FormatError(folder, "no such folder")
        if not folder.is_dir():
            raise FormatError(folder, f"is not a folder, expected one with {SUFFIX} files")
        for entry in sorted(folder.iterdir()):
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                name, files = entry.name, _shards(entry)
            else:
                name, files = entry.stem, [entry] if entry.suffix == SUFFIX else []
            if files and name in checkpoints:
                raise FormatError(entry, f"model {name!r} is there as a file and as a folder")
            if files:
                checkpoints[name] = files
    except OSError as error:
        raise FormatError(folder, f"cannot be read: {error.strerror}") from None
    if not checkpoints:
        raise FormatError(folder, f"has no {SUFFIX} file, nor a subfolder with one")
    if names is None:
        names = list(checkpoints)
    if not names:
        raise FormatError(folder, "no model name is given, at least one needed")
    for name in names:
        if name not in checkpoints:
            known = ", ".join(sorted(checkpoints))
            raise FormatError(folder, f"has no model {name!r}, it has {known}")
    return {name: checkpoints[name] for name in sorted(set(names))}


def _shards(folder: Path) -> list[Path]:
    return sorted(
        file
        for file in folder.iterdir()
        if file.suffix == SUFFIX and not file.name.startswith(".") and not file.is_dir()
    )


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise FormatError(file, f"cannot be read: {error.strerror}") from None


def _tensors(file: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield name, bytes and SHA-256 of (dtype, shape, bytes) of each tensor that has any bytes.

    The library checks the file; the bytes are then read where its header says, since numpy has no
    bfloat16 or 8-bit floats.
    """
    if not file.is_file():
        raise FormatError(file, "is not a regular file")
    try:
        with safe_open(file, framework="numpy"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise FormatError(file, f"is corrupt or truncated: {reason}") from None
    try:
        with file.open("rb") as stream:
            header_bytes = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(header_bytes))
            header.pop("__metadata__", None)
            for tensor, entry in header.items():
                start, end = entry["data_offsets"]
                if end > start:
                    digest = hashlib.sha256(f"{entry['dtype']}|{entry['shape']}|".encode())
                    stream.seek(8 + header_bytes + start)
                    for chunk in _chunks(file, stream, end - start):
                        digest.update(chunk)
                    yield tensor, end - start, digest.digest()
    except OSError as error:
        raise FormatError(file, f"cannot be read: {error.strerror}") from None


def _chunks(file: Path, stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        chunk = stream.read(min(size, CHUNK_BYTES))
        if not chunk:
            raise FormatError(file, "ended while it was read")
        size -= len(chunk)
        yield chunk


def _block_name(digests: list[bytes], contents: dict[bytes, _Content]) -> str:
    tensor = min(contents[digest].tensor for digest in digests)
    printable = "".join(c if c.isprintable() else "?" for c in tensor)
    return f"{printable}#{hashlib.sha256(b''.join(digests)).hexdigest()[:12]}"
