"""The method `greedy`: caches where delay saved per byte is largest, knowing all requests."""

from __future__ import annotations

from finecast.problem.library import ModelLibrary
from finecast.solvers.placement.greedy import greedy_placement
from finecast.solvers.placement.problem import Placement, PlacementProblem


def place_greedily(problem: PlacementProblem, library: ModelLibrary, seed: int = 0) -> Placement:
    """Return the greedy static placement, with the best migration of every slot.

    Parameters
    ----------
    problem
        Blocks, storage, times per byte.
    library, seed
        Not used: the greedy goes by blocks and draws nothing.
    """
    return greedy_placement(problem)
