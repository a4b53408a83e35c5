"""Blocks of the content of models: what the same models share of one layer, cut further by size.

All content that appears in exactly the same set of models could be one block, but one that is
larger than a node's storage can be cached nowhere. So a block is what such a group has of one
layer, and it can be cut further. Where the content comes from, from weights or from configurations,
is said in `finecast.problem.checkpoints` and `finecast.problem.model_configs`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from finecast.problem.files import FormatError
from finecast.problem.library import LARGEST_INCIDENCE, ModelLibrary

LONGEST_NAME = 200
"""Most characters of the layers in a block's name."""

MOST_BLOCKS = 10**6
"""Most blocks that a library is cut into."""


@dataclass
class Content:
    """What is stored once: its digest, its bytes, a tensor's name, and the models that have it."""

    digest: bytes
    size_bytes: int
    tensor: str  # the alphabetically first of the names it goes by
    models: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _Block:
    """Content, or an equal part of one content, that forms a block."""

    name: str
    mark: str  # hash of its content
    size_bytes: int
    models: tuple[int, ...]


def library_of_contents(
    folder: str | os.PathLike[str],
    models: Mapping[str, str],
    contents: Iterable[Content],
    *,
    granularity: str | int,
    max_block_bytes: int | None,
    marked: bool = True,
) -> ModelLibrary:
    """Return the library of the contents of models.

    Parameters
    ----------
    folder
        Where the models are, for messages.
    models
        Family of each model by name; contents say of which models they are by their order here.
    contents
        All distinct contents.
    granularity, max_block_bytes
        As `finecast.problem.checkpoints.library_from_checkpoints`.
    marked
        Put a hash of its content behind each block's name. Else only where names are the same.

    Raises
    ------
    FormatError
        A name of a model or a tensor is not allowed.
    ValueError
        `max_block_bytes` makes too many blocks.
    """
    # Groups of content that one set of models shares, each cut by layer and by size.
    groups: dict[tuple[tuple[int, ...], str], list[Content]] = {}
    for content in contents:
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
            block_names=_names(blocks, marked),
            model_names=tuple(models),
            model_family=tuple(models.values()),
        )
    except ValueError as error:  # such as a file name that cannot be printed
        raise FormatError(folder, str(error)) from None


def check_cuts(granularity: str | int, max_block_bytes: int | None) -> None:
    """Refuse what `library_of_contents` cannot cut by, with a ValueError."""
    known = granularity in ("layer", "block", "stage", "largest")
    if not known and (type(granularity) is not int or granularity < 1):
        raise ValueError(
            f"granularity: {granularity!r} is not allowed, must be 'layer', 'stage', 'largest' or "
            "a number of layers >= 1"
        )
    if max_block_bytes is not None and max_block_bytes < 1:
        raise ValueError(f"max_block_bytes: {max_block_bytes} is not allowed, must be >= 1")


def _names(blocks: list[_Block], marked: bool) -> tuple[str, ...]:
    """Return the names of blocks, with their marks, or "a/x..y" in place of "a/x..a/y"."""
    if marked:
        return tuple(f"{block.name}#{block.mark}" for block in blocks)
    names = [re.sub(r"^(.+/)(.*)\.\.\1", r"\1\2..", block.name) for block in blocks]
    often = Counter(names)
    return tuple(
        f"{name}#{block.mark}" if often[name] > 1 else name
        for name, block in zip(names, blocks, strict=True)
    )


_NUMBERED = re.compile(r"(.*_)?(\d{1,9})")


def layer_of(tensor: str) -> tuple[str, int | None, str]:
    """Return the stage, number and name of a tensor's layer.

    Examples
    --------
    >>> layer_of("model.layers.12.self_attn.q_proj.weight")
    ('model.layers', 12, 'model.layers.12')
    >>> layer_of("unet/conv_in.weight")
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
    stage, number, layer = layer_of(tensor)
    if granularity == "largest":
        return ""
    if granularity == "stage":
        return stage
    if isinstance(granularity, int) and number is not None:
        return f"{stage} {number // granularity}"
    return layer


def _natural_order(content: Content) -> tuple[Any, ...]:
    """Sort layers.2 before layers.10."""
    words = re.split(r"(\d+)", content.tensor)
    numbers = [
        (word, 0, "") if i % 2 == 0 else ("", len(word.lstrip("0")), word.lstrip("0"))
        for i, word in enumerate(words)
    ]
    return (numbers, content.digest)


def _cut(group: list[Content], models: tuple[int, ...], limit: int) -> Iterator[_Block]:
    """Yield the blocks of a group, none above the limit."""
    pieces: list[list[Content]] = [[]]
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
            yield _Block(numbered, mark, part, models)


def _span(piece: list[Content], *, whole: bool) -> str:
    """Return what is in a block: its layer or layers, or its tensors where a layer was cut."""
    ends = [piece[0].tensor, piece[-1].tensor]
    layers = [layer_of(tensor)[2] for tensor in ends]
    if whole or layers[0] != layers[1]:
        ends = layers
    name = ends[0] if ends[0] == ends[1] else f"{ends[0]}..{ends[1]}"
    if len(name) > LONGEST_NAME:
        name = f"{name[: LONGEST_NAME // 2]}...{name[-LONGEST_NAME // 2 :]}"
    return "".join(c if c.isprintable() else "?" for c in name)


def _hash(piece: list[Content]) -> str:
    digests = b"".join(sorted(content.digest for content in piece))
    return hashlib.sha256(digests).hexdigest()[:12]
