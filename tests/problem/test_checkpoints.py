"""Libraries from checkpoints that the tests fine-tune and save themselves."""

from __future__ import annotations

import copy
import json
import os
import re
import struct
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file

from finecast.problem import checkpoints, content_blocks
from finecast.problem.checkpoints import library_from_checkpoints
from finecast.problem.files import FormatError
from finecast.problem.library import (
    ModelLibrary,
    coarse_grained,
    sharing_statistics,
    write_library,
)
from finecast.problem.scenario import read_scenario
from finecast.solvers.solve import solve

PARTS = ("stem", "norm", "trunk", "neck", "head")


def untrained() -> torch.nn.Sequential:
    """Return a small network: convolution, batch norm, linear, bfloat16 linear, head."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = torch.nn.Sequential()
        network.add_module("stem", torch.nn.Conv2d(3, 8, 3))
        network.add_module("norm", torch.nn.BatchNorm2d(8))
        network.add_module("flat", torch.nn.Flatten())
        network.add_module("trunk", torch.nn.Linear(8 * 36, 16))
        network.add_module("neck", torch.nn.Linear(16, 16).to(torch.bfloat16))
        network.add_module("head", torch.nn.Linear(16, 4))
        return network


def forward(network: torch.nn.Sequential, images: torch.Tensor) -> torch.Tensor:
    """Run the network; its neck computes in bfloat16."""
    hidden = network.trunk(network.flat(network.norm(network.stem(images))))
    return network.head(network.neck(hidden.to(torch.bfloat16)).float())


def fine_tune(start: torch.nn.Sequential, tuned: tuple[str, ...], seed: int) -> torch.nn.Sequential:
    """Return a copy after five SGD steps on the `tuned` parts, the rest frozen."""
    network = copy.deepcopy(start)
    for name, part in network.named_children():
        part.requires_grad_(name in tuned)
        part.train(name in tuned)  # frozen batch norm keeps its running statistics
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.5)
    for _ in range(5):
        images = torch.randn(4, 3, 8, 8, generator=generator)
        labels = torch.randint(0, 4, (4,), generator=generator)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(forward(network, images), labels).backward()
        optimiser.step()
    return network


@pytest.fixture(scope="module")
def models() -> dict[str, dict[str, torch.Tensor]]:
    """Return three fine-tuned models: two with their own head, one with norm, neck and head."""
    # Before any training, batch norm's shift and mean are the same zeros: one content, not two.
    pretrained = fine_tune(untrained(), PARTS, seed=0)
    tuned = {
        "cats": fine_tune(pretrained, ("head",), seed=1),
        "dogs": fine_tune(pretrained, ("head",), seed=2),
        "birds": fine_tune(pretrained, ("norm", "neck", "head"), seed=3),
    }
    return {name: network.state_dict() for name, network in tuned.items()}


def save(folder: Path, models: Mapping[str, Mapping[str, torch.Tensor]]) -> Path:
    """Save each model as a file of its own."""
    folder.mkdir(exist_ok=True)
    for name, tensors in models.items():
        save_file(dict(tensors), folder / f"{name}.safetensors")
    return folder


def size(tensors: Mapping[str, torch.Tensor], *parts: str) -> int:
    """Return the bytes of the tensors of some parts, "head" for head.weight and head.bias."""
    return sum(
        tensor.numel() * tensor.element_size()
        for name, tensor in tensors.items()
        if name.split(".")[0] in parts
    )


def test_fine_tuned_models_share_exactly_what_was_frozen(
    models: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    """Stem and trunk are in all; norm and the bfloat16 neck in cats and dogs; the rest is own."""
    library = library_from_checkpoints(save(tmp_path / "models", models), granularity="largest")
    assert library.model_names == ("birds", "cats", "dogs")
    by_models = {
        tuple(np.flatnonzero(column).tolist()): block_size
        for column, block_size in zip(
            library.model_blocks.T, library.block_size.tolist(), strict=True
        )
    }
    cats = models["cats"]
    assert by_models == {
        (0, 1, 2): size(cats, "stem", "trunk"),
        (1, 2): size(cats, "norm", "neck"),
        (0,): size(cats, "norm", "neck", "head"),
        (1,): size(cats, "head"),
        (2,): size(cats, "head"),
    }
    held = [name.split("#")[0] for name in library.block_names]
    assert held == ["stem..trunk", "neck..norm", "head..norm", "head", "head"]
    everything = size(cats, *PARTS)
    assert library.model_size.tolist() == [everything] * 3
    assert sharing_statistics(library).separate_bytes == 3 * everything


def test_hash_of_bfloat16_sees_one_bit(tmp_path: Path) -> None:
    """numpy has no bfloat16: two tensors that differ in the last bit of one value must differ."""
    value = torch.arange(100, dtype=torch.float32).to(torch.bfloat16)
    other = value.clone()
    other.view(torch.int16)[57] ^= 1
    for folder, second, blocks in ((tmp_path / "a", value.clone(), 1), (tmp_path / "b", other, 2)):
        library = library_from_checkpoints(save(folder, {"x": {"t": value}, "y": {"t": second}}))
        assert library.blocks == blocks


def test_content_is_found_wherever_it_stands(tmp_path: Path) -> None:
    """Another name or file offset is the same content; another dtype or shape of the same bytes
    is not."""
    zeros = torch.zeros(4, dtype=torch.float32)
    library = library_from_checkpoints(
        save(
            tmp_path,
            {
                "a": {"first": zeros, "only a": torch.ones(9)},
                "b": {"aaa": torch.ones(3), "earlier": zeros.clone()},
                "c": {"first": zeros.view(2, 2).clone()},
                "d": {"first": torch.zeros(4, dtype=torch.int32)},
            },
        )
    )
    shared = np.flatnonzero(library.block_models == 2)
    assert library.block_size[shared].tolist() == [16]
    assert library.model_blocks[:, shared[0]].tolist() == [True, True, False, False]
    assert library.block_names[shared[0]].startswith("earlier#")  # not "first", which is read first
    assert library.model_size.tolist() == [16 + 36, 16 + 12, 16, 16]


def test_content_twice_in_a_model_counts_once(tmp_path: Path) -> None:
    """Tied or repeated tensors are downloaded once: the model's size is its distinct bytes."""
    same = torch.arange(5, dtype=torch.float32)
    library = library_from_checkpoints(
        save(tmp_path, {"a": {"x": same, "y": same.clone(), "z": torch.ones(2)}})
    )
    assert library.model_size.tolist() == [20 + 8]


