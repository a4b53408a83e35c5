"""The error of synthetic episodes: held-out error of the predictor, and bias in the delay.

The true forecast enters reports only. Nothing that a learner uses depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from finecast.learners.augmentation.predictor import (
    LEAST_REACH,
    Predictor,
    imagine,
    last_requests,
    log_loss,
    next_log_reach,
    next_requests,
    persistence_of,
    repeat_requests,
)
from finecast.learners.augmentation.synthetic import (
    DECIBEL,
    requests_and_reach,
    synthetic_episodes,
    with_observations,
)
from finecast.learners.augmentation.world_model import WorldModel, world_forecast
from finecast.learners.world.environment import NodePolicy, roll
from finecast.problem.arrays import FloatArray, checked_number
from finecast.problem.demand import forecast
from finecast.problem.instance import Instance


@dataclass(frozen=True)
class HeldOutError:
    """Error of a predictor on episodes that it has not seen.

    Attributes
    ----------
    request, persistence, uniform
        Log-loss of the next request, nats: of the predictor, of a forecast that repeats the last
        request with the probability seen in training, and of one that takes all models as equally
        likely.
    truth
        Log-loss of the true forecast, nats. It is for reports, since no learner knows it.
    distance
        Mean total variation between the predicted and the true distribution, in [0, 1].
    reach_db
        Root mean square error of the next reach, dB.
    reach_unchanged_db
        The same error of a forecast without any change, dB.
    """

    request: float
    persistence: float
    uniform: float
    truth: float
    distance: float
    reach_db: float
    reach_unchanged_db: float

    @property
    def relative(self) -> float:
        """The larger of 0 and (request - persistence) / uniform.

        It uses nothing that a learner could not know.
        """
        return relative_error(self.request, self.persistence, self.uniform)


def relative_error(request: float, persistence: float, uniform: float) -> float:
    """Return the larger of 0 and (request - persistence) / uniform, of log-losses in nats."""
    return max((request - persistence) / uniform, 0.0)


@dataclass(frozen=True)
class Bias:
    """Mean effect of a share of synthetic episodes on what a learner sees.

    Attributes
    ----------
    share
        Synthetic share in [0, 1].
    request
        Total variation between the distribution of the next request in the mixture and the true
        distribution.
    reach_db
        Root mean square error of the expected next reach over the mixture, dB. A real slot counts
        with error 0.
    reward
        Mean delay under a fixed policy in the mixture, divided by that in real episodes, less 1.
    """

    share: float
    request: float
    reach_db: float
    reward: float


def held_out_error(
    predictor: Predictor,
    train: Sequence[Instance],
    held_out: Sequence[Instance],
) -> HeldOutError:
    """Return the errors of the predictor on instances to which it was not fitted.

    Parameters
    ----------
    predictor
        Predictor that was fitted to `train`.
    train
        Instances from which persistence is estimated.
    held_out
        Instances to predict. Only `truth` and `distance` use their demand model.
    """
    requests, reach = requests_and_reach(held_out)
    coming = requests[:, 1:]
    chance = next_requests(predictor, requests, reach)[:, :-1]
    persistence = persistence_of(requests_and_reach(train)[0])
    repeat = repeat_requests(requests, predictor.models, persistence)[:, :-1]
    truth = true_forecasts(held_out)
    log_reach = (reach.clamp_min(LEAST_REACH)).log()
    error = next_log_reach(predictor, reach)[:, :-1] - log_reach[:, 1:]
    return HeldOutError(
        request=log_loss(chance, coming),
        persistence=log_loss(repeat, coming),
        uniform=log_loss(torch.full_like(chance, 1 / predictor.models), coming),
        truth=log_loss(truth.clamp_min(1e-300), coming),
        distance=float((chance - truth).abs().sum(-1).mean() / 2),
        reach_db=DECIBEL * float(error.square().mean().sqrt()),
        reach_unchanged_db=DECIBEL * float(log_reach.diff(dim=1).square().mean().sqrt()),
    )


def world_error(
    model: WorldModel, train: Sequence[Instance], held_out: Sequence[Instance]
) -> float:
    """Return the relative error of a world model, as `HeldOutError.relative`.

    Parameters
    ----------
    model
        It was fitted to `train`.
    train, held_out
        As in `held_out_error`.
    """
    requests, reach = requests_and_reach(held_out)
    coming, last = requests[:, 1:], last_requests(requests)
    chance = world_forecast(model, last, requests, reach)[0][:, :-1].clamp_min(1e-12)
    persistence = persistence_of(requests_and_reach(train)[0])
    repeat = repeat_requests(requests, model.models, persistence)[:, :-1]
    uniform = torch.full_like(chance, 1 / model.models)
    return relative_error(*(log_loss(p, coming) for p in (chance, repeat, uniform)))


def true_forecasts(instances: Sequence[Instance]) -> Tensor:
    """Return (E, T - 1, K, M), the true distribution of a request of slot t + 1 given slots 0..t.

    Rows sum to 1: the distribution is that of a user who requests something.
    """
    rows = [
        [forecast(instance.demand, instance.requests[:t])[0] for t in range(1, instance.slots)]
        for instance in instances
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
    """Return the bias of next observation and reward by synthetic share, and by slot.

    In a mixture with share s the next request follows (1 - s) p + s p', where p is the true and p'
    the predicted distribution. Its total variation from p is s times that of p'. The mean reward is
    off by s times the difference of the imagined reward, and a mean square error is s times that of
    synthetic slots. So the biases of all shares follow from s = 1. The figures by slot show how the
    error of an imagined reward grows with the number of imagined slots. Both sides have rates in
    closed form, so that the error of the closed form is not part of the bias.

    Parameters
    ----------
    predictor
        The predictor.
    held_out
        Real instances to which it was not fitted.
    policy
        Policy that plays the real and the imagined episodes.
    generator
        Source of the imagined slots.
    shares
        Synthetic shares.
    begin
        Real slots at the beginning of every imagined episode, less than T.
    exponent
        c of the closed form.
    copies
        Imagined episodes for every real one.

    Returns
    -------
    biases
        One bias for each share.
    by_slot
        (T,) mean delay of imagined episodes in the slot, divided by that of real ones, less 1. It
        is 0 before `begin`, where the episodes are the same.
    """
    # One slot ahead: how far the predicted request and reach are from the true ones.
    requests, reach = requests_and_reach(held_out)
    chance = next_requests(predictor, requests, reach)[:, :-1]
    distance = float((chance - true_forecasts(held_out)).abs().sum(-1).mean() / 2)
    log_reach = reach.clamp_min(LEAST_REACH).log()
    error = next_log_reach(predictor, reach)[:, :-1] - log_reach[:, 1:]
    reach_db = DECIBEL * float(error.square().mean().sqrt())

    # Whole episodes: the delay of one policy in real and in imagined continuations.
    imagined = []
    for _ in range(copies):
        branch = torch.full((len(held_out),), begin)
        new_requests, new_reach = imagine(predictor, requests, reach, branch, generator)
        imagined += [
            with_observations(instance, new_requests[i].numpy(), new_reach[i].numpy())
            for i, instance in enumerate(held_out)
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
