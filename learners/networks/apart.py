"""What a node that decides apart sees of a block, and the network on it.

A node scores a block by what its copy saves, as it believes, beside the copies that a plan gives
the others, with a bonus for a planned copy of its own and what the network has learnt:

    score = saved beside the plan + bonus . planned + r(x, m)

x are the features below, m a memory of the block at the node, a gated recurrent unit (Cho et al.,
arXiv 1406.1078): what is hidden now has left traces before. The plan is the joint keep rule on what
all nodes see, so with r = 0 the policy is the rule `plan` of the method `apart`.

With action semantics (Wang et al., ICLR 2020), what another node is expected to keep adds the inner
product of what the node sees as a whole with what it sees of that node:

    r = a . h + sum over n' that are to keep the block <B h, e_n'> / sqrt(d)

All weights are shared over blocks, nodes and neighbours: any J, N and K.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from finecast.learners.networks.action_semantics import perceptron
from finecast.learners.world.environment import lookup, near_nodes, unpacked
from finecast.learners.world.episodes import Slot

OWN = (
    "saved beside the plan",
    "saved if nobody else keeps it",
    "saved beside the caches seen",
    "saved if all others keep it",
    "saved beside the plan, by what all see",
    "planned here",
    "planned elsewhere, share of nodes",
    "cached here",
    "cached elsewhere, as far as seen, share of nodes",
    "received now",
    "all take it to be here",
    "users seen to want it now, share",
    "users seen to want it last, share",
    "size in storages of the node",
    "bytes here that save more, in storages",
    "saved beside the plan less what the first byte out of the storage saves",
    "saved by a byte here, mean",
    "share of slots left",
)
"""Features of a block at the node; savings in units of what a byte is worth, `compressed`."""

NEIGHBOUR = (
    "planned there",
    "cached there, as far as seen",
    "its cache is seen",
    "saved by its copy beside the plan",
)
"""Features of a block at another node, as the node sees it."""

MOST_SAVED = 100.0
"""Savings above it, in units, count as so much."""


@dataclass(frozen=True, eq=False)
class Seen:
    """What all nodes see of a slot when they decide what to keep, each only its own rows.

    Attributes
    ----------
    own
        (E, N, J, F_own) float32.
    neighbour
        (E, N, J, N - 1, F_neighbour) float32.
    saved
        (E, N, J) float32 saved beside the plan, in units.
    bonus
        (E, N, J) float32 what a unit of bonus adds: the mean worth of a byte here, if planned.
    may
        (E, N, J) bool: the node has the block, and it is no padding.
    """

    own: Tensor
    neighbour: Tensor
    saved: Tensor
    bonus: Tensor
    may: Tensor


def worth_of_a_byte(slot: Slot) -> Tensor:
    """Return (E,) float32, the unit: what copies everywhere save of a byte, by what all see."""
    assert slot.beliefs is not None
    table = slot.beliefs.cost[:, 0]
    kind = slot.kind
    saved = (table[..., 0] - table[..., -1]).gather(1, kind)  # (E, J)
    size = slot.size.float()
    mean = (saved * size).sum(dim=1) / size.sum(dim=1).clamp(min=1.0)
    return mean.clamp(min=1e-30)


def caches_as_seen(slot: Slot, cached: Tensor) -> Tensor:
    """Return (E, N, J) node sets: the caches (E, J) as far as each node sees them."""
    assert slot.beliefs is not None
    bits = 1 << torch.arange(slot.nodes, device=cached.device)
    return cached[:, None] & (slot.beliefs.seen * bits).sum(dim=2)[..., None]


def seen_by_all(slot: Slot, cached: Tensor) -> Tensor:
    """Return (E, J) node sets: the caches (E, J) as far as all nodes see them."""
    assert slot.beliefs is not None
    bits = 1 << torch.arange(slot.nodes, device=cached.device)
    return cached & (slot.beliefs.seen.all(dim=1) * bits).sum(dim=1)[:, None]


def seen_apart(slot: Slot, cached: Tensor, held: Tensor, plan: Tensor) -> Seen:
    """Return what all nodes see, each by its own beliefs.

    Parameters
    ----------
    slot
        The slot, with beliefs.
    cached, held
        (E, J) int64 node sets when the slot began, and after the delivery. Of `held` a node sees
        its own bit.
    plan
        (E, J) int64 node sets that the plan gives each block.
    """
    beliefs = slot.beliefs
    assert beliefs is not None
    draws, nodes, blocks = slot.draws, slot.nodes, slot.blocks
    bit = 1 << torch.arange(nodes, device=cached.device)[:, None]  # (N, 1)
    everybody = (1 << nodes) - 1
    unit = worth_of_a_byte(slot)[:, None, None]
    seen_cached = caches_as_seen(slot, cached)  # (E, N, J)

    # What a copy saves, by the costs of each node or by those that all see.
    def saved(table: Tensor, others: Tensor) -> Tensor:
        """Return (E, N, J) what a copy at each node saves beside the others, in units."""
        sets = torch.stack([others & ~bit, others | bit], dim=1)  # (E, 2, N, J)
        rows = slot.kind[:, None, None].expand(-1, 2, nodes, -1)
        if table.dim() == 3:  # by what all see
            found = lookup(table, rows, sets)
        else:
            row = torch.arange(nodes, device=sets.device)[:, None] * table.shape[2] + rows
            found = lookup(table.flatten(1, 2), row, sets)
        return ((found[:, 0] - found[:, 1]) / unit).clamp(-MOST_SAVED, MOST_SAVED)

    own_cost, common = beliefs.cost[:, 1:], beliefs.cost[:, 0]
    planned = plan[:, None].expand(-1, nodes, -1)
    nobody = torch.zeros_like(planned)
    beside_plan = saved(own_cost, planned)
    # Where the block is: here, cached, planned, or foreseen by all; and who is seen to want it.
    here = ((held[:, None] & bit) != 0) & slot.real[:, None]
    cached_here = (cached[:, None] & bit) != 0
    planned_here = (planned & bit) != 0
    count = slot.member.float().sum(dim=1)
    foreseen = lookup(beliefs.foreseen.long(), slot.kind, seen_by_all(slot, cached))
    users = slot.requests.shape[1]
    asked = beliefs.asked.gather(2, slot.kind[:, None, :, None].expand(-1, nodes, -1, 2)) / users
    # How far the storage is filled by what saves more, and what the first byte outside saves.
    in_storages = (slot.size[:, None] / slot.storage[..., None].clamp(min=1.0)).float() * here
    order = torch.where(here, beside_plan, -torch.inf).argsort(dim=2, descending=True, stable=True)
    ordered = in_storages.gather(2, order)
    filled = torch.empty_like(in_storages).scatter_(2, order, ordered.cumsum(dim=2) - ordered)
    out = here & (filled + in_storages > 1.0)
    margin = torch.where(out, beside_plan, 0.0).amax(dim=2, keepdim=True)
    size_here = slot.size[:, None].float() * here
    average = (size_here * beside_plan).sum(dim=2, keepdim=True) / size_here.sum(
        dim=2, keepdim=True
    ).clamp(min=1.0)
    average = average.clamp(min=0.0)
    # The features of a block at the node, in the order of OWN.
    left = (slot.slots - slot.t - 1) / slot.slots
    own = torch.stack(
        [
            compressed(beside_plan),
            compressed(saved(own_cost, nobody)),
            compressed(saved(own_cost, seen_cached)),
            compressed(saved(own_cost, torch.full_like(planned, everybody))),
            compressed(saved(common, planned)),
            planned_here.float(),
            count[planned & ~bit] / nodes,
            cached_here.float(),
            count[seen_cached & ~bit] / nodes,
            (here & ~cached_here).float(),
            ((foreseen[:, None] & bit) != 0).float(),
            asked[..., 0],
            asked[..., 1],
            (slot.size[:, None] / slot.storage[..., None].clamp(min=1.0)).float().clamp(max=5.0),
            filled.clamp(max=3.0),
            compressed(beside_plan - margin),
            compressed(average).expand(-1, -1, blocks),
            torch.full_like(beside_plan, left),
        ],
        dim=3,
    )
    # The same of the block at each other node, in the order of NEIGHBOUR.
    near = near_nodes(nodes, cached.device)  # (N, N - 1)
    planned_there = (planned[:, :, None] >> near[..., None] & 1).float()  # (E, N, N - 1, J)
    cached_there = unpacked(cached, nodes)[:, near] & beliefs.seen.gather(
        2, near.expand(draws, -1, -1)
    ).unsqueeze(3)
    seen_there = beliefs.seen.gather(2, near.expand(draws, -1, -1))[..., None]
    its_copy = _saved_by_others(own_cost, slot, planned, near) / unit[..., None]
    neighbour = torch.stack(
        [
            planned_there,
            cached_there.float(),
            seen_there.float().expand_as(planned_there),
            compressed(its_copy),
        ],
        dim=4,
    ).transpose(2, 3)
    return Seen(own, neighbour, beside_plan, average * planned_here, here)


def compressed(saved: Tensor) -> Tensor:
    """Return savings on a scale that is linear near 0 and logarithmic beyond one unit."""
    return saved.sign() * torch.log1p(saved.abs())


def _saved_by_others(cost: Tensor, slot: Slot, planned: Tensor, near: Tensor) -> Tensor:
    """Return (E, N, N - 1, J) what a copy at each other node saves beside the plan, per byte.

    Parameters
    ----------
    cost
        (E, N, C, S) by what each node sees.
    slot
        The slot.
    planned
        (E, N, J) node sets.
    near
        (N, N - 1) the other nodes of each node.
    """
    nodes, kinds = slot.nodes, cost.shape[2]
    bit = (1 << near)[None, :, :, None]
    sets = torch.stack([planned[:, :, None] & ~bit, planned[:, :, None] | bit], dim=1)
    node = torch.arange(nodes, device=planned.device)[:, None, None]
    row = (node * kinds + slot.kind[:, None, None, None]).expand_as(sets)
    found = lookup(cost.flatten(1, 2), row, sets)
    return found[:, 0] - found[:, 1]


class ApartNetwork(nn.Module):
    """Residual of the saving, with a memory.

    Parameters
    ----------
    width, embedding, memory
        Of the hidden layer, the embeddings of neighbours, and the memory.
    action_semantics
        Inner products with what is seen of each neighbour; else their mean beside the rest.
    bonus
        Of a planned copy at the start, in units of what a byte here saves on average.
    """

    def __init__(
        self,
        width: int = 64,
        embedding: int = 16,
        memory: int = 32,
        *,
        action_semantics: bool = True,
        bonus: float = 0.2,
    ) -> None:
        super().__init__()
        self.memory = memory
        self.action_semantics = action_semantics
        self.neighbour = perceptron((len(NEIGHBOUR), embedding, embedding))
        self.own = nn.Linear(len(OWN) + 2 * embedding, width)
        self.context = nn.Linear(width, width)
        self.recall = nn.GRUCell(width, memory)
        self.head = nn.Linear(width + memory, width)
        self.alone = nn.Linear(width, 1)
        self.meets = nn.Linear(width, embedding, bias=False)
        for last in (self.alone, self.meets):
            for parameter in last.parameters():
                nn.init.zeros_(parameter)
        self.bonus = nn.Parameter(torch.tensor(bonus))

    def forward(self, seen: Seen, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores (E, N, J), in units, and the memory after the slot.

        Parameters
        ----------
        seen
            What all nodes see.
        memory
            (E, N, J, D) before the slot; 0 when an episode begins.
        """
        others = self.neighbour(seen.neighbour)  # (E, N, J, N - 1, d)
        if others.shape[-2]:
            near = torch.cat([others.mean(dim=-2), others.amax(dim=-2)], dim=-1)
        else:
            near = others.new_zeros((*others.shape[:-2], 2 * others.shape[-1]))
        first = torch.relu(self.own(torch.cat([seen.own, near], dim=-1)))
        # What the node has as a whole: the mean over the blocks that are here.
        weight = seen.may.float()[..., None]
        whole = (first * weight).sum(dim=2) / weight.sum(dim=2).clamp(min=1.0)
        h = self.heard(seen, torch.relu(first + self.context(whole)[:, :, None]), others)
        after = self.recall(h.flatten(0, 2), memory.flatten(0, 2)).reshape(memory.shape)
        h = torch.relu(self.head(torch.cat([h, after], dim=-1)))
        residual = self.alone(h)[..., 0]
        if self.action_semantics:
            inner = (others @ self.meets(h)[..., None])[..., 0] / math.sqrt(others.shape[-1])
            residual = residual + (inner * seen.neighbour[..., 0]).sum(dim=-1)
        return seen.saved + self.bonus * seen.bonus + residual, after

    def heard(self, seen: Seen, h: Tensor, others: Tensor) -> Tensor:
        """Return the states of the blocks (E, N, J, width) after what is heard of users: nothing.

        Parameters
        ----------
        seen
            What all nodes see.
        h
            (E, N, J, width).
        others
            (E, N, J, N - 1, d) embeddings of what each node sees of the others.
        """
        return h

    def begin(self, seen: Seen) -> Tensor:
        """Return the memory (E, N, J, D) when an episode begins."""
        return seen.saved.new_zeros((*seen.saved.shape, self.memory))
