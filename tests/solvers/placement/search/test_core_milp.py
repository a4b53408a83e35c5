"""The core MILP against enumeration of its own programme, and what it does to a plan."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from placement_oracle import random_problem
from scipy.optimize import linprog

from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.placement.problem import PlacementProblem, placement_delay
from finecast.solvers.placement.result import Incumbent
from finecast.solvers.placement.search import core_milp, lagrangian
from finecast.solvers.placement.search.core_milp import (
    branch_and_bound,
    dive,
    dive_again,
    large_blocks_again,
    programme_of,
)
from finecast.solvers.placement.search.core_programme import core_groups
from finecast.solvers.placement.search.effort import Effort, whose_turn

POOL = 4
"""Few enough paths to enumerate."""


def mixed(seed: int, blocks: int = 30, slots: int = 3, nodes: int = 3) -> PlacementProblem:
    """Draw a problem with some large blocks, some of them equal, and many small ones."""
    rng = np.random.default_rng([seed, 5])
    drawn = random_problem(rng, nodes, 6, slots)
    group = drawn.group[:, rng.integers(0, 6, blocks)]
    size = np.where(np.arange(blocks) < blocks // 3, rng.choice([200, 310, 400], blocks), 7)
    storage = np.full(nodes, int(0.3 * size.sum()))
    return replace(drawn, block_size=size, storage=storage, group=group)


def at_the_start(problem: PlacementProblem):
    """Return incumbent, groups, ascent and the plan of greedy as an assignment."""
    origin = lagrangian._origin(problem, 10)
    incumbent = Incumbent(problem, origin.nothing.placement, 0.0)
    incumbent.offer(lagrangian.greedy_placement(problem))
    ascent = lagrangian._ascent(incumbent, origin, 1e-4, NEVER)
    groups = core_groups(problem, origin.nothing.classes)
    return incumbent, groups, ascent, lagrangian._assigned(incumbent, origin.nothing.classes)


@pytest.mark.parametrize("change", ["all small", "all large", "pipelined"])
def test_it_steps_aside(change):
    """Nothing large, nothing small, or a delay that is no sum: there is no core."""
    problem = mixed(0)
    assert core_groups(problem, lagrangian._origin(problem, 10).nothing.classes) is not None
    if change == "pipelined":
        problem = replace(problem, schedule="pipelined")
    else:
        size = np.full(problem.blocks, 7 if change == "all small" else 300)
        problem = replace(problem, block_size=size)
    assert core_groups(problem, lagrangian._origin(problem, 10).nothing.classes) is None


@pytest.mark.parametrize("branch", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_plan_within_the_rules(seed, branch):
    """What comes of it fits and says its own delay; blocks left out have the empty path."""
    problem = mixed(seed)
    _, groups, ascent, assignment = at_the_start(problem)
    rng = np.random.default_rng(seed)
    given = (assignment, groups, ascent.master, ascent.best, rng, NEVER)
    if branch:
        found = large_blocks_again(*given)
        if found is None:
            return
        plan, left = found
        assert not plan.cached[:, left].any()
    else:
        plan = dive_again(*given)
        assert plan.sums.sum() <= assignment.sums.sum()
    assert (plan.used <= problem.storage).all()
    assert placement_delay(problem, plan.placement) == pytest.approx(plan.sums.sum())
    assert ascent.best.bound <= plan.sums.sum() * (1 + 1e-9)


def test_it_improves_plans():
    """From greedy's plans the dive alone finds better ones on most draws, and so does HiGHS."""
    for branch in (False, True):
        better = 0
        for seed in range(6):
            incumbent, groups, ascent, assignment = at_the_start(mixed(seed))
            rng = np.random.default_rng(0)
            given = (assignment, groups, ascent.master, ascent.best, rng, NEVER)
            found = large_blocks_again(*given) if branch else (dive_again(*given),)
            better += found is not None and incumbent.offer(found[0].placement)
        assert better >= 4


