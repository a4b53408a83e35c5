"""Libraries from configurations: what is built, what variants share, and what is refused."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

from finecast.problem.files import FormatError
from finecast.problem.library import ModelLibrary, read_library
from finecast.problem.model_configs import library_from_configs

needs_transformers = pytest.mark.skipif(
    find_spec("transformers") is None, reason="transformers is not installed"
)

V, D, F, L = 96, 16, 40, 3
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "bfloat16",
    "hidden_size": D, "intermediate_size": F, "num_hidden_layers": L, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": V, "tie_word_embeddings": False,
}  # fmt: skip
LAYER = 2 * D * D + 2 * D * D // 2 + 3 * D * F + 2 * D
"""Parameters of a layer: q and o, k and v of half the heads, three of the perceptron, two norms."""

LORA: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": "acme/base",
    "r": 4,
    "target_modules": ["q_proj", "v_proj"],
}


def write(folder: Path, content: dict[str, Any], file: str = "config.json") -> Path:
    """Write a configuration into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(content))
    return folder / file


def adapter(folder: Path, **changes: Any) -> Path:
    """Write the configuration of an adapter."""
    return write(folder, {**LORA, **changes}, "adapter_config.json")


def sizes(library: ModelLibrary) -> dict[str, int]:
    """Return the blocks and their bytes."""
    return dict(zip(library.block_names, library.block_size.tolist(), strict=True))


@needs_transformers
def test_blocks_by_hand(tmp_path: Path) -> None:
    """A Llama by its formula: embedding, layers, norm and head, two bytes a value."""
    write(tmp_path / "base", LLAMA)
    assert sizes(library_from_configs(tmp_path)) == {
        "base/lm_head": 2 * V * D,
        "base/model.embed_tokens": 2 * V * D,
        **{f"base/model.layers.{i}": 2 * LAYER for i in range(L)},
        "base/model.norm": 2 * D,
    }
    one = library_from_configs(tmp_path / "base", granularity="largest")
    assert one.block_size.tolist() == [2 * (2 * V * D + L * LAYER + D)]
    assert (one.model_names, one.model_family) == (("base",), ("llama",))


@needs_transformers
def test_tied_embeddings_count_once(tmp_path: Path) -> None:
    """An output that is the embedding is no tensor of its own."""
    write(tmp_path / "base", {**LLAMA, "tie_word_embeddings": True})
    assert "base/lm_head" not in sizes(library_from_configs(tmp_path))


@needs_transformers
@pytest.mark.parametrize(
    ("frozen", "shared"),
    [
        ("embeddings", V * D),
        (0, V * D),
        (2, V * D + 2 * LAYER),
        (3, V * D + 3 * LAYER),
        ("all", 2 * V * D + 3 * LAYER + D),
    ],
)
def test_frozen_part_of_a_variant(tmp_path: Path, frozen: str | int, shared: int) -> None:
    """What is frozen is in both models, and the rest is there twice."""
    write(tmp_path / "acme/base", LLAMA)
    write(tmp_path / "acme/tuned", {**LLAMA, "_name_or_path": "/home/me/base"})
    library = library_from_configs(tmp_path, frozen)
    total = 2 * V * D + L * LAYER + D
    assert library.block_size[library.block_models == 2].sum() == 2 * shared
    assert library.model_size.tolist() == [2 * total, 2 * total]


@needs_transformers
def test_variant_with_another_head(tmp_path: Path) -> None:
    """A classifier shares the trunk by name and shape; its head is its own."""
    write(tmp_path / "base", LLAMA)
    head = {"architectures": ["LlamaForSequenceClassification"], "num_labels": 5}
    write(tmp_path / "graded", {**LLAMA, **head, "base_model_name_or_path": "base"})
    library = library_from_configs(tmp_path, "all")
    assert sizes(library)["graded/score"] == 2 * 5 * D
    assert library.block_models[library.block_names.index("base/lm_head")] == 1


