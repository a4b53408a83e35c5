"""Values in hindsight: what a copy would have been worth, with every slot of the episode known.

    W_t(X) = lambda_t . X + [needed in t] min over l of [tau_l(X) + b_t(Q_l(X)) + A_t(Q_l(X))]
                          + [not needed] A_t(X),       A_t(Q) = min over X within Q of W_{t+1}(X)

W is per byte of every kind of block. lambda_t (N,) are the storage prices of the slots after the
first, whose caches are given. They come from subgradient steps on the Lagrangian dual

    sum_j size_j W_0(X_j) - sum over t >= 1 of lambda_t . storage    <= any feasible total delay

of all episodes at once. These are *privileged labels*: they use the requests and channels to come,
which no policy knows. They train a policy, and they are a yardstick:
`finecast.learners.world.lookahead.Planned` on them is the greedy method at hindsight prices.

`joint_hindsight_of` has other prices: those of the joint keep of every slot in the state that was
played. It goes backwards along a played episode, with Q_j the nodes that had block j after the
pulls of slot t,

    G_t(K) = min over l of [tau_l(K) + b_{t+1}(Q_l(K)) + U_{t+1}(Q_l(K))]    if needed in t + 1
    U_t(Q) = min over K within Q of [lambda_t . K + G_t(K)]
    lambda_t maximises the dual of the joint keep of slot t, by G_t, of what is there (Q_j)

and G_t = 0 after the last slot; where a block is not needed in t + 1, G_t = U_{t+1}.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finecast.learners.algorithms.set_values import (
    Rows,
    backup,
    joint_rents,
    unit_of,
    value_after,
)
from finecast.learners.world.environment import lookup, packed
from finecast.learners.world.episodes import Episodes
from finecast.learners.world.lookahead import Lookahead, best_subset, chosen_senders


@dataclass(frozen=True, eq=False)
class Hindsight:
    """Values of all slots, with the future known.

    Attributes
    ----------
    values
        `after` (E, T, C, S) is A_t, `cost` (E, T, C, S) is W_{t+1} less its rent, and `price`
        (E, T, 1, N) is lambda_{t+1}; seconds per byte, zero after the last slot.
    dual
        (E,) float64 lower bound on the total delay from these caches of slot 0, s, at the rates of
        the episodes; within float32 rounding.
    """

    values: Lookahead
    dual: Tensor


def hindsight_of(episodes: Episodes, *, steps: int = 60) -> Hindsight:
    """Return the values in hindsight at about the best storage prices.

    Parameters
    ----------
    episodes
        The draws.
    steps
        Subgradient steps, of lengths that fall as 1 / (1 + step / 4); the mean prices of their
        later half are used.
    """
    # Subgradient steps: prices rise where the paths of the programme need more than the storage.
    air, needed = _air(episodes)
    storage, cached = episodes.storage.float(), packed(episodes.start)
    price = storage.new_zeros((episodes.draws, episodes.slots, episodes.nodes))
    total = torch.zeros_like(price)
    most = _worth_of_a_byte(episodes, air, needed)
    for step in range(steps):
        run = _backwards(episodes, air, needed, price)
        excess = _bytes(episodes, run, needed, cached) - storage[:, None]
        excess[:, 0] = 0.0  # the caches of slot 0 are given
        length = (most / (1.0 + step / 4.0))[:, None, None]
        price = (price + length * excess / storage[:, None].clamp(min=1.0)).clamp(min=0.0)
        if step >= steps // 2:
            total += price
    # Values at the mean prices, and the dual.
    price = total / (steps - steps // 2)
    run = _backwards(episodes, air, needed, price)
    rent = _rent(episodes, price)
    cost = torch.zeros_like(run.after)
    cost[:, :-1] = (run.cost - rent)[:, 1:]
    coming = torch.zeros_like(price)
    coming[:, :-1] = price[:, 1:]
    cost_per_byte = lookup(run.cost[:, 0], episodes.kind, cached).double()
    paid = (price.double() * episodes.storage[:, None]).sum(dim=(1, 2))
    dual = (episodes.size * cost_per_byte).sum(dim=1) - paid
    return Hindsight(Lookahead(run.after, cost, coming[:, :, None]), dual)


def joint_hindsight_of(episodes: Episodes, held: Tensor) -> tuple[Tensor, Tensor]:
    """Return the values in hindsight at the prices of the joint keep of every played slot.

    Parameters
    ----------
    episodes
        The draws.
    held
        (E, T, J) int64 the nodes that had each block after the pulls of every slot.

    Returns
    -------
    U and G of every block, (E, T, J, S) each, seconds per byte; U with its rent, as `after` and
    `cost` of `Hindsight`.
    """
    afters: list[Tensor] = []
    costs: list[Tensor] = []
    cost = torch.zeros((*held[:, 0].shape, episodes.member.shape[0]), device=held.device)
    every = Rows.where(torch.ones_like(held[:, 0], dtype=torch.bool))
    unit = unit_of(episodes.slot(0)).float()[:, None, None]  # links are the same in all slots
    for t in reversed(range(episodes.slots)):
        slot = episodes.slot(t)
        after = value_after((cost + joint_rents(slot, held[:, t], cost)).flatten(0, 1))
        costs.insert(0, cost * unit)
        afters.insert(0, after.view(cost.shape) * unit)
        cost = backup(slot, after, every).view(cost.shape)
    return torch.stack(afters, dim=1), torch.stack(costs, dim=1)


@dataclass(frozen=True, eq=False)
class _Run:
    """(E, T, C, S): W, A, the sets kept from every set, and the senders from every cached set."""

    cost: Tensor
    after: Tensor
    kept: Tensor
    sender: Tensor


def _air(episodes: Episodes) -> tuple[Tensor, Tensor]:
    """Return (E, T, C, S) seconds per byte on the air, and (E, T, C) bool: the kind is needed.

    Blocks of a kind are in the same models, so in every slot they have the same user group.
    """
    kinds = int(episodes.need.shape[3])
    kind = episodes.kind[:, None].expand(episodes.group.shape)
    group = torch.full((*episodes.group.shape[:2], kinds), -1, device=kind.device)
    group = group.scatter_reduce(2, kind, episodes.group, "amax")
    row = group.clamp(min=0)[..., None].expand(-1, -1, -1, episodes.broadcast.shape[3])
    return episodes.broadcast.gather(2, row).float(), group >= 0


def _worth_of_a_byte(episodes: Episodes, air: Tensor, needed: Tensor) -> Tensor:
    """Return (E,) the largest mean over bytes, of any slot, of what copies everywhere save."""
    sender, seconds = episodes.chain_sender[:, 0], episodes.chain_time[:, 0].float()  # (E, L)
    index = sender[:, None, None].expand(*air.shape[:3], -1)
    levels = seconds[:, None, None] + air.gather(3, index)
    saved = torch.where(needed, levels.amin(dim=3) - air[..., -1], 0.0)
    size = torch.zeros_like(saved[:, 0]).scatter_add(1, episodes.kind, episodes.size.float())
    mean = (saved * size[:, None]).sum(dim=2) / size.sum(dim=1, keepdim=True)
    return mean.amax(dim=1)


def _backwards(episodes: Episodes, air: Tensor, needed: Tensor, price: Tensor) -> _Run:
    draws, slots, kinds, sets = air.shape
    levels = episodes.chain_sender.shape[2]
    senders = episodes.chain_sender.reshape(draws, 1, sets * levels).expand(-1, kinds, -1)
    times = episodes.chain_time.float()[:, None]
    rent = _rent(episodes, price)
    after: list[Tensor] = [torch.zeros_like(air[:, 0])]
    cost: list[Tensor] = []
    kept: list[Tensor] = []
    sender: list[Tensor] = []
    for t in reversed(range(slots)):
        charge = (air[:, t] + after[0]).gather(2, senders)
        best, level = (times + charge.view(draws, kinds, sets, levels)).min(dim=3)
        here = torch.where(needed[:, t, :, None], best, after[0]) + rent[:, t]
        sender.insert(0, chosen_senders(episodes.chain_sender, level))
        cost.insert(0, here)
        least, subset = best_subset(here)
        kept.insert(0, subset)
        after.insert(0, least)
    return _Run(*(torch.stack(rows, dim=1) for rows in (cost, after[1:], kept, sender)))


def _rent(episodes: Episodes, price: Tensor) -> Tensor:
    """Return (E, T, 1, S) lambda_t . X of every set."""
    return (price @ episodes.member.to(price.dtype).T)[:, :, None]


def _bytes(episodes: Episodes, run: _Run, needed: Tensor, cached: Tensor) -> Tensor:
    """Return (E, T, N) the bytes cached in every slot on the paths from the caches of slot 0."""
    size, member = episodes.size.float(), episodes.member.float()
    state, used = cached, []
    for t in range(episodes.slots):
        if t:
            state = lookup(run.kept[:, t], episodes.kind, state)
        used.append((member[state] * size[..., None]).sum(dim=1))
        moved = lookup(run.sender[:, t], episodes.kind, state)
        state = torch.where(needed[:, t].gather(1, episodes.kind), moved, state)
    return torch.stack(used, dim=1)
