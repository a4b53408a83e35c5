"""Best responses of an area: every block its cheapest path, with all other areas as they are.

The path of a block in one area is found by the dynamic programme of
`finecast.solvers.placement.dynamic_programme` at storage prices. Where the block goes locally it
costs the area's weight times its seconds. Where it goes wide the other areas' nodes send as they
do, and a migration costs what it takes longer than theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.areas.state import Air, City, State, reach_of, wide_seconds
from finecast.solvers.deadline import Deadline
from finecast.solvers.node_set_tables import members
from finecast.solvers.placement.chains import Classes, SecondWay, chains_of, nested
from finecast.solvers.placement.dynamic_programme import (
    Weights,
    cheapest_paths,
    cost_to_go,
    second_seconds,
    weighted,
)

BATCH = 64
"""Blocks that are answered at once, from the same storage."""

SWEEP_PRICES = (0.98, 0.9, 0.5, 0.0)
"""Shares of the storage prices in the sweeps of a round."""

LEAST_GAIN = 1e-9
"""Relative gain of a best response below which a block stays where it is: rounding."""


@dataclass(frozen=True, eq=False)
class Responses:
    """The tables of an area's blocks, each a class of its own.

    Attributes
    ----------
    block
        (B,) blocks that the area needs in some slot.
    classes, weights
        Their two ways, of which one is infinite.
    reach
        (B, N_a) s/byte to the area's nodes from outside.
    """

    block: IntArray
    classes: Classes
    weights: Weights
    reach: FloatArray


def responses(city: City, air: Air, state: State, a: int) -> Responses:
    """Return the tables of an area, where all others do as they do.

    Parameters
    ----------
    city, air
        The problem and the rates.
    state
        The plan so far.
    a
        Index of the area.
    """
    area, instance = city.areas[a], city.instance
    group = city.group[a]
    block = np.flatnonzero((group >= 0).any(axis=0))
    needed = group[:, block] >= 0
    nodes, slots = area.nodes, instance.slots
    sets = np.arange(1 << len(nodes))
    member = members(sets, len(nodes))
    wide = state.wide[:, block]

    # Sources outside: the slowest slot in which the block is needed counts.
    outside = state.cache.copy()
    outside[:, nodes] = False
    reach = np.zeros((len(block), len(nodes)))
    for t in range(slots):
        of_slot = reach_of(city, outside[t], nodes, block)
        np.maximum(reach, np.where(needed[t][:, None], of_slot, 0.0), out=reach)
    inner = np.full((len(sets), len(nodes)), np.inf)
    for n in range(len(nodes)):
        mine = np.where(member[:, n, None], city.link[nodes[n], nodes], np.inf)
        np.minimum(inner, mine, out=inner)
    times = np.minimum(inner[:, None], reach)  # (2^N_a, B, N_a)
    sender, time = nested(np.broadcast_to(sets[:, None], times.shape[:2]), times)
    chains = chains_of(member, np.moveaxis(sender, 1, 2), np.moveaxis(time, 1, 2))

    # The two ways.
    local, far = np.zeros((2, slots, len(sets), len(block)))
    floor = np.zeros((slots, len(block)))
    for t in range(slots):
        mine = np.flatnonzero(needed[t])
        local[t][:, mine] = air.local[a][t][group[t, block[mine]]].T
        local[t][:, wide[t]] = np.inf
        far[t] = np.where(wide[t], _wide_times(city, air, state, t, a, block, wide[t]), np.inf)
        floor[t] = state.migration[t, block] / instance.library.block_size[block]
    classes = Classes(
        chains,
        np.arange(len(block)),
        instance.library.block_size[block].astype(np.float64),
        instance.library.block_size[block] <= area.instance.network.storage[:, None],
        needed,
        local,
        second=SecondWay(np.ones(floor.shape), floor, far),
    )
    return Responses(block, classes, Weights(area.weight, area.weight), reach)


def _wide_times(
    city: City, air: Air, state: State, t: int, a: int, block: IntArray, wide: BoolArray
) -> FloatArray:
    """Return (2^N_a, B) s/byte of wide messages by the area's sets and the other areas' senders."""
    whole, nodes = city.whole, city.areas[a].nodes
    sets = np.arange(1 << len(nodes))
    seconds = np.full((len(sets), len(block)), np.inf)
    goes = np.flatnonzero(wide)
    kind = whole.kind[block[goes]]
    others = state.sends[t][:, block[goes]] & (whole.area_of != a)[:, None]
    others &= whole.takes_part[t][:, kind][whole.area_of] & (whole.area_of >= 0)[:, None]
    outside = whole.reach[t] @ others  # (K, B)
    inside = members(sets, len(nodes)) @ whole.reach[t][:, nodes].T  # (2^N_a, K)
    for b, j in enumerate(goes):
        users = np.flatnonzero(whole.users[t, kind[b]])
        seconds[:, j] = wide_seconds(
            city.instance,
            air.wide_share[t, kind[b]],
            (outside[users, b] + inside[:, users]).min(axis=1),
        )
    return seconds


def sweep_area(
    city: City,
    air: Air,
    state: State,
    a: int,
    price: FloatArray,
    rng: np.random.Generator,
    deadline: Deadline,
    shares: tuple[float, ...] = SWEEP_PRICES,
) -> BoolArray:
    """Return the caches of an area (T, N_a, J) after sweeps at falling shares of the prices.

    Parameters
    ----------
    city, air, state, a
        As in `responses`.
    price
        (T, N_a) s/byte.
    rng
        Draws the order of the blocks.
    deadline
        When to stop.
    shares
        Of the prices, one sweep each.
    """
    tables = responses(city, air, state, a)
    nodes, block = city.areas[a].nodes, tables.block
    storage = city.areas[a].instance.network.storage
    bit = 1 << np.arange(len(nodes))
    cached = np.einsum("n,tnj->tj", bit, state.cache[:, nodes][:, :, block].astype(np.int64))
    sends = np.einsum("n,tnj->tj", bit, state.sends[:, nodes][:, :, block].astype(np.int64))
    others = state.cache[:, nodes].astype(np.int64)
    others[:, :, block] = 0
    used = others @ city.instance.library.block_size
    size = tables.classes.size.astype(np.int64)
    used = used + tables.classes.holds(np.arange(len(block)), cached) @ size
    for share in shares:
        order = rng.permutation(len(block))
        for begin in range(0, len(order), BATCH):
            if deadline.over():
                break
            batch = order[begin : begin + BATCH]
            _respond(tables, share * price, batch, cached, sends, used, storage, size)
    result = state.cache[:, nodes].copy()
    result[:, :, block] = (cached[:, None] >> np.arange(len(nodes))[:, None]) & 1
    return result


def _respond(
    tables: Responses,
    price: FloatArray,
    batch: IntArray,
    cached: IntArray,
    sends: IntArray,
    used: IntArray,
    storage: IntArray,
    size: IntArray,
) -> None:
    """Give the blocks of a batch their best responses; `cached`, `sends`, `used` change."""
    classes = tables.classes
    held = classes.holds(batch, cached[:, batch])
    free = (storage - used)[:, :, None] + size[batch] * held
    allowed = np.where(free >= size[batch], price[:, :, None], np.inf)
    values = cost_to_go(classes, batch, allowed, tables.weights)
    rent = np.einsum("tn,tnb->b", price, held)
    cost = rent + path_seconds(tables, batch, cached[:, batch], sends[:, batch])
    with np.errstate(invalid="ignore"):
        gain = cost - values.value
    better = np.flatnonzero((gain > LEAST_GAIN * np.abs(cost)) | np.isinf(cost))
    if not len(better):
        return
    better = better[np.argsort(-(gain * size[batch])[better], kind="stable")]
    paths = cheapest_paths(classes, batch, values, tables.weights)
    changes = classes.holds(batch, paths.cached) - held
    for column in better:
        j = int(batch[column])
        after = used + size[j] * changes[:, :, column]
        if (after > storage).any():
            continue
        used[:] = after
        cached[:, j], sends[:, j] = paths.cached[:, column], paths.sender[:, column]


def path_seconds(
    tables: Responses, batch: IntArray, cached: IntArray, sends: IntArray
) -> FloatArray:
    """Return (B,) s/byte that blocks cost the area on paths (T, B), weights included.

    A path is charged the fastest level that includes its senders.
    """
    classes, weights = tables.classes, tables.weights
    second = classes.second
    assert second is not None
    total = np.zeros(len(batch))
    for t in range(len(cached)):
        needed = np.flatnonzero(classes.needed[t, batch])
        b = batch[needed]
        choices, times = classes.chains.levels(cached[t, needed], b)
        first = weights.migration[t] * times + weighted(
            weights.broadcast[t], classes.broadcast[t][choices, b[:, None]]
        )
        both = np.minimum(first, second_seconds(second, t, b, choices, times))
        covers = (sends[t, needed, None] & ~choices) == 0
        total[needed] += np.where(covers, both, np.inf).min(axis=1)
    return total
