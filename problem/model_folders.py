"""Which models are in a folder, and which files count for each, as hubs and trainers write them.

A folder holds models as files, as subfolders, as a hub cache (`models--a--b/snapshots/REVISION`),
or is one model itself. Of a model's folder:

- The index (`model.safetensors.index.json`) decides which files count. Every shard that it names
  must be there. Without an index a whole file comes before shards, and shards must be complete.
- A plain file comes before a variant (`model.fp16.safetensors`), and the names in `WEIGHT_NAMES`
  come before others, in their order: the others are further copies of the same weights.
- The subfolders of a pipeline (`unet/`, `vae/`) and numbered modules (`2_Dense/`) are parts of it.
- An adapter (`adapter_config.json`) is a model of its own, with the weights of its base.

Whatever is passed over is said in a note with its name.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from finecast.problem.files import FormatError, read_bytes

SUFFIX = ".safetensors"

WEIGHT_NAMES = (
    "model",
    "diffusion_pytorch_model",
    "adapter_model",
    "pytorch_model",
    "consolidated",
)
"""How hubs and trainers call weights; of several in one folder the first one counts."""

OTHER_FORMATS = (
    ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".ggml", ".h5", ".msgpack", ".onnx", ".tflite"
)  # fmt: skip
"""Endings of weights that are not read."""

PIPELINE_PARTS = {
    "unet", "transformer", "transformer_2", "vae", "vqvae", "text_encoder", "text_encoder_2",
    "text_encoder_3", "image_encoder", "safety_checker", "prior", "decoder", "controlnet",
    "vocoder", "language_model",
}  # fmt: skip
"""Subfolders that make a pipeline where no model_index.json says so."""

COPIES = {"original"}
"""Subfolders in which hubs keep the weights in their first format."""

DEEPEST = 12
"""Folders below the given one that are looked into, one in another."""

_ADAPTER, _PIPELINE, _MODULES = "adapter_config.json", "model_index.json", "modules.json"
_MARKERS = {"config.json", _ADAPTER, _PIPELINE, _MODULES}
"""Files that only a model's own folder has."""

