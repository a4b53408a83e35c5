"""Making episodes: from instances with their true rates, or from a closed form of the rates.

`episodes_of` computes every slot's rates from that slot alone by the machinery of the online
methods (`solvers.online`). That takes seconds per draw. `surrogate_episodes` replaces beamforming
by the closed form of `solvers.placement.expected`,

    snr_U(Q) = |U|^c / sum_{k in U} 1 / snr_k(Q),    snr_k(Q) = (sum_{n in Q} reach_kn)^2,

c fitted on true tables of the scenario, which takes milliseconds: as many training draws as one
likes. `slot_of` makes the `Slot` of an online method's observation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learners.episodes import SLOT_TENSORS, Episodes, MOST_NODES, Slot, joined_episodes
from problem.arrays import FloatArray, IntArray
from problem.demand import Demand
from problem.instance import Instance, user_groups
from problem.scenario import Scenario
from problem.sinr import rate
from problem.tolerances import LOWEST_SNR
from solvers.bounds import price_bound
from solvers.online import (
    Observation,
    Prior,
    joined,
    observation_of,
    prepare_slots,
    prior_of,
)
from solvers.placement.chains import Chains, chains, reach_times, source_times
from solvers.placement.expected import (
    _share,
    coming_tables,
    group_exponent,
    kinds,
    user_reach,
)
from solvers.placement.greedy_online import greedy_by_popularity
from solvers.restrictions import check_restrictions, restricted_instance
from solvers.result import Callback, Progress

Arrays = dict[str, NDArray[Any]]

HORIZON = 3
"""Coming slots in the expected tables."""


def episodes_of(
    instances: Sequence[Instance],
    *,
    horizon: int = HORIZON,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    seed: int = 0,
    bound: bool = True,
    dtype: torch.dtype = torch.float32,
    callback: Callback | None = None,
    rate_cache: str | None = None,
    processes: int = 1,
) -> Episodes:
    """Return the episodes of instances, with the rates that the online methods get.

    Parameters
    ----------
    instances
        Of equal N, K and T, at most 8 nodes, sequential delivery and schedule.
    horizon
        H, coming slots in the expected tables.
    beamforming, restrict, seed, rate_cache
        As in `solvers.online.prepare_slots`.
    bound
        Compute the certified lower bounds of the total delays.
    dtype
        Of the expected tables.
    callback
        Told after every draw.
    processes
        Processes that share the draws.

    Raises
    ------
    ValueError
        An instance is not of that sort, or a user group cannot be served.
    """
    raise NotImplementedError


def surrogate_episodes(
    scenario: Scenario,
    seeds: Sequence[int],
    *,
    horizon: int = HORIZON,
    exponent: float | None = None,
    dtype: torch.dtype = torch.float32,
    callback: Callback | None = None,
) -> Episodes:
    """Return episodes whose rates come from the closed form; `bound` is NaN.

    Parameters
    ----------
    scenario
        Where the instances are drawn from.
    seeds
        One for each draw.
    horizon, dtype, callback
        As in `episodes_of`.
    exponent
        c; None fits it to the true rates of two slots of the first seed (`fitted_exponent`).
    """
    raise NotImplementedError


def slot_of(
    observation: Observation, *, horizon: int = HORIZON, dtype: torch.dtype = torch.float32
) -> Slot:
    """Return what an online method observes as a slot of one draw (E = 1).

    Parameters
    ----------
    observation
        What is known in slot t.
    horizon, dtype
        As in `episodes_of`.
    """
    raise NotImplementedError


def fitted_exponent(instance: Instance, slots: Iterable[int] = (0,)) -> float:
    """Return the mean over some slots of the exponent c fitted to their true rates."""
    raise NotImplementedError
