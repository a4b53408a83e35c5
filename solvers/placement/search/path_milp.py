"""The path MILP: the best choice among known paths, for some or all of the blocks.

minimise    sum_{j,p} s_j c_p y_{j,p}
subject to  sum_p y_{j,p} = 1,     sum_{j,p} s_j X_{p,t,n} y_{j,p} <= free_{t,n},   y binary
pipelined:  minimise sum_t D_t with D_t at least the migrations and the broadcasts of slot t
"""

from __future__ import annotations

from dataclasses import dataclass

import highspy
import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.deadline import Deadline
from finecast.solvers.highs import QuietHighs, run_within
from finecast.solvers.placement.dynamic_programme import Paths
from finecast.solvers.placement.overfull import CUT_ROUNDS, overfull_covers
from finecast.solvers.placement.problem import PlacementProblem


@dataclass(frozen=True)
class PathChoice:
    """Some blocks, and the paths that they may take.

    Attributes
    ----------
    block
        (P,) block of every path, non-decreasing.
    paths
        The P paths.
    holds
        (T, N, P) zeros and ones: the nodes that cache the block on the path.
    free
        (T, N) bytes that the blocks may use together.
    seconds
        (2, T) migrations and broadcasts of all other blocks, s.
    start
        (P,) bool: a known choice, one path for every block.
    """

    block: IntArray
    paths: Paths
    holds: IntArray
    free: IntArray
    seconds: FloatArray
    start: BoolArray


def choose_paths(
    problem: PlacementProblem,
    choice: PathChoice,
    *,
    gap: float,
    goal: float,
    node_limit: int,
    deadline: Deadline,
    seed: int,
) -> IntArray | None:
    """Choose one path for every block.

    Parameters
    ----------
    problem
        The problem.
    choice
        The blocks and their paths.
    gap
        Relative gap at which to stop.
    goal
        Delay (s), with all other blocks, at which to stop.
    node_limit
        Branch-and-bound nodes at which to stop.
    deadline
        When to stop.
    seed
        Seed of HiGHS.

    Returns
    -------
    IntArray
        Indices of the chosen paths, or None when there is none.
    """
    slots, paths = problem.slots, choice.paths
    count = len(choice.block)
    names, row_of = np.unique(choice.block, return_inverse=True)
    pipelined = problem.schedule == "pipelined"

    # Bytes are counted in mean blocks, seconds in mean times of all blocks: numbers near one.
    size = problem.block_size[choice.block].astype(float)
    scale = max(float(problem.block_size[names].mean()), 1.0)
    unit = float(((paths.migration + paths.broadcast) * size).sum() / count * len(names)) or 1.0

    # Rows: the storage of every slot and node, one path for every block.
    holds = choice.holds.reshape(slots * problem.nodes, -1)
    member = np.zeros((len(names), count))
    member[row_of, np.arange(count)] = 1.0
    rows = [holds * (size / scale), member]
    ones = np.ones(len(names))
    lower = [np.full(len(holds), -np.inf), ones]
    upper = [choice.free.reshape(-1) / scale, ones]
    cost = (paths.migration + paths.broadcast).sum(axis=0) * size / unit
    integral = np.ones(count, dtype=np.int32)
    if pipelined:
        # One more column D_t for every slot, above the migrations and above the broadcasts.
        rows.append(np.concatenate([paths.migration, paths.broadcast]) * size / unit)
        rows = [np.pad(part, ((0, 0), (0, slots))) for part in rows]
        rows[-1][:, count:] = -np.tile(np.eye(slots), (2, 1))
        lower.append(np.full(2 * slots, -np.inf))
        upper.append(-choice.seconds.reshape(-1) / unit)
        cost = np.concatenate([np.zeros(count), np.ones(slots)])
        integral = np.concatenate([integral, np.zeros(slots, dtype=np.int32)])
    matrix = np.concatenate(rows).T
    column, row = np.nonzero(matrix)
    begin = np.searchsorted(column, np.arange(len(cost)))

    # Given a start, the presolve of HiGHS 1.16 misjudges its cost and cuts the optimum off.
    highs = QuietHighs()
    for option, value in (
        ("threads", 1), ("presolve", "off"), ("random_seed", seed), ("mip_rel_gap", gap),
        ("mip_max_nodes", node_limit),
    ):  # fmt: skip
        highs.setOptionValue(option, value)
    fixed = 0.0 if pipelined else float(choice.seconds.sum())
    highs.setOptionValue("objective_target", (goal - fixed) / unit)
    above = np.concatenate([np.ones(count), np.full(len(cost) - count, np.inf)])
    highs.passModel(
        len(cost), matrix.shape[1], len(row), 1, 1, 0.0, cost, np.zeros(len(cost)), above,
        np.concatenate(lower), np.concatenate(upper), begin.astype(np.int32),
        row.astype(np.int32), matrix[column, row], integral,
    )  # fmt: skip
    # HiGHS keeps rules to a tolerance: the largest share of a block counts, in whole bytes.
    block_size, free = problem.block_size[names], choice.free.reshape(-1)
    for _ in range(CUT_ROUNDS):
        highs.setSolution(count, np.arange(count, dtype=np.int32), choice.start.astype(float))
        run_within(highs, deadline, integer=True)
        if highs.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
            return None
        share = np.array(highs.getSolution().col_value[:count])
        order = np.lexsort((-share, row_of))
        chosen: IntArray = order[np.searchsorted(row_of[order], np.arange(len(names)))]
        covers = overfull_covers(holds[:, chosen] > 0, block_size, free)
        if not covers:
            return chosen
        if deadline.over():
            return None
        for full, blocks in covers:
            column = np.flatnonzero((holds[full] > 0) & np.isin(row_of, blocks)).astype(np.int32)
            highs.addRow(-np.inf, len(blocks) - 1.0, len(column), column, np.ones(len(column)))
    return None