@needs_transformers
@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({}, 4 * L * (D + D + D + D // 2)),
        ({"target_modules": "all-linear"}, 4 * L * (4 * D + 2 * (D + D // 2) + 3 * (D + F))),
        ({"rank_pattern": {"v_proj": 1}}, L * (4 * 2 * D + D + D // 2)),
        ({"use_dora": True}, 4 * L * (3 * D + D // 2) + L * (D + D // 2)),
        ({"layers_to_transform": [1]}, 4 * (3 * D + D // 2)),
        ({"modules_to_save": ["lm_head"]}, 4 * L * (3 * D + D // 2) + V * D),
        ({"bias": "all"}, 4 * L * (3 * D + D // 2)),
    ],
)
def test_adapters_by_hand(tmp_path: Path, changes: dict[str, Any], values: int) -> None:
    """Rank times rows and columns of every adapted matrix, and what else is saved."""
    write(tmp_path / "acme/base", LLAMA)
    adapter(tmp_path / "acme/lora", **changes)
    library = library_from_configs(tmp_path)
    assert sizes(library)["acme/lora/adapter"] == 2 * values
    assert library.model_size[1] - library.model_size[0] == 2 * values


@needs_transformers
def test_adapter_of_a_variant_beside_its_base(tmp_path: Path) -> None:
    """The chain base, variant, adapter: the adapter holds the variant."""
    write(tmp_path / "acme/base", LLAMA)
    write(tmp_path / "acme/tuned", {**LLAMA, "base_model_name_or_path": "acme/base"})
    adapter(tmp_path / "acme/lora", base_model_name_or_path="acme/tuned")
    library = library_from_configs(tmp_path, 2)
    assert library.model_names == ("acme/base", "acme/lora", "acme/tuned")
    held = library.model_blocks
    assert (held[1] & held[2]).sum() == held[2].sum() == held[1].sum() - 1


@needs_transformers
def test_integers_and_statistics_count(tmp_path: Path) -> None:
    """Batch norm keeps statistics in the type of its weights, and a counter of eight bytes."""
    write(tmp_path / "net", {"architectures": ["ResNetModel"], "model_type": "resnet",
                             "depths": [1], "hidden_sizes": [8], "embedding_size": 4,
                             "layer_type": "basic", "dtype": "float16"})  # fmt: skip
    stem = 3 * 4 * 49 + 4 * 4
    stage = 4 * 8 + 4 * 8 + (4 + 8) * 8 * 9 + 2 * 4 * 8  # shortcut, two convolutions, their norms
    library = library_from_configs(tmp_path, granularity="largest")
    assert library.block_size.sum() == 2 * (stem + stage) + 4 * 8


@needs_transformers
def test_shipped_library_is_built_from_the_shipped_configurations() -> None:
    """data/libraries/modern.json is what its configurations say."""
    built = library_from_configs(ROOT / "examples" / "modern_configs", granularity=4)
    assert built == read_library("modern")


@needs_transformers
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "llamma"}, "model_type: 'llamma' is unknown to transformers"),
        ({"architectures": ["os"]}, "architectures: 'os' is no model of transformers"),
        ({"architectures": ["AutoModel"]}, "architectures: 'AutoModel' is no model"),
        ({"hidden_size": "wide"}, "cannot be built by transformers"),
        ({"num_attention_heads": 0}, "cannot be built by transformers"),
        ({"num_hidden_layers": 9999, "hidden_size": 4}, "makes more than 1000 modules"),
    ],
)
def test_what_cannot_be_built_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    """Whatever transformers makes of wrong values, and models without end."""
    monkeypatch.setattr("finecast.problem.meta_models.MOST_TENSORS", 1000)
    path = write(tmp_path / "base", {**LLAMA, **changes})
    with pytest.raises(FormatError) as refused:
        library_from_configs(tmp_path)
    assert str(refused.value).startswith(f"{path}: {message}")
    assert "\n" not in str(refused.value)


@needs_transformers
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type: 'IA3' is not allowed, must be 'LORA'"),
        ({"r": 0}, "r: 0 is not allowed, must be an integer from 1 to"),
        ({"r": True}, "r: True is not allowed"),
        ({"target_modules": ["nothing"]}, "names no module of the base"),
        ({"target_modules": ["mlp"]}, "'model.layers.0.mlp' is no linear map"),
        ({"target_modules": "(a+)+$"}, "is a pattern, which is not read; list the modules"),
        ({"target_modules": None}, "target_modules: must be a list of names of modules"),
        ({"modules_to_save": ["score"]}, "modules_to_save: 'score' is no module of the base"),
        ({"rank_pattern": {".*": 3}}, "rank_pattern: must give a rank for each name"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices: is not read"),
        ({"bias": "some"}, "bias: 'some' is not allowed"),
    ],
)
def test_adapters_that_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    """One line with the file, the key and what is allowed."""
    write(tmp_path / "acme/base", LLAMA)
    path = adapter(tmp_path / "acme/lora", **changes)
    with pytest.raises(FormatError) as refused:
        library_from_configs(tmp_path)
    assert str(refused.value).startswith(f"{path}: ")
    assert message in str(refused.value)


@needs_transformers
@pytest.mark.parametrize(
    ("frozen", "changes", "message"),
    [
        (None, {}, "is a variant of another model: say what of it is frozen"),
        (4, {}, "frozen: 4 layers asked for, its base has 3"),
        (0, {"vocab_size": V + 1}, "shares no tensor with its base, by name and shape"),
    ],
)
def test_variants_that_are_refused(
    tmp_path: Path, frozen: int | None, changes: dict[str, Any], message: str
) -> None:
    """What is frozen is said, is there, and is something."""
    write(tmp_path / "base", LLAMA)
    write(tmp_path / "tuned", {**LLAMA, **changes, "base_model_name_or_path": "base"})
    with pytest.raises(FormatError, match=message):
        library_from_configs(tmp_path, frozen)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"auto_map": {"AutoModel": "evil--x"}}, "auto_map: asks for code of its own"),
        ({"quantization_config": {"bits": 4}}, "quantization_config: quantised weights"),
        ({"model_type": None}, "model_type: None is not allowed"),
        ({"architectures": "Llama"}, "architectures: must be a list"),
        ({"dtype": "int4"}, "dtype: 'int4' is not allowed, known are float64"),
        ({"num_hidden_layers": 10**6}, "num_hidden_layers: 1000000 is not allowed"),
        ({"text_config": {"n_experts": 10**6}}, "text_config.n_experts: 1000000 is not allowed"),
        ({"hidden_size": 10**12}, "hidden_size: 1000000000000 is not allowed"),
    ],
)
def test_refused_before_anything_is_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    """Foreign code, quantised weights and sizes without end are refused from the text alone."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    path = write(tmp_path / "base", {**LLAMA, **changes})
    with pytest.raises(FormatError) as refused:
        library_from_configs(tmp_path)
    assert str(refused.value).startswith(f"{path}: {message}")


def test_without_transformers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line with what to install."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    write(tmp_path / "base", LLAMA)
    with pytest.raises(FormatError, match=r"not installed: pip install 'finecast\[configs\]'$"):
        library_from_configs(tmp_path)


def test_folders_that_are_refused(tmp_path: Path) -> None:
    """No folder, no configuration, no base, damaged text."""
    with pytest.raises(FormatError, match="is no folder"):
        library_from_configs(tmp_path / "none")
    with pytest.raises(FormatError, match=r"has no config\.json or adapter_config\.json"):
        library_from_configs(tmp_path)
    path = write(tmp_path / "base", LLAMA)
    path.write_text(path.read_text()[:40])
    with pytest.raises(FormatError, match="not valid JSON"):
        library_from_configs(tmp_path)
    path.unlink()
    adapter(tmp_path / "lora", base_model_name_or_path="gone")
    with pytest.raises(FormatError, match="names the base 'gone', which is none of the models"):
        library_from_configs(tmp_path)
    with pytest.raises(ValueError, match="frozen: 'half' is not allowed"):
        library_from_configs(tmp_path, "half")
