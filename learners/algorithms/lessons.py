"""What actors learn from: their turns, with the cost of every action given what others decided.

    minimise  y . (cost + stop(log pi)),   y = one-hot of the action + soft - stop(soft)

pi are the chances of the actions. soft is the Gumbel-Softmax (E. Jang et al., ICLR 2017, arXiv
1611.01144): forwards an action that is drawn, backwards its relaxation. Costs are in temperatures,
so the best policy has pi ~ exp(-cost).

The entropy has the gradient of the chances times -log pi. It goes through the relaxation as the
cost does, so both cancel at the optimum, draw by draw, at any tau. A relaxed cost beside an exact
entropy would have another optimum, and a noise that does not vanish there. (At tau = 1 it has no
optimum for savings two temperatures above the margin.) The loss is a mean over some draws of the
noise, which costs no further pass of the network.

A projection decides what is kept: blocks in falling order of their logits until the storage is
full. So a block competes with the margin alone: what keeping it saves against what it displaces,
the last block that fits. A logit of keeping stands for a saving, and

    soft = sigmoid((logit + noise - displaced) / tau),   cost = displaced - saved

Blocks near the margin then move most. At the optimum logit = saved, whose order is what the
projection needs. If logits were measured from the margin of the actor's own logits, they would
drift without end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Generator, Tensor

from finecast.learners.algorithms.actors import Turn
from finecast.learners.algorithms.set_values import backup, unit_of
from finecast.learners.networks.features import Features, joined_features
from finecast.learners.world.environment import Delivery, keep_by_score
from finecast.learners.world.episodes import Slot

NO_MARGIN = -1e30
"""Displaced by one more byte where everything fits: there is nothing to learn."""

FULL = -1e20
"""What is displaced is above this where not everything fits, at any temperature."""


@dataclass(frozen=True, eq=False)
class Lessons:
    """Turns of a slot, R (node, block) pairs side by side; costs in units per byte.

    Attributes
    ----------
    seen
        (R, ...) features.
    keeping
        (R,) bool: what to keep, else what to pull.
    company
        (R, N - 1) the other nodes that had decided to keep or to receive the block.
    start
        (R, N + 1) of the sources but the node, the cloud and nothing; of keeping in column 0.
    cost
        (R, N + 1) likewise; of keeping what it displaces in column 0, what it saves in column 1.
    weight
        (R,) byte.
    """

    seen: Features
    keeping: Tensor
    company: Tensor
    start: Tensor
    cost: Tensor
    weight: Tensor

    def sample(self, count: int, generator: Generator) -> Lessons:
        """Return at most so many pairs, drawn at random."""
        index = torch.randperm(len(self.weight), generator=generator)[:count]
        index = index.to(self.weight.device)
        columns = {name: getattr(self, name)[index] for name in _TENSORS}
        return Lessons(self.seen.select(index), **columns)

    def tensors(self) -> dict[str, Tensor]:
        """Return all as tensors."""
        seen = {f"seen.{field.name}": getattr(self.seen, field.name) for field in _SEEN}
        return seen | {name: getattr(self, name) for name in _TENSORS}

    @classmethod
    def load(cls, tensors: Mapping[str, Tensor], device: torch.device) -> Lessons:
        """Take back what `tensors` returned."""
        seen = {field.name: tensors[f"seen.{field.name}"].to(device) for field in _SEEN}
        columns = {name: tensors[name].to(device) for name in _TENSORS}
        return cls(Features(**seen), **columns)


def joined_lessons(parts: Sequence[Lessons]) -> Lessons:
    """Return the pairs of several slots side by side."""
    columns = {name: torch.cat([getattr(part, name) for part in parts]) for name in _TENSORS}
    return Lessons(joined_features([part.seen for part in parts]), **columns)


_SEEN = fields(Features)
_TENSORS = tuple(field.name for field in fields(Lessons) if field.name != "seen")


def lessons_of(
    turns: list[Turn],
    slot: Slot,
    cached: Tensor,
    delivery: Delivery,
    cost: Tensor,
    after: Tensor,
    *,
    kept: Tensor | None = None,
    signed: bool = False,
) -> Lessons | None:
    """Return what the turns of a slot teach; None if there were none.

    Parameters
    ----------
    turns
        Of all nodes.
    slot
        The slot.
    cached
        (E, J) X.
    delivery
        What all pulled.
    cost, after
        (E, J, S) G and U of the critic, in units per byte.
    kept
        (E, J) what all keep in the end, by which turns are judged where all decide at once. None:
        a turn is judged by what its node had seen of the others. Without exploration that is what
        the others end with.
    signed
        As in `keep_values`.
    """
    if not turns:
        return None
    columns = slot.nodes + 1
    costs, starts, keeping = [], [], []
    for turn in turns:
        if turn.keeping:
            # Given who else keeps: what one more byte displaces, and what keeping the block saves.
            others = turn.others if kept is None else kept
            displaced, saved = keep_values(
                turn.node, slot, delivery.sender, cost, others, signed=signed
            )
            price = displaced[turn.rows.draw]
            costs.append(_widened([price, turn.rows.pick(saved)], columns))
            starts.append(_widened([turn.start], columns))
        else:
            # Given what the others pull: the cost of every source and of nothing.
            by_number = pull_costs(turn, slot, cached, delivery, after)
            costs.append(without_own(by_number, turn.node))
            starts.append(turn.start)
        keeping.append(torch.full_like(turn.rows.draw, turn.keeping, dtype=torch.bool))
    return Lessons(
        seen=joined_features([turn.seen for turn in turns]),
        keeping=torch.cat(keeping),
        company=torch.cat([turn.company for turn in turns]),
        start=torch.cat(starts),
        cost=torch.cat(costs),
        weight=torch.cat([turn.rows.pick(slot.size).float() for turn in turns]),
    )


def _widened(columns: list[Tensor], width: int) -> Tensor:
    """Return (R, width) of some columns (R,), the rest 0."""
    table = torch.stack(columns, dim=1)
    return torch.nn.functional.pad(table, (0, width - table.shape[1]))


def without_own(by_number: Tensor, n: int) -> Tensor:
    """Return (..., N - 1 + ...) from (..., N + ...) by number of the node, without node n."""
    return torch.cat([by_number[..., :n], by_number[..., n + 1 :]], dim=-1)


def keep_values(
    n: int, slot: Slot, held: Tensor, cost: Tensor, kept: Tensor, *, signed: bool = False
) -> tuple[Tensor, Tensor]:
    """Return what one more byte at node n displaces (E,), and what keeping there saves (E, J).

        saved = G(K without n) - G(K + n),   K what the others keep

    Displaced is the saving of the last block that fits when node n fills its storage in falling
    order of the savings; NO_MARGIN where all fit.

    Parameters
    ----------
    n
        The node.
    slot
        The slot.
    held
        (E, J) what there is to keep.
    cost
        (E, J, S) G.
    kept
        (E, J) K, what the others keep; node n itself does not count.
    signed
        Savings may be negative: a critic that has learned from sums is right only up to a level.
        Else they are at least 1e-6.
    """
    # What a copy saves given the others.
    bit = 1 << n
    others = kept & ~bit
    table = cost.gather(2, torch.stack([others, others | bit], dim=2))
    saved = table[..., 0] - table[..., 1]
    saved = saved if signed else saved.clamp(min=1e-6)
    # The storage filled in falling order of the savings: the last block that fits is the margin.
    here = ((held & bit) != 0) & slot.real
    above = saved - saved.amin(dim=1, keepdim=True) + 1e-6 if signed else saved
    best = keep_by_score(slot.size, slot.storage[:, n], here, above)
    least = torch.where(best, saved, torch.inf).amin(dim=1)
    full = (here & ~best).any(dim=1) & best.any(dim=1)
    return torch.where(full, least, NO_MARGIN), saved


def pull_costs(turn: Turn, slot: Slot, cached: Tensor, delivery: Delivery, after: Tensor) -> Tensor:
    """Return (R, N + 2) the cost of every source and of nothing, given what the others pull.

        max(tau of the others, tau from the source) + broadcast(Q) + U(Q)

    Where the others alone cannot serve, nothing costs what the best level does.

    Parameters
    ----------
    turn
        Of node n.
    slot
        The slot.
    cached
        (E, J) X.
    delivery
        What all pulled.
    after
        (E, J, S) U.
    """
    # The time of the slowest of the other nodes, from the sources that they named.
    rows, n = turn.rows, turn.node
    unit = unit_of(slot)[:, None, None]
    time = (slot.link / unit).float()  # (E, N + 1, N)
    source = delivery.source[rows.draw, :, rows.block]  # (R, N)
    # time[draw, source of m, m] of every node m
    taken = time[rows.draw].gather(1, source.clamp(min=0)[:, None])[:, 0]
    taken = torch.where(source >= 0, taken, 0.0)
    taken[:, n] = 0.0
    others_time = taken.amax(dim=1, keepdim=True)
    # The time on the air and after it, with node n among the senders and without.
    others = rows.pick(delivery.sender) & ~(1 << n)
    sets = torch.stack([others | 1 << n, others], dim=1)
    air = slot.broadcast[rows.draw, rows.pick(slot.group).clamp(min=0)] / unit[rows.draw, 0]
    total = (air.float() + rows.pick(after)).gather(1, sets)  # (R, 2)
    # From every source, and for nothing; where the others cannot serve, as the best level does.
    by_source = torch.maximum(others_time, time[rows.draw, :, n]) + total[:, :1]
    nothing = others_time + total[:, 1:]
    best = backup(slot, rows.pick(after), rows).gather(1, rows.pick(cached)[:, None])
    nothing = torch.where(torch.isfinite(nothing), nothing, best)
    return torch.cat([by_source, nothing], dim=1)


def keep_loss(
    logit: Tensor, noise: Tensor, displaced: Tensor, saved: Tensor, *, tau: float, clip: float
) -> Tensor:
    """Return (R,) whose gradient is that of the cost of keeping less entropy, in the logits.

    Parameters
    ----------
    logit
        (R,).
    noise
        (R, M) logistic, M draws.
    displaced, saved
        (R,) in temperatures.
    tau
        Of the soft actions.
    clip
        Most that a cost counts.
    """
    full = displaced > FULL
    margin = torch.where(full, displaced, 0.0)
    over = logit - margin
    soft = torch.sigmoid((over[:, None] + noise) / tau)
    hard = (over[:, None] + noise > 0).float()
    action = (hard + soft - soft.detach()).mean(dim=1)
    cost = (margin - saved).clamp(-clip, clip) + over.detach()  # over: log pi less log (1 - pi)
    return torch.where(full, action * cost, 0.0)


def pull_loss(logits: Tensor, noise: Tensor, cost: Tensor, *, tau: float, clip: float) -> Tensor:
    """Return (R,) whose gradient is that of the cost of pulling less entropy, in the logits.

    Parameters
    ----------
    logits
        (R, N + 1); minus infinity where not allowed.
    noise
        (R, M, N + 1) Gumbel, M draws.
    cost
        (R, N + 1) in temperatures.
    tau, clip
        As in `keep_loss`.
    """
    drawn = logits[:, None] + noise
    soft = torch.softmax(drawn / tau, dim=2)
    hard = torch.nn.functional.one_hot(drawn.argmax(dim=2), logits.shape[1])
    action = (hard + soft - soft.detach()).mean(dim=1)
    log = torch.log_softmax(logits, dim=1).detach()
    allowed = log > -torch.inf
    least = torch.where(allowed, cost, torch.inf).amin(dim=1, keepdim=True)
    over = torch.where(allowed, (cost - least).clamp(0.0, clip) + log, 0.0)
    return (action * over).sum(dim=1)
