"""The tensors of a model by its `config.json` alone: built by transformers without any weight.

The model is built on PyTorch's meta device, where a tensor has a shape and no storage. Only classes
of transformers itself are used: code that a configuration names is never run. A configuration is
not trusted, so what would be built without end is stopped, see `MOST_TENSORS`.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finecast.problem.files import FormatError, one_line
from finecast.problem.model_files import json_object

EXTRA = "pip install 'finecast[configs]'"

VALUE_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1,
}  # fmt: skip
"""Bytes of a value by what a configuration calls `dtype` (before 2025 `torch_dtype`)."""

MOST_TENSORS = 200_000
"""Most modules and tensors of one model; the largest published ones have some ten thousand."""

LARGEST_NUMBER = 10**9
"""No size in a configuration may be larger, so that no list of such a length is made."""

MOST_LAYERS = 10_000
"""Most layers, blocks, stages or experts that a configuration may ask for."""

_COUNTS = re.compile(r"(?i)(layers?|depths?|blocks?|stages?|experts?)$")
_ROPE = re.compile(r"(?i)theta|base|max_position|length|window")


@dataclass(frozen=True)
class MetaTensor:
    """A tensor that a model keeps.

    Parameters
    ----------
    name, shape, size_bytes
        By the model's own state; integers (such as counters of batches) keep their width.
    of
        The name of the first tensor that it is, where a model has one tensor under several names
        (as tied embeddings); else its own name.
    """

    name: str
    shape: tuple[int, ...]
    size_bytes: int
    of: str


@dataclass(frozen=True)
class Adaptable:
    """A module that a low-rank adapter can adapt.

    Parameters
    ----------
    per_rank
        Values of the two factors per unit of rank: rows and columns of the matrix.
    rows
        Outputs.
    bias
        Values of its own bias, 0 without one.
    linear
        A linear map that is not the model's output, one of "all-linear".
    """

    per_rank: int
    rows: int
    bias: int
    linear: bool


@dataclass(frozen=True)
class MetaModel:
    """What a model is made of.

    Parameters
    ----------
    tensors
        All that it keeps, in the order of its state: from the input to the output.
    adaptable
        Modules that an adapter can adapt, by name.
    modules
        Names of all modules.
    family
        `model_type` of the configuration.
    value_bytes
        Bytes of a floating-point value.
    """

    tensors: tuple[MetaTensor, ...]
    adaptable: Mapping[str, Adaptable]
    modules: tuple[str, ...]
    family: str
    value_bytes: int


def meta_model(path: Path) -> MetaModel:
    """Return the tensors of the model that a `config.json` describes.

    Raises
    ------
    FormatError
        transformers is not installed or does not know the architecture; the configuration asks for
        code of its own, is of quantised weights, has an unknown type of values or is damaged; the
        model has too many tensors.
    """
    content = json_object(path)
    family, architecture, value_bytes = _checked(path, content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import torch
            import transformers
            from transformers import CONFIG_MAPPING
    except ImportError:
        raise FormatError(path, f"needs transformers, which is not installed: {EXTRA}") from None
    build = _builder(path, transformers, CONFIG_MAPPING, content, family, architecture)
    try:
        with warnings.catch_warnings(), _quiet(transformers), _few_tensors(path, torch):
            warnings.simplefilter("ignore")
            with torch.device("meta"):
                model = build()
            model.tie_weights()
            return _described(torch, model, family, value_bytes)
    except FormatError:
        raise
    except (Exception, SystemExit) as error:  # whatever transformers makes of wrong values
        raise FormatError(
            path,
            f"cannot be built by transformers {transformers.__version__} "
            f"({type(error).__name__}: {one_line(str(error))[:200]})",
        ) from None


def _checked(path: Path, content: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return the family, the architecture ("" for none) and the bytes of a value."""
    if "auto_map" in content:
        raise FormatError(
            path,
            "auto_map: asks for code of its own, which is never run; without this key the class "
            "of transformers is used, where there is one",
        )
    if content.get("quantization_config") is not None:
        raise FormatError(
            path, "quantization_config: quantised weights have other sizes, give the original's"
        )
    family = content.get("model_type")
    if not isinstance(family, str) or not family:
        raise FormatError(path, f"model_type: {family!r} is not allowed, must name a family")
    names = content.get("architectures") or [""]
    if not isinstance(names, list) or not isinstance(names[0], str):
        raise FormatError(path, "architectures: must be a list of class names")
    _refuse_large(path, "", content)
    return family, names[0], VALUE_BYTES[_type_of(path, content)]


