"""What an area sees of an instance: its nodes, its users in every slot, what they need."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.demand import Demand
from finecast.problem.instance import Instance


@dataclass(frozen=True, eq=False)
class Area:
    """One area as a problem of its own.

    Attributes
    ----------
    number
        Its number in the whole instance.
    nodes
        (N_a,) its nodes, by their index in the whole instance.
    users
        (K_a,) the users that request something in it in some slot, likewise; at least one.
    weight
        (T,) share of the requesting users of every slot that are in it.
    instance
        Its nodes and users alone: a user who requests nothing in it in a slot requests nothing
        there in that slot. The library is the whole one.
    """

    number: int
    nodes: IntArray
    users: IntArray
    weight: FloatArray
    instance: Instance


def split(instance: Instance) -> tuple[Area, ...]:
    """Return the areas that have users, in the order of their numbers.

    Parameters
    ----------
    instance
        The whole problem.
    """
    areas = []
    for a in range(instance.area_count):
        within = instance.user_area == a
        users = np.flatnonzero(within.any(axis=0))
        if len(users):
            nodes = np.flatnonzero(instance.areas == a)
            alone = part_of(instance, nodes, users, within)
            areas.append(Area(a, nodes, users, instance.area_weight[:, a], alone))
    return tuple(areas)


def part_of(
    instance: Instance, nodes: IntArray, users: IntArray, within: BoolArray | None = None
) -> Instance:
    """Return the instance of some nodes and users alone, as one area.

    Parameters
    ----------
    instance
        The whole problem.
    nodes, users
        (N_a,) and (K_a,) by their index.
    within
        (T, K) who requests something; the others request nothing. None for all.
    """
    network, demand = instance.network, instance.demand
    position, user_position = network.node_position, instance.user_position
    among = np.ix_(np.arange(instance.slots), users, nodes)
    requests = instance.requests if within is None else np.where(within, instance.requests, -1)
    return replace(
        instance,
        network=replace(
            network,
            storage=network.storage[nodes],
            power=network.power[nodes],
            backhaul_rate=network.backhaul_rate[np.ix_(nodes, nodes)],
            cloud_rate=network.cloud_rate[nodes],
            node_position=None if position is None else position[nodes],
        ),
        demand=Demand(demand.preference[:, users], demand.persistence, demand.activity[users]),
        requests=requests[:, users],
        channel_estimate=instance.channel_estimate[among],
        channel_error=instance.channel_error[among],
        channel_true=instance.channel_true[among],
        user_position=None if user_position is None else user_position[users],
        user_track=None if instance.user_track is None else instance.user_track[:, users],
        areas=np.zeros(len(nodes), dtype=np.int64),
    )


def inflow(link: FloatArray, nodes: IntArray) -> FloatArray:
    """Return (N_a,) s/byte to each node of an area from the fastest source outside it.

    Parameters
    ----------
    link
        (N + 1, N) seconds per byte, the last row from the cloud.
    nodes
        (N_a,) the nodes of the area.
    """
    outside = np.delete(link, nodes, axis=0)
    return np.asarray(outside[:, nodes].min(axis=0))
