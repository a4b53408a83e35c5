"""Ruin and recreate: take a few blocks out, put them back one by one by exact best responses.

Many searches run side by side, one column of the dynamic programme each, so that a step of all of
them costs little more than a step of one. Every search accepts what is not worse than its current
placement by more than a threshold that falls to zero (G. Schrimpf et al., Journal of Computational
Physics 159 (2000) 139-171); the worst searches restart from the best one.
"""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.deadline import Deadline
from finecast.solvers.placement.dynamic_programme import (
    Paths,
    cheapest_paths,
    cost_to_go,
    sequential_weights,
)
from finecast.solvers.placement.search.sweeps import Assignment

SEARCHES = 64
LARGEST_RUIN = 5
THRESHOLD = 0.003
RESTART_EVERY = 100


def ruin_and_recreate(
    assignment: Assignment,
    price: FloatArray,
    rng: np.random.Generator,
    *,
    steps: int,
    goal: float,
    deadline: Deadline,
) -> Assignment:
    """Improve a placement by `steps` steps of all searches.

    Parameters
    ----------
    assignment
        Where all searches start.
    price
        (T, N) storage prices; each step uses a random share of them when it puts blocks back.
    rng
        Source of randomness.
    steps
        Number of steps.
    goal
        Delay (s) at which to stop early.
    deadline
        When to stop.

    Returns
    -------
    Assignment
        The best placement found.
    """
    problem, classes = assignment.problem, assignment.classes
    blocks = problem.blocks
    weights = sequential_weights(problem.slots)
    pipelined = problem.schedule == "pipelined"
    search = np.arange(SEARCHES)
    # Node sets X, Q and seconds per byte tau, b: (kind, T, J, R); sums of seconds: (kind, T, R).
    sets = np.repeat(np.stack([assignment.cached, assignment.sender])[..., None], SEARCHES, axis=3)
    seconds = np.stack([assignment.migration, assignment.broadcast])
    sums = np.repeat((seconds @ problem.block_size)[..., None], SEARCHES, axis=2)
    seconds = np.repeat(seconds[..., None], SEARCHES, axis=3)
    free = np.repeat((problem.storage - assignment.used)[..., None], SEARCHES, axis=2)
    current = (sums.max(axis=0) if pipelined else sums.sum(axis=0)).sum(axis=0)
    best, best_delay = assignment, float(current[0])

    for step in range(steps):
        if deadline.over() or best_delay <= goal:
            break
        ruined = int(rng.integers(1, min(LARGEST_RUIN, blocks) + 1))
        taken = rng.random((blocks, SEARCHES)).argpartition(ruined - 1, axis=0)[:ruined]
        rebate = rng.choice([0.0, 0.5, 1.0], SEARCHES)
        old_sets, old_seconds = sets[:, :, taken, search], seconds[:, :, taken, search]
        old_free, old_sums = free.copy(), sums.copy()
        size = problem.block_size[taken]
        for i in range(ruined):
            free += size[i] * classes.holds(classes.of_block[taken[i]], old_sets[0, :, i])
            sums -= size[i] * old_seconds[:, :, i]
        for turn in range(2 * ruined):
            i = turn % ruined
            share = rebate if turn < ruined else np.zeros(SEARCHES)
            j = taken[i]
            of = classes.of_block[j]
            if turn >= ruined:
                free += size[i] * classes.holds(of, sets[0][:, j, search])
                sums -= size[i] * seconds[:, :, j, search]
            allowed = np.where(free >= size[i], price[:, :, None] * share, np.inf)
            others = sums / size[i] if pipelined else None
            values = cost_to_go(classes, of, allowed, weights, others)
            paths = cheapest_paths(classes, of, values, weights, others)
            free -= size[i] * classes.holds(of, paths.cached)
            sets[:, :, j, search] = np.stack([paths.cached, paths.sender])
            seconds[:, :, j, search] = np.stack([paths.migration, paths.broadcast])
            sums += size[i] * seconds[:, :, j, search]
        candidate = (sums.max(axis=0) if pipelined else sums.sum(axis=0)).sum(axis=0)
        limit = 1.0 + THRESHOLD * max(0.0, 1.0 - step / (0.8 * steps))
        rejected = np.flatnonzero(candidate > np.minimum(current * limit, best_delay * limit**2))
        back = taken[:, rejected]
        sets[:, :, back, rejected] = old_sets[..., rejected]
        seconds[:, :, back, rejected] = old_seconds[..., rejected]
        free[..., rejected] = old_free[..., rejected]
        candidate[rejected] = current[rejected]
        sums[..., rejected] = old_sums[..., rejected]
        current = candidate
        leader = int(current.argmin())
        if current[leader] < best_delay * (1 - 1e-10):
            best = Assignment(problem, classes, _paths(sets, seconds, leader))
            best_delay = float(current[leader])
        if step % RESTART_EVERY == RESTART_EVERY - 1:
            worst = np.argsort(current)[SEARCHES // 2 :]
            source = np.argsort(current)[: len(worst)]
            source[: len(worst) // 4] = leader
            sets[..., worst] = sets[..., source]
            seconds[..., worst] = seconds[..., source]
            free[..., worst] = free[..., source]
            sums[..., worst] = sums[..., source]
            current = current.copy()
            current[worst] = current[source]
    return best


def _paths(sets: IntArray, seconds: FloatArray, search: int) -> Paths:
    return Paths(
        sets[0, ..., search], sets[1, ..., search], seconds[0, ..., search], seconds[1, ..., search]
    )
