"""Held-out draws: how good a policy is, on draws that no learner trains on.

Their seeds do not depend on the run's, so that all runs are measured on the same draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from finecast.learners.learner import TrainedPolicy, play
from finecast.learners.world.area_draws import Draws
from finecast.learners.world.baselines import Replacement, Rolling
from finecast.learners.world.draws import episodes_of, surrogate_episodes
from finecast.learners.world.environment import roll
from finecast.learners.world.episodes import Episodes, joined_episodes
from finecast.learners.world.lookahead import Lookahead, lookahead_of
from finecast.solvers.information import Information
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.placement.search.lagrangian import dual_bound
from finecast.solvers.result import Callback, Progress
from finecast.solvers.workers import ALONE, Workers

FIRST_SEED = 1_000_000
"""Seed of the first held-out draw; training draws have smaller ones."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Draws to measure on.

    Attributes
    ----------
    episodes
        The draws, with lower bounds of their delays at their rates.
    values
        Lookahead of all slots, as in `finecast.learners.runs.source.Pool`.
    reference
        (E,) float64 total delays of the methods `lru` and `rolling`, s.
    """

    episodes: Episodes
    values: Lookahead
    reference: Mapping[str, Tensor]

    def to(self, device: torch.device) -> HeldOut:
        """Return the same on another device."""
        return HeldOut(
            self.episodes.to(device),
            lookahead_to(self.values, device),
            {name: total.to(device) for name, total in self.reference.items()},
        )


def held_out(
    scenarios: Sequence[Draws],
    count: int,
    *,
    horizon: int,
    true_rates: bool,
    price_steps: int,
    callback: Callback | None = None,
    information: Information | None = None,
    workers: Workers = ALONE,
) -> HeldOut:
    """Make the held-out draws of some scenarios.

    Parameters
    ----------
    scenarios
        Where they are drawn from.
    count
        Draws of each.
    horizon
        As in `episodes_of`.
    true_rates
        Compute beams, and certified bounds; else rates in closed form, and bounds at those.
    price_steps
        As in `SourceConfig`.
    callback
        Receives the progress after every draw.
    information
        What the nodes see, if they decide apart.
    workers
        Who makes the draws.
    """
    seeds = range(FIRST_SEED, FIRST_SEED + count)
    parts = []
    for scenario in scenarios:
        if true_rates:
            instances = [scenario.generate(seed) for seed in seeds]
            part = episodes_of(
                instances,
                horizon=horizon,
                callback=callback,
                information=information,
                workers=workers,
            )
        else:
            part = surrogate_episodes(
                scenario,
                seeds,
                horizon=horizon,
                callback=callback,
                information=information,
                workers=workers,
            )
        parts.append(part)
    episodes = joined_episodes(parts)
    if not true_rates:
        bounds = []
        for draw in range(len(seeds) * len(scenarios)):
            bounds.append(closed_form_bound(episodes, draw))
            if callback is not None:
                callback(Progress("bounds of the held-out draws", draw + 1, len(episodes.size)))
        episodes = replace(episodes, bound=torch.tensor(bounds, dtype=torch.float64))
    values, _ = lookahead_of(episodes, steps=price_steps, warm_steps=max(1, price_steps // 2))
    reference = {
        "lru": roll(episodes, Replacement("recency")).total,
        "rolling": roll(episodes, Rolling(), rounds=3).total,
    }
    return HeldOut(episodes, values, reference)


def measured(policy: TrainedPolicy, held: HeldOut) -> dict[str, float]:
    """Return mean delay, gap to the bound, and delay against the references, of a policy.

    Parameters
    ----------
    policy
        To play.
    held
        What to play on.

    Returns
    -------
    `delay` (s), `gap` (to the bound), and `against_lru`, `against_rolling`: the mean over draws
    of delay / reference - 1.
    """
    total = play(held.episodes, policy).total
    metrics = {
        "delay": total.mean(),
        "gap": (total / held.episodes.bound).mean() - 1.0,
        **{f"against_{name}": (total / ref).mean() - 1.0 for name, ref in held.reference.items()},
    }
    return {name: float(value) for name, value in metrics.items()}


def closed_form_bound(episodes: Episodes, draw: int) -> float:
    """Return a lower bound on the total delay of a draw at the rates of its episode, s.

    Parameters
    ----------
    episodes
        The draws.
    draw
        Index e.
    """
    blocks = int(episodes.block_count[draw])
    problem = PlacementProblem(
        block_size=episodes.size[draw, :blocks].numpy().astype(np.int64),
        storage=episodes.storage[draw].numpy().astype(np.int64),
        group=episodes.group[draw, :, :blocks].numpy(),
        broadcast=tuple(table.numpy() for table in _served(episodes, draw)),
        link=episodes.link[draw].numpy(),
    )
    return dual_bound(problem)


def _served(episodes: Episodes, draw: int) -> list[Tensor]:
    """Return the broadcast tables (G_t, S) of every slot, without padded groups."""
    tables = []
    for group, table in zip(episodes.group[draw], episodes.broadcast[draw], strict=True):
        tables.append(table[: int(group.max()) + 1])
    return tables


def lookahead_to(values: Lookahead, device: torch.device) -> Lookahead:
    """Return the lookahead on another device."""
    return Lookahead(values.after.to(device), values.cost.to(device), values.price.to(device))