_CANONICAL = rf"(?P<stem>{'|'.join(WEIGHT_NAMES)})(?:\.(?P<variant>[A-Za-z]\w*))?"
_CANONICAL_FILE = re.compile(
    _CANONICAL + r"(?:-(?P<shard>\d+)-of-(?P<shards>\d+))?(?:\.(?P<late>[A-Za-z]\w*))?\.safetensors"
)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<shard>\d+)-of-(?P<shards>\d+)\.safetensors")
_INDEX = re.compile(
    rf"(?:{_CANONICAL}|(?P<other>.+))\.safetensors\.index(?:\.(?P<late>[A-Za-z]\w*))?\.json"
)
_MODULE = re.compile(r"\d+_\w+")
_EARLIER_STATE = re.compile(r"(checkpoint|global_step|step|epoch)[-_]?\d+")
_TRAINING_STATE = re.compile(
    r"(training_args|optimizer|scheduler|scaler|rng_state|random_states|zero_pp_rank)"
)
_REVISION = re.compile(r"\w[\w.-]*")
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
    """

    path: Path
    part: str = ""
    promised: frozenset[str] = frozenset()


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


@dataclass(frozen=True)
class FoundModels:
    """The models in a folder by name, sorted, and a note for each thing that was passed over."""

    models: dict[str, FoundModel]
    notes: tuple[str, ...]


def find_models(folder: str | os.PathLike[str]) -> FoundModels:
    """Return the models in a folder.

    Raises
    ------
    FormatError
        The folder is missing, not a folder or has no model; two models have one name; a shard, an
        adapter's base or a hub's revision is missing; an index or a configuration is damaged.
    """
    top = Path(folder)
    if not top.exists():
        raise FormatError(top, "no such folder")
    if not top.is_dir():
        raise FormatError(top, f"is not a folder, expected one with {SUFFIX} files")
    search = _Search(top, {}, [])
    search.look(top)
    if not search.models:
        raise FormatError(top, f"has no {SUFFIX} file of a model{_found_instead(search.notes)}")
    models = {name: _with_base(name, search.models, top) for name in sorted(search.models)}
    return FoundModels(models, tuple(search.notes))


def _found_instead(notes: list[str]) -> str:
    return f"; {'; '.join(notes)}" if notes else ""


# --- what is where ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Listing:
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
            if name.endswith(OTHER_FORMATS) and not _TRAINING_STATE.match(name)
        ]


def _listing(folder: Path) -> _Listing:
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise FormatError(folder, f"cannot be read: {error.strerror}") from None
    folders = {entry.name for entry in entries if entry.is_dir()}
    return _Listing(
        folder,
        tuple(entry.name for entry in entries if entry.name not in folders),
        tuple(sorted(folders)),
    )


def _holds_weights(folder: Path) -> bool:
    """Return whether a folder or one below it has weights; links to folders are not followed."""
    return any(
        name.endswith(SUFFIX) and not name.startswith(".")
        for _, _, names in os.walk(folder)
        for name in names
    )


def _followed(path: Path) -> Path:
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


def _object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; configurations may hold NaN and infinities."""
    try:
        content = json.loads(read_bytes(_followed(path)).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(path, f"not valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise FormatError(path, "must be a JSON object")
    return content


# --- the search ---------------------------------------------------------------------------------


@dataclass
class _Search:
    """What a walk through folders has found so far."""

    top: Path
    models: dict[str, FoundModel]
    notes: list[str]

    def note(self, path: Path, what: str) -> None:
        """Note something about a file or folder, by its path below the given one."""
        shown = path.relative_to(self.top) if path != self.top else path
        self.notes.append(f"{str(shown)!r}: {what}")

    def skip(self, path: Path, why: str) -> None:
        """Note what is passed over, and why."""
        self.note(path, f"skipped, {why}")

    def add(self, name: str, model: FoundModel) -> None:
        if name in self.models:
            raise FormatError(
                model.folder,
                f"model {name!r} is there as a file and as a folder, or in two folders",
            )
        self.models[name] = model

    def look(self, folder: Path, name: str = "", above: tuple[str, ...] = ()) -> None:
        """Add the models in a folder that is called `name`, "" for the given one."""
        real = os.path.realpath(folder)
        if real in above:
            self.skip(folder, "a link to a folder above it")
            return
        if len(above) > DEEPEST:
            self.skip(folder, f"more than {DEEPEST} folders deep")
            return
        here, above = _listing(folder), (*above, real)
        if _hub_name(folder) and "snapshots" in here.folders:
            self.look_into_hub(folder, above)
        elif _is_model(here, given=not name):
            self.add_folder(here, name or _own_name(folder), above)
        else:
            self.look_into_collection(here, name, above)

    def look_into_collection(self, here: _Listing, name: str, above: tuple[str, ...]) -> None:
        """Add each file of weights and each folder as a model."""
        sets = _weight_sets(here)
        for label, weights in sets.items():
            self.add(label, FoundModel(here.path, tuple(_files(here, weights))))
        counted = {file.path for model in self.models.values() for file in model.files}
        self.skip_others(here, counted, "another copy beside it counts")
        for folder in here.folders:
            if folder.startswith(("datasets--", "spaces--")):
                self.skip(here.path / folder, "not a model of the hub")
                continue
            before = len(self.models) + len(self.notes)
            self.look(here.path / folder, f"{name}/{folder}" if name else folder, above)
            if len(self.models) + len(self.notes) == before:
                self.skip(here.path / folder, f"no {SUFFIX} file in it")

    def look_into_hub(self, folder: Path, above: tuple[str, ...]) -> None:
        """Add the model of a folder `models--a--b`, at the revision that refs/main names."""
        snapshots = _listing(folder / "snapshots").folders
        main = folder / "refs" / "main"
        revision = read_bytes(main).decode("utf-8", "replace").strip() if main.is_file() else ""
        if revision and not _REVISION.fullmatch(revision):
            raise FormatError(main, f"{revision[:80]!r} is not allowed, must be a revision")
        if revision not in snapshots:
            if not snapshots:
                self.skip(folder, "no revision of it is downloaded")
                return
            if len(snapshots) > 1:
                raise FormatError(
                    folder,
                    f"has the revisions {', '.join(snapshots)}, and refs/main names none of them; "
                    "give the folder of one",
                )
            (revision,) = snapshots
        for other in snapshots:
            if other != revision:
                self.skip(folder / "snapshots" / other, f"refs/main names revision {revision}")
        before = len(self.models) + len(self.notes)
        snapshot = folder / "snapshots" / revision
        self.look(snapshot, _hub_name(folder), above)
        if len(self.models) + len(self.notes) == before:
            self.skip(snapshot, f"no {SUFFIX} file in it")

    def add_folder(self, here: _Listing, name: str, above: tuple[str, ...]) -> None:
        """Add the model that a folder is, with its parts, and the models that lie in it."""
        adapter = _ADAPTER in here.files and any(
            weights.stem == "adapter_model" for weights in _weight_sets(here).values()
        )
        files = self.chosen(here, "", adapter)
        files += self.parts(here, "", name, above, trained=bool(files))
        base = None
        if adapter:
            base = _object(here.path / _ADAPTER).get("base_model_name_or_path")
            if not isinstance(base, str) or not base:
                raise FormatError(
                    here.path / _ADAPTER,
                    f"base_model_name_or_path: {base!r} is not allowed, must name the base",
                )
        if files:
            self.add(name, FoundModel(here.path, tuple(files), _family(here), base))

    def chosen(self, here: _Listing, part: str, adapter: bool = False) -> list[WeightFile]:
        """Return the files of weights in a folder that count, and note those that do not."""
        sets = list(_weight_sets(here).values())
        known = [weights for weights in sets if weights.rank(adapter) < len(WEIGHT_NAMES)]
        if _is_pipeline(here):
            counted = []  # what lies beside the parts is a whole copy of them
        elif known:
            counted = [min(known, key=lambda weights: weights.order(adapter))]
        elif any(weights.index for weights in sets):
            counted = [weights for weights in sets if weights.index]
        else:
            counted = sets
        files = [file for weights in counted for file in _files(here, weights)]
        if not adapter and any(weights.stem == "adapter_model" for weights in counted):
            self.note(here.path, f"an adapter without {_ADAPTER} is counted without its base")
        by = " and ".join(weights.said for weights in counted) or "what is in its parts counts"
        self.skip_others(here, {file.path for file in files}, by)
        return [replace(file, part=part) for file in files]

    def skip_others(self, here: _Listing, counted: set[Path], by: str) -> None:
        """Note the files of weights in a folder that do not count, and why."""
        for file in here.weights:
            if _followed(here.path / file) not in counted:
                self.skip(here.path / file, by)
        for file in here.others:
            self.skip(here.path / file, f"only {SUFFIX} files are read")

    def parts(
        self, here: _Listing, part: str, name: str, above: tuple[str, ...], *, trained: bool
    ) -> list[WeightFile]:
        """Return the files in the parts of a model, and add the models that lie in its folder.

        Where the folder is `trained`, it has weights of its own, of which those of checkpoint-500
        are an earlier state.
        """
        files: list[WeightFile] = []
        known = _part_names(here)
        for folder in here.folders:
            path = here.path / folder
            if not _holds_weights(path):
                continue
            real, inside = os.path.realpath(path), f"{part}{folder}"
            if real in above:
                self.skip(path, "a link to a folder above it")
                continue
            below = _listing(path)
            if folder in known:
                pass
            elif _EARLIER_STATE.fullmatch(folder) and trained:
                self.skip(path, "an earlier state of the training")
                continue
            elif folder in COPIES:
                self.skip(path, "a further copy, in its first format")
                continue
            elif _is_whole(below) or _ADAPTER in here.files or not trained:
                self.look(path, f"{name}/{inside}", above)
                continue
            files += self.chosen(below, f"{inside}/")
            files += self.parts(below, f"{inside}/", name, (*above, real), trained=True)
        return files


def _is_model(here: _Listing, *, given: bool) -> bool:
    """Return whether a folder is one model; in the one that is given, files may be models."""
    if _MARKERS.intersection(here.files) or _is_pipeline(here):
        return True
    modules = [folder for folder in here.folders if _MODULE.fullmatch(folder)]
    if any(_holds_weights(here.path / folder) for folder in modules):
        return True
    if not given:
        return bool(here.weights)
    sets = _weight_sets(here).values()
    if not sets or not all(weights.stem in WEIGHT_NAMES for weights in sets):
        return False
    return any(weights.index for weights in sets) or not any(
        _holds_weights(here.path / folder) for folder in here.folders
    )


def _is_pipeline(here: _Listing) -> bool:
    if _PIPELINE in here.files:
        return True
    if not PIPELINE_PARTS.intersection(here.folders):
        return False
    held = {folder: here.path / folder for folder in here.folders}
    held = {folder: path for folder, path in held.items() if _holds_weights(path)}
    return any(
        file.startswith("diffusion_pytorch_model")
        for folder in PIPELINE_PARTS.intersection(held)
        for file in _listing(held[folder]).weights
    ) or (len(held) > 1 and PIPELINE_PARTS.issuperset(held))


def _is_whole(here: _Listing) -> bool:
    """Return whether a folder in a model's folder is a model by its own configuration."""
    if _ADAPTER in here.files:
        return True
    return "config.json" in here.files and "architectures" in _object(here.path / "config.json")


def _part_names(here: _Listing) -> set[str]:
    """Return the subfolders that are parts of a model by what its folder says."""
    if _is_pipeline(here):
        return set(here.folders)
    parts = {folder for folder in here.folders if _MODULE.fullmatch(folder)}
    if _MODULES in here.files:
        path = here.path / _MODULES
        try:
            modules = json.loads(read_bytes(_followed(path)).decode("utf-8"))
            parts |= {PurePath(module["path"]).parts[0] for module in modules if module["path"]}
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(path, "must be a JSON list of modules with a path each") from None
    return parts


def _own_name(folder: Path) -> str:
    """Return what the given folder is called when it is one model."""
    path = Path(os.path.abspath(folder))
    if path.parent.name == "snapshots" and _hub_name(path.parent.parent):
        return _hub_name(path.parent.parent)
    return path.name or "model"


def _hub_name(folder: Path) -> str:
    """Return "a/b" for a folder `models--a--b` of a hub cache, "" for another folder."""
    name = Path(os.path.abspath(folder)).name
    return (
        name.removeprefix("models--").replace("--", "/", 1) if name.startswith("models--") else ""
    )


def _family(here: _Listing) -> str:
    """Return the family by the configuration, as "llama"; "" where it says nothing."""
    for file, keys in (("config.json", ("model_type", "architectures")), (_PIPELINE, ())):
        if file in here.files:
            content = _object(here.path / file)
            for key in (*keys, "_class_name"):
                value = content.get(key)
                value = value[0] if isinstance(value, list) and value else value
                if isinstance(value, str) and value and value.isprintable():
                    return value
    return ""


# --- the files of one model ---------------------------------------------------------------------


@dataclass
class _Weights:
    """One whole copy of weights: an index, a whole file, or shards."""

    stem: str
    variant: str = ""
    index: str = ""
    whole: str = ""
    shards: dict[int, dict[int, str]] | None = None  # number of shards: shard: file

    def rank(self, adapter: bool) -> int:
        names = ("adapter_model",) if adapter else WEIGHT_NAMES
        return names.index(self.stem) if self.stem in names else len(WEIGHT_NAMES)

    def order(self, adapter: bool) -> tuple[bool, bool, int, str]:
        """Return what the copy that counts has least of."""
        return (self.variant != "", not self.index, self.rank(adapter), self.variant)

    @property
    def said(self) -> str:
        """Why other files in the folder do not count."""
        if self.index:
            return f"{self.index} does not name it"
        return f"{self.whole or 'the complete set of shards'} counts"


def _weight_sets(here: _Listing) -> dict[str, _Weights]:
    """Return the copies of weights in a folder by name, as "model" and "model.fp16"."""
    sets: dict[str, _Weights] = {}

    def of(stem: str, variant: str = "") -> _Weights:
        label = f"{stem}.{variant}" if variant else stem
        return sets.setdefault(label, _Weights(stem, variant))

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


def _files(here: _Listing, weights: _Weights) -> list[WeightFile]:
    """Return the files of one copy of weights; all of them must be there."""
    if weights.index:
        return _files_by_index(here.path / weights.index)
    if weights.whole:
        return [WeightFile(_followed(here.path / weights.whole))]
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
    return [WeightFile(_followed(here.path / shards[shard])) for shard in sorted(shards)]


def _files_by_index(index: Path) -> list[WeightFile]:
    """Return the files that an index names, with the tensors that it says are in them."""
    names: Any = _object(index).get("weight_map")
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
    return [
        WeightFile(_followed(index.parent / name), promised=frozenset(promised[name]))
        for name in sorted(promised)
    ]


# --- adapters -----------------------------------------------------------------------------------


def _with_base(
    name: str, models: Mapping[str, FoundModel], top: Path, above: tuple[str, ...] = ()
) -> FoundModel:
    """Return a model with the files and family of its base, where it is an adapter."""
    model = models[name]
    if model.base is None:
        return model
    real = os.path.realpath(model.folder)
    if real in above:
        raise FormatError(model.folder / _ADAPTER, f"names the base {model.base!r}: it is its own")
    found, models, top = _base(name, models, top)
    base = _with_base(found, models, top, (*above, real))
    return replace(model, files=(*base.files, *model.files), family=base.family)


def _base(
    name: str, models: Mapping[str, FoundModel], top: Path
) -> tuple[str, Mapping[str, FoundModel], Path]:
    """Return which model an adapter names, of which models, in which folder.

    It is one of the given models by its name, or lies in a folder, or is a given model that has the
    last word of the name, as "base" for "/home/me/base".
    """
    model, base = models[name], str(models[name].base)
    if base in models and base != name:
        return base, models, top
    inside = [other for other in models if other != name and models[other].folder != top]
    for start in (model.folder, top):
        folder = start / base
        if not folder.is_dir() or os.path.realpath(folder) == os.path.realpath(model.folder):
            continue
        for other in inside:
            if os.path.realpath(models[other].folder) == os.path.realpath(folder):
                return other, models, top
        search = _Search(folder, {}, [])
        search.look(folder)
        if len(search.models) != 1:
            raise FormatError(
                model.folder / _ADAPTER,
                f"names the base {base!r}: that folder has {len(search.models)} models",
            )
        return next(iter(search.models)), search.models, folder
    last = PurePath(base).name.removesuffix(SUFFIX)
    same = [other for other in models if other != name and PurePath(other).name == last]
    if len(same) != 1:
        raise FormatError(
            model.folder / _ADAPTER,
            f"names the base {base!r}, which is none of the models "
            f"{', '.join(sorted(models))}, and no folder: put it beside the adapter",
        )
    return same[0], models, top
