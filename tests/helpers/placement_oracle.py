"""Random tiny placement problems, and their optima by enumeration."""

from __future__ import annotations

import itertools

import numpy as np

from finecast.solvers.placement.problem import (
    Placement,
    PlacementProblem,
    johnson_makespan,
    placement_delay,
)


def random_problem(
    rng: np.random.Generator, nodes: int, blocks: int, slots: int, schedule: str = "sequential"
) -> PlacementProblem:
    """Draw a problem with missing links, hopeless node sets, idle blocks and odd sizes."""
    sets = np.arange(1 << nodes)
    tables = []
    group = np.full((slots, blocks), -1)
    for t in range(slots):
        groups = int(rng.integers(1, 3))
        table = rng.uniform(0.1, 3.0, (groups, 1 << nodes))
        table[rng.random(table.shape) < 0.2] = np.inf
        table[:, -1] = rng.uniform(0.05, 0.5, groups)
        table[:, 0] = np.inf
        for n in range(nodes):
            has = sets[(sets >> n) & 1 == 1]
            table[:, has] = np.minimum(table[:, has], table[:, has & ~(1 << n)])
        tables.append(table)
        group[t] = rng.integers(-1, groups, blocks)
    link = rng.uniform(0.05, 1.5, (nodes + 1, nodes))
    link[:nodes][rng.random((nodes, nodes)) < 0.3] = np.inf
    size = rng.integers(1, 8, blocks)
    storage = rng.integers(0, int(size.sum()) + 2, nodes)
    return PlacementProblem(size, storage, group, tuple(tables), link, schedule)


def optimum(problem: PlacementProblem, charge: np.ndarray | None = None) -> float:
    """Smallest delay, over every cache, every receiver, every source and every sending set.

    With `charge` (T, 2^N, J), the smallest delay plus what the cached sets are charged per byte.

    Nothing is assumed about which are better: the sending set is any set of nodes that have the
    block. The blocks meet only in the storage (and, pipelined, in the order of the slot).
    """
    slots, blocks = problem.slots, problem.blocks
    choices = [_choices(problem, j) for j in range(blocks)]
    best = np.inf
    for picks in itertools.product(*choices):
        cached = np.array([pick[0] for pick in picks]).reshape(blocks, slots)
        held = (cached[:, :, None] >> np.arange(problem.nodes)) & 1
        used = np.tensordot(problem.block_size, held, axes=1)
        if (used > problem.storage).any():
            continue
        extra = 0.0
        if charge is not None:
            at = charge[np.arange(slots), cached, np.arange(blocks)[:, None]]
            extra = float(problem.block_size @ at.sum(axis=1))
        if problem.schedule == "sequential":
            delay = sum(min(sum(map(sum, way)) for way in pick[1]) for pick in picks)
            best = min(best, delay + extra)
        else:
            for ways in itertools.product(*(pick[1] for pick in picks)):
                seconds = np.array(ways).reshape(blocks, slots, 2)
                best = min(best, extra + sum(
                    johnson_makespan(seconds[:, t, 0], seconds[:, t, 1]) for t in range(slots)
                ))  # fmt: skip
    return float(best)


def _choices(problem: PlacementProblem, j: int) -> list[tuple[tuple[int, ...], list]]:
    """Every sequence of cached sets of block j, with every (tau, d) of its slots that it allows."""
    sets = range(1 << problem.nodes)
    choices = []
    for cached in itertools.product(sets, repeat=problem.slots):
        ways_of_slots = []
        for t in range(problem.slots):
            later = cached[t + 1] if t + 1 < problem.slots else 0
            ways_of_slots.append(_ways(problem, j, t, cached[t], later))
        if all(ways_of_slots):
            choices.append((cached, list(itertools.product(*ways_of_slots))))
    return choices


def _ways(
    problem: PlacementProblem, j: int, t: int, cached: int, later: int
) -> list[tuple[float, float]]:
    """Every (migration, broadcast) of block j in slot t that ends with `later` still there."""
    nodes, size = problem.nodes, float(problem.block_size[j])
    group = problem.group[t, j]
    if group < 0:
        return [(0.0, 0.0)] if later & ~cached == 0 else []
    sources = []
    for n in range(nodes):
        here = [-1.0]
        if not cached >> n & 1:
            here += [problem.link[m, n] for m in range(nodes) if cached >> m & 1]
            here.append(problem.link[nodes, n])
        sources.append([time for time in here if time < np.inf])
    ways = set()
    for times in itertools.product(*sources):
        has = cached | sum(1 << n for n in range(nodes) if times[n] >= 0)
        if later & ~has:
            continue
        tau = max(0.0, *times)
        for sender in range(1 << nodes):
            if sender & ~has == 0 and problem.broadcast[t][group, sender] < np.inf:
                ways.add((size * tau, size * problem.broadcast[t][group, sender]))
    return list(ways)


def optimum_by_judge(problem: PlacementProblem) -> float:
    """Smallest delay over every pair of arrays (cache, source) that `placement_delay` accepts."""
    shape = (problem.slots, problem.nodes, problem.blocks)
    cells = int(np.prod(shape))
    best = np.inf
    for cache in itertools.product([False, True], repeat=cells):
        for source in itertools.product(range(-1, problem.nodes + 1), repeat=cells):
            placement = Placement(np.reshape(cache, shape), np.reshape(source, shape))
            try:
                best = min(best, placement_delay(problem, placement))
            except ValueError:
                continue
    return best
