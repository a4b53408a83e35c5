"""Synthetic episodes for a learner that is short of real ones, and what they cost in truth.

One switch, `Source`, says where they come from:

    none         nowhere
    noise        real episodes, their reach perturbed and a few requests drawn anew
    echo-state   real episodes up to some slot, then what echo state networks predict
    oracle       the true generator: fresh draws of the scenario

Only what is random is made up: requests and reach. Library, links and storage are those of the
real episode; caches, delays and expected tables are computed by the environment as for any draw,
with rates in closed form (`finecast.learners.world.draws`), since beams of an imagined channel do
not exist.

What each is told. `noise` and `echo-state` see the requests and the reach of the real episodes
that they are given, and nothing of the scenario or of its demand model. `oracle` is the scenario:
no learner could have it, it bounds what a perfect predictor is worth. A *policy* is told whatever
demand model its episodes carry: expected tables come from `Demand`, whose preferences hold the
coming rankings.

How many. The synthetic share falls with the held-out error of the predictor and over training
(`share`): a model is trusted as far as its error on held-out data allows, and training ends on
real episodes, so that the bias of the model ends too. The rule is our own choice. That model error
should set how far a model is used is the lesson of M. Janner et al., "When to trust your model"
(NeurIPS 2019), that the real share should rise over training that of H. Lai et al., "On effective
scheduling of model-based reinforcement learning" (NeurIPS 2021).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from finecast.learners.augmentation.predictor import Predictor, imagine
from finecast.learners.world.draws import surrogate_of
from finecast.learners.world.episodes import Episodes, joined_episodes
from finecast.problem.arrays import FloatArray, checked_number
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario

Source = Literal["none", "noise", "echo-state", "oracle"]

SOURCES: tuple[Source, ...] = ("none", "noise", "echo-state", "oracle")

DECIBEL = 20 / math.log(10)
"""dB of a natural logarithm of an amplitude."""

ORACLE_SEED = 1 << 30
"""Fresh draws of the oracle have seeds from here on, away from those of anything reported."""


def share(error: float, progress: float, *, highest: float = 0.5, tolerance: float = 0.5) -> float:
    """Return the synthetic share, highest max(0, 1 - error / tolerance) (1 - progress).

    Parameters
    ----------
    error
        Held-out error of the predictor, at least 0, such as
        `finecast.learners.augmentation.error.HeldOutError.relative`.
    progress
        Part of the training that is over, in [0, 1].
    highest
        In [0, 1), share at the beginning with a predictor without error.
    tolerance
        Error from which on nothing synthetic is used.
    """
    error = checked_number("error", error, low=0, finite=False)
    progress = checked_number("progress", progress, low=0, high=1)
    highest = checked_number("highest", highest, low=0, high=0.99)
    tolerance = checked_number("tolerance", tolerance, above=0)
    return highest * max(0.0, 1.0 - error / tolerance) * (1.0 - progress)


def synthetic_count(real: int, synthetic_share: float) -> int:
    """Return how many synthetic episodes make up the share of all, rounded."""
    return round(real * synthetic_share / (1.0 - synthetic_share))


def requests_and_reach(instances: Sequence[Instance]) -> tuple[Tensor, Tensor]:
    """Return requests (E, T, K) int64 and reach (E, T, K, N) float64 of instances.

    Parameters
    ----------
    instances
        Of equal N, K and T. Reach is sqrt(P_n) max(0, |g_kn| - eps_kn), as in `Episodes`.
    """
    reach = [_reach(instance) for instance in instances]
    requests = [np.asarray(instance.requests) for instance in instances]
    return torch.from_numpy(np.stack(requests)), torch.from_numpy(np.stack(reach))


def synthetic_instances(
    source: Source,
    instances: Sequence[Instance],
    count: int,
    generator: torch.Generator,
    *,
    predictor: Predictor | None = None,
    scenario: Scenario | None = None,
    real_slots: tuple[int, int] = (1, 8),
    redrawn: float = 0.1,
    noise_db: float = 1.0,
) -> list[Instance]:
    """Return synthetic instances.

    Parameters
    ----------
    source
        See the module.
    instances
        Real ones.
    count
        How many to make; none if the source is "none".
    generator
        Source of everything random.
    predictor
        Needed by "echo-state"; fitted to the real ones.
    scenario
        Needed by "oracle".
    real_slots
        For "echo-state": least and most slots at the beginning that stay real, drawn evenly for
        every instance; with T or more an instance is a copy.
    redrawn
        For "noise": probability that a request is replaced by another one of the same slot.
    noise_db
        For "noise": standard deviation of the perturbed reach, dB.

    Raises
    ------
    ValueError
        The source is unknown, or what it needs is missing.
    """
    if source not in SOURCES:
        raise ValueError(f"source: {source!r} is not allowed, must be one of {', '.join(SOURCES)}")
    if source == "none" or count == 0:
        return []
    if source == "oracle":
        if scenario is None:
            raise ValueError("scenario: is missing, 'oracle' draws from it")
        first = int(torch.randint(ORACLE_SEED, (1,), generator=generator))
        return [scenario.generate(ORACLE_SEED + first + i) for i in range(count)]
    if not instances:
        raise ValueError(f"instances: is empty, {source!r} needs at least one real instance")
    chosen = torch.randint(len(instances), (count,), generator=generator)
    originals = [instances[i] for i in chosen.tolist()]
    requests, reach = requests_and_reach(originals)
    if source == "noise":
        requests, reach = perturbed(requests, reach, generator, redrawn=redrawn, noise_db=noise_db)
    else:
        if predictor is None:
            raise ValueError("predictor: is missing, 'echo-state' samples from it")
        least, most = real_slots
        if not 1 <= least <= most:
            raise ValueError(f"real_slots: {real_slots} is not allowed, must be 1 <= least <= most")
        begin = torch.randint(least, most + 1, (count,), generator=generator)
        requests, reach = imagine(predictor, requests, reach, begin, generator)
    return [
        with_observations(original, requests[i].numpy(), reach[i].numpy(), f"{source} of ")
        for i, original in enumerate(originals)
    ]


def synthetic_episodes(
    instances: Sequence[Instance],
    *,
    exponent: float,
    horizon: int = 3,
    dtype: torch.dtype = torch.float32,
) -> Episodes:
    """Return the episodes of instances with rates in closed form; `bound` is NaN.

    Parameters
    ----------
    instances
        At least one, of equal N, K and T.
    exponent
        c of the closed form, such as from `finecast.learners.world.draws.fitted_exponent` of a real
        instance.
    horizon, dtype
        As in `finecast.learners.world.draws.episodes_of`.
    """
    return joined_episodes(
        [surrogate_of(one, exponent, horizon=horizon, dtype=dtype) for one in instances]
    )


def perturbed(
    requests: Tensor,
    reach: Tensor,
    generator: torch.Generator,
    *,
    redrawn: float = 0.1,
    noise_db: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return copies with noise: some requests redrawn, every reach log-normal around its own.

    A redrawn request becomes that of a user drawn evenly in the same slot, so that the popularity
    of the models in the slot stays what it was; no model is requested that nobody asked for.

    Parameters
    ----------
    requests, reach
        (E, T, K) and (E, T, K, N).
    generator
        Source of the noise.
    redrawn
        Probability that a request is redrawn.
    noise_db
        Standard deviation of the reach, dB.
    """
    other = torch.randint(requests.shape[2], requests.shape, generator=generator)
    anew = torch.rand(requests.shape, generator=generator) < redrawn
    noise = torch.randn(reach.shape, generator=generator, dtype=torch.float64)
    return (
        torch.where(anew, requests.gather(2, other), requests),
        reach * (noise * (noise_db / DECIBEL)).exp(),
    )


def with_observations(
    instance: Instance, requests: np.ndarray, reach: FloatArray, prefix: str = ""
) -> Instance:
    """Return the instance with other requests (T, K) and another reach (T, K, N).

    Its nodes have one antenna and channels without error that attain the reach: all that rates in
    closed form look at.

    Parameters
    ----------
    instance
        Gives library, network and demand model.
    requests, reach
        What is seen instead.
    prefix
        Put before the name.
    """
    network = instance.network
    power = np.maximum(network.power, np.finfo(float).tiny)
    amplitude = reach * np.sqrt(network.noise_power / power)
    channel = amplitude[..., None].astype(np.complex128)
    return replace(
        instance,
        requests=requests,
        channel_estimate=channel,
        channel_error=np.zeros_like(amplitude),
        channel_true=channel,
        name=prefix + instance.name,
        seed=None,
    )


def _reach(instance: Instance) -> FloatArray:
    amplitude = np.linalg.norm(instance.normalised_channel, axis=3) - instance.normalised_error
    return np.asarray(np.sqrt(instance.network.power) * np.maximum(amplitude, 0.0))
