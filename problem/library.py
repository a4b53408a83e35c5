"""Model libraries: which parameter blocks (PBs) exist, and which models consist of which.

A block in several models is *reusable*: it is stored once and broadcast once for all of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from finecast.problem.arrays import BoolArray, IntArray, checked
from finecast.problem.files import FormatError, content_hash, read_json, write_atomically
from finecast.problem.shipped import find
from finecast.problem.version import FINECAST_VERSION

FORMAT = "finecast-library"
VERSION = 1

LARGEST_BYTES = 2**62
"""The blocks of a library together may not exceed this, so that sums stay exact in int64."""

LARGEST_INCIDENCE = 2**30
"""A file may not ask for more than this many (model, block) entries."""

MIXED_FAMILY = "mixed"
"""Family of a block whose models are of several families."""


@dataclass(frozen=True, eq=False)
class ModelLibrary:
    """Sizes of J parameter blocks and the M models made of them (docs/formulation.md section 1).

    Two libraries are equal when their content hashes are: same blocks, models and names in the
    same order.

    Parameters
    ----------
    block_size
        (J,) byte, at least 1 each.
    model_blocks
        (M, J) True where model m contains block j; every model has a block and every block is in
        a model.
    block_names
        J unique names; default "pb0", "pb1", ...
    model_names
        M unique names; default "model0", "model1", ...
    model_family
        Backbone family of each model, as "ViT-B/16"; default "" each.

    Raises
    ------
    ValueError
        One line with the field, the offending value, its index and what is allowed.
    """

    block_size: IntArray
    model_blocks: BoolArray
    block_names: tuple[str, ...] = ()
    model_names: tuple[str, ...] = ()
    model_family: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        blocks = np.size(self.block_size)
        models = np.size(self.model_blocks) // max(blocks, 1)
        if blocks == 0 or models == 0:
            raise ValueError(f"{blocks} blocks in {models} models given, one of each needed")
        size = checked("block_size", self.block_size, "int", (blocks,), low=1, high=LARGEST_BYTES)
        contains = checked("model_blocks", self.model_blocks, "bool", (models, blocks))
        total = sum(size.tolist())
        if total > LARGEST_BYTES:
            raise ValueError(f"block_size: sums to {total} bytes, must be <= 2^62")
        block_names = tuple(self.block_names) or tuple(f"pb{j}" for j in range(blocks))
        model_names = tuple(self.model_names) or tuple(f"model{m}" for m in range(models))
        family = tuple(self.model_family) or ("",) * models
        _check_names("block_names", block_names, blocks)
        _check_names("model_names", model_names, models)
        _check_text("model_family", family, models)
        if not contains.any(axis=1).all():
            m = int(np.argmin(contains.any(axis=1)))
            raise ValueError(f"model_blocks[{m}]: model {model_names[m]!r} has no block")
        if not contains.any(axis=0).all():
            j = int(np.argmin(contains.any(axis=0)))
            raise ValueError(f"model_blocks[:, {j}]: block {block_names[j]!r} is in no model")
        object.__setattr__(self, "block_size", size)
        object.__setattr__(self, "model_blocks", contains)
        object.__setattr__(self, "block_names", block_names)
        object.__setattr__(self, "model_names", model_names)
        object.__setattr__(self, "model_family", family)

    @property
    def blocks(self) -> int:
        """Number of blocks J."""
        return len(self.block_size)

    @property
    def models(self) -> int:
        """Number of models M."""
        return len(self.model_blocks)

    @cached_property
    def model_size(self) -> IntArray:
        """(M,) byte, the sum of the sizes of each model's blocks."""
        return checked("model_size", self.model_blocks @ self.block_size, "int", (self.models,))

    @cached_property
    def block_models(self) -> IntArray:
        """(J,) number of models that contain each block."""
        return checked("block_models", self.model_blocks.sum(axis=0), "int", (self.blocks,))

    @cached_property
    def block_family(self) -> tuple[str, ...]:
        """Family of the models of each block, or `MIXED_FAMILY` when there are several."""
        families = (
            {self.model_family[m] for m in np.flatnonzero(column)} for column in self.model_blocks.T
        )
        return tuple(names.pop() if len(names) == 1 else MIXED_FAMILY for names in families)

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of sizes, incidence and names."""
        names = {
            "block_names": self.block_names,
            "model_names": self.model_names,
            "model_family": self.model_family,
        }
        arrays = {"block_size": self.block_size, "model_blocks": self.model_blocks}
        return content_hash(names, arrays)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ModelLibrary) and self.content_hash == other.content_hash

    def __hash__(self) -> int:
        return hash(self.content_hash)


@dataclass(frozen=True)
class SharingStatistics:
    """What sharing saves in a library.

    Parameters
    ----------
    separate_bytes
        Bytes of all models stored one by one, nothing shared.
    deduplicated_bytes
        Bytes of all blocks, each stored once.
    saved_bytes, saved_share
        Their difference, and the same as a share of `separate_bytes`.
    reusable_blocks
        Number of blocks in more than one model.
    blocks_per_model_min, blocks_per_model_mean, blocks_per_model_max
        Number of blocks of a model over the library.
    shared_share
        For each model, the share of its bytes that lies in reusable blocks.
    """

    separate_bytes: int
    deduplicated_bytes: int
    saved_bytes: int
    saved_share: float
    reusable_blocks: int
    blocks_per_model_min: int
    blocks_per_model_mean: float
    blocks_per_model_max: int
    shared_share: tuple[float, ...]


def sharing_statistics(library: ModelLibrary) -> SharingStatistics:
    """Return what sharing saves in `library`."""
    separate = sum(library.model_size.tolist())  # Python integers: no overflow for many copies
    deduplicated = sum(library.block_size.tolist())
    reusable = library.block_models > 1
    blocks_per_model = library.model_blocks.sum(axis=1)
    shared = library.model_blocks @ (library.block_size * reusable) / library.model_size
    return SharingStatistics(
        separate_bytes=separate,
        deduplicated_bytes=deduplicated,
        saved_bytes=separate - deduplicated,
        saved_share=(separate - deduplicated) / separate,
        reusable_blocks=int(reusable.sum()),
        blocks_per_model_min=int(blocks_per_model.min()),
        blocks_per_model_mean=float(blocks_per_model.mean()),
        blocks_per_model_max=int(blocks_per_model.max()),
        shared_share=tuple(shared.tolist()),
    )


def coarse_grained(library: ModelLibrary) -> ModelLibrary:
    """Return the library in which each model is one block of its own, of the model's whole size."""
    return ModelLibrary(
        block_size=library.model_size,
        model_blocks=np.eye(library.models, dtype=np.bool_),
        block_names=library.model_names,
        model_names=library.model_names,
        model_family=library.model_family,
    )


