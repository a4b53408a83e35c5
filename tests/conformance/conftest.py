"""Hundreds of checks ask for the beams of the same few instances: each is searched once a process.

But for `check_seed`, which searches every time.
"""

from __future__ import annotations

import pytest
from searched_once import remember_beams


@pytest.fixture(autouse=True)
def _beams_are_searched_once(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every test but those on repeated answers."""
    if "check_seed" not in request.node.name:
        remember_beams(monkeypatch)
