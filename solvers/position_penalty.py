"""The penalty for knowing before slot 0 where users are.

Online methods know the library, the links, the storage and the demand model before slot 0, but not
G, the positions of users and their large-scale fading. For any value U(X; G) of a cached set X,

    pi(X) = U(X; G) - 1/m sum_i U(X; G^i)                          seconds per byte

has mean zero for every X chosen without G, where G^1..G^m are redraws of G that have, given all
that is known, its distribution, and depend neither on it nor on any path (docs/online.md). Charged
for the caches of slot 0, beside the penalties of `finecast.solvers.penalties`, it makes a bound for
the methods that do not know G.

U is the mean cost to go of the demand programme at the mean times of G, with the users of a node
counted together, which takes a fraction of a second. Its storage prices come from further redraws:
prices of G itself would make the mean another than zero.
"""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import FloatArray
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario
from finecast.solvers.penalties import (
    FIRST_TRAINING_PATH,
    best_storage_prices,
    fitted_exponent,
    programme_of,
    reach_of,
    user_groups,
)
from finecast.solvers.placement.air_time import Air
from finecast.solvers.placement.demand_programme import DemandProgramme

TRAINING_PLACES = 4
"""Redraws of places over which storage prices are averaged."""

REDRAWS = 16
"""m, redraws of places over which the value is averaged."""

FADING_SLOTS = 8
"""Slots of a training path over whose fading times are averaged."""


def position_penalty(scenario: Scenario, seed: int) -> FloatArray:
    """Return the penalty (C, 2^N) of the places of a network, seconds per byte.

    Parameters
    ----------
    scenario, seed
        The network.
    """
    training = [
        scenario.generate(seed, FIRST_TRAINING_PATH + number, places=number)
        for number in range(TRAINING_PLACES)
    ]
    exponent = float(np.mean([fitted_exponent(instance, 0) for instance in training]))
    nothing = np.zeros((training[0].slots, training[0].nodes))
    prices = np.mean(
        [
            best_storage_prices(_programme(instance, exponent, nothing), instance)
            for instance in training
        ],
        axis=0,
    )

    # One function of places for those of the network and for their redraws: fading of one path.
    def value(places: int | None) -> FloatArray:
        instance = scenario.generate(seed, FIRST_TRAINING_PATH, places=places)
        return start_values(_programme(instance, exponent, prices))

    redrawn = [value(TRAINING_PLACES + number) for number in range(REDRAWS)]
    return np.asarray(value(None) - np.mean(redrawn, axis=0))


def start_values(programme: DemandProgramme) -> FloatArray:
    """Return (C, 2^N) the mean cost to go of every kind and set, before slot 0."""
    kinds = range(programme.contains.shape[1])
    return np.stack([programme.cost_to_go(np.array([kind])).start[:, 0] for kind in kinds])


def _programme(instance: Instance, exponent: float, prices: FloatArray) -> DemandProgramme:
    slots = sorted({round(t) for t in np.linspace(0, instance.slots - 1, FADING_SLOTS)})
    reach = np.stack([reach_of(instance, t) for t in slots])
    network = instance.network
    air = Air(reach, exponent, network.bandwidth, network.max_spectral_efficiency)
    groups = user_groups(instance, reach.mean(axis=0), by_node=True)
    return programme_of(instance, air, groups, prices)
