"""Model libraries from real checkpoints: blocks found by content in `.safetensors` files.

Two tensors are the same *content* when dtype, shape and bytes agree, whatever they are called and
wherever they stand. All content that appears in exactly the same set of models could be one block,
but one that is larger than a node's storage can be cached nowhere. So a block is what such a group
has of one layer, and it can be cut further. Which files are read for which model is said in
`finecast.problem.model_folders`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from finecast.problem.files import FormatError
from finecast.problem.library import LARGEST_INCIDENCE, ModelLibrary
from finecast.problem.model_files import FoundModel, WeightFile
from finecast.problem.model_folders import find_models

CHUNK_BYTES = 4 * 2**20
"""Most bytes of a checkpoint in memory at a time, next to its header."""

LONGEST_NAME = 200
"""Most characters of the layers in a block's name."""

MOST_BLOCKS = 10**6
"""Most blocks that a library is cut into."""

_UNKNOWN_TYPE = re.compile(r"unknown variant `(\w+)`, expected one of (.*?) at line")
_POINTER = b"version https://git-lfs"


@dataclass
class _Content:
    digest: bytes
    size_bytes: int
    tensor: str  # the alphabetically first of the names it goes by
    models: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _Block:
    """Content, or an equal part of one content, that forms a block."""

    name: str
    size_bytes: int
    models: tuple[int, ...]


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
    _check_cuts(granularity, max_block_bytes)
    found = find_models(folder)
    models = _named(folder, found.models, names)
    for note in found.notes:
        warnings.warn(note, stacklevel=2)
    contents = _contents(models, progress)

    # Groups of content that one set of models shares, each cut by layer and by size.
    groups: dict[tuple[tuple[int, ...], str], list[_Content]] = {}
    for content in contents.values():
        key = tuple(sorted(content.models)), _group(content.tensor, granularity)
        groups.setdefault(key, []).append(content)
    limit = max_block_bytes or 2**62
    count = sum(1 + sum(c.size_bytes for c in group) // limit for group in groups.values())
    most = min(MOST_BLOCKS, LARGEST_INCIDENCE // len(models))
    if count > most:
        raise ValueError(
            f"max_block_bytes: {max_block_bytes} makes about {count} blocks of {folder}, "
            f"at most {most} are allowed"
        )
    blocks: list[_Block] = []
    for (owners, _), group in sorted(
        groups.items(),
        key=lambda item: (-len(item[0][0]), item[0][0], min(map(_natural_order, item[1]))),
    ):
        blocks += _cut(sorted(group, key=_natural_order), owners, limit)

    contains = np.zeros((len(models), len(blocks)), np.bool_)
    for j, block in enumerate(blocks):
        contains[list(block.models), j] = True
    try:
        return ModelLibrary(
            block_size=np.array([block.size_bytes for block in blocks]),
            model_blocks=contains,
            block_names=tuple(block.name for block in blocks),
            model_names=tuple(models),
            model_family=tuple(model.family for model in models.values()),
        )
    except ValueError as error:  # such as a file name that cannot be printed
        raise FormatError(folder, str(error)) from None


def _check_cuts(granularity: str | int, max_block_bytes: int | None) -> None:
    known = granularity in ("layer", "block", "stage", "largest")
    if not known and (type(granularity) is not int or granularity < 1):
        raise ValueError(
            f"granularity: {granularity!r} is not allowed, must be 'layer', 'stage', 'largest' or "
            "a number of layers >= 1"
        )
    if max_block_bytes is not None and max_block_bytes < 1:
        raise ValueError(f"max_block_bytes: {max_block_bytes} is not allowed, must be >= 1")


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
) -> dict[bytes, _Content]:
    """Return the content of all models by its digest; a file of several models is read once."""
    total = sum({file.path: _size(file.path) for m in models.values() for file in m.files}.values())
    done = 0
    read: dict[Path, list[tuple[str, int, bytes]]] = {}
    contents: dict[bytes, _Content] = {}
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
                    content = contents.setdefault(
                        digest, _Content(digest, size, file.part + tensor)
                    )
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


# --- blocks -------------------------------------------------------------------------------------


_NUMBERED = re.compile(r"(.*_)?(\d{1,9})")


def _layer(tensor: str) -> tuple[str, int | None, str]:
    """Return the stage, number and name of a tensor's layer.

    Examples
    --------
    >>> _layer("model.layers.12.self_attn.q_proj.weight")
    ('model.layers', 12, 'model.layers.12')
    >>> _layer("unet/conv_in.weight")
    ('unet/conv_in', None, 'unet/conv_in')
    """
    part, slash, name = tensor.rpartition("/")
    words = name.split(".")
    for i, word in enumerate(words):
        match = _NUMBERED.fullmatch(word)
        if match is not None:
            stage = [*words[:i], *filter(None, [(match[1] or "").rstrip("_")])]
            layer = ".".join(words[: i + 1])
            return f"{part}{slash}{'.'.join(stage)}", int(match[2]), f"{part}{slash}{layer}"
    stem = f"{part}{slash}{'.'.join(words[:-1]) or name}"
    return stem, None, stem


def _group(tensor: str, granularity: str | int) -> str:
    """Return what the tensors of one block have in common, besides their models."""
    stage, number, layer = _layer(tensor)
    if granularity == "largest":
        return ""
    if granularity == "stage":
        return stage
    if isinstance(granularity, int) and number is not None:
        return f"{stage} {number // granularity}"
    return layer


def _natural_order(content: _Content) -> tuple[Any, ...]:
    """Sort layers.2 before layers.10."""
    words = re.split(r"(\d+)", content.tensor)
    numbers = [
        (word, 0, "") if i % 2 == 0 else ("", len(word.lstrip("0")), word.lstrip("0"))
        for i, word in enumerate(words)
    ]
    return (numbers, content.digest)


def _cut(group: list[_Content], models: tuple[int, ...], limit: int) -> Iterator[_Block]:
    """Yield the blocks of a group, none above the limit."""
    pieces: list[list[_Content]] = [[]]
    filled = 0
    for content in group:
        if pieces[-1] and filled + content.size_bytes > limit:
            pieces.append([])
            filled = 0
        pieces[-1].append(content)
        filled += content.size_bytes
    for piece in pieces:
        size = sum(content.size_bytes for content in piece)
        name, mark = _span(piece, whole=len(pieces) == 1), _hash(piece)
        count = -(-size // limit)  # above 1 for one content that is larger than the limit
        for i in range(count):
            numbered = f"{name}[{i + 1}/{count}]" if count > 1 else name
            part = size * (i + 1) // count - size * i // count
            yield _Block(f"{numbered}#{mark}", part, models)


def _span(piece: list[_Content], *, whole: bool) -> str:
    """Return what is in a block: its layer or layers, or its tensors where a layer was cut."""
    ends = [piece[0].tensor, piece[-1].tensor]
    layers = [_layer(tensor)[2] for tensor in ends]
    if whole or layers[0] != layers[1]:
        ends = layers
    name = ends[0] if ends[0] == ends[1] else f"{ends[0]}..{ends[1]}"
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME // 2]}...{name[-LONGEST_NAME // 2 :]}"
    return "".join(c if c.isprintable() else "?" for c in name)


def _hash(piece: list[_Content]) -> str:
    digests = b"".join(sorted(content.digest for content in piece))
    return hashlib.sha256(digests).hexdigest()[:12]


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
