"""Model libraries: sizes and sharing by hand, files that round-trip, bad input refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import DATA

from finecast.problem import library as library_module
from finecast.problem.files import FormatError
from finecast.problem.library import (
    ModelLibrary,
    coarse_grained,
    combine,
    library_of,
    read_library,
    sharing_statistics,
    write_library,
)

LIBRARIES = DATA / "libraries"


def small() -> ModelLibrary:
    """Three blocks of 10, 20, 30 byte; a = {0, 1}, b = {1, 2}: only block 1 is shared."""
    return ModelLibrary(
        block_size=np.array([10, 20, 30]),
        model_blocks=np.array([[True, True, False], [False, True, True]]),
        block_names=("x", "y", "z"),
        model_names=("a", "b"),
        model_family=("F", "G"),
    )


@st.composite
def libraries(draw: st.DrawFn) -> ModelLibrary:
    """Draw any valid library; the diagonal gives every model a block and the other way round.

    A block in all 5 models is stored 5 times in coarse grain: 30 * 2^57 bytes are within 2^62.
    """
    models, blocks = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    contains = np.array(
        draw(
            st.lists(
                st.lists(st.booleans(), min_size=blocks, max_size=blocks),
                min_size=models,
                max_size=models,
            )
        )
    )
    for i in range(max(models, blocks)):
        contains[i % models, i % blocks] = True
    text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=5).filter(str.isprintable)
    return ModelLibrary(
        block_size=np.array(
            draw(st.lists(st.integers(1, 2**57), min_size=blocks, max_size=blocks))
        ),
        model_blocks=contains,
        block_names=tuple(
            draw(st.lists(text, min_size=blocks, max_size=blocks, unique=True)),
        ),
        model_names=tuple(draw(st.lists(text, min_size=models, max_size=models, unique=True))),
        model_family=tuple(draw(st.lists(text, min_size=models, max_size=models))),
    )


def test_counts_sizes_and_families_by_hand() -> None:
    """Model sizes are 10 + 20 and 20 + 30; the shared block has two families, hence "mixed"."""
    library = small()
    assert (library.blocks, library.models) == (3, 2)
    assert library.model_size.tolist() == [30, 50]
    assert library.block_models.tolist() == [1, 2, 1]
    assert library.block_family == ("F", "mixed", "G")


def test_default_names() -> None:
    """Without names, blocks are pb0, pb1, ... and models model0, ..., of no family."""
    library = ModelLibrary(np.array([1, 2]), np.array([[True, True]]))
    assert library.block_names == ("pb0", "pb1")
    assert library.model_names == ("model0",)
    assert library.model_family == ("",)
    assert library.block_family == ("", "")


def test_arrays_are_copies_and_read_only() -> None:
    """A library never changes: neither through its arrays nor through those it was made from."""
    size = np.array([10, 20])
    library = ModelLibrary(size, np.array([[True, True]]))
    size[0] = 99
    assert library.block_size.tolist() == [10, 20]
    for array in (
        library.block_size,
        library.model_blocks,
        library.model_size,
        library.block_models,
    ):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_equality_is_that_of_content() -> None:
    """Equal content is equal and hashes alike; any field that differs makes another library."""
    assert small() == small()
    assert hash(small()) == hash(small())
    assert small() != "a library"
    different = [
        replace(small(), block_size=np.array([10, 20, 31])),
        replace(small(), model_blocks=np.ones((2, 3), np.bool_)),
        replace(small(), block_names=("x", "y", "w")),
        replace(small(), model_names=("a", "c")),
        replace(small(), model_family=("F", "F")),
    ]
    assert len({small(), *different}) == 6
    assert len({library.content_hash for library in (small(), *different)}) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"block_size": [10, 0, 30]}, r"block_size[1]: 0 is not allowed, must be >= 1"),
        ({"block_size": [10, -5, 30]}, r"block_size[1]: -5 is not allowed"),
        ({"block_size": [10.5, 20.0, 30.0]}, r"block_size: elements are float64, expected int"),
        ({"block_size": [10, 20, 2**62 + 1]}, r"block_size[2]: 4611686018427387905"),
        ({"block_size": [2**61, 2**61, 1]}, r"sums to 4611686018427387905 bytes"),
        ({"block_size": []}, r"0 blocks in 6 models given"),
        ({"model_blocks": np.zeros((0, 3), np.bool_)}, r"3 blocks in 0 models given"),
        ({"model_blocks": True}, r"3 blocks in 0 models given"),
        ({"model_blocks": np.ones((3, 2), np.bool_)}, r"model_blocks: shape is (3, 2)"),
        ({"model_blocks": np.ones((2, 3))}, r"model_blocks: elements are float64, expected bool"),
        (
            {"model_blocks": [[True, True, True], [False, False, False]]},
            r"model_blocks[1]: model 'b' has no block",
        ),
        (
            {"model_blocks": [[True, False, True], [True, False, False]]},
            r"model_blocks[:, 1]: block 'y' is in no model",
        ),
        ({"block_names": ("x", "y", "x")}, r"block_names[2]: 'x' is already block_names[0]"),
        ({"block_names": ("x", "y")}, r"block_names: 2 given, expected 3"),
        ({"block_names": ("x", "", "z")}, r"block_names[1]: '' is not allowed"),
        ({"block_names": ("x", "y\n", "z")}, r"block_names[1]: 'y\n' is not allowed"),
        ({"model_names": ("a", "a")}, r"model_names[1]: 'a' is already model_names[0]"),
        ({"model_family": ("F", 3)}, r"model_family[1]: 3 is not allowed"),
    ],
)
def test_constructor_refuses(change: dict[str, Any], message: str) -> None:
    """What is not a library is refused in one line that says where and what is allowed."""
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        replace(small(), **change)
    assert "\n" not in str(caught.value)


def test_sharing_statistics_by_hand() -> None:
    """Apart 30 + 50 = 80 bytes, shared 60: a quarter is saved; block 1 is 2/3 of a, 2/5 of b."""
    statistics = sharing_statistics(small())
    assert statistics.separate_bytes == 80
    assert statistics.deduplicated_bytes == 60
    assert statistics.saved_bytes == 20
    assert statistics.saved_share == pytest.approx(0.25)
    assert statistics.reusable_blocks == 1
    assert statistics.blocks_per_model_min == statistics.blocks_per_model_max == 2
    assert statistics.blocks_per_model_mean == 2.0
    assert statistics.shared_share == pytest.approx((2 / 3, 2 / 5))


def test_statistics_of_the_tiny_library_by_hand() -> None:
    """kB: stem 600 and trunk 900 in all three models, neck 400 in two, heads 200, 300, 1100.

    Models 2100, 2200 and 2600 (6900 in all); blocks 3500; shared 1900, 1900 and 1500.
    """
    library = read_library(LIBRARIES / "tiny.json")
    assert (library.models, library.blocks) == (3, 6)
    assert library.model_size.tolist() == [2_100_000, 2_200_000, 2_600_000]
    statistics = sharing_statistics(library)
    assert statistics.separate_bytes == 6_900_000
    assert statistics.deduplicated_bytes == 3_500_000
    assert statistics.reusable_blocks == 3
    assert statistics.blocks_per_model_min == 3
    assert statistics.blocks_per_model_max == 4
    assert statistics.shared_share == pytest.approx((19 / 21, 19 / 22, 15 / 26))


def test_separate_bytes_do_not_overflow() -> None:
    """Four copies of 2^61 bytes are 2^63, one more than int64 holds."""
    library = ModelLibrary(np.array([2**61]), np.ones((4, 1), np.bool_))
    assert sharing_statistics(library).separate_bytes == 2**63


def test_coarse_grained_has_one_block_per_model() -> None:
    """Model sizes stay, sharing goes: each model is one block of its own, 30 and 50 bytes."""
    coarse = coarse_grained(small())
    assert coarse.block_size.tolist() == [30, 50]
    assert coarse.model_blocks.tolist() == [[True, False], [False, True]]
    assert coarse.model_names == coarse.block_names == ("a", "b")
    assert coarse.model_family == ("F", "G")
    assert sharing_statistics(coarse).saved_bytes == 0


def test_combine_is_a_disjoint_union_with_unique_names() -> None:
    """Blocks of different libraries are different even under one name; taken names get #2."""
    both = combine([small(), small(), ModelLibrary(np.array([7]), np.array([[True]]))])
    assert both.block_size.tolist() == [10, 20, 30, 10, 20, 30, 7]
    assert both.block_names == ("x", "y", "z", "x#2", "y#2", "z#2", "pb0")
    assert both.model_names == ("a", "b", "a#2", "b#2", "model0")
    assert both.model_family == ("F", "G", "F", "G", "")
    assert both.model_size.tolist() == [30, 50, 30, 50, 7]
    assert both.model_blocks.sum() == 9
    assert combine([small()]) == small()


