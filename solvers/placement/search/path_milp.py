"""The path MILP: the best choice among known paths, for some or all of the blocks.

minimise    sum_{j,p} s_j c_p y_{j,p}
subject to  sum_p y_{j,p} = 1,     sum_{j,p} s_j X_{p,t,n} y_{j,p} <= free_{t,n},   y binary
pipelined:  minimise sum_t D_t with D_t at least the migrations and the broadcasts of slot t
"""

from __future__ import annotations

import highspy
import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.deadline import Deadline
from finecast.solvers.highs import QuietHighs
from finecast.solvers.placement.dynamic_programme import Paths
from finecast.solvers.placement.problem import PlacementProblem


def choose_paths(
    problem: PlacementProblem,
    block: IntArray,
    paths: Paths,
    holds: IntArray,
    free: IntArray,
    seconds: FloatArray,
    start: IntArray,
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
    block
        (P,) block of every path, non-decreasing.
    paths
        The P paths.
    holds
        (T, N, P) zeros and ones: the nodes that cache the block on the path.
    free
        (T, N) bytes they may use together.
    seconds
        (2, T) migrations and broadcasts of the blocks not listed, s.
    start
        (P,) zeros and ones: a known choice.
    gap
        Relative gap at which to stop.
    goal
        Delay (s), with the blocks not listed, at which to stop.
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
    slots, nodes = problem.slots, problem.nodes
    count = len(block)
    names, row_of = np.unique(block, return_inverse=True)
    size = problem.block_size[block].astype(float)
    scale = max(float(problem.block_size[names].mean()), 1.0)
    unit = float(((paths.migration + paths.broadcast) * size).sum() / count * len(names)) or 1.0
    holds = holds.reshape(slots * nodes, -1)
    member = np.zeros((len(names), count))
    member[row_of, np.arange(count)] = 1.0
    parts = [holds * (size / scale), member]
    one = np.ones(len(names))
    lower = [np.full(slots * nodes, -np.inf), one]
    upper = [free.reshape(-1) / scale, one]
    cost = (paths.migration + paths.broadcast).sum(axis=0) * size / unit
    integral = np.ones(count, dtype=np.int32)
    pipelined = problem.schedule == "pipelined"
    if pipelined:
        times = np.concatenate([paths.migration, paths.broadcast]) * size / unit
        parts.append(times)
        parts = [np.pad(part, ((0, 0), (0, slots))) for part in parts]
        parts[-1][:, count:] = -np.tile(np.eye(slots), (2, 1))
        lower.append(np.full(2 * slots, -np.inf))
        upper.append(-seconds.reshape(-1) / unit)
        cost = np.concatenate([np.zeros(count), np.ones(slots)])
        integral = np.concatenate([integral, np.zeros(slots, dtype=np.int32)])
    matrix = np.concatenate(parts).T
    column, row = np.nonzero(matrix)
    first = np.searchsorted(column, np.arange(len(cost)))
    rows = matrix.shape[1]

    # Given a start, the presolve of HiGHS 1.16 misjudges its cost and cuts the optimum off.
    highs = QuietHighs()
    for option, value in (
        ("threads", 1), ("presolve", "off"), ("random_seed", seed), ("mip_rel_gap", gap),
        ("mip_max_nodes", node_limit), ("time_limit", max(deadline.left(), 0.01)),
    ):  # fmt: skip
        highs.setOptionValue(option, value)
    fixed = 0.0 if pipelined else float(seconds.sum())
    highs.setOptionValue("objective_target", (goal - fixed) / unit)
    above = np.concatenate([np.ones(count), np.full(len(cost) - count, np.inf)])
    highs.passModel(
        len(cost), rows, len(row), 1, 1, 0.0, cost, np.zeros(len(cost)), above,
        np.concatenate(lower), np.concatenate(upper), first.astype(np.int32),
        row.astype(np.int32), matrix[column, row], integral,
    )  # fmt: skip
    highs.setSolution(count, np.arange(count, dtype=np.int32), start.astype(float))
    highs.run()
    if highs.getInfo().primal_solution_status != highspy.SolutionStatus.kSolutionStatusFeasible:
        return None
    share = np.array(highs.getSolution().col_value[:count])
    order = np.lexsort((-share, row_of))
    chosen: IntArray = order[np.searchsorted(row_of[order], np.arange(len(names)))]
    used = (holds[:, chosen] @ problem.block_size[names]).reshape(slots, nodes)
    return chosen if (used <= free).all() else None
