"""The environment: it plays many draws at once, with exactly the delays of the judge.

In slot t, with the caches X of every block (docs/formulation.md sections 2, 3 and 6):

1. Pull. Every node names a source for every block. A source that is not allowed is projected to
   nothing: nobody needs the block, the node has it, the source has it not, or there is no link. A
   needed block may then be at nodes that cannot serve its users. It comes by the best chain level
   instead.
2. Delay. Block j takes size_j (slowest migration + broadcast[group_j, Q_j]) seconds, where Q_j is
   X_j and the nodes that receive the block.
3. Keep. Every node gives every block a score. Of the blocks that it has, it takes those of positive
   score in falling order (of equal scores the first block) and keeps each one that still fits. With
   `joint = "exact"`, a policy that has costs of node sets (`SetValued`) keeps by the joint rule
   instead (`finecast.learners.world.joint`), which starts from what the nodes chose. With
   "batched", what is kept is planned for all draws at once, and the nodes decide but once, each
   knowing what all others are to keep.

Nodes decide all at once, or in turn, where each sees what those before it chose. All functions are
pure: they take and return tensors, and nothing is random. They know the sequential schedule alone.
In a pipelined schedule the delay is no sum over blocks, and `finecast.learners.world.draws` refuses
it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from finecast.learners.world.episodes import Episodes, Slot
from finecast.learners.world.joint import keep_by_sets, plan_by_sets
from finecast.solvers.placement.problem import Placement

JointRule = Literal["", "exact", "batched"]
"""No joint rule; that of `finecast solve`; or that of training, for many draws at once."""


@dataclass(frozen=True, eq=False)
class View:
    """What the nodes see when they decide; node sets are bit masks.

    Attributes
    ----------
    slot
        What is known in the slot.
    cached
        (E, J) int64 nodes that hold each block when the slot begins.
    held
        (E, J) int64 nodes that hold it or have so far decided to receive it. When the nodes choose
        what to keep, all of them have received it.
    kept
        (E, J) int64 nodes that have so far decided to keep it; 0 while the nodes pull.
    decided
        Bit mask of the nodes that have decided in this round of this stage.
    in_turn
        The nodes decide in turn, else all at once.
    keeping
        The nodes choose what to keep, else what to pull.
    """

    slot: Slot
    cached: Tensor
    held: Tensor
    kept: Tensor
    decided: int = 0
    in_turn: bool = True
    keeping: bool = False

    @property
    def holders(self) -> Tensor:
        """(E, J) the nodes that count as holders.

        While the nodes pull, these are the nodes that have the block or are to receive it. While
        they keep in turn, these are the nodes that have decided to keep it. While they keep all at
        once, these are the nodes that have it.
        """
        return self.kept if self.keeping and self.in_turn else self.held

    @property
    def last(self) -> bool:
        """Nothing comes after the slot."""
        return self.slot.t == self.slot.slots - 1

    def others(self, n: int) -> Tensor:
        """Return (E, J) the nodes other than n that count as holders."""
        return self.holders & ~(1 << n)


class NodePolicy(Protocol):
    """What every node does. In `pull` and `keep`, n is the node that decides, None for all."""

    def begin(self, view: View) -> None:
        """Take note of a new stage: called once before the nodes pull, and once before they keep.

        What all turns of the stage share is computed here. The default does nothing.
        """
        return

    def pull(self, view: View, n: int | None) -> Tensor | None:
        """Return sources (E, J), or (E, N, J) for all: -1 nothing, n' a node, N the cloud.

        In turn too, node 0 may answer for all nodes, with (E, N, J) or with None. After None,
        every needed block comes by the best chain level of the slot.
        """

    def keep(self, view: View, n: int | None) -> Tensor:
        """Return scores (E, J), or (E, N, J) for all; positive ones may be kept."""


@runtime_checkable
class SetValued(Protocol):
    """A node policy that knows what every set of nodes that keeps a block costs."""

    def set_costs(self, view: View) -> Tensor:
        """Return (E, J, S) what the time after the slot costs if a set of nodes keeps the block.

        It is asked once a slot, after the nodes have chosen what to keep, or by the batched rule
        after `begin`; per byte, in any unit. It is not asked in the last slot.
        """


@dataclass(frozen=True, eq=False)
class Delivery:
    """What the pulls come to.

    Attributes
    ----------
    source
        (E, N, J) int64 sources after the projection.
    sender
        (E, J) int64 the node sets Q that have each block at the end of the slot.
    migration, broadcast
        (E, J) float64 s, zero where nobody needs the block.
    """

    source: Tensor
    sender: Tensor
    migration: Tensor
    broadcast: Tensor

    @property
    def delay(self) -> Tensor:
        """(E, J) float64 s; its sum over blocks is the slot delay."""
        return self.migration + self.broadcast


@dataclass(frozen=True, eq=False)
class Rollout:
    """All slots of E draws.

    Attributes
    ----------
    delay
        (E, T, J) float64 s.
    cache
        (E, T, N, J) bool caches at the beginning of every slot.
    source
        (E, T, N, J) int8 sources.
    """

    delay: Tensor
    cache: Tensor
    source: Tensor

    @property
    def total(self) -> Tensor:
        """(E,) float64 total delay D, s."""
        return self.delay.sum(dim=(1, 2))


def deliver(slot: Slot, cached: Tensor, source: Tensor | None) -> Delivery:
    """Project the pulls onto what is allowed, and return the delay of every block.

    Parameters
    ----------
    slot
        The slot.
    cached
        (E, J) int64 nodes that hold each block.
    source
        (E, N, J) int64; None for the best chain levels.
    """
    nodes = torch.arange(slot.nodes, device=cached.device)[:, None]
    best = lookup(slot.best_sender, slot.group, cached).long()
    # Who has each block at the end of the slot, and which blocks come by their best level.
    if source is None:
        sender = torch.where(slot.needed, best, cached)
        chosen = torch.full((1, 1, 1), -1, device=cached.device)
        projected = slot.needed
    else:
        chosen = allowed_sources(slot, cached, source)
        sender = cached | ((chosen >= 0) << nodes).sum(dim=1)
        served = lookup(slot.broadcast, slot.group, sender) < torch.inf
        projected = slot.needed & ~served
        sender = torch.where(projected, best, sender)
    # Receivers of a projected block take their fastest sources.
    fastest = rows(slot.fastest, cached).transpose(1, 2)
    receives = ((sender & ~cached)[:, None] >> nodes & 1).bool()
    chosen = torch.where(projected[:, None], torch.where(receives, fastest, -1), chosen)
    # A block is on the air when its slowest migration is over, from all nodes that have it.
    seconds = slot.link.transpose(1, 2).gather(2, chosen.clamp(min=0))
    slowest = torch.where(chosen >= 0, seconds, 0.0).amax(dim=1)
    air = torch.where(slot.needed, lookup(slot.broadcast, slot.group, sender), 0.0)
    return Delivery(chosen, sender, slot.size * slowest, slot.size * air)


def allowed_sources(slot: Slot, cached: Tensor, source: Tensor) -> Tensor:
    """Return the sources with -1 in place of every one that is not allowed.

    Parameters
    ----------
    slot
        The slot.
    cached
        (E, J) int64 nodes that hold each block.
    source
        (E, N, J) int64.
    """
    nodes = torch.arange(slot.nodes, device=cached.device)[:, None]
    in_range = (source >= 0) & (source <= slot.nodes)
    origin = source.clamp(0, slot.nodes)
    holders = (cached | 1 << slot.nodes)[:, None]
    allowed = (
        in_range
        & slot.needed[:, None]
        & ((holders >> origin & 1) == 1)
        & ((holders >> nodes & 1) == 0)
        & (slot.link.transpose(1, 2).gather(2, origin) < torch.inf)
    )
    return torch.where(allowed, source, -1)


def pull_by_level(slot: Slot, cached: Tensor, after: Tensor) -> Tensor:
    """Return the sources (E, N, J) by which the blocks reach the nodes of `best_senders`.

    Parameters
    ----------
    slot, cached, after
        As in `best_senders`.
    """
    return fastest_sources(slot, cached, best_senders(slot, cached, after))


def best_senders(slot: Slot, cached: Tensor, after: Tensor) -> Tensor:
    """Return (E, J) int64 nodes that have each block at the end of the slot, best in the long run.

    The level of block j minimises tau_l(X) + broadcast(Q_l(X)) + after_j(Q_l(X)). A block that
    nobody needs stays where it is.

    Parameters
    ----------
    slot
        The slot.
    cached
        (E, J) int64 X.
    after
        (E, C, S) seconds per byte: what the time after the slot costs for every node set that has
        a block of the kind at the end of the slot.
    """
    sender = rows(slot.chain_sender, cached)  # (E, J, L)
    group, kind = slot.group[..., None], slot.kind[..., None]
    seconds = rows(slot.chain_time, cached) + lookup(slot.broadcast, group, sender)
    level = (seconds + lookup(after, kind, sender)).argmin(dim=2, keepdim=True)
    return torch.where(slot.needed, sender.gather(2, level)[..., 0], cached)


def fastest_sources(slot: Slot, cached: Tensor, sender: Tensor) -> Tensor:
    """Return the fastest sources (E, N, J) by which the cached sets become the sending sets.

    Parameters
    ----------
    slot
        The slot.
    cached, sender
        (E, J) int64 node sets, cached within sender.
    """
    nodes = torch.arange(slot.nodes, device=cached.device)[:, None]
    receives = ((sender & ~cached)[:, None] >> nodes & 1).bool()
    return torch.where(receives, rows(slot.fastest, cached).transpose(1, 2), -1)


def keep_by_score(size: Tensor, storage: Tensor, held: Tensor, score: Tensor) -> Tensor:
    """Return (B, J) bool, what is kept: the positive scores in falling order, each that fits.

    Parameters
    ----------
    size
        (B, J) float64 byte.
    storage
        (B,) float64 byte.
    held
        (B, J) bool, what there is to keep.
    score
        (B, J) real; NaN counts as not wanted.
    """
    wanted = held & (score > 0)
    if len(storage) == 1:  # one draw, a decision to take: plain numbers are faster
        return _keep_of_one(size[0], float(storage), wanted[0], score[0])[None]
    # Column j of `order` is the block that comes j-th; no row has more than `longest` wanted ones.
    longest = int(wanted.sum(dim=1).max()) if wanted.numel() else 0
    order = torch.where(wanted, score, -torch.inf).sort(dim=1, descending=True, stable=True)[1]
    order = order[:, :longest]
    ordered_size = torch.where(wanted, size, torch.inf).gather(1, order).T.contiguous()
    # As long as every wanted block of every row fits, they are taken at once.
    fits = ordered_size < torch.inf
    used = torch.where(fits, ordered_size, 0.0).cumsum(dim=0)
    first = int((used <= storage).all(dim=1).long().cumprod(dim=0).sum())
    free = storage - used[first - 1] if first else storage
    # Then all rows go through their blocks side by side, and each takes what still fits.
    for block_size, taken in zip(ordered_size[first:], fits[first:], strict=True):
        torch.le(block_size, free, out=taken)
        free = torch.where(taken, free - block_size, free)
    return torch.zeros_like(held).scatter_(1, order, fits.T)


def _keep_of_one(size: Tensor, free: float, wanted: Tensor, score: Tensor) -> Tensor:
    """Return (J,) bool, `keep_by_score` of one row with `free` bytes of storage."""
    blocks = wanted.cpu().numpy().nonzero()[0]
    falling = blocks[(-score.detach().cpu().numpy()[blocks]).argsort(kind="stable")]
    kept = []
    for block, block_size in zip(
        falling.tolist(), size.cpu().numpy()[falling].tolist(), strict=True
    ):
        if block_size <= free:
            free -= block_size
            kept.append(block)
    keep = torch.zeros_like(wanted)
    keep[kept] = True
    return keep


def pull_turns(view: View, policy: NodePolicy) -> Tensor | None:
    """Return the sources (E, N, J) that the nodes choose; None for the best chain levels.

    Parameters
    ----------
    view
        At the beginning of the slot.
    policy
        What every node does.
    """
    policy.begin(view)
    if not view.in_turn:
        return policy.pull(view, None)
    sources = []
    for n in range(view.slot.nodes):
        source = policy.pull(view, n)
        if source is None or source.dim() == 3:  # the node answers for all
            return source
        sources.append(source)
        received = _allowed_of(view, source, n) << n
        view = replace(view, held=view.held | received, decided=view.decided | 1 << n)
    return torch.stack(sources, dim=1)


def keep_turns(view: View, policy: NodePolicy, rounds: int = 1) -> Tensor:
    """Return (E, N, J) bool, what the nodes keep.

    Parameters
    ----------
    view
        When all blocks are delivered.
    policy
        What every node does.
    rounds
        How often every node decides in turn, from the second time on knowing what all chose.
    """
    slot = view.slot
    held = unpacked(view.held, slot.nodes)
    policy.begin(view)
    if not view.in_turn:
        score = policy.keep(view, None)
        size = slot.size[:, None].expand(held.shape)
        keep = keep_by_score(
            size.reshape(-1, slot.blocks),
            slot.storage.reshape(-1),
            held.reshape(-1, slot.blocks),
            score.reshape(-1, slot.blocks),
        )
        return keep.reshape(held.shape)
    keep = torch.zeros_like(held)
    for turn in range(rounds * slot.nodes):
        n = turn % slot.nodes
        decided = view.decided if n else 0  # nobody has decided when a round begins
        view = replace(view, decided=decided)
        keep[:, n] = keep_by_score(slot.size, slot.storage[:, n], held[:, n], policy.keep(view, n))
        kept = view.others(n) | keep[:, n].long() << n
        view = replace(view, kept=kept, decided=decided | 1 << n)
    return keep


def keep_slot(view: View, policy: NodePolicy, *, rounds: int = 1, joint: JointRule = "") -> Tensor:
    """Return (E, N, J) bool, what is kept by the rule of the nodes or by the joint rule.

    Parameters
    ----------
    view
        When all blocks are delivered.
    policy, rounds, joint
        As in `roll`.
    """
    slot = view.slot
    if not joint or not isinstance(policy, SetValued) or view.last:
        return keep_turns(view, policy, rounds)
    held = unpacked(view.held, slot.nodes)
    if joint == "batched":
        policy.begin(view)
        return _keep_planned(slot, held, policy.set_costs(view))
    keep = keep_turns(view, policy, rounds)
    return keep_by_sets(slot, held, policy.set_costs(view), keep)


def _keep_planned(slot: Slot, held: Tensor, cost: Tensor) -> Tensor:
    """Return (E, N, J) bool: the plan of the batched joint rule, then a round of the nodes."""
    kept = plan_by_sets(slot, packed(held), cost)
    for n in range(slot.nodes):
        others = kept & ~(1 << n)
        pair = cost.gather(2, torch.stack([others, others | 1 << n], dim=2))
        # What saves nothing is kept where there is room after all others.
        saved = (pair[..., 0] - pair[..., 1]).clamp(min=torch.finfo(cost.dtype).tiny)
        keep = keep_by_score(slot.size, slot.storage[:, n], held[:, n], saved)
        kept = others | keep.long() << n
    return unpacked(kept, slot.nodes)


def step(
    slot: Slot,
    cache: Tensor,
    policy: NodePolicy,
    *,
    in_turn: bool = True,
    rounds: int = 1,
    joint: JointRule = "",
) -> tuple[Delivery, Tensor]:
    """Play one slot; return what was delivered and the next caches (E, N, J).

    Parameters
    ----------
    slot
        The slot.
    cache
        (E, N, J) bool.
    policy, in_turn, rounds, joint
        As in `roll`.
    """
    cached = packed(cache)
    view = View(slot, cached, cached, torch.zeros_like(cached), in_turn=in_turn)
    delivery = deliver(slot, cached, pull_turns(view, policy))
    view = replace(view, held=delivery.sender, keeping=True, decided=0)
    return delivery, keep_slot(view, policy, rounds=rounds, joint=joint)


def roll(
    episodes: Episodes,
    policy: NodePolicy,
    *,
    in_turn: bool = True,
    rounds: int = 1,
    joint: JointRule = "",
    start: Tensor | None = None,
    watch: Callable[[int, Tensor, Delivery, Tensor], None] | None = None,
) -> Rollout:
    """Play all slots of all draws.

    Parameters
    ----------
    episodes
        The draws.
    policy
        What every node does.
    in_turn
        Nodes decide one after another, else all at once.
    rounds
        How often every node decides what to keep, where they decide in turn.
    joint
        The joint rule that chooses what is kept, if the policy is `SetValued`; else the rule of
        the nodes, as with "".
    start
        (E, N, J) bool caches of slot 0; None for those of the episodes.
    watch
        It is called after every slot with t, the caches (E, N, J), the delivery and the next
        caches.
    """
    cache = episodes.start if start is None else start
    delays, caches, sources = [], [], []
    for t in range(episodes.slots):
        delivery, keep = step(
            episodes.slot(t), cache, policy, in_turn=in_turn, rounds=rounds, joint=joint
        )
        if watch is not None:
            watch(t, cache, delivery, keep)
        delays.append(delivery.delay)
        caches.append(cache)
        sources.append(delivery.source.to(torch.int8))
        cache = keep
    return Rollout(torch.stack(delays, 1), torch.stack(caches, 1), torch.stack(sources, 1))


def placement_of(episodes: Episodes, rollout: Rollout, draw: int) -> Placement:
    """Return one draw of a rollout as a placement, without padding.

    Parameters
    ----------
    episodes, rollout
        The draws and what was played.
    draw
        Index e.
    """
    blocks = int(episodes.block_count[draw])
    cache = rollout.cache[draw, :, :, :blocks].cpu().numpy()
    return Placement(cache, rollout.source[draw, :, :, :blocks].cpu().numpy().astype("int64"))


def lookup(table: Tensor, row: Tensor, sets: Tensor) -> Tensor:
    """Return table[e, row, set] for rows (E, ...) and node sets (E, ...); row -1 gives row 0.

    Parameters
    ----------
    table
        (E, R, S).
    row, sets
        (E, ...) int64, of shapes that broadcast.
    """
    index = row.clamp(min=0) * table.shape[2] + sets
    return table.flatten(1).gather(1, index.flatten(1)).reshape(index.shape)


def rows(table: Tensor, sets: Tensor) -> Tensor:
    """Return table[e, set], (E, J, L), from a table (E, S, L) and node sets (E, J)."""
    index = sets[..., None].expand(*sets.shape, table.shape[2])
    return table.gather(1, index)


def packed(cache: Tensor) -> Tensor:
    """Return (E, J) int64 node sets from (E, N, J) bool."""
    nodes = torch.arange(cache.shape[1], device=cache.device)[:, None]
    return (cache.long() << nodes).sum(dim=1)


def unpacked(sets: Tensor, nodes: int) -> Tensor:
    """Return (E, N, J) bool from (E, J) node sets."""
    return (sets[:, None] >> torch.arange(nodes, device=sets.device)[:, None] & 1).bool()


def near_nodes(nodes: int, device: torch.device) -> Tensor:
    """Return (N, N - 1) int64, the other nodes of every node in the order of their numbers."""
    near = [m for n in range(nodes) for m in range(nodes) if m != n]
    return torch.tensor(near, dtype=torch.int64, device=device).reshape(nodes, nodes - 1)


def _allowed_of(view: View, source: Tensor, n: int) -> Tensor:
    """Return (E, J) 0 or 1: node n receives the block from the source it names."""
    slot = view.slot
    origin = source.clamp(0, slot.nodes)
    linked = slot.link[:, :, n].gather(1, origin) < torch.inf
    only_there = (view.cached | 1 << slot.nodes) >> origin & ~(view.cached >> n) & 1
    return only_there * (linked & slot.needed & (source == origin))
