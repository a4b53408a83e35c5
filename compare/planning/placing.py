"""One placement for many draws of the demand, judged on others.

Caches that know the requests would say little about a network: these are chosen on the sum of the
delays of *training* draws, as the sample average of a stochastic programme (Kleywegt, Shapiro and
Homem-de-Mello, SIAM J. Optim. 12 (2002) 479-502), and stay as they are. In every slot of another
draw what is missing then comes by the best migration.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.evaluation import Evaluation, evaluate
from finecast.problem.solution import Solution
from finecast.solvers.delivery import deliver
from finecast.solvers.node_set_tables import OnDemand, Table, bits
from finecast.solvers.placement.greedy import best_levels, static_placement, total_cost
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.prepared import Prepared


@dataclass(frozen=True, eq=False)
class Judged:
    """Caches served in one draw, and what the judge says."""

    solution: Solution
    evaluation: Evaluation


def pooled(problems: Sequence[PlacementProblem]) -> PlacementProblem:
    """Return one problem with the slots of several draws of one network, one after another.

    Parameters
    ----------
    problems
        At least one; of the same blocks, storage and links.
    """
    first = problems[0]
    return PlacementProblem(
        block_size=first.block_size,
        storage=first.storage,
        group=np.concatenate([problem.group for problem in problems]),
        broadcast=tuple(table for problem in problems for table in problem.broadcast),
        link=first.link,
    )


def weighted_total(draws: Sequence[tuple[PlacementProblem, FloatArray]]) -> Table:
    """Return the delay per byte of every block over draws, if it stays cached, slots by weight.

    Parameters
    ----------
    draws
        At least one: a placement problem and (T,) what a second of each of its slots counts.

    Returns
    -------
    (J, 2^N) seconds per byte.
    """
    tables: list[Table] = []
    weights: list[float] = []
    for problem, weight in draws:
        for t in np.flatnonzero(weight).tolist():
            slot = replace(
                problem, group=problem.group[t : t + 1], broadcast=problem.broadcast[t : t + 1]
            )
            tables.append(total_cost(slot))
            weights.append(float(weight[t]))

    def summed(block: IntArray, cached: IntArray) -> FloatArray:
        parts = [w * table[block, cached] for w, table in zip(weights, tables, strict=True)]
        return np.asarray(np.sum(parts, axis=0))

    blocks, nodes = draws[0][0].blocks, draws[0][0].nodes
    if any(isinstance(table, OnDemand) for table in tables):
        return OnDemand(blocks, summed)
    sets = np.arange(1 << nodes)
    return summed(np.arange(blocks)[:, None], sets)


def judged(prepared: Prepared, problem: PlacementProblem, cached: IntArray) -> Judged:
    """Return how caches that stay do in a draw, with the best migrations of every slot.

    Parameters
    ----------
    prepared
        The draw and its rates.
    problem
        Its placement problem; perhaps with fewer links than the instance has.
    cached
        (J,) node sets as bit masks.
    """
    solution = deliver(
        prepared.instance,
        static_placement(problem, cached),
        prepared.plans,
        prepared.rates,
        robust=prepared.robust,
        method="plan",
    )
    return Judged(solution, evaluate(prepared.instance, solution))


def further_copies(
    total: Table, size: IntArray, cached: IntArray, nodes: int, node: int, room: int
) -> IntArray:
    """Return the blocks that a node would store in further room: those that save most per byte.

    Parameters
    ----------
    total
        (J, 2^N) seconds per byte of every block under every cached set.
    size
        (J,) byte.
    cached
        (J,) node sets as bit masks.
    nodes, node
        N, and which.
    room
        Byte that are free at the node.

    Returns
    -------
    Numbers of blocks.
    """
    bit = bits(nodes)[node]
    block = np.arange(len(size))
    saving = np.asarray(total[block, cached] - total[block, cached | bit])
    chosen: list[int] = []
    for j in np.argsort(-saving, kind="stable").tolist():
        if saving[j] > 0 and size[j] <= room:
            chosen.append(j)
            room -= int(size[j])
    return np.array(chosen, dtype=np.int64)


def saved_seconds(problem: PlacementProblem, cached: IntArray, node: int, block: IntArray) -> float:
    """Return the seconds by which the slots of a draw are shorter with further copies at a node.

    Parameters
    ----------
    problem
        The draw.
    cached
        (J,) node sets as bit masks.
    node, block
        Where, and which.
    """
    before = after = 0.0
    more = cached.copy()
    more[block] |= bits(problem.nodes)[node]
    size: FloatArray = problem.block_size[block].astype(np.float64)
    for t in range(problem.slots):
        before += float(size @ best_levels(problem, t, block, cached[block])[0])
        after += float(size @ best_levels(problem, t, block, more[block])[0])
    return before - after
