"""Where training episodes come from: a pool of draws, a function of the seed and the step alone.

`source.at(step)` returns the whole pool that is in force in that step. A learner draws from it with
its own generator. So a resumed run finds the same episodes although they are not saved. Real draws
come first and stay. A training begins with a few of them, and their number doubles in every step
until all are there: so it need not wait for all. Then synthetic ones
(`finecast.learners.augmentation.synthetic`) are made beside them, anew from time to time, fewer as
the training goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
from finecast.learners.world.area_draws import Draws
from finecast.learners.world.draws import (
    FITTED_DRAWS,
    episodes_of,
    fitted_exponent,
    mean_exponent,
    surrogate_episodes,
)
from finecast.learners.world.episodes import Episodes, joined_episodes
from finecast.learners.world.lookahead import Lookahead, lookahead_of
from finecast.learners.world.pool import Pool
from finecast.problem.instance import Instance
from finecast.solvers.information import Information
from finecast.solvers.result import Callback, Progress
from finecast.solvers.workers import ALONE, Workers

PATHS = 4
"""Paths of requests of every network, where nodes decide apart."""

FIRST_DRAWS = 4
"""Draws of a scenario in the first step, at least; where nodes decide apart, those of a network."""


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
        Receives the progress: what is prepared, after every draw.
    information
        What the nodes see, if they decide apart. A network's values take seconds then, so every
        network has `PATHS` paths of requests.
    workers
        Who makes the draws.
    """

    def __init__(
        self,
        scenarios: Sequence[Draws],
        config: SourceConfig,
        seed: int,
        *,
        steps: int = 1,
        callback: Callback | None = None,
        information: Information | None = None,
        workers: Workers = ALONE,
    ) -> None:
        if information is not None and config.augmentation != "none":
            raise ValueError(
                f"source.augmentation: {config.augmentation!r} is not allowed where nodes decide "
                "apart, must be 'none'"
            )
        self.config, self.seed, self.steps = config, seed, steps
        self.device = torch.device("cpu")
        self._callback, self._information, self._workers = callback, information, workers
        # All seeds are chosen now, the draws are made when a step asks for them.
        chosen = np.random.default_rng([seed, *b"draws"])
        self._paths = 1 if information is None else PATHS
        networks = -(-config.draws // self._paths)
        self._seeds: list[tuple[Draws, list[int]]] = [
            (scenario, chosen.choice(FIRST_SEED, networks, replace=False).tolist())
            for scenario in scenarios
        ]
        for scenario, seeds in self._seeds:
            check_augmentation(config.augmentation, scenario.generate(seeds[0]).slots, len(seeds))
        self._networks = _doubled(-(-FIRST_DRAWS // self._paths), networks)
        self._exponents: list[float] = []
        self._parts: list[Pool] = []
        self._newest: tuple[int, Pool] | None = None
        self._real(0)

    def at(self, step: int) -> Pool:
        """Return the pool of a step."""
        stage = min(step, len(self._networks) - 1)
        last = stage == len(self._networks) - 1
        if not last or self.config.augmentation == "none":
            return self._kept(stage, lambda: self._real(stage))
        refreshed = step // self.config.refresh
        return self._kept(stage + refreshed, lambda: self._mixed(stage, refreshed))

    def make_all(self) -> ScenarioSource:
        """Make all real draws now, so that no timed step makes any; return the source."""
        self._real(len(self._networks) - 1)
        return self

    def to(self, device: torch.device) -> ScenarioSource:
        """Move the pools to a device; return the source."""
        self.device, self._newest = device, None
        return self

    def _kept(self, number: int, make: Callable[[], Pool]) -> Pool:
        """Return the pool of a number; that which was asked for last is not made again."""
        if self._newest is None or self._newest[0] != number:
            self._newest = number, make()
        return self._newest[1]

    def _real(self, stage: int) -> Pool:
        """Return the real draws of a stage of the training's beginning."""
        while len(self._parts) <= stage:
            episodes = self._next_part()
            self._parts.append(Pool(0, episodes, partial(self._lookahead, episodes), 0))
        parts = self._parts[: stage + 1]
        episodes = joined_episodes([part.episodes for part in parts]).to(self.device)

        def values() -> Lookahead:
            return lookahead_to(joined_lookahead([part.values for part in parts]), self.device)

        return Pool(stage, episodes, values, episodes.draws)

    def _next_part(self) -> Episodes:
        """Return the draws that a stage adds to those before it."""
        stage = len(self._parts)
        first = self._networks[stage - 1] if stage else 0
        parts = []
        for i, (scenario, seeds) in enumerate(self._seeds):
            added = seeds[first : self._networks[stage]]
            if self.config.rates == "true":
                instances = [scenario.generate(draw_seed) for draw_seed in added]
                part = episodes_of(
                    instances,
                    horizon=self.config.horizon,
                    bound=False,
                    callback=self._callback,
                    information=self._information,
                    workers=self._workers,
                )
            else:
                if len(self._exponents) == i:
                    self._tell(f"training draws: fit of their rates to {FITTED_DRAWS} slots")
                    self._exponents.append(mean_exponent(scenario, seeds))
                part = surrogate_episodes(
                    scenario,
                    added,
                    horizon=self.config.horizon,
                    exponent=self._exponents[i],
                    callback=self._callback,
                    information=self._information,
                    paths=self._paths,
                    workers=self._workers,
                )
            parts.append(part)
        return joined_episodes(parts)

    def _tell(self, stage: str) -> None:
        """Say what is prepared."""
        if self._callback is not None:
            self._callback(Progress(stage, 0, 0))

    @cached_property
    def _augmented(self) -> list[_Augmented]:
        """What synthetic draws are made from; fitted when the first of them are asked for."""
        self._tell(f"training draws: fit of what makes synthetic ones ({self.config.augmentation})")
        return [
            _augmented(scenario, seeds, self.config, self.seed) for scenario, seeds in self._seeds
        ]

    def _lookahead(self, episodes: Episodes) -> Lookahead:
        """Return the values of all slots."""
        self._tell(f"prices of storage of {episodes.draws} training draws")
        steps = self.config.price_steps
        return lookahead_of(episodes, steps=steps, warm_steps=max(1, steps // 2))[0]

    def _mixed(self, stage: int, refreshed: int) -> Pool:
        """Return all real draws, and the synthetic ones of a part of the training."""
        real = self._real(stage)
        generator = seeded(self.seed, f"synthetic {refreshed}")
        progress = min(1.0, refreshed * self.config.refresh / self.steps)
        made = [part for maker in self._augmented for part in maker.episodes(progress, generator)]
        number = stage + refreshed
        if not made:
            return replace(real, number=number)
        synthetic = joined_episodes(made)

        def values() -> Lookahead:
            added = lookahead_to(self._lookahead(synthetic), self.device)
            return joined_lookahead([real.values, added])

        episodes = joined_episodes([real.episodes, synthetic.to(self.device)])
        return Pool(number, episodes, values, real.real)


def _doubled(first: int, last: int) -> list[int]:
    """Return first, twice as many, and so on, until all are there."""
    counts = [min(first, last)]
    while counts[-1] < last:
        counts.append(min(2 * counts[-1], last))
    return counts


def check_augmentation(name: str, slots: int, draws: int) -> None:
    """Refuse draws that a predictor cannot learn from.

    Parameters
    ----------
    name
        The source of synthetic draws.
    slots
        T.
    draws
        Real draws of a scenario.

    Raises
    ------
    ValueError
        There are too few draws to hold any out, or too few slots to predict one.
    """
    if name not in ("echo-state", "world-model"):
        return
    if slots < 2:
        raise ValueError(
            f"slots: 1 is not allowed with source.augmentation = {name!r}, must be >= 2: "
            "it predicts the next slot"
        )
    if draws < 2:
        raise ValueError(
            f"source.draws: {draws} is not allowed, must be >= 2 for {name}: "
            "one is held out to measure the predictor"
        )


@dataclass(frozen=True, eq=False)
class _Augmented:
    """What synthetic draws of a scenario are made from."""

    scenario: Draws
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
    scenario: Draws, seeds: Sequence[int], config: SourceConfig, seed: int
) -> _Augmented:
    """Return what synthetic draws are made from; the error is that on a fifth of the draws."""
    instances = [scenario.generate(draw_seed) for draw_seed in seeds]
    predictor: Predictor | WorldModel | None = None
    error, name = 0.0, config.augmentation
    if name in ("echo-state", "world-model"):
        held_out = max(1, len(instances) // 5)
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
