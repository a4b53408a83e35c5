"""A browser for the pages of reports."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chromium import Chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    """One browser for all tests of the page."""
    with Chromium() as chromium:
        yield chromium
