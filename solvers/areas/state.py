"""A plan of areas before its beams: caches, who sends each block, which go wide; what it costs.

Given the caches, the best senders of a block in a slot are nested sets, as within one area: all
nodes that hold it or can have it by some time (`finecast.solvers.placement.chains`). Locally these
are sets of the area's nodes, wide ones of all nodes of the areas that need the block. So caches
alone decide what every block costs either way, and which way it goes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.sinr import rate
from finecast.solvers.areas.split import Area
from finecast.solvers.areas.tables import Whole, participants
from finecast.solvers.placement.chains import nested


@dataclass(frozen=True, eq=False)
class City:
    """An instance of areas, and what does not change while it is planned.

    Attributes
    ----------
    instance
        The problem.
    areas, whole
        Those with users, and what they have in common.
    link
        (N + 1, N) seconds per byte, the last row from the cloud.
    group
        Per area (T, J) the user group of every block, -1 for none.
    """

    instance: Instance
    areas: tuple[Area, ...]
    whole: Whole
    link: FloatArray
    group: tuple[IntArray, ...]

    @property
    def weight(self) -> FloatArray:
        """(T, areas) share of the requesting users."""
        return np.stack([area.weight for area in self.areas], axis=1)


@dataclass(frozen=True, eq=False)
class Air:
    """How fast messages are thought to be.

    Attributes
    ----------
    local
        Per area and slot (G, 2^N_a) seconds per byte of every user group and set of nodes.
    wide_share
        (T, C) of the rate that the weakest user could have alone, what a wide message of a class
        reaches.
    """

    local: tuple[tuple[FloatArray, ...], ...]
    wide_share: FloatArray


@dataclass(frozen=True, eq=False)
class State:
    """A plan before its beams.

    Attributes
    ----------
    cache, sends
        (T, N, J) bool: the node caches the block; it holds it when it is sent.
    wide
        (T, J) bool: the block goes wide.
    migration, broadcast
        (T, J) s, those of wide blocks.
    local_migration, local_broadcast
        (T, A, J) s, those of local ones, without the weights of the areas.
    """

    cache: BoolArray
    sends: BoolArray
    wide: BoolArray
    migration: FloatArray
    broadcast: FloatArray
    local_migration: FloatArray
    local_broadcast: FloatArray

    def delay(self, city: City) -> float:
        """Return the delay that the rates of `Air` give, s."""
        local = (self.local_migration + self.local_broadcast).sum(axis=2)
        return float((self.migration + self.broadcast).sum() + (city.weight * local).sum())


def reach_of(city: City, cache: BoolArray, nodes: IntArray, block: IntArray) -> FloatArray:
    """Return (B, n) s/byte to nodes from the fastest holder of blocks, or the cloud, in a slot.

    Parameters
    ----------
    city
        The links.
    cache
        (N, J) bool, the caches of the slot.
    nodes, block
        (n,) and (B,).
    """
    holders = cache[:, block]
    reach = np.empty((len(block), len(nodes)))
    for index, n in enumerate(nodes):
        times = np.where(holders, city.link[:-1, n, None], np.inf).min(axis=0)
        reach[:, index] = np.minimum(times, city.link[-1, n])
    return reach


def best_state(
    city: City,
    air: Air,
    cache: BoolArray,
    wide: BoolArray | None = None,
    kept: BoolArray | None = None,
) -> State:
    """Return the plan with the best senders and ways at these caches.

    Parameters
    ----------
    city, air
        The problem and the rates.
    cache
        (T, N, J) bool. Copies that are new in a slot were received in the slot before.
    wide
        (T, J) which blocks go wide; None for the better way.
    kept
        (N, J) what is held after the last slot, likewise; None for nothing new.
    """
    instance, areas = city.instance, city.areas
    slots, blocks = instance.slots, instance.blocks
    size = instance.library.block_size
    sends = cache.copy()
    chosen = np.zeros((slots, blocks), dtype=bool)
    moved, sent = np.zeros((2, slots, blocks))
    local_moved, local_sent = np.zeros((2, slots, len(areas), blocks))
    for t in range(slots):
        after = cache[t + 1] if t + 1 < slots else kept
        later = np.zeros_like(cache[t]) if after is None else after & ~cache[t]
        weighted = np.zeros(blocks)
        masks = np.zeros((len(areas), blocks), dtype=np.int64)
        for a, area in enumerate(areas):
            block = np.flatnonzero(city.group[a][t] >= 0)
            found = _local(city, air, t, a, cache[t], later, block)
            masks[a, block], local_moved[t, a, block], local_sent[t, a, block] = found
            weighted += area.weight[t] * (local_moved[t, a] + local_sent[t, a])
        weighted *= size

        # Wide only where that can be better, or must be.
        needed = np.flatnonzero((city.whole.takes_part[t].any(axis=0))[city.whole.kind])
        if wide is None:
            least = _least_wide(city, air, t, needed)
            tried = needed[least * size[needed] < weighted[needed]]
        else:
            tried = needed[wide[t, needed]]
        senders, tau, seconds = _wide(city, air, t, cache[t], later, tried)
        better = (tau + seconds) * size[tried] < weighted[tried]
        if wide is not None:
            better = np.ones(len(tried), dtype=bool)
        goes = tried[better]
        chosen[t, goes] = True
        moved[t, goes], sent[t, goes] = tau[better] * size[goes], seconds[better] * size[goes]
        sends[t][:, goes] = senders[better].T
        for a, area in enumerate(areas):
            local = np.flatnonzero((city.group[a][t] >= 0) & ~chosen[t])
            bits = (masks[a, local] >> np.arange(len(area.nodes))[:, None]) & 1
            sends[t][np.ix_(area.nodes, local)] |= bits.astype(bool)
        local_moved[t] *= np.where(chosen[t], 0.0, size)
        local_sent[t] *= np.where(chosen[t], 0.0, size)
    return State(cache, sends, chosen, moved, sent, local_moved, local_sent)


def _local(
    city: City,
    air: Air,
    t: int,
    a: int,
    cache: BoolArray,
    later: BoolArray,
    block: IntArray,
) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return (B,) senders in an area as bit masks, migration and broadcast in s/byte."""
    nodes = city.areas[a].nodes
    bit = 1 << np.arange(len(nodes))
    held, must = (bit @ table[np.ix_(nodes, block)] for table in (cache, later))
    choices, times = nested(held, reach_of(city, cache, nodes, block))
    seconds = air.local[a][t][city.group[a][t, block, None], choices]
    total = np.where((must[:, None] & ~choices) == 0, times + seconds, np.inf)
    pick = total.argmin(axis=1)
    row = np.arange(len(block))
    return choices[row, pick], times[row, pick], seconds[row, pick]


