"""Synthetic libraries: the counts asked for, shared by family, nothing left over."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finecast.problem.synthetic import synthetic_library


@given(st.integers(1, 5), st.integers(0, 20), st.integers(0, 80), st.floats(0, 1))
def test_counts_and_sharing(families, more_models, more_blocks, share):
    """As many models, blocks and families as asked; no block crosses families; sizes add up."""
    models = families + more_models
    blocks = models + families + more_blocks
    made = synthetic_library(
        np.random.default_rng(0),
        models=models,
        blocks=blocks,
        families=families,
        shared_share=share,
        total_gb=1.0,
    )
    assert (made.models, made.blocks) == (models, blocks)
    assert set(made.model_family) == {f"family{f}" for f in range(families)}
    assert "mixed" not in made.block_family
    assert made.block_size.sum() == pytest.approx(1e9, abs=blocks)
    # Every model owns at least one block besides those it shares.
    assert ((made.block_models == 1) @ made.model_blocks.T >= 1).all()


def test_too_few_blocks_are_refused():
    """Three models of one family need a trunk block and a block of their own each: four."""
    with pytest.raises(ValueError, match=r"blocks: 3.0 is not allowed, must be >= 4"):
        synthetic_library(np.random.default_rng(0), models=3, blocks=3)
