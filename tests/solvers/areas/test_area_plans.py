"""Plans of areas: what comes first, what a limit leaves, areas without requests."""

from __future__ import annotations

import numpy as np
import pytest
from two_areas import three_areas, two_areas

import finecast
from finecast.solvers.areas.air import subsets_serve


def test_lagrangian_is_no_worse_than_greedy() -> None:
    """Its plan comes first."""
    for instance in (two_areas(4, slots=2), three_areas()):
        greedy = finecast.solve(instance, "greedy", seed=2)
        assert finecast.solve(instance, "lagrangian", seed=2).delay <= greedy.delay


@pytest.mark.parametrize("method", ["greedy", "lagrangian"])
def test_without_time_every_wide_message_has_a_beam(method: str) -> None:
    """One start each: a silent message would be a delay without end."""
    found = finecast.solve(three_areas(), method, seed=2, time_limit=0.01)
    assert found.evaluation.feasible
    assert np.isfinite(found.delay)
    assert found.delay >= found.lower_bound
    for broadcast in found.solution.broadcasts:
        assert (broadcast.rate > 0).all()


def test_an_area_may_have_no_groups() -> None:
    """No messages, one node: the table stays empty. With two nodes a set serves as its subsets."""
    assert subsets_serve(np.zeros((0, 2))).shape == (0, 2)
    table = np.array([[np.inf, 3.0, 2.0, np.inf]])
    assert subsets_serve(table).tolist() == [[np.inf, 3.0, 2.0, 2.0]]
