"""Which models are in a folder, and which files count for each, as hubs and trainers write them.

A folder holds models as files, as subfolders, as a hub cache (`models--a--b/snapshots/REVISION`),
or is one model itself. Of a model's folder:

- The index (`model.safetensors.index.json`) decides which files count. Every shard that it names
  must be there. Without an index a whole file comes before shards, and shards must be complete.
- A plain file comes before a variant (`model.fp16.safetensors`), and the names in `WEIGHT_NAMES`
  come before others, in their order: the others are further copies of the same weights.
- The subfolders of a pipeline (`unet/`, `vae/`) and numbered modules (`2_Dense/`) are parts of it.
- An adapter (`adapter_config.json`) is a model of its own, with the weights of its base.
- Files of other names in a folder without a configuration are one model where no tensor is in two
  of them and no folder beside them has weights. Else each is a model.

Whatever is passed over is said in a note with its name.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from finecast.problem.adapters import with_base
from finecast.problem.files import FormatError, read_text
from finecast.problem.model_files import (
    ADAPTER,
    ADAPTER_NAMES,
    SUFFIX,
    WEIGHT_NAMES,
    FoundModel,
    Listing,
    WeightFile,
    Weights,
    below,
    files_of,
    followed,
    holds_weights,
    hub_name,
    json_object,
    listing,
    tensor_names,
    weight_sets,
)

PIPELINE_PARTS = {
    "unet", "transformer", "transformer_2", "vae", "vqvae", "text_encoder", "text_encoder_2",
    "text_encoder_3", "image_encoder", "safety_checker", "prior", "decoder", "controlnet",
    "vocoder", "language_model",
}  # fmt: skip
"""Subfolders that make a pipeline where no model_index.json says so."""

COPIES = {"original"}
"""Subfolders in which hubs keep the weights in their first format."""

LONGEST_FAMILY = 100
"""Most characters of a family."""

DEEPEST = 12
"""Folders below the given one that are looked into, one in another."""

_PIPELINE, _MODULES = "model_index.json", "modules.json"
_MARKERS = {"config.json", ADAPTER, _PIPELINE, _MODULES}
"""Files that only a model's own folder has."""

_MODULE = re.compile(r"\d+_\w+")
_EARLIER_STATE = re.compile(r"(checkpoint|global_step|step|epoch)[-_]?\d+")
_REVISION = re.compile(r"\w[\w.-]*")


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

    def elsewhere(base: Path) -> dict[str, FoundModel]:
        other = _Search(top, {}, search.notes)
        other.look(base)
        return other.models

    models = {name: with_base(name, search.models, top, elsewhere) for name in search.models}
    return FoundModels(dict(sorted(models.items())), tuple(dict.fromkeys(search.notes)))


def _found_instead(notes: list[str]) -> str:
    return f"; {'; '.join(notes)}" if notes else ""


# --- the search ---------------------------------------------------------------------------------


