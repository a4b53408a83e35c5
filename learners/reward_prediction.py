"""An echo state network that predicts the slot delay from what was seen and done.

The reward of a slot is minus its delay. Its inputs, of order one (`reward_inputs`), are known when
the nodes have acted: how much is needed, held nowhere and moved, by how many nodes the needed
blocks are sent, to how many groups, and how well the users are reached. Caches are inputs computed
by the environment, never predicted. The environment can compute the delay of an imagined slot too,
from rates in closed form; which of the two errs less is measured, not assumed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from finecast.learners.augmentation.echo_state import (
    Reservoir,
    draw_reservoir,
    normal_equations,
    normalised_error,
    readout_features,
    reservoir_states,
    ridge_readout,
)
from finecast.learners.world.environment import Rollout
from finecast.learners.world.episodes import Episodes

GIGABYTE = 1e9


@dataclass(frozen=True, eq=False)
class RewardPredictor:
    """What has been learnt of slot delays.

    Attributes
    ----------
    reservoir
        Of F inputs.
    sums
        Normal equations of all that has been seen.
    readout
        (1 + H + F, 1), to seconds.
    centre, spread
        (F,) of the inputs, from the first fit.
    """

    reservoir: Reservoir
    sums: Tensor
    readout: Tensor
    centre: Tensor
    spread: Tensor


def reward_inputs(episodes: Episodes, rollout: Rollout) -> Tensor:
    """Return (E, T, 8) float64, what is known of a slot when the nodes have acted.

    Needed bytes and those that no node holds (GB); migration time, sum_j max_n 8 s_j / C (100 s);
    mean number of sending nodes over the needed bytes; number of user groups; and three that say
    how well users are reached, e_k = log2(1 + (sum_n reach_kn)^2): mean and least e_k over the
    users, and needed bytes over the least.

    Parameters
    ----------
    episodes
        The draws.
    rollout
        What was played.
    """
    needed = episodes.group >= 0
    gigabytes = torch.where(needed, episodes.size[:, None] / GIGABYTE, 0.0)
    total = gigabytes.sum(dim=2)
    source = rollout.source.long()
    senders = (rollout.cache | (source >= 0)).sum(dim=2)
    absent = ~rollout.cache.any(dim=2)
    link = episodes.link.transpose(1, 2)[:, None].expand(-1, episodes.slots, -1, -1)
    seconds = torch.where(source >= 0, link.gather(3, source.clamp_min(0)), 0.0).amax(dim=2)
    amplitude = episodes.reach.double().sum(dim=3)
    efficiency = torch.log2(1 + amplitude.square()).clamp_min(1e-3)
    least = efficiency.amin(dim=2)
    groups = torch.where(needed, episodes.group, -1).amax(dim=2) + 1
    return torch.stack(
        [
            total,
            torch.where(absent, gigabytes, 0.0).sum(dim=2),
            (gigabytes * seconds).sum(dim=2) * GIGABYTE / 100,
            (senders * gigabytes).sum(dim=2) / total.clamp_min(1e-12),
            groups.double(),
            efficiency.mean(dim=2),
            least,
            total / least,
        ],
        dim=-1,
    )


def fit_reward(
    inputs: Tensor,
    delay: Tensor,
    generator: torch.Generator,
    *,
    past: RewardPredictor | None = None,
    forgetting: float = 1.0,
    units: int = 30,
    ridge: float = 10.0,
) -> RewardPredictor:
    """Return the predictor fitted to slots, added to what it has seen before.

    Parameters
    ----------
    inputs
        (E, T, F).
    delay
        (E, T) slot delays, s.
    generator
        Source of the reservoir when there is no past one.
    past
        Fitted to earlier episodes; its reservoir is kept.
    forgetting
        What the sums of the past count, in [0, 1].
    units
        H.
    ridge
        Of the readout.
    """
    if past is None:
        reservoir = draw_reservoir(
            generator, units=units, inputs=inputs.shape[2], input_scaling=0.3, bias_scaling=0.3
        )
        centre = inputs.mean(dim=(0, 1))
        spread = inputs.std(dim=(0, 1))
        spread = torch.where(spread > 0, spread, 1.0)
    else:
        reservoir, centre, spread = past.reservoir, past.centre, past.spread
    features = _features(reservoir, (inputs - centre) / spread)
    sums = normal_equations(features, delay.double()[..., None])
    if past is not None:
        sums = sums + forgetting * past.sums
    return RewardPredictor(reservoir, sums, ridge_readout(sums, 1, ridge), centre, spread)


def predicted_delay(predictor: RewardPredictor, inputs: Tensor) -> Tensor:
    """Return (E, T), the predicted slot delays, s; never negative.

    Parameters
    ----------
    predictor
        What has been learnt.
    inputs
        (E, T, F).
    """
    scaled = (inputs - predictor.centre) / predictor.spread
    delay = (_features(predictor.reservoir, scaled) @ predictor.readout)[..., 0]
    return delay.clamp_min(0.0)


def reward_error(predictor: RewardPredictor, inputs: Tensor, delay: Tensor) -> float:
    """Return the root mean square error over the deviation of the delays: 0 exact, 1 the mean.

    Parameters
    ----------
    predictor
        What has been learnt, of other episodes.
    inputs, delay
        As in `fit_reward`.
    """
    scaled = (inputs - predictor.centre) / predictor.spread
    features = _features(predictor.reservoir, scaled)
    sums = normal_equations(features, delay.double()[..., None])
    return float(normalised_error(sums, predictor.readout)[0])


def _features(reservoir: Reservoir, inputs: Tensor) -> Tensor:
    return readout_features(reservoir_states(reservoir, inputs), inputs)
