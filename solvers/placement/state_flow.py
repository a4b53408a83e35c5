"""The state-flow MILP: proofs of optimality on small problems, with HiGHS directly.

For every block j, a unit flows through the cached sets of the slots (index j left out):

    p[t, X]      the set cached in slot t              sum_X p[0, X] = 1
    a[t, X, l]   sent by Q_l(X) (needed slots)         sum_l a[t, X, l] = p[t, X]
    d[t, Q, n]   node n drops its copy after slot t
    into Q (sum of a[t, X, l] with Q_l(X) = Q, or p[t, Q] where nobody needs the block)
        + sum_{n not in Q} d[t, Q + n, n] = sum_{n in Q} d[t, Q, n] + p[t + 1, Q]
    x[t, n] = sum_{X with n} p[t, X]  binary,          sum_j s_j x[t, n, j] <= S_n

Only x is binary (in the pipelined schedule a too, since a split block could balance the two sums).
What no better placement can use is left out: with prices lambda, the cheapest path of block j
through an element costs r above the cheapest of all, and L(lambda) + s_j r bounds the delay of
every placement that uses it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np

from problem.arrays import BoolArray, FloatArray, IntArray
from solvers.placement.bound import DualPoint, dual_point
from solvers.placement.chains import Classes, placement_of_paths
from solvers.placement.chains import classes as classes_of
from solvers.placement.dynamic_programme import cost_to_go, set_prices, weighted
from solvers.placement.lagrangian import solve_lagrangian
from solvers.placement.problem import Placement, PlacementProblem
from solvers.placement.quiet import QuietHighs
from solvers.placement.result import PlacementResult, Progress, TracePoint

LAGRANGIAN_TIME_SHARE = 0.2
LAGRANGIAN_PATIENCE = 2
PROOF_GAP = 1e-6
"""Relative gap of HiGHS at which a placement counts as proven optimal."""


@dataclass(frozen=True)
class Useful:
    """Elements of the state flow of one class that a placement below a given delay may use.

    Attributes
    ----------
    state
        (T, 2^N) s per byte above the cheapest path, through X cached in slot t.
    arc
        (T, 2^N, N + 1) the same through level l; infinite for levels that do not exist.
    drop
        (T, 2^N, N) the same through dropping node n from Q after slot t.
    """

    state: FloatArray
    arc: FloatArray
    drop: FloatArray


def excess(classes: Classes, point: DualPoint) -> list[Useful]:
    """Price of the cheapest path through every element above the cheapest path of all.

    Parameters
    ----------
    classes
        The tables.
    point
        Point of the Lagrangian dual.

    Returns
    -------
    list[Useful]
        One for every class.
    """
    chains, prices, weights = classes.chains, point.prices, point.prices.weights
    count = len(classes.size)
    of = np.arange(count)
    back = cost_to_go(classes, of, prices.storage[:, :, None], weights)
    slots, sets, _ = back.cached.shape
    nodes = len(chains.count) - 1
    fitting = np.where(classes.fits, prices.storage[:, :, None], np.inf)
    rent = set_prices(fitting)
    state = np.full((slots, sets, count), np.inf)
    arc = np.full((slots, sets, nodes + 1, count), np.inf)
    drop = np.full((slots, sets, nodes, count), np.inf)
    new = np.ones((sets, nodes + 1), dtype=bool)
    new[:, 1:] = chains.sender[:, 1:] != chains.sender[:, :-1]
    before = np.zeros((sets, count))
    for t in range(slots):
        reached = before + rent[t]
        with np.errstate(invalid="ignore"):
            state[t] = np.where(np.isinf(reached), np.inf, before + back.cached[t])
        needed = classes.needed[t]
        sends = weighted(weights.broadcast[t], classes.broadcast[t])[chains.sender]
        cost = weights.migration[t] * chains.time[:, :, None] + sends
        forward = np.where(new[:, :, None], reached[:, None] + cost, np.inf)
        arc[t] = np.where(needed, forward + back.kept[t][chains.sender], np.inf)
        after = np.full((sets, count), np.inf)
        np.minimum.at(after, chains.sender, forward)
        after = np.where(needed, after, reached)
        for n in range(nodes):  # minimum over supersets
            halves = after.reshape(-1, 2, 1 << n, count)
            np.minimum(halves[:, 0], halves[:, 1], out=halves[:, 0])
        for n in range(nodes):
            held = np.flatnonzero(chains.member[:, n])
            drop[t, held, n] = after[held] + back.kept[t][held & ~(1 << n)]
        before = after
    value = back.value
    return [
        Useful(state[..., c] - value[c], arc[..., c] - value[c], drop[..., c] - value[c])
        for c in range(count)
    ]


@dataclass(frozen=True)
class Model:
    """The MILP in arrays, by columns; see the head of this file.

    Attributes
    ----------
    cost, upper, integral
        (V,) objective in `unit` seconds, upper bounds, and which variables are integers.
    row, column, value
        The matrix by its entries.
    lower, above
        (R,) bounds of the rows.
    x
        (T, N, J) column of x[t, n, j].
    arc, arc_at
        (A,) column of each a, and (A, 3) its t, j and Q.
    unit
        Seconds.
    """

    cost: FloatArray
    upper: FloatArray
    integral: BoolArray
    row: IntArray
    column: IntArray
    value: FloatArray
    lower: FloatArray
    above: FloatArray
    x: IntArray
    arc: IntArray
    arc_at: IntArray
    unit: float


def model(
    problem: PlacementProblem, classes: Classes, useful: list[Useful], room: float, unit: float
) -> Model:
    """Build the MILP.

    Parameters
    ----------
    problem, classes
        The problem and its tables.
    useful
        Excess of every element, for every class.
    room
        Seconds between the delay to beat and the bound: elements of more excess are left out.
    unit
        Seconds in which the objective counts.
    """
    slots, nodes, blocks = problem.slots, problem.nodes, problem.blocks
    chains, sets = classes.chains, 1 << nodes
    pipelined = problem.schedule == "pipelined"
    scale = float(problem.block_size.mean())
    entries: list[tuple[IntArray, IntArray, FloatArray]] = []

    def enter(row: IntArray, column: IntArray, value: float | FloatArray) -> None:
        row, column, amount = np.broadcast_arrays(row, column, np.asarray(value, dtype=float))
        entries.append((row.ravel(), column.ravel(), amount.ravel()))

    # Rows: storage, then if pipelined the two sums of every slot, then the rows of each block.
    storage = np.arange(slots * nodes).reshape(slots, nodes)
    lower = [np.full(slots * nodes, -np.inf)]
    above = [np.tile(problem.storage / scale, slots)]
    rows = slots * nodes
    x = np.arange(slots * nodes * blocks).reshape(slots, nodes, blocks)
    cost, upper, integral = [np.zeros(x.size)], [np.ones(x.size)], [np.ones(x.size, dtype=bool)]
    columns = x.size
    if pipelined:
        sums = rows + np.arange(2 * slots).reshape(2, slots)
        enter(sums, columns + np.arange(slots), -1.0)
        lower.append(np.full(2 * slots, -np.inf))
        above.append(np.zeros(2 * slots))
        cost.append(np.ones(slots))
        upper.append(np.full(slots, np.inf))
        integral.append(np.zeros(slots, dtype=bool))
        rows, columns = rows + 2 * slots, columns + slots
    arcs, arcs_at = [], []

    for j in range(blocks):
        c = classes.of_block[j]
        size = float(problem.block_size[j])
        open_state = useful[c].state * size <= room
        open_arc = useful[c].arc * size <= room
        open_drop = useful[c].drop * size <= room
        enter(storage, x[:, :, j], size / scale)
        # Rows of this block: one start; x of every (t, n); balance before and after every slot.
        link = rows + 1 + np.arange(slots * nodes).reshape(slots, nodes)
        entry = rows + 1 + slots * nodes + np.arange(slots * sets).reshape(slots, sets)
        leave = entry + slots * sets
        count = 1 + slots * nodes + 2 * slots * sets
        bounds = np.zeros(count)
        bounds[0] = 1.0
        lower.append(bounds)
        above.append(bounds)
        enter(link, x[:, :, j], -1.0)
        for t in range(slots):
            state = np.flatnonzero(open_state[t])
            p = columns + np.arange(len(state))
            columns += len(p)
            cost.append(np.zeros(len(p)))
            integral.append(np.zeros(len(p), dtype=bool))
            upper.append(np.ones(len(p)))
            if t == 0:
                enter(np.array(rows), p, 1.0)
            else:
                enter(leave[t - 1, state], p, -1.0)
            i, n = np.nonzero(chains.member[state])
            enter(link[t, n], p[i], 1.0)
            if classes.needed[t, c]:
                enter(entry[t, state], p, 1.0)
                held, level = np.nonzero(open_arc[t])
                sender = chains.sender[held, level]
                moves = size * chains.time[held, level] / unit
                sends = size * classes.broadcast[t, sender, c] / unit
                if t == slots - 1 and not pipelined:
                    order = np.lexsort((moves + sends, held))
                    keep = order[np.flatnonzero(np.diff(held[order], prepend=-1))]
                    held, sender = held[keep], sender[keep]
                    moves, sends = moves[keep], sends[keep]
                a = columns + np.arange(len(held))
                columns += len(a)
                cost.append(np.zeros(len(a)) if pipelined else moves + sends)
                integral.append(np.full(len(a), pipelined))
                upper.append(np.ones(len(a)))
                enter(entry[t, held], a, -1.0)
                if pipelined:
                    enter(sums[0, t], a, moves)
                    enter(sums[1, t], a, sends)
                arcs.append(a)
                arcs_at.append(np.stack([np.full(len(a), t), np.full(len(a), j), sender], axis=1))
                into, source = sender, a
            else:
                into, source = state, p
            if t < slots - 1:
                enter(leave[t, into], source, 1.0)
                held, n = np.nonzero(open_drop[t])
                d = columns + np.arange(len(held))
                columns += len(d)
                cost.append(np.zeros(len(d)))
                integral.append(np.zeros(len(d), dtype=bool))
                upper.append(np.ones(len(d)))
                enter(leave[t, held], d, -1.0)
                enter(leave[t, held & ~(1 << n)], d, 1.0)
        rows += count

    row, column, value = (np.concatenate(part) for part in zip(*entries, strict=True))
    none = np.zeros(0, dtype=np.int64)
    return Model(
        np.concatenate(cost), np.concatenate(upper), np.concatenate(integral),
        row.astype(np.int64), column.astype(np.int64), value,
        np.concatenate(lower), np.concatenate(above), x,
        np.concatenate([none, *arcs]), np.concatenate([np.zeros((0, 3), dtype=np.int64), *arcs_at]),
        unit,
    )  # fmt: skip


def best_senders(classes: Classes, cached: IntArray) -> IntArray:
    """Cheapest sender sets (T, J) of the sequential schedule for given cached sets (T, J)."""
    chains = classes.chains
    sender = cached.copy()
    for t in range(len(cached)):
        needed = np.flatnonzero(classes.needed[t, classes.of_block])
        choice = chains.sender[cached[t, needed]]
        cost = (
            chains.time[cached[t, needed]]
            + classes.broadcast[t][choice, classes.of_block[needed][:, None]]
        )
        if t + 1 < len(cached):
            later = cached[t + 1, needed][:, None]
            cost = np.where((choice & later) == later, cost, np.inf)
        sender[t, needed] = choice[np.arange(len(needed)), cost.argmin(axis=1)]
    return sender


def solve_state_flow(
    problem: PlacementProblem,
    *,
    gap: float | None = None,
    time_limit: float | None = None,
    seed: int = 0,
    start: Placement | None = None,
    callback: Callable[[TracePoint], None] | None = None,
) -> PlacementResult:
    """Find a placement and try to prove it optimal.

    A Lagrangian search comes first: its placement is the one to beat and its prices leave elements
    out. The lower bound afterwards is the one HiGHS reports (of kind "milp").

    Parameters
    ----------
    problem, gap, time_limit, seed, start, callback
        As for `solve_lagrangian`.

    Raises
    ------
    ValueError
        Where `start` is not feasible, or `gap` or `time_limit` is negative.
    """
    started = time.perf_counter()
    warm = solve_lagrangian(
        problem, gap=gap, seed=seed, start=start,
        time_limit=None if time_limit is None else LAGRANGIAN_TIME_SHARE * time_limit,
        callback=callback, patience=LAGRANGIAN_PATIENCE,
    )  # fmt: skip
    progress = Progress(
        problem, warm.placement, warm.lower_bound,
        started=started, gap=gap, time_limit=time_limit, callback=None, optimal_gap=PROOF_GAP,
    )  # fmt: skip
    progress.trace = list(warm.trace)
    progress.callback = callback
    if progress.finished or warm.prices is None:
        return progress.result(warm.prices)
    classes = classes_of(problem)
    point = dual_point(problem, classes, warm.prices)
    unit = progress.delay
    room = (progress.delay - point.bound) * (1 + 1e-9) + 1e-12 * unit
    milp = model(problem, classes, excess(classes, point), room, unit)
    progress.raise_bound(_branch_and_bound(progress, classes, milp, seed))
    milp_bound = progress.lower_bound > warm.lower_bound
    return progress.result(warm.prices, "milp" if milp_bound else "certified")


def _branch_and_bound(progress: Progress, classes: Classes, milp: Model, seed: int) -> float:
    """Solve the MILP; offer its placements to the progress; return the bound of HiGHS (s)."""
    highs = QuietHighs()
    for option, value in (
        ("threads", 1), ("random_seed", seed),
        ("mip_rel_gap", 0.5 * progress.wanted), ("mip_abs_gap", 0.0),
        ("mip_feasibility_tolerance", 1e-9), ("primal_feasibility_tolerance", 1e-9),
    ):  # fmt: skip
        highs.setOptionValue(option, value)
    if np.isfinite(progress.deadline):
        left = max(0.01, progress.deadline - time.perf_counter())
        highs.setOptionValue("time_limit", left)
    columns, rows = len(milp.cost), len(milp.lower)
    order = np.lexsort((milp.row, milp.column))
    first = np.searchsorted(milp.column[order], np.arange(columns))
    highs.passModel(
        columns, rows, len(order), 1, 1, 0.0, milp.cost, np.zeros(columns), milp.upper,
        milp.lower, milp.above, first.astype(np.int32), milp.row[order].astype(np.int32),
        milp.value[order], milp.integral.astype(np.int32),
    )  # fmt: skip

    def improved(event: Any) -> None:
        _offer(progress, classes, milp, np.array(event.data_out.mip_solution))

    def logged(event: Any) -> None:
        bound = event.data_out.mip_dual_bound
        if np.isfinite(bound):
            progress.raise_bound(bound * milp.unit)
        if progress.reached:
            event.interrupt()

    highs.cbMipImprovingSolution += improved
    highs.cbMipLogging += logged
    highs.cbMipInterrupt += logged
    highs.run()
    status = highs.getModelStatus()
    if status == highspy.HighsModelStatus.kInfeasible:
        return progress.delay  # nothing below the delay to beat
    info = highs.getInfo()
    if info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
        _offer(progress, classes, milp, np.array(highs.getSolution().col_value))
    bound = float(info.mip_dual_bound) * milp.unit
    return bound if np.isfinite(bound) else 0.0


def _offer(progress: Progress, classes: Classes, milp: Model, value: FloatArray) -> None:
    problem = progress.problem
    holds = (value[milp.x] > 0.5).astype(np.int64)
    cached = (holds * (1 << np.arange(problem.nodes))[:, None]).sum(axis=1)
    if problem.schedule == "sequential":
        sender = best_senders(classes, cached)
    else:
        sender = cached.copy()
        used = value[milp.arc] > 0.5
        t, j, q = milp.arc_at[used].T
        sender[t, j] = q
    progress.offer(placement_of_paths(problem, cached, sender))
