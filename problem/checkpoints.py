"""Model libraries from real checkpoints: blocks found by content in `.safetensors` files.

Two tensors are the same *content* when dtype, shape and bytes agree, whatever they are called and
wherever they stand. How content becomes blocks is said in `finecast.problem.content_blocks`, which
files are read for which model in `finecast.problem.model_folders`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from safetensors import SafetensorError, safe_open

from finecast.problem.content_blocks import Content, check_cuts, library_of_contents
from finecast.problem.files import FormatError
from finecast.problem.library import ModelLibrary
from finecast.problem.model_files import FoundModel, WeightFile
from finecast.problem.model_folders import find_models

CHUNK_BYTES = 4 * 2**20
"""Most bytes of a checkpoint in memory at a time, next to its header."""

_UNKNOWN_TYPE = re.compile(r"unknown variant `(\w+)`, expected one of (.*?) at line")
_POINTER = b"version https://git-lfs"


def library_from_checkpoints(
    folder: str | os.PathLike[str],
    names: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    granularity: str | int = "layer",
    max_block_bytes: int | None = None,
) -> ModelLibrary:
    """Return the library of the checkpoints in a folder.

    Models are found as `find_models` does, and a warning names what is passed over. Content that a
    model has several times counts once in it: a model's size is the bytes of its distinct content.
    Tensors of no bytes are ignored.

    The result does not depend on the order of files or tensors. Models are sorted by name, blocks
    by number of models (most first), then by models, then by the names of their tensors. A block is
    named after the layers or tensors in it, with a hash of its content.

    Parameters
    ----------
    folder
        Where the checkpoints are.
    names
        Models to take; default all.
    progress
        Called with the bytes read so far and the bytes of all files.
    granularity
        What a block holds of the content that one set of models shares. "layer" (or "block"): the
        tensors whose names agree up to the number of the layer, as "model.layers.12". An integer:
        so many layers that follow one another. "stage": all layers of one name, as "model.layers".
        "largest": everything.
    max_block_bytes
        Blocks above it are cut, between tensors where that is enough, and within them where not.

    Raises
    ------
    FormatError
        `folder` has no checkpoint, or a model of it is incomplete (see `find_models`); a name is
        unknown; a file is corrupt, truncated or unreadable; a model has no bytes.
    ValueError
        `granularity` or `max_block_bytes` is not allowed, or makes too many blocks.
    """
    check_cuts(granularity, max_block_bytes)
    found = find_models(folder)
    models = _named(folder, found.models, names)
    for note in found.notes:
        warnings.warn(note, stacklevel=2)
    contents = _contents(models, progress)
    families = {name: model.family for name, model in models.items()}
    return library_of_contents(
        folder,
        families,
        contents.values(),
        granularity=granularity,
        max_block_bytes=max_block_bytes,
    )


def _named(
    folder: str | os.PathLike[str], models: dict[str, FoundModel], names: Sequence[str] | None
) -> dict[str, FoundModel]:
    """Return the models that are asked for, sorted by name."""
    if names is None:
        return models
    if not names:
        raise FormatError(folder, "no model name is given, at least one needed")
    for name in names:
        if name not in models:
            raise FormatError(folder, f"has no model {name!r}, it has {', '.join(sorted(models))}")
    return {name: models[name] for name in sorted(set(names))}


def _contents(
    models: Mapping[str, FoundModel], progress: Callable[[int, int], None] | None
) -> dict[bytes, Content]:
    """Return the content of all models by its digest; a file of several models is read once."""
    total = sum({file.path: _size(file.path) for m in models.values() for file in m.files}.values())
    done = 0
    read: dict[Path, list[tuple[str, int, bytes]]] = {}
    contents: dict[bytes, Content] = {}
    told: set[Path] = set()
    for m, (name, model) in enumerate(models.items()):
        empty = True
        for file in model.files:
            if file.path not in read:
                read[file.path] = []
                for entry in _tensors(file.path):
                    read[file.path].append(entry)
                    if progress is not None:
                        progress(done := done + entry[1], total)
            _check_promise(file, read[file.path])
            twice = [name for name, *_ in read[file.path] if _is_elsewhere(file, name)]
            if twice and file.path not in told:
                told.add(file.path)
                warnings.warn(
                    f"{str(file.path)!r}: tensor {min(twice)!r} in it is skipped, the index says "
                    "that it is in another file",
                    stacklevel=3,
                )
            for tensor, size, digest in read[file.path]:
                if size and not _is_elsewhere(file, tensor):
                    content = contents.setdefault(digest, Content(digest, size, file.part + tensor))
                    content.tensor = min(content.tensor, file.part + tensor)
                    content.models.add(m)
                    empty = False
        if empty:
            raise FormatError(model.files[0].path, f"model {name!r} has no tensor with any bytes")
    if progress is not None:
        progress(total, total)
    return contents


def _is_elsewhere(file: WeightFile, tensor: str) -> bool:
    """Return whether the index says that a tensor of a file is in another one."""
    return tensor in file.indexed and tensor not in file.promised


def _check_promise(file: WeightFile, tensors: Sequence[tuple[str, int, bytes]]) -> None:
    missing = file.promised.difference(tensor for tensor, _, _ in tensors)
    if missing:
        raise FormatError(
            file.path, f"has no tensor {min(missing)!r}, which the index says is in it"
        )


# --- files --------------------------------------------------------------------------------------


def _size(file: Path) -> int:
    try:
        if file.is_symlink() and not file.exists():
            raise FormatError(file, "is a link to a file that is not there")
        return file.stat().st_size
    except OSError as error:
        raise FormatError(file, f"cannot be read: {error.strerror}") from None


def _tensors(file: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield name, bytes and SHA-256 of (dtype, shape, bytes) of each tensor.

    The library checks the file; the bytes are then read where its header says, since numpy has no
    bfloat16 or 8-bit floats.
    """
    if not file.is_file():
        raise FormatError(file, "is not a regular file")
    try:
        with file.open("rb") as stream:
            pointer = stream.read(len(_POINTER)) == _POINTER
    except OSError as error:
        raise FormatError(file, f"cannot be read: {error.strerror}") from None
    if pointer:
        raise FormatError(
            file, "is a Git LFS pointer in place of the weights: run `git lfs pull` in its folder"
        )
    try:
        with safe_open(file, framework="numpy"):
            pass
    except (SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        unknown = _UNKNOWN_TYPE.search(reason)
        if unknown:
            raise FormatError(
                file, f"has a tensor of type {unknown[1]!r}, known are {unknown[2].strip()}"
            ) from None
        raise FormatError(file, f"is corrupt or truncated: {reason}") from None
    try:
        with file.open("rb") as stream:
            header_bytes = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(header_bytes))
            header.pop("__metadata__", None)
            for tensor, entry in header.items():
                start, end = entry["data_offsets"]
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
