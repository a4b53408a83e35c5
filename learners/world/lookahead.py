"""The dynamic programme of `finecast.solvers.heuristics.mpc` on many draws at once.

    W_s(X) = lambda_s . X + P_s min over l of [tau_l(X) + b_s(Q_l(X)) + A_s(Q_l(X))]
                          + (1 - P_s) A_s(X),      A_s(Q) = min over X within Q of W_{s+1}(X)

W_s(X) is the least expected cost of a byte from the coming slot s on, if the nodes X have it when
the slot begins. lambda are the prices of storage, P_s is the probability of need, tau_l and Q_l are
the migration time and the nodes of chain level l, and b_s is the expected time on the air.

Given the prices, W does not depend on the caches. `lookahead_of` computes it once for every slot of
the episodes, at the prices on the path of `mpc` itself. Learners then look it up. A copy of a block
at node n, given the other holders X, saves A(X) - A(X + n) at the end of a slot. `cost` gives the
same without the rent of the next slot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from finecast.learners.world.baselines import of_blocks, saving, savings
from finecast.learners.world.environment import (
    NodePolicy,
    Rollout,
    View,
    best_senders,
    deliver,
    keep_turns,
    packed,
    pull_by_level,
)
from finecast.learners.world.episodes import Episodes, Slot
from finecast.solvers.heuristics.mpc import ROUNDS, STEPS


@dataclass(frozen=True, eq=False)
class Lookahead:
    """Values of one slot, or with an axis T after E those of all slots.

    Attributes
    ----------
    after
        (E, C, S) A, seconds per byte: least cost of the coming slots, rent included, if these nodes
        have a block of the kind at the end of the slot. `pull_by_level(slot, cached, after)` gives
        the pulls of `mpc`.
    cost
        (E, C, S) W of the next slot less its rent, seconds per byte: cost of keeping in these
        nodes. `mpc` keeps by its marginals.
    price
        (E, H, N) storage prices lambda, seconds per byte.
    """

    after: Tensor
    cost: Tensor
    price: Tensor

    def slot(self, t: int) -> Lookahead:
        """Return the values of slot t."""
        return Lookahead(self.after[:, t], self.cost[:, t], self.price[:, t])

    def select(self, index: Tensor) -> Lookahead:
        """Return some of the draws."""
        return Lookahead(self.after[index], self.cost[index], self.price[index])

    def to(self, device: torch.device | str) -> Lookahead:
        """Return the same on another device."""
        return Lookahead(self.after.to(device), self.cost.to(device), self.price.to(device))


@dataclass(frozen=True, eq=False)
class Planned(NodePolicy):
    """A node policy that pulls and keeps by given values, as `mpc` does.

    Attributes
    ----------
    values
        Of all slots.
    """

    values: Lookahead

    def pull(self, view: View, n: int | None) -> Tensor:
        """Pull for all nodes by the levels that are best for this slot and the time after it."""
        return pull_by_level(view.slot, view.cached, self.values.after[:, view.slot.t])

    def keep(self, view: View, n: int | None) -> Tensor:
        """Score a block by what a copy saves, given what the others keep."""
        cost = self.values.cost[:, view.slot.t]
        return savings(view, cost) if n is None else saving(view, cost, n)

    def set_costs(self, view: View) -> Tensor:
        """Return the costs of the values, seconds per byte."""
        return of_blocks(view.slot, self.values.cost[:, view.slot.t])


@dataclass(frozen=True, eq=False)
class _KeepByCost(NodePolicy):
    """Keep by what a copy saves of `cost`, (E, C, S) seconds per byte; pull by the best levels."""

    cost: Tensor

    def pull(self, view: View, n: int | None) -> None:
        return None

    def keep(self, view: View, n: int | None) -> Tensor:
        return savings(view, self.cost) if n is None else saving(view, self.cost, n)


@dataclass(frozen=True, eq=False)
class _Programme:
    """Values and decisions of all coming slots; fields as in `solvers.heuristics.mpc.Values`."""

    cost: tuple[Tensor, ...]
    after: Tensor
    kept: tuple[Tensor, ...]
    sender: tuple[Tensor, ...]


def programme(slot: Slot, price: Tensor) -> Lookahead:
    """Run the dynamic programme of a slot.

    Parameters
    ----------
    slot
        The slot.
    price
        (E, H, N) seconds per byte, at least 0.
    """
    run = _backwards(slot, price)
    return Lookahead(run.after, run.cost[0] - _rent(slot, price[:, 0]), price)


def storage_prices(
    slot: Slot, cached: Tensor, *, steps: int = STEPS, start: Tensor | None = None
) -> Tensor:
    """Return prices (E, H, N) at which the expected bytes about fit the storage.

    Parameters
    ----------
    slot
        The slot.
    cached
        (E, J) int64 what is cached now.
    steps
        Subgradient steps.
    start
        (E, H, N) prices to start from; None for 0.
    """
    dtype = slot.need.dtype
    size, storage = slot.size.to(dtype), slot.storage.to(dtype)[:, None]
    price = slot.need.new_zeros((slot.draws, slot.horizon, slot.nodes)) if start is None else start
    total = torch.zeros_like(price)
    # The first step is about the greatest delay per byte that storage can save in a coming slot.
    kind = slot.kind[:, None].expand(-1, slot.horizon, -1)
    worth = (slot.worth[..., 0] - slot.worth[..., -1]).gather(2, kind)  # (E, H, J)
    most = (worth * size[:, None]).sum(dim=2).amax(dim=1) / size.sum(dim=1)
    for step in range(steps):
        run = _backwards(slot, price)
        excess = _expected_bytes(slot, run, cached, size) - storage
        length = (most / (1.0 + step / 4.0))[:, None, None]
        price = (price + length * excess / storage.clamp(min=1.0)).clamp(min=0.0)
        # Subgradient steps go to and fro: the mean of the second half is the price.
        if step >= steps // 2:
            total = total + price
    return total / (steps - steps // 2)


def mpc_marginals(
    slot: Slot, cached: Tensor, *, steps: int = STEPS, start: Tensor | None = None
) -> Lookahead:
    """Return the values at the prices that the caches lead to: `programme` at `storage_prices`.

    Parameters
    ----------
    slot, cached, steps, start
        As in `storage_prices`.
    """
    return programme(slot, storage_prices(slot, cached, steps=steps, start=start))


def lookahead_of(
    episodes: Episodes,
    *,
    steps: int = STEPS,
    warm_steps: int | None = None,
    callback: Callable[[int, int], None] | None = None,
) -> tuple[Lookahead, Rollout]:
    """Play `mpc`; return the values of all slots, (E, T, ...), and what was played.

    Parameters
    ----------
    episodes
        The draws.
    steps
        Subgradient steps in every slot.
    warm_steps
        Steps in all slots but the first, from the prices of the slot before. With None every slot
        takes `steps` steps from 0.
    callback
        It is called with the number of slots that are done and with T.
    """
    cache, price = episodes.start, None
    values, delays, caches, sources = [], [], [], []
    for t in range(episodes.slots):
        slot, cached = episodes.slot(t), packed(cache)
        if price is None or warm_steps is None:
            look = mpc_marginals(slot, cached, steps=steps)
        else:
            start = torch.cat([price[:, 1:], price[:, -1:]], dim=1)  # the horizon moves on by one
            look = mpc_marginals(slot, cached, steps=warm_steps, start=start)
        price = look.price
        delivery = deliver(slot, cached, pull_by_level(slot, cached, look.after))
        view = View(slot, cached, delivery.sender, torch.zeros_like(cached), keeping=True)
        values.append(look)
        delays.append(delivery.delay)
        caches.append(cache)
        sources.append(delivery.source.to(torch.int8))
        cache = keep_turns(view, _KeepByCost(look.cost), ROUNDS)
        if callback is not None:
            callback(t + 1, episodes.slots)
    after, cost, prices = (
        torch.stack([getattr(look, name) for look in values], dim=1)
        for name in ("after", "cost", "price")
    )
    played = Rollout(torch.stack(delays, 1), torch.stack(caches, 1), torch.stack(sources, 1))
    return Lookahead(after, cost, prices), played


def _backwards(slot: Slot, price: Tensor) -> _Programme:
    """Run the recursion from the last coming slot to the first, at prices (E, H, N)."""
    draws, sets, levels = slot.chain_sender.shape
    senders = slot.chain_sender.reshape(draws, 1, sets * levels)
    senders = senders.expand(-1, slot.need.shape[2], -1)
    times = slot.chain_time.to(price.dtype)[:, None]
    after = torch.zeros_like(slot.air[:, 0])
    cost: list[Tensor] = []
    kept: list[Tensor] = []
    sender: list[Tensor] = []
    for s in reversed(range(slot.horizon)):
        # Of every cached set: the best level if the kind is needed, and the cost of both cases.
        charge = (slot.air[:, s] + after).gather(2, senders)
        needed, level = (times + charge.reshape(*charge.shape[:2], sets, levels)).min(dim=3)
        chance = slot.need[:, s, :, None]
        here = _rent(slot, price[:, s]) + after + chance * (needed - after)
        sender.insert(0, chosen_senders(slot.chain_sender, level))
        # What to keep of every set before slot s: the best of its subsets.
        after, subset = best_subset(here)
        cost.insert(0, here)
        kept.insert(0, subset)
    return _Programme(tuple(cost), after, tuple(kept), tuple(sender))


def _rent(slot: Slot, price: Tensor) -> Tensor:
    """Return (E, 1, S) lambda . X of every set, from prices (E, N)."""
    return (price @ slot.member.to(price.dtype).T)[:, None]


def chosen_senders(chain_sender: Tensor, level: Tensor) -> Tensor:
    """Return (E, C, S) Q_l(X) of the chosen levels (E, C, S)."""
    return chain_sender.gather(2, level.transpose(1, 2)).transpose(1, 2)


def best_subset(cost: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least cost over all subsets of every set, and that subset, (E, C, S) each."""
    least = cost.clone()
    subset = torch.arange(cost.shape[2], device=cost.device).expand(cost.shape).clone()
    bit, shape = 1, cost.shape[:2]
    while bit < cost.shape[2]:
        # The sets in pairs: without the node of this bit, and with it.
        pair = least.view(*shape, -1, 2, bit)
        pair_subset = subset.view(*shape, -1, 2, bit)
        leave_out = pair[:, :, :, 0] <= pair[:, :, :, 1]
        pair[:, :, :, 1] = torch.where(leave_out, pair[:, :, :, 0], pair[:, :, :, 1])
        pair_subset[:, :, :, 1] = torch.where(
            leave_out, pair_subset[:, :, :, 0], pair_subset[:, :, :, 1]
        )
        bit *= 2
    return least, subset


def _expected_bytes(slot: Slot, run: _Programme, cached: Tensor, size: Tensor) -> Tensor:
    """Return (E, H, N) the bytes that every node is expected to hold in the coming slots."""
    draws, kinds, sets = run.after.shape
    sender = best_senders(slot, cached, run.after)
    mass = size.new_zeros((draws, kinds * sets))
    mass = mass.scatter_add(1, slot.kind * sets + sender, size).view(draws, kinds, sets)
    member = slot.member.to(size.dtype)
    used = []
    # Bytes of every kind by the set that has them: they go where the programme's decisions say.
    for s in range(slot.horizon):
        held = torch.zeros_like(mass).scatter_add_(2, run.kept[s], mass)
        used.append(held.sum(dim=1) @ member)
        moved = slot.need[:, s, :, None] * held
        mass = (held - moved).scatter_add_(2, run.sender[s], moved)
    return torch.stack(used, dim=1)
