"""Placement and migration of parameter blocks, given the rates, in arrays alone.

In slot t the block j sits in the caches X of some nodes, is received by the nodes V (from a node
of X or from the cloud), is broadcast by Q = X + V, and stays in the next caches X' within Q:

    migration   tau_j = s_j max over n in V of link[source(n), n]
    broadcast   d_j   = s_j broadcast[t][group[t, j], Q]
    storage     sum_j s_j [n in X_j] <= S_n          in every slot, for every node n

(docs/formulation.md sections 2 and 3). Beamforming enters only through the broadcast table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray, checked
from finecast.solvers.node_set_tables import OnDemand, Table, node_sets

Schedule = Literal["sequential", "pipelined"]


@dataclass(frozen=True)
class PlacementProblem:
    """Blocks, storage, times per byte.

    Attributes
    ----------
    block_size
        (J,) byte, at least 1.
    storage
        (N,) byte.
    group
        (T, J) row of the block's user group in the slot's broadcast table, -1 where nobody
        needs the block.
    broadcast
        Per slot (G_t, 2^N), seconds per byte when the node set Q broadcasts (bit n of the column
        number is node n). Infinite at Q = 0, finite at the full set, never increasing in Q.
        Arrays (checked), or tables on demand (believed).
    link
        (N + 1, N) seconds per byte from node n' (row N: the cloud, always finite) to node n;
        infinite where there is no link. The diagonal is not used.
    schedule
        "sequential": the slot delay is the sum of all migrations and broadcasts.
        "pipelined": migrations run beside the broadcasts, in Johnson's order.

    Raises
    ------
    ValueError
        Where an array has the wrong shape, type or range, with the name and the index.
    """

    block_size: IntArray
    storage: IntArray
    group: IntArray
    broadcast: tuple[Table, ...]
    link: FloatArray
    schedule: Schedule = "sequential"

    def __post_init__(self) -> None:
        blocks, nodes = np.size(self.block_size), np.size(self.storage)
        slots = len(self.broadcast)
        if nodes < 1:
            raise ValueError(f"storage: {nodes} nodes, must be at least 1")
        if slots < 1:
            raise ValueError(f"broadcast: {slots} slots, must be at least 1")
        if self.schedule not in ("sequential", "pipelined"):
            raise ValueError(
                f"schedule: {self.schedule!r} is not allowed, must be 'sequential' or 'pipelined'"
            )
        put = object.__setattr__
        put(self, "block_size", checked("block_size", self.block_size, "int", (blocks,), low=1))
        put(self, "storage", checked("storage", self.storage, "int", (nodes,), low=0))
        put(self, "group", checked("group", self.group, "int", (slots, blocks), low=-1))
        tables: list[Table] = []
        for t, table in enumerate(self.broadcast):
            if not isinstance(table, OnDemand):
                array = np.asarray(table, dtype=float).reshape(-1, 1 << nodes)
                table = _checked_table(f"broadcast[{t}]", array, nodes)
            tables.append(table)
            worst = int(self.group[t].max(initial=-1))
            if worst >= len(table):
                j = int(self.group[t].argmax())
                raise ValueError(
                    f"group[{t}, {j}]: {worst} is not allowed, must be < {len(table)}, "
                    "the number of user groups in the slot"
                )
        put(self, "broadcast", tuple(tables))
        link = np.array(self.link, dtype=float)
        if link.shape == (nodes + 1, nodes):
            np.fill_diagonal(link, np.inf)
        link = checked("link", link, "float", (nodes + 1, nodes), low=0.0, finite=False)
        checked("link[cloud]", link[nodes], "float", (nodes,), low=0.0)
        put(self, "link", link)

    @property
    def slots(self) -> int:
        """Number of slots T."""
        return len(self.broadcast)

    @property
    def nodes(self) -> int:
        """Number of nodes N."""
        return len(self.storage)

    @property
    def blocks(self) -> int:
        """Number of blocks J."""
        return len(self.block_size)


@dataclass(frozen=True)
class Placement:
    """Where every block is cached and where it comes from.

    Attributes
    ----------
    cache
        (T, N, J): node n holds block j when slot t begins.
    source
        (T, N, J): -1 where nothing is received, n' for node n', N for the cloud.
    """

    cache: BoolArray
    source: IntArray

    def __post_init__(self) -> None:
        shape = np.shape(self.cache)
        if len(shape) != 3:
            raise ValueError(f"cache: shape is {shape}, expected (slots, nodes, blocks)")
        source = checked("source", self.source, "int", shape, low=-1, high=shape[1])
        object.__setattr__(self, "cache", checked("cache", self.cache, "bool", shape))
        object.__setattr__(self, "source", source)


def slot_times(problem: PlacementProblem, placement: Placement) -> tuple[FloatArray, FloatArray]:
    """Migration and broadcast seconds of every block, after checking every rule.

    Returns
    -------
    migration, broadcast
        (T, J) s each, zero where nobody needs the block.

    Raises
    ------
    ValueError
        Where storage, a source, the rule of keep or the need of a block is violated, or where a
        needed block is sent by a node set that cannot serve its users.
    """
    slots, nodes, blocks = problem.slots, problem.nodes, problem.blocks
    cache, source = placement.cache, placement.source
    if cache.shape != (slots, nodes, blocks):
        raise ValueError(f"cache: shape is {cache.shape}, expected {(slots, nodes, blocks)}")
    received = source >= 0
    needed = problem.group >= 0

    used = cache.astype(np.int64) @ problem.block_size
    _refuse("storage", used > problem.storage, "more bytes cached than the node holds")
    _refuse("source", received & ~needed[:, None], "a block that nobody needs does not migrate")
    _refuse("cache", cache[1:] & ~(cache[:-1] | received[:-1]), "kept without having been there")

    holder = np.concatenate([cache, np.ones((slots, 1, blocks), dtype=bool)], axis=1)
    sends = np.take_along_axis(holder, np.where(received, source, nodes), axis=1)
    _refuse("source", ~sends, "the source has not cached the block in this slot")
    own = source == np.arange(nodes)[:, None]
    _refuse("source", own, "a node cannot receive from itself")

    to = np.arange(nodes)[None, :, None]
    seconds = np.where(received, problem.link[np.where(received, source, nodes), to], 0.0)
    _refuse("source", np.isinf(seconds), "there is no link from the source")
    migration = problem.block_size * seconds.max(axis=1)

    sending = node_sets(cache | received)
    broadcast = np.zeros((slots, blocks))
    for t in range(slots):
        j = np.flatnonzero(needed[t])
        broadcast[t, j] = (
            problem.block_size[j] * problem.broadcast[t][problem.group[t, j], sending[t, j]]
        )
    _refuse("broadcast", np.isinf(broadcast), "the nodes that have the block cannot serve it")
    return migration, broadcast


def johnson_makespan(migration: FloatArray, broadcast: FloatArray) -> float:
    """Shortest end of a two-machine flow shop, in the order of Johnson's rule.

        max over k of  sum_{i <= k} a_i + sum_{i >= k} b_i

    with the jobs of a_i < b_i first, by increasing a, then the others by decreasing b
    (S. M. Johnson, Naval Research Logistics Quarterly 1 (1954) 61-68).

    Parameters
    ----------
    migration, broadcast
        (J,) s, times on the first and the second machine.
    """
    early = migration < broadcast
    order = np.lexsort((np.where(early, migration, -broadcast), ~early))
    a, b = migration[order], broadcast[order]
    return float((np.cumsum(a) + np.cumsum(b[::-1])[::-1]).max(initial=0.0))


def placement_delay(problem: PlacementProblem, placement: Placement) -> float:
    """Delay D of a placement, in seconds, recomputed from the arrays alone.

    Raises
    ------
    ValueError
        Where the placement breaks a rule, with the rule and the index.

    Examples
    --------
    One node holds block 0 of 10 bytes. It fetches block 1 of 20 bytes from the cloud, at 3 seconds
    per byte, and broadcasts both at 1 second per byte: 10 + 20 (3 + 1) seconds.

    >>> problem = PlacementProblem(
    ...     block_size=[10, 20],
    ...     storage=[20],
    ...     group=[[0, 0]],
    ...     broadcast=([[np.inf, 1.0]],),
    ...     link=[[np.inf], [3.0]],
    ... )
    >>> cloud = problem.nodes
    >>> placement_delay(problem, Placement(cache=[[[True, False]]], source=[[[-1, cloud]]]))
    90.0
    """
    migration, broadcast = slot_times(problem, placement)
    if problem.schedule == "sequential":
        return float(migration.sum() + broadcast.sum())
    return sum(johnson_makespan(a, b) for a, b in zip(migration, broadcast, strict=True))


def _checked_table(name: str, array: FloatArray, nodes: int) -> FloatArray:
    table = checked(name, array, "float", array.shape, low=0.0, finite=False)
    if not np.isinf(table[:, 0]).all():
        g = int(np.flatnonzero(~np.isinf(table[:, 0]))[0])
        raise ValueError(f"{name}[{g}, 0]: {table[g, 0]} is not allowed, must be inf: nobody sends")
    checked(f"{name}[:, -1]", table[:, -1], "float", (len(table),))
    sets = np.arange(1 << nodes)
    for n in range(nodes):
        without = sets[(sets >> n) & 1 == 0]
        rises = table[:, without | 1 << n] > table[:, without]
        if rises.any():
            g, q = (int(i) for i in np.argwhere(rises)[0])
            more, less = int(without[q] | 1 << n), int(without[q])
            raise ValueError(
                f"{name}[{g}, {more}]: {table[g, more]} is not allowed, must be <= "
                f"{table[g, less]}, the time without node {n}"
            )
    return table


def _refuse(name: str, bad: BoolArray, why: str) -> None:
    if bad.any():
        index = ", ".join(str(int(i)) for i in np.argwhere(bad)[0])
        raise ValueError(f"{name}[{index}]: {why}")
