"""The part of a slot's features that does not depend on what the nodes decide in it.

The tables over node sets are stored row by row. One look-up then fetches all that is known of a
block under a node set.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finecast.learners.world.environment import View, lookup, near_nodes, rows
from finecast.learners.world.episodes import Slot
from finecast.learners.world.lookahead import Lookahead

HORIZON = 3
"""Coming slots that have features of their own."""

COST_COLUMN = HORIZON + 1
"""Column of the lookahead's `cost` in `Basis.worth`: after the coming slots and their mean."""

UNSERVED = 5.0
"""Longest time of a byte, in units: what a byte takes on the air while nobody has it."""

OWN_FIXED = (
    "size in mean blocks, compressed",
    "size in storages of the node",
    "share of models that contain the block",
    "needed now",
    "probability of need, coming slot 1",
    "probability of need, coming slot 2",
    "probability of need, coming slot 3",
    "probability of need, mean of the coming slots",
    "slots since last need, compressed",
    "how often needed, decayed, compressed",
    "nodes that had it cached, share",
    "listeners now, this node's part, compressed",
    "listeners in the next slot, this node's part, compressed",
    "time from the fastest source, compressed",
    "was cached here",
    "in the best level of the slot",
    "saved in the next slot by the only copy",
)
"""Features of a block at the node."""

NEIGHBOUR_FIXED = (
    "had it cached",
    "listeners now, its part, compressed",
    "listeners in the next slot, its part, compressed",
    "its price of storage",
    "its time to us, compressed",
    "our time to it, compressed",
    "there is a link to us",
    "is the fastest source",
)
"""Features of a block at another node."""

CLOUD_FIXED = ("time from the cloud, compressed", "is the fastest source", "nobody had it cached")
"""Features of a block at the cloud."""

STATE_FIXED = (
    "share of slots left",
    "slots left, of the horizon",
    "in turn, else all at once",
    "storage, share of the library, mean over nodes",
    "time from the cloud, mean over nodes",
    "time between nodes, mean, compressed",
    "price of storage, mean over nodes",
    "bytes needed now, share of the library",
    "bytes expected to be needed next, share of the library",
    "time on the air per byte of the library, by the best levels",
)
"""State of the whole system."""


@dataclass(frozen=True, eq=False)
class Basis:
    """What the features of one slot have in common; times are in units of `time_unit`.

    Attributes
    ----------
    own, neighbour, cloud, state
        (E, N, J, .), (E, N, J, N - 1, .), (E, N, J, .), (E, .): the features OWN_FIXED,
        NEIGHBOUR_FIXED, CLOUD_FIXED and STATE_FIXED.
    may_pull
        (E, N, J, N + 1) bool: the node may receive the block from this source (row N the cloud).
    bit
        (N, 1) int64, the bit of every node.
    near
        (N, N - 1) int64, the other nodes of each node.
    member, count
        (S, N) and (S,) float32, the nodes of every set and their number.
    worth
        (E C S, H + 3) float32: expected delay of the coming slots, their mean, and of the
        lookahead `cost` and `after`. Column COST_COLUMN is `cost`.
    kind_row
        (E, 1, J) int64 row of the block's kind in `worth`, for the empty set.
    air
        (E (G + 1) S,) float32 time on the air, at most UNSERVED; 0 in the last group of every draw.
    group_row
        (E, 1, J) int64 row of the block's user group in `air`, for the empty set; that of the last
        group where nobody needs the block.
    fetch
        (E, N, J) float32 time from the fastest source.
    cloud_time, price
        (E, N) float32 time from the cloud and price of storage.
    in_storages
        (E, N, J) float32 size of the block, in storages of the node.
    share
        (E, J) float32 share of the block in the bytes of the library.
    padded
        Some blocks are padding.
    """

    own: Tensor
    neighbour: Tensor
    cloud: Tensor
    state: Tensor
    may_pull: Tensor
    bit: Tensor
    near: Tensor
    member: Tensor
    count: Tensor
    worth: Tensor
    kind_row: Tensor
    air: Tensor
    group_row: Tensor
    fetch: Tensor
    cloud_time: Tensor
    price: Tensor
    in_storages: Tensor
    share: Tensor
    padded: bool

    def at_kind(self, table: Tensor, sets: Tensor) -> Tensor:
        """Return the rows (..., F) of a table like `worth` under node sets (..., E, M or 1, J).

        Node sets may be (E, J) too.
        """
        kind_row = self.kind_row[:, 0] if sets.dim() == 2 else self.kind_row
        return table[kind_row + sets]

    def at_group(self, sets: Tensor) -> Tensor:
        """Return the time on the air (..., E, M, J) under node sets of the same shape."""
        return self.air[self.group_row + sets]


