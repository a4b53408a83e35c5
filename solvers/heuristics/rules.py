"""Rules that online heuristics share: what to pull now, what to keep."""

from __future__ import annotations

from typing import Literal

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.node_set_tables import node_sets
from finecast.solvers.online import Observation
from finecast.solvers.placement.chains import Chains, placement_of_paths
from finecast.solvers.placement.fill import fill
from finecast.solvers.placement.greedy import best_levels
from finecast.solvers.placement.problem import PlacementProblem

KeepRule = Literal["joint", "in-turn"]
"""How the nodes decide what to keep: all blocks and nodes at once, or one node after another."""

KEEP_RULES: tuple[KeepRule, ...] = ("joint", "in-turn")


def check_keep_rule(keep: str) -> None:
    """Raise a `ValueError` if this is not the name of a keep rule."""
    if keep not in KEEP_RULES:
        raise ValueError(f"keep: {keep!r} is not allowed, must be one of {', '.join(KEEP_RULES)}")


class Static:
    """A policy that never changes the caches of slot 0; misses come by the best chain level."""

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Pull what is missed, keep what was there."""
        return pull(observation.problem, cache), cache


def pull(problem: PlacementProblem, cache: BoolArray) -> IntArray:
    """Return the sources (N, J) that give every needed block its least delay in this slot.

    Parameters
    ----------
    problem
        One slot.
    cache
        (N, J) node n holds block j.
    """
    cached = node_sets(cache)
    _, sender = best_levels(problem, 0, np.arange(problem.blocks), cached)
    return sources(problem, cached, sender)


def best_senders(
    problem: PlacementProblem,
    chain: Chains,
    after: FloatArray,
    kind: IntArray,
    cached: IntArray,
) -> IntArray:
    """Return (J,) the sets that hold each block at the end of this slot: the best Q_l(X).

    Parameters
    ----------
    problem
        One slot.
    chain
        The nested sender sets.
    after
        (C, 2^N) seconds per byte of each kind that come after this slot, if the set holds it.
    kind
        (J,) kind of every block.
    cached
        (J,) X as node sets.
    """
    sender = cached.copy()
    needed = np.flatnonzero(problem.group[0] >= 0)
    x, group = cached[needed], problem.group[0, needed]
    coming = after[kind[needed][:, None], chain.sender[x]]
    levels = chain.time[x] + problem.broadcast[0][group[:, None], chain.sender[x]] + coming
    sender[needed] = chain.sender[x, levels.argmin(axis=1)]
    return sender


def sources(problem: PlacementProblem, cached: IntArray, sender: IntArray) -> IntArray:
    """Return the fastest sources (N, J) by which the cached sets become the sending sets.

    Parameters
    ----------
    problem
        One slot.
    cached, sender
        (J,) node sets as bit masks.
    """
    source: IntArray = placement_of_paths(problem, cached[None], sender[None]).source[0]
    return source


def keep_by_cost(
    cost: FloatArray,
    held: BoolArray,
    size: IntArray,
    storage: IntArray,
    expected: IntArray,
    *,
    rounds: int = 1,
    in_turn: bool = True,
) -> BoolArray:
    """Return what every node keeps: the blocks whose copy saves most per byte.

    The copy of block j at node n saves cost[j, X] - cost[j, X + n], X the other nodes that keep j.

    Parameters
    ----------
    cost
        (J, 2^N) seconds per byte under every kept set, never rising in the set.
    held
        (N, J) cached or received now.
    size, storage
        (J,) and (N,) byte.
    expected
        (J,) what a node expects the nodes that have not decided to keep, as node sets.
    rounds
        How often every node decides, from the second time on knowing what all others chose.
    in_turn
        Every node sees what those before it chose; else all decide at once, each by `expected`,
        and once.

    Returns
    -------
    (N, J) what is kept.
    """
    keep = np.zeros_like(held)
    kept = expected.copy()  # by node sets, what the nodes are taken to keep
    block = np.arange(len(size))
    for n in list(range(len(storage))) * (rounds if in_turn else 1):
        others = kept & ~(1 << n)
        saved = cost[block, others] - cost[block, others | 1 << n]
        order = np.argsort(-saved, kind="stable")
        keep[n] = fill(order[held[n, order]], size, storage[n])
        if in_turn:
            kept = others | keep[n].astype(kept.dtype) * (1 << n)
    return keep
