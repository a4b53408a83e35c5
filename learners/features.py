"""Features of (node, block) pairs: per block, so that one network serves any J and any N.

`features(view, n)` describes every block as node n sees it: its own column, one row for each of the
N - 1 other nodes (in the order of their numbers, without n), one for the cloud, and the state of
the whole system. All are float32 of order one; their names are OWN, NEIGHBOUR, CLOUD and STATE.

Times are in units of what a typical byte costs: its mean time from the cloud and on the air. Times
and counts that have no upper limit are compressed by log(1 + x). What does not depend on what the
nodes hold is computed once per slot (`basis`) and handed to the calls of that slot.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from learners.environment import View, lookup, rows
from learners.episodes import Slot
from learners.lookahead import Lookahead

HORIZON = 3
"""Coming slots that have features of their own."""

UNSERVED = 5.0
"""Units of time that a byte counts as taking on the air while nobody has it."""

OWN = (
    "size in mean blocks, compressed",
    "size in storages of the node",
    "share of models that contain the block",
    "needed now",
    *(f"probability of need, coming slot {h + 1}" for h in range(HORIZON)),
    "probability of need, mean of the coming slots",
    "slots since last need, compressed",
    "how often needed, decayed, compressed",
    "listeners now, this node's part, compressed",
    "listeners in the next slot, this node's part, compressed",
    "time from the fastest source, compressed",
    "cached here",
    "here now",
    "other nodes that count as holders, share",
    "no other holder",
    "nodes that had it cached, share",
    "in the best level of the slot",
    "time on the air that joining saves now",
    "that less the time to fetch it",
    *(f"saved by a copy here, coming slot {h + 1}" for h in range(HORIZON)),
    "saved by a copy here, mean of the coming slots",
    "saved in the next slot by the only copy",
    "bytes of what saves more, in storages",
    "saved in the next slot less what the marginal byte of the storage saves",
    "lookahead: saved after this slot, rent paid",
    "lookahead: saved by keeping, before rent",
    "lookahead: that less the rent of the next slot",
)
"""Features of a block at the node."""

NEIGHBOUR = (
    "had it cached",
    "counts as a holder",
    "listeners now, its part, compressed",
    "listeners in the next slot, its part, compressed",
    "saved by its copy in the next slot",
    "has decided",
    "fill of its storage",
    "its price of storage",
    "its time to us, compressed",
    "our time to it, compressed",
    "there is a link to us",
    "is the fastest source",
)
"""Features of a block at another node."""

CLOUD = (
    "time from the cloud, compressed",
    "is the fastest source",
    "time on the air that joining saves less the time from the cloud",
    "nobody had it cached",
)
"""Features of a block at the cloud."""

STATE = (
    "share of slots left",
    "slots left, of the horizon",
    "keeping, else pulling",
    "in turn, else all at once",
    "share of nodes that have decided",
    "bytes needed now, share of the library",
    "bytes expected to be needed next, share of the library",
    "bytes that somebody has, share of the library",
    "copies per byte of the library",
    "time on the air per byte of the library, by the best levels",
    "expected delay per byte of the library in the next slot, with what is here",
    "storage, share of the library, mean over nodes",
    "fill of the storages, mean",
    "time from the cloud, mean over nodes",
    "time between nodes, mean, compressed",
    "price of storage, mean over nodes",
)
"""State of the whole system."""


@dataclass(frozen=True, eq=False)
class Features:
    """What node n sees (for all nodes: an axis N after E in every field but `state` and `real`).

    Attributes
    ----------
    own
        (E, J, F_own) float32.
    neighbour
        (E, J, N - 1, F_neighbour) float32.
    cloud
        (E, J, F_cloud) float32.
    state
        (E, F_state) float32 state of the whole system, the same for every node.
    real
        (E, J) bool: not padding.
    may_pull
        (E, J, N + 1) bool: node n may receive the block from this source (row N the cloud).
    may_keep
        (E, J) bool: node n has the block.
    """

    own: Tensor
    neighbour: Tensor
    cloud: Tensor
    state: Tensor
    real: Tensor
    may_pull: Tensor
    may_keep: Tensor


@dataclass(frozen=True, eq=False)
class Basis:
    """What the features of a slot need and what no decision changes; times in units.

    Attributes
    ----------
    unit
        (E, 1) seconds per byte.
    own
        (E, N, J, 12) the first features of OWN.
    listeners
        (E, N, J, 2) compressed, now and in the next slot.
    worth
        (E, H + 1, C, S) expected delay of the coming slots, and its mean over them.
    air
        (E, G, S) time on the air, at most UNSERVED.
    link
        (E, N + 1, N) compressed times, 5 units where there is no link.
    linked
        (E, N + 1, N) bool.
    after, cost
        (E, C, S) of the lookahead; None without.
    price
        (E, N) of the next slot; 0 without lookahead.
    """

    unit: Tensor
    own: Tensor
    listeners: Tensor
    worth: Tensor
    air: Tensor
    link: Tensor
    linked: Tensor
    after: Tensor | None
    cost: Tensor | None
    price: Tensor


def basis(slot: Slot, values: Lookahead | None = None) -> Basis:
    """Return what the features of a slot have in common.

    Parameters
    ----------
    slot
        The slot.
    values
        Lookahead of the slot, whose marginals become features; None leaves them 0.
    """
    real = slot.real.float()
    count = real.sum(dim=1, keepdim=True)
    mean_size = slot.size.sum(dim=1, keepdim=True) / count
    cloud = slot.link[:, -1].mean(dim=1, keepdim=True)
    air = slot.air[:, 0, :, -1].nan_to_num(posinf=0.0).mean(dim=1, keepdim=True)
    unit = cloud + air
    per_unit = (1.0 / unit).float()[..., None]

    need = _stretched(slot.need.float())
    kind = slot.kind[:, None]
    coming = need.gather(2, kind.expand(-1, HORIZON, -1))  # (E, H, J)
    since = torch.where(slot.recency >= 0, slot.t - slot.recency.floor(), slot.t + 1.0)
    nodes = (-1, slot.nodes, -1)
    size = slot.size / mean_size
    own = [
        torch.log1p(size).float()[:, None].expand(nodes),
        (slot.size[:, None] / slot.storage[..., None].clamp(min=1.0)).clamp(max=5.0).float(),
        slot.sharing.float()[:, None].expand(nodes),
        slot.needed.float()[:, None].expand(nodes),
        *(coming[:, h, None].expand(nodes) for h in range(HORIZON)),
        coming.mean(dim=1, keepdim=True).expand(nodes),
        torch.log1p(since).float()[:, None].expand(nodes),
        torch.log1p(slot.frequency).float()[:, None].expand(nodes),
    ]
    row = slot.group.clamp(min=0)[..., None].expand(-1, -1, slot.nodes)
    now = torch.where(slot.needed[..., None], slot.listeners.gather(1, row), 0.0)
    following = slot.audience[:, 0].gather(1, slot.kind[..., None].expand_as(row))
    listeners = torch.log1p(torch.stack([now, following], dim=3)).transpose(1, 2).float()

    worth = _stretched(slot.worth.float()) * per_unit[..., None]
    price = slot.storage.new_zeros((slot.draws, slot.nodes)).float()
    after = cost = None
    if values is not None:
        after, cost = values.after.float() * per_unit, values.cost.float() * per_unit
        price = values.price[:, 0].float() * per_unit[:, :, 0]
    return Basis(
        unit=unit,
        own=torch.cat([torch.stack(own, dim=3), listeners], dim=3),
        listeners=listeners,
        worth=torch.cat([worth, worth.mean(dim=1, keepdim=True)], dim=1),
        air=(slot.broadcast / unit[..., None]).clamp(max=UNSERVED).float(),
        link=torch.log1p((slot.link / unit[..., None]).clamp(max=UNSERVED)).float(),
        linked=slot.link < torch.inf,
        after=after,
        cost=cost,
        price=price,
    )


def features(
    view: View, n: int | None, values: Lookahead | None = None, common: Basis | None = None
) -> Features:
    """Return the features of node n, or of all nodes.

    Parameters
    ----------
    view
        What the nodes see.
    n
        The node; None for all, with an axis N after E.
    values
        Lookahead of the slot, whose marginals become features; None leaves them 0.
    common
        `basis(view.slot, values)`, if it is already known.
    """
    slot = view.slot
    common = basis(slot, values) if common is None else common
    device = slot.size.device
    me = torch.arange(slot.nodes, device=device)
    me = me if n is None else me[n : n + 1]
    bit = (1 << me)[:, None]  # (M, 1)
    have = (view.held[:, None] & bit) != 0  # (E, M, J)
    others = view.holders[:, None] & ~bit
    count = _count(others, slot.nodes)
    fetch, source = _fetch(view, common)
    fetch, source = fetch[:, me], source[:, me]
    gain = _joining_saves(slot, common, others, bit)
    own = [
        common.own[:, me],
        torch.stack(
            [
                torch.log1p(fetch),
                ((view.cached[:, None] & bit) != 0).float(),
                have.float(),
                count / slot.nodes,
                (count == 0).float(),
                (_count(view.cached, slot.nodes) / slot.nodes)[:, None].expand(count.shape),
                ((_best_sender(view)[:, None] & bit) != 0).float(),
                gain,
                gain - fetch,
            ],
            dim=3,
        ),
        *_worth_here(view, common, me, others, have),
    ]
    has_not = slot.needed[:, None] & ((view.cached[:, None] & bit) == 0)
    suppliers = torch.arange(slot.nodes + 1, device=device)
    supplied = (view.cached | 1 << slot.nodes)[..., None] >> suppliers & 1 == 1
    linked = common.linked.transpose(1, 2)[:, me]  # (E, M, N + 1)
    to_cloud = common.link[:, -1, me, None]
    cloud = [
        to_cloud.expand(fetch.shape),
        (source == slot.nodes).float(),
        gain - torch.expm1(to_cloud),
        (view.cached == 0).float()[:, None].expand(fetch.shape),
    ]
    real = slot.real[:, None]
    described = (
        torch.cat(own, dim=3) * real[..., None],
        _neighbours(view, common, me, source) * real[..., None, None],
        torch.stack(cloud, dim=3) * real[..., None],
        has_not[..., None] & supplied[:, None] & linked[:, :, None],
        have & real,
    )
    if n is not None:
        described = tuple(part[:, 0] for part in described)
    whose, nearby, far, may_pull, may_keep = described
    return Features(whose, nearby, far, _state(view, common), slot.real, may_pull, may_keep)


def _fetch(view: View, common: Basis) -> tuple[Tensor, Tensor]:
    """Return (E, N, J) the units of time from the fastest source to every node, and the source."""
    seconds = rows(view.slot.reach_time, view.cached).transpose(1, 2) / common.unit[..., None]
    return seconds.clamp(max=UNSERVED).float(), rows(view.slot.fastest, view.cached).transpose(1, 2)


def _best_sender(view: View) -> Tensor:
    """Return (E, J) the best level of the slot, the empty set where nobody needs the block."""
    sets = lookup(view.slot.best_sender, view.slot.group, view.cached).long()
    return torch.where(view.slot.needed, sets, 0)


def _joining_saves(slot: Slot, common: Basis, others: Tensor, bit: Tensor) -> Tensor:
    """Return (E, M, J) the units of time on the air that joining the other holders saves."""
    group = slot.group[:, None]
    saved = lookup(common.air, group, others) - lookup(common.air, group, others | bit)
    return torch.where(slot.needed[:, None], saved, 0.0)


def _worth_here(
    view: View, common: Basis, me: Tensor, others: Tensor, have: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what a copy here saves: the last features of OWN, (E, M, J, .) each."""
    slot, bit = view.slot, (1 << me)[:, None]
    kind = slot.kind[:, None]
    saved = [
        lookup(table, kind, others) - lookup(table, kind, others | bit)
        for table in common.worth.unbind(dim=1)
    ]
    following = common.worth[:, 0]
    only = lookup(following, kind, torch.zeros_like(others)) - lookup(
        following, kind, bit.expand(others.shape)
    )
    # Who else claims the storage: what is here and, while the nodes pull, what is needed.
    claims = have if view.keeping else have | slot.needed[:, None]
    storage = slot.storage[:, me, None].clamp(min=1.0)
    order = saved[0].argsort(dim=2, descending=True, stable=True)
    claimed = (torch.where(claims, slot.size[:, None], 0.0) / storage).gather(2, order)
    before = torch.zeros_like(claimed).scatter_(2, order, claimed.cumsum(dim=2) - claimed)
    over = torch.where(claims & (before >= 1.0), saved[0], 0.0).amax(dim=2, keepdim=True)
    rank = torch.stack([only, before.clamp(max=3.0).float(), saved[0] - over], dim=3)
    if common.after is None or common.cost is None:
        ahead = torch.zeros((*others.shape, 3), device=others.device)
    else:
        left, kept = (
            lookup(table, kind, others) - lookup(table, kind, others | bit)
            for table in (common.after, common.cost)
        )
        ahead = torch.stack([left, kept, kept - common.price[:, me, None]], dim=3)
    return torch.stack(saved, dim=3), rank, ahead


