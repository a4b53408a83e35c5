"""The method `greedy`: caches where delay saved per byte is largest, knowing all requests."""

from __future__ import annotations

from finecast.problem.library import ModelLibrary
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.placement.greedy import greedy_in_time
from finecast.solvers.placement.problem import Placement, PlacementProblem


def place_greedily(
    problem: PlacementProblem, library: ModelLibrary, seed: int = 0, deadline: Deadline = NEVER
) -> Placement:
    """Return the greedy static placement, with the best migration of every slot.

    Parameters
    ----------
    problem
        Blocks, storage, times per byte.
    library, seed
        Not used: the greedy goes by blocks and draws nothing.
    deadline
        When there should be a plan.
    """
    return greedy_in_time(problem, deadline)
