"""The files of a folder that hold weights, and which of them one model has.

See `finecast.problem.model_folders` for the rules, and for which folders are models.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from safetensors import SafetensorError, safe_open

from finecast.problem.files import DEEPEST, FormatError, read_text

SUFFIX = ".safetensors"
ADAPTER = "adapter_config.json"

WEIGHT_NAMES = (
    "model",
    "diffusion_pytorch_model",
    "adapter_model",
    "pytorch_lora_weights",
    "pytorch_model",
    "consolidated",
)
"""How hubs and trainers call weights; of several in one folder the first one counts."""

ADAPTER_NAMES = ("adapter_model", "pytorch_lora_weights")
"""How an adapter's weights are called."""

OTHER_FORMATS = (
    ".bin", ".pt", ".pth", ".ckpt", ".distcp", ".gguf", ".ggml", ".h5", ".keras", ".mlmodel",
    ".msgpack", ".nemo", ".npz", ".onnx", ".pdparams", ".safetensors", ".tflite",
)  # fmt: skip
"""Endings of weights that are not read, in capitals too (as `.SAFETENSORS`)."""

_CANONICAL = rf"(?P<stem>{'|'.join(WEIGHT_NAMES)})(?:\.(?P<variant>[A-Za-z]\w*))?"
_CANONICAL_FILE = re.compile(
    _CANONICAL + r"(?:-(?P<shard>\d+)-of-(?P<shards>\d+))?(?:\.(?P<late>[A-Za-z]\w*))?\.safetensors"
)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<shard>\d+)-of-(?P<shards>\d+)\.safetensors")
_INDEX = re.compile(
    rf"(?:{_CANONICAL}|(?P<other>.+))\.safetensors\.index(?:\.(?P<late>[A-Za-z]\w*))?\.json"
)
_TRAINING_STATE = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|zero_pp_rank)"
)
_BLOB = re.compile(r"(\.\./)+blobs/\w+")
_LONGEST_LINK = 300  # bytes


@dataclass(frozen=True)
class WeightFile:
    """A file of a model.

    Parameters
    ----------
    path
        Where it is.
    part
        Put before the names of its tensors: the part of the model, such as "unet/".
    promised
        Tensors that the index says are in it.
    indexed
        All tensors of the index: a copy of one that it says is in another file does not count.
    """

    path: Path
    part: str = ""
    promised: frozenset[str] = frozenset()
    indexed: frozenset[str] = frozenset()


@dataclass(frozen=True)
class FoundModel:
    """A model in a folder.

    Parameters
    ----------
    folder
        The model's folder, or the folder that its file is in.
    files
        The files that count, those of an adapter's base too.
    family
        By the model's configuration, such as "llama", or "".
    base
        What an adapter says it belongs to; None for what is no adapter.
    """

    folder: Path
    files: tuple[WeightFile, ...]
    family: str = ""
    base: str | None = None


# --- what is where ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listing:
    """The names in a folder that are not hidden, sorted."""

    path: Path
    files: tuple[str, ...]
    folders: tuple[str, ...]

    @property
    def weights(self) -> list[str]:
        return [name for name in self.files if name.endswith(SUFFIX)]

    @property
    def others(self) -> list[str]:
        """Weights in other formats."""
        return [
            name
            for name in self.files
            if name.lower().endswith(OTHER_FORMATS)
            and not name.endswith(SUFFIX)
            and not _TRAINING_STATE.match(name)
        ]


def listing(folder: Path) -> Listing:
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise FormatError(folder, f"cannot be read: {error.strerror}") from None
    folders = {entry.name for entry in entries if entry.is_dir()}
    return Listing(
        folder,
        tuple(entry.name for entry in entries if entry.name not in folders),
        tuple(sorted(folders)),
    )


def holds_weights(folder: Path) -> bool:
    """Return whether a folder or one below it has weights; see `below`."""
    return any(inside.weights for inside in below(folder))


def below(folder: Path) -> Iterator[Listing]:
    """Yield a folder and those below it; hidden ones and links to folders are not entered."""
    waiting = [folder]
    while waiting:
        here = listing(waiting.pop())
        yield here
        within = (here.path / name for name in reversed(here.folders))
        waiting += [path for path in within if not path.is_symlink()]


def tensor_names(file: Path) -> frozenset[str]:
    """Return the names of the tensors in a file, none of one that cannot be read."""
    if not file.is_file():
        return frozenset()
    try:
        with safe_open(file, framework="numpy") as tensors:
            return frozenset(tensors.keys())
    except (SafetensorError, OSError, ValueError):
        return frozenset()  # whoever reads its content says what is wrong


def followed(path: Path) -> Path:
    """Return the blob of a hub cache that a file stands for, or the file itself.

    Where links cannot be written, as in an archive or on some file systems, the file has the text
    of the link.
    """
    try:
        if path.is_file() and path.stat().st_size <= _LONGEST_LINK:
            text = path.read_bytes().decode("ascii", "replace").strip()
            if _BLOB.fullmatch(text) and (path.parent / text).is_file():
                return path.parent / text
    except OSError as error:
        raise FormatError(path, f"cannot be read: {error.strerror}") from None
    return path


