"""Small placements to a certified proof: useful paths, layers, hulls of the storages, the tree.

Whether an instance is small is measured by the paths that a faster placement may take: that is what
the tree has to tell apart, and what every part of it costs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import IntArray
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.node_set_tables import FULL_TABLES
from finecast.solvers.placement.bound import Prices, dual_point
from finecast.solvers.placement.chains import Classes, placement_of_paths
from finecast.solvers.placement.chains import classes as classes_of
from finecast.solvers.placement.exact.layers import prove_by_layers
from finecast.solvers.placement.exact.tree import prove
from finecast.solvers.placement.exact.useful_paths import UsefulPaths, useful_paths
from finecast.solvers.placement.hulls import hull_bound
from finecast.solvers.placement.problem import Placement, PlacementProblem, placement_delay
from finecast.solvers.placement.senders import best_senders
from finecast.solvers.rounding import SUM_ALLOWANCE

PROOF_GAP = 1e-6
"""Relative gap at which a placement counts as proven optimal."""

HULL_SHARE = 0.2
"""Share of the time for the hulls, which take under a second with few nodes."""

BEAM_SHARE = 0.02
"""Share of the labels with which the layers look for a faster placement before they prove it."""


@dataclass(frozen=True)
class Limits:
    """When the tree is tried, and when it ends.

    Attributes
    ----------
    grown
        Most paths of one block, before those are left out that others replace.
    paths
        Most paths of all blocks.
    parts
        Most parts of the tree that are split.
    labels
        Most labels of a layer; 0 for no layers.
    """

    grown: int
    paths: int
    parts: int
    labels: int


EXACT_LIMITS = Limits(grown=100_000, paths=6000, parts=20_000, labels=1_000_000)
"""Of `exact`, which is asked for a proof: some CPU minutes at most."""

SEARCH_LIMITS = Limits(grown=2000, paths=400, parts=500, labels=100_000)
"""Of `lagrangian`, which hands over small instances: some CPU seconds at most."""

ASKED_LIMITS = Limits(grown=2000, paths=400, parts=20_000, labels=1_000_000)
"""Of `lagrangian` where a gap is asked for, or a limit leaves time and the gap is large."""


@dataclass(frozen=True)
class Certified:
    """What the tree came to.

    Attributes
    ----------
    lower_bound
        Seconds; no placement has a smaller delay.
    placement
        A faster placement than the one to beat; None where none was found.
    parts
        How many parts of the tree were split; 0 where the layers came to their end.
    """

    lower_bound: float
    placement: Placement | None
    parts: int


def certified(
    problem: PlacementProblem,
    placement: Placement,
    prices: Prices,
    *,
    gap: float,
    limits: Limits,
    deadline: Deadline = NEVER,
) -> Certified | None:
    """Prove a placement the best, or find a better one, by certified bounds alone.

    Parameters
    ----------
    problem
        The problem.
    placement
        The placement to beat.
    prices
        Point of the Lagrangian dual.
    gap
        Relative gap that is to be proven.
    limits
        When to try, and when to end.
    deadline
        When to end besides; every bound on the way holds.

    Returns
    -------
    Certified or None
        None where the schedule is pipelined, there are more than 8 nodes, or there are too many
        paths for a proof and too many blocks for hulls.

    Raises
    ------
    ValueError
        Where the placement is not feasible.

    Examples
    --------
    Two blocks of 10 bytes, one node with room for one and a half, 1 second per byte on the air and
    3 from the cloud. Storage prices alone prove 35 seconds.

    >>> problem = PlacementProblem(
    ...     block_size=[10, 10],
    ...     storage=[15],
    ...     group=[[0, 0]],
    ...     broadcast=([[np.inf, 1.0]],),
    ...     link=[[np.inf], [3.0]],
    ... )
    >>> cached = Placement(cache=[[[True, False]]], source=[[[-1, 1]]])
    >>> found = certified(
    ...     problem, cached, Prices(np.array([[3.0]])), gap=1e-9, limits=SEARCH_LIMITS
    ... )
    >>> placement_delay(problem, cached), round(found.lower_bound, 6)
    (50.0, 50.0)
    """
    delay = placement_delay(problem, placement)
    if problem.schedule != "sequential" or problem.nodes > FULL_TABLES or deadline.over():
        return None
    tables = classes_of(problem)
    point = dual_point(problem, tables, prices)
    # Half of the gap is for what is given up, the rest for the sums of the judge.
    gap = 0.5 * gap
    start = prices.storage.reshape(-1)
    bound, better = point.bound, None

    def by_hulls(goal: float) -> float:
        soon = deadline.share(HULL_SHARE)
        return hull_bound(problem, tables, prices, goal, deadline=soon) if limits.parts else 0.0

    # Layers first: where labels do not become too many, they are faster than the tree. With few of
    # them they find a faster placement, which leaves less to prove.
    for share in (BEAM_SHARE, 1.0, None) if limits.labels else (None,):
        cutoff = delay / (1.0 + gap)
        paths = useful_paths(problem, tables, point, cutoff, limits.grown)
        if paths is None or paths.count > limits.paths:
            hull = by_hulls(cutoff)
            return None if better is None and not hull else Certified(max(bound, hull), better, 0)
        if not np.isfinite(paths.cost).any(axis=1).all():  # a block without any: nothing is faster
            return Certified(max(bound, cutoff * (1.0 - SUM_ALLOWANCE)), better, 0)
        if share is None:  # the tree, where the hulls do not do
            bound = max(bound, by_hulls(cutoff))
            if bound >= cutoff:
                return Certified(bound, better, 0)
            proof = prove(paths, start, delay, gap=gap, most=limits.parts, deadline=deadline)
            if proof.choice is not None:
                better = _chosen(problem, tables, paths, proof.choice)
            return Certified(max(bound, proof.lower_bound), better, proof.parts)
        layers = prove_by_layers(
            paths, start, delay, gap=gap, most=int(share * limits.labels), drop=share < 1.0,
            deadline=deadline,
        )  # fmt: skip
        bound = max(bound, layers.lower_bound)
        if layers.choice is not None:
            better = _chosen(problem, tables, paths, layers.choice)
            delay = min(delay, placement_delay(problem, better))
        if layers.complete:
            return Certified(bound, better, 0)
    raise AssertionError("the tree comes last")


def _chosen(
    problem: PlacementProblem, tables: Classes, paths: UsefulPaths, choice: IntArray
) -> Placement:
    """Return the placement of a choice (J,) of the paths."""
    copies = paths.copies[np.arange(problem.blocks), choice]
    cached = _cached(problem, copies)
    return placement_of_paths(problem, cached, best_senders(tables, cached))


def _cached(problem: PlacementProblem, copies: IntArray) -> IntArray:
    """Return the cached sets (T, J) of copies (J,) as bit masks by slot and node."""
    slot = np.arange(problem.slots)[:, None] * problem.nodes
    cached: IntArray = (copies >> slot) & ((1 << problem.nodes) - 1)
    return cached
