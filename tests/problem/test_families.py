"""Real families: counts against the published ones, sharing against figures worked out by hand."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import DATA

from finecast.problem.families import (
    BACKBONES,
    LLM,
    VISION,
    FamilySpec,
    build_family,
    frozen_units,
    parameters,
    units,
)
from finecast.problem.library import combine, read_library, sharing_statistics

LIBRARIES = DATA / "libraries"

RESNETS = ("resnet-50", "resnet-101", "resnet-152")
VITS = ("vit-b-16", "vit-l-16", "vit-h-14")


@pytest.mark.parametrize(
    ("backbone", "total"),
    [
        ("resnet-50", 25_557_032),
        ("resnet-101", 44_549_160),
        ("resnet-152", 60_192_808),
        ("vit-b-16", 86_567_656),
        ("vit-l-16", 304_326_632),
        ("vit-h-14", 632_045_800),
        ("llama-2-7b", 6_738_415_616),
        ("llama-2-13b", 13_015_864_320),
    ],
)
def test_totals_are_the_published_ones(backbone: str, total: int) -> None:
    """Published by torchvision (1000 classes) and with the Llama-2 weights."""
    assert sum(parameters(backbone).values()) == total


def test_every_backbone_has_a_published_total() -> None:
    """The test above leaves out no backbone."""
    assert len(BACKBONES) == 8


@pytest.mark.parametrize(
    ("backbone", "stages"),
    [
        ("resnet-50", (9_536, 215_808, 1_219_584, 7_098_368, 14_964_736, 2_049_000)),
        ("resnet-101", (9_536, 215_808, 1_219_584, 26_090_496, 14_964_736, 2_049_000)),
        ("resnet-152", (9_536, 215_808, 2_339_840, 40_613_888, 14_964_736, 2_049_000)),
    ],
)
def test_resnet_stages(backbone: str, stages: tuple[int, ...]) -> None:
    """Each stage as torchvision builds it: affine batch norm in, running statistics out."""
    counted: dict[str, int] = {}
    for unit in units(backbone):
        counted[unit.stage] = counted.get(unit.stage, 0) + unit.parameters
    names = ("stem", "layer1", "layer2", "layer3", "layer4", "head")
    assert counted == dict(zip(names, stages, strict=True))


def test_resnet_blocks() -> None:
    """First and later residual blocks of each stage of a bottleneck network."""
    count = parameters("resnet-50")
    first = [count[f"layer{stage}.0"] for stage in (1, 2, 3, 4)]
    later = [count[f"layer{stage}.1"] for stage in (1, 2, 3, 4)]
    assert first == [75_008, 379_392, 1_512_448, 6_039_552]
    assert later == [70_400, 280_064, 1_117_184, 4_462_592]


@pytest.mark.parametrize(
    ("backbone", "floats"),
    [("resnet-50", 53_120), ("resnet-101", 105_344), ("resnet-152", 151_424)],
)
def test_resnet_bytes_include_running_statistics(backbone: str, floats: int) -> None:
    """A model that is shipped carries its running means and variances, 4 bytes each."""
    assert sum(unit.statistics for unit in units(backbone)) == floats
    model_size = build_family(FamilySpec(backbone, variants=2)).model_size.tolist()
    assert model_size == [4 * (sum(parameters(backbone).values()) + floats)] * 2


@pytest.mark.parametrize(
    ("backbone", "patches", "positions", "layer", "depth", "norm", "head"),
    [
        ("vit-b-16", 590_592, 152_064, 7_087_872, 12, 1_536, 769_000),
        ("vit-l-16", 787_456, 202_752, 12_596_224, 24, 2_048, 1_025_000),
        ("vit-h-14", 753_920, 330_240, 19_677_440, 32, 2_560, 1_281_000),
    ],
)
def test_vit_units(
    backbone: str, patches: int, positions: int, layer: int, depth: int, norm: int, head: int
) -> None:
    """Embedding (patches, class token and positions), layers, final norm, head."""
    assert parameters(backbone) == {
        "embedding": patches + positions,
        **{f"layer{i}": layer for i in range(depth)},
        "norm": norm,
        "head": head,
    }


@pytest.mark.parametrize(
    ("backbone", "embedding", "layer", "depth", "norm"),
    [
        ("llama-2-7b", 131_072_000, 202_383_360, 32, 4_096),
        ("llama-2-13b", 163_840_000, 317_204_480, 40, 5_120),
    ],
)
def test_llama_units(backbone: str, embedding: int, layer: int, depth: int, norm: int) -> None:
    """The output head is as large as the embedding, and not tied to it."""
    assert parameters(backbone) == {
        "embedding": embedding,
        **{f"layer{i}": layer for i in range(depth)},
        "norm": norm,
        "head": embedding,
    }


def test_classes_size_the_head() -> None:
    """A 10-class head has 10 weight rows and 10 biases; ResNet features are 2048 wide."""
    assert parameters("resnet-50", classes=10)["head"] == 20_490
    assert parameters("vit-b-16", classes=10)["head"] == 7_690


@pytest.mark.parametrize(
    ("backbone", "targets", "per_rank"),
    [
        ("llama-2-7b", "qv", 524_288),
        ("llama-2-7b", "qkvo", 1_048_576),
        ("llama-2-7b", "all", 2_498_560),
        ("llama-2-13b", "qv", 819_200),
        ("llama-2-13b", "qkvo", 1_638_400),
        ("llama-2-13b", "all", 3_911_680),
    ],
)
@pytest.mark.parametrize("rank", [1, 8, 64])
def test_adapter_sizes(backbone: str, targets: str, per_rank: int, rank: int) -> None:
    """Rank * (rows + columns) over the adapted matrices, 2 bytes each; rank 8 of 7B "qv" is the
    4,194,304 that public logs print."""
    spec = FamilySpec(backbone, 3, dtype="float16", lora_rank=rank, lora_targets=targets)
    library = build_family(spec)
    adapters = [j for j, name in enumerate(library.block_names) if name.endswith("/adapter")]
    assert library.block_size[adapters].tolist() == [2 * rank * per_rank] * 3
    assert library.block_models[adapters].tolist() == [1, 1, 1]


def test_llama_shares_its_whole_base() -> None:
    """Base and output head are in every model: 13.48 GB in half precision, once."""
    library = build_family(FamilySpec("llama-2-7b", 5, granularity="stage", dtype="float16"))
    shared = library.block_models == 5
    assert library.block_size[shared].sum() == 2 * 6_738_415_616
    assert [name for name, s in zip(library.block_names, shared, strict=True) if s] == [
        "llama-2-7b/embedding",
        "llama-2-7b/layer0..layer31",
        "llama-2-7b/head",
    ]
    assert library.model_names[4] == "llama-2-7b/task4"
    assert set(library.model_family) == {"Llama-2-7B"}


@pytest.mark.parametrize(
    ("backbone", "ratio", "frozen", "share"),
    [
        # stem to layer3; one embedding and three quarters of the layers; all but the head
        ("resnet-50", 14 / 17, 14, 0.334),
        ("resnet-101", 31 / 34, 31, 0.618),
        ("resnet-152", 48 / 51, 48, 0.717),
        ("vit-b-16", 0.75, 10, 0.745),
        ("vit-l-16", 0.75, 19, 0.748),
        ("vit-h-14", 0.75, 25, 0.749),
        ("vit-l-16", 1.0, 25, 0.997),
        ("vit-l-16", 0.0, 0, 0.0),
        # floor(ratio * 13 + 1/2): 0.5 * 13 = 6.5 goes up, 0.49 * 13 = 6.37 down
        ("vit-b-16", 0.5, 7, (742_656 + 6 * 7_087_872) / 86_567_656),
        ("vit-b-16", 0.49, 6, (742_656 + 5 * 7_087_872) / 86_567_656),
    ],
)
def test_freeze_ratio(backbone: str, ratio: float, frozen: int, share: float) -> None:
    """The ratio counts body units; the share of parameters follows from their sizes."""
    spec = FamilySpec(backbone, variants=2, freeze_ratio=ratio)
    assert frozen_units(spec) == (frozen, frozen)
    sizes = list(parameters(backbone).values())  # by units, from the bottom up, the head last
    assert sum(sizes[:frozen]) / sum(sizes) == pytest.approx(share, abs=6e-4)


@pytest.mark.parametrize(
    ("backbone", "ratio", "separate_gb", "deduplicated_gb", "saved"),
    [
        ("resnet-50", 14 / 17, 1.02, 0.71, 0.301),
        ("resnet-101", 31 / 34, 1.78, 0.79, 0.556),
        ("resnet-152", 48 / 51, 2.41, 0.85, 0.646),
        ("vit-b-16", 0.75, 3.46, 1.14, 0.671),
        ("vit-l-16", 0.75, 12.17, 3.98, 0.673),
        ("vit-h-14", 0.75, 25.28, 8.24, 0.674),
        ("vit-l-16", 1.0, 12.17, 1.25, 0.897),
    ],
)
def test_storage_saved_by_ten_variants(
    backbone: str, ratio: float, separate_gb: float, deduplicated_gb: float, saved: float
) -> None:
    """One shared copy of the frozen part; figures worked out apart, without running statistics."""
    for granularity in ("stage", "block", 5):
        spec = FamilySpec(backbone, 10, freeze_ratio=ratio, granularity=granularity)
        statistics = sharing_statistics(build_family(spec))
        assert statistics.separate_bytes / 1e9 == pytest.approx(separate_gb, rel=5e-3)
        assert statistics.deduplicated_bytes / 1e9 == pytest.approx(deduplicated_gb, rel=1e-2)
        assert statistics.saved_share == pytest.approx(saved, abs=1.5e-3)


def blocks_of_task0(spec: FamilySpec) -> list[str]:
    """Return the block names of the first model."""
    library = build_family(spec)
    row = library.model_blocks[0]
    return [name for name, inside in zip(library.block_names, row, strict=True) if inside]


def test_granularity_of_a_resnet() -> None:
    """Stages, cut where the freeze ends: 11 of 17 units of ResNet-50 end within layer3."""
    spec = FamilySpec("resnet-50", 2, freeze_ratio=11 / 17, granularity="stage")
    assert blocks_of_task0(spec) == [
        "resnet-50/stem",
        "resnet-50/layer1.0..layer1.2",
        "resnet-50/layer2.0..layer2.3",
        "resnet-50/layer3.0..layer3.2",
        "resnet-50/task0/layer3.3..layer3.5",
        "resnet-50/task0/layer4.0..layer4.2",
        "resnet-50/task0/head",
    ]
    blocks = blocks_of_task0(replace(spec, granularity="block"))
    assert len(blocks) == 18
    assert blocks[10:12] == ["resnet-50/layer3.2", "resnet-50/task0/layer3.3"]


def test_granularity_of_a_transformer() -> None:
    """Groups of four from the bottom, counted anew at the freeze boundary after layer 8."""
    spec = FamilySpec("vit-b-16", 2, freeze_ratio=10 / 13, granularity=4)
    assert blocks_of_task0(spec) == [
        "vit-b-16/embedding",
        "vit-b-16/layer0..layer3",
        "vit-b-16/layer4..layer7",
        "vit-b-16/layer8",
        "vit-b-16/task0/layer9..layer11",
        "vit-b-16/task0/head",
    ]
    assert blocks_of_task0(replace(spec, granularity="stage")) == [
        "vit-b-16/embedding",
        "vit-b-16/layer0..layer8",
        "vit-b-16/task0/layer9..layer11",
        "vit-b-16/task0/head",
    ]
    assert len(blocks_of_task0(replace(spec, granularity="block"))) == 14
    assert blocks_of_task0(replace(spec, granularity=1)) == blocks_of_task0(
        replace(spec, granularity="block")
    )


def test_freeze_ratios_that_differ_nest() -> None:
    """Tasks 0 and 2 freeze 7 units of ViT-B/16, task 1 freezes 10: layers 6 to 8 are frozen in
    task 1 alone, tuned in the others, and every cut is a cut for all."""
    library = build_family(
        FamilySpec("vit-b-16", 3, freeze_ratio=(7 / 13, 10 / 13), granularity="stage")
    )
    named = dict(zip(library.block_names, library.block_models.tolist(), strict=True))
    assert named == {
        "vit-b-16/embedding": 3,
        "vit-b-16/layer0..layer5": 3,
        "vit-b-16/task0/layer6..layer8": 1,
        "vit-b-16/task0/layer9..layer11": 1,
        "vit-b-16/task0/head": 1,
        "vit-b-16/layer6..layer8": 1,
        "vit-b-16/task1/layer9..layer11": 1,
        "vit-b-16/task1/head": 1,
        "vit-b-16/task2/layer6..layer8": 1,
        "vit-b-16/task2/layer9..layer11": 1,
        "vit-b-16/task2/head": 1,
    }
    assert library.model_size.tolist() == [4 * 86_567_656] * 3


@settings(deadline=None, max_examples=60)
@given(
    backbone=st.sampled_from(RESNETS + VITS),
    variants=st.integers(1, 4),
    ratios=st.lists(st.floats(0, 1), min_size=1, max_size=3),
    granularity=st.one_of(st.sampled_from(["stage", "block"]), st.integers(1, 60)),
    dtype=st.sampled_from(["float32", "float16"]),
    classes=st.integers(1, 2000),
)
def test_whatever_the_cut_no_byte_is_lost(
    backbone: str,
    variants: int,
    ratios: list[float],
    granularity: str | int,
    dtype: str,
    classes: int,
) -> None:
    """Cutting and freezing move bytes between blocks: every model keeps its size, and what two
    tasks share is what the one that freezes less has frozen."""
    spec = FamilySpec(backbone, variants, tuple(ratios), granularity, dtype, classes)
    library = build_family(spec)
    width = {"float32": 4, "float16": 2}[dtype]
    sizes = [width * (unit.parameters + unit.statistics) for unit in units(backbone, classes)]
    assert library.model_size.tolist() == [sum(sizes)] * variants
    frozen = frozen_units(spec)
    for a in range(variants):
        for b in range(a):
            common = library.model_blocks[a] & library.model_blocks[b]
            shared = int(library.block_size[common].sum())
            assert shared == sum(sizes[: min(frozen[a], frozen[b])])


def test_half_precision_halves_every_block() -> None:
    """Two bytes a value instead of four."""
    spec = FamilySpec("vit-b-16", 2)
    full, half = build_family(spec), build_family(replace(spec, dtype="float16"))
    assert (half.block_size * 2).tolist() == full.block_size.tolist()


@pytest.mark.parametrize(("name", "specs"), [("vision", VISION), ("llm", LLM)])
def test_shipped_libraries_are_built_from_their_specs(
    name: str, specs: tuple[FamilySpec, ...]
) -> None:
    """data/libraries holds exactly write_library(path, combine(build_family of each spec))."""
    built = combine([build_family(spec) for spec in specs])
    assert read_library(LIBRARIES / f"{name}.json").content_hash == built.content_hash


@pytest.mark.parametrize("spec", VISION + LLM)
def test_shipped_families_have_ten_to_twenty_blocks(spec: FamilySpec) -> None:
    """Coarse enough for a placement to be seen at a glance, fine enough for sharing."""
    assert 10 <= build_family(spec).blocks <= 20


def test_vision_library_spans_the_sizes_of_the_reference_paper() -> None:
    """44 to 632 million parameters: ResNet-101 the smallest, ViT-H/14 the largest."""
    counts = [sum(parameters(spec.backbone).values()) for spec in VISION]
    assert min(counts) == 44_549_160
    assert max(counts) == 632_045_800


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backbone": "vit-b16"}, "backbone: 'vit-b16' is unknown, did you mean 'vit-b-16'?"),
        ({"backbone": "ResNet-101"}, "did you mean 'resnet-101'?"),
        ({"backbone": "Llama 2 13B"}, "did you mean 'llama-2-13b'?"),
        ({"backbone": ""}, "backbone: '' is unknown"),
        ({"backbone": ["vit-b-16"]}, "backbone: ['vit-b-16'] is unknown"),
        ({"variants": 0}, "variants: 0 is not allowed, must be an integer >= 1"),
        ({"variants": 2.0}, "variants: 2.0 is not allowed"),
        ({"variants": True}, "variants: True is not allowed"),
        ({"freeze_ratio": 1.01}, "freeze_ratio: 1.01 is not allowed, must be from 0 to 1"),
        ({"freeze_ratio": -0.1}, "freeze_ratio: -0.1 is not allowed"),
        ({"freeze_ratio": float("nan")}, "freeze_ratio: nan is not allowed"),
        ({"freeze_ratio": (0.5, "a")}, "freeze_ratio: 'a' is not allowed"),
        ({"freeze_ratio": ()}, "freeze_ratio: () is not allowed"),
        ({"granularity": 0}, 'granularity: 0 is not allowed, must be "stage", "block" or an'),
        ({"granularity": "layer"}, "granularity: 'layer' is not allowed"),
        ({"dtype": "int4"}, "dtype: 'int4' is unknown, known are 'float32', 'float16'"),
        ({"classes": 0}, "classes: 0 is not allowed"),
        ({"lora_rank": 8}, "lora_rank: 8 is not allowed for 'vit-b-16', only for 'llama-2-7b'"),
        ({"lora_targets": "qv"}, "lora_targets: 'qv' is not allowed for 'vit-b-16'"),
        (
            {"backbone": "llama-2-7b", "freeze_ratio": 0.5},
            "freeze_ratio: 0.5 is not allowed for 'llama-2-7b', must be 1",
        ),
        ({"backbone": "llama-2-7b", "lora_rank": 0}, "lora_rank: 0 is not allowed"),
        (
            {"backbone": "llama-2-7b", "lora_targets": "kv"},
            "lora_targets: 'kv' is unknown, known are 'qv', 'qkvo', 'all'",
        ),
    ],
)
def test_bad_specs_are_refused(fields: dict[str, Any], message: str) -> None:
    """One line with the field, the value and what is allowed."""
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        FamilySpec(**{"backbone": "vit-b-16", "variants": 2, **fields})
    assert "\n" not in str(caught.value)


def test_parameters_refuse_an_unknown_backbone() -> None:
    """The same suggestion as for a spec."""
    with pytest.raises(ValueError, match="did you mean 'resnet-50'"):
        parameters("resnet50")
