"""Small problems whose answers can be worked out on paper."""

from __future__ import annotations

import numpy as np

from finecast.problem.demand import Demand
from finecast.problem.instance import Instance
from finecast.problem.library import ModelLibrary
from finecast.problem.network import Network


def separate_models(
    requests: list[list[int]],
    *,
    models: int,
    storage: list[int],
    preference: np.ndarray | None = None,
    persistence: float = 0.0,
    seed: int = 0,
) -> Instance:
    """Return an instance of models of one block of one byte each, and channels that stay.

    Parameters
    ----------
    requests
        (T, K).
    models
        M = J.
    storage
        (N,) byte.
    preference
        (M,) of every user in every slot; default: the last model the most popular.
    persistence
        Of the requests.
    seed
        Seed of the channels.
    """
    slots, users, nodes = len(requests), len(requests[0]), len(storage)
    rng = np.random.default_rng(seed)
    if preference is None:
        preference = np.arange(1.0, models + 1)
    each = np.broadcast_to(preference / np.sum(preference), (slots, users, models))
    channel = rng.standard_normal((users, nodes, 2)) + 1j * rng.standard_normal((users, nodes, 2))
    channel = np.broadcast_to(channel, (slots, users, nodes, 2))
    return Instance(
        library=ModelLibrary(np.ones(models, dtype=int), np.eye(models, dtype=bool)),
        network=Network(
            storage=np.array(storage),
            power=np.ones(nodes),
            backhaul_rate=8.0 * rng.uniform(1.0, 4.0, (nodes, nodes)),
            cloud_rate=8.0 * rng.uniform(0.3, 0.9, nodes),
            bandwidth=8.0,
            noise_power=1.0,
        ),
        demand=Demand(each, persistence, np.ones(users)),
        requests=np.array(requests),
        channel_estimate=channel,
        channel_error=np.zeros((slots, users, nodes)),
        channel_true=channel,
    )
