"""Episodes that are played for PPO: what was seen, decided and gained in every stage of a slot.

A slot has two stages with rewards of their own, per byte of block j, in units:

    pull   - delay_j / size_j            keep   - rent, the storage prices of the nodes that keep j

Without the rent every copy would seem worth keeping: what it displaces is another block's loss.
With raw observations there are no tables: neither rent nor base.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from finecast.learners.algorithms.actors import Actors, Turn
from finecast.learners.algorithms.ppo_values import expected_cost
from finecast.learners.algorithms.set_values import rents, unit_of
from finecast.learners.networks.features import Features
from finecast.learners.world.environment import (
    View,
    deliver,
    keep_turns,
    lookup,
    packed,
    pull_turns,
)
from finecast.learners.world.episodes import Episodes
from finecast.learners.world.lookahead import Lookahead


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage of a slot that was played: E draws.

    Attributes
    ----------
    keeping
        The nodes chose what to keep, else what to pull.
    seen
        What all nodes saw at its beginning.
    base
        (E, J) value of the dynamic programme on expected tables, in units per byte.
    reward
        (E, J) in units per byte.
    share
        (E, J) of the block in the bytes of the library.
    turns
        What the nodes decided.
    kept
        (E, N, J) bool: the caches before a stage of pulling, after one of keeping.
    """

    keeping: bool
    seen: Features
    base: Tensor
    reward: Tensor
    share: Tensor
    turns: list[Turn]
    kept: Tensor


def play_with(actors: Actors, episodes: Episodes, values: Lookahead) -> tuple[list[Stage], float]:
    """Play all slots; return the stages and the mean total delay, s.

    Parameters
    ----------
    actors
        With a generator, to explore.
    episodes, values
        E draws, and their lookahead.
    """
    raw = actors.observer.raw
    cache, stages, total = episodes.start, [], 0.0
    none = torch.zeros(episodes.size.shape, device=episodes.size.device)
    for t in range(episodes.slots):
        slot, look, cached = episodes.slot(t), values.slot(t), packed(cache)
        share = (slot.size / slot.size.sum(dim=1, keepdim=True)).float()
        unit = unit_of(slot)[:, None]
        # Pull: the reward is minus the delay of each block.
        view = View(slot, cached, cached, cached * 0, in_turn=actors.in_turn)
        actors.turns = []
        delivery = deliver(slot, cached, pull_turns(view, actors))
        spent = delivery.delay / (slot.size.clamp(min=1.0) * unit)
        base = none if raw else -expected_cost(slot, look, cached)
        seen = actors.look.seen
        stages.append(Stage(False, seen, base, -spent.float(), share, actors.turns, cache))
        total += float(delivery.delay.sum(dim=1).mean())
        if t == episodes.slots - 1:
            break
        # Keep: the reward is minus the rent of the storage.
        view = replace(view, held=delivery.sender, keeping=True)
        actors.turns = []
        cache = keep_turns(view, actors, actors.rounds)
        rent = base = none
        if not raw:
            rent = rents(slot, look).gather(1, packed(cache))
            base = (-lookup(look.after, slot.kind, delivery.sender) / unit).float()
        seen = actors.look.seen
        stages.append(Stage(True, seen, base, -rent, share, actors.turns, cache))
    return stages, total