def enumerated(programme) -> float:
    """Least value over every whole choice for the large groups, the rest by HiGHS through SciPy."""
    large = np.flatnonzero(programme.large)
    options = []
    for group in large:
        columns = np.flatnonzero(programme.group == group).tolist()
        units = int(programme.count[group])
        options.append(list(itertools.combinations_with_replacement(columns, units)))
    small = np.flatnonzero(~programme.large[programme.group])
    columns = np.arange(len(programme.group))
    weight = programme.weight[programme.group]
    holds = programme.holds(columns).reshape(programme.free.size, -1) * weight
    seconds = weight * (programme.paths.migration + programme.paths.broadcast).sum(axis=0)
    member = (np.flatnonzero(~programme.large)[:, None] == programme.group[small]).astype(float)
    best = np.inf
    for choice in itertools.product(*options):
        taken = [column for some in choice for column in some]
        free = programme.free.reshape(-1) - holds[:, taken].sum(axis=1)
        if (free < 0).any():
            continue
        rest = linprog(seconds[small], holds[:, small], free, member, np.ones(len(member)))
        if rest.status == 0:
            best = min(best, rest.fun + seconds[taken].sum())
    return best


@pytest.mark.parametrize("seed", range(4))
def test_branch_and_bound_against_enumeration(seed):
    """With few paths HiGHS is at the best whole choice, to the gap at which it stops."""
    problem = mixed(seed, blocks=9, slots=2, nodes=2)
    _, groups, ascent, assignment = at_the_start(problem)
    programme, _, now = programme_of(
        assignment, groups, np.flatnonzero(groups.large), ascent.master, ascent.best, POOL
    )
    best, start = enumerated(programme), programme.value(now)
    share = branch_and_bound(programme, now, 0, NEVER)
    value = start if share is None else programme.value(share)
    assert best * (1 - 1e-9) <= value <= best * (1 + 1.5 * core_milp.LEAST_GAIN)


def test_a_dive_ends_whole_or_not_at_all():
    """Large blocks have whole paths that fit together; a bar below the relaxation stops it."""
    problem = mixed(1)
    _, groups, ascent, assignment = at_the_start(problem)
    programme, _, _ = programme_of(
        assignment, groups, np.flatnonzero(groups.large), ascent.master, ascent.best, POOL
    )
    value = programme.relaxed()[0]
    assert dive(programme, 0.9 * value, NEVER) is None
    assert dive(programme, np.inf, Deadline.after(0)) is None
    share = dive(programme, np.inf, NEVER)
    columns = np.arange(len(share))
    large = programme.large[programme.group[columns]]
    assert np.abs(share - np.rint(share))[large].max() <= 1e-6
    taken = programme.weight[programme.group[columns]] * share
    # The storage to the byte for large blocks, to HiGHS's tolerance with the small ones.
    whole = np.where(large, taken, 0.0)
    assert (programme.holds(columns) @ whole <= programme.free + 1e-6).all()
    assert (programme.holds(columns) @ taken <= programme.free * (1 + 1e-6) + 1e-6).all()


def test_the_search_is_the_same_again():
    """Without a time limit the core, too, depends on the seed alone; another seed may differ."""
    problem = mixed(2)
    first, second = (lagrangian.place_by_prices(problem, seed=3, patience=2) for _ in range(2))
    assert (first.placement.cache == second.placement.cache).all()
    assert first.delay == second.delay


def test_turns_go_where_something_is_gained():
    """A way that gains goes on; after failures the others have their turns, and none starves."""
    efforts = [Effort(), Effort(), Effort()]
    assert whose_turn(efforts, 1.0) == 0  # nobody has had a turn
    efforts = [Effort().after(0.0, 1.0), Effort().after(10.0, 2.0), Effort().after(0.0, 4.0)]
    assert whose_turn(efforts, 1.0) == 1  # 1 / 1, 10 / 2, 1 / 4
    turns = [0, 0, 0]
    for _ in range(60):
        turn = whose_turn(efforts, 1.0)
        turns[turn] += 1
        efforts[turn] = efforts[turn].after(0.0, (1.0, 2.0, 4.0)[turn])
    # Where none gains, all come to the same cost: 60 turns are 34, 17 and 9 at 1, 2 and 4 each.
    assert turns[2] >= 7
    assert abs(turns[0] * 1.0 - turns[2] * 4.0) <= 8.0
