"""The base of an adapter, among the models of a folder or by its path."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PureWindowsPath

from finecast.problem.files import FormatError
from finecast.problem.model_files import ADAPTER, SUFFIX, FoundModel, hub_name

NAMED = 10
"""Most models that a message names."""

Models = Mapping[str, FoundModel]
Find = Callable[[Path], Models]


def with_base(
    name: str, models: Models, top: Path, find: Find, above: tuple[str, ...] = ()
) -> FoundModel:
    """Return a model with the files and family of its base, where it is an adapter.

    Parameters
    ----------
    name, models, top
        The model, of which models, in which folder.
    find
        Returns the models in another folder.
    above
        Folders of the adapters that stand on this model.

    Raises
    ------
    FormatError
        The base is not found, could be several models, or stands on the adapter itself.
    """
    model = models[name]
    if model.base is None:
        return model
    real = os.path.realpath(model.folder)
    if real in above:
        raise FormatError(model.folder / ADAPTER, f"names the base {model.base!r}: it is its own")
    found, models, top = _base(name, models, top, find)
    base = with_base(found, models, top, find, (*above, real))
    return replace(model, files=(*base.files, *model.files), family=base.family)


def _base(name: str, models: Models, top: Path, find: Find) -> tuple[str, Models, Path]:
    """Return which model an adapter names, of which models, in which folder.

    It is one of the given models by its name, or lies in a folder, or is a given model by a path of
    another machine: by the hub's name in it, or by its last word, as "base" for "C:\\models\\base".
    """
    model, base = models[name], str(models[name].base)
    if base in models and base != name:
        return base, models, top
    others = [other for other in models if other != name]
    for start in (model.folder, top):
        folder = start / base
        real = os.path.realpath(folder)
        if not folder.is_dir() or real == os.path.realpath(model.folder):
            continue
        inside = [other for other in others if os.path.realpath(models[other].folder) == real]
        if len(inside) == 1:
            return inside[0], models, top
        found = find(folder)
        if len(found) != 1:
            raise FormatError(
                model.folder / ADAPTER,
                f"names the base {base!r}: that folder has {len(found)} models",
            )
        return next(iter(found)), found, folder
    hub = [hub_name(Path(word)) for word in re.split(r"[/\\]", base)]
    last = PureWindowsPath(base).name.removesuffix(SUFFIX)
    same = [other for other in others if other in hub]
    same = same or [other for other in others if other.rpartition("/")[2] == last]
    if not same:
        raise FormatError(
            model.folder / ADAPTER,
            f"names the base {base!r}, which is none of the models {_listed(models)}, and no "
            "folder: put it beside the adapter",
        )
    if len(same) > 1:
        raise FormatError(
            model.folder / ADAPTER,
            f"names the base {base!r}, which may be {_listed(same)}: name one of them",
        )
    return same[0], models, top


def _listed(names: Iterable[str]) -> str:
    known = sorted(names)
    rest = len(known) - NAMED
    return ", ".join(known[:NAMED]) + (f" and {rest} more" if rest > 0 else "")
