"""The plug-in passes the checks that every method must pass."""

import pytest

from finecast.testing import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_fifo(check):
    """The rule that the check's docstring states holds for the method."""
    check("fifo")
