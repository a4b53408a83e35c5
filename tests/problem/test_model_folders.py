"""Folders as hubs and trainers write them: which models are in them, and which files count."""

from __future__ import annotations

import json
import os
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from finecast.problem.checkpoints import library_from_checkpoints
from finecast.problem.files import FormatError
from finecast.problem.library import ModelLibrary, sharing_statistics

EMBED, LAYER = 2048, 1024
"""Bytes of the embedding and of each of four layers."""

WHOLE = EMBED + 4 * LAYER


def weights(*names: str, seed: int = 0) -> dict[str, np.ndarray[Any, Any]]:
    """Return tensors that depend on their name and the seed: "embed" 2048 bytes, others 1024."""
    made = {}
    for name in names:
        rng = np.random.default_rng([seed, *name.encode()])
        made[name] = rng.random((32 if name == "embed" else 16, 16)).astype(np.float32)
    return made


LAYERS = tuple(f"layers.{i}.w" for i in range(4))
FIRST = ("embed", *LAYERS[:2])


def put(file: Path, *names: str, seed: int = 0) -> None:
    """Write a file of tensors."""
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(weights(*names, seed=seed), file)


def say(file: Path, content: object) -> None:
    """Write a JSON file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))


def put_shards(folder: Path, stem: str = "model", seed: int = 0) -> None:
    """Write a model as an index and two shards."""
    one, two = (f"{stem}-0000{i}-of-00002.safetensors" for i in (1, 2))
    put(folder / one, *FIRST, seed=seed)
    put(folder / two, *LAYERS[2:], seed=seed)
    say(
        folder / f"{stem}.safetensors.index.json",
        {"weight_map": {**dict.fromkeys(FIRST, one), **dict.fromkeys(LAYERS[2:], two)}},
    )


def read(folder: Path, *skipped: str, **options: Any) -> ModelLibrary:
    """Return the library of a folder, where the notes name exactly the given paths, in order."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        library = library_from_checkpoints(folder, **options)
    assert [str(note.message).split("'")[1] for note in notes] == list(skipped)
    return library


def sizes(library: ModelLibrary) -> dict[str, int]:
    """Return the bytes of each model."""
    return dict(zip(library.model_names, library.model_size.tolist(), strict=True))


def refused(folder: Path, *words: str) -> None:
    """Check that a folder is refused in one line with these words."""
    with pytest.raises(FormatError) as caught:
        library_from_checkpoints(folder)
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line


# --- one model's own folder ---------------------------------------------------------------------


def test_a_folder_that_is_one_model(tmp_path: Path) -> None:
    """config.json, index and shards: one model with the folder's name, not one a shard."""
    put_shards(tmp_path / "llama")
    say(tmp_path / "llama" / "config.json", {"architectures": ["X"]})
    assert sizes(read(tmp_path / "llama")) == {"llama": WHOLE}


@pytest.mark.parametrize("config", [True, False])
def test_one_whole_file_with_and_without_a_configuration(tmp_path: Path, config: bool) -> None:
    """model.safetensors alone is the model of its folder."""
    put(tmp_path / "bert" / "model.safetensors", *FIRST)
    if config:
        say(tmp_path / "bert" / "config.json", {"model_type": "bert"})
    assert sizes(read(tmp_path / "bert")) == {"bert": EMBED + 2 * LAYER}
    assert sizes(read(tmp_path)) == {"bert": EMBED + 2 * LAYER}