def combine(libraries: Sequence[ModelLibrary]) -> ModelLibrary:
    """Return the disjoint union: nothing is shared between different `libraries`.

    A block or model name that an earlier library has taken gets "#2", "#3", ... appended.

    Raises
    ------
    ValueError
        No library is given.
    """
    if not libraries:
        raise ValueError("libraries: none given, at least one needed")
    contains = np.zeros(
        (sum(part.models for part in libraries), sum(part.blocks for part in libraries)), np.bool_
    )
    m = j = 0
    for part in libraries:
        contains[m : m + part.models, j : j + part.blocks] = part.model_blocks
        m, j = m + part.models, j + part.blocks
    return ModelLibrary(
        block_size=np.concatenate([part.block_size for part in libraries]),
        model_blocks=contains,
        block_names=_unique(name for part in libraries for name in part.block_names),
        model_names=_unique(name for part in libraries for name in part.model_names),
        model_family=tuple(family for part in libraries for family in part.model_family),
    )


def library_of(
    size_bytes: Mapping[str, int],
    models: Mapping[str, Iterable[str]],
    family: Mapping[str, str] | None = None,
) -> ModelLibrary:
    """Return a library from names.

    Parameters
    ----------
    size_bytes
        Size of each block by name (byte); its order is that of the blocks.
    models
        Block names of each model by model name; its order is that of the models.
    family
        Family of each model by model name; missing ones are "".

    Raises
    ------
    ValueError
        As `ModelLibrary`.
    """
    index = {name: j for j, name in enumerate(size_bytes)}
    contains = np.zeros((len(models), len(size_bytes)), np.bool_)
    for m, blocks in enumerate(models.values()):
        contains[m, [index[name] for name in blocks]] = True
    return ModelLibrary(
        block_size=np.array(list(size_bytes.values()), np.int64),
        model_blocks=contains,
        block_names=tuple(size_bytes),
        model_names=tuple(models),
        model_family=tuple((family or {}).get(name, "") for name in models),
    )


