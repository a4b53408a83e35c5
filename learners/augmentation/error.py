"""How wrong synthetic episodes are: held-out error of the predictor, and the bias they bring.

The true forecast enters reports only: nothing that a learner uses depends on it.
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
from finecast.learners.world.environment import NodePolicy, roll
from finecast.problem.arrays import FloatArray, checked_number
from finecast.problem.demand import forecast
from finecast.problem.instance import Instance


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
        """Log-loss above that of persistence, in units of that of all models alike; at least 0.

        It uses nothing that a learner could not know.
        """
        return max((self.request - self.persistence) / self.uniform, 0.0)


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


def held_out_error(
    predictor: Predictor,
    train: Sequence[Instance],
    held_out: Sequence[Instance],
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
    log_reach = reach.clamp_min(LEAST_REACH).log()
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
