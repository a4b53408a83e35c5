"""What the features of a slot have in common, whatever the nodes decide in it.

The tables over node sets stand row by row, so that one look-up fetches all that is known of a
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

UNSERVED = 5.0
"""Units of time that a byte counts as taking on the air while nobody has it."""

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

CLOUD_FIXED = ("time from the cloud, compressed", "is the fastest source", "nobody had it cached")

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


@dataclass(frozen=True, eq=False)
class Basis:
    """Common to the features of one slot; times in units.

    Attributes
    ----------
    own, neighbour, cloud, state
        (E, N, J, .), (E, N, J, N - 1, .), (E, N, J, .), (E, .) the features that no decision
        changes.
    may_pull
        (E, N, J, N + 1) bool.
    bit
        (N, 1) the bit of every node.
    near
        (N, N - 1) the other nodes of each.
    member, count
        (S, N) and (S,) float32, the nodes of every set and their number.
    worth
        (E C S, H + 3): expected delay of the coming slots, their mean, and of the lookahead
        `cost` and `after`.
    at
        (E, 1, J) row of the block's kind in `worth`, for the empty set.
    air
        (E (G + 1) S,) time on the air, at most UNSERVED; 0 in the last row of every draw.
    group_at
        (E, 1, J) row of the block's user group in `air`, the last one where nobody needs it.
    fetch
        (E, N, J) time from the fastest source.
    cloud_time, price
        (E, N).
    in_storages
        (E, N, J) float32 size.
    share
        (E, J) share of the block in the bytes of the library.
    padded
        There are blocks that are padding.
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
    at: Tensor
    air: Tensor
    group_at: Tensor
    fetch: Tensor
    cloud_time: Tensor
    price: Tensor
    in_storages: Tensor
    share: Tensor
    padded: bool

    def at_kind(self, table: Tensor, sets: Tensor) -> Tensor:
        """Return the rows (..., F) of a table like `worth` under node sets (..., E, M or 1, J).

        For node sets (E, J) too.
        """
        at = self.at[:, 0] if sets.dim() == 2 else self.at
        return table[at + sets]

    def at_group(self, sets: Tensor) -> Tensor:
        """Return the time on the air (..., E, M, J) under node sets of the same shape."""
        return self.air[self.group_at + sets]


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
    numbers = torch.arange(nodes, device=device)
    bit = (1 << numbers)[:, None]
    near = near_nodes(nodes, device)
    unit = time_unit(slot)
    had = (view.cached[:, None] & bit) != 0
    member = slot.member.float()
    count = member.sum(dim=1)
    link = torch.log1p((slot.link / unit[:, None]).clamp(max=UNSERVED)).float()
    fetch = (rows(slot.reach_time, view.cached) / unit[:, None]).clamp(max=UNSERVED).float()
    fetch, source = fetch.transpose(1, 2), rows(slot.fastest, view.cached).transpose(1, 2)
    best = torch.where(slot.needed, lookup(slot.best_sender, slot.group, view.cached).long(), 0)

    worth = _worth(slot, unit, values)  # (E, C, S, F)
    singles = torch.cat([bit.new_zeros(1), bit[:, 0]])
    lone = worth[:, :, singles, 0].gather(1, slot.kind[..., None].expand(-1, -1, nodes + 1))
    only = (lone[..., :1] - lone[..., 1:]).transpose(1, 2)
    price = torch.zeros(slot.storage.shape, device=device)
    if values is not None:
        price = (values.price[:, 0] / unit).float()

    air = (slot.broadcast / unit[:, None]).clamp(max=UNSERVED).float()
    air = torch.cat([air, torch.zeros_like(air[:, :1])], dim=1)
    draw = torch.arange(slot.draws, device=device)[:, None]
    group = torch.where(slot.needed, slot.group, air.shape[1] - 1)
    group_at = ((draw * air.shape[1] + group) << nodes)[:, None]

    listeners = _listeners(slot)  # (E, N, J, 2)
    known, by_node = _of_block(slot), (slot.draws, nodes, slot.blocks)
    in_storages = (slot.size[:, None] / slot.storage[..., None].clamp(min=1.0)).float()
    own = [
        known[0][:, None].expand(by_node),
        in_storages.clamp(max=5.0),
        *(part[:, None].expand(by_node) for part in known[1:]),
        (count[view.cached] / nodes)[:, None].expand(by_node),
        *listeners.unbind(dim=3),
        torch.log1p(fetch),
        had.float(),
        ((best[:, None] & bit) != 0).float(),
        only,
    ]
    apart = torch.cat(
        [
            had.float()[..., None],
            listeners,
            price[:, :, None, None].expand(-1, -1, slot.blocks, 1),
        ],
        dim=3,
    )
    towards, back = link[:, near, numbers[:, None]], link[:, numbers[:, None], near]
    linked = slot.link < torch.inf
    between = [towards, back, linked[:, near, numbers[:, None]].float()]  # (E, N, N - 1)
    neighbour = torch.cat(
        [
            apart[:, near].transpose(2, 3),
            torch.stack(between, dim=3)[:, :, None].expand(-1, -1, slot.blocks, -1, -1),
            (source[..., None] == near[:, None]).float()[..., None],
        ],
        dim=4,
    )
    cloud_time = torch.expm1(link[:, -1])
    cloud = [
        link[:, -1, :, None].expand(by_node),
        (source == nodes).float(),
        (view.cached == 0).float()[:, None].expand(by_node),
    ]
    suppliers = torch.arange(nodes + 1, device=device)
    supplied = (view.cached | 1 << nodes)[..., None] >> suppliers & 1 == 1
    wanting = slot.needed[:, None] & ~had
    may_pull = wanting[..., None] & supplied[:, None] & linked.transpose(1, 2)[:, :, None]
    share = (slot.size / slot.size.sum(dim=1, keepdim=True)).float()
    spent = air.flatten()[group_at[:, 0] + best]
    return Basis(
        own=torch.stack(own, dim=3),
        neighbour=neighbour,
        cloud=torch.stack(cloud, dim=3),
        state=_state(view, share, spent, link, cloud_time, price),
        may_pull=may_pull,
        bit=bit,
        near=near,
        member=member,
        count=count,
        worth=worth.flatten(0, 2),
        at=((draw * worth.shape[1] + slot.kind) << nodes)[:, None],
        air=air.flatten(),
        group_at=group_at,
        fetch=fetch,
        cloud_time=cloud_time,
        price=price,
        in_storages=in_storages,
        share=share,
        padded=not bool(slot.real.all()),
    )


