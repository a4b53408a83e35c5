"""The joint placement as a mixed-integer programme in the words of the formulation, in Pyomo.

Choices of a slot t (all 0 or 1; m and n are nodes, m = N the cloud, Q a set of nodes):

    x[t, n, j]           node n has block j cached when the slot begins
    receive[t, j, m, n]  node n receives block j from m
    send[t, j, Q]        block j is broadcast by the nodes of Q

Rules (docs/formulation.md section 2), with has(t, n, j) = x[t, n, j] + sum_m receive[t, j, m, n]:

    storage   sum_j s_j x[t, n, j] <= S_n
    source    receive[t, j, m, n] <= x[t, m, j]              the cloud has everything
    once      sum_m receive[t, j, m, n] <= 1
    sender    sum_Q send[t, j, Q] = 1,   sum_{Q with n} send[t, j, Q] <= has(t, n, j)
    keep      x[t + 1, n, j] <= has(t, n, j)
    tau       tau[t, j] >= s_j link[m, n] receive[t, j, m, n]
    d         d[t, j] = s_j sum_Q broadcast[t][group[t, j], Q] send[t, j, Q]

Sequential: minimise sum_t sum_j tau[t, j] + d[t, j]. Pipelined: minimise sum_t delay[t], the exact
end of the two-machine flow shop. Its order is a choice too (before[t, i, j]: i goes before j), by
disjunctions with a horizon H that no optimum exceeds, the delay of fetching all from the cloud:

    end_migration[j] >= end_migration[i] + tau[j] - H [j before i]
    end_broadcast[j] >= end_broadcast[i] + d[j] - H [j before i]
    end_migration[j] >= tau[j],  end_broadcast[j] >= end_migration[j] + d[j],
    delay >= end_broadcast[j],   delay >= sum_j tau[j],   delay >= sum_j d[j]

(Manne, Operations Research 8 (1960) 219-223). The last two are implied; they only help the solver.

Nothing is left out that is merely never better: no classes of blocks, no nested sender sets. This
makes the model slow, and an independent check of the fast ones.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyomo.environ as pyo

from finecast.problem.arrays import IntArray
from finecast.problem.files import write_atomically
from finecast.solvers.placement.problem import Placement, PlacementProblem, placement_delay


def placement_model(problem: PlacementProblem, *, relaxed: bool = False, room: float = 0.0) -> Any:
    """Build the model; see the head of this file. Times are in seconds.

    Parameters
    ----------
    problem
        The problem.
    relaxed
        Let every choice be any number from 0 to 1.
    room
        Share by which a storage counts as larger, see `finecast.solvers.placement.overfull`.

    Returns
    -------
    pyomo.environ.ConcreteModel
    """
    size, storage = problem.block_size.tolist(), problem.storage.tolist()
    link, group = problem.link.tolist(), problem.group.tolist()
    broadcast = [np.asarray(table).tolist() for table in problem.broadcast]
    cloud = problem.nodes
    needed = [(int(t), int(j)) for t, j in np.argwhere(problem.group >= 0)]
    links = [(int(m), int(n)) for m, n in np.argwhere(np.isfinite(problem.link))]
    into = {n: [m for m, to in links if to == n] for n in range(problem.nodes)}
    senders = {
        (t, j): np.flatnonzero(np.isfinite(problem.broadcast[t][group[t][j]])).tolist()
        for t, j in needed
    }
    choice = pyo.UnitInterval if relaxed else pyo.Binary

    # Indices.
    model = pyo.ConcreteModel(name="placement")
    model.T = pyo.RangeSet(0, problem.slots - 1)
    model.N = pyo.RangeSet(0, problem.nodes - 1)
    model.J = pyo.RangeSet(0, problem.blocks - 1)
    model.needed = pyo.Set(dimen=2, initialize=needed)
    model.links = pyo.Set(dimen=2, initialize=links)
    model.sets = pyo.Set(dimen=3, initialize=[(t, j, q) for t, j in needed for q in senders[t, j]])

    # Choices, and the times that they take.
    model.x = pyo.Var(model.T, model.N, model.J, domain=choice)
    model.receive = pyo.Var(model.needed, model.links, domain=choice)
    model.send = pyo.Var(model.sets, domain=choice)
    model.tau = pyo.Var(model.needed, domain=pyo.NonNegativeReals)
    model.d = pyo.Expression(
        model.needed,
        rule=lambda model, t, j: size[j] * sum(
            broadcast[t][group[t][j]][q] * model.send[t, j, q] for q in senders[t, j]
        ),
    )  # fmt: skip

    def received(t: int, n: int, j: int) -> Any:
        return sum(model.receive[t, j, m, n] for m in into[n]) if (t, j) in model.needed else 0

    # Rules, as at the head of this file.
    model.storage = pyo.Constraint(
        model.T, model.N,  # in shares of the storage: bytes would dwarf a solver's tolerances
        rule=lambda model, t, n: pyo.quicksum(
            size[j] / max(storage[n], 1) * model.x[t, n, j] for j in model.J
        ) <= min(storage[n], 1) * (1 + room),
    )  # fmt: skip
    model.covers = pyo.ConstraintList()  # storage to the byte, added where a solver overfills one
    model.source = pyo.Constraint(
        model.needed, model.links,
        rule=lambda model, t, j, m, n: pyo.Constraint.Skip if m == cloud
        else model.receive[t, j, m, n] <= model.x[t, m, j],
    )  # fmt: skip
    model.once = pyo.Constraint(
        model.needed, model.N, rule=lambda model, t, j, n: received(t, n, j) <= 1
    )
    model.sender = pyo.Constraint(
        model.needed,
        rule=lambda model, t, j: sum(model.send[t, j, q] for q in senders[t, j]) == 1,
    )
    model.has = pyo.Constraint(
        model.needed, model.N,
        rule=lambda model, t, j, n: sum(
            model.send[t, j, q] for q in senders[t, j] if q >> n & 1
        ) <= model.x[t, n, j] + received(t, n, j),
    )  # fmt: skip
    model.keep = pyo.Constraint(
        model.T, model.N, model.J,
        rule=lambda model, t, n, j: pyo.Constraint.Skip if t == problem.slots - 1
        else model.x[t + 1, n, j] <= model.x[t, n, j] + received(t, n, j),
    )  # fmt: skip
    model.migration = pyo.Constraint(
        model.needed, model.links,
        rule=lambda model, t, j, m, n:
        model.tau[t, j] >= size[j] * link[m][n] * model.receive[t, j, m, n],
    )  # fmt: skip

    if problem.schedule == "pipelined":
        _flow_shop(model, problem, choice)
        model.D = pyo.Objective(expr=pyo.quicksum(model.delay[t] for t in model.T))
    else:
        model.D = pyo.Objective(
            expr=pyo.quicksum(model.tau[t, j] + model.d[t, j] for t, j in model.needed)
        )
    return model


def _flow_shop(model: Any, problem: PlacementProblem, choice: Any) -> None:
    """Add the end of every migration and broadcast, in an order to be chosen."""
    together = [(t, j) for t, j in model.needed]
    pairs = [(t, i, j) for t, i in together for u, j in together if u == t and i != j]
    horizon = placement_delay(problem, everything_from_the_cloud(problem)) * (1 + 1e-9)

    # Order and ends of the migrations and broadcasts of every slot.
    model.pairs = pyo.Set(dimen=3, initialize=pairs)
    model.delay = pyo.Var(model.T, domain=pyo.NonNegativeReals)
    model.end_migration = pyo.Var(model.needed, domain=pyo.NonNegativeReals)
    model.end_broadcast = pyo.Var(model.needed, domain=pyo.NonNegativeReals)
    model.before = pyo.Var([(t, i, j) for t, i, j in pairs if i < j], domain=choice)

    def after(t: int, i: int, j: int) -> Any:
        """Whether i goes after j."""
        return 1 - model.before[t, i, j] if i < j else model.before[t, j, i]

    # One migration at a time, one broadcast at a time, in the same order.
    model.migration_in_turn = pyo.Constraint(
        model.pairs,
        rule=lambda model, t, i, j: (
            model.end_migration[t, j]
            >= model.end_migration[t, i] + model.tau[t, j] - horizon * after(t, i, j)
        ),
    )
    model.broadcast_in_turn = pyo.Constraint(
        model.pairs,
        rule=lambda model, t, i, j: (
            model.end_broadcast[t, j]
            >= model.end_broadcast[t, i] + model.d[t, j] - horizon * after(t, i, j)
        ),
    )
    # A block migrates before it is broadcast, and the slot ends after the last broadcast.
    model.migrated = pyo.Constraint(
        model.needed, rule=lambda model, t, j: model.end_migration[t, j] >= model.tau[t, j]
    )
    model.broadcast_after_migration = pyo.Constraint(
        model.needed,
        rule=lambda model, t, j: (
            model.end_broadcast[t, j] >= model.end_migration[t, j] + model.d[t, j]
        ),
    )
    model.last = pyo.Constraint(
        model.needed, rule=lambda model, t, j: model.delay[t] >= model.end_broadcast[t, j]
    )
    # Implied; they help the solver.
    model.all_migrations = pyo.Constraint(
        model.T,
        rule=lambda model, t: (
            model.delay[t] >= pyo.quicksum(model.tau[t, j] for u, j in together if u == t)
        ),
    )
    model.all_broadcasts = pyo.Constraint(
        model.T,
        rule=lambda model, t: (
            model.delay[t] >= pyo.quicksum(model.d[t, j] for u, j in together if u == t)
        ),
    )


def everything_from_the_cloud(problem: PlacementProblem) -> Placement:
    """Return the placement that caches nothing: every node receives every needed block."""
    shape = (problem.slots, problem.nodes, problem.blocks)
    source: IntArray = np.where(problem.group[:, None] >= 0, problem.nodes, -1)
    return Placement(np.zeros(shape, dtype=bool), np.broadcast_to(source, shape))


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Refuse file names that `write_model` cannot write.

    Raises
    ------
    ValueError
        The suffix is neither .lp nor .mps.
    """
    if Path(path).suffix not in (".lp", ".mps"):
        raise ValueError(f"write: {str(path)!r} is not allowed, must end in .lp or .mps")


def write_model(problem: PlacementProblem, path: str | os.PathLike[str]) -> None:
    """Write the model, for other solvers and for reading.

    Parameters
    ----------
    problem
        The problem.
    path
        Ends in .lp or .mps, which says the format.

    Raises
    ------
    ValueError
        The suffix is neither.
    FormatError
        The file cannot be written.
    """
    check_suffix(path)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / f"placement{Path(path).suffix}"
        placement_model(problem).write(str(draft), io_options={"symbolic_solver_labels": True})
        write_atomically(path, draft.read_bytes())
