"""Ruin and recreate: take a few blocks out, put them back one by one by exact best responses.

Many searches run side by side, one column of the dynamic programme each, so that a step of all of
them costs little more than a step of one. Every search accepts what is not worse than its current
placement by more than a threshold that falls to zero (G. Schrimpf et al., Journal of Computational
Physics 159 (2000) 139-171); the worst searches restart from the best one.
"""

from __future__ import annotations

from dataclasses import dataclass

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
"""Searches side by side, R."""

LARGEST_RUIN = 5
"""Most blocks that a step takes out."""

REBATES = (0.0, 0.5, 1.0)
"""Shares of the storage prices at which a search may put its blocks back."""

THRESHOLD = 0.003
"""Relative worsening of the delay that the first steps accept."""

THRESHOLD_SHARE = 0.8
"""Share of the steps after which no worsening is accepted."""

RESTART_EVERY = 100
"""Steps after which the worse half of the searches starts again from the better half."""


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
    searches = _Searches(assignment)
    blocks = assignment.problem.blocks
    full_price, no_price = price[:, :, None], 0.0 * price[:, :, None]
    current = searches.delay
    best, best_delay = assignment, float(current[0])

    for step in range(steps):
        if deadline.over() or best_delay <= goal:
            break
        # Ruin: the number of blocks is the same for all searches, so that they stay in step.
        ruined = int(rng.integers(1, min(LARGEST_RUIN, blocks) + 1))
        taken = rng.random((blocks, SEARCHES)).argpartition(ruined - 1, axis=0)[:ruined]
        rebate = rng.choice(REBATES, SEARCHES)
        saved = searches.save(taken)
        for block in taken:
            searches.take_out(block)

        # Recreate: at a price first, which leaves room for the blocks still out; then each once
        # more without, when all others are back.
        for block in taken:
            searches.put_back(block, full_price * rebate)
        for block in taken:
            searches.take_out(block)
            searches.put_back(block, no_price)

        # Accept: near the best of all searches a worsening may be twice as large.
        candidate = searches.delay
        limit = 1.0 + THRESHOLD * max(0.0, 1.0 - step / (THRESHOLD_SHARE * steps))
        rejected = np.flatnonzero(candidate > np.minimum(current * limit, best_delay * limit**2))
        searches.restore(saved, rejected)
        candidate[rejected] = current[rejected]
        current = candidate
        leader = int(current.argmin())
        if current[leader] < best_delay * (1 - 1e-10):
            best, best_delay = searches.assignment(leader), float(current[leader])

        # Restart the worse half from the better half, a quarter of it from the leader itself.
        if step % RESTART_EVERY == RESTART_EVERY - 1:
            ranked = np.argsort(current)
            worse = ranked[SEARCHES // 2 :]
            source = ranked[: len(worse)].copy()
            source[: len(worse) // 4] = leader
            searches.copy(source, worse)
            current[worse] = current[source]
    return best


@dataclass(frozen=True)
class _Saved:
    """Some blocks (B, R) of every search, and the sums of all, before a step."""

    block: IntArray
    sets: IntArray
    seconds: FloatArray
    sums: FloatArray
    free: IntArray


class _Searches:
    """The placements of R searches, side by side.

    Attributes
    ----------
    sets
        (2, T, J, R) sets X and Q of units.
    seconds
        (2, T, J, R) migration and broadcast, seconds per byte.
    sums
        (2, T, R) migrations and broadcasts of all blocks that are not out, s.
    free
        (T, N, R) byte.
    """

    def __init__(self, assignment: Assignment) -> None:
        self.problem, self.classes = assignment.problem, assignment.classes
        self.weights = sequential_weights(self.problem.slots)
        self.pipelined = self.problem.schedule == "pipelined"
        self.column = np.arange(SEARCHES)
        sets = np.stack([assignment.cached, assignment.sender])
        seconds = np.stack([assignment.migration, assignment.broadcast])
        sums: FloatArray = seconds @ self.problem.block_size
        self.sets = np.repeat(sets[..., None], SEARCHES, axis=3)
        self.seconds = np.repeat(seconds[..., None], SEARCHES, axis=3)
        self.sums = np.repeat(sums[..., None], SEARCHES, axis=2)
        self.free = np.repeat((self.problem.storage - assignment.used)[..., None], SEARCHES, axis=2)

    @property
    def delay(self) -> FloatArray:
        """(R,) s; if pipelined, the larger of the two sums of every slot."""
        slot = self.sums.max(axis=0) if self.pipelined else self.sums.sum(axis=0)
        return np.asarray(slot.sum(axis=0))

    def take_out(self, block: IntArray) -> None:
        """Take one block of every search (R,) out of the sums and the storage."""
        size = self.problem.block_size[block]
        cached = self.sets[0][:, block, self.column]
        self.free += size * self.classes.holds(self.classes.of_block[block], cached)
        self.sums -= size * self.seconds[:, :, block, self.column]

    def put_back(self, block: IntArray, price: FloatArray) -> None:
        """Give one block of every search (R,) its best response at prices (T, N, R)."""
        size, class_of = self.problem.block_size[block], self.classes.of_block[block]
        allowed = np.where(self.free >= size, price, np.inf)
        others = self.sums / size if self.pipelined else None
        values = cost_to_go(self.classes, class_of, allowed, self.weights, others)
        paths = cheapest_paths(self.classes, class_of, values, self.weights, others)
        self.free -= size * self.classes.holds(class_of, paths.cached)
        self.sets[:, :, block, self.column] = np.stack([paths.cached, paths.sender])
        self.seconds[:, :, block, self.column] = np.stack([paths.migration, paths.broadcast])
        self.sums += size * self.seconds[:, :, block, self.column]

    def save(self, block: IntArray) -> _Saved:
        """Save what a step on some blocks of every search (B, R) changes."""
        return _Saved(
            block,
            self.sets[:, :, block, self.column],
            self.seconds[:, :, block, self.column],
            self.sums.copy(),
            self.free.copy(),
        )

    def restore(self, saved: _Saved, searches: IntArray) -> None:
        """Undo the step of some of the searches."""
        block = saved.block[:, searches]
        self.sets[:, :, block, searches] = saved.sets[..., searches]
        self.seconds[:, :, block, searches] = saved.seconds[..., searches]
        self.sums[..., searches] = saved.sums[..., searches]
        self.free[..., searches] = saved.free[..., searches]

    def copy(self, source: IntArray, target: IntArray) -> None:
        """Give the searches `target` the placements of the searches `source`."""
        for array in (self.sets, self.seconds, self.sums, self.free):
            array[..., target] = array[..., source]

    def assignment(self, search: int) -> Assignment:
        """Return the placement of one search."""
        sets, seconds = self.sets[..., search], self.seconds[..., search]
        paths = Paths(sets[0], sets[1], seconds[0], seconds[1])
        return Assignment(self.problem, self.classes, paths)