def test_tensors_of_no_bytes_are_ignored(tmp_path: Path) -> None:
    """They have nothing to store; a scalar has."""
    library = library_from_checkpoints(
        save(tmp_path, {"a": {"empty": torch.zeros(0, 3), "scalar": torch.tensor(1.0)}})
    )
    assert library.block_size.tolist() == [4]
    assert library.block_names[0].startswith("scalar#")


def test_shards_of_a_subfolder_are_one_model(
    models: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    """However a model is cut into shards, the library is that of whole files."""
    whole = library_from_checkpoints(save(tmp_path / "whole", models))
    sharded = save(tmp_path / "sharded", {"dogs": models["dogs"], "birds": models["birds"]})
    names = sorted(models["cats"])
    for shard in range(3):
        save(
            sharded / "cats",
            {f"model-{shard}": {name: models["cats"][name] for name in names[shard::3]}},
        )
    (sharded / "cats" / "config.json").write_text("{}")
    (sharded / "readme.txt").write_text("not a checkpoint")
    (sharded / ".hidden.safetensors").write_text("left by a download")
    assert library_from_checkpoints(sharded) == whole


def test_order_of_files_and_tensors_does_not_matter(
    models: dict[str, dict[str, torch.Tensor]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder is listed in any order, and a writer may lay tensors out in any order."""
    library = library_from_checkpoints(save(tmp_path / "a", models))
    (tmp_path / "b").mkdir()
    for name in models:
        rewrite_in_reverse(tmp_path / "a" / f"{name}.safetensors", tmp_path / "b")
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: iter(sorted(listed(path), reverse=True)))
    assert library_from_checkpoints(tmp_path / "b") == library


def rewrite_in_reverse(file: Path, folder: Path) -> None:
    """Write the same tensors, data and header in the reverse order, with metadata added."""
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    reversed_header, body = {"__metadata__": {"format": "pt"}}, b""
    for name in sorted(header, key=lambda name: header[name]["data_offsets"], reverse=True):
        start, end = header[name]["data_offsets"]
        reversed_header[name] = {
            **header[name],
            "data_offsets": [len(body), len(body) + end - start],
        }
        body += data[start:end]
    assert body != data
    text = json.dumps(reversed_header).encode()
    (folder / file.name).write_bytes(struct.pack("<Q", len(text)) + text + body)


def test_block_names_outlive_renamed_models(
    models: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    """A block's name comes from its content alone."""
    library = library_from_checkpoints(save(tmp_path / "a", models))
    renamed = {f"zz-{i}": models[name] for i, name in enumerate(sorted(models))}
    again = library_from_checkpoints(save(tmp_path / "b", renamed))
    assert again.block_names == library.block_names


def test_names_choose_models(models: dict[str, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    """Only the chosen ones are read: what others hold does not cut blocks."""
    folder = save(tmp_path, models)
    library = library_from_checkpoints(folder, names=["dogs", "cats"], granularity="largest")
    assert library.model_names == ("cats", "dogs")
    assert library.blocks == 3
    with pytest.raises(FormatError, match="has no model 'cows', it has birds, cats, dogs"):
        library_from_checkpoints(folder, names=["cows"])
    with pytest.raises(FormatError, match="no model name is given"):
        library_from_checkpoints(folder, names=[])


def test_progress_reaches_the_bytes_of_all_files(
    models: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    """Reports never go back, and end at the total."""
    reports: list[tuple[int, int]] = []
    folder = save(tmp_path, models)
    library_from_checkpoints(folder, progress=lambda done, total: reports.append((done, total)))
    total = sum(file.stat().st_size for file in folder.iterdir())
    assert {report[1] for report in reports} == {total}
    assert [report[0] for report in reports] == sorted(report[0] for report in reports)
    assert reports[-1] == (total, total)
    assert len(reports) > 3


def test_large_tensors_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tensor of 32 MB passes through memory 1 MB at a time; its last byte still counts."""
    monkeypatch.setattr(checkpoints, "CHUNK_BYTES", 2**20)
    array = np.zeros(2**25, np.uint8)
    save_arrays({"t": array}, tmp_path / "a.safetensors")
    array[-1] = 1
    save_arrays({"t": array}, tmp_path / "b.safetensors")
    del array
    tracemalloc.start()
    library = library_from_checkpoints(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert library.blocks == 2
    assert peak < 2**23


@settings(deadline=None, max_examples=40)
@given(
    st.lists(
        st.dictionaries(
            st.text(st.characters(codec="utf-8"), min_size=1, max_size=4).filter(
                lambda name: name != "__metadata__"
            ),
            st.tuples(st.integers(0, 3), st.integers(0, 2)),
            min_size=1,
            max_size=5,
        ).filter(lambda tensors: any(length for length, _ in tensors.values())),
        min_size=1,
        max_size=5,
    )
)
def test_blocks_are_the_largest_groups_and_lose_no_byte(
    tmp_path_factory: pytest.TempPathFactory, drawn: list[dict[str, tuple[int, int]]]
) -> None:
    """Against sets: content is a (length, value) pair, a block is all that has one model set."""
    folder = tmp_path_factory.mktemp("drawn")
    contents: list[set[tuple[int, int]]] = []
    for m, tensors in enumerate(drawn):
        save_arrays(
            {name: np.full(length, value, np.int16) for name, (length, value) in tensors.items()},
            folder / f"{m}.safetensors",
        )
        contents.append({content for content in tensors.values() if content[0]})
    expected: dict[tuple[bool, ...], int] = {}
    for content in set().union(*contents):
        where = tuple(content in held for held in contents)
        expected[where] = expected.get(where, 0) + 2 * content[0]
    library = library_from_checkpoints(folder, granularity="largest")
    columns = [tuple(column) for column in library.model_blocks.T.tolist()]
    assert dict(zip(columns, library.block_size.tolist(), strict=True)) == expected
    assert library.blocks == len(expected)
    sizes = [sum(2 * length for length, _ in held) for held in contents]
    assert library.model_size.tolist() == sizes
    assert coarse_grained(library).block_size.tolist() == sizes


# --- blocks of a size that fits -----------------------------------------------------------------


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of two models with a trunk of 12 layers and an embedding, and own heads."""
    folder = tmp_path_factory.mktemp("trunk")
    rng = np.random.default_rng(0)
    shared = {
        f"model.layers.{i}.{part}.weight": rng.random((25, 10))
        for i in range(12)
        for part in ("attn", "mlp")
    }
    shared["model.embed.weight"] = rng.random((50, 100))
    for name in ("cats", "dogs"):
        own = {"head.weight": rng.random(100), "head.bias": rng.random(25)}
        save_arrays({**shared, **own}, folder / f"{name}.safetensors")
    return folder


def cut(folder: Path, **how: Any) -> list[tuple[str, int]]:
    """Return name without hash and size of the blocks that are in both models."""
    library = library_from_checkpoints(folder, **how)
    assert library.model_size.tolist() == [12 * 4000 + 40_000 + 1000] * 2
    assert len({name.split("#")[1] for name in library.block_names}) >= 3
    return [
        (name.split("#")[0], size)
        for name, size, models in zip(
            library.block_names,
            library.block_size.tolist(),
            library.block_models.tolist(),
            strict=True,
        )
        if models == 2
    ]


def test_blocks_are_layers(trunk: Path) -> None:
    """By default: a layer each, in their natural order, named after them."""
    layers = [(f"model.layers.{i}", 4000) for i in range(12)]
    assert cut(trunk) == [("model.embed", 40_000), *layers]
    assert cut(trunk, granularity="layer") == cut(trunk, granularity="block") == cut(trunk)


def test_blocks_of_several_layers(trunk: Path) -> None:
    """So many that follow one another, all of one name, or all that the models share."""
    embed = ("model.embed", 40_000)
    assert cut(trunk, granularity=5) == [
        embed,
        ("model.layers.0..model.layers.4", 20_000),
        ("model.layers.5..model.layers.9", 20_000),
        ("model.layers.10..model.layers.11", 8000),
    ]
    assert cut(trunk, granularity="stage") == [embed, ("model.layers.0..model.layers.11", 48_000)]
    assert cut(trunk, granularity="largest") == [("model.embed..model.layers.11", 88_000)]


def test_blocks_above_a_size_are_cut(trunk: Path) -> None:
    """Between tensors where that is enough, within them where not; no byte is lost."""
    layers = [(f"model.layers.{i}", 4000) for i in range(12)]
    third = [13_333, 13_333, 13_334]
    assert cut(trunk, max_block_bytes=15_000) == [
        *((f"model.embed[{i + 1}/3]", size) for i, size in enumerate(third)), *layers
    ]  # fmt: skip
    small = cut(trunk, max_block_bytes=3999)
    assert ("model.layers.10.attn.weight", 2000) in small
    assert max(size for _, size in small) <= 3999
    packed = cut(trunk, granularity="largest", max_block_bytes=50_000)
    assert packed == [
        ("model.embed..model.layers.2", 50_000),
        ("model.layers.2..model.layers.11", 38_000),
    ]


def test_odd_names_of_tensors(tmp_path: Path) -> None:
    """Numbers of thousands of digits, other digits, names without end: short names, no fault."""
    odd = (f"layers.{'9' * 5000}.w", "layers.\u0663.w", "layers.\u00b2.w", "", ".", "x" * 10_000)
    save_arrays({name: np.full(2, i) for i, name in enumerate(odd)}, tmp_path / "m.safetensors")
    library = library_from_checkpoints(tmp_path, granularity=2)
    assert library.block_size.tolist() == [16] * len(odd)
    assert max(map(len, library.block_names)) < 220


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"granularity": "tensor"}, "granularity: 'tensor' is not allowed"),
        ({"granularity": 0}, "granularity: 0 is not allowed"),
        ({"granularity": True}, "granularity: True is not allowed"),
        ({"max_block_bytes": 0}, "max_block_bytes: 0 is not allowed"),
    ],
)
def test_bad_cuts_are_refused(trunk: Path, how: dict[str, Any], message: str) -> None:
    """In one line, before anything is read."""
    with pytest.raises(ValueError, match=re.escape(message)):
        library_from_checkpoints(trunk, **how)


def test_too_many_blocks_are_refused(trunk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the estimate, before they are made."""
    monkeypatch.setattr(content_blocks, "MOST_BLOCKS", 1000)
    with pytest.raises(ValueError, match=r"max_block_bytes: 10 makes about .* at most 1000"):
        library_from_checkpoints(trunk, max_block_bytes=10)


def test_layers_that_fit_are_cached(trunk: Path, tmp_path: Path) -> None:
    """A trunk larger than a node is cached nowhere as one block, and layer by layer it is."""
    delays = {}
    for granularity in ("largest", "layer"):
        library = library_from_checkpoints(trunk, granularity=granularity)
        write_library(tmp_path / "library.json", library)
        scenario = tmp_path / "s.toml"
        scenario.write_text(
            'slots = 1\nlibrary.file = "library.json"\n[nodes]\ncount = 2\nantennas = 2\n'
            "storage_gb = 60e-6\n[users]\ncount = 4\n"
        )
        result = solve(read_scenario(scenario).generate(0), "exact", time_limit=20.0)
        assert result.solution is not None
        assert bool(result.solution.cache[..., library.block_models > 1].any()) == (
            granularity == "layer"
        )
        delays[granularity] = result.delay
    assert delays["layer"] < 0.9 * delays["largest"]


# --- what is refused ----------------------------------------------------------------------------


def refused(folder: Path, message: str) -> None:
    """Check that reading the folder fails in one line that names a path in it."""
    with pytest.raises(FormatError, match=re.escape(message)) as caught:
        library_from_checkpoints(folder)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(folder))


def valid_file() -> bytes:
    """Return the bytes of a small valid checkpoint: one float32 tensor of three values."""
    header = b'{"t":{"dtype":"F32","shape":[3],"data_offsets":[0,12]}}'
    return struct.pack("<Q", len(header)) + header + bytes(range(12))


def test_the_file_that_is_damaged_below_is_valid(tmp_path: Path) -> None:
    """Otherwise the refusals below would prove nothing."""
    (tmp_path / "a.safetensors").write_bytes(valid_file())
    library = library_from_checkpoints(tmp_path)
    assert isinstance(library, ModelLibrary)
    assert library.block_size.tolist() == [12]


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    """A file cut at any byte, in its length, header or data, is named as corrupt."""
    for length in range(len(valid_file())):
        (tmp_path / "a.safetensors").write_bytes(valid_file()[:length])
        refused(tmp_path, "a.safetensors: is corrupt or truncated")


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 64,
        b"<html>not found</html>" * 10,
        struct.pack("<Q", 2**40) + b"{}",
        struct.pack("<Q", 8) + b"not json" + bytes(4),
        struct.pack("<Q", 2) + b"[]",
        valid_file() + b"more",
        valid_file().replace(b"[3]", b"[4]"),
        valid_file().replace(b"[0,12]", b"[4,16]"),
        valid_file().replace(b"[0,12]", b"[12,0]"),
        valid_file().replace(b"[0,12]", b"[0,-1]"),
    ],
)
def test_garbage_is_refused(content: bytes, tmp_path: Path) -> None:
    """Headers that are no JSON, or lie about length, type, shape or place of a tensor."""
    (tmp_path / "a.safetensors").write_bytes(content)
    refused(tmp_path, "a.safetensors: is corrupt or truncated")


def test_an_unknown_type_of_numbers_is_named(tmp_path: Path) -> None:
    """It is no damage: a later version of the format may know it."""
    (tmp_path / "a.safetensors").write_bytes(valid_file().replace(b"F32", b"F99"))
    refused(tmp_path, "a.safetensors: has a tensor of type 'F99', known are `BOOL`")


@pytest.mark.filterwarnings("ignore:'big'. its 2 files are read as one model")
def test_a_damaged_shard_is_named(
    models: dict[str, dict[str, torch.Tensor]], tmp_path: Path
) -> None:
    """The line names the very file within the subfolder."""
    save(tmp_path, models)
    save(tmp_path / "big", {"part-1": models["cats"]})
    whole = (tmp_path / "big" / "part-1.safetensors").read_bytes()
    (tmp_path / "big" / "part-2.safetensors").write_bytes(whole[:-100])
    refused(tmp_path, "part-2.safetensors: is corrupt or truncated")


def test_folders_without_checkpoints_are_refused(tmp_path: Path) -> None:
    """Missing, a file, empty, or full of other things."""
    refused(tmp_path / "none", "no such folder")
    (tmp_path / "file").write_text("x")
    refused(tmp_path / "file", "is not a folder")
    (tmp_path / "other").mkdir()
    refused(tmp_path / "other", "has no .safetensors file")
    (tmp_path / "other" / "model.bin").write_text("x")
    (tmp_path / "other" / "deep" / "er").mkdir(parents=True)
    refused(tmp_path / "other", "has no .safetensors file of a model; 'model.bin': skipped, only")


def test_a_model_without_bytes_is_refused(tmp_path: Path) -> None:
    """A checkpoint of no tensors, or of empty ones, is no model."""
    save(tmp_path, {"hollow": {"t": torch.zeros(0)}})
    refused(tmp_path, "model 'hollow' has no tensor with any bytes")


def test_a_model_twice_is_refused(tmp_path: Path) -> None:
    """x.safetensors beside a folder x of shards: which is meant cannot be known."""
    save(tmp_path, {"x": {"t": torch.ones(3)}})
    save(tmp_path / "x", {"shard": {"t": torch.ones(3)}})
    refused(tmp_path, "model 'x' is there as a file and as a folder")


def test_odd_entries_are_refused_in_one_line(tmp_path: Path) -> None:
    """A dangling link, a pipe (which would block for ever) and a name of two lines."""
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / "a.safetensors").symlink_to(tmp_path / "gone")
    refused(tmp_path / "link", "a.safetensors: is a link to a file that is not there")
    (tmp_path / "pipe").mkdir()
    os.mkfifo(tmp_path / "pipe" / "a.safetensors")
    refused(tmp_path / "pipe", "a.safetensors: is not a regular file")
    (tmp_path / "name").mkdir()
    (tmp_path / "name" / "two\nlines.safetensors").write_bytes(valid_file())
    refused(tmp_path / "name", "model_names[0]: 'two\\nlines' is not allowed")
