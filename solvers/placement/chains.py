"""Chain reduction and classes: the tables of the dynamic programme.

With X cached, node n can have the block after d_n(X) = min over sources m in X and the cloud of
link[m, n] seconds per byte. A migration lasts as long as its slowest receiver, so all receivers no
slower than it are free: besides Q = X only the nested sets

    Q_l(X) = X + {n : d_n(X) <= tau_l},   tau_1 <= tau_2 <= ...  the values of d_n(X) in order

can be optimal, since the broadcast time never rises in Q. Blocks with the same user group in every
slot have the same times per byte; they form a class if they also fit into the same nodes (a block
larger than a storage is never cached there: the bound must know, since it cuts blocks up).

Node sets are bit masks over the units of a class. Up to 10 nodes the units are the nodes; beyond,
`finecast.solvers.placement.units` gives every class units of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.node_set_tables import (
    MOST_NODES,
    lies_within,
    members,
    node_sets,
    sets_of,
    words,
)
from finecast.solvers.placement.problem import Placement, PlacementProblem


@dataclass(frozen=True)
class Chains:
    """Nested sender sets of every cached set of units.

    Attributes
    ----------
    member
        (2^U, U): the unit is in the set.
    order
        (2^U,) the sets by their number of units, smallest first.
    position
        (2^U,) inverse of `order`.
    count
        (U + 1,) how many sets, the first in `order`, are given a level l. It is all those with
        at most U - l units, some with a repeated level where two units have equal times.
    sender
        (2^U, U + 1) or, where every class has its own, (2^U, U + 1, C): Q_l(X), rows by X itself;
        the last one repeated.
    time
        As `sender`: tau_l, seconds per byte; tau_0 = 0.
    """

    member: BoolArray
    order: IntArray
    position: IntArray
    count: IntArray
    sender: IntArray
    time: FloatArray

    def levels(self, cached: IntArray, class_of: IntArray) -> tuple[IntArray, FloatArray]:
        """Return the senders and times (..., B, U + 1) of cached sets (..., B) of classes (B,)."""
        if self.sender.ndim == 2:
            return self.sender[cached], self.time[cached]
        return self.sender[cached, :, class_of], self.time[cached, :, class_of]


def chains(link: FloatArray) -> Chains:
    """Build the nested sender sets of all cached sets of nodes.

    Parameters
    ----------
    link
        (N + 1, N) seconds per byte, the last row from the cloud.

    Raises
    ------
    ValueError
        There are more than 12 nodes: too many for a table of all node sets.
    """
    nodes = link.shape[1]
    if nodes > MOST_NODES:
        raise ValueError(
            f"nodes: {nodes} is not allowed for this method, must be <= {MOST_NODES}: "
            "it runs through all sets of nodes"
        )
    sets = np.arange(1 << nodes)
    member = members(sets, nodes)
    return chains_of(member, *nested(sets, reach_times(link, member)))


def chains_of(member: BoolArray, sender: IntArray, time: FloatArray) -> Chains:
    """Return nested sender sets with the order of the cached sets by size.

    Parameters
    ----------
    member, sender, time
        As in `Chains`.
    """
    units = member.shape[1]
    size = member.sum(axis=1)
    order = np.argsort(size, kind="stable")
    position = np.argsort(order, kind="stable")
    count = np.array([(size <= units - level).sum() for level in range(units + 1)])
    return Chains(member, order, position, count, sender, time)


def nested(cached: IntArray, reach: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return the sets Q_l(X) and the times tau_l, (..., U + 1) each.

    Parameters
    ----------
    cached
        (...) X as bit masks.
    reach
        (..., U) d_n(X), seconds per byte, infinite where it cannot be had.
    """
    units = reach.shape[-1]
    member = members(cached, units)
    # tau: the times of the units that lack the block, in order; those out of reach repeat the last.
    missing = np.where(member, np.inf, reach)
    slowest = np.where(np.isfinite(missing), missing, 0.0).max(axis=-1, keepdims=True)
    time = np.minimum(np.sort(missing, axis=-1), slowest)
    # Q: X and all units that have it by then.
    joins = (missing[..., None, :] <= time[..., None]) & ~member[..., None, :]
    sender = cached[..., None] | sets_of(joins)
    return (
        np.concatenate([cached[..., None], sender], axis=-1),
        np.concatenate([np.zeros((*cached.shape, 1)), time], axis=-1),
    )


def reach_times(link: FloatArray, held: BoolArray) -> FloatArray:
    """Return d_n(X), seconds per byte to each node from the nearest holder or the cloud, (..., N).

    Parameters
    ----------
    link
        (N + 1, N) seconds per byte, the last row from the cloud.
    held
        (..., N) the nodes that hold the block.
    """
    reach = np.broadcast_to(link[-1], held.shape).copy()
    for source, times in enumerate(link[:-1]):
        np.minimum(reach, np.where(held[..., source, None], times, np.inf), out=reach)
    return reach


