"""Penalties of a network: what a value function, learnt on training paths, says a path reveals.

A *network* is what stays as it is (`finecast.problem.scenario`), a *path* one draw of requests,
fading and CSI errors on it. For every kind of blocks the demand programme
(`finecast.solvers.placement.demand_programme`) gives values W_t(X, z) of a cached set X, z the
state of the users after the requests of slot t, and with them the penalties

    pi_t(X) = W_t(X, z_t) - E[W_t(X, z_t) | requests of slots before t]       seconds per byte

of mean zero for every X that is chosen before the requests of slot t are known (docs/online.md).
Storage prices and mean times on the air come from training paths, whose numbers no evaluated path
has: parameters that saw the evaluated path would make the mean another than zero.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario
from finecast.solvers.heuristics.expected import group_exponent, kinds, user_reach
from finecast.solvers.node_set_tables import members
from finecast.solvers.online import observation_of, prior_of, slot_alone
from finecast.solvers.placement.air_time import Air, group_times
from finecast.solvers.placement.chains import chains, classes
from finecast.solvers.placement.demand_programme import DemandProgramme, penalties
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.placement.search.dual_ascent import best_prices
from finecast.solvers.placement.user_states import UserGroups, number_of_states
from finecast.solvers.prepared import prepare

FIRST_TRAINING_PATH = 2**40
"""Training paths have these numbers and larger ones, evaluated paths smaller ones."""

TRAINING_PATHS = 8
"""Paths of requests over which prices are averaged, and of fading over which times are."""

FITTED_SLOTS = 4
"""Slots of the first training path with whose beams the gain of groups is fitted."""

PRICE_TOLERANCE = 1e-3
"""Relative distance of the bound of a training path to its best value: prices are but averaged."""

MOST_STATES = 4096
"""States of the users: those of 12 users one by one."""

MOST_VALUES = 2**17
"""Values in a slot, states times cached sets; more nodes mean fewer states."""


def kinds_of(instance: Instance) -> IntArray:
    """Return the kind of every block (J,): blocks of the same models are of one kind."""
    return kinds(instance.library.model_blocks)[0]


def trained_programme(scenario: Scenario, seed: int) -> DemandProgramme:
    """Return the demand programme of a network, made of its training paths alone.

    It knows the network: positions and large-scale fading through the mean times on the air.

    Parameters
    ----------
    scenario, seed
        The network.
    """
    training = [
        scenario.generate(seed, FIRST_TRAINING_PATH + path) for path in range(TRAINING_PATHS)
    ]
    first = training[0]

    # Fading: what reaches the users in the first and the last slot of every path, and how much
    # better a group does than its users one by one.
    slots = sorted({round(t) for t in np.linspace(0, first.slots - 1, FITTED_SLOTS)})
    exponent = float(np.mean([fitted_exponent(first, t) for t in slots]))
    reach = np.stack([reach_of(path, t) for path in training for t in {0, path.slots - 1}])
    network = first.network
    air = Air(reach, exponent, network.bandwidth, network.max_spectral_efficiency)

    # Mean times on the air to the users of every state, by all nodes that have the block.
    groups = user_groups(first, reach.mean(axis=0))
    programme = programme_of(first, air, groups, np.zeros((first.slots, first.nodes)))
    prices = np.mean([best_storage_prices(programme, path) for path in training], axis=0)
    return replace(programme, prices=prices)


def programme_of(
    instance: Instance, air: Air, groups: UserGroups, prices: FloatArray
) -> DemandProgramme:
    """Return the demand programme of a network.

    Parameters
    ----------
    instance
        A path of the network; its requests and channels are not used.
    air
        Draws of what reaches its users.
    groups
        How its users are counted.
    prices
        (T, N) seconds per byte held.
    """
    table = chains(prior_of(instance).link)
    everybody = np.ones(instance.users, dtype=bool), np.ones(instance.nodes, dtype=bool)
    cloud = prior_of(instance).link[-1]
    return DemandProgramme(
        demand=instance.demand,
        contains=kinds(instance.library.model_blocks)[1],
        groups=groups,
        broadcast=_never_rising(group_times(air, groups.share, [everybody], table.member, cloud)),
        chains=table,
        prices=prices,
    )


def fitted_exponent(instance: Instance, t: int) -> float:
    """Return how the gain of a group grows with its size, fitted to the beams of slot t."""
    seen = observation_of(instance, prior_of(instance), t, prepare(slot_alone(instance, t)))
    return group_exponent(seen, user_reach(seen))


def penalties_of(programme: DemandProgramme, requests: IntArray) -> FloatArray:
    """Return the penalties (P, T, C, 2^N) of paths, seconds per byte.

    Parameters
    ----------
    programme
        Of the network; none of its parameters may come from these paths.
    requests
        (P, T, K).
    """
    return penalties(programme, requests)


def reach_of(instance: Instance, t: int) -> FloatArray:
    """Return (K, N) the amplitude that each node surely gives a user in slot t, noise 1."""
    noise = np.sqrt(instance.network.noise_power)
    strength = np.linalg.norm(instance.channel_estimate[t], axis=2) - instance.channel_error[t]
    return np.asarray(np.sqrt(instance.network.power) * np.maximum(strength / noise, 0.0))


def user_groups(instance: Instance, reach: FloatArray, by_node: bool = False) -> UserGroups:
    """Return every user by itself; where these are too many states, those of one node together.

    Parameters
    ----------
    instance
        The network.
    reach
        (K, N). A user belongs to the node that reaches it best.
    by_node
        Users of one node together in any case.

    Returns
    -------
    Groups. Where even those of nodes have too many states, the two smallest become one.
    """
    most = max(min(MOST_STATES, MOST_VALUES >> instance.nodes), instance.users + 1)
    group = np.arange(instance.users)
    if by_node or 1 << instance.users > most:
        group = np.unique(reach.argmax(axis=1), return_inverse=True)[1].reshape(-1)
    while number_of_states(np.bincount(group)) > most:
        first, second = np.sort(np.argsort(np.bincount(group), kind="stable")[:2])
        group = np.where(group == second, first, group)
        group -= group > second
    return UserGroups(group)


def best_storage_prices(programme: DemandProgramme, path: Instance) -> FloatArray:
    """Return the best storage prices (T, N) of a training path at mean times."""
    problem = mean_problem(programme, path)
    return best_prices(problem, classes(problem), tolerance=PRICE_TOLERANCE).prices.storage


def mean_problem(programme: DemandProgramme, instance: Instance) -> PlacementProblem:
    """Return the placement problem of a path of requests at mean times on the air.

    Parameters
    ----------
    programme
        Of the network.
    instance
        The path; its channels are not used.
    """
    kind = kinds_of(instance)
    contains = programme.contains.astype(bool)
    asks = np.where(instance.requests[..., None] >= 0, contains[instance.requests], False)
    state = programme.groups.state(np.moveaxis(asks, 1, 2))  # (T, C)
    tables, group = [], np.full((instance.slots, instance.blocks), -1)
    for t in range(instance.slots):
        states, row = np.unique(state[t], return_inverse=True)
        tables.append(programme.broadcast[:, states].T)
        group[t] = np.where(asks[t].any(axis=0), row, -1)[kind]
    return PlacementProblem(
        block_size=instance.library.block_size,
        storage=instance.network.storage,
        group=group,
        broadcast=tuple(tables),
        link=prior_of(instance).link,
    )


def _never_rising(times: FloatArray) -> FloatArray:
    """Return times (2^N, S) that more nodes do not raise by their rounding."""
    times = times.copy()
    nodes = len(times).bit_length() - 1
    has = members(np.arange(len(times)), nodes)
    for n in range(nodes):
        times[has[:, n]] = np.minimum(times[has[:, n]], times[~has[:, n]])
    return times