def write_library(path: str | os.PathLike[str], library: ModelLibrary) -> None:
    """Write `library` as JSON, one line for each block and each model.

    Raises
    ------
    FormatError
        The file cannot be written.
    """
    blocks = [
        {"name": name, "size_bytes": size}
        for name, size in zip(library.block_names, library.block_size.tolist(), strict=True)
    ]
    models = [
        {
            "name": name,
            "family": family,
            "blocks": [library.block_names[j] for j in np.flatnonzero(row)],
        }
        for name, family, row in zip(
            library.model_names, library.model_family, library.model_blocks, strict=True
        )
    ]
    text = "\n".join(
        [
            "{",
            f'  "format": {json.dumps(FORMAT)},',
            f'  "version": {VERSION},',
            f'  "finecast_version": {json.dumps(FINECAST_VERSION)},',
            f'  "blocks": {_json_lines(blocks)},',
            f'  "models": {_json_lines(models)}',
            "}",
            "",
        ]
    )
    write_atomically(path, text.encode())


def read_library(path: str | os.PathLike[str]) -> ModelLibrary:
    """Read a library that `write_library`, or a person, has written.

    Parameters
    ----------
    path
        Of the file, or the name of a shipped library, such as "vision".

    Raises
    ------
    FormatError
        One line with the file, the field (as "models[3].blocks[1]"), the value and what is
        allowed.
    """
    path = find(path, "library")
    content = read_json(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FormatError(path, f"is not a model library, its format must be {FORMAT!r}")
    version = content.get("version")
    if type(version) is not int or version < 1:
        raise FormatError(
            path, f"version: {_shown(version)} is not allowed, must be an integer >= 1"
        )
    if version > VERSION:
        raise FormatError(
            path,
            f"has version {_shown(version)} of {FORMAT!r}, written by finecast "
            f"{_shown(content.get('finecast_version'))}; "
            f"this finecast reads up to version {VERSION}",
        )
    known = {"format", "version", "finecast_version", "blocks", "models"}
    _refuse_unknown_keys(path, "", content, known)

    size_bytes: dict[str, int] = {}
    for where, block in _records(path, content, "blocks", {"name", "size_bytes"}):
        name = _new_name(path, where, block, size_bytes)
        size = block.get("size_bytes")
        if type(size) is not int or not 1 <= size <= LARGEST_BYTES:
            raise FormatError(
                path,
                f"{where}.size_bytes: {_shown(size)} is not allowed, "
                "must be an integer from 1 to 2^62",
            )
        size_bytes[name] = size

    models: dict[str, list[str]] = {}
    families: dict[str, str] = {}
    for where, model in _records(path, content, "models", {"name", "family", "blocks"}):
        name = _new_name(path, where, model, models)
        families[name] = _text(path, f"{where}.family", model.get("family", ""))
        members = model.get("blocks")
        if not isinstance(members, list) or not members:
            raise FormatError(path, f"{where}.blocks: must be a list of at least one block name")
        seen: set[str] = set()
        for i, member in enumerate(members):
            field = f"{where}.blocks[{i}]"
            if not isinstance(member, str) or member not in size_bytes:
                raise FormatError(path, f"{field}: unknown block {_shown(member)}")
            if member in seen:
                raise FormatError(path, f"{field}: block {_shown(member)} is listed twice")
            seen.add(member)
        models[name] = members

    if len(models) * len(size_bytes) > LARGEST_INCIDENCE:
        raise FormatError(
            path,
            f"{len(models)} models of {len(size_bytes)} blocks are more than this "
            f"finecast reads ({LARGEST_INCIDENCE} pairs)",
        )
    try:
        return library_of(size_bytes, models, families)
    except ValueError as error:
        raise FormatError(path, str(error)) from None


def _records(
    path: str | os.PathLike[str], content: Mapping[str, Any], key: str, known: set[str]
) -> Iterable[tuple[str, dict[str, Any]]]:
    """Yield where each record of a list stands, as "blocks[3]", and the record."""
    records = content.get(key)
    if not isinstance(records, list) or not records:
        raise FormatError(path, f"{key}: must be a list of at least one entry")
    for i, record in enumerate(records):
        where = f"{key}[{i}]"
        if not isinstance(record, dict):
            raise FormatError(path, f"{where}: {_shown(record)} is not allowed, must be an object")
        _refuse_unknown_keys(path, f"{where}.", record, known)
        yield where, record


def _refuse_unknown_keys(
    path: str | os.PathLike[str], where: str, record: Mapping[str, Any], known: set[str]
) -> None:
    for key in record:
        if key not in known:
            raise FormatError(
                path,
                f"{where}{_shown(key)[1:-1]}: unknown key, known are {', '.join(sorted(known))}",
            )


def _new_name(
    path: str | os.PathLike[str], where: str, record: Mapping[str, Any], taken: Mapping[str, Any]
) -> str:
    name = _text(path, f"{where}.name", record.get("name"))
    if not name:
        raise FormatError(path, f"{where}.name: '' is not allowed, must not be empty")
    if name in taken:
        raise FormatError(path, f"{where}.name: {_shown(name)} is already taken, must be unique")
    return name


def _text(path: str | os.PathLike[str], field: str, value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable():
        raise FormatError(
            path, f"{field}: {_shown(value)} is not allowed, must be a printable string"
        )
    return value


def _check_text(field: str, texts: tuple[str, ...], count: int) -> None:
    if len(texts) != count:
        raise ValueError(f"{field}: {len(texts)} given, expected {count}")
    for i, text in enumerate(texts):
        if not isinstance(text, str) or not text.isprintable():
            raise ValueError(
                f"{field}[{i}]: {_shown(text)} is not allowed, must be a printable string"
            )


def _check_names(field: str, names: tuple[str, ...], count: int) -> None:
    _check_text(field, names, count)
    place: dict[str, int] = {}
    for i, name in enumerate(names):
        if not name:
            raise ValueError(f"{field}[{i}]: '' is not allowed, must not be empty")
        if name in place:
            raise ValueError(
                f"{field}[{i}]: {_shown(name)} is already {field}[{place[name]}], must be unique"
            )
        place[name] = i


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    taken: dict[str, None] = {}
    for name in names:
        candidate, copy = name, 1
        while candidate in taken:
            copy += 1
            candidate = f"{name}#{copy}"
        taken[candidate] = None
    return tuple(taken)


def _json_lines(records: Iterable[Mapping[str, Any]]) -> str:
    lines = (f"    {json.dumps(record, ensure_ascii=False)}" for record in records)
    return "[\n" + ",\n".join(lines) + "\n  ]"


def _shown(value: object) -> str:
    """Return the value for an error message: one line, and not a long one."""
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."