def test_combine_keeps_names_unique_when_the_new_name_is_taken() -> None:
    """x, then x again as x#2: a later block that is really called x#2 must give way."""
    one, other = (library_of({name: 1}, {"model": [name]}) for name in ("x", "x#2"))
    assert combine([one, one, other]).block_names == ("x", "x#2", "x#2#2")


def test_combine_refuses_nothing() -> None:
    """The union of no library would be a library of no model."""
    with pytest.raises(ValueError, match="libraries: none given"):
        combine([])


@settings(deadline=None, max_examples=50)
@given(libraries())
def test_sizes_are_conserved(library: ModelLibrary) -> None:
    """Summed over models or over blocks times their models, the bytes are the same."""
    statistics = sharing_statistics(library)
    by_blocks = sum(
        size * count
        for size, count in zip(
            library.block_size.tolist(), library.block_models.tolist(), strict=True
        )
    )
    assert statistics.separate_bytes == by_blocks
    assert statistics.saved_bytes >= 0
    coarse = sharing_statistics(coarse_grained(library)).deduplicated_bytes
    assert coarse == statistics.separate_bytes


@settings(deadline=None, max_examples=50)
@given(libraries())
def test_file_round_trip_is_exact(
    tmp_path_factory: pytest.TempPathFactory, library: ModelLibrary
) -> None:
    """Write, read, write: the same library and the same bytes."""
    folder = tmp_path_factory.mktemp("library")
    write_library(folder / "a.json", library)
    read = read_library(folder / "a.json")
    assert read == library
    write_library(folder / "b.json", read)
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()


