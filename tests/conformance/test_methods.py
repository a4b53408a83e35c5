"""Our own methods pass every check that third parties' methods must pass."""

from __future__ import annotations

import pytest

from finecast.testing import CHECKS
from solvers.registry import methods

ALL = sorted(name for name, method in methods().items() if not method.needs_training)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ALL)
def test_conformance(name, check):
    """The rule that the check's docstring states holds for the method."""
    check(name)