def test_shards_without_an_index_are_one_model(tmp_path: Path) -> None:
    """In the folder itself, and in a folder of many models."""
    put_shards(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors.index.json").unlink()
    assert sizes(read(tmp_path / "m")) == {"m": WHOLE}
    put_shards(tmp_path / "flat", "cats")
    (tmp_path / "flat" / "cats.safetensors.index.json").unlink()
    put(tmp_path / "flat" / "dogs.safetensors", "embed")
    assert sizes(read(tmp_path / "flat")) == {"cats": WHOLE, "dogs": EMBED}


# --- which files count --------------------------------------------------------------------------


def test_a_copy_beside_the_shards_does_not_count(tmp_path: Path) -> None:
    """The index says which files count, whatever else is there."""
    put_shards(tmp_path / "mistral")
    for name in ("consolidated", "model", "model.fp16", "other"):
        put(tmp_path / "mistral" / f"{name}.safetensors", "tok", seed=1)
    assert sizes(
        read(
            tmp_path,
            "mistral/consolidated.safetensors",
            "mistral/model.fp16.safetensors",
            "mistral/model.safetensors",
            "mistral/other.safetensors",
        )
    ) == {"mistral": WHOLE}


def test_a_stale_shard_does_not_count(tmp_path: Path) -> None:
    """The note says which file, and why."""
    put_shards(tmp_path / "qwen")
    put(tmp_path / "qwen" / "model-00003-of-00003.safetensors", "layers.9.w")
    with pytest.warns(
        UserWarning, match="'qwen/model-00003-of-00003.safetensors': skipped"
    ) as told:
        library = library_from_checkpoints(tmp_path)
    assert "model.safetensors.index.json does not name it" in str(told[0].message)
    assert sizes(library) == {"qwen": WHOLE}


def test_a_missing_shard_is_refused(tmp_path: Path) -> None:
    """With the index that names it, and without one by the numbers of the others."""
    put_shards(tmp_path / "llama")
    (tmp_path / "llama" / "model-00002-of-00002.safetensors").unlink()
    refused(tmp_path, "index.json", "'model-00002-of-00002.safetensors'", "not there")
    (tmp_path / "llama" / "model.safetensors.index.json").unlink()
    refused(tmp_path, "model-00001-of-00002.safetensors", "shard 2 of 2 is not there")


def test_the_complete_set_of_shards_counts(tmp_path: Path) -> None:
    """Without an index, what is left of an earlier save in three shards is passed over."""
    put_shards(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors.index.json").unlink()
    put(tmp_path / "m" / "model-00003-of-00003.safetensors", "old")
    assert sizes(read(tmp_path, "m/model-00003-of-00003.safetensors")) == {"m": WHOLE}
    for i in (1, 2):
        put(tmp_path / "m" / f"model-0000{i}-of-00003.safetensors", f"old{i}")
    refused(tmp_path, "has 2 and 3 shards of 'model'")


def test_a_tensor_that_the_index_promises_must_be_there(tmp_path: Path) -> None:
    """A shard of another model under the right name is not taken."""
    put_shards(tmp_path / "m")
    put(tmp_path / "m" / "model-00002-of-00002.safetensors", "layers.2.w")
    refused(tmp_path, "model-00002-of-00002.safetensors: has no tensor 'layers.3.w'")


def test_a_tensor_counts_where_the_index_says(tmp_path: Path) -> None:
    """A stale copy of it in another shard does not count; what the index lacks does."""
    put_shards(tmp_path / "m")
    stale = {**weights(*LAYERS[2:], "new"), **weights("embed", seed=9)}
    file = tmp_path / "m" / "model-00002-of-00002.safetensors"
    save_file(stale, file)
    assert sizes(read(tmp_path, str(file))) == {"m": WHOLE + LAYER}
    with pytest.warns(UserWarning, match="tensor 'embed' in it is skipped, the index says"):
        library_from_checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "must be a JSON object"),
        ("{}", "weight_map: must be an object"),
        ('{"weight_map": {}}', "weight_map: must be an object"),
        ('{"weight_map": {"a": 3}}', "weight_map['a']: 3 is not allowed"),
        ('{"weight_map": {"a": "x.bin"}}', "must name a .safetensors file"),
        ('{"weight_map": {"a": "../x.safetensors"}}', "must be beside the index"),
        ('{"weight_map": {"a": "/x.safetensors"}}', "must be beside the index"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:4\nsize 9\n", "not valid JSON"),
    ],
)
def test_a_bad_index_is_refused(tmp_path: Path, content: str, words: str) -> None:
    """By its file and field."""
    put_shards(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors.index.json").write_text(content)
    refused(tmp_path, "model.safetensors.index.json", words)


def test_variants_are_further_copies(tmp_path: Path) -> None:
    """fp16 counts only where there is nothing else, whole or in shards, by either index name."""
    put(tmp_path / "a" / "model.safetensors", "embed")
    put(tmp_path / "a" / "model.fp16.safetensors", "half")
    put_shards(tmp_path / "b")
    put(tmp_path / "b" / "model.fp16-00001-of-00002.safetensors", "half")
    put(tmp_path / "b" / "model.fp16-00002-of-00002.safetensors", "other half")
    say(
        tmp_path / "b" / "model.safetensors.index.fp16.json",
        {"weight_map": {"half": "model.fp16-00001-of-00002.safetensors"}},
    )
    put(tmp_path / "c" / "model.fp16.safetensors", "embed")
    library = read(
        tmp_path,
        "a/model.fp16.safetensors",
        "b/model.fp16-00001-of-00002.safetensors",
        "b/model.fp16-00002-of-00002.safetensors",
    )
    assert sizes(library) == {"a": EMBED, "b": WHOLE, "c": EMBED}


def test_an_index_comes_before_names_and_a_plain_file_before_an_index(tmp_path: Path) -> None:
    """Of a consolidated copy with an index; of a variant with an index."""
    put_shards(tmp_path / "a", "consolidated")
    put(tmp_path / "a" / "model.safetensors", "embed")
    put(tmp_path / "b" / "model.safetensors", "embed")
    put(tmp_path / "b" / "model-00001-of-00001.fp16.safetensors", "half")
    say(
        tmp_path / "b" / "model.safetensors.index.fp16.json",
        {"weight_map": {"half": "model-00001-of-00001.fp16.safetensors"}},
    )
    library = read(tmp_path, "a/model.safetensors", "b/model-00001-of-00001.fp16.safetensors")
    assert sizes(library) == {"a": WHOLE, "b": EMBED}


def test_other_formats_are_named(tmp_path: Path) -> None:
    """A model of them alone is no model; what a trainer keeps of its own state is not weights."""
    put(tmp_path / "a" / "model.safetensors", "embed")
    for name in ("pytorch_model.bin", "optimizer.pt", "training_args.bin", "rng_state_0.pth"):
        (tmp_path / "a" / name).write_text("x")
    for path in ("b/pytorch_model.bin", "c/q4.gguf", "loose.ckpt"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("x")
    say(tmp_path / "b" / "config.json", {})
    (tmp_path / "empty").mkdir()
    say(tmp_path / "words" / "tokenizer.json", {})
    library = read(
        tmp_path, "loose.ckpt", "a/pytorch_model.bin", "b/pytorch_model.bin", "c/q4.gguf",
        "empty", "words",
    )  # fmt: skip
    assert sizes(library) == {"a": EMBED}
    refused(tmp_path / "b", "'pytorch_model.bin': skipped, only .safetensors files are read")
    refused(tmp_path / "c", "'q4.gguf'")
    refused(tmp_path / "empty", "has no .safetensors file")


def test_other_formats_in_folders_of_a_model_are_named(tmp_path: Path) -> None:
    """Also where nothing else is in the folder: a part of a pipeline, a first format, an export."""
    put(tmp_path / "m" / "model.safetensors", "embed")
    put(tmp_path / "sd" / "unet" / "diffusion_pytorch_model.safetensors", "u")
    say(tmp_path / "sd" / "model_index.json", {})
    skipped = (
        "m/B.SAFETENSORS", "m/checkpoint-5/pytorch_model.bin", "m/onnx/deep/model.onnx",
        "m/original/consolidated.00.pth", "sd/vae/diffusion_pytorch_model.bin",
    )  # fmt: skip
    for path in (*skipped, "m/checkpoint-5/optimizer.pt", "m/.cache/x.bin"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("x")
    assert sizes(read(tmp_path, *skipped)) == {"m": EMBED, "sd": LAYER}


def test_a_pointer_is_refused(tmp_path: Path) -> None:
    """It says that it is one and what to do."""
    (tmp_path / "m.safetensors").write_text(
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{'4' * 64}\nsize 13467\n"
    )
    refused(tmp_path, "m.safetensors: is a Git LFS pointer", "git lfs pull")


# --- parts, and models in models ----------------------------------------------------------------


def test_a_pipeline_is_one_model(tmp_path: Path) -> None:
    """Its parts count, a whole copy beside them does not; a part's name is in its blocks."""
    put(tmp_path / "sd" / "unet" / "diffusion_pytorch_model.safetensors", "u")
    put(tmp_path / "sd" / "unet" / "diffusion_pytorch_model.fp16.safetensors", "half")
    put(tmp_path / "sd" / "vae" / "diffusion_pytorch_model.safetensors", "v")
    put(tmp_path / "plain" / "model.safetensors", "embed")
    half = "sd/unet/diffusion_pytorch_model.fp16.safetensors"
    library = read(tmp_path, half)
    assert sizes(library) == {"plain": EMBED, "sd": 2 * LAYER}
    assert {name.split("#")[0] for name in library.block_names} == {"embed", "unet/u", "vae/v"}

    put(tmp_path / "sd" / "v1-5-pruned.safetensors", "all")
    put(tmp_path / "sd" / "my_part" / "model.safetensors", "p")
    say(tmp_path / "sd" / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    library = read(tmp_path, "sd/v1-5-pruned.safetensors", half)
    assert sizes(library) == {"plain": EMBED, "sd": 3 * LAYER}
    assert library.model_family == ("", "StableDiffusionPipeline")
    assert sizes(
        read(tmp_path / "sd", *(path[3:] for path in ("sd/v1-5-pruned.safetensors", half)))
    )


def test_numbered_modules_are_parts(tmp_path: Path) -> None:
    """As sentence transformers has them, with and without modules.json and first module."""
    put(tmp_path / "clip" / "model.safetensors", "p")
    put(tmp_path / "clip" / "2_Dense" / "model.safetensors", "embed")
    put(tmp_path / "old" / "0_Transformer" / "model.safetensors", "p")
    say(tmp_path / "old" / "0_Transformer" / "config.json", {"architectures": ["Bert"]})
    put(tmp_path / "old" / "2_Dense" / "model.safetensors", "embed")
    put(tmp_path / "told" / "model.safetensors", "p")
    put(tmp_path / "told" / "dense" / "model.safetensors", "embed")
    say(tmp_path / "told" / "modules.json", [{"path": ""}, {"path": "dense"}])
    assert sizes(read(tmp_path)) == dict.fromkeys(("clip", "old", "told"), LAYER + EMBED)


def test_what_lies_in_a_model_s_folder(tmp_path: Path) -> None:
    """Earlier states and first formats are named; adapters and whole models are their own."""
    run = tmp_path / "run"
    put_shards(run)
    put(run / "checkpoint-500" / "model.safetensors", "embed", seed=1)
    put(run / "original" / "model.safetensors", "embed", seed=2)
    put(run / "best" / "model.safetensors", "embed", seed=3)
    say(run / "best" / "config.json", {"architectures": ["Bert"], "model_type": "bert"})
    put(run / "lora" / "adapter_model.safetensors", "a")
    say(run / "lora" / "adapter_config.json", {"base_model_name_or_path": "run"})
    put(run / "tower" / "model.safetensors", "t")
    library = read(tmp_path, "run/checkpoint-500", "run/original")
    assert sizes(library) == {
        "run": WHOLE + LAYER, "run/best": EMBED, "run/lora": WHOLE + 2 * LAYER
    }  # fmt: skip


def test_files_of_other_names_in_a_folder(tmp_path: Path) -> None:
    """Shards have no tensor twice; copies have, and are models, unless a configuration says one."""
    put(tmp_path / "loras" / "cat.safetensors", "embed", "a")
    put(tmp_path / "loras" / "dog.safetensors", "embed", "b")
    put(tmp_path / "parts" / "one.safetensors", "embed")
    put(tmp_path / "parts" / "two.safetensors", "a")
    put(tmp_path / "team" / "cat.safetensors", "embed")
    put(tmp_path / "team" / "new" / "model.safetensors", "b")
    library = read(tmp_path, "parts")
    assert sizes(library) == {
        "loras/cat": EMBED + LAYER, "loras/dog": EMBED + LAYER, "parts": EMBED + LAYER,
        "team/cat": EMBED, "team/new": LAYER,
    }  # fmt: skip
    say(tmp_path / "loras" / "config.json", {})
    refused(tmp_path, "loras: has tensor 'embed' in several files, and no index")
    say(tmp_path / "parts" / "config.json", {})
    assert sizes(read(tmp_path / "parts")) == {"parts": EMBED + LAYER}


def test_a_run_of_checkpoints_alone(tmp_path: Path) -> None:
    """Where a trainer has left no final weights, each checkpoint is a model."""
    for step in (500, 1000):
        put(tmp_path / "run" / f"checkpoint-{step}" / "model.safetensors", "embed", seed=step)
        say(tmp_path / "run" / f"checkpoint-{step}" / "config.json", {"architectures": ["B"]})
    assert sizes(read(tmp_path)) == {"run/checkpoint-1000": EMBED, "run/checkpoint-500": EMBED}
    say(tmp_path / "run" / "config.json", {})
    assert set(sizes(read(tmp_path / "run"))) == {"run/checkpoint-1000", "run/checkpoint-500"}


def test_models_by_owner(tmp_path: Path) -> None:
    """acme/bert: folders in folders, and links that lead back up."""
    for name in ("bert", "gpt"):
        put(tmp_path / "acme" / name / "model.safetensors", "embed", name)
    (tmp_path / "acme" / "loop").symlink_to(tmp_path)
    (tmp_path / "acme" / "bert" / "round").symlink_to(tmp_path / "acme")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    library = read(tmp_path, "acme/bert/round", "acme/loop")
    assert sizes(library) == dict.fromkeys(("acme/bert", "acme/gpt"), EMBED + LAYER)
    assert sharing_statistics(library).saved_bytes == EMBED


# --- hub caches ---------------------------------------------------------------------------------


def put_in_hub(cache: Path, name: str, *names: str, revision: str = "abc123") -> Path:
    """Write a model as a hub's client caches it, and return its snapshot."""
    folder = cache / f"models--{name.replace('/', '--')}"
    put(folder / "blobs" / f"{revision}0", *names)
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(f"../../blobs/{revision}0")
    (folder / "refs").mkdir(exist_ok=True)
    (folder / "refs" / "main").write_text(revision)
    return snapshot


def test_a_hub_cache(tmp_path: Path) -> None:
    """Models have the hub's names, from the cache, a folder above it or a folder within."""
    cache = tmp_path / "huggingface" / "hub"
    snapshot = put_in_hub(cache, "acme/bert", "embed", "b")
    put_in_hub(cache, "gpt2", "embed", "g")
    (cache / "version.txt").write_text("1")
    (cache / ".locks").mkdir()
    (cache / "datasets--acme--words").mkdir()
    (cache / "models--acme--none" / "refs").mkdir(parents=True)
    told = ("datasets--acme--words", "models--acme--none")
    both = {"acme/bert": EMBED + LAYER, "gpt2": EMBED + LAYER}
    assert sizes(read(cache, *told)) == both
    assert sizes(read(tmp_path, *(f"huggingface/hub/{name}" for name in told))) == both
    for one in (cache / "models--acme--bert", snapshot):
        assert sizes(read(one)) == {"acme/bert": EMBED + LAYER}
    # Where links cannot be written, files have their text.
    link = snapshot / "model.safetensors"
    text = os.readlink(link)
    link.unlink()
    link.write_text(text)
    assert sizes(read(cache, *told)) == both


def test_the_revision_of_a_hub_cache(tmp_path: Path) -> None:
    """refs/main decides; where it does not, the only one; where there are more, nothing."""
    put_in_hub(tmp_path, "a/b", "old", revision="111")
    put_in_hub(tmp_path, "a/b", "embed", revision="222")
    model = tmp_path / "models--a--b"
    assert sizes(read(tmp_path, "models--a--b/snapshots/111")) == {"a/b": EMBED}
    (model / "refs" / "main").write_text("333")
    refused(tmp_path, "models--a--b: has the revisions 111, 222")
    (model / "refs" / "main").write_text("../../x")
    refused(tmp_path, "refs/main: '../../x' is not allowed")
    (model / "refs" / "main").unlink()
    refused(tmp_path, "models--a--b: has the revisions 111, 222")
    (model / "snapshots" / "111" / "model.safetensors").unlink()
    (model / "snapshots" / "111").rmdir()
    assert sizes(read(tmp_path)) == {"a/b": EMBED}
    (model / "blobs" / "2220").unlink()
    refused(tmp_path, "model.safetensors: is a link to a file that is not there")
    (model / "snapshots" / "222" / "model.safetensors").unlink()
    refused(tmp_path, "no .safetensors file in it")
    (model / "snapshots" / "222").rmdir()
    refused(tmp_path, "no revision of it is downloaded")


# --- adapters -----------------------------------------------------------------------------------


def put_adapter(folder: Path, base: object, *names: str) -> None:
    """Write a PEFT adapter: 1024 bytes a name."""
    put(folder / "adapter_model.safetensors", *names)
    say(folder / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": base})


@pytest.mark.parametrize("base", ["base", "/home/me/models/base", "acme/base", "../base"])
def test_adapters_hold_their_base(tmp_path: Path, base: str) -> None:
    """By name, by another machine's path, by hub name, by path: 20480 apart, 8192 once."""
    put_shards(tmp_path / "base")
    say(tmp_path / "base" / "config.json", {"model_type": "llama"})
    put_adapter(tmp_path / "law", base, "law")
    put_adapter(tmp_path / "med", base, "med")
    library = read(tmp_path)
    assert sizes(library) == {"base": 6144, "law": 7168, "med": 7168}
    statistics = sharing_statistics(library)
    assert (statistics.separate_bytes, statistics.deduplicated_bytes) == (20480, 8192)
    assert statistics.saved_share == 0.6
    assert library.model_family == ("llama",) * 3
    assert sizes(read(tmp_path, names=["law"])) == {"law": 7168}


def test_a_base_elsewhere_is_read_by_its_path(tmp_path: Path) -> None:
    """It is part of the adapters, and no model of its own; adapters stand on adapters."""
    put_shards(tmp_path / "elsewhere" / "base")
    put_adapter(tmp_path / "mine" / "law", str(tmp_path / "elsewhere" / "base"), "law")
    put_adapter(tmp_path / "mine" / "med", "../../elsewhere/base", "med")
    put_adapter(tmp_path / "mine" / "tax", "law", "tax")
    library = read(tmp_path / "mine")
    assert sizes(library) == {"law": 7168, "med": 7168, "tax": 8192}
    assert sizes(read(tmp_path / "mine" / "law")) == {"law": 7168}
    assert sharing_statistics(library).deduplicated_bytes == 6144 + 3 * 1024


def test_an_adapter_without_its_base_is_refused(tmp_path: Path) -> None:
    """Its size alone would be wrong."""
    put(tmp_path / "gpt" / "model.safetensors", "embed")
    put_adapter(tmp_path / "law", "meta-llama/Llama-2-7b-hf", "law")
    refused(tmp_path, "adapter_config.json", "'meta-llama/Llama-2-7b-hf'", "none of the models gpt")
    put_adapter(tmp_path / "law", None, "law")
    refused(tmp_path, "adapter_config.json: base_model_name_or_path: None is not allowed")
    put_adapter(tmp_path / "law", "med", "law")
    put_adapter(tmp_path / "med", "law", "med")
    refused(tmp_path, "adapter_config.json", "it is its own")
    for name in "ab":
        put(tmp_path / "elsewhere" / f"{name}.safetensors", "embed")
    put_adapter(tmp_path / "mine" / "law", "../../elsewhere", "law")
    refused(tmp_path / "mine", "adapter_config.json", "that folder has 2 models")


def test_an_adapter_without_its_configuration_is_named(tmp_path: Path) -> None:
    """It is counted as it is, and the note says so."""
    put(tmp_path / "law" / "adapter_model.safetensors", "law")
    with pytest.warns(UserWarning, match=re.escape("'law': an adapter without adapter_config")):
        assert sizes(library_from_checkpoints(tmp_path)) == {"law": LAYER}


def test_a_base_by_a_path_of_another_machine(tmp_path: Path) -> None:
    """Of Windows, of a hub cache; of two models with the last word, the adapter names neither."""
    put(tmp_path / "acme" / "base" / "model.safetensors", "embed")
    for base in ("C:\\models\\base", "/data/hub/models--acme--base/snapshots/0f", "base/"):
        put_adapter(tmp_path / "law", base, "law")
        assert sizes(read(tmp_path))["law"] == EMBED + LAYER
    put(tmp_path / "other" / "base" / "model.safetensors", "b")
    put_adapter(tmp_path / "law", "base", "law")
    refused(tmp_path, "law/adapter_config.json", "which may be acme/base, other/base")
    put_adapter(tmp_path / "law", "/data/hub/models--other--base/snapshots/0f", "law")
    assert sizes(read(tmp_path))["law"] == 2 * LAYER


def test_an_adapter_within_its_base(tmp_path: Path) -> None:
    """The folder above it is the base, though the adapter is in that folder too."""
    put(tmp_path / "gpt" / "model.safetensors", "embed")
    say(tmp_path / "gpt" / "config.json", {})
    put_adapter(tmp_path / "gpt" / "law", "..", "law")
    for folder in (tmp_path, tmp_path / "gpt"):
        assert sizes(read(folder)) == {"gpt": EMBED, "gpt/law": EMBED + LAYER}


def test_notes_on_a_base_elsewhere_are_told_once(tmp_path: Path) -> None:
    """What is passed over there is said as well."""
    put_shards(tmp_path / "elsewhere" / "base")
    stale = tmp_path / "elsewhere" / "base" / "model-00003-of-00003.safetensors"
    put(stale, "old")
    for name in ("law", "med"):
        put_adapter(tmp_path / "mine" / name, str(stale.parent), name)
    assert sizes(read(tmp_path / "mine", str(stale))) == {"law": 7168, "med": 7168}


def test_an_adapter_of_diffusers_is_named(tmp_path: Path) -> None:
    """It has no configuration: its base is not known."""
    put(tmp_path / "style" / "pytorch_lora_weights.safetensors", "a")
    assert sizes(read(tmp_path, "style")) == {"style": LAYER}


# --- families -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "family"),
    [
        ({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}, "llama"),
        ({"architectures": ["X"]}, "X"),
        ({"architecture": "vit_base_patch16_224"}, "vit_base_patch16_224"),
        ({"model_type": "x" * 1000}, ""),
        ({"_class_name": "AutoencoderKL"}, "AutoencoderKL"),
        ({"model_type": 3, "architectures": []}, ""),
        ({"model_type": "two\nlines"}, ""),
    ],
)
def test_the_family_is_that_of_the_configuration(
    tmp_path: Path, config: dict[str, object], family: str
) -> None:
    """Its type, else its class; infinities in it, which JSON lacks, do no harm."""
    put(tmp_path / "m" / "model.safetensors", "embed")
    say(tmp_path / "m" / "config.json", {**config, "time_step_limit": [0.0, float("inf")]})
    assert read(tmp_path).model_family == (family,)
    (tmp_path / "m" / "config.json").write_text(json.dumps(config), encoding="utf-8-sig")
    assert read(tmp_path).model_family == (family,)
    for broken in ("{", "[" * 100_000):
        (tmp_path / "m" / "config.json").write_text(broken)
        refused(tmp_path, "config.json: not valid JSON")
