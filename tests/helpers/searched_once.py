"""Many tests ask for the beams of the same few instances: each is searched once a process.

The search is a function of arrays. Whether the same arrays give the same beams is for its own
tests.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from finecast.solvers.beamforming.by_name import Beams, solve_messages
from finecast.solvers.deadline import GRAIN, count_work, grains_done

CALLERS = ("rate_search", "covers", "proven", "splits")


def once(search: Callable[..., Beams]) -> Callable[..., Beams]:
    """Return the search that knows its answers; each answer counts the work of the first time."""
    known: dict[tuple[Any, ...], tuple[Beams, int]] = {}

    def again(name, channel, error, power, *, node_mask, user_mask, **options) -> Beams:
        arrays = (channel, error, power, node_mask, user_mask)
        key = (name, *sorted(options.items()), *((x.shape, x.dtype, x.tobytes()) for x in arrays))
        if key in known:
            count_work(known[key][1] * GRAIN)
        else:
            before = grains_done()
            found = search(
                name, channel, error, power, node_mask=node_mask, user_mask=user_mask, **options
            )
            known[key] = found, grains_done() - before
        return deepcopy(known[key][0])

    return again


SEARCH = once(solve_messages)


def remember_beams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Search once in a test and all that come after it in this process."""
    for caller in CALLERS:
        monkeypatch.setattr(f"finecast.solvers.{caller}.solve_messages", SEARCH)
