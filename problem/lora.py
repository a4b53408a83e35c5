"""The size of a low-rank adapter by its `adapter_config.json`, as peft would save it.

Hu et al., LoRA, ICLR 2022: an adapted matrix W of rows r and columns c gets factors of R (r + c)
values, with R the rank.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from finecast.problem.content_blocks import layer_of
from finecast.problem.files import FormatError
from finecast.problem.meta_models import MetaModel
from finecast.problem.model_files import json_object

MOST_RANK = 100_000

_UNREAD = (
    "exclude_modules", "layers_pattern", "layer_replication", "target_parameters",
    "trainable_token_indices", "megatron_config",
)  # fmt: skip
"""Keys that change the size and that are not read."""

_BIASES = ("none", "all", "lora_only")


def adapter_bytes(path: Path, base: MetaModel) -> int:
    """Return the bytes of an adapter of a model, in the type of the model's values.

    Parameters
    ----------
    path
        `adapter_config.json`.
    base
        What it adapts.

    Raises
    ------
    FormatError
        It is no LoRA, has a key that is not read, a rank that is not allowed, or names no module of
        the model.
    """
    content = json_object(path)
    kind = content.get("peft_type")
    if kind != "LORA":
        raise FormatError(path, f"peft_type: {kind!r} is not allowed, must be 'LORA'")
    for key in _UNREAD:
        if content.get(key):
            raise FormatError(path, f"{key}: is not read, so the size would be wrong")
    rank = _rank(path, "r", content.get("r"))
    ranks = content.get("rank_pattern") or {}
    if not isinstance(ranks, Mapping) or not all(re.fullmatch(r"[\w.]+", key) for key in ranks):
        raise FormatError(path, "rank_pattern: must give a rank for each name of a module")
    bias = content.get("bias", "none")
    if bias not in _BIASES:
        raise FormatError(path, f"bias: {bias!r} is not allowed, must be one of {_BIASES}")

    # The factors, with what DoRA and biases add.
    values = 0
    for module in _targets(path, content, base):
        adapted = base.adaptable[module]
        mine = next((key for key in ranks if _ends(module, key)), None)
        own = rank if mine is None else _rank(path, f"rank_pattern.{mine}", ranks[mine])
        values += own * adapted.per_rank
        values += adapted.rows if content.get("use_dora") else 0
        values += adapted.rows if content.get("lora_bias") else 0
        values += adapted.bias if bias == "lora_only" else 0
    if bias == "all":
        values += sum(adapted.bias for adapted in base.adaptable.values())

    # Modules that are trained and saved whole.
    saved = _names(path, "modules_to_save", content.get("modules_to_save") or [])
    total = values * base.value_bytes
    for name in saved:
        modules = [module for module in base.modules if _ends(module, name)]
        if not modules:
            raise FormatError(path, f"modules_to_save: {name!r} is no module of the base")
        for module in modules:
            total += sum(t.size_bytes for t in base.tensors if t.name.startswith(f"{module}."))
    return total


def _targets(path: Path, content: Mapping[str, Any], base: MetaModel) -> list[str]:
    """Return the modules that are adapted."""
    asked = content.get("target_modules")
    if asked == "all-linear":
        found = [name for name, module in base.adaptable.items() if module.linear]
    elif isinstance(asked, str):
        raise FormatError(
            path,
            f"target_modules: {asked[:80]!r} is a pattern, which is not read; list the modules",
        )
    else:
        names = _names(path, "target_modules", asked)
        found = []
        for module in base.modules:
            if any(_ends(module, name) for name in names):
                if module not in base.adaptable:
                    raise FormatError(path, f"target_modules: {module!r} is no linear map")
                found.append(module)
    layers = content.get("layers_to_transform")
    if layers is not None:
        numbers = layers if isinstance(layers, list) else [layers]
        found = [name for name in found if layer_of(f"{name}.weight")[1] in numbers]
    if not found:
        raise FormatError(path, f"target_modules: {asked!r} names no module of the base")
    return found


def _names(path: Path, key: str, value: Any) -> Sequence[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise FormatError(path, f"{key}: must be a list of names of modules")
    return value


def _ends(module: str, name: str) -> bool:
    """Return whether a module is called so, or ends so after a dot."""
    return module == name or module.endswith(f".{name}")


def _rank(path: Path, key: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MOST_RANK:
        raise FormatError(
            path, f"{key}: {value!r} is not allowed, must be an integer from 1 to {MOST_RANK}"
        )
    return value
