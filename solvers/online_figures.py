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

Kappa = float | Literal["auto"]


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
    kappa
        What the penalties were multiplied by.
    unknown, luck_of_places
        As in `PathBound`, s; None and 0 where it was not asked for.
    """

    network: int
    path: int
    online: float
    hindsight: float
    luck: float
    kappa: float = 1.0
    unknown: float | None = None
    luck_of_places: float = 0.0


@dataclass(frozen=True)
class ControlledGap:
    """How far a method is from the bound on one path.

    Attributes
    ----------
    network, path
        Seed and path number.
    delay, penalties, bound
        Delay of the method, penalties along its caches, and B(path), s.
    penalty_of_places, unknown
        The penalty of where users are along its caches, and B(path) with it, s; 0 and None where
        it was not asked for.
    """

    network: int
    path: int
    delay: float
    penalties: float
    bound: float
    penalty_of_places: float = 0.0
    unknown: float | None = None

    @property
    def gap(self) -> float:
        """The controlled gap, s; never below zero but for rounding."""
        return self.delay - self.penalties - self.bound

    @property
    def unknown_gap(self) -> float | None:
        """The same to the bound for unknown positions, s."""
        if self.unknown is None:
            return None
        return self.delay - self.penalties - self.penalty_of_places - self.unknown


@dataclass(frozen=True)
class OnlineBound:
    """Bounds of a scenario in the mean over its paths.

    Attributes
    ----------
    figures
        Of every path that was finished, in the order of the work.
    kappa
        The option: a number, or "auto".
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
    kappa: Kappa
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

    @property
    def unknown(self) -> Estimate | None:
        """The online bound for unknown positions; None where it was not asked for."""
        return self._of_places(lambda unknown, path: unknown)

    @property
    def value_of_positions(self) -> Estimate | None:
        """What the online bound, less the luck of places, is below it, path by path."""
        return self._of_places(lambda unknown, path: unknown - (path.online - path.luck_of_places))

    def _of_places(self, figure: Callable[[float, PathFigures], float]) -> Estimate | None:
        found = [path for path in self.figures if path.unknown is not None]
        if not found:
            return None
        values = [figure(path.unknown, path) for path in found if path.unknown is not None]
        return between_networks([path.network for path in found], values)

    def unknown_gap(self, method: str) -> Estimate | None:
        """Return the mean controlled gap of a method to the bound for unknown positions."""
        found = self.gaps[method]
        values = [gap.unknown_gap for gap in found if gap.unknown_gap is not None]
        return between_networks([gap.network for gap in found], values) if values else None

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
        unknown, positions = self.unknown, self.value_of_positions
        places: dict[str, Any] = {}
        if unknown is not None and positions is not None:
            places = {
                "online_bound_unknown_positions": unknown.mean,
                "unknown_positions_interval": unknown.interval,
                "value_of_positions": positions.mean,
                "value_of_positions_interval": positions.interval,
            }
        return {
            "online_bound": self.online.mean,
            "interval": self.online.interval,
            "hindsight_bound": self.hindsight.mean,
            "hindsight_interval": self.hindsight.interval,
            "plain_hindsight_bound": self.plain_hindsight.mean,
            "plain_hindsight_interval": self.plain_hindsight.interval,
            "value_of_information": self.value_of_information.mean,
            "value_of_information_interval": self.value_of_information.interval,
            **places,
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
                    **self._gap_of_places(method),
                }
                for method, found in self.gaps.items()
            },
            "wall_s": self.wall_s,
            "cpu_s": self.cpu_s,
        }

    def _gap_of_places(self, method: str) -> dict[str, Any]:
        gap = self.unknown_gap(method)
        if gap is None:
            return {}
        return {
            "above_online_bound_unknown_positions": gap.mean,
            "unknown_positions_interval": gap.interval,
        }

    def _network(self, seed: int) -> dict[str, Any]:
        own = replace(self, figures=tuple(path for path in self.figures if path.network == seed))
        return {
            "seed": seed,
            "paths": len(own.figures),
            "kappa": own.figures[0].kappa,
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


def between_networks(network: Sequence[int], value: Sequence[float]) -> Estimate:
    """Return the same for figures whose luck is that of the network: one network has no interval.

    Parameters
    ----------
    network, value
        (P,) network and value of every path.
    """
    found = clustered_mean(network, value)
    return found if len(set(network)) > 1 else replace(found, interval=None)