def _type_of(path: Path, content: Mapping[str, Any]) -> str:
    """Return the type of values, of a part (as `text_config`) where the whole has none."""
    parts = [part for part in content.values() if isinstance(part, Mapping)]
    for part in (content, *parts):
        for key in ("dtype", "torch_dtype"):
            value = part.get(key)
            if value is None:
                continue
            name = str(value).removeprefix("torch.")
            if name not in VALUE_BYTES:
                raise FormatError(
                    path, f"{key}: {value!r} is not allowed, known are {', '.join(VALUE_BYTES)}"
                )
            return name
    return "float32"


def _refuse_large(path: Path, place: str, value: Any) -> None:
    """Refuse sizes that no model has."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_large(path, f"{place}.{key}" if place else str(key), inner)
    elif isinstance(value, list):
        for inner in value:
            _refuse_large(path, place, inner)
    elif isinstance(value, int) and not _ROPE.search(place):
        most = MOST_LAYERS if _COUNTS.search(place) else LARGEST_NUMBER
        if abs(value) > most:
            raise FormatError(path, f"{place}: {value} is not allowed, must be at most {most}")


def _builder(
    path: Path,
    transformers: Any,
    known: Any,
    content: Mapping[str, Any],
    family: str,
    architecture: str,
) -> Callable[[], Any]:
    """Return what builds the model: a class of transformers and its configuration."""
    if family not in known:
        raise FormatError(
            path,
            f"model_type: {family!r} is unknown to transformers {transformers.__version__}",
        )
    kind: Any = getattr(transformers, architecture or "AutoModel", None)
    if architecture and not (
        isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)
    ):
        raise FormatError(
            path,
            f"architectures: {architecture!r} is no model of transformers "
            f"{transformers.__version__}",
        )

    def build() -> Any:
        config = known[family].from_dict(dict(content))
        return kind(config) if architecture else transformers.AutoModel.from_config(config)

    return build


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(before)


@contextmanager
def _few_tensors(path: Path, torch: Any) -> Iterator[None]:
    """Stop a model that grows above `MOST_TENSORS`."""
    made = 0

    def count(*_: Any) -> None:
        nonlocal made
        made += 1
        if made > MOST_TENSORS:
            raise FormatError(path, f"makes more than {MOST_TENSORS} modules and tensors")

    hooks = torch.nn.modules.module
    handles = [
        hooks.register_module_module_registration_hook(count),
        hooks.register_module_parameter_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _described(torch: Any, model: Any, family: str, value_bytes: int) -> MetaModel:
    """Return what a model on the meta device keeps."""
    first: dict[int, str] = {}
    tensors = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        width = value_bytes if tensor.is_floating_point() else tensor.element_size()
        tensors.append(
            MetaTensor(
                name=name,
                shape=tuple(tensor.shape),
                size_bytes=math.prod(tensor.shape) * width,
                of=first.setdefault(id(tensor), name),
            )
        )
    output = model.get_output_embeddings()
    adaptable = {
        name: adapted
        for name, module in model.named_modules()
        if (adapted := _adaptable(torch, module, module is output)) is not None
    }
    modules = tuple(name for name, _ in model.named_modules() if name)
    return MetaModel(tuple(tensors), adaptable, modules, family, value_bytes)


def _adaptable(torch: Any, module: Any, is_output: bool) -> Adaptable | None:
    """Return what an adapter of a module takes; None for what peft does not adapt."""
    bias = getattr(module, "bias", None)
    values = bias.numel() if isinstance(bias, torch.Tensor) else 0
    if isinstance(module, torch.nn.Linear):
        rows, columns = module.weight.shape
        return Adaptable(rows + columns, rows, values, not is_output)
    if isinstance(module, torch.nn.Embedding):
        count, width = module.weight.shape
        return Adaptable(count + width, width, 0, False)
    if type(module).__name__ == "Conv1D":  # a linear map of GPT-2, stored the other way round
        columns, rows = module.weight.shape
        return Adaptable(rows + columns, rows, values, not is_output)
    convolutions = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)
    if isinstance(module, convolutions) and module.groups == 1:
        rows, *rest = module.weight.shape
        return Adaptable(rows + math.prod(rest), rows, values, False)
    return None
