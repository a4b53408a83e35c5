"""The joint keep rule on episodes: from the costs of node sets to caches that fit.

`finecast.solvers.heuristics.joint_keep` chooses for all blocks and nodes of a slot at once. There
are two ways to have its choice for a batch of draws:

`keep_by_sets` is that rule itself, one draw after another: what is played.

`plan_by_sets` is for training. It goes through all draws side by side, in three steps:

1. Prices of storage: a few Newton steps on the smoothed dual of that module, at one temperature T.
2. Every block has a regret: by how much its second best set costs more than its best one at these
   prices. Blocks of great regret come first.
3. In that order, each block takes the best set at the prices that still fits.

What it leaves free is filled by a round of the nodes in turn, who see what all others are to keep
(`finecast.learners.world.environment.step`). Bytes are exact, and nothing is random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from finecast.learners.world.episodes import Slot
from finecast.solvers.heuristics.joint_keep import keep_jointly

PLAN = (0.2, 0.2)
"""Temperatures of the Newton steps of a plan, in units of the mean range of a block's costs."""

DUAL = (1.0, 0.5, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.005)
"""Temperatures of the steps to prices that are about the best of the dual."""

LEAST_LOG = -80.0
"""Least logarithm of a chance: the exponential of minus infinity takes four times as long."""

FIRST_PRICE = 0.5
"""Where the prices of storage start, in units of the mean range per mean size of a block."""


def keep_by_sets(slot: Slot, held: Tensor, cost: Tensor, start: Tensor | None = None) -> Tensor:
    """Return what is kept, (E, N, J) bool: of least cost among all that fits, or nearly so.

    Parameters
    ----------
    slot
        The slot.
    held
        (E, N, J) bool, what there is to keep.
    cost
        (E, J, S) what the time after the slot costs for every set of nodes that keeps the block,
        per byte, in any unit.
    start
        (E, N, J) bool, answers that fit, of which none gets worse; None for none.
    """
    size, storage, there = (
        tensor.detach().cpu().numpy() for tensor in (slot.size, slot.storage, held)
    )
    tables = cost.detach().to(torch.float64).cpu().numpy()
    begin = None if start is None else start.detach().cpu().numpy()
    keep = np.zeros_like(there)
    for draw in range(slot.draws):
        keep[draw] = keep_jointly(
            tables[draw],
            there[draw],
            size[draw].astype(np.int64),
            storage[draw].astype(np.int64),
            start=None if begin is None else begin[draw],
        ).keep
    return torch.from_numpy(keep).to(held.device)


def plan_by_sets(slot: Slot, held: Tensor, cost: Tensor) -> Tensor:
    """Return the nodes that are to keep each block, (E, J) int64 node sets that fit.

    Parameters
    ----------
    slot
        The slot.
    held
        (E, J) int64 the nodes that have each block.
    cost
        (E, J, S) as in `keep_by_sets`, finite.
    """
    within, charge, weight, room, unit = _scaled(slot, held, cost)
    price = _newton(charge, weight, room, slot.member.float(), PLAN)[-1]
    # The order of the blocks: those that lose most if they do not get their best set.
    priced = charge.addcmul_((slot.member.float() @ price.T)[..., None], weight)
    best = priced.amin(dim=0)
    regret = torch.where(priced > best, priced, torch.inf).amin(dim=0) - best
    some = within != 0
    order = torch.where(some, regret, -1.0).argsort(dim=1, descending=True, stable=True)
    order = order[:, : int(some.sum(dim=1).max())]
    # All draws go through their blocks side by side, (J', E, ...) in that order.
    row = (order + slot.blocks * torch.arange(slot.draws, device=held.device)[:, None]).T
    sets = torch.arange(1 << slot.nodes, device=held.device)
    too_much = torch.where((sets & ~sets[:, None]) != 0, torch.inf, 0.0)  # by what fits, of sets
    rented = cost.float() + (unit * price @ slot.member.float().T)[:, None]
    rented += too_much.index_select(0, within.flatten()).view(rented.shape)
    rented, size = (
        values.flatten(0, 1).index_select(0, row.flatten()).view(*row.shape, -1)
        for values in (rented, slot.size[..., None])
    )
    member = slot.member.double()
    # As long as every block of every draw still fits where it is best, they go at once.
    chosen = rented.argmin(dim=2)
    used = (member[chosen] * size).cumsum(dim=0)
    all_fit = (used <= slot.storage).flatten(1).all(dim=1).long()
    first = int(all_fit.cumprod(dim=0).sum())
    free = slot.storage - used[first - 1] if first else slot.storage
    # Then one after another.
    bits, fitting = (1 << torch.arange(slot.nodes, device=held.device)).double(), free.clone()
    for block_cost, block_size, choice in zip(
        rented[first:], size[first:], chosen[first:], strict=True
    ):
        fits = (torch.ge(free, block_size, out=fitting) @ bits).long()
        torch.argmin(block_cost + too_much.index_select(0, fits), dim=1, out=choice)
        free = torch.addcmul(free, member.index_select(0, choice), block_size, value=-1.0)
    return torch.zeros_like(held).scatter_(1, order, chosen.T)