def _neighbours(view: View, common: Basis, me: Tensor, source: Tensor) -> Tensor:
    """Return (E, M, J, N - 1, F_neighbour); `source` (E, M, J) is the fastest to each node."""
    slot = view.slot
    nodes = torch.arange(slot.nodes, device=me.device)
    near = torch.stack([torch.cat([nodes[:m], nodes[m + 1 :]]) for m in me.tolist()])  # (M, N - 1)
    bit = (1 << nodes)[:, None]
    kind, following = slot.kind[:, None], common.worth[:, 0]
    without = view.holders[:, None] & ~bit
    saved = lookup(following, kind, without) - lookup(following, kind, without | bit)
    decided = torch.tensor([view.decided >> m & 1 for m in range(slot.nodes)], device=me.device)
    of_node = torch.stack([decided.float().expand(slot.draws, -1), _fill(view), common.price], 2)
    of_block = [
        ((view.cached[:, None] & bit) != 0).float(),
        ((view.holders[:, None] & bit) != 0).float(),
        *common.listeners.unbind(dim=3),
        saved,
    ]
    apart = torch.cat(
        [torch.stack(of_block, 3), of_node[:, :, None].expand(-1, -1, slot.blocks, -1)], dim=3
    )
    towards = common.link[:, near, me[:, None]]  # (E, M, N - 1)
    back = common.link[:, me[:, None], near]
    linked = common.linked[:, near, me[:, None]].float()
    between = torch.stack([towards, back, linked], dim=3)[:, :, None]
    between = between.expand(-1, -1, slot.blocks, -1, -1)
    fastest = (source[..., None] == near[:, None]).float()[..., None]
    return torch.cat([apart[:, near].transpose(2, 3), between, fastest], dim=4)