def source_times(link: FloatArray, member: BoolArray) -> FloatArray:
    """Return the seconds per byte from every possible source to every node.

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
class SecondWay:
    """Another way for a block through a slot.

    It takes weight * max(0, tau - floor) + broadcast(Q), seconds per byte.

    Attributes
    ----------
    weight, floor
        (T, C) weight of a migration, and seconds per byte of it that cost nothing.
    broadcast
        (T, 2^U, C) seconds per byte when the units of a set send; infinite where there is no such
        way.
    """

    weight: FloatArray
    floor: FloatArray
    broadcast: FloatArray


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
    fits
        (N, C): a block of the class is no larger than the storage of the node.
    needed
        (T, C): somebody needs the class.
    broadcast
        (T, 2^U, C) seconds per byte, zero where the class is not needed.
    unit
        (C, U, N) the nodes of every unit of every class; None where the units are the nodes.
    charge
        (T, 2^U, C) seconds per byte that a cached set costs besides its storage prices, of either
        sign, such as the penalties of `finecast.solvers.online_bound`; None for none.
    second
        A second way through every slot in which the class is needed, of which the cheaper counts,
        such as by messages of all areas in `finecast.solvers.areas`; None for none. Not for the
        pipelined schedule.
    """

    chains: Chains
    of_block: IntArray
    size: FloatArray
    fits: BoolArray
    needed: BoolArray
    broadcast: FloatArray
    unit: BoolArray | None = None
    charge: FloatArray | None = None
    second: SecondWay | None = None

    def holds(self, class_of: IntArray, cached: IntArray) -> IntArray:
        """Return (T, N, B) zeros and ones: the nodes of the sets of units (T, B), classes (B,)."""
        bits = (cached[:, None] >> np.arange(self.chains.member.shape[1])[:, None]) & 1
        if self.unit is None:
            return bits
        held: IntArray = np.matmul(bits.transpose(2, 0, 1), self.unit[class_of].astype(np.int64))
        return held.transpose(1, 2, 0)

    def node_sets(self, class_of: IntArray, cached: IntArray) -> IntArray:
        """Return the sets of nodes (T, B) of sets of units (T, B), classes (B,), as bit masks."""
        if self.unit is None:
            return cached
        held = self.holds(class_of, cached)
        return node_sets(held)

    def unit_sets(self, class_of: IntArray, cached: IntArray) -> IntArray:
        """Return the sets of units (T, B) that lie within sets of nodes (T, B), classes (B,)."""
        if self.unit is None:
            return cached
        mask = words(sets_of(self.unit[class_of]))  # (B, U, W)
        return sets_of(lies_within(mask, words(cached)[..., None, :]))


def grouped(
    problem: PlacementProblem, kind: IntArray | None = None
) -> tuple[IntArray, FloatArray, BoolArray, IntArray]:
    """Group the blocks into classes, which have the same user groups and fit into the same nodes.

    Parameters
    ----------
    problem
        The problem.
    kind
        (J,) label of every block; blocks of different labels are in different classes. None: all
        labels are equal.

    Returns
    -------
    of_block
        (J,) class of every block.
    size
        (C,) byte, total size of the class.
    fits
        (N, C) a block of the class is no larger than the storage of the node.
    group
        (T, C) user groups.
    """
    slots = problem.slots
    fits = problem.block_size <= problem.storage[:, None]
    label = np.zeros((0, problem.blocks), dtype=np.int64) if kind is None else kind[None]
    alike = np.concatenate([problem.group, fits, label])
    columns, of_block = np.unique(alike, axis=1, return_inverse=True)
    of_block = of_block.reshape(-1).astype(np.int64)
    size = np.bincount(of_block, weights=problem.block_size).astype(np.float64)
    return of_block, size, columns[slots : slots + len(fits)].astype(bool), columns[:slots]


def classes(problem: PlacementProblem, kind: IntArray | None = None) -> Classes:
    """Group the blocks of a problem into classes, with the nodes as units.

    Parameters
    ----------
    problem, kind
        As in `grouped`.
    """
    of_block, size, fits, group = grouped(problem, kind)
    sets = np.arange(1 << problem.nodes)[:, None]
    return Classes(
        chains(problem.link),
        of_block,
        size,
        fits,
        group >= 0,
        broadcast_times(problem, group, sets),
    )


def broadcast_times(problem: PlacementProblem, group: IntArray, sets: IntArray) -> FloatArray:
    """Return (T, S, C) the seconds per byte of classes, zero where not needed.

    Parameters
    ----------
    problem
        The problem.
    group
        (T, C) user groups of the classes.
    sets
        (S, C) or (S, 1) node sets as bit masks.
    """
    seconds = np.zeros((problem.slots, len(sets), group.shape[1]))
    sets = np.broadcast_to(sets, seconds.shape[1:])
    for t, table in enumerate(problem.broadcast):
        c = np.flatnonzero(group[t] >= 0)
        seconds[t][:, c] = table[group[t, c], sets[:, c]]
    return seconds


def placement_of_paths(problem: PlacementProblem, cached: IntArray, sender: IntArray) -> Placement:
    """Return the caches and sources of the node sets of every block.

    Parameters
    ----------
    problem
        The problem.
    cached, sender
        (T, J) node sets X and Q as bit masks, X within Q; every receiver takes its fastest source.
    """
    cache = np.moveaxis(members(cached, problem.nodes), 2, 1)
    receives = np.moveaxis(members(sender & ~cached, problem.nodes), 2, 1)
    sets, which = np.unique(cached, return_inverse=True)
    fastest = source_times(problem.link, members(sets, problem.nodes)).argmin(axis=1)
    source = np.where(receives, np.moveaxis(fastest[which.reshape(cached.shape)], 2, 1), -1)
    return Placement(cache, source)


def paths_of_placement(
    problem: PlacementProblem, placement: Placement
) -> tuple[IntArray, IntArray]:
    """Return the node sets X and Q of every block in every slot, as bit masks, (T, J) each."""
    return node_sets(placement.cache), node_sets(placement.cache | (placement.source >= 0))