@pytest.mark.parametrize("name", ["tiny", "vision", "llm"])
def test_shipped_files_are_what_write_library_writes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The shipped files were written by us, not by hand: byte for byte, version text included."""
    shipped = LIBRARIES / f"{name}.json"
    monkeypatch.setattr(
        library_module, "FINECAST_VERSION", json.loads(shipped.read_text())["finecast_version"]
    )
    write_library(tmp_path / "again.json", read_library(shipped))
    assert (tmp_path / "again.json").read_bytes() == shipped.read_bytes()


def test_file_is_read_whatever_order_a_person_writes(tmp_path: Path) -> None:
    """A model's blocks are a set, and family and finecast_version may be left out."""
    path = tmp_path / "hand.json"
    path.write_text(
        """{"models": [{"blocks": ["y", "x"], "name": "a"}],
            "blocks": [{"size_bytes": 1, "name": "x"}, {"name": "y", "size_bytes": 2}],
            "version": 1, "format": "finecast-library"}"""
    )
    assert read_library(path) == library_of({"x": 1, "y": 2}, {"a": ["x", "y"]})


def content() -> dict[str, Any]:
    """Return the JSON content of a valid file: blocks x, y; models a (family F) and b."""
    return {
        "format": "finecast-library",
        "version": 1,
        "finecast_version": "0.1.0",
        "blocks": [{"name": "x", "size_bytes": 1}, {"name": "y", "size_bytes": 2}],
        "models": [
            {"name": "a", "family": "F", "blocks": ["x", "y"]},
            {"name": "b", "blocks": ["x"]},
        ],
    }


