"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest
import pkgutil
import warnings
from importlib import import_module
from pathlib import Path

import pytest

import finecast


def modules_with_examples() -> list[str]:
    """Names of the modules whose source holds an example; none is imported for that."""
    names = []
    for module in pkgutil.walk_packages(finecast.__path__, "finecast."):
        spec = module.module_finder.find_spec(module.name, None)
        if spec is not None and spec.origin and ">>> " in Path(spec.origin).read_text("utf-8"):
            names.append(module.name)
    return names


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_of_module(name: str) -> None:
    """Every example prints what its docstring says, without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = doctest.testmod(import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


def test_the_kernel_has_examples() -> None:
    """The numerical core shows what it does; were no module found, nothing above would run."""
    kernel = "finecast.solvers.beamforming.kernel"
    assert {f"{kernel}.multicast", f"{kernel}.certificate"} <= set(modules_with_examples())
