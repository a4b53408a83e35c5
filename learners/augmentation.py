"""Synthetic episodes for a learner that is short of real ones, and what they cost in truth.

One switch, `Source`, says where they come from:

    none         nowhere
    noise        real episodes, their reach perturbed and a few requests drawn anew
    echo-state   real episodes up to some slot, then what echo state networks predict
    oracle       the true generator: fresh draws of the scenario

Only what is random is made up: requests and reach. Library, links and storage are those of the
real episode; caches, delays and expected tables are computed by the environment as for any draw,
with rates in closed form (`learners.draws`), since beams of an imagined channel do not exist.

What each is told. `noise` and `echo-state` see the requests and the reach of the real episodes
that they are given, and nothing of the scenario or of its demand model. `oracle` is the scenario:
no learner could have it, it bounds what a perfect predictor is worth. A *policy* is told whatever
demand model its episodes carry: expected tables come from `Demand`, whose preferences hold the
coming rankings. Where requests have dynamics to be learnt, a policy that is told them leaves a
predictor nothing to add; `told_persistence` takes the preferences out of an instance and leaves
the persistence, estimated from requests, so that real and synthetic episodes tell alike.

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
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from learners.draws import _surrogate_of
from learners.environment import NodePolicy, roll
from learners.episodes import Episodes, joined_episodes
from learners.predictor import (
    Predictor,
    imagine,
    log_loss,
    next_log_reach,
    next_requests,
    persistence_of,
    repeat_requests,
)
from problem.arrays import FloatArray, checked_number
from problem.demand import Demand, forecast
from problem.instance import Instance
from problem.scenario import Scenario

Source = Literal["none", "noise", "echo-state", "oracle"]

SOURCES: tuple[Source, ...] = ("none", "noise", "echo-state", "oracle")

ORACLE_SEED = 1 << 30
"""Fresh draws of the oracle have seeds from here on, away from those of anything reported."""

DECIBEL = 20 / math.log(10)
"""dB of a natural logarithm of an amplitude."""


@dataclass(frozen=True)
class HeldOutError:
    """How well a predictor foretells episodes that it has not seen.

    Attributes
    ----------
    request, persistence, uniform
        Log-loss of the next request, nats: of the predictor, of the last request repeated with the
        probability seen in training, and of all models alike.
    truth
        Log-loss of the true forecast, nats. For reports: no learner knows it.
    distance
        Mean total variation between predicted and true distribution, in [0, 1].
    reach_db
        Root mean square error of the next reach, dB.
    reach_unchanged_db
        That of predicting no change, dB.
    reward
        Error of the reward: where delays are predicted, the root mean square error over their
        deviation (`learners.reward_prediction.reward_error`); where they are computed, how far the
        mean delay of imagined episodes is off, such as |reward| of `measured_bias`.
    """

    request: float
    persistence: float
    uniform: float
    truth: float
    distance: float
    reach_db: float
    reach_unchanged_db: float
    reward: float = 0.0

    @property
    def relative(self) -> float:
        """The larger of two errors, each 0 at best and 1 where nothing is known.

        Requests: log-loss above that of persistence, in units of that of all models alike; 0 when
        below. Reward: as it is. Uses nothing that a learner could not know.
        """
        return max((self.request - self.persistence) / self.uniform, self.reward, 0.0)


@dataclass(frozen=True)
class Bias:
    """What a share of synthetic episodes does to what a learner sees, in the mean.

    Attributes
    ----------
    share
        Synthetic share in [0, 1].
    request
        Total variation between the distribution of the next request that the mixture follows and
        the true one.
    reach_db
        Root mean square error of the expected next reach over the mixture, dB; that of a real
        slot is 0.
    reward
        Mean delay under a fixed policy in the mixture over that in real episodes, less 1.
    """

    share: float
    request: float
    reach_db: float
    reward: float


def share(error: float, progress: float, *, highest: float = 0.5, tolerance: float = 0.5) -> float:
    """Return the synthetic share, highest max(0, 1 - error / tolerance) (1 - progress).

    Parameters
    ----------
    error
        Held-out error of the predictor, at least 0, such as `HeldOutError.relative`.
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
        every instance (at most T).
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
        c of the closed form, such as from `learners.draws.fitted_exponent` of a real instance.
    horizon, dtype
        As in `learners.draws.episodes_of`.
    """
    return joined_episodes([_surrogate_of(one, exponent, horizon, dtype) for one in instances])


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


def told_persistence(instance: Instance, persistence: float) -> Instance:
    """Return the instance with a demand model that knows no preference, only persistence.

    Parameters
    ----------
    instance
        The instance; its requests stay as they are.
    persistence
        Probability that a request repeats the last, such as from `persistence_of`.
    """
    demand, models = instance.demand, instance.models
    even = np.full(demand.preference.shape, 1.0 / models)
    # persistence_of counts repeats of any cause; a fresh draw repeats with probability 1 / M.
    own = max(persistence * models - 1.0, 0.0) / max(models - 1.0, 1.0)
    return replace(instance, demand=Demand(even, min(own, 1.0), demand.activity))


def held_out_error(
    predictor: Predictor,
    train: Sequence[Instance],
    held_out: Sequence[Instance],
    *,
    reward: float = 0.0,
) -> HeldOutError:
    """Return the errors of the predictor on instances that it was not fitted to.

    Parameters
    ----------
    predictor
        Fitted to `train`.
    train
        What persistence is estimated from.
    held_out
        What is foretold. Only `truth` and `distance` look at their demand model.
    reward
        Error of the reward, see `HeldOutError`.
    """
    requests, reach = requests_and_reach(held_out)
    coming = requests[:, 1:]
    chance = next_requests(predictor, requests, reach)[:, :-1]
    persistence = persistence_of(requests_and_reach(train)[0])
    repeat = repeat_requests(requests, predictor.models, persistence)[:, :-1]
    truth = true_forecasts(held_out)
    log_reach = (reach.clamp_min(1e-3)).log()
    error = next_log_reach(predictor, reach)[:, :-1] - log_reach[:, 1:]
    return HeldOutError(
        request=log_loss(chance, coming),
        persistence=log_loss(repeat, coming),
        uniform=log_loss(torch.full_like(chance, 1 / predictor.models), coming),
        truth=log_loss(truth.clamp_min(1e-300), coming),
        distance=float((chance - truth).abs().sum(-1).mean() / 2),
        reach_db=DECIBEL * float(error.square().mean().sqrt()),
        reach_unchanged_db=DECIBEL * float(log_reach.diff(dim=1).square().mean().sqrt()),
        reward=reward,
    )


def true_forecasts(instances: Sequence[Instance]) -> Tensor:
    """Return (E, T - 1, K, M), the true distribution of a request of slot t + 1 given slots 0..t.

    Rows sum to 1: it is conditional on a request being made.
    """
    rows = [
        [forecast(one.demand, one.requests[:t])[0] for t in range(1, one.slots)]
        for one in instances
    ]
    chance = torch.from_numpy(np.array(rows))
    return chance / chance.sum(dim=-1, keepdim=True).clamp_min(1e-300)


def measured_bias(
    predictor: Predictor,
    held_out: Sequence[Instance],
    policy: NodePolicy,
    generator: torch.Generator,
    *,
    shares: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    begin: int = 1,
    exponent: float = 0.0,
    copies: int = 4,
) -> tuple[tuple[Bias, ...], FloatArray]:
    """Return the bias of next observation and reward against the synthetic share, and by slot.

    In a mixture with share s the next request follows (1 - s) p + s p', which is s times the total
    variation of p and p' away from p; the mean reward is off by s times its difference, and a mean
    square error is s times that of what is synthetic. So all is known from s = 1; what has to be
    measured is how much that is, and how fast the error of an imagined reward grows with the slots
    imagined since the last real one. Rates are the closed form's on both sides: their own error is
    not part of this.

    Parameters
    ----------
    predictor
        What has been learnt.
    held_out
        Real instances that it was not fitted to.
    policy
        The same on both sides; its own caches are computed on both.
    generator
        Source of the imagined slots.
    shares
        Synthetic shares.
    begin
        Real slots of every imagined episode, less than T.
    exponent
        c of the closed form.
    copies
        Imagined episodes for every real one.

    Returns
    -------
    biases
        One for each share.
    by_slot
        (T,) mean delay of imagined over that of real episodes, less 1, slot by slot; 0 before
        `begin`, where they are the same.
    """
    requests, reach = requests_and_reach(held_out)
    chance = next_requests(predictor, requests, reach)[:, :-1]
    distance = float((chance - true_forecasts(held_out)).abs().sum(-1).mean() / 2)
    log_reach = reach.clamp_min(1e-3).log()
    error = next_log_reach(predictor, reach)[:, :-1] - log_reach[:, 1:]
    reach_db = DECIBEL * float(error.square().mean().sqrt())

    imagined = []
    for _ in range(copies):
        branch = torch.full((len(held_out),), begin)
        drawn = imagine(predictor, requests, reach, branch, generator)
        imagined += [
            with_observations(one, drawn[0][i].numpy(), drawn[1][i].numpy())
            for i, one in enumerate(held_out)
        ]
    delays = [
        roll(synthetic_episodes(instances, exponent=exponent), policy).delay.sum(dim=2)
        for instances in (list(held_out), imagined)
    ]
    real, synthetic = (delay.mean(dim=0).numpy() for delay in delays)
    reward = float(synthetic[begin:].mean() / real[begin:].mean()) - 1.0
    biases = tuple(
        Bias(s, s * distance, float(np.sqrt(s)) * reach_db, s * reward)
        for s in (checked_number("shares", s, low=0, high=1) for s in shares)
    )
    return biases, np.asarray(synthetic / real - 1.0)


def _reach(instance: Instance) -> FloatArray:
    amplitude = np.linalg.norm(instance.normalised_channel, axis=3) - instance.normalised_error
    return np.asarray(np.sqrt(instance.network.power) * np.maximum(amplitude, 0.0))
