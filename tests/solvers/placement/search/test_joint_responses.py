"""Joint responses: all blocks of a tiny problem together are its optimum, and delays never rise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from placement_oracle import optimum, random_problem

from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.placement.chains import classes, paths_of_placement
from finecast.solvers.placement.exact.pyomo_model import everything_from_the_cloud
from finecast.solvers.placement.greedy import greedy_placement
from finecast.solvers.placement.problem import Placement, PlacementProblem, placement_delay
from finecast.solvers.placement.search import joint_responses
from finecast.solvers.placement.search.joint_responses import (
    joint_response,
    most_together,
    respond_together,
)
from finecast.solvers.placement.search.sweeps import Assignment, assignment_of
from finecast.solvers.placement.transitions import transitions

SIZES = [(1, 4, 2), (2, 3, 1), (2, 4, 1), (2, 2, 2), (3, 2, 1), (1, 2, 3)]


def assigned(problem: PlacementProblem, placement: Placement) -> Assignment:
    """Return a placement as a state of the search."""
    return assignment_of(problem, classes(problem), *paths_of_placement(problem, placement))


@pytest.mark.parametrize("size", SIZES)
def test_all_blocks_together_are_the_optimum(size: tuple[int, int, int]) -> None:
    """With all blocks in one response and all storage free, its value is that of enumeration."""
    rng = np.random.default_rng([21, *size])
    for _ in range(20):
        problem = random_problem(rng, *size)
        tables = classes(problem)
        arcs = transitions(tables)[tables.of_block] * problem.block_size[:, None, None, None]
        free = np.tile(problem.storage, (problem.slots, 1))
        value, sets = joint_response(arcs, problem.block_size, free)
        assert value == pytest.approx(optimum(problem), rel=1e-12, abs=1e-12)
        held = (sets[:, :, None] >> np.arange(problem.nodes)) & 1
        assert (np.einsum("tjn,j->tn", held, problem.block_size) <= free).all()


@pytest.mark.parametrize("seed", range(6))
def test_a_turn_is_feasible_no_slower_and_repeats(seed: int, monkeypatch) -> None:
    """From the slowest and from greedy's placement: judged, never slower, the same every time."""
    monkeypatch.setattr(joint_responses, "TURN_WORK", 0.05)
    drawn = random_problem(np.random.default_rng([22, seed]), 3, 9, 3)
    problem = replace(drawn, storage=np.full(3, int(0.3 * drawn.block_size.sum())))
    for start in (everything_from_the_cloud(problem), greedy_placement(problem)):
        found = [
            respond_together(
                assigned(problem, start), np.random.default_rng(seed), goal=0.0, deadline=NEVER
            )
            for _ in range(2)
        ]
        delays = [placement_delay(problem, each.placement) for each in found]
        assert delays[0] <= placement_delay(problem, start) * (1 + 1e-12)
        assert delays[0] == delays[1]


def test_a_turn_ends_with_the_time_and_at_the_goal() -> None:
    """Without time, or at the goal, the placement stays as it is."""
    problem = random_problem(np.random.default_rng(23), 2, 6, 2)
    start = greedy_placement(problem)
    delay = placement_delay(problem, start)
    for goal, deadline in ((0.0, Deadline.after(0)), (delay * 2, NEVER)):
        found = respond_together(
            assigned(problem, start), np.random.default_rng(0), goal=goal, deadline=deadline
        )
        assert placement_delay(problem, found.placement) <= delay * (1 + 1e-12)
        assert (found.cached == assigned(problem, start).cached).all()


def test_where_blocks_cannot_respond_together() -> None:
    """A pipelined schedule, nodes in plenty, and tables too large: none."""
    rng = np.random.default_rng(24)
    problem = random_problem(rng, 3, 9, 2)
    assert most_together(problem) == 5
    assert most_together(replace(problem, schedule="pipelined")) == 0
    assert most_together(random_problem(rng, 8, 9, 1)) == 1
    wide = random_problem(rng, 9, 2, 1)
    assert most_together(wide) == 0
