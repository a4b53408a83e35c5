"""Chain reduction and classes: the tables of the dynamic programme.

With X cached, node n can have the block after d_n(X) = min over sources m in X and the cloud of
link[m, n] seconds per byte. A migration lasts as long as its slowest receiver, so all receivers no
slower than it are free: besides Q = X only the nested sets

    Q_l(X) = X + {n : d_n(X) <= tau_l},   tau_1 < tau_2 < ...  the distinct values of d_n(X)

can be optimal, since the broadcast time never rises in Q. Blocks with the same user group in every
slot have the same times per byte; they form a class.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from problem.arrays import BoolArray, FloatArray, IntArray
from solvers.placement.problem import Placement, PlacementProblem


@dataclass(frozen=True)
class Chains:
    """Nested sender sets of every cached set.

    Attributes
    ----------
    member
        (2^N, N): node n is in the set.
    order
        (2^N,) the sets by their number of nodes, smallest first.
    position
        (2^N,) inverse of `order`.
    count
        (N + 1,) how many sets, the first in `order`, are given a level l. It is all those with
        at most N - l nodes, some with a repeated last level where two nodes have equal times.
    sender
        (2^N, N + 1) Q_l(X), rows by X itself; the last one repeated.
    time
        (2^N, N + 1) tau_l, seconds per byte; tau_0 = 0.
    """

    member: BoolArray
    order: IntArray
    position: IntArray
    count: IntArray
    sender: IntArray
    time: FloatArray


def chains(link: FloatArray) -> Chains:
    """Build the nested sender sets of all cached sets.

    Parameters
    ----------
    link
        (N + 1, N) seconds per byte, the last row from the cloud.
    """
    nodes = link.shape[1]
    sets = np.arange(1 << nodes)
    member = ((sets[:, None] >> np.arange(nodes)) & 1).astype(bool)
    reach = source_times(link, member).min(axis=1)
    sender = np.repeat(sets[:, None], nodes + 1, axis=1)
    time = np.zeros((1 << nodes, nodes + 1))
    for x in sets:
        levels = np.unique(reach[x][~member[x]])
        levels = levels[np.isfinite(levels)]
        for level in range(1, nodes + 1):
            tau = levels[min(level, len(levels)) - 1] if len(levels) else 0.0
            joins = ~member[x] & (reach[x] <= tau) if len(levels) else ~member[x] & False
            sender[x, level] = x | int((joins << np.arange(nodes)).sum())
            time[x, level] = tau
    size = member.sum(axis=1)
    order = np.argsort(size, kind="stable")
    position = np.argsort(order, kind="stable")
    count = np.array([(size <= nodes - level).sum() for level in range(nodes + 1)])
    return Chains(member, order, position, count, sender, time)


def source_times(link: FloatArray, member: BoolArray) -> FloatArray:
    """Seconds per byte from every possible source to every node.

    Parameters
    ----------
    link
        (N + 1, N) seconds per byte.
    member
        (..., N) cached set.

    Returns
    -------
    FloatArray
        (..., N + 1, N), infinite from nodes outside the cached set.
    """
    cloud = np.ones((*member.shape[:-1], 1), dtype=bool)
    has = np.concatenate([member, cloud], axis=-1)
    return np.where(has[..., None], link, np.inf)


@dataclass(frozen=True)
class Classes:
    """Blocks grouped by what they cost per byte, and the broadcast times of the groups.

    Attributes
    ----------
    chains
        The nested sender sets.
    of_block
        (J,) class of every block.
    size
        (C,) byte, total size of the class.
    needed
        (T, C): somebody needs the class.
    broadcast
        (T, 2^N, C) seconds per byte, zero where the class is not needed.
    """

    chains: Chains
    of_block: IntArray
    size: FloatArray
    needed: BoolArray
    broadcast: FloatArray


def classes(problem: PlacementProblem) -> Classes:
    """Group the blocks of a problem into classes."""
    columns, of_block = np.unique(problem.group, axis=1, return_inverse=True)
    of_block = of_block.reshape(-1).astype(np.int64)
    size = np.bincount(of_block, weights=problem.block_size, minlength=columns.shape[1])
    needed = columns >= 0
    broadcast = np.zeros((problem.slots, 1 << problem.nodes, columns.shape[1]))
    for t in range(problem.slots):
        c = np.flatnonzero(needed[t])
        broadcast[t][:, c] = problem.broadcast[t][columns[t, c]].T
    return Classes(chains(problem.link), of_block, size, needed, broadcast)


def placement_of_paths(problem: PlacementProblem, cached: IntArray, sender: IntArray) -> Placement:
    """Turn the node sets of every block into caches and sources.

    Parameters
    ----------
    problem
        The problem.
    cached, sender
        (T, J) node sets X and Q as bit masks, X within Q; every receiver takes its fastest source.
    """
    nodes = np.arange(problem.nodes)
    cache = ((cached[:, None, :] >> nodes[:, None]) & 1).astype(bool)
    receives = ((sender & ~cached)[:, None, :] >> nodes[:, None]) & 1
    member = ((np.arange(1 << problem.nodes)[:, None] >> nodes) & 1).astype(bool)
    fastest = source_times(problem.link, member).argmin(axis=1)
    source = np.where(receives == 1, np.moveaxis(fastest[cached], 2, 1), -1)
    return Placement(cache, source)


def paths_of_placement(problem: PlacementProblem, placement: Placement) -> tuple[IntArray, IntArray]:
    """Node sets X and Q of every block in every slot, as bit masks, (T, J) each."""
    bits = (1 << np.arange(problem.nodes))[:, None]
    cached = (placement.cache * bits).sum(axis=1)
    sender = ((placement.cache | (placement.source >= 0)) * bits).sum(axis=1)
    return cached, sender
