"""The terms of the statement on convergence (docs/learning-theory.md), to be measured or tested.

The loss of the actors (`finecast.learners.algorithms.lessons`) has, over its noise, the gradient

    M_tau(z) (z + c),     M_tau(z) = E[M_0(z + tau G')],     M_0(z) = diag(pi) - pi pi^T

in the logits z of a row with costs c. It is linear in c. So every error of the costs has an effect
of its own on the gradient, and a mean of single futures may take the place of expected costs:
`followed` gives what one future costs for all node sets, `cost_changes` what that does to the costs
of actions. What the critic decides there (the sets that it would keep, the level, the block at the
margin) stays as it was, because a minimum over noisy values would be too low.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finecast.learners.algorithms.actors import Turn, keep_logits, pull_logits
from finecast.learners.algorithms.lessons import FULL, Lessons, without_own
from finecast.learners.algorithms.set_values import Rows, members, unit_of
from finecast.learners.world.environment import Delivery, keep_by_score, lookup
from finecast.learners.world.episodes import Slot
from finecast.learners.world.lookahead import best_subset

QUANTILES = 64
"""Of the logistic noise, over which a mean is taken."""


def logits_of(network: nn.Module, lessons: Lessons, temperature: float) -> Tensor:
    """Return (R, N + 1) logits of the sources; of keeping in column 0, the others 0."""
    scores = network(lessons.seen)
    pull = lessons.start + pull_logits(scores, lessons.company, temperature)
    keep = lessons.start[:, 0] + keep_logits(scores, lessons.company, temperature)
    keep = nn.functional.pad(keep[:, None], (0, pull.shape[1] - 1))
    return torch.where(lessons.keeping[:, None], keep, pull)


def keep_weight(over: Tensor, tau: float) -> Tensor:
    """Return w_tau(u) of any shape, the density at u of logistic noise plus tau times another."""
    chance = (torch.arange(QUANTILES, dtype=over.dtype, device=over.device) + 0.5) / QUANTILES
    soft = torch.sigmoid(over[..., None] + tau * torch.logit(chance))
    return (soft * (1.0 - soft)).mean(dim=-1)


def pull_weighted(logits: Tensor, costs: Tensor, tau: float, noise: Tensor) -> Tensor:
    """Return (R, n) M_tau(z) c.

    Parameters
    ----------
    logits
        (R, n); minus infinity where not allowed.
    costs
        (R, n), finite.
    tau
        Of the soft actions.
    noise
        (R, M, n) Gumbel, M draws.
    """
    chance = torch.softmax(logits[:, None] + tau * noise, dim=2)
    mean = (chance * costs[:, None]).sum(dim=2, keepdim=True)
    return (chance * (costs[:, None] - mean)).mean(dim=1)


def weighted(
    lessons: Lessons,
    logits: Tensor,
    costs: Tensor,
    *,
    tau: float,
    noise: Tensor,
    temperature: float,
) -> Tensor:
    """Return (R, N + 1) M_tau(z) c, what costs c of the actions do to the gradient in the logits.

    Parameters
    ----------
    lessons
        R rows.
    logits
        As of `logits_of`.
    costs
        (R, N + 1) finite, in temperatures; of keeping in column 0.
    tau, noise
        As in `pull_weighted`.
    temperature
        Of the actors.
    """
    displaced = lessons.cost[:, 0] / temperature
    full = displaced > FULL
    over = torch.where(full, logits[:, 0] - displaced, 0.0)
    keep = torch.where(full, keep_weight(over, tau) * costs[:, 0], 0.0)
    keep = nn.functional.pad(keep[:, None], (0, costs.shape[1] - 1))
    return torch.where(lessons.keeping[:, None], keep, pull_weighted(logits, costs, tau, noise))


def regrets(lessons: Lessons, logits: Tensor, *, clip: float, temperature: float) -> Tensor:
    """Return (R, N + 1) z + c up to a constant, with the costs as the loss limits them.

    Parameters
    ----------
    lessons, logits, temperature
        As in `weighted`.
    clip
        Limit of costs, in temperatures; infinity for none.
    """
    cost = lessons.cost / temperature
    full = cost[:, 0] > FULL
    keep = (cost[:, 0] - cost[:, 1]).clamp(-clip, clip) + logits[:, 0] - cost[:, 0]
    keep = nn.functional.pad(torch.where(full, keep, 0.0)[:, None], (0, cost.shape[1] - 1))
    allowed = logits > -torch.inf
    least = torch.where(allowed, cost, torch.inf).amin(dim=1, keepdim=True)
    pull = torch.where(allowed, (cost - least).clamp(0.0, clip) + logits, 0.0)
    return torch.where(lessons.keeping[:, None], keep, pull)


def within_limit(
    lessons: Lessons, logits: Tensor, change: Tensor, *, clip: float, temperature: float
) -> Tensor:
    """Return (R, N + 1) how limited costs change to first order; at the limit they do not.

    Parameters
    ----------
    lessons, logits, clip, temperature
        As in `regrets`.
    change
        (R, N + 1) of the costs, in temperatures.
    """
    cost = lessons.cost / temperature
    inside = (cost[:, 0] - cost[:, 1]).abs() < clip
    keep = torch.where(inside[:, None], change, 0.0)
    allowed = logits > -torch.inf
    least, index = torch.where(allowed, cost, torch.inf).min(dim=1, keepdim=True)
    pull = torch.where(cost - least < clip, change - change.gather(1, index), 0.0)
    return torch.where(lessons.keeping[:, None], keep, pull)


def divergence(lessons: Lessons, logits: Tensor, *, clip: float, temperature: float) -> Tensor:
    """Return (R,) D_0(-c, z), the divergence of the chances from those that the costs want.

    Parameters
    ----------
    lessons, logits, clip, temperature
        As in `regrets`.
    """
    regret = regrets(lessons, logits, clip=clip, temperature=temperature)
    # Keeping as two actions: logits (u, 0), costs (c, 0).
    displaced = lessons.cost[:, 0] / temperature
    over = torch.where(displaced > FULL, logits[:, 0] - displaced, 0.0)
    two = torch.full_like(logits, -torch.inf)
    two[:, 0], two[:, 1] = over, 0.0
    z = torch.where(lessons.keeping[:, None], two, logits)
    allowed = z > -torch.inf
    log = torch.where(allowed, torch.log_softmax(z, dim=1), 0.0)
    wanted = torch.log_softmax(torch.where(allowed, z - regret, -torch.inf), dim=1)
    wanted = torch.where(allowed, wanted, 0.0)
    return torch.where(allowed, log.exp() * (log - wanted), 0.0).sum(dim=1)


def of_pairs(table: Tensor) -> Tensor:
    """Return (..., S) the best approximation by a constant, nodes and pairs of nodes.

    Parameters
    ----------
    table
        (..., S) a value for every node set; least squares over all sets.
    """
    member = members(table.shape[-1].bit_length() - 1, table.device).to(table.dtype)
    first, second = torch.triu_indices(member.shape[1], member.shape[1], offset=1)
    pairs = member[:, first] * member[:, second]
    basis = torch.cat([torch.ones_like(member[:, :1]), member, pairs], dim=1)
    projection: Tensor = basis @ torch.linalg.pinv(basis)
    return table @ projection.T


def followed(slot: Slot, rent: Tensor, cost: Tensor, later: Tensor) -> Tensor:
    """Return (E, J, S) what a slot and the time after it cost, for all sets that hold a block.

    The decisions are those of the critic, at storage prices. With `later` = `cost` these are its
    targets (`finecast.learners.algorithms.set_values.backup`).

    Parameters
    ----------
    slot
        The slot.
    rent
        (E, S) lambda . K, in units per byte.
    cost
        (E, J, S) G of the slot, by which the critic decides, in units per byte.
    later
        (E, J, S) what the time after the slot costs.
    """
    _, kept, level = _decisions(slot, rent, cost)
    unit = unit_of(slot)[:, None, None]
    sets = torch.arange(cost.shape[2], device=cost.device).expand(cost.shape)
    sender = slot.chain_sender[:, None].expand(*cost.shape, -1).gather(3, level[..., None])[..., 0]
    spent = slot.chain_time[:, None].expand(*cost.shape, -1).gather(3, level[..., None])[..., 0]
    needed = slot.needed[..., None]
    has = torch.where(needed, sender, sets)
    air = lookup(slot.broadcast, slot.group[..., None], has)
    now = torch.where(needed, (spent + air) / unit, 0.0).to(cost.dtype)
    keep = kept.gather(2, has)
    paid = rent[:, None].expand_as(cost).gather(2, keep)
    return now + paid + later.gather(2, keep)


def _decisions(slot: Slot, rent: Tensor, cost: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (E, J, S) of the critic: U(Q), the sets kept of Q, and the level from a cached X."""
    after, kept = best_subset(rent[:, None] + cost)
    sender = slot.chain_sender[:, None].expand(-1, cost.shape[1], -1, -1).flatten(2)
    air = lookup(slot.broadcast, slot.group[..., None], sender) / unit_of(slot)[:, None, None]
    spent = (slot.chain_time / unit_of(slot)[:, None, None])[:, None]
    total = (air.float() + after.gather(2, sender)).reshape(*cost.shape, -1)
    return after, kept, (spent.float() + total).argmin(dim=3)


