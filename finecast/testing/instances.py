"""Instances for the checks: a small one, and the same with another future or another truth."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from finecast.problem.arrays import ComplexArray
from finecast.problem.channel import draw_true_channel
from finecast.problem.instance import Instance
from finecast.problem.scenario import read_scenario

FUTURES = 3
"""Sorts of futures; so many seeds in a row have one of each."""


@cache
def small_instance(seed: int = 0, *, slots: int = 3) -> Instance:
    """Return an instance on which a check takes seconds at most.

    2 nodes, 3 users, 6 blocks; channels with an error of 5 %, tastes that drift, users that return.

    Parameters
    ----------
    seed
        Seed of the draw.
    slots
        T.
    """
    scenario = read_scenario("tiny").with_(
        slots=slots, demand={"persistence": 0.5, "drift": 0.5}, channel={"error": 0.05}
    )
    return scenario.generate(seed)


def another_future(instance: Instance, t: int, seed: int) -> Instance:
    """Return the instance with other requests and channels after slot t.

    What is known before slot 0 (library, network, demand model) stays. The futures differ strongly
    from one another, so that a method that looks one slot ahead decides otherwise in some of them:
    with seeds 0, 3, 6, ... users ask at random, with 1, 4, ... all for the same model, with
    2, 5, ... for none.

    Parameters
    ----------
    instance
        The instance.
    t
        The last slot that stays as it is; -1 changes all slots.
    seed
        Seed of the changes.
    """
    rng = np.random.default_rng(seed)
    later = slice(t + 1, None)
    requests = instance.requests.copy()
    requests[later] = rng.integers(-1, instance.models, requests[later].shape)
    if seed % FUTURES:
        requests[later] = -1 if seed % FUTURES == 2 else rng.integers(instance.models)
    turn = rng.permutation(instance.users)
    scale = rng.uniform(0.5, 2.0, instance.channel_error.shape)
    scale[: t + 1] = 1.0

    def turned(channel: ComplexArray) -> ComplexArray:
        channel = channel.copy()
        channel[later] = channel[later][:, turn]
        return channel * scale[..., None]

    error = instance.channel_error.copy()
    error[later] = error[later][:, turn]
    return replace(
        instance,
        requests=requests,
        channel_estimate=turned(instance.channel_estimate),
        channel_error=error * scale,
        channel_true=turned(instance.channel_true),
    )


def another_truth(instance: Instance, seed: int) -> Instance:
    """Return the instance with other true channels inside the same error balls.

    Parameters
    ----------
    instance
        The instance.
    seed
        Seed of the draw.
    """
    true = draw_true_channel(
        np.random.default_rng(seed), instance.channel_estimate, instance.channel_error
    )
    return replace(instance, channel_true=true)