def hub_name(folder: Path) -> str:
    """Return "a/b" for a folder `models--a--b` of a hub cache, "" for another folder."""
    name = Path(os.path.abspath(folder)).name
    return (
        name.removeprefix("models--").replace("--", "/", 1) if name.startswith("models--") else ""
    )


def json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; configurations may hold NaN and infinities."""
    try:
        content = json.loads(read_text(followed(path), "utf-8-sig"))
    except RecursionError:
        raise FormatError(path, f"not valid JSON: nested deeper than {DEEPEST} levels") from None
    except ValueError as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(path, f"not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise FormatError(path, "must be a JSON object")
    return content


# --- the files of one model ---------------------------------------------------------------------


@dataclass
class Weights:
    """One whole copy of weights: an index, a whole file, or shards."""

    stem: str
    variant: str = ""
    index: str = ""
    whole: str = ""
    shards: dict[int, dict[int, str]] | None = None  # number of shards: shard: file

    def rank(self, adapter: bool) -> int:
        names = ADAPTER_NAMES if adapter else WEIGHT_NAMES
        return names.index(self.stem) if self.stem in names else len(WEIGHT_NAMES)

    def order(self, adapter: bool) -> tuple[bool, bool, int, str]:
        """Return what the copy that counts has least of."""
        return (self.variant != "", not self.index, self.rank(adapter), self.variant)

    @property
    def files(self) -> list[str]:
        """Its files, without what an index says."""
        shards = [file for some in (self.shards or {}).values() for file in some.values()]
        return [self.whole, *shards] if self.whole else shards

    @property
    def said(self) -> str:
        """Why other files in the folder do not count."""
        if self.index:
            return f"{self.index} does not name it"
        return f"{self.whole or 'the complete set of shards'} counts"


def weight_sets(here: Listing) -> dict[str, Weights]:
    """Return the copies of weights in a folder by name, as "model" and "model.fp16"."""
    sets: dict[str, Weights] = {}

    def of(stem: str, variant: str = "") -> Weights:
        label = f"{stem}.{variant}" if variant else stem
        return sets.setdefault(label, Weights(stem, variant))

    for name in here.files:
        if match := _INDEX.fullmatch(name):
            stem, variant = match["stem"] or match["other"], match["variant"] or match["late"] or ""
            of(stem, variant).index = name
        elif not name.endswith(SUFFIX):
            continue
        elif match := _CANONICAL_FILE.fullmatch(name) or _SHARD.fullmatch(name):
            groups = match.groupdict()
            weights = of(groups["stem"], groups.get("variant") or groups.get("late") or "")
            if groups["shard"] is None:
                weights.whole = name
            else:
                weights.shards = weights.shards or {}
                shards = weights.shards.setdefault(int(groups["shards"]), {})
                shards[int(groups["shard"])] = name
        else:
            of(name.removesuffix(SUFFIX)).whole = name
    return sets


def files_of(here: Listing, weights: Weights) -> list[WeightFile]:
    """Return the files of one copy of weights; all of them must be there."""
    if weights.index:
        return _files_by_index(here.path / weights.index)
    if weights.whole:
        return [WeightFile(followed(here.path / weights.whole))]
    complete = {
        count: shards
        for count, shards in (weights.shards or {}).items()
        if set(shards) in (set(range(1, count + 1)), set(range(count)))
    }
    if len(complete) != 1:
        count, shards = max((weights.shards or {}).items())
        if not complete:
            first = next(shard for shard in range(1, count + 1) if shard not in shards)
            raise FormatError(
                here.path / next(iter(shards.values())),
                f"shard {first} of {count} is not there beside it: download the model again",
            )
        raise FormatError(
            here.path,
            f"has {' and '.join(map(str, sorted(complete)))} shards of {weights.stem!r} and no "
            "index that says which count",
        )
    (shards,) = complete.values()
    return [WeightFile(followed(here.path / shards[shard])) for shard in sorted(shards)]


def _files_by_index(index: Path) -> list[WeightFile]:
    """Return the files that an index names, with the tensors that it says are in them."""
    names: Any = json_object(index).get("weight_map")
    if not isinstance(names, Mapping) or not names:
        raise FormatError(index, "weight_map: must be an object of tensor names and file names")
    promised: dict[str, set[str]] = {}
    for tensor, name in names.items():
        if not isinstance(name, str) or not name.endswith(SUFFIX):
            raise FormatError(
                index, f"weight_map[{tensor!r}]: {name!r} is not allowed, must name a {SUFFIX} file"
            )
        if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
            raise FormatError(
                index, f"weight_map[{tensor!r}]: {name!r} is not allowed, must be beside the index"
            )
        promised.setdefault(name, set()).add(tensor)
    for name in promised:
        if not os.path.lexists(index.parent / name):
            raise FormatError(
                index, f"names the shard {name!r}, which is not there: download the model again"
            )
    indexed = frozenset(names)
    return [
        WeightFile(followed(index.parent / name), "", frozenset(promised[name]), indexed)
        for name in sorted(promised)
    ]
