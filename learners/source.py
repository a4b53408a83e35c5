"""Where training episodes come from: a pool of draws, a function of the seed and the step alone.

`source.at(step)` returns the whole pool that is in force in that step; a learner draws from it with
its own generator. So a resumed run finds the same episodes without their being saved.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch

from learners.config import SourceConfig
from learners.draws import episodes_of, surrogate_episodes
from learners.episodes import Episodes, joined_episodes
from learners.held_out import FIRST_SEED, lookahead_to
from learners.lookahead import Lookahead, lookahead_of
from problem.scenario import Scenario
from solvers.result import Callback


@dataclass(frozen=True, eq=False)
class Pool:
    """Draws to train on.

    Attributes
    ----------
    number
        Which pool it is; it rises whenever the pool changes.
    episodes
        The draws.
    values
        Lookahead of all their slots at the storage prices on the path of `mpc`.
    real
        Draws that are real; the others, at the end, are synthetic.
    """

    number: int
    episodes: Episodes
    values: Lookahead
    real: int


class EpisodeSource(Protocol):
    """What learners draw from."""

    def at(self, step: int) -> Pool:
        """Return the pool of a step; the same for the same step, whatever was asked before."""


@dataclass(frozen=True)
class FixedSource:
    """The same pool for ever, for tests and for learners that bring their own episodes."""

    pool: Pool

    def at(self, step: int) -> Pool:
        """Return the pool."""
        return self.pool


class ScenarioSource:
    """Real draws of scenarios.

    Parameters
    ----------
    scenarios
        Where they are drawn from; all draws have equal N, K and T.
    config
        How many, with which rates.
    seed
        Chooses the draws.
    callback
        Told after every draw.
    """

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        config: SourceConfig,
        seed: int,
        callback: Callback | None = None,
    ) -> None:
        self.config = config
        chosen = np.random.default_rng([seed, *b"draws"])
        parts = []
        for scenario in scenarios:
            seeds = chosen.choice(FIRST_SEED, config.draws, replace=False).tolist()
            if config.rates == "true":
                instances = [scenario.generate(one) for one in seeds]
                part = episodes_of(
                    instances, horizon=config.horizon, bound=False, callback=callback
                )
            else:
                part = surrogate_episodes(
                    scenario, seeds, horizon=config.horizon, callback=callback
                )
            parts.append(part)
        episodes = joined_episodes(parts)
        values = lookahead_of(
            episodes, steps=config.price_steps, warm_steps=max(1, config.price_steps // 4)
        )[0]
        self.pool = Pool(0, episodes, values, episodes.draws)

    def at(self, step: int) -> Pool:
        """Return the pool: always the same."""
        return self.pool

    def to(self, device: torch.device) -> ScenarioSource:
        """Move the pool to a device; return the source."""
        self.pool = replace(
            self.pool,
            episodes=self.pool.episodes.to(device),
            values=lookahead_to(self.pool.values, device),
        )
        return self
