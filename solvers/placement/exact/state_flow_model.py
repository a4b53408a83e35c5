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

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.placement.chains import Classes
from finecast.solvers.placement.exact.elimination import Useful
from finecast.solvers.placement.problem import PlacementProblem


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
