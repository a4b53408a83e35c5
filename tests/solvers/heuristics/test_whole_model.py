"""Whole models by hand, with shared blocks stored once and more than once."""

from __future__ import annotations

import numpy as np
import pytest

from finecast.solvers.heuristics.whole_model import whole_model_caches

MODELS = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]], dtype=bool)
SIZE = np.array([4, 1, 2, 5])


def saving(per_byte: list[float]) -> np.ndarray:
    """Return the costs per byte for one node: cached costs 0."""
    return np.array([[worth, 0.0] for worth in per_byte])


def test_shared_once_by_hand():
    """One node of 7 byte, a byte of each block saving 1, 1, 1 and 1.1 s.

    Per byte model 2 saves most, 1.1, and takes 5 of 7 byte: nothing else fits. Below 1 s it
    comes after model 0 (5 byte); then model 1 costs only the 2 byte it lacks.
    """
    one = whole_model_caches(saving([1, 1, 1, 1.1]), SIZE, np.array([7]), MODELS, shared_once=True)
    assert one.tolist() == [[False, False, False, True]]
    two = whole_model_caches(saving([1, 1, 1, 0.9]), SIZE, np.array([7]), MODELS, shared_once=True)
    assert two.tolist() == [[True, True, True, False]]


def test_every_model_its_own_copy_by_hand():
    """Stored once per model, model 1 needs 6 more byte beside model 0: it does not fit in 7.

    In 11 byte it does, but saves only 2 s on 6 byte, less per byte than model 2, 4.5 s on 5.
    """
    for storage, expected in ((7, [True, True, False, False]), (11, [True, True, False, True])):
        caches = whole_model_caches(
            saving([1, 1, 1, 0.9]), SIZE, np.array([storage]), MODELS, shared_once=False
        )
        assert caches.tolist() == [expected]


@pytest.mark.parametrize("shared_once", [True, False])
def test_models_are_whole_and_fit(shared_once):
    """Every cache is a union of models; its distinct blocks fit."""
    rng = np.random.default_rng(5)
    for _ in range(20):
        models = rng.random((4, 6)) < 0.5
        models[:, 0] = True
        size, storage = rng.integers(1, 9, 6), rng.integers(0, 40, 2)
        per_copy = rng.random((6, 1)) * np.array([4.0, 2.0, 2.0, 1.0])
        caches = whole_model_caches(per_copy, size, storage, models, shared_once=shared_once)
        assert (caches @ size <= storage).all()
        for cache in caches:
            inside = models[~(models & ~cache).any(axis=1)]
            assert np.array_equal(inside.any(axis=0), cache)
