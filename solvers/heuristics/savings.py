"""What every copy of a block saved in a slot, given the others' copies.

With the block cached at the nodes X in a slot it costs, per byte,

    f(X) = min over levels l of tau_l(X) + broadcast(Q_l(X))                   seconds per byte

(`finecast.solvers.placement.greedy`), so the copy at node n saved

    g_n = f(X - n) - f(X + n) >= 0

and where n had none, g_n is what a copy would have saved. For a slot whose schedule is
sequential the delay is the sum of s_j f_j, and s_j g_n is exactly its change. In the theory of
no-regret caching, s_j g_n is the gradient at x of the multilinear extension

    F(y) = E[sum_j s_j (f_j(nobody) - f_j(X_j))],   n in X_j with probability y_nj, independently,

and so an unbiased estimate of the gradient at y where the caches were drawn from y node by node.
"""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.node_set_tables import Table, bits
from finecast.solvers.placement.greedy import best_levels
from finecast.solvers.placement.problem import PlacementProblem


def copy_savings(problem: PlacementProblem, cached: IntArray) -> FloatArray:
    """Return (N, J) the seconds per byte that a copy at each node saves in this slot, at least 0.

    Parameters
    ----------
    problem
        One slot.
    cached
        (J,) X as node sets.
    """
    saved = np.zeros((problem.nodes, problem.blocks))
    needed = np.flatnonzero(problem.group[0] >= 0)
    without, with_copy = neighbours(cached[needed], problem.nodes)
    block = np.broadcast_to(needed, without.shape).reshape(-1)
    more, _ = best_levels(problem, 0, block, without.reshape(-1))
    less, _ = best_levels(problem, 0, block, with_copy.reshape(-1))
    saved[:, needed] = (more - less).reshape(without.shape)
    return saved


def table_savings(cost: Table, cached: IntArray, nodes: int) -> FloatArray:
    """Return (N, J) the seconds per byte that a copy at each node saves by a table of costs.

    Parameters
    ----------
    cost
        (J, 2^N) seconds per byte under every cached set.
    cached
        (J,) X as node sets.
    nodes
        N.
    """
    without, with_copy = neighbours(cached, nodes)
    block = np.broadcast_to(np.arange(len(cached)), without.shape)
    return np.asarray(cost[block, without] - cost[block, with_copy])


def neighbours(cached: IntArray, nodes: int) -> tuple[IntArray, IntArray]:
    """Return (N, J) the node sets without and with each node."""
    bit = bits(nodes)[:, None]
    return cached & ~bit, cached | bit
