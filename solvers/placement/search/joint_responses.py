"""Exact responses of several blocks together: all their paths at once, the others as they are.

A best response of one block cannot make room for another. Few blocks together can: with the others
as they are, their cheapest paths are a dynamic programme over tuples of cached sets,

    W_t(X_1..X_k) = min over Y_1..Y_k of sum_i s_i w_t^i(X_i, Y_i) + W_{t+1}(Y_1..Y_k)

infinite where the bytes of the tuple exceed what the others leave on a node in slot t. The arcs are
separate, so the minimum is taken over one block after another: k 2^N 2^(N k) sums in place of
4^(N k). Tuples of random blocks in turn are a large neighbourhood search whose every step is exact
(P. Shaw, CP 1998, LNCS 1520, 417-431).
"""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.deadline import (
    GRAIN,
    STAGE_WORK,
    Deadline,
    count_work,
    grains_done,
)
from finecast.solvers.node_set_tables import FULL_TABLES
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.placement.search.sweeps import Assignment, assignment_of
from finecast.solvers.placement.senders import best_senders
from finecast.solvers.placement.transitions import transitions

MOST_TUPLES = 1 << 15
"""Tuples of cached sets in one slot: what decides how many blocks respond together."""

MOST_TRANSITIONS = 4_000_000
"""Entries of the tables of transitions beyond which the search has no use of them."""

TURN_WORK = 1.0
"""Most counted work of one turn."""

STEPS_A_BLOCK = 10
"""Most responses of one turn, for every block."""

SUM_WORK = 3e-9
"""Of one sum of an arc and a value of the dynamic programme over tuples."""

NOISE = 0.01
"""Relative spread of the noise on the arcs at the start of a turn."""

NOISE_SHARE = 0.6
"""Share of a turn over which the noise falls to none."""

MOST_WORSE = 0.004
"""Relative distance to the best placement beyond which a turn goes back to it."""

SAME = 1e-12
"""Relative difference up to which delays are equal: rounding."""


def respond_together(
    assignment: Assignment, rng: np.random.Generator, *, goal: float, deadline: Deadline
) -> Assignment:
    """Let random tuples of blocks choose again exactly, for one turn; return what is no slower.

    At first the arcs are noisy, so that the search leaves the placement that it starts from (I.
    Charon and O. Hudry, Operations Research Letters 14 (1993) 133-137); then they are exact, and
    the delay falls.

    Parameters
    ----------
    assignment
        Where to start, of a sequential schedule, whose units are the nodes.
    rng
        Source of randomness.
    goal
        Delay (s) at which to stop early.
    deadline
        When to stop.
    """
    problem, classes = assignment.problem, assignment.classes
    size, class_of = problem.block_size, classes.of_block
    ways = transitions(classes)
    cached, used = assignment.cached.copy(), assignment.used.copy()
    seconds = size * _costs(ways, class_of, cached)
    best, best_delay = cached.copy(), float(seconds.sum())
    most = most_together(problem)
    begin, steps = grains_done(), STEPS_A_BLOCK * problem.blocks
    for step in range(steps):
        done = max(step / steps, (grains_done() - begin) * GRAIN / TURN_WORK)
        if done >= 1.0 or best_delay <= goal or deadline.over():
            break
        # As many as the tables can take, or one less, which is quicker: who, is drawn.
        count = most - int(rng.integers(0, 2)) if most > 2 else most
        chosen = rng.choice(problem.blocks, count, replace=False)
        arcs = ways[class_of[chosen]] * size[chosen, None, None, None]
        noise = NOISE * max(0.0, 1.0 - done / NOISE_SHARE)
        if noise > 0.0:
            arcs = arcs * (1.0 + noise * rng.standard_normal((*arcs.shape[:3], 1)))

        # The others keep what they have: what they leave is what the chosen may take.
        held = held_bytes(problem, chosen, cached[:, chosen])
        sets = joint_response(arcs, size[chosen], problem.storage - used + held)[1]
        cached[:, chosen] = sets
        seconds[chosen] = size[chosen] * _costs(ways, class_of[chosen], sets)
        used += held_bytes(problem, chosen, sets) - held

        # The best is kept; noise may not lead far from it.
        delay = float(seconds.sum())
        if delay < best_delay * (1 - SAME):
            best, best_delay = cached.copy(), delay
        elif delay > best_delay * (1 + MOST_WORSE):
            cached = best.copy()
            used = held_bytes(problem, np.arange(problem.blocks), cached)
            seconds = size * _costs(ways, class_of, cached)
    return assignment_of(problem, classes, best, best_senders(classes, best))


