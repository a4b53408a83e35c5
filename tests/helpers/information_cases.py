"""Slots of a draw as online methods see them, with rates in closed form: no beamforming."""

from __future__ import annotations

import numpy as np

from finecast.problem.instance import user_groups
from finecast.solvers.heuristics.expected import TYPICAL_EXPONENT
from finecast.solvers.online import Observation, prior_of, reach_of
from finecast.solvers.placement.air_time import Air, group_times
from finecast.solvers.placement.chains import chains
from finecast.solvers.placement.problem import PlacementProblem


def observations_in_closed_form(instance) -> list[Observation]:
    """Return what is known in every slot; plan and rates are left out."""
    prior = prior_of(instance)
    network, table = prior.network, chains(prior.link)
    everyone = [(np.ones(instance.users, dtype=bool), np.ones(instance.nodes, dtype=bool))]
    observations = []
    for t in range(instance.slots):
        estimate, error = instance.channel_estimate[: t + 1], instance.channel_error[: t + 1]
        reach = reach_of(prior, estimate[-1], error[-1])
        air = Air(reach, TYPICAL_EXPONENT, network.bandwidth, network.max_spectral_efficiency)
        users, group = user_groups(instance.wanted[t])
        times = group_times(air, users.astype(float), everyone, table.member, prior.link[-1])
        problem = PlacementProblem(
            prior.library.block_size, network.storage, group[None], (times.T,), prior.link
        )
        observations.append(
            Observation(prior, t, instance.requests[: t + 1], estimate, error, None, None, problem)
        )
    return observations
