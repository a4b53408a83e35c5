"""Tables of the areas: classes of blocks, and what a block costs locally and wide.

In slot t a block needed in the areas A_t goes *locally*, once in every one of them, or *wide*, once
to all its users from nodes of these areas. An area counts a local second w_a times (its share of
the requesting users). Classes are those of the whole instance: blocks with the same users in every
slot, which fit into the same nodes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.sinr import rate
from finecast.solvers.areas.split import Area
from finecast.solvers.covers import reach_bound
from finecast.solvers.node_set_tables import members
from finecast.solvers.placement.chains import Classes, SecondWay, classes
from finecast.solvers.placement.dynamic_programme import Weights
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.rounding import CLOSED_FORM_ALLOWANCE


@dataclass(frozen=True, eq=False)
class Whole:
    """What the areas have in common.

    Attributes
    ----------
    kind
        (J,) class of every block, C of them.
    users
        (T, C, K) bool, who needs the class.
    takes_part
        (T, A, C) bool: the area has users of the class, so that its nodes may send it wide.
    reach
        (T, K, N) amplitude that each node can give a user alone, from above.
    area_of
        (N,) index into the areas with users, -1 for a node of none.
    """

    kind: IntArray
    users: BoolArray
    takes_part: BoolArray
    reach: FloatArray
    area_of: IntArray


def whole(instance: Instance, areas: tuple[Area, ...], robust: bool) -> Whole:
    """Return what the areas have in common.

    Parameters
    ----------
    instance
        The whole problem.
    areas
        Those with users.
    robust
        Rates hold over the error balls.
    """
    fits = instance.library.block_size <= instance.network.storage[:, None]
    alike = np.concatenate([instance.wanted.reshape(-1, instance.blocks), fits])
    packed = np.packbits(alike, axis=0)
    _, example, kind = np.unique(packed, axis=1, return_index=True, return_inverse=True)
    users = instance.wanted[:, :, example].transpose(0, 2, 1)
    area_of = np.full(instance.nodes, -1)
    takes_part = np.zeros((instance.slots, len(areas), len(example)), dtype=bool)
    for a, area in enumerate(areas):
        area_of[area.nodes] = a
        takes_part[:, a] = area.instance.wanted[:, :, example].any(axis=1)
    reach = np.stack([
        reach_bound(
            instance.normalised_channel[t],
            instance.error_of(t, robust),
            instance.network.power,
        )
        for t in range(instance.slots)
    ])  # fmt: skip
    return Whole(kind.reshape(-1), users, takes_part, reach, area_of)


def participants(whole: Whole, t: int, kind: IntArray) -> BoolArray:
    """Return (B, N) the nodes that may send classes wide in slot t."""
    return np.asarray(whole.takes_part[t][:, kind].T[:, whole.area_of] & (whole.area_of >= 0))


@dataclass(frozen=True, eq=False)
class AreaTables:
    """The classes of one area with their two ways; the second is wide, at a weight of 1.

    Attributes
    ----------
    classes
        Local seconds per byte, without the weight; wide ones as `classes.second`, of weight 1.
    weights
        The area's share of the users, for migrations and broadcasts.
    storage
        (N_a,) byte.
    of_whole
        (C_a,) class of the whole instance; -1 for the blocks that the area never needs.
    """

    classes: Classes
    weights: Weights
    storage: IntArray
    of_whole: IntArray

    def at_shares(self, migration: FloatArray, broadcast: FloatArray) -> Classes:
        """Return the classes where the area bears shares (T, C) of the cost of wide messages."""
        second = self.classes.second
        assert second is not None
        mine = self.of_whole
        weight = np.where(mine >= 0, migration[:, mine], 0.0)
        share = np.where(mine >= 0, broadcast[:, mine], 0.0)
        scaled = SecondWay(weight, second.floor, share[:, None] * second.broadcast)
        return replace(self.classes, second=scaled)


def area_tables(
    whole: Whole,
    a: int,
    area: Area,
    problem: PlacementProblem,
    inflow: FloatArray,
    wide_limit: FloatArray,
) -> AreaTables:
    """Return the tables of the bound for one area.

    Parameters
    ----------
    whole
        What the areas have in common.
    a, area
        Index of the area, and the area.
    problem
        Its placement problem at certified upper bounds of the rates.
    inflow
        (N_a,) s/byte from the fastest source outside the area, which is taken to hold everything.
    wide_limit
        (T, C) bit/s that messages which together go to all users of a class never exceed.
    """
    needed = (problem.group >= 0).any(axis=0)
    link = np.concatenate([problem.link[:-1], np.minimum(problem.link[-1], inflow)[None]])
    tables = classes(replace(problem, link=link), np.where(needed, whole.kind, -1))
    example = np.unique(tables.of_block, return_index=True)[1]
    of_whole = np.where(needed, whole.kind, -1)[example]
    network = area.instance.network
    seconds = np.zeros_like(tables.broadcast)
    for t in range(problem.slots):
        mine = np.flatnonzero(tables.needed[t])
        least = wide_reach(whole, t, a, area, of_whole[mine])
        bits = rate(
            least**2 * (1.0 + CLOSED_FORM_ALLOWANCE),
            network.bandwidth,
            network.max_spectral_efficiency,
        )
        bits = np.minimum(bits, wide_limit[t, of_whole[mine], None])
        with np.errstate(divide="ignore"):
            seconds[t][:, mine] = 8.0 / bits.T
    shape = (problem.slots, len(tables.size))
    second = SecondWay(np.ones(shape), np.zeros(shape), seconds)
    return AreaTables(
        replace(tables, second=second),
        Weights(area.weight, area.weight),
        problem.storage,
        of_whole,
    )


def wide_reach(whole: Whole, t: int, a: int, area: Area, kind: IntArray) -> FloatArray:
    """Return (B, 2^N_a) the amplitude that no wide message exceeds at its weakest user.

    The weakest of the area's users, with a set of the area's nodes and all nodes of the other areas
    that take part, and the weakest of all users with all nodes that take part.

    Parameters
    ----------
    whole, t, a, area
        As in `area_tables`, in slot t.
    kind
        (B,) classes that the area needs in the slot.
    """
    users, reach = whole.users[t, kind], whole.reach[t]
    sends = participants(whole, t, kind)
    everybody = sends @ reach.T  # (B, K)
    least = np.where(users, everybody, np.inf).min(axis=1)
    # The same from the others alone, and the area's nodes set by set.
    mine = np.intersect1d(area.users, np.flatnonzero(users.any(axis=0)))
    others = sends & (whole.area_of != a)
    outside = others @ reach[mine].T
    sets = members(np.arange(1 << len(area.nodes)), len(area.nodes))
    inside = sets @ reach[np.ix_(mine, area.nodes)].T  # (2^N_a, K_a)
    listens = users[:, mine] & _in_area(whole, t, a, area, mine)
    weakest = np.full((len(kind), len(sets)), np.inf)
    for b in range(len(kind)):
        k = np.flatnonzero(listens[b])
        weakest[b] = (outside[b, k] + inside[:, k]).min(axis=1)
    return np.asarray(np.minimum(weakest, least[:, None]))


def _in_area(whole: Whole, t: int, a: int, area: Area, user: IntArray) -> BoolArray:
    """Return (U,) whether users of the area are in it in slot t."""
    requests = area.instance.requests[t]
    return np.asarray(requests[np.searchsorted(area.users, user)] >= 0)
