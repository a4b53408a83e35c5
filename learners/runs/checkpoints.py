"""Checkpoints: a JSON header and a safetensors file, written whole or not at all.

    policy.json           names   policy-00004000.safetensors    the best policy so far
    state-00005000.json   names   state-00005000.safetensors     all that a resumed run needs

The tensors are written first, under a name of their own, then the header that names them and gives
their SHA-256: whatever is killed in between, every header there is names tensors that are whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from finecast.learners.old_names import WITHOUT, with_new_names
from finecast.problem.files import (
    FormatError,
    read_bytes,
    read_json,
    reading,
    remove_temporaries,
    write_atomically,
)
from finecast.problem.version import FINECAST_VERSION

FORMAT = "finecast-checkpoint"
VERSION = 1

POLICY = "policy"
"""Name of the best policy so far; `finecast.learners.policy` plays it."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a run has come to.

    Attributes
    ----------
    learner
        Registered name.
    options
        The learner's options, as its Config takes them.
    run
        The run's options, as `finecast.learners.runs.training.RunConfig` takes them; JSON.
    step
        Updates made.
    train_s, cpu_s
        Wall-clock and CPU seconds spent training, those before a resume included.
    tensors
        By part and name.
    counters
        Whatever else the learner and the run count, JSON.
    metrics
        Of the last held-out evaluation.
    """

    learner: str
    options: Mapping[str, Any]
    run: Mapping[str, Any]
    step: int
    train_s: float
    cpu_s: float
    tensors: Mapping[str, Tensor]
    counters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def write_checkpoint(folder: Path, name: str, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint; return its header's path.

    Parameters
    ----------
    folder
        Exists.
    name
        Of the header, without ending.
    checkpoint
        What to write.

    Raises
    ------
    FormatError
        It cannot be written (a full disk, say); what was there before is whole.
    """
    stem = name if name.startswith("state-") else f"{name}-{checkpoint.step:08d}"
    # Copies, since two names of one tensor are refused.
    content = save({key: value.clone().contiguous() for key, value in checkpoint.tensors.items()})
    header = {
        "format": FORMAT,
        "version": VERSION,
        "finecast_version": FINECAST_VERSION,
        "tensors": f"{stem}.safetensors",
        "sha256": hashlib.sha256(content).hexdigest(),
        **{key: getattr(checkpoint, key) for key in _HEADER},
    }
    text = json.dumps(header, indent=2, sort_keys=True)
    write_atomically(folder / f"{stem}.safetensors", content)
    write_atomically(folder / f"{name}.json", text.encode())
    for old in folder.glob(f"{name}-*.safetensors"):
        if old.name != header["tensors"]:
            old.unlink(missing_ok=True)
    return folder / f"{name}.json"


def read_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint by its header's path.

    Raises
    ------
    FormatError
        Missing, truncated, foreign, of a newer version, or its tensors are not those it was
        written with.
    """
    with reading(path):
        return _read_checkpoint(path)


def _read_checkpoint(path: Path) -> Checkpoint:
    header = read_json(path)
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise FormatError(path, f"is no {FORMAT}")
    version = header.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise FormatError(path, f"has version {version}, this finecast reads up to {VERSION}")
    for key, kind in _HEADER.items():
        value = header.get(key)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise FormatError(path, f"{key} is {value!r}, expected {_NAMES[kind]}")
    name = header.get("tensors")
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+\.safetensors", name):
        raise FormatError(path, f"tensors is {name!r}, expected a file name beside it")
    tensors_path = path.parent / name
    content = read_bytes(tensors_path)
    if hashlib.sha256(content).hexdigest() != header.get("sha256"):
        raise FormatError(tensors_path, f"is truncated or changed: not what {path.name} says")
    try:
        tensors = load(content)
    except (SafetensorError, ValueError, KeyError) as error:
        raise FormatError(tensors_path, f"is no safetensors file: {error}") from None
    checkpoint = Checkpoint(tensors=tensors, **{key: header[key] for key in _HEADER})
    try:
        return _with_new_names(checkpoint, f"{path}: options")
    except ValueError as error:
        raise FormatError(path, str(error)) from None


def _with_new_names(checkpoint: Checkpoint, where: str) -> Checkpoint:
    """Return the checkpoint with the learner's options under their new names.

    An option that was not there yet has the value of what was done without it.
    """
    given = checkpoint.run.get("options", {})
    before = WITHOUT.get(checkpoint.learner, {})
    added = {name: value for name, value in before.items() if name not in checkpoint.options}
    return replace(
        checkpoint,
        options=with_new_names(checkpoint.learner, checkpoint.options, where) | added,
        run={**checkpoint.run, "options": with_new_names(checkpoint.learner, given) | added},
    )


def states(folder: Path) -> list[Path]:
    """Return the headers of the states in a folder, oldest first."""
    return sorted(folder.glob("state-*.json"))


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed run left half written; only the sole writer of a folder may do so."""
    remove_temporaries(folder, "*.json", "*.jsonl", "*.safetensors")
    for tensors in folder.glob("state-*.safetensors"):
        if not tensors.with_suffix(".json").exists():
            tensors.unlink(missing_ok=True)


def remove_state(header: Path) -> None:
    """Remove a state, the header first: what is left of a killed removal is no checkpoint."""
    header.unlink(missing_ok=True)
    header.with_suffix(".safetensors").unlink(missing_ok=True)


_HEADER: dict[str, Any] = {
    "learner": str,
    "options": dict,
    "run": dict,
    "step": int,
    "train_s": (int, float),
    "cpu_s": (int, float),
    "counters": dict,
    "metrics": dict,
}
_NAMES = {str: "a text", dict: "an object", int: "a whole number", (int, float): "a number"}
