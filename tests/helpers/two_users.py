"""One node with two antennas and two users on orthogonal channels: splitting pays by hand."""

from __future__ import annotations

import numpy as np

from finecast.problem.demand import Demand
from finecast.problem.instance import Instance
from finecast.problem.library import ModelLibrary
from finecast.problem.network import Network


def two_users(error: float, **changes: object) -> Instance:
    """Return one block of 1 GB over 100 MHz to two users at 20 dB, with a share of error.

    Alone a user gets the amplitude 10 (1 - error), both at once get 10 (1 / sqrt(2) - error).

    Parameters
    ----------
    error
        Radius of the error balls over the norm of the channel.
    changes
        Further fields of the instance.
    """
    channel = np.zeros((1, 2, 1, 2), dtype=complex)
    channel[0, 0, 0, 0] = channel[0, 1, 0, 1] = 0.1
    network = Network(
        storage=np.array([10**9]),
        power=np.array([1.0]),
        backhaul_rate=np.zeros((1, 1)),
        cloud_rate=np.array([1e9]),
        bandwidth=1e8,
        noise_power=1e-4,
    )
    fields = {
        "library": ModelLibrary(np.array([10**9]), np.ones((1, 1), dtype=bool)),
        "network": network,
        "demand": Demand(np.ones((1, 2, 1)), 0.0, np.ones(2)),
        "requests": np.zeros((1, 2), dtype=int),
        "channel_estimate": channel,
        "channel_error": np.full((1, 2, 1), 0.1 * error),
        "channel_true": channel,
    }
    return Instance(**{**fields, **changes})


def by_hand(error: float) -> tuple[float, float]:
    """Return the seconds of one message to both users, and of one message to each."""
    together = (10.0 * max(0.0, np.sqrt(0.5) - error)) ** 2
    alone = (10.0 * (1.0 - error)) ** 2
    with np.errstate(divide="ignore"):
        return float(80.0 / np.log2(1.0 + together)), float(160.0 / np.log2(1.0 + alone))