@dataclass
class _Search:
    """What a walk through folders has found so far."""

    top: Path
    models: dict[str, FoundModel]
    notes: list[str]

    def note(self, path: Path, what: str) -> None:
        """Note something about a file or folder, by its path below the given one."""
        within = path != self.top and path.is_relative_to(self.top)
        shown = path.relative_to(self.top) if within else path
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
        here, above = listing(folder), (*above, real)
        if hub_name(folder) and {"snapshots", "refs", "blobs"}.intersection(here.folders):
            self.look_into_hub(folder, above)
        elif _is_model(here, given=not name):
            self.add_folder(here, name or _own_name(folder), above)
        else:
            self.look_into_collection(here, name, above)

    def look_into_collection(self, here: Listing, name: str, above: tuple[str, ...]) -> None:
        """Add each file of weights and each folder as a model."""
        sets = weight_sets(here)
        for label, weights in sets.items():
            called = f"{name}/{label}" if name else label
            self.add(called, FoundModel(here.path, tuple(files_of(here, weights))))
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
        all_of_them = folder / "snapshots"
        snapshots = listing(all_of_them).folders if all_of_them.is_dir() else ()
        main = folder / "refs" / "main"
        revision = read_text(main).strip() if main.is_file() else ""
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
        self.look(snapshot, hub_name(folder), above)
        if len(self.models) + len(self.notes) == before:
            self.skip(snapshot, f"no {SUFFIX} file in it")

    def add_folder(self, here: Listing, name: str, above: tuple[str, ...]) -> None:
        """Add the model that a folder is, with its parts, and the models that lie in it."""
        adapter = ADAPTER in here.files and any(
            weights.stem in ADAPTER_NAMES for weights in weight_sets(here).values()
        )
        files = self.chosen(here, "", adapter)
        files += self.parts(here, "", name, above, trained=bool(files))
        base = None
        if adapter:
            base = json_object(here.path / ADAPTER).get("base_model_name_or_path")
            if not isinstance(base, str) or not base:
                raise FormatError(
                    here.path / ADAPTER,
                    f"base_model_name_or_path: {base!r} is not allowed, must name the base",
                )
        if files:
            self.add(name, FoundModel(here.path, tuple(files), _family(here), base))

    def chosen(self, here: Listing, part: str, adapter: bool = False) -> list[WeightFile]:
        """Return the files of weights in a folder that count, and note those that do not."""
        sets = list(weight_sets(here).values())
        known = [weights for weights in sets if weights.rank(adapter) < len(WEIGHT_NAMES)]
        if _is_pipeline(here):
            counted = []  # what lies beside the parts is a whole copy of them
        elif known:
            counted = [min(known, key=lambda weights: weights.order(adapter))]
        elif any(weights.index for weights in sets):
            counted = [weights for weights in sets if weights.index]
        else:
            counted = sets
            self.check_shards(here, counted)
        files = [file for weights in counted for file in files_of(here, weights)]
        if not adapter and any(weights.stem in ADAPTER_NAMES for weights in counted):
            self.note(here.path, f"an adapter without {ADAPTER} is counted without its base")
        by = " and ".join(weights.said for weights in counted) or "what is in its parts counts"
        self.skip_others(here, {file.path for file in files}, by)
        return [replace(file, part=part) for file in files]

    def check_shards(self, here: Listing, counted: list[Weights]) -> None:
        """Check that files with names of their own can be shards of one model, and say so."""
        if len(counted) < 2:
            return
        twice = _in_two_files(here, counted)
        if twice is not None:
            raise FormatError(
                here.path,
                f"has tensor {twice!r} in several files, and no index that says which counts",
            )
        if not _MARKERS.intersection(here.files):
            self.note(
                here.path,
                f"its {len(counted)} files are read as one model, since no tensor is in two of "
                "them; give this folder to read a model from each",
            )

    def skip_others(self, here: Listing, counted: set[Path], by: str) -> None:
        """Note the files of weights in a folder that do not count, and why."""
        for file in here.weights:
            if followed(here.path / file) not in counted:
                self.skip(here.path / file, by)
        for file in here.others:
            self.skip(here.path / file, f"only {SUFFIX} files are read")

    def parts(
        self, here: Listing, part: str, name: str, above: tuple[str, ...], *, trained: bool
    ) -> list[WeightFile]:
        """Return the files in the parts of a model, and add the models that lie in its folder.

        Where the folder is `trained`, it has weights of its own, of which those of checkpoint-500
        are an earlier state.
        """
        files: list[WeightFile] = []
        known = _part_names(here)
        for folder in here.folders:
            path = here.path / folder
            if not holds_weights(path):
                for other in below(path):
                    self.skip_others(other, set(), "")
                continue
            real, inside = os.path.realpath(path), f"{part}{folder}"
            if real in above:
                self.skip(path, "a link to a folder above it")
                continue
            within = listing(path)
            if folder in known:
                pass
            elif _EARLIER_STATE.fullmatch(folder) and trained:
                self.skip(path, "an earlier state of the training")
                continue
            elif folder in COPIES:
                self.skip(path, "a further copy, in its first format")
                continue
            elif _is_whole(within) or ADAPTER in here.files or not trained:
                self.look(path, f"{name}/{inside}", above)
                continue
            files += self.chosen(within, f"{inside}/")
            files += self.parts(within, f"{inside}/", name, (*above, real), trained=True)
        return files


