"""What an online bound says: figures of paths, their means with intervals, gaps of methods."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
"""Of every interval."""

Ending = Literal["completed", "time_limit", "interrupted"]


@dataclass(frozen=True)
class Estimate:
    """A mean over paths with its interval.

    Attributes
    ----------
    mean
        The mean of the networks' means, s.
    interval
        Lower and upper end, s; None where one figure alone says nothing of the spread.
    """

    mean: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class PathFigures:
    """The figures of one path.

    Attributes
    ----------
    network, path
        Seed and path number.
    online, hindsight
        As in `PathBound`, s.
    luck
        Penalties of caches in which every node holds everything, s: the path's control variate.
    """

    network: int
    path: int
    online: float
    hindsight: float
    luck: float


@dataclass(frozen=True)
class ControlledGap:
    """How far a method is from the bound on one path.

    Attributes
    ----------
    network, path
        Seed and path number.
    delay, penalties, bound
        Delay of the method, penalties along its caches, and B(path), s.
    """

    network: int
    path: int
    delay: float
    penalties: float
    bound: float

    @property
    def gap(self) -> float:
        """The controlled gap, s; never below zero but for rounding."""
        return self.delay - self.penalties - self.bound


@dataclass(frozen=True)
class OnlineBound:
    """Bounds of a scenario in the mean over its paths.

    Attributes
    ----------
    figures
        Of every path that was finished, in the order of the work.
    kappa
        What the penalties were multiplied by.
    asked
        Paths asked for.
    ended
        Why it ended; a part of the paths is a part in their order, whatever their bounds are.
    wall_s, cpu_s
        Seconds it took.
    gaps
        By method, its distance to the bound on the same paths.
    """

    figures: tuple[PathFigures, ...]
    kappa: float
    asked: int
    ended: Ending
    wall_s: float
    cpu_s: float
    gaps: dict[str, tuple[ControlledGap, ...]]

    @property
    def online(self) -> Estimate:
        """The online bound."""
        return self._mean(lambda path: path.online)

    @property
    def hindsight(self) -> Estimate:
        """The hindsight bound on the same paths, less their luck."""
        return self._mean(lambda path: path.hindsight - path.luck)

    @property
    def plain_hindsight(self) -> Estimate:
        """The hindsight bound on the same paths: the same in the mean, but for more noise."""
        return self._mean(lambda path: path.hindsight)

    @property
    def value_of_information(self) -> Estimate:
        """What the hindsight bound is below the online bound, path by path."""
        return self._mean(lambda path: path.online - (path.hindsight - path.luck))

    def gap(self, method: str) -> Estimate:
        """Return the mean controlled gap of a method."""
        found = self.gaps[method]
        return clustered_mean([gap.network for gap in found], [gap.gap for gap in found])

    def _mean(self, figure: Callable[[PathFigures], float]) -> Estimate:
        return clustered_mean(
            [path.network for path in self.figures], [figure(path) for path in self.figures]
        )

    def as_dict(self) -> dict[str, Any]:
        """Return everything as JSON values."""
        networks = dict.fromkeys(path.network for path in self.figures)
        return {
            "online_bound": self.online.mean,
            "interval": self.online.interval,
            "hindsight_bound": self.hindsight.mean,
            "hindsight_interval": self.hindsight.interval,
            "plain_hindsight_bound": self.plain_hindsight.mean,
            "plain_hindsight_interval": self.plain_hindsight.interval,
            "value_of_information": self.value_of_information.mean,
            "value_of_information_interval": self.value_of_information.interval,
            "confidence": CONFIDENCE,
            "kappa": self.kappa,
            "paths_used": len(self.figures),
            "paths_asked": self.asked,
            "ended": self.ended,
            "networks": [self._network(seed) for seed in networks],
            "methods": {
                method: {
                    "delay": clustered_mean(
                        [gap.network for gap in found], [gap.delay for gap in found]
                    ).mean,
                    "above_online_bound": self.gap(method).mean,
                    "interval": self.gap(method).interval,
                    "least_gap": min(gap.gap for gap in found),
                }
                for method, found in self.gaps.items()
            },
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
        }

    def _network(self, seed: int) -> dict[str, Any]:
        own = replace(self, figures=tuple(path for path in self.figures if path.network == seed))
        return {
            "seed": seed,
            "paths": len(own.figures),
            "online_bound": own.online.mean,
            "hindsight_bound": own.hindsight.mean,
            "value_of_information": own.value_of_information.mean,
        }


def clustered_mean(network: Sequence[int], value: Sequence[float]) -> Estimate:
    """Return the mean of the networks' means with a Student interval.

    Paths of one network are not independent of one another: with two networks or more, the
    networks' means are what is counted; with one, its paths.

    Parameters
    ----------
    network, value
        (P,) network and value of every path.
    """
    label, values = np.asarray(network), np.asarray(value, dtype=np.float64)
    means = np.array([values[label == seed].mean() for seed in dict.fromkeys(network)])
    counted = means if len(means) > 1 else values
    mean = float(means.mean())
    if len(counted) < 2:
        return Estimate(mean, None)
    spread = float(counted.std(ddof=1)) / np.sqrt(len(counted))
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(counted) - 1)) * spread
    return Estimate(mean, (mean - half, mean + half))