def _fill(view: View) -> Tensor:
    """Return (E, N) the bytes that every node is known to have, in storages."""
    sets = view.holders if view.keeping else view.cached
    nodes = torch.arange(view.slot.nodes, device=sets.device)[:, None]
    bytes_ = torch.where(sets[:, None] >> nodes & 1 == 1, view.slot.size[:, None], 0.0).sum(dim=2)
    return (bytes_ / view.slot.storage.clamp(min=1.0)).clamp(max=5.0).float()


def _state(view: View, common: Basis) -> Tensor:
    """Return (E, F_state)."""
    slot = view.slot
    share = slot.size / slot.size.sum(dim=1, keepdim=True)
    left = slot.slots - slot.t - 1
    cost = lookup(common.air, slot.group, _best_sender(view))
    nodes = slot.nodes
    between = common.link[:, :-1].masked_fill(torch.eye(nodes, device=share.device).bool(), 0.0)
    following = lookup(common.worth[:, 0], slot.kind, view.held)
    per_byte = torch.stack(
        [
            slot.needed.double(),
            slot.need[:, 0].gather(1, slot.kind).double(),
            (view.held != 0).double(),
            _count(view.held, nodes).double(),
            torch.where(slot.needed, cost, 0.0).double(),
            following.double(),
        ],
        dim=1,
    )
    means = (per_byte * share[:, None]).sum(dim=2).float()
    numbers = [
        left / slot.slots,
        min(left, HORIZON) / HORIZON,
        float(view.keeping),
        float(view.in_turn),
        view.decided.bit_count() / nodes,
    ]
    same = torch.tensor(numbers, device=share.device).expand(slot.draws, -1)
    of_nodes = [
        slot.storage.mean(dim=1).float() / slot.size.sum(dim=1).float(),
        _fill(view).mean(dim=1),
        torch.expm1(common.link[:, -1]).mean(dim=1),
        between.sum(dim=(1, 2)) / max(nodes * (nodes - 1), 1),
        common.price.mean(dim=1),
    ]
    return torch.cat([same, means, torch.stack(of_nodes, dim=1)], dim=1)


def _count(sets: Tensor, nodes: int) -> Tensor:
    """Return the number of nodes in every set, float32."""
    bits = torch.arange(nodes, device=sets.device)
    return (sets[..., None] >> bits & 1).sum(dim=-1).float()


def _stretched(table: Tensor) -> Tensor:
    """Return (E, HORIZON, ...): coming slots beyond those of the table count as nothing."""
    short = HORIZON - table.shape[1]
    if short <= 0:
        return table[:, :HORIZON]
    return torch.cat([table, table.new_zeros((len(table), short, *table.shape[2:]))], dim=1)
