"""The core MILP: large blocks choose whole paths together, small ones take what is left.

`core_programme` has the programme. Two ways lead to whole paths. *Diving* fixes the largest share
of a large block, prices paths anew for what is left, and goes on: paths are made for the room that
there is (R. Sadykov et al., INFORMS Journal on Computing 31 (2019), on diving in column
generation). *Branch and bound* by HiGHS takes the paths known, less those whose reduced cost alone
uses up the room for an improvement. Either frees some groups of large blocks and all small ones.
"""

from __future__ import annotations

from typing import Any

import highspy
import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.deadline import Deadline
from finecast.solvers.highs import run_within
from finecast.solvers.placement.bound import PricePoint, Prices, dual_point
from finecast.solvers.placement.chains import Classes
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.placement.search.columns import Master, empty_paths
from finecast.solvers.placement.search.core_programme import WHOLE, CoreProgramme, Groups
from finecast.solvers.placement.search.sweeps import (
    Assignment,
    fitted,
    paths_by_share,
    sweep,
)

DIVES = 40
"""Dives of one turn."""

DIVE_GROUPS = (4, 10)
"""Groups of large blocks that a dive frees: at least the first number, fewer than the second."""

DIVE_POOL, MILP_POOL = 20, 100
"""Paths of the ascent's pool that a group starts with, in a dive and for branch and bound."""

THRESHOLD = 0.003
"""Relative worsening of the delay that the first dives may bring."""

THRESHOLD_SHARE = 0.8
"""Share of the dives after which none may."""

PRICE_POINTS = 30
"""Price points near the best whose paths enter the pool before branch and bound."""

PRICE_SPREAD = 0.2
"""Standard deviation of the logarithm of their prices."""

MILP_GROUPS = (8, 25)
"""Groups of large blocks that branch and bound frees, likewise."""

PRICING_ROUNDS = 6
"""Most rounds of pricing before the first path is fixed."""

REPRICINGS = 1
"""Rounds of pricing after every fixing."""

MILP_CHECKS = 60
"""Times that HiGHS asks whether to go on, after which it is stopped: its own measure of work."""

LEAST_GAIN = 1e-4
"""Relative gain of a branch and bound below which it is not worth its time."""


def programme_of(
    assignment: Assignment,
    groups: Groups,
    freed: IntArray,
    master: Master,
    point: PricePoint,
    most: int,
) -> tuple[CoreProgramme, IntArray, FloatArray]:
    """Return the programme in which some groups of large blocks choose again.

    Parameters
    ----------
    assignment
        The paths now.
    groups
        All groups.
    freed
        Groups of large blocks that choose again; those of small blocks all do.
    master, point
        The pool of paths, and the prices that rank them.
    most
        Paths of the pool that a group starts with, those of least reduced cost.

    Returns
    -------
    programme, used, share
        It, its groups, and the shares (P,) of the paths now.
    """
    problem, classes = assignment.problem, assignment.classes
    used = np.union1d(np.flatnonzero(~groups.large), freed)
    inside = np.isin(groups.of_block, used)
    fixed = np.flatnonzero(~inside)
    free = problem.storage - assignment.used_by(fixed)
    programme = CoreProgramme(problem, classes, groups, used, free)

    # A group starts with the best paths of the pool, its own, and the one that caches nothing.
    excess = master.reduced_cost(point.prices, point.value)
    for place, group in enumerate(used.tolist()):
        paths = np.flatnonzero(master.class_of == groups.class_of[group])
        paths = paths[np.argsort(excess[paths], kind="stable")][:most]
        if groups.large[group]:
            held = classes.holds(master.class_of[paths], master.paths.cached[:, paths]) > 0
            fits = ~(held & (free[:, :, None] < groups.weight[group])).any(axis=(0, 1))
            paths = paths[fits]
        programme.add(np.full(len(paths), place), master.paths.columns(paths))
    own = np.flatnonzero(inside)
    place_of = np.searchsorted(used, groups.of_block[own])
    now = assignment.paths.columns(own)
    programme.add(place_of, now)
    empty = empty_paths(problem, classes).columns(groups.class_of[used])
    programme.add(np.arange(len(used)), empty)
    units = problem.block_size[own] / programme.weight[place_of]
    share = np.zeros(len(programme.group))
    np.add.at(share, programme.find(place_of, now), units)
    return programme, used, share


