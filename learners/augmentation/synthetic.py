"""Synthetic episodes, for a learner that has few real ones.

`Source` says where they come from:

    none         there are none
    noise        real episodes with perturbed reach and a few requests drawn anew
    last-value   real episodes up to some slot, then every user's last request and reach persist
    echo-state   real episodes up to some slot, then the predictions of echo state networks
    world-model  the same, of a small network that Adam has fitted
    oracle       the true generator: fresh draws of the scenario

Only requests and reach are made up. Library, links and storage are those of the real episode. The
environment computes caches, delays and expected tables as for any draw. Rates are in closed form
(`finecast.learners.world.draws`), since an imagined channel has no beams.

Knowledge. `oracle` is the scenario; all others see the requests and the reach of real episodes, and
nothing of the scenario or of its demand model. No learner could have the scenario: `oracle` shows
what a perfect predictor would be worth. A *policy* sees the demand model of its episodes, because
the expected tables come from `Demand`, whose preferences hold the coming rankings.

Number. The synthetic share falls with the held-out error of the predictor and over training
(`share`). So a predictor is used as far as its error on held-out data allows, and training ends on
real episodes, without the bias of the predictor. The rule is our own. M. Janner et al., "When to
trust your model" (NeurIPS 2019), show that the error of a model should limit its use. H. Lai et
al., "On effective scheduling of model-based reinforcement learning" (NeurIPS 2021), show that the
share of real samples should rise over training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from finecast.learners.augmentation.predictor import Predictor, imagine, last_requests
from finecast.learners.augmentation.sources import SOURCES, Source
from finecast.learners.augmentation.world_model import WorldModel, imagine_world
from finecast.learners.world.area_draws import Draws
from finecast.learners.world.draws import surrogate_of
from finecast.learners.world.episodes import Episodes, joined_episodes
from finecast.problem.arrays import FloatArray, checked_number
from finecast.problem.instance import Instance

DECIBEL = 20 / math.log(10)
"""Factor from the natural logarithm of an amplitude to dB."""

ORACLE_SEED = 1 << 30
"""First seed of the oracle's draws, above all seeds that reports use."""


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
        Share at the beginning of the training with a predictor without error, in [0, 1).
    tolerance
        Least error with which the share is 0.
    """
    error = checked_number("error", error, low=0, finite=False)
    progress = checked_number("progress", progress, low=0, high=1)
    highest = checked_number("highest", highest, low=0, high=0.99)
    tolerance = checked_number("tolerance", tolerance, above=0)
    return highest * max(0.0, 1.0 - error / tolerance) * (1.0 - progress)


def synthetic_count(real: int, synthetic_share: float) -> int:
    """Return the number of synthetic episodes that are this share of all episodes, rounded."""
    return round(real * synthetic_share / (1.0 - synthetic_share))


def requests_and_reach(instances: Sequence[Instance]) -> tuple[Tensor, Tensor]:
    """Return requests (E, T, K) int64 and reach (E, T, K, N) float64 of instances.

    Parameters
    ----------
    instances
        Instances of equal N, K and T. Reach is sqrt(P_n) max(0, |g_kn| - eps_kn), as in
        `Episodes`.
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
    predictor: Predictor | WorldModel | None = None,
    scenario: Draws | None = None,
    real_slots: tuple[int, int] = (1, 8),
    redrawn: float = 0.1,
    noise_db: float = 1.0,
) -> list[Instance]:
    """Return synthetic instances.

    Parameters
    ----------
    source
        Where they come from, as the module says.
    instances
        The real instances.
    count
        Number of instances to make. The source "none" makes none.
    generator
        Random numbers of all sources.
    predictor
        The sources "echo-state" and "world-model" need it, fitted to the real instances.
    scenario
        The source "oracle" needs it.
    real_slots
        Of predictions: least and most slots at the beginning that stay real. The number is drawn
        evenly for every instance. With T or more the instance is a copy.
    redrawn
        For "noise": probability that a request is replaced by another one of the same slot.
    noise_db
        For "noise": standard deviation of the perturbed reach, dB.

    Raises
    ------
    ValueError
        The source is unknown, or an argument that it needs is missing.
    """
    if source not in SOURCES:
        raise ValueError(f"source: {source!r} is not allowed, must be one of {', '.join(SOURCES)}")
    if source == "none" or count == 0:
        return []
    if source == "oracle":
        if scenario is None:
            raise ValueError("scenario: is missing, 'oracle' draws from it")
        offset = int(torch.randint(ORACLE_SEED, (1,), generator=generator))
        return [scenario.generate(ORACLE_SEED + offset + i) for i in range(count)]
    if not instances:
        raise ValueError(f"instances: is empty, {source!r} needs at least one real instance")
    chosen = torch.randint(len(instances), (count,), generator=generator)
    originals = [instances[i] for i in chosen.tolist()]
    requests, reach = requests_and_reach(originals)
    if source == "noise":
        requests, reach = perturbed(requests, reach, generator, redrawn=redrawn, noise_db=noise_db)
    else:
        least, most = real_slots
        if not 1 <= least <= most:
            raise ValueError(f"real_slots: {real_slots} is not allowed, must be 1 <= least <= most")
        begin = torch.randint(least, most + 1, (count,), generator=generator)
        if source == "last-value":
            requests, reach = persisted(requests, reach, begin)
        elif isinstance(predictor, WorldModel):
            requests, reach = imagine_world(predictor, requests, reach, begin, generator)
        elif predictor is not None:
            requests, reach = imagine(predictor, requests, reach, begin, generator)
        else:
            raise ValueError(f"predictor: is missing, {source!r} samples from it")
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
        At least one instance; all have equal N, K and T.
    exponent
        c of the closed form, such as `finecast.learners.world.draws.fitted_exponent` of a real
        instance.
    horizon, dtype
        As in `finecast.learners.world.draws.episodes_of`.
    """
    return joined_episodes(
        [surrogate_of(instance, exponent, horizon=horizon, dtype=dtype) for instance in instances]
    )


def perturbed(
    requests: Tensor,
    reach: Tensor,
    generator: torch.Generator,
    *,
    redrawn: float = 0.1,
    noise_db: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return copies with noise: some requests are redrawn, every reach is log-normal around itself.

    A redrawn request becomes that of a user drawn evenly in the same slot. So the popularity of the
    models in the slot stays the same, and no model appears that nobody requested.

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
    copied_user = torch.randint(requests.shape[2], requests.shape, generator=generator)
    is_redrawn = torch.rand(requests.shape, generator=generator) < redrawn
    noise = torch.randn(reach.shape, generator=generator, dtype=torch.float64)
    return (
        torch.where(is_redrawn, requests.gather(2, copied_user), requests),
        reach * (noise * (noise_db / DECIBEL)).exp(),
    )


def persisted(requests: Tensor, reach: Tensor, begin: Tensor) -> tuple[Tensor, Tensor]:
    """Return copies in which the last request and reach of every user persist from slot `begin` on.

    Parameters
    ----------
    requests, reach
        (E, T, K) and (E, T, K, N).
    begin
        (E,) int64, at least 1.
    """
    draws, slots = requests.shape[:2]
    copied = torch.minimum(torch.arange(slots), begin[:, None] - 1)  # (E, T) slot that is repeated
    draw = torch.arange(draws)[:, None]
    repeated = (torch.arange(slots) >= begin[:, None])[..., None]
    last = last_requests(requests)[draw, copied]
    return torch.where(repeated, last, requests), reach[draw, copied]


def with_observations(
    instance: Instance, requests: np.ndarray, reach: FloatArray, prefix: str = ""
) -> Instance:
    """Return the instance with other requests and another reach.

    Its nodes have one antenna and channels without error that attain the reach. Rates in closed
    form depend on nothing else of a channel.

    Parameters
    ----------
    instance
        It gives library, network and demand model.
    requests, reach
        (T, K) and (T, K, N), the new requests and reach.
    prefix
        Beginning of the new name, before the old one.
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
    """Return (T, K, N), the reach of an instance."""
    amplitude = np.linalg.norm(instance.normalised_channel, axis=3) - instance.normalised_error
    return np.asarray(np.sqrt(instance.network.power) * np.maximum(amplitude, 0.0))