def basis_of(view: View, values: Lookahead | None = None) -> Basis:
    """Return what the features of a slot have in common.

    Parameters
    ----------
    view
        Any view of the slot.
    values
        Lookahead of the slot, whose marginals become features; None leaves them 0.
    """
    slot = view.slot
    nodes, device = slot.nodes, slot.size.device
    bit = (1 << torch.arange(nodes, device=device))[:, None]
    near = near_nodes(nodes, device)
    cached_here = (view.cached[:, None] & bit) != 0  # (E, N, J)
    source = rows(slot.fastest, view.cached).transpose(1, 2)
    in_storages = (slot.size[:, None] / slot.storage[..., None].clamp(min=1.0)).float()
    share = (slot.size / slot.size.sum(dim=1, keepdim=True)).float()

    # Times in units. They stop at UNSERVED, so that an infinite time has a finite feature.
    unit = time_unit(slot)
    link = torch.log1p((slot.link / unit[:, None]).clamp(max=UNSERVED)).float()
    cloud_time = torch.expm1(link[:, -1])
    fetch = (rows(slot.reach_time, view.cached) / unit[:, None]).clamp(max=UNSERVED).float()
    fetch = fetch.transpose(1, 2)
    price = torch.zeros(slot.storage.shape, device=device)
    if values is not None:
        price = (values.price[:, 0] / unit).float()

    # Tables over node sets. A row index is (draw, kind or group, set) with the set in the low bits.
    draw = torch.arange(slot.draws, device=device)[:, None]
    worth = _worth(slot, unit, values)  # (E, C, S, F)
    kind_row = (draw * worth.shape[1] + slot.kind) << nodes
    air = (slot.broadcast / unit[:, None]).clamp(max=UNSERVED).float()
    air = torch.cat([air, torch.zeros_like(air[:, :1])], dim=1)  # the group of unneeded blocks
    group = torch.where(slot.needed, slot.group, air.shape[1] - 1)
    group_row = (draw * air.shape[1] + group) << nodes

    # Who sends each block if it comes by its best level, and how long that takes on the air.
    best = torch.where(slot.needed, lookup(slot.best_sender, slot.group, view.cached).long(), 0)
    air_now = air.flatten()[group_row + best]

    listeners = _listeners(slot)
    member = slot.member.float()
    count = member.sum(dim=1)
    by_node = (slot.draws, nodes, slot.blocks)
    return Basis(
        own=torch.stack(
            [  # in the order of OWN_FIXED
                _relative_size(slot)[:, None].expand(by_node),
                in_storages.clamp(max=5.0),
                *(part[:, None].expand(by_node) for part in _demand(slot)),
                (count[view.cached] / nodes)[:, None].expand(by_node),
                *listeners.unbind(dim=3),
                torch.log1p(fetch),
                cached_here.float(),
                ((best[:, None] & bit) != 0).float(),
                _saved_by_only_copy(slot, worth, bit),
            ],
            dim=3,
        ),
        neighbour=_neighbour(slot, near, cached_here, listeners, price, link, source),
        cloud=torch.stack(
            [  # in the order of CLOUD_FIXED
                link[:, -1, :, None].expand(by_node),
                (source == nodes).float(),
                (view.cached == 0).float()[:, None].expand(by_node),
            ],
            dim=3,
        ),
        state=_state(view, share, air_now, link, cloud_time, price),
        may_pull=_may_pull(view, cached_here),
        bit=bit,
        near=near,
        member=member,
        count=count,
        worth=worth.flatten(0, 2),
        kind_row=kind_row[:, None],
        air=air.flatten(),
        group_row=group_row[:, None],
        fetch=fetch,
        cloud_time=cloud_time,
        price=price,
        in_storages=in_storages,
        share=share,
        padded=not bool(slot.real.all()),
    )


def time_unit(slot: Slot) -> Tensor:
    """Return the unit of time, (E, 1) seconds per byte.

    It is the mean time from the cloud over the nodes plus the mean time on the air over the needed
    bytes, if all nodes sent them now.
    """
    needed_bytes = slot.size * slot.needed
    everywhere = torch.full_like(slot.group, (1 << slot.nodes) - 1)
    air = torch.where(slot.needed, lookup(slot.broadcast, slot.group, everywhere), 0.0)
    total = needed_bytes.sum(dim=1, keepdim=True).clamp(min=1.0)
    mean = (needed_bytes * air).sum(dim=1, keepdim=True) / total
    return slot.link[:, -1].mean(dim=1, keepdim=True) + mean


def _worth(slot: Slot, unit: Tensor, values: Lookahead | None) -> Tensor:
    """Return (E, C, S, H + 3), in units: see `Basis.worth`.

    Coming slots beyond the table of the slot count as nothing.
    """
    known = slot.worth[:, :HORIZON].float()
    absent = HORIZON - known.shape[1]
    columns = [*known.unbind(dim=1), *[torch.zeros_like(known[:, 0])] * absent]
    columns.append(sum(columns[1:], columns[0]) / HORIZON)
    if values is None:
        columns += [torch.zeros_like(known[:, 0])] * 2
    else:
        columns += [values.cost.float(), values.after.float()]
    return torch.stack(columns, dim=3) / unit.float()[..., None, None]