def most_together(problem: PlacementProblem) -> int:
    """Return how many blocks respond together; less than two where that is out of reach.

    Examples
    --------
    >>> problem = PlacementProblem(
    ...     block_size=[10] * 9,
    ...     storage=[20],
    ...     group=[[0] * 9],
    ...     broadcast=([[np.inf, 1.0]],),
    ...     link=[[np.inf], [3.0]],
    ... )
    >>> most_together(problem)
    9
    """
    alike = len(np.unique(np.concatenate([problem.group, problem.block_size[None]]), axis=1).T)
    if problem.schedule != "sequential" or problem.nodes > FULL_TABLES:
        return 0
    if alike * problem.slots << 2 * problem.nodes > MOST_TRANSITIONS:
        return 0
    bits = MOST_TUPLES.bit_length() - 1
    return int(min(problem.blocks, bits // problem.nodes))


def joint_response(seconds: FloatArray, size: IntArray, free: IntArray) -> tuple[float, IntArray]:
    """Return the cheapest paths of some blocks together, and what they cost.

    Parameters
    ----------
    seconds
        (k, T, S, S) arcs of every block, s; infinite where there is none.
    size
        (k,) byte.
    free
        (T, N) bytes that the others leave; the sets are bit masks of these nodes, S = 2^N.

    Returns
    -------
    value, sets
        Seconds, infinite where nothing fits, and the cached sets (T, k).

    Examples
    --------
    Two blocks of 10 bytes, one node with room for one: 10 s where it is cached, 40 where not.

    >>> arcs = np.array([[[[40.0, 40.0], [10.0, 10.0]]]] * 2)
    >>> joint_response(arcs, np.array([10, 10]), np.array([[15]]))
    (50.0, array([[0, 1]]))
    """
    count, slots, sets, _ = seconds.shape
    member = (np.arange(sets)[:, None] >> np.arange(free.shape[1])) & 1
    count_work(slots * count * (sets * STAGE_WORK + SUM_WORK * float(sets) ** (count + 1)))

    # Backwards: what a tuple costs from its slot on.
    onward = [np.zeros(0)] * slots
    for t in reversed(range(slots)):
        if t == slots - 1:
            value = np.zeros((sets,) * count)
            for i in range(count):
                value += _along(seconds[i, t][:, 0], i, count)
        else:
            value = onward[t + 1]
            for i in range(count):
                value = _least(seconds[i, t], value.reshape(sets**i, sets, -1))
        value = value.reshape((sets,) * count)
        for n in range(free.shape[1]):
            used = sum(_along(member[:, n] * size[i], i, count) for i in range(count))
            np.putmask(value, used > free[t, n], np.inf)
        onward[t] = value

    # Forwards: the tuples that attain it.
    chosen = np.zeros((slots, count), dtype=np.int64)
    best = int(onward[0].argmin())
    least = float(onward[0].reshape(-1)[best])
    for t in range(slots):
        chosen[t] = np.unravel_index(best, onward[t].shape)
        if t + 1 < slots:
            after = onward[t + 1].copy()
            for i in range(count):
                after += _along(seconds[i, t, chosen[t, i]], i, count)
            best = int(after.argmin())
    return least, chosen


def held_bytes(problem: PlacementProblem, blocks: IntArray, cached: IntArray) -> IntArray:
    """Return the bytes (T, N) that blocks (B,) take with cached sets (T, B)."""
    bits = (cached[:, None] >> np.arange(problem.nodes)[:, None]) & 1
    held: IntArray = bits @ problem.block_size[blocks]
    return held


def _along(values: FloatArray | IntArray, axis: int, count: int) -> FloatArray | IntArray:
    """Return values (S,) as an array of `count` axes, all but one of length one."""
    shape = [1] * count
    shape[axis] = -1
    return values.reshape(shape)


def _least(arcs: FloatArray, after: FloatArray) -> FloatArray:
    """Return the least over Y of arcs (X, Y) and `after` (A, Y, B) together, (A, X, B)."""
    least = np.empty_like(after)
    for x, row in enumerate(arcs):
        reached = np.flatnonzero(np.isfinite(row))
        if len(reached):
            least[:, x] = (after[:, reached] + row[reached][:, None]).min(axis=1)
        else:
            least[:, x] = np.inf
    return least


def _costs(ways: FloatArray, class_of: IntArray, cached: IntArray) -> FloatArray:
    """Return the cost of the paths (T, B) of blocks of classes (B,), s per byte, (B,)."""
    after = np.concatenate([cached[1:], np.zeros_like(cached[:1])])
    slot = np.arange(len(cached))[:, None]
    cost: FloatArray = ways[class_of, slot, cached, after].sum(axis=0)
    return cost