def _least_wide(city: City, air: Air, t: int, block: IntArray) -> FloatArray:
    """Return (B,) s/byte of wide messages where all nodes that may send hold the block."""
    whole = city.whole
    kinds, which = np.unique(whole.kind[block], return_inverse=True)
    amplitude = participants(whole, t, kinds) @ whole.reach[t].T
    least = np.where(whole.users[t, kinds], amplitude, np.inf).min(axis=1)
    return wide_seconds(city.instance, air.wide_share[t, kinds], least)[which.reshape(-1)]


def wide_seconds(
    instance: Instance, share: FloatArray | float, amplitude: FloatArray
) -> FloatArray:
    """Return the s/byte of wide messages from the amplitude at the weakest user.

    Parameters
    ----------
    instance
        The problem.
    share
        Of the rate that this user could have alone, what a message reaches.
    amplitude
        That of the beam best for it, over the noise.
    """
    network = instance.network
    bits = rate(amplitude**2, network.bandwidth, network.max_spectral_efficiency)
    with np.errstate(divide="ignore"):
        return np.asarray(8.0 / (share * bits))


def _wide(
    city: City, air: Air, t: int, cache: BoolArray, later: BoolArray, block: IntArray
) -> tuple[BoolArray, FloatArray, FloatArray]:
    """Return (B, N) senders of wide messages, and (B,) migration and broadcast in s/byte."""
    whole, instance = city.whole, city.instance
    nodes = np.arange(instance.nodes)
    may = participants(whole, t, whole.kind[block])
    reach = np.where(cache[:, block].T, 0.0, reach_of(city, cache, nodes, block))
    reach[~may] = np.inf
    senders = np.zeros((len(block), instance.nodes), dtype=bool)
    migration, broadcast = np.full((2, len(block)), np.inf)
    for b, j in enumerate(block):
        order = np.argsort(reach[b], kind="stable")[: int(may[b].sum())]
        users = np.flatnonzero(whole.users[t, whole.kind[j]])
        summed = np.cumsum(whole.reach[t][np.ix_(users, order)], axis=1).min(axis=0)
        seconds = wide_seconds(instance, air.wide_share[t, whole.kind[j]], summed)
        times = reach[b, order]
        least = reach[b, later[:, j] & may[b]].max(initial=0.0)
        # A set ends where the next node takes longer, and holds all that must receive.
        ends = np.append(times[1:] > times[:-1], True) & (times >= least)
        total = np.where(ends, times + seconds, np.inf)
        pick = int(total.argmin())
        senders[b, order[: pick + 1]] = True
        migration[b], broadcast[b] = times[pick], seconds[pick]
    return senders, migration, broadcast