def dive(programme: CoreProgramme, below: float, deadline: Deadline) -> FloatArray | None:
    """Fix the paths of large blocks one after another.

    Parameters
    ----------
    programme
        Gets new paths; the bounds of its shares change.
    below
        Value (s) from which on the dive is given up.
    deadline
        When to give it up.

    Returns
    -------
    FloatArray
        Shares (P,), whole for large blocks; None where the dive was given up.
    """
    solved = programme.relaxed()
    for _ in range(PRICING_ROUNDS):
        if solved is None or not programme.price(solved[2], np.arange(len(programme.count))):
            break
        solved = programme.relaxed()
    while solved is not None and solved[0] < below and not deadline.over():
        _, share, price = solved
        choose = programme.large[programme.group] & (programme.open[programme.group] >= 1)
        columns = np.flatnonzero(choose)
        if not len(columns):
            return share
        # All that are whole already, else the one that is nearest to it.
        more = share[columns] - programme.least[columns]
        units = np.floor(more + WHOLE)
        if not units.any():
            units[int(more.argmax())] = 1.0
        programme.fix(columns[units > 0], units[units > 0])
        for _ in range(REPRICINGS):
            programme.price(price, np.flatnonzero(programme.open > 0))
            solved = programme.relaxed()
            if solved is None:
                break
            price = solved[2]
    return None


def branch_and_bound(
    programme: CoreProgramme, start: FloatArray, seed: int, deadline: Deadline
) -> FloatArray | None:
    """Let HiGHS choose whole paths for the large blocks, among those that the programme knows.

    Parameters
    ----------
    programme
        The programme; of no use afterwards.
    start
        (P,) shares of the best choice known, whole for large blocks.
    seed
        Seed of HiGHS.
    deadline
        When to stop.

    Returns
    -------
    FloatArray
        Shares (P,), whole for large blocks; None where nothing better was found.
    """
    below = programme.value(start)
    programme.free_everything()
    solved = programme.relaxed()
    if solved is None or solved[0] > below * (1 - LEAST_GAIN):
        return None
    # A path whose reduced cost uses up the room is in no better choice.
    highs = programme.highs
    dear = np.array(highs.getSolution().col_dual) > below - solved[0]
    dear &= start == 0
    large = programme.large[programme.group]
    shut = np.flatnonzero(dear & large)
    programme.bound(shut, np.zeros(len(shut)), np.zeros(len(shut)))
    whole = np.flatnonzero(~dear & large).astype(np.int32)
    kinds = [highspy.HighsVarType.kInteger] * len(whole)
    highs.changeColsIntegrality(len(whole), whole, kinds)

    checks = 0

    def check(event: Any) -> None:
        nonlocal checks
        checks += 1
        if checks > MILP_CHECKS:
            event.interrupt()

    highs.cbMipInterrupt += check
    highs.setOptionValue("random_seed", seed)
    highs.setOptionValue("mip_rel_gap", LEAST_GAIN)
    highs.setSolution(len(start), np.arange(len(start), dtype=np.int32), start)
    run_within(highs, deadline, integer=True)
    info = highs.getInfo()
    found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    if not found or info.objective_function_value >= below:
        return None
    return np.array(highs.getSolution().col_value)


