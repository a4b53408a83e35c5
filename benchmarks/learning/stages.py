"""Slots of a run of MAASN-DA as they were played, and the gradients of its actors on their rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from finecast.learners.algorithms.actors import Turn, actors_of, gumbel_noise
from finecast.learners.algorithms.lessons import FULL, Lessons, joined_lessons, lessons_of
from finecast.learners.algorithms.maasn import Learner
from finecast.learners.algorithms.set_values import (
    Rows,
    base_costs,
    critic_view,
    rents,
    set_costs,
    value_after,
)
from finecast.learners.algorithms.stationarity import (
    cost_changes,
    divergence,
    followed,
    logits_of,
    regrets,
    rows_in,
    weighted,
    within_limit,
)
from finecast.learners.world.environment import Delivery, packed, step
from finecast.learners.world.episodes import Episodes, Slot
from finecast.learners.world.lookahead import Lookahead

GROUP = 2
"""Draws whose gradient is one independent part."""

NOISES = 8
"""Gumbel draws of every row."""


@dataclass(frozen=True, eq=False)
class Stage:
    """A slot of all draws as it was played, with the critic's values (E, J, S) of it.

    `lessons` are all rows, `draw` (R,) the draws that they belong to.
    """

    slot: Slot
    turns: list[Turn]
    cached: Tensor
    delivery: Delivery
    keep: Tensor
    rent: Tensor
    base: Tensor
    cost: Tensor
    lessons: Lessons
    draw: Tensor


def played(
    learner: Learner,
    actor: nn.Module,
    critic: nn.Module,
    episodes: Episodes,
    values: Lookahead,
    seed: int,
) -> list[Stage]:
    """Play all slots of the draws with exploration, as the learner does."""
    generator = Generator().manual_seed(seed)
    cache, stages = episodes.start, []
    for t in range(episodes.slots):
        slot, look = episodes.slot(t), values.slot(t)
        actors = actors_of(learner.config, actor, values, generator)
        with torch.no_grad():
            delivery, keep = step(slot, cache, actors, rounds=actors.rounds)
            cached, rows = packed(cache), Rows.where(slot.real)
            view = critic_view(slot, cached, delivery.sender)
            cost = torch.zeros((*slot.size.shape, 1 << slot.nodes))
            base = torch.zeros_like(cost)
            cost[rows.draw, rows.block] = set_costs(critic, view, None, rows)
            if not view.last:
                base[rows.draw, rows.block] = base_costs(slot, None, rows)
            rent = rents(slot, look)
            after = value_after((rent[:, None] + cost).flatten(0, 1)).reshape(cost.shape)
            lessons = lessons_of(actors.turns, slot, cached, delivery, cost, after)
        if lessons is not None:
            draw = rows_in(actors.turns)[0].draw
            stages.append(
                Stage(slot, actors.turns, cached, delivery, keep, rent, base, cost, lessons, draw)
            )
        cache = keep
    return stages


def returns(stages: Sequence[Stage], steps: int) -> list[Tensor]:
    """Return (E, J, S) of every slot: backups along its future, the critic's after so many slots.

    With as many steps as slots these are Monte-Carlo returns at storage prices.
    """
    tables = []
    for i in range(len(stages)):
        end = min(i + steps, len(stages) - 1)
        later = stages[end].cost
        for coming in reversed(stages[i + 1 : end + 1]):
            later = followed(coming.slot, coming.rent, coming.cost, later)
        tables.append(later)
    return tables


def all_returns(stages: Sequence[Stage]) -> list[Tensor]:
    """Return `returns` over as many steps as there are slots, in one pass."""
    tables = [stages[-1].cost]
    for coming in reversed(stages[1:]):
        tables.insert(0, followed(coming.slot, coming.rent, coming.cost, tables[0]))
    return tables


Terms = Mapping[str, Sequence[Tensor]]
"""By name, of every slot (R, N + 1): what multiplies the derivatives of the logits."""


def gradients(
    learner: Learner, actor: nn.Module, stages: Sequence[Stage], terms: Terms
) -> dict[str, Tensor]:
    """Return by name (P, D) gradients of groups of draws, whose mean is the whole gradient."""
    parameters = list(actor.parameters())
    draws = stages[0].slot.draws
    found: dict[str, list[Tensor]] = {name: [] for name in terms}
    weights = [stage.lessons.weight for stage in stages]
    for first in range(0, draws, GROUP):
        where = [
            ((stage.draw >= first) & (stage.draw < first + GROUP)).nonzero()[:, 0]
            for stage in stages
        ]
        lessons = joined_lessons(
            [chosen(stage.lessons, index) for stage, index in zip(stages, where, strict=True)]
        )
        logits = logits_of(actor, lessons, learner.config.temperature)
        logits = torch.where(logits > -torch.inf, logits, 0.0)
        share = torch.cat(
            [weight[index] / weight.sum() for weight, index in zip(weights, where, strict=True)]
        ) * (draws / GROUP / len(stages))
        for name, fields in terms.items():
            field = torch.cat([part[index] for part, index in zip(fields, where, strict=True)])
            loss = (share[:, None] * field * logits).sum()
            parts = torch.autograd.grad(loss, parameters, retain_graph=True)
            found[name].append(torch.cat([part.flatten() for part in parts]))
    return {name: torch.stack(parts).double() for name, parts in found.items()}


def chosen(lessons: Lessons, index: Tensor) -> Lessons:
    """Return some of the rows."""
    names = ("keeping", "company", "start", "cost", "weight")
    return Lessons(
        lessons.seen.select(index), **{name: getattr(lessons, name)[index] for name in names}
    )


class Fields:
    """What multiplies the derivatives of the logits at an actor, for the rows of some stages."""

    def __init__(self, learner: Learner, actor: nn.Module, stages: Sequence[Stage], seed: int):
        self.config, self.stages = learner.config, stages
        generator = Generator().manual_seed(seed)
        with torch.no_grad():
            self.logits = [
                logits_of(actor, stage.lessons, self.config.temperature) for stage in stages
            ]
        self.noise = [gumbel_noise((len(z), NOISES, z.shape[1]), generator) for z in self.logits]

    def of_loss(self, *, tau: float | None = None, limited: bool = True) -> list[Tensor]:
        """Return those of the loss; at another tau, or without the limit on costs."""
        return self._weighted(self.regrets(limited), self.config.tau if tau is None else tau)

    def regrets(self, limited: bool = True) -> list[Tensor]:
        """Return (R, N + 1) z + c, in temperatures."""
        clip = self.config.gradient_clip if limited else float("inf")
        return [
            regrets(stage.lessons, z, clip=clip, temperature=self.config.temperature)
            for stage, z in zip(self.stages, self.logits, strict=True)
        ]

    def costs_of(self, tables: Sequence[Tensor]) -> list[Tensor]:
        """Return changes (R, N + 1) of the costs of actions by those (E, J, S) of the values."""
        return [
            cost_changes(s.turns, s.slot, s.cached, s.delivery, s.rent, s.cost, table)
            for s, table in zip(self.stages, tables, strict=True)
        ]

    def of_costs(self, costs: Sequence[Tensor]) -> list[Tensor]:
        """Return those of changes (R, N + 1) of the costs of actions, in units."""
        clip, temperature = self.config.gradient_clip, self.config.temperature
        within = [
            within_limit(s.lessons, z, c / temperature, clip=clip, temperature=temperature)
            for s, z, c in zip(self.stages, self.logits, costs, strict=True)
        ]
        return self._weighted(within, self.config.tau)

    def _weighted(self, costs: Sequence[Tensor], tau: float) -> list[Tensor]:
        return [
            weighted(stage.lessons, z, c, tau=tau, noise=noise, temperature=self.config.temperature)
            for stage, z, c, noise in zip(self.stages, self.logits, costs, self.noise, strict=True)
        ]

    def objective(self) -> float:
        """Return J_0, the mean divergence, every slot alike."""
        means = []
        for stage, z in zip(self.stages, self.logits, strict=True):
            lessons, config = stage.lessons, self.config
            part = divergence(lessons, z, clip=config.gradient_clip, temperature=config.temperature)
            means.append((lessons.weight * part).sum() / lessons.weight.sum())
        return float(torch.stack(means).mean())


def limited(lessons: Lessons, learner: Learner) -> Tensor:
    """Return (R,) bool: rows of keeping whose costs are beyond their limit, or that all fit."""
    cost = lessons.cost / learner.config.temperature
    gap = (cost[:, 0] - cost[:, 1]).abs()
    return lessons.keeping & ((cost[:, 0] <= FULL) | (gap >= learner.config.gradient_clip))