def joint_prices(slot: Slot, held: Tensor, cost: Tensor) -> Tensor:
    """Return prices of storage (E, N) that are about the best of the dual, in the unit of the cost.

    Parameters
    ----------
    slot, held, cost
        As in `plan_by_sets`.
    """
    _, charge, weight, room, unit = _scaled(slot, held, cost)
    member = slot.member.float()
    prices = torch.stack(_newton(charge, weight, room, member, DUAL))  # (steps, E, N)
    duals = [
        torch.addcmul(charge, (member @ price.T)[..., None], weight).amin(dim=0).sum(dim=1)
        - (price * room).sum(dim=1)
        for price in prices
    ]
    best = torch.stack(duals).argmax(dim=0)
    return prices[best, torch.arange(len(best), device=best.device)] * unit


def roomy(slot: Slot) -> Tensor:
    """Return (E, J) int64 the nodes whose storage has room for each block."""
    nodes = torch.arange(slot.nodes, device=slot.size.device)[:, None]
    return ((slot.size[:, None] <= slot.storage[..., None]).long() << nodes).sum(dim=1)


def _scaled(
    slot: Slot, held: Tensor, cost: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the problem in units of its own, float32.

    Returns
    -------
    The sets (E, J) of nodes that can keep each block; charges (S, E, J), in units of their mean
    range, infinite for all but subsets of these; sizes (E, J) and storage (E, N), in mean sizes;
    and the price (E, 1) that is 1 in these units.
    """
    within = torch.where(slot.real, held & roomy(slot), 0)
    some = within != 0
    count = some.sum(dim=1, keepdim=True).clamp(min=1)
    mean_size = torch.where(some, slot.size, 0.0).sum(dim=1, keepdim=True) / count
    mean_size = mean_size.clamp(min=1.0)
    weight, room = (slot.size / mean_size).float(), (slot.storage / mean_size).float()
    # Sets come first in memory too: all that follows runs along blocks, several times faster.
    charge = cost.permute(2, 0, 1).float().contiguous() * weight
    sets = torch.arange(len(charge), device=held.device).to(torch.uint8)[:, None, None]
    outside = (sets & ~within.to(torch.uint8)).bool()
    low = charge.masked_fill_(outside, torch.inf).amin(dim=0)
    high = torch.where(outside, -torch.inf, charge).amax(dim=0)
    unit = torch.where(some, high - low, 0.0).sum(dim=1, keepdim=True) / count
    charge = charge.div_(torch.where(unit > 0, unit, 1.0))
    return within, charge, weight, room, unit


def _newton(
    charge: Tensor, weight: Tensor, room: Tensor, member: Tensor, temperatures: Sequence[float]
) -> list[Tensor]:
    """Return prices (E, N), after each of the Newton steps of the smoothed dual.

    Parameters
    ----------
    charge
        (S, E, J).
    weight, room
        (E, J) and (E, N) sizes and storage.
    member
        (S, N) 0.0 or 1.0.
    temperatures
        T, one of each step.
    """
    nodes = member.shape[1]
    pairs = (member[:, :, None] * member[:, None]).flatten(start_dim=1)
    prices, price = [], torch.full_like(room, FIRST_PRICE)
    for temperature in temperatures:
        # The chance of every set, and the mean and covariance of the bytes at every node.
        chance = torch.addcmul(charge, (member @ price.T)[..., None], weight)
        chance = chance.sub_(chance.amin(dim=0)).mul_(-1.0 / temperature)
        chance = chance.clamp_(min=LEAST_LOG).exp_()
        chance = chance.mul_(weight / chance.sum(dim=0))
        mean = (member.T @ chance.flatten(1)).view(nodes, *weight.shape).transpose(0, 1)
        square = chance.mul_(weight).sum(dim=2).T @ pairs
        covariance = square.view(-1, nodes, nodes) - mean @ mean.transpose(1, 2)
        # A Newton step with a barrier at 0; it never more than triples a price.
        slope = mean.sum(dim=2) - room + temperature / price
        curve = covariance / temperature + torch.diag_embed(temperature / price**2)
        step = torch.linalg.solve(curve.double(), slope.double()).float()
        price = torch.minimum(torch.maximum(price + step, 0.1 * price), 3.0 * price)
        prices.append(price)
    return prices