def _is_model(here: Listing, *, given: bool) -> bool:
    """Return whether a folder is one model; in the one that is given, files may be models."""
    if _MARKERS.intersection(here.files) or _is_pipeline(here):
        return True
    modules = [folder for folder in here.folders if _MODULE.fullmatch(folder)]
    if any(holds_weights(here.path / folder) for folder in modules):
        return True
    sets = list(weight_sets(here).values())
    named = [weights.stem in WEIGHT_NAMES for weights in sets]
    indexed = any(weights.index for weights in sets)
    if not given and (indexed or any(named)):
        return True
    if not sets or (given and not all(named)):
        return False
    if given and indexed:
        return True
    alone = not any(holds_weights(here.path / folder) for folder in here.folders)
    return alone and (given or _in_two_files(here, sets) is None)


def _in_two_files(here: Listing, sets: list[Weights]) -> str | None:
    """Return a tensor that several copies of weights have, which are then no shards of a model."""
    seen: set[str] = set()
    for weights in sets:
        names = {
            name for file in weights.files for name in tensor_names(followed(here.path / file))
        }
        if twice := seen.intersection(names):
            return min(twice)
        seen |= names
    return None


def _is_pipeline(here: Listing) -> bool:
    if _PIPELINE in here.files:
        return True
    if not PIPELINE_PARTS.intersection(here.folders):
        return False
    held = {folder: here.path / folder for folder in here.folders}
    held = {folder: path for folder, path in held.items() if holds_weights(path)}
    return any(
        file.startswith("diffusion_pytorch_model")
        for folder in PIPELINE_PARTS.intersection(held)
        for file in listing(held[folder]).weights
    ) or (len(held) > 1 and PIPELINE_PARTS.issuperset(held))


def _is_whole(here: Listing) -> bool:
    """Return whether a folder in a model's folder is a model by its own configuration."""
    if ADAPTER in here.files:
        return True
    return "config.json" in here.files and "architectures" in json_object(here.path / "config.json")


def _part_names(here: Listing) -> set[str]:
    """Return the subfolders that are parts of a model by what its folder says."""
    if _is_pipeline(here):
        return set(here.folders)
    parts = {folder for folder in here.folders if _MODULE.fullmatch(folder)}
    if _MODULES in here.files:
        path = here.path / _MODULES
        try:
            modules = json.loads(read_text(followed(path), "utf-8-sig"))
            parts |= {PurePath(module["path"]).parts[0] for module in modules if module["path"]}
        except (ValueError, RecursionError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(path, "must be a JSON list of modules with a path each") from None
    return parts


def _own_name(folder: Path) -> str:
    """Return what the given folder is called when it is one model."""
    path = Path(os.path.abspath(folder))
    if path.parent.name == "snapshots" and hub_name(path.parent.parent):
        return hub_name(path.parent.parent)
    return path.name or "model"


def _family(here: Listing) -> str:
    """Return the family by the configuration, as "llama"; "" where it says nothing."""
    for file, keys in (
        ("config.json", ("model_type", "architectures", "architecture")),
        (_PIPELINE, ()),
    ):
        if file in here.files:
            content = json_object(here.path / file)
            for key in (*keys, "_class_name"):
                value = content.get(key)
                value = value[0] if isinstance(value, list) and value else value
                if not isinstance(value, str) or not value.isprintable():
                    continue
                if 0 < len(value) <= LONGEST_FAMILY:
                    return value
    return ""
