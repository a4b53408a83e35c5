"""The state-flow MILP: proofs of optimality on small problems, with HiGHS directly.

For every block j, a unit flows through the cached sets of the slots (index j left out):

    p[t, X]      the set cached in slot t              sum_X p[0, X] = 1
    a[t, X, l]   sent by Q_l(X) (needed slots)         sum_l a[t, X, l] = p[t, X]
    d[t, Q, n]   node n drops its copy after slot t
    into Q (sum of a[t, X, l] with Q_l(X) = Q, or p[t, Q] where nobody needs the block)
        + sum_{n not in Q} d[t, Q + n, n] = sum_{n in Q} d[t, Q, n] + p[t + 1, Q]
    x[t, n] = sum_{X with n} p[t, X]  binary,          sum_j s_j x[t, n, j] <= S_n (see `overfull`)

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
from finecast.solvers.placement.overfull import STORAGE_ROOM
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
    state, state_at
        (P,) column of each p, and (P, 3) its t, j and X.
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
    state: IntArray
    state_at: IntArray
    arc: IntArray
    arc_at: IntArray
    unit: float


class _Placed:
    """Columns of one sort while they grow, each with its slot, its block and its set."""

    def __init__(self) -> None:
        self._column = [np.zeros(0, dtype=np.int64)]
        self._at = [np.zeros((0, 3), dtype=np.int64)]

    def add(self, t: int, j: int, column: IntArray, sets: IntArray) -> None:
        """Add columns (A,) of slot t and block j, of the sets (A,)."""
        self._column.append(column)
        self._at.append(np.stack([np.full(len(sets), t), np.full(len(sets), j), sets], axis=1))

    @property
    def arrays(self) -> tuple[IntArray, IntArray]:
        """Columns (A,), and their t, j and set (A, 3)."""
        return np.concatenate(self._column), np.concatenate(self._at)


class _Builder:
    """The MILP while it grows, row by row and column by column."""

    def __init__(self) -> None:
        self._rows = self._columns = 0
        self._lower: list[FloatArray] = []
        self._above: list[FloatArray] = []
        self._cost: list[FloatArray] = []
        self._upper: list[FloatArray] = []
        self._integral: list[BoolArray] = []
        self._entries: list[tuple[IntArray, IntArray, FloatArray]] = []

    def rows(self, count: int, lower: float, above: float | FloatArray) -> IntArray:
        """Add rows with these bounds; return their numbers."""
        self._lower.append(np.full(count, lower))
        self._above.append(np.full(count, above))
        self._rows += count
        return np.arange(self._rows - count, self._rows)

    def columns(
        self, count: int, cost: float | FloatArray = 0.0, upper: float = 1.0, integral: bool = False
    ) -> IntArray:
        """Add variables from 0 to `upper`; return their numbers."""
        self._cost.append(np.full(count, cost))
        self._upper.append(np.full(count, upper))
        self._integral.append(np.full(count, integral))
        self._columns += count
        return np.arange(self._columns - count, self._columns)

    def enter(self, row: IntArray, column: IntArray, value: float | FloatArray) -> None:
        """Enter values into the matrix; the three arrays broadcast against each other."""
        row, column, amount = np.broadcast_arrays(row, column, np.asarray(value, dtype=float))
        self._entries.append((row.ravel(), column.ravel(), amount.ravel()))

    def model(self, x: IntArray, states: _Placed, arcs: _Placed, unit: float) -> Model:
        """Return the MILP, with where its decisions stand; see `Model`."""
        state, state_at = states.arrays
        arc, arc_at = arcs.arrays
        row, column, value = (np.concatenate(part) for part in zip(*self._entries, strict=True))
        return Model(
            cost=np.concatenate(self._cost),
            upper=np.concatenate(self._upper),
            integral=np.concatenate(self._integral),
            row=row.astype(np.int64),
            column=column.astype(np.int64),
            value=value,
            lower=np.concatenate(self._lower),
            above=np.concatenate(self._above),
            x=x,
            state=state,
            state_at=state_at,
            arc=arc,
            arc_at=arc_at,
            unit=unit,
        )


@dataclass(frozen=True)
class _Frame:
    """What the flows of all blocks share.

    Attributes
    ----------
    problem, classes
        The problem and its tables.
    storage
        (T, N) rows of the storage.
    sums
        (2, T) rows of the migrations and the broadcasts; None if sequential.
    x
        (T, N, J) columns.
    scale, unit
        Bytes in which the storage counts, seconds in which the objective does.
    """

    problem: PlacementProblem
    classes: Classes
    storage: IntArray
    sums: IntArray | None
    x: IntArray
    scale: float
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
    scale = float(problem.block_size.mean())
    milp = _Builder()
    most = np.tile(problem.storage * (1 + STORAGE_ROOM) / scale, slots)
    storage = milp.rows(slots * nodes, -np.inf, most)
    x = milp.columns(slots * nodes * blocks, integral=True).reshape(slots, nodes, blocks)
    sums = None
    if problem.schedule == "pipelined":
        # The delay of a slot is a variable above its migrations and above its broadcasts.
        sums = milp.rows(2 * slots, -np.inf, 0.0).reshape(2, slots)
        milp.enter(sums, milp.columns(slots, cost=1.0, upper=np.inf), -1.0)
    frame = _Frame(problem, classes, storage.reshape(slots, nodes), sums, x, scale, unit)
    states, arcs = _Placed(), _Placed()
    for j in range(blocks):
        _add_flow(milp, frame, j, useful[classes.of_block[j]], room, states, arcs)
    return milp.model(x, states, arcs, unit)


def _add_flow(
    milp: _Builder,
    frame: _Frame,
    j: int,
    useful: Useful,
    room: float,
    states: _Placed,
    arcs: _Placed,
) -> None:
    """Add the flow of block j.

    Parameters
    ----------
    milp
        Grows.
    frame
        What all flows share.
    j
        The block.
    useful
        Excess of the elements of its class.
    room
        As in `model`.
    states, arcs
        Grow by its p and its a.
    """
    slots, nodes, sets = frame.problem.slots, frame.problem.nodes, 1 << frame.problem.nodes
    classes, c = frame.classes, frame.classes.of_block[j]
    size = float(frame.problem.block_size[j])
    milp.enter(frame.storage, frame.x[:, :, j], size / frame.scale)

    # Rows: one start; x of every slot and node; balance before and after the sending of a slot.
    start = milp.rows(1, 1.0, 1.0)
    link = milp.rows(slots * nodes, 0.0, 0.0).reshape(slots, nodes)
    entry = milp.rows(slots * sets, 0.0, 0.0).reshape(slots, sets)
    leave = milp.rows(slots * sets, 0.0, 0.0).reshape(slots, sets)
    milp.enter(link, frame.x[:, :, j], -1.0)
    for t in range(slots):
        # p: the block is cached in a set.
        state = np.flatnonzero(useful.state[t] * size <= room)
        p = milp.columns(len(state))
        states.add(t, j, p, state)
        if t == 0:
            milp.enter(start, p, 1.0)
        else:
            milp.enter(leave[t - 1, state], p, -1.0)
        row, node = np.nonzero(classes.chains.member[state])
        milp.enter(link[t, node], p[row], 1.0)

        # a: it is sent by a set, if anybody needs it; else it stays where it is.
        kept, flow = state, p
        if classes.needed[t, c]:
            milp.enter(entry[t, state], p, 1.0)
            held, level = np.nonzero(useful.arc[t] * size <= room)
            held, kept, flow = _add_arcs(milp, frame, t, j, held, level)
            milp.enter(entry[t, held], flow, -1.0)
            arcs.add(t, j, flow, kept)

        # d: nodes drop their copies, one after another, before the next slot.
        if t < slots - 1:
            milp.enter(leave[t, kept], flow, 1.0)
            held, node = np.nonzero(useful.drop[t] * size <= room)
            d = milp.columns(len(held))
            milp.enter(leave[t, held], d, -1.0)
            milp.enter(leave[t, held & ~(1 << node)], d, 1.0)


def _add_arcs(
    milp: _Builder, frame: _Frame, t: int, j: int, held: IntArray, level: IntArray
) -> tuple[IntArray, IntArray, IntArray]:
    """Add the arcs of block j in slot t, from sets X by levels l (A,).

    Returns
    -------
    held, sender, arc
        X, Q_l(X) and the column of each; in the last slot only the fastest of every X, since
        nothing comes after it (sequential schedule).
    """
    classes, c = frame.classes, frame.classes.of_block[j]
    size = float(frame.problem.block_size[j])
    sender = classes.chains.sender[held, level]
    moves = size * classes.chains.time[held, level] / frame.unit
    sends = size * classes.broadcast[t, sender, c] / frame.unit
    if frame.sums is not None:
        # Integral: a block in parts could balance the two sums.
        arc = milp.columns(len(held), integral=True)
        milp.enter(frame.sums[0, t], arc, moves)
        milp.enter(frame.sums[1, t], arc, sends)
        return held, sender, arc
    if t == frame.problem.slots - 1:
        order = np.lexsort((moves + sends, held))
        fastest = order[np.flatnonzero(np.diff(held[order], prepend=-1))]
        held, sender = held[fastest], sender[fastest]
        moves, sends = moves[fastest], sends[fastest]
    return held, sender, milp.columns(len(held), cost=moves + sends)
