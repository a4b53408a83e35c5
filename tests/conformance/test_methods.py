"""Our own methods pass every check that third parties' methods must pass."""

from __future__ import annotations

import pytest

from finecast.solvers.registry import methods
from finecast.testing import CHECKS

ALL = sorted(
    name for name, method in methods().items() if not method.needs_training and method.installed
)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ALL)
def test_conformance(name, check):
    """The rule that the check's docstring states holds for the method."""
    check(name)


ADDITIVE = [c for c in CHECKS if c.__name__ not in ("check_pipelined", "check_spatial")]
"""Checks on delays that are sums over blocks: a learned policy refuses the other sort."""


@pytest.mark.parametrize("check", ADDITIVE, ids=lambda check: check.__name__)
def test_conformance_of_a_shipped_checkpoint(check):
    """The same rules hold for a policy that was trained on 4 nodes, here on 2."""
    check("policy", checkpoint="dcg")
