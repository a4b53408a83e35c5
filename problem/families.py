"""Real model families, parameter for parameter: ResNet, ViT, and Llama-2 with LoRA adapters.

A backbone is a row of *units*: the stem (ResNet) or the embedding (transformers), then the residual
blocks or transformer layers, together the *body*; then the head. Task variants of one backbone
freeze the lower body units, which they therefore share, and own the tuned rest. All counts
follow from widths and depths.

Bytes of a block = bytes per value * (learnable parameters + batch-norm running statistics). The
running mean and variance ship with their block: a frozen layer with other statistics is another
layer. The 8-byte batch counters of some frameworks, which inference never reads, are not counted.

References
----------
He et al., Deep residual learning for image recognition, CVPR 2016, table 1 (stride on the 3x3
convolution, which changes no count). Dosovitskiy et al., An image is worth 16x16 words, ICLR 2021,
table 1. Touvron et al., Llama 2, arXiv 2307.09288, 2023. Hu et al., LoRA, ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import pairwise

from finecast.problem.library import ModelLibrary, library_of

FAMILY_NAMES = {
    "resnet-50": "ResNet-50",
    "resnet-101": "ResNet-101",
    "resnet-152": "ResNet-152",
    "vit-b-16": "ViT-B/16",
    "vit-l-16": "ViT-L/16",
    "vit-h-14": "ViT-H/14",
    "llama-2-7b": "Llama-2-7B",
    "llama-2-13b": "Llama-2-13B",
}
"""Backbone -> family name of its models."""

BACKBONES = tuple(FAMILY_NAMES)

BYTES_PER_VALUE = {"float32": 4, "float16": 2}

LORA_TARGETS = ("qv", "qkvo", "all")
"""Adapted matrices: query and value; all four of attention; all seven of a layer."""

_RESNET = {"resnet-50": (3, 4, 6, 3), "resnet-101": (3, 4, 23, 3), "resnet-152": (3, 8, 36, 3)}
"""Residual blocks of each stage."""

_VIT = {
    "vit-b-16": (16, 768, 12, 3072),
    "vit-l-16": (16, 1024, 24, 4096),
    "vit-h-14": (14, 1280, 32, 5120),
}
"""Patch side (pixel), width, layers, width of the feed-forward part; images of 224 x 224."""

_LLAMA = {"llama-2-7b": (4096, 32, 11008), "llama-2-13b": (5120, 40, 13824)}
"""Width, layers, width of the feed-forward part."""

_LLAMA_VOCABULARY = 32_000

MOST_VARIANTS = 10_000
"""Task models of one family."""

MOST_CLASSES = 10**9
"""Outputs of a classification head."""

MOST_UNITS = 10_000
"""Units of a backbone in one block; no backbone has more."""

MOST_RANK = 65_536
"""Rank of an adapter; no matrix that it adapts is wider."""


@dataclass(frozen=True)
class Unit:
    """A piece of a backbone that is frozen or tuned as a whole.

    Parameters
    ----------
    name
        "stem", "layer3.22" (residual block), "embedding", "layer7", "norm" or "head".
    stage
        What the "stage" granularity groups by; "head" for all that is not body.
    parameters
        Learnable parameters.
    statistics
        Batch-norm running means and variances.
    """

    name: str
    stage: str
    parameters: int
    statistics: int = 0


@dataclass(frozen=True)
class FamilySpec:
    """Task variants of one backbone.

    Parameters
    ----------
    backbone
        One of `BACKBONES`.
    variants
        Number of task models, at least 1.
    freeze_ratio
        Share, in [0, 1], of the U body units that is frozen, from the bottom: the lowest
        floor(ratio * U + 1/2). A tuple gives one ratio per variant, cycled; variants then share
        what they both freeze (nested sharing, as after several rounds of fine-tuning). The head
        is always tuned. Default 0.75. A Llama base is frozen whole, head included: only 1.
    granularity
        "stage": a block is a ResNet stage, or all layers of a transformer; "block": a residual
        block or transformer layer; an integer: that many of them, from the bottom. The stem or
        embedding and the head (with the final norm) are blocks of their own. No block straddles a
        freeze boundary of any variant: counting restarts there.
    dtype
        "float32" or "float16".
    classes
        Outputs of the classification head; no meaning for Llama.
    lora_rank, lora_targets
        Rank and matrices (`LORA_TARGETS`) of the adapter that each Llama task owns; default 16
        and "qv". Refused for other backbones.

    Raises
    ------
    ValueError
        One line with the field, the offending value and what is allowed.
    """

    backbone: str
    variants: int
    freeze_ratio: float | tuple[float, ...] | None = None
    granularity: str | int = "block"
    dtype: str = "float32"
    classes: int = 1000
    lora_rank: int | None = None
    lora_targets: str | None = None

    def __post_init__(self) -> None:
        _check_backbone(self.backbone)
        adapted = self.backbone in _LLAMA
        _check_count("variants", self.variants, MOST_VARIANTS)
        _check_count("classes", self.classes, MOST_CLASSES)
        if self.granularity not in ("stage", "block"):
            _check_count(
                "granularity", self.granularity, MOST_UNITS, 'must be "stage", "block" or '
            )
        if self.dtype not in BYTES_PER_VALUE:
            raise ValueError(
                f"dtype: {self.dtype!r} is unknown, known are {_listed(BYTES_PER_VALUE)}"
            )
        if self.freeze_ratio is None:
            object.__setattr__(self, "freeze_ratio", 1.0 if adapted else 0.75)
        elif isinstance(self.freeze_ratio, list):
            object.__setattr__(self, "freeze_ratio", tuple(self.freeze_ratio))
        if self.freeze_ratio == ():
            raise ValueError("freeze_ratio: () is not allowed, must have at least one ratio")
        for ratio in self._freeze_ratios:
            number = isinstance(ratio, int | float) and not isinstance(ratio, bool)
            if not number or not 0 <= ratio <= 1:
                raise ValueError(f"freeze_ratio: {ratio!r} is not allowed, must be from 0 to 1")
            if adapted and ratio != 1:
                raise ValueError(
                    f"freeze_ratio: {ratio!r} is not allowed for {self.backbone!r}, "
                    "must be 1 (the base is frozen, the adapter tuned)"
                )
        if adapted:
            if self.lora_rank is None:
                object.__setattr__(self, "lora_rank", 16)
            if self.lora_targets is None:
                object.__setattr__(self, "lora_targets", "qv")
            _check_count("lora_rank", self.lora_rank, MOST_RANK)
            if self.lora_targets not in LORA_TARGETS:
                raise ValueError(
                    f"lora_targets: {self.lora_targets!r} is unknown, "
                    f"known are {_listed(LORA_TARGETS)}"
                )
        else:
            for field in ("lora_rank", "lora_targets"):
                if (value := getattr(self, field)) is not None:
                    raise ValueError(
                        f"{field}: {value!r} is not allowed for {self.backbone!r}, "
                        f"only for {_listed(_LLAMA)}"
                    )

    @property
    def _freeze_ratios(self) -> tuple[float, ...]:
        ratio = self.freeze_ratio
        assert ratio is not None  # set by the constructor
        return ratio if isinstance(ratio, tuple) else (ratio,)


def build_family(spec: FamilySpec) -> ModelLibrary:
    """Return the library of the task variants of one backbone.

    A frozen block is named "vit-b-16/layer0..layer2", a tuned one of task 4
    "vit-b-16/task4/layer9..layer11"; the models are "vit-b-16/task0", ...
    """
    every = units(spec.backbone, spec.classes)
    body = [unit for unit in every if unit.stage != "head"]
    head = [unit for unit in every if unit.stage == "head"]
    groups = list(pairwise(_cuts(spec, body)))
    width = BYTES_PER_VALUE[spec.dtype]

    size_bytes: dict[str, int] = {}
    models: dict[str, list[str]] = {}
    for task, frozen in enumerate(frozen_units(spec)):
        model = f"{spec.backbone}/task{task}"
        blocks = models.setdefault(model, [])
        for start, end in groups:
            group = body[start:end]
            owner = spec.backbone if end <= frozen else model
            blocks.append(f"{owner}/{_group_name(group)}")
            size_bytes[blocks[-1]] = width * _values(group)
        blocks.append(f"{spec.backbone if spec.lora_rank else model}/head")
        size_bytes[blocks[-1]] = width * _values(head)
        if spec.lora_rank:
            blocks.append(f"{model}/adapter")
            size_bytes[blocks[-1]] = width * _adapter_parameters(spec)
    return library_of(size_bytes, models, dict.fromkeys(models, FAMILY_NAMES[spec.backbone]))


def frozen_units(spec: FamilySpec) -> tuple[int, ...]:
    """Return for each variant how many body units are frozen: floor(ratio * U + 1/2)."""
    count = sum(unit.stage != "head" for unit in units(spec.backbone))
    ratios = spec._freeze_ratios
    return tuple(int(ratios[i % len(ratios)] * count + 0.5) for i in range(spec.variants))


def parameters(backbone: str, classes: int = 1000) -> dict[str, int]:
    """Return the learnable parameters of each unit by name, from the bottom up.

    Raises
    ------
    ValueError
        The backbone is unknown; the nearest known one is named.
    """
    return {unit.name: unit.parameters for unit in units(backbone, classes)}


def units(backbone: str, classes: int = 1000) -> tuple[Unit, ...]:
    """Return the units of a backbone from the bottom up, body first, then the head.

    Raises
    ------
    ValueError
        The backbone is unknown; the nearest known one is named.
    """
    _check_backbone(backbone)
    if backbone in _RESNET:
        return _resnet_units(_RESNET[backbone], classes)
    if backbone in _VIT:
        return _vit_units(*_VIT[backbone], classes)
    return _llama_units(*_LLAMA[backbone])


def _resnet_units(depths: tuple[int, ...], classes: int) -> tuple[Unit, ...]:
    row = [Unit("stem", "stem", 3 * 64 * 7 * 7 + 2 * 64, 2 * 64)]
    channels = 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        for index in range(depth):
            # 1x1, 3x3 and 1x1 convolution; batch norm has scale and shift, mean and variance
            convolutions = channels * width + 9 * width**2 + width * 4 * width
            normalised = width + width + 4 * width
            if index == 0:  # projection of the shortcut
                convolutions += channels * 4 * width
                normalised += 4 * width
            name = f"layer{stage + 1}"
            row.append(Unit(f"{name}.{index}", name, convolutions + 2 * normalised, 2 * normalised))
            channels = 4 * width
    return (*row, Unit("head", "head", channels * classes + classes))


def _vit_units(
    patch: int, width: int, depth: int, feed_forward: int, classes: int
) -> tuple[Unit, ...]:
    patches = 3 * patch**2 * width + width
    tokens = (224 // patch) ** 2 + 1  # one position each, the class token among them
    attention = 4 * (width**2 + width)
    perceptron = 2 * width * feed_forward + feed_forward + width
    layer = attention + perceptron + 2 * 2 * width
    return (
        Unit("embedding", "embedding", patches + width + tokens * width),
        *(Unit(f"layer{i}", "layers", layer) for i in range(depth)),
        Unit("norm", "head", 2 * width),
        Unit("head", "head", width * classes + classes),
    )


def _llama_units(width: int, depth: int, feed_forward: int) -> tuple[Unit, ...]:
    layer = 4 * width**2 + 3 * width * feed_forward + 2 * width
    return (
        Unit("embedding", "embedding", _LLAMA_VOCABULARY * width),
        *(Unit(f"layer{i}", "layers", layer) for i in range(depth)),
        Unit("norm", "head", width),
        Unit("head", "head", width * _LLAMA_VOCABULARY),
    )


def _adapter_parameters(spec: FamilySpec) -> int:
    """Return rank * sum over the adapted matrices of (rows + columns)."""
    width, depth, feed_forward = _LLAMA[spec.backbone]
    square, wide = {"qv": (2, 0), "qkvo": (4, 0), "all": (4, 3)}[str(spec.lora_targets)]
    return int(spec.lora_rank or 0) * depth * (square * 2 * width + wide * (width + feed_forward))


def _cuts(spec: FamilySpec, body: list[Unit]) -> list[int]:
    """Return where blocks begin in the body, and its end."""
    edges = {0, 1, len(body), *frozen_units(spec)}
    if spec.granularity == "stage":
        edges |= {i for i in range(1, len(body)) if body[i].stage != body[i - 1].stage}
        step = len(body)
    else:
        step = 1 if spec.granularity == "block" else int(spec.granularity)
    starts = {i for low, high in pairwise(sorted(edges)) for i in range(low, high, step)}
    return [*sorted(starts), len(body)]


def _group_name(group: list[Unit]) -> str:
    return group[0].name if len(group) == 1 else f"{group[0].name}..{group[-1].name}"


def _values(group: list[Unit]) -> int:
    return sum(unit.parameters + unit.statistics for unit in group)


def _check_backbone(backbone: str) -> None:
    if backbone not in BACKBONES:
        nearest = get_close_matches(str(backbone).lower(), BACKBONES, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"backbone: {backbone!r} is unknown, did you mean {nearest!r}? "
            f"known are {_listed(BACKBONES)}"
        )


def _check_count(field: str, value: object, most: int, allowed: str = "must be ") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(
            f"{field}: {value!r} is not allowed, {allowed}an integer >= 1 and <= {most}"
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


VISION = (
    # Frozen: stem to layer3 of the ResNets, three quarters of the layers of the ViTs.
    FamilySpec("resnet-101", 6, freeze_ratio=31 / 34, granularity="stage"),
    FamilySpec("resnet-152", 6, freeze_ratio=48 / 51, granularity="stage"),
    FamilySpec("vit-b-16", 6, freeze_ratio=0.75, granularity=3),
    FamilySpec("vit-l-16", 6, freeze_ratio=0.75, granularity=6),
    FamilySpec("vit-h-14", 6, freeze_ratio=0.75, granularity=8),
)
"""data/libraries/vision.json: 30 models of 44 to 632 million parameters, 16 blocks a family."""

LLM = (
    FamilySpec("llama-2-7b", 6, granularity=4, dtype="float16", lora_rank=16, lora_targets="qv"),
    FamilySpec("llama-2-13b", 6, granularity=4, dtype="float16", lora_rank=16, lora_targets="qv"),
)
"""data/libraries/llm.json: 12 adapted models, 16 and 18 blocks a family."""