def cost_changes(
    turns: list[Turn],
    slot: Slot,
    cached: Tensor,
    delivery: Delivery,
    rent: Tensor,
    cost: Tensor,
    change: Tensor,
) -> Tensor:
    """Return (R, N + 1) how costs of actions change with G, in units, in the rows of `lessons_of`.

    Parameters
    ----------
    turns, slot, cached, delivery
        As in `finecast.learners.algorithms.lessons.lessons_of`, decided in turn.
    rent
        (E, S), as in `followed`.
    cost
        (E, J, S) G.
    change
        (E, J, S) what is added to it.
    """
    _, kept, level = _decisions(slot, rent, cost)
    after = change.gather(2, kept)
    parts = []
    for turn in turns:
        if turn.keeping:
            saved = saved_by(change, turn.others, turn.node)
            block, _ = margin(turn.node, slot, delivery.sender, cost, turn.others)
            displaced = saved.gather(1, block[:, None])[:, 0]
            keep = displaced[turn.rows.draw] - turn.rows.pick(saved)
            parts.append(nn.functional.pad(keep[:, None], (0, slot.nodes)))
            continue
        # What comes after the senders with node n, those without, or the level where these cannot.
        rows, bit = turn.rows, 1 << turn.node
        others = delivery.sender & ~bit
        serve = lookup(slot.broadcast, slot.group, others) < torch.inf
        best = slot.chain_sender[rows.draw, rows.pick(cached)]  # (R, L)
        best = best.gather(1, rows.pick(level).gather(1, rows.pick(cached)[:, None]))
        nothing = torch.where(rows.pick(serve), rows.pick(others), best[:, 0])
        of = rows.pick(after)
        by_source = of.gather(1, (rows.pick(others) | bit)[:, None]).expand(-1, slot.nodes + 1)
        by_number = torch.cat([by_source, of.gather(1, nothing[:, None])], dim=1)
        parts.append(without_own(by_number, turn.node))
    return torch.cat(parts)


