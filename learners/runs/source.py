"""Where training episodes come from: a pool of draws, a function of the seed and the step alone.

`source.at(step)` returns the whole pool that is in force in that step. A learner draws from it with
its own generator. So a resumed run finds the same episodes although they are not saved. Real draws
come first and stay. Synthetic ones (`finecast.learners.augmentation.synthetic`) are made anew from
time to time, fewer as the training goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import cast

import numpy as np
import torch
from torch import Generator, Tensor

from finecast.learners.augmentation.error import held_out_error, world_error
from finecast.learners.augmentation.predictor import Predictor, fit_predictor
from finecast.learners.augmentation.sources import Source
from finecast.learners.augmentation.synthetic import (
    requests_and_reach,
    share,
    synthetic_count,
    synthetic_episodes,
    synthetic_instances,
)
from finecast.learners.augmentation.world_model import WorldModel, fit_world_model
from finecast.learners.runs.config import SourceConfig
from finecast.learners.runs.held_out import FIRST_SEED, lookahead_to
from finecast.learners.weights import seeded
from finecast.learners.world.draws import episodes_of, fitted_exponent, surrogate_episodes
from finecast.learners.world.episodes import Episodes, joined_episodes
from finecast.learners.world.lookahead import Lookahead, lookahead_of
from finecast.learners.world.pool import Pool
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario
from finecast.solvers.information import Information
from finecast.solvers.result import Callback

PATHS = 4
"""Paths of requests of every network, where nodes decide apart."""


class ScenarioSource:
    """Draws of scenarios, with synthetic ones beside them if wanted.

    Parameters
    ----------
    scenarios
        Where they are drawn from; all draws have equal N, K and T.
    config
        How many, with which rates, and what is synthetic.
    seed
        Chooses the draws.
    steps
        Of the whole training, over which the synthetic share falls.
    callback
        Receives the progress after every draw.
    information
        What the nodes see, if they decide apart. A network's values take seconds then, so every
        network has `PATHS` paths of requests.
    """

    def __init__(
        self,
        scenarios: Sequence[Scenario],
        config: SourceConfig,
        seed: int,
        *,
        steps: int = 1,
        callback: Callback | None = None,
        information: Information | None = None,
    ) -> None:
        if information is not None and config.augmentation != "none":
            raise ValueError(
                f"source.augmentation: {config.augmentation!r} is not allowed where nodes decide "
                "apart, must be 'none'"
            )
        self.config, self.seed, self.steps = config, seed, steps
        self.device = torch.device("cpu")
        chosen = np.random.default_rng([seed, *b"draws"])
        parts: list[Episodes] = []
        self._seeds: list[tuple[Scenario, list[int]]] = []
        for scenario in scenarios:
            paths = 1 if information is None else PATHS
            seeds = chosen.choice(FIRST_SEED, -(-config.draws // paths), replace=False).tolist()
            if config.rates == "true":
                instances = [scenario.generate(draw_seed) for draw_seed in seeds]
                part = episodes_of(
                    instances,
                    horizon=config.horizon,
                    bound=False,
                    callback=callback,
                    information=information,
                )
            else:
                part = surrogate_episodes(
                    scenario,
                    seeds,
                    horizon=config.horizon,
                    callback=callback,
                    information=information,
                    paths=paths,
                )
            parts.append(part)
            self._seeds.append((scenario, seeds))
        real = joined_episodes(parts)
        self._real = Pool(0, real, self._lookahead(real), real.draws)
        self._newest = self._real

    def at(self, step: int) -> Pool:
        """Return the pool of a step."""
        if self.config.augmentation == "none":
            return self._real
        number = step // self.config.refresh
        if self._newest.number != number or self._newest is self._real:
            self._newest = self._mixed(number)
        return self._newest

    def to(self, device: torch.device) -> ScenarioSource:
        """Move the pool to a device; return the source."""
        self.device = device
        self._real = self._newest = replace(
            self._real,
            episodes=self._real.episodes.to(device),
            values=lookahead_to(self._real.values, device),
        )
        return self

    @cached_property
    def _augmented(self) -> list[_Augmented]:
        """What synthetic draws are made from; fitted when the first pool is asked for."""
        return [
            _augmented(scenario, seeds, self.config, self.seed) for scenario, seeds in self._seeds
        ]

    def _lookahead(self, episodes: Episodes) -> Lookahead:
        steps = self.config.price_steps
        return lookahead_of(episodes, steps=steps, warm_steps=max(1, steps // 2))[0]

    def _mixed(self, number: int) -> Pool:
        """Return the real draws and the synthetic ones of a stage of the training."""
        generator = seeded(self.seed, f"synthetic {number}")
        progress = min(1.0, number * self.config.refresh / self.steps)
        parts = [part for maker in self._augmented for part in maker.episodes(progress, generator)]
        if not parts:
            return replace(self._real, number=number)
        synthetic = joined_episodes(parts)
        values = lookahead_to(self._lookahead(synthetic), self.device)
        real = self._real
        return Pool(
            number,
            joined_episodes([real.episodes, synthetic.to(self.device)]),
            joined_lookahead([real.values, values]),
            real.real,
        )


@dataclass(frozen=True, eq=False)
class _Augmented:
    """What synthetic draws of a scenario are made from."""

    scenario: Scenario
    instances: tuple[Instance, ...]
    predictor: Predictor | WorldModel | None
    error: float
    exponent: float
    config: SourceConfig

    def episodes(self, progress: float, generator: Generator) -> list[Episodes]:
        """Return synthetic episodes as far as the share at this stage allows: one entry or none."""
        source = cast("Source", self.config.augmentation)
        share_now = share(self.error, progress, highest=self.config.synthetic)
        instances = synthetic_instances(
            source,
            self.instances,
            synthetic_count(len(self.instances), share_now),
            generator,
            predictor=self.predictor,
            scenario=self.scenario,
        )
        if not instances:
            return []
        horizon = self.config.horizon
        return [synthetic_episodes(instances, exponent=self.exponent, horizon=horizon)]


def _augmented(
    scenario: Scenario, seeds: Sequence[int], config: SourceConfig, seed: int
) -> _Augmented:
    """Return what synthetic draws are made from; the predictor's error is that on a fifth of them.

    Raises
    ------
    ValueError
        There are too few draws to hold any out, or too few slots to predict one.
    """
    instances = [scenario.generate(draw_seed) for draw_seed in seeds]
    predictor: Predictor | WorldModel | None = None
    error, name = 0.0, config.augmentation
    if name in ("echo-state", "world-model"):
        if instances[0].slots < 2:
            raise ValueError(
                f"slots: 1 is not allowed with source.augmentation = {name!r}, must be >= 2: "
                "it predicts the next slot"
            )
        held_out = max(1, len(instances) // 5)
        if held_out == len(instances):
            raise ValueError(
                f"source.draws: {len(instances)} is not allowed, must be >= 2 for {name}: "
                "one is held out to measure the predictor"
            )
        models, known = instances[0].models, instances[:-held_out]
        # The error of a predictor that has not seen the held-out draws, then one that has seen all.
        part, whole = requests_and_reach(known), requests_and_reach(instances)
        again = partial(seeded, seed, "predictor")
        if name == "world-model":
            error = world_error(
                fit_world_model(*part, models, again()), known, instances[-held_out:]
            )
            predictor = fit_world_model(*whole, models, again())
        else:
            trial = fit_predictor(*part, models, again())
            error = held_out_error(trial, known, instances[-held_out:]).relative
            predictor = fit_predictor(*whole, models, again())
    return _Augmented(
        scenario, tuple(instances), predictor, error, fitted_exponent(instances[0]), config
    )


def joined_lookahead(parts: Sequence[Lookahead]) -> Lookahead:
    """Return the lookahead of joined episodes, kinds padded to the longest with 0."""
    kinds = max(part.after.shape[2] for part in parts)

    def padded(table: Tensor) -> Tensor:
        return torch.nn.functional.pad(table, (0, 0, 0, kinds - table.shape[2]))

    return Lookahead(
        torch.cat([padded(part.after) for part in parts]),
        torch.cat([padded(part.cost) for part in parts]),
        torch.cat([part.price for part in parts]),
    )
