"""Model libraries from configurations: exact blocks of Hugging Face models without their weights.

A folder holds one folder for each model. One with a `config.json` is a model; one with an
`adapter_config.json` is an adapter of the model that it names. A configuration that names another
model as its base, by `base_model_name_or_path` or `_name_or_path`, is a variant of it: the frozen
part is shared with the base, and the rest is its own. What no model says to share is not shared.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath

from finecast.problem.adapters import with_base
from finecast.problem.content_blocks import Content, check_cuts, layer_of, library_of_contents
from finecast.problem.files import FormatError
from finecast.problem.library import ModelLibrary
from finecast.problem.lora import adapter_bytes
from finecast.problem.meta_models import MetaModel, MetaTensor, meta_model
from finecast.problem.model_files import (
    ADAPTER,
    FoundModel,
    WeightFile,
    below,
    hub_name,
    json_object,
)

CONFIG = "config.json"

BASE_KEY = "base_model_name_or_path"

Shares = dict[str, Content]
"""The contents of a model, by the names of its tensors."""


def library_from_configs(
    folder: str | os.PathLike[str],
    frozen: str | int | None = None,
    progress: Callable[[int, int], None] | None = None,
    *,
    granularity: str | int = "layer",
    max_block_bytes: int | None = None,
) -> ModelLibrary:
    """Return the library of the configurations in a folder.

    Sizes are those of the type of values (`dtype`) that the configuration states, else of float32;
    an adapter has the type of its base. Tensors under several names count once. Blocks are named
    "llama-3.1-8b/model.layers.0", after the model that brings them.

    Parameters
    ----------
    folder
        One folder a model, in any depth, or the folder of one model.
    frozen
        What a variant with a configuration of its own shares with its base. "embeddings": what
        comes before the first layer. An integer n: this and the first n layers. "all": every tensor
        of the same name and shape. An adapter leaves all of its base frozen, whatever is said here.
    progress
        Called with the number of configurations read so far, and of all.
    granularity, max_block_bytes
        As `finecast.problem.checkpoints.library_from_checkpoints`.

    Raises
    ------
    FormatError
        `folder` has no configuration; transformers is not installed or cannot build a model without
        foreign code; a base is missing; a variant shares nothing, or `frozen` is not said.
    ValueError
        `granularity`, `max_block_bytes` or `frozen` is not allowed.
    """
    check_cuts(granularity, max_block_bytes)
    _check_frozen(frozen)
    top = Path(folder)
    if not top.is_dir():
        raise FormatError(top, "is no folder, expected one with a folder for each model")
    found = _found(top)
    reader = _Reader({path.files[-1].path: name for name, path in found.items()}, frozen)
    models: dict[str, str] = {}
    contents: dict[bytes, Content] = {}
    for m, name in enumerate(found):
        if progress is not None:
            progress(m, len(found))
        chain = tuple(file.path for file in with_base(name, found, top, _found).files)
        for content in reader.contents(chain).values():
            content.models.add(m)
            contents[content.digest] = content
        models[name] = reader.built[chain[0]].family
    if progress is not None:
        progress(len(found), len(found))
    return library_of_contents(
        folder,
        models,
        contents.values(),
        granularity=granularity,
        max_block_bytes=max_block_bytes,
        marked=False,
    )


def _check_frozen(frozen: str | int | None) -> None:
    if frozen in (None, "all", "embeddings"):
        return
    if type(frozen) is not int or frozen < 0:
        raise ValueError(
            f"frozen: {frozen!r} is not allowed, must be 'all', 'embeddings' or a number of layers"
        )


# --- which models are there ---------------------------------------------------------------------


def _found(top: Path) -> dict[str, FoundModel]:
    """Return the models below a folder by name, sorted; their one file is the configuration."""
    models: dict[str, FoundModel] = {}
    for name, path in _configurations(top):
        if name in models:
            raise FormatError(
                path, f"model {name!r} is in two folders; give the folder of one of them"
            )
        base = None
        if path.name == ADAPTER:
            base = json_object(path).get(BASE_KEY)
            if not isinstance(base, str) or not base:
                raise FormatError(path, f"{BASE_KEY}: {base!r} is not allowed, must name the base")
        models[name] = FoundModel(path.parent, (WeightFile(path),), base=base)
    if not models:
        raise FormatError(top, f"has no {CONFIG} or {ADAPTER} in it")
    for name, model in models.items():
        if model.base is None:
            base = _base_of(model.files[0].path, name, models)
            models[name] = FoundModel(model.folder, model.files, base=base)
    return dict(sorted(models.items()))


def _configurations(top: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and the configuration of each model; of a hub cache its name there."""
    for here in below(top):
        file = next((file for file in (ADAPTER, CONFIG) if file in here.files), None)
        if file is None:
            continue
        name = here.path.relative_to(top).as_posix()
        if here.path.parent.name == "snapshots" and (hub := hub_name(here.path.parent.parent)):
            name = hub
        elif name == ".":
            name = Path(os.path.abspath(top)).name or "model"
        yield name, here.path / file