def plan_of(
    assignment: Assignment,
    groups: Groups,
    used: IntArray,
    programme: CoreProgramme,
    share: FloatArray,
) -> tuple[Assignment, IntArray]:
    """Return the plan of shares: large blocks as chosen, small ones rounded to whole paths.

    Parameters
    ----------
    assignment
        The paths of all other blocks.
    groups, used, programme
        As `programme_of` returned them.
    share
        (P,) units of every path.

    Returns
    -------
    plan, left
        Within the storage, and the blocks that no longer fit: they have the empty path.
    """
    problem: PlacementProblem = assignment.problem
    classes: Classes = assignment.classes
    paths = assignment.paths.joined(programme.paths)
    chosen = np.arange(problem.blocks)
    for place, group in enumerate(used.tolist()):
        columns = np.flatnonzero(programme.group == place)
        blocks = np.flatnonzero(groups.of_block == group)
        lacking = share[columns] * groups.weight[group]
        chosen[blocks] = (
            problem.blocks + columns[paths_by_share(lacking, problem.block_size[blocks])]
        )
    empty = empty_paths(problem, classes)
    return fitted(problem, classes, paths, chosen, empty)


def dive_again(
    assignment: Assignment,
    groups: Groups,
    master: Master,
    point: PricePoint,
    rng: np.random.Generator,
    deadline: Deadline,
) -> Assignment:
    """Improve a plan by many dives, each of which frees a few random groups of large blocks.

    A dive may end above the plan it started from by a threshold that falls to zero, as in ruin and
    recreate: where large blocks sit together, the way to a better plan leads through worse ones.

    Parameters
    ----------
    assignment
        The paths now.
    groups, master, point
        As for `programme_of`.
    rng
        Chooses the groups.
    deadline
        When to stop.

    Returns
    -------
    Assignment
        The best plan found.
    """
    problem, large = assignment.problem, np.flatnonzero(groups.large)
    current = best = assignment
    for step in range(DIVES):
        if deadline.over():
            break
        worse = THRESHOLD * max(0.0, 1.0 - step / (THRESHOLD_SHARE * DIVES))
        # Near the best plan a worsening may be twice as large.
        most = min(_delay(current) * (1 + worse), _delay(best) * (1 + 2 * worse))
        freed = rng.permutation(large)[: rng.integers(*DIVE_GROUPS)]
        programme, used, now = programme_of(current, groups, freed, master, point, DIVE_POOL)
        below = programme.value(now) + most - _delay(current)
        share = dive(programme, below, deadline)
        if share is None:
            continue
        plan, left = plan_of(current, groups, used, programme, share)
        # What was left out first, then all blocks at the full price, at half of it, and at none.
        sweep(plan, 0.0 * point.prices.storage, left, deadline)
        for part in (1.0, 0.5, 0.0):
            order = rng.permutation(problem.blocks)
            sweep(plan, part * point.prices.storage, order, deadline)
        if _delay(plan) <= most:
            current = plan
        if _delay(plan) < _delay(best):
            best = plan
    return best


def _delay(assignment: Assignment) -> float:
    """Delay of the sequential schedule, s."""
    return float(assignment.sums.sum())


def large_blocks_again(
    assignment: Assignment,
    groups: Groups,
    master: Master,
    point: PricePoint,
    rng: np.random.Generator,
    deadline: Deadline,
) -> tuple[Assignment, IntArray] | None:
    """Choose the paths of many large blocks again, at once, and the shares of all small ones.

    Parameters
    ----------
    assignment
        The paths now.
    groups, master, point
        As for `programme_of`; the pool grows.
    rng
        Source of randomness.
    deadline
        When to stop.

    Returns
    -------
    plan, left
        As `plan_of` returns them; None where nothing better came of it.
    """
    # Paths of other prices than the best fit into other rooms.
    every = np.arange(len(assignment.classes.size))
    prices = point.prices
    for _ in range(PRICE_POINTS):
        if deadline.over():
            return None
        factor = np.exp(PRICE_SPREAD * rng.standard_normal(prices.storage.shape))
        other = Prices(prices.storage * factor)
        master.add(every, dual_point(assignment.problem, assignment.classes, other).paths)
    some = rng.permutation(np.flatnonzero(groups.large))[: rng.integers(*MILP_GROUPS)]
    programme, used, now = programme_of(assignment, groups, some, master, point, MILP_POOL)
    share = branch_and_bound(programme, now, int(rng.integers(1 << 30)), deadline)
    return None if share is None else plan_of(assignment, groups, used, programme, share)
