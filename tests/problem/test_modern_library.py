"""The library of recent models: totals are the published counts, adapters the closed form."""

from __future__ import annotations

import numpy as np
import pytest

from finecast.problem.library import read_library, sharing_statistics

PUBLISHED = {
    # Parameters as the model hub counts them in the files of weights (docs/files.md has the
    # sources), and bytes of a value.
    "meta/llama-3.1-8b": (8_030_261_248, 2),
    "qwen/qwen3-8b": (8_190_735_360, 2),
    "mistral/ministral-8b-2410": (8_019_808_256, 2),
    "openai/whisper-large-v3-turbo": (808_878_080, 2),
    "google/siglip2-so400m-384": (1_136_008_498, 4),
    "meta/dinov3-vitl16": (303_129_600, 4),
    "qwen/qwen3-embedding-0.6b": (595_776_512, 2),
    "google/embeddinggemma-300m": (302_863_104, 4),
    "snowflake/arctic-embed-l-v2": (567_754_752, 4),
}

ADAPTERS = {
    # Rank times rows and columns of every adapted matrix, layer by layer.
    # Rank 16; q and o are 4096 by 4096, k and v 4096 by 1024.
    "meta/llama-3.1-8b-chat": 16 * 32 * (2 * 8192 + 2 * 5120),
    # Rank 32; those and three of 4096 by 14336.
    "meta/llama-3.1-8b-code": 32 * 32 * (2 * 8192 + 2 * 5120 + 3 * 18432),
    # Rank 32; q and v, 1280 by 1280, of 32 encoder layers and both attentions of 4 decoder layers.
    "openai/whisper-large-v3-turbo-de": 32 * (2 * 32 + 4 * 4) * 2560,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_totals_are_the_published_counts(name: str) -> None:
    """The bytes of a base are its published parameters in the type of its weights."""
    library = read_library("modern")
    parameters, width = PUBLISHED[name]
    assert library.model_size[library.model_names.index(name)] == parameters * width


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_by_hand(name: str) -> None:
    """What an adapted model has alone is its adapter."""
    library = read_library("modern")
    own = library.model_blocks[library.model_names.index(name)] & (library.block_models == 1)
    assert library.block_size[own].sum() == ADAPTERS[name] * 2


def test_ranks_by_hand() -> None:
    """Rank times rows and columns: Qwen3-8B has 4096 by 4096 and 4096 by 1024 projections."""
    library = read_library("modern")
    size = dict(zip(library.block_names, library.block_size.tolist(), strict=True))
    attention = 2 * (4096 + 4096) + 2 * (4096 + 1024)
    assert size["qwen/qwen3-8b-chat/adapter"] == 2 * 16 * 36 * attention
    assert size["qwen/qwen3-8b-tools/adapter"] == 2 * 64 * 36 * (attention + 3 * (4096 + 12288))


def test_every_adapted_model_holds_its_base() -> None:
    """An adapted model is its base and one block more."""
    library = read_library("modern")
    bases = [name for name in library.model_names if name in PUBLISHED]
    for name, row in zip(library.model_names, library.model_blocks, strict=True):
        if name not in PUBLISHED:
            base = max((b for b in bases if name.startswith(b)), key=len)
            held = library.model_blocks[library.model_names.index(base)]
            assert (row & held == held).all(), name
            assert [library.block_names[j] for j in np.flatnonzero(row & ~held)] == [
                f"{name}/adapter"
            ]
    assert sharing_statistics(library).saved_share > 0.75