def saved_by(cost: Tensor, kept: Tensor, n: int) -> Tensor:
    """Return (E, J) G(K without n) - G(K + n), from G (E, J, S) and K (E, J)."""
    sets = torch.stack([kept & ~(1 << n), kept | 1 << n], dim=2)
    table = cost.gather(2, sets)
    return table[..., 0] - table[..., 1]


def margin(n: int, slot: Slot, held: Tensor, cost: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return (E,) the last block that fits, as in `lessons.keep_values`, and whether one does not.

    Parameters
    ----------
    n, slot, held, cost, kept
        As there.
    """
    saved = saved_by(cost, kept, n).clamp(min=1e-6)
    here = ((held >> n & 1) != 0) & slot.real
    best = keep_by_score(slot.size, slot.storage[:, n], here, saved)
    block = torch.where(best, saved, torch.inf).argmin(dim=1)
    return block, (here & ~best).any(dim=1) & best.any(dim=1)


def rows_in(turns: list[Turn]) -> tuple[Rows, Tensor]:
    """Return the (draw, block) pairs and the nodes (R,) of the rows of `lessons_of`."""
    draw = torch.cat([turn.rows.draw for turn in turns])
    block = torch.cat([turn.rows.block for turn in turns])
    node = torch.cat([torch.full_like(turn.rows.draw, turn.node) for turn in turns])
    return Rows(draw, block), node


def squared_norm(parts: Tensor, others: Tensor | None = None) -> Tensor:
    """Return |E part|^2 without bias, from independent parts (P, D): the mean of their products.

    Parameters
    ----------
    parts
        (P, D), each with the same mean.
    others
        (P, D), paired with the parts, for the inner product of the means; None for the parts.
    """
    other = parts if others is None else others
    count = len(parts)
    return (parts.sum(0) @ other.sum(0) - (parts * other).sum()) / (count * (count - 1))