def _saved_by_only_copy(slot: Slot, worth: Tensor, bit: Tensor) -> Tensor:
    """Return (E, N, J), what a copy at the node saves in the next slot if it is the only one."""
    singles = torch.cat([bit.new_zeros(1), bit[:, 0]])  # the empty set, then every node alone
    kind = slot.kind[..., None].expand(-1, -1, len(singles))
    delay = worth[:, :, singles, 0].gather(1, kind)
    return (delay[..., :1] - delay[..., 1:]).transpose(1, 2)


def _listeners(slot: Slot) -> Tensor:
    """Return (E, N, J, 2) listeners now and in the next slot, compressed."""
    group = slot.group.clamp(min=0)[..., None].expand(-1, -1, slot.nodes)
    now = slot.listeners.gather(1, group) * slot.needed[..., None]
    kind = slot.kind[..., None].expand_as(group)
    following = slot.audience[:, 0].gather(1, kind)
    return torch.log1p(torch.stack([now, following], dim=3)).transpose(1, 2).float()


def _relative_size(slot: Slot) -> Tensor:
    """Return (E, J) the size in mean blocks, compressed."""
    count = slot.real.sum(dim=1, keepdim=True)
    return torch.log1p(slot.size * count / slot.size.sum(dim=1, keepdim=True)).float()


def _demand(slot: Slot) -> list[Tensor]:
    """Return (E, J) each, what is known of the demand for a block: OWN_FIXED from `sharing` on."""
    kind = slot.kind[:, None].expand(-1, min(HORIZON, slot.horizon), -1)
    need = slot.need[:, :HORIZON].gather(2, kind)
    coming = [*need.unbind(dim=1), *[torch.zeros_like(need[:, 0])] * (HORIZON - need.shape[1])]
    since = torch.where(slot.recency >= 0, slot.t - slot.recency.floor(), slot.t + 1.0)
    parts = [
        slot.sharing,
        slot.needed,
        *coming,
        sum(coming[1:], coming[0]) / HORIZON,
        torch.log1p(since),
        torch.log1p(slot.frequency),
    ]
    return [part.float() for part in parts]


def _neighbour(
    slot: Slot,
    near: Tensor,
    cached_here: Tensor,
    listeners: Tensor,
    price: Tensor,
    link: Tensor,
    source: Tensor,
) -> Tensor:
    """Return (E, N, J, N - 1, .) the features NEIGHBOUR_FIXED."""
    numbers = torch.arange(slot.nodes, device=near.device)[:, None]
    # What every node is by itself. Each node then picks the rows of its neighbours.
    of_node = torch.cat(
        [
            cached_here.float()[..., None],
            listeners,
            price[:, :, None, None].expand(-1, -1, slot.blocks, 1),
        ],
        dim=3,
    )
    # The links of a pair, alike for all blocks: from the neighbour, to it, and whether it exists.
    linked = (slot.link < torch.inf)[:, near, numbers].float()
    of_pair = torch.stack([link[:, near, numbers], link[:, numbers, near], linked], dim=3)
    return torch.cat(
        [
            of_node[:, near].transpose(2, 3),
            of_pair[:, :, None].expand(-1, -1, slot.blocks, -1, -1),
            (source[..., None] == near[:, None]).float()[..., None],
        ],
        dim=4,
    )


def _may_pull(view: View, cached_here: Tensor) -> Tensor:
    """Return (E, N, J, N + 1) bool: the block is needed, not here, at the source, and a link."""
    slot = view.slot
    sources = torch.arange(slot.nodes + 1, device=view.cached.device)
    has_it = (view.cached | 1 << slot.nodes)[..., None] >> sources & 1 == 1
    missing = slot.needed[:, None] & ~cached_here
    linked = (slot.link < torch.inf).transpose(1, 2)
    return missing[..., None] & has_it[:, None] & linked[:, :, None]


def _state(
    view: View, share: Tensor, air_now: Tensor, link: Tensor, cloud_time: Tensor, price: Tensor
) -> Tensor:
    """Return (E, .) the features STATE_FIXED.

    Parameters
    ----------
    view
        Any view of the slot.
    share
        (E, J), as in `Basis`.
    air_now
        (E, J) time on the air now by the best levels.
    link
        (E, N + 1, N) times between nodes and from the cloud, compressed.
    cloud_time, price
        (E, N), as in `Basis`.
    """
    slot = view.slot
    left = slot.slots - slot.t - 1
    clock = [left / slot.slots, min(left, HORIZON) / HORIZON, float(view.in_turn)]
    apart = ~torch.eye(slot.nodes, dtype=torch.bool, device=share.device)
    between = (link[:, :-1] * apart).sum(dim=(1, 2)) / max(int(apart.sum()), 1)
    over_nodes = [
        (slot.storage.mean(dim=1) / slot.size.sum(dim=1)).float(),
        cloud_time.mean(dim=1),
        between,
        price.mean(dim=1),
    ]
    per_byte = [slot.needed.float(), slot.need[:, 0].gather(1, slot.kind).float(), air_now]
    over_bytes = (torch.stack(per_byte, dim=1) @ share[..., None])[..., 0]
    same = torch.tensor(clock, device=share.device).expand(slot.draws, -1)
    return torch.cat([same, torch.stack(over_nodes, dim=1), over_bytes], dim=1)