def test_the_content_that_is_broken_below_is_valid(tmp_path: Path) -> None:
    """Otherwise the refusals below would prove nothing."""
    path = tmp_path / "library.json"
    path.write_text(json.dumps(content()))
    assert read_library(path).models == 2


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (["format"], "other", "is not a model library"),
        (["version"], 2, "has version 2 of 'finecast-library', written by finecast '0.1.0'"),
        (["version"], 0, "version: 0 is not allowed"),
        (["version"], True, "version: True is not allowed"),
        (["version"], "1", "version: '1' is not allowed"),
        (["blocks"], [], "blocks: must be a list of at least one entry"),
        (["blocks"], {"x": 1}, "blocks: must be a list"),
        (["blocks", 1], "y", "blocks[1]: 'y' is not allowed, must be an object"),
        (["blocks", 1, "size_bytes"], -1, "blocks[1].size_bytes: -1 is not allowed"),
        (["blocks", 1, "size_bytes"], 0, "blocks[1].size_bytes: 0 is not allowed"),
        (["blocks", 1, "size_bytes"], 1.5, "blocks[1].size_bytes: 1.5 is not allowed"),
        (["blocks", 1, "size_bytes"], True, "blocks[1].size_bytes: True is not allowed"),
        (["blocks", 1, "size_bytes"], None, "blocks[1].size_bytes: None is not allowed"),
        (["blocks", 1, "size_bytes"], "2", "blocks[1].size_bytes: '2' is not allowed"),
        (["blocks", 1, "size_bytes"], 2**62 + 1, "must be an integer from 1 to 2^62"),
        (["blocks", 1, "size_bytes"], 10**400, "must be an integer from 1 to 2^62"),
        (["blocks", 1, "size_bytes"], 2**62, "sums to 4611686018427387905 bytes"),
        (["blocks", 1, "size_bytes"], float("nan"), "NaN is not allowed"),
        (["blocks", 1, "size_bytes"], float("inf"), "Infinity is not allowed"),
        (["blocks", 1, "size"], 2, "blocks[1].size: unknown key, known are name, size_bytes"),
        (["blocks", 1, "name"], "x", "blocks[1].name: 'x' is already taken"),
        (["blocks", 1, "name"], 7, "blocks[1].name: 7 is not allowed"),
        (["blocks", 1, "name"], "", "blocks[1].name: '' is not allowed"),
        (["blocks", 1, "name"], "\ud800", "blocks[1].name: '\\ud800' is not allowed"),
        (["models"], None, "models: must be a list of at least one entry"),
        (["models", 0], [], "models[0]: [] is not allowed, must be an object"),
        (["models", 1, "name"], "a", "models[1].name: 'a' is already taken"),
        (["models", 1, "name"], "two\nlines", "models[1].name: 'two\\nlines' is not allowed"),
        (["models", 1, "family"], 3, "models[1].family: 3 is not allowed"),
        (["models", 1, "blocks"], [], "models[1].blocks: must be a list of at least one"),
        (["models", 1, "blocks"], "x", "models[1].blocks: must be a list of at least one"),
        (["models", 0, "blocks", 1], "z", "models[0].blocks[1]: unknown block 'z'"),
        (["models", 0, "blocks", 1], 1, "models[0].blocks[1]: unknown block 1"),
        (["models", 0, "blocks", 1], "x", "models[0].blocks[1]: block 'x' is listed twice"),
        (["models", 0, "blocks"], ["x"], "model_blocks[:, 1]: block 'y' is in no model"),
        (["comment"], "hello", "comment: unknown key"),
    ],
)
def test_read_refuses(where: list[Any], value: Any, message: str, tmp_path: Path) -> None:
    """Each fault gives one line with the file and the field."""
    broken: Any = content()
    target = broken
    for key in where[:-1]:
        target = target[key]
    target[where[-1]] = value
    path = tmp_path / "library.json"
    path.write_text(json.dumps(broken))
    with pytest.raises(FormatError, match=re.escape(message)) as caught:
        read_library(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 250


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "is not a model library"),
        ("null", "is not a model library"),
        ('{"version": 1}', "is not a model library"),
    ],
)
def test_read_refuses_what_is_no_library(text: str, message: str, tmp_path: Path) -> None:
    """Malformed JSON, or JSON of something else, is named as such."""
    path = tmp_path / "library.json"
    path.write_text(text)
    with pytest.raises(FormatError, match=message):
        read_library(path)


def test_read_refuses_too_many_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of moderate size cannot make us allocate an incidence matrix of any size."""
    monkeypatch.setattr(library_module, "LARGEST_INCIDENCE", 3)
    path = tmp_path / "library.json"
    path.write_text(json.dumps(content()))
    with pytest.raises(FormatError, match="2 models of 2 blocks are more than"):
        read_library(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    """No file, or a folder in its place, to read or to write: one line each."""
    with pytest.raises(FormatError, match="no such file"):
        read_library(tmp_path / "none.json")
    with pytest.raises(FormatError, match="is a directory"):
        read_library(tmp_path)
    with pytest.raises(FormatError, match="is a directory"):
        write_library(tmp_path, small())