def time_unit(slot: Slot) -> Tensor:
    """Return (E, 1) seconds per byte: mean over nodes from the cloud, and over bytes on the air.

    The air counts as it would be now if all nodes sent what is needed.
    """
    bytes_ = slot.size * slot.needed
    everywhere = torch.full_like(slot.group, (1 << slot.nodes) - 1)
    air = torch.where(slot.needed, lookup(slot.broadcast, slot.group, everywhere), 0.0)
    mean = (bytes_ * air).sum(dim=1, keepdim=True) / bytes_.sum(dim=1, keepdim=True).clamp(min=1.0)
    return slot.link[:, -1].mean(dim=1, keepdim=True) + mean


def _worth(slot: Slot, unit: Tensor, values: Lookahead | None) -> Tensor:
    """Return (E, C, S, HORIZON + 3), in units; coming slots beyond the table count as nothing."""
    known = slot.worth[:, :HORIZON].float()
    short = HORIZON - known.shape[1]
    tables = [*known.unbind(dim=1), *[torch.zeros_like(known[:, 0])] * short]
    tables.append(sum(tables[1:], tables[0]) / HORIZON)
    if values is None:
        tables += [torch.zeros_like(known[:, 0])] * 2
    else:
        tables += [values.cost.float(), values.after.float()]
    return torch.stack(tables, dim=3) / unit.float()[..., None, None]


def _listeners(slot: Slot) -> Tensor:
    """Return (E, N, J, 2) listeners now and in the next slot, compressed."""
    row = slot.group.clamp(min=0)[..., None].expand(-1, -1, slot.nodes)
    now = slot.listeners.gather(1, row) * slot.needed[..., None]
    following = slot.audience[:, 0].gather(1, slot.kind[..., None].expand_as(row))
    return torch.log1p(torch.stack([now, following], dim=3)).transpose(1, 2).float()


def _of_block(slot: Slot) -> list[Tensor]:
    """Return (E, J) each, what is alike at all nodes: OWN_FIXED without what is per node."""
    count = slot.real.sum(dim=1, keepdim=True)
    need = slot.need[:, :HORIZON].gather(
        2, slot.kind[:, None].expand(-1, min(HORIZON, slot.horizon), -1)
    )
    coming = [*need.unbind(dim=1), *[torch.zeros_like(need[:, 0])] * (HORIZON - need.shape[1])]
    since = torch.where(slot.recency >= 0, slot.t - slot.recency.floor(), slot.t + 1.0)
    parts = [
        torch.log1p(slot.size * count / slot.size.sum(dim=1, keepdim=True)),
        slot.sharing,
        slot.needed,
        *coming,
        sum(coming[1:], coming[0]) / HORIZON,
        torch.log1p(since),
        torch.log1p(slot.frequency),
    ]
    return [part.float() for part in parts]


def _state(
    view: View, share: Tensor, spent: Tensor, link: Tensor, cloud_time: Tensor, price: Tensor
) -> Tensor:
    """Return (E, .) the features STATE_FIXED."""
    slot = view.slot
    left = slot.slots - slot.t - 1
    numbers = [left / slot.slots, min(left, HORIZON) / HORIZON, float(view.in_turn)]
    same = torch.tensor(numbers, device=share.device).expand(slot.draws, -1)
    apart = ~torch.eye(slot.nodes, dtype=torch.bool, device=share.device)
    between = (link[:, :-1] * apart).sum(dim=(1, 2)) / max(int(apart.sum()), 1)
    per_byte = [slot.needed.float(), slot.need[:, 0].gather(1, slot.kind).float(), spent]
    means = torch.stack(per_byte, dim=1) @ share[..., None]
    of_nodes = [
        (slot.storage.mean(dim=1) / slot.size.sum(dim=1)).float(),
        cloud_time.mean(dim=1),
        between,
        price.mean(dim=1),
    ]
    return torch.cat([same, torch.stack(of_nodes, dim=1), means[..., 0]], dim=1)