def _base_of(path: Path, name: str, models: dict[str, FoundModel]) -> str | None:
    """Return the base that a configuration names.

    `_name_or_path` is what a model was loaded from: the model itself, or another place, unless it
    is the name of another model here.
    """
    content = json_object(path)
    base = content.get(BASE_KEY)
    if base is not None:
        if not isinstance(base, str) or not base:
            raise FormatError(path, f"{BASE_KEY}: {base!r} is not allowed, must name the base")
        return base
    loaded = content.get("_name_or_path")
    if not isinstance(loaded, str) or not loaded:
        return None
    last = PureWindowsPath(loaded).name
    same = [other for other in models if other == loaded]
    same = same or [other for other in models if other.rpartition("/")[2] == last]
    return same[0] if len(same) == 1 and same != [name] else None


# --- what they are made of ----------------------------------------------------------------------


class _Reader:
    """Configurations that were read, each built once."""

    def __init__(self, names: dict[Path, str], frozen: str | int | None) -> None:
        self.names = names
        self.frozen = frozen
        self.built: dict[Path, MetaModel] = {}
        self.shares: dict[tuple[Path, ...], Shares] = {}

    def contents(self, chain: tuple[Path, ...]) -> Shares:
        """Return the contents of the model of the last of these files, each on the one before."""
        if chain in self.shares:
            return self.shares[chain]
        path, below_it = chain[-1], chain[:-1]
        name = self.names.get(path) or path.parent.name or "model"
        base = self.contents(below_it) if below_it else {}
        under = [file for file in below_it if file.name != ADAPTER]
        if path.name == ADAPTER:
            size = adapter_bytes(path, self.built[under[-1]])
            tensor = f"{name}/adapter"
            self.shares[chain] = {**base, tensor: _content(tensor, size)}
            return self.shares[chain]
        self.built[path] = meta_model(path)
        own = [tensor for tensor in self.built[path].tensors if tensor.of == tensor.name]
        shared = self.shared(path, own, self.built[under[-1]]) if under else set()
        self.shares[chain] = {
            tensor.name: base[tensor.name]
            if tensor.name in shared
            else _content(f"{name}/{tensor.name}", tensor.size_bytes)
            for tensor in own
            if tensor.size_bytes
        }
        return self.shares[chain]

    def shared(self, path: Path, own: list[MetaTensor], base: MetaModel) -> set[str]:
        """Return the tensors of a variant that are those of its base."""
        if self.frozen is None:
            raise FormatError(
                path,
                "is a variant of another model: say what of it is frozen, 'all', 'embeddings' or a "
                "number of layers",
            )
        theirs = {
            tensor.name: (tensor.shape, tensor.size_bytes)
            for tensor in frozen_part(path, base, self.frozen)
        }
        shared = {
            tensor.name
            for tensor in own
            if tensor.size_bytes and theirs.get(tensor.name) == (tensor.shape, tensor.size_bytes)
        }
        if not shared:
            raise FormatError(path, "shares no tensor with its base, by name and shape")
        return shared


def frozen_part(path: Path, base: MetaModel, frozen: str | int) -> list[MetaTensor]:
    """Return the tensors of a base that its variants leave as they are.

    Raises
    ------
    FormatError
        The base, or the file at `path` that stands on it, has fewer layers.
    """
    own = [tensor for tensor in base.tensors if tensor.of == tensor.name]
    if frozen == "all":
        return own
    most = 0 if frozen == "embeddings" else int(frozen)
    # What is in no layer, such as embeddings, is frozen with the layer that follows it.
    layers: dict[str, int] = {}
    taken: list[MetaTensor] = []
    between: list[MetaTensor] = []
    for tensor in own:
        _, number, layer = layer_of(tensor.name)
        if number is None:
            between.append(tensor)
            continue
        place = layers.setdefault(layer, len(layers))
        if place < max(most, 1):
            taken += between
        if place < most:
            taken.append(tensor)
        between = []
    if most > len(layers):
        raise FormatError(path, f"frozen: {most} layers asked for, its base has {len(layers)}")
    return taken


def _content(tensor: str, size: int) -> Content:
    """Return a content that nothing else is."""
    return Content(hashlib.sha256(tensor.encode()).digest(), size, tensor)
