"""Expected costs beyond 2^N: the tables of `expected`, computed when asked for.

The formulas are those of `finecast.solvers.heuristics.expected`, for the pairs of a block and a
cached set in use. So any number of nodes is served.
"""

from __future__ import annotations

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.sinr import rate
from finecast.problem.tolerances import LOWEST_SNR
from finecast.solvers.heuristics.expected import (
    group_exponent,
    kinds,
    message_parts,
    prior_demand,
    share_of,
    typical_time,
    user_reach,
)
from finecast.solvers.node_set_tables import OnDemand, members
from finecast.solvers.online import Observation, Prior
from finecast.solvers.placement.chains import nested, reach_times


def prior_cost(prior: Prior, slots: int | None = None) -> OnDemand:
    """Return (J, 2^N) the expected delay per byte of the first slots, on demand.

    The sum over slots of `Expected.cost` of `finecast.solvers.heuristics.expected.prior_tables`.

    Parameters
    ----------
    prior
        What is known before slot 0.
    slots
        How many slots count; None for all.
    """
    kind, probability, times = prior_demand(prior)
    once, nodes = typical_time(prior), prior.network.nodes
    # What a kind costs per slot depends on the slot through these two numbers alone.
    probability, times = probability[:slots], times[:slots]

    def cost(block: IntArray, cached: IntArray) -> FloatArray:
        sender, migration = levels(prior.link, cached, nodes)
        c = kind[block]
        on_air = once[members(sender, nodes).sum(axis=-1)]  # (B, N + 1)
        seconds = [
            chance[c] * (migration + often[c, None] * on_air).min(axis=1)
            for chance, often in zip(probability, times, strict=True)
        ]
        return np.asarray(np.sum(seconds, axis=0))

    return OnDemand(prior.library.blocks, cost)


def coming_cost(observation: Observation) -> OnDemand | None:
    """Return (J, 2^N) the expected delay per byte of the next slot, on demand; None without one.

    As `Expected.cost` of `finecast.solvers.heuristics.expected.coming_tables` for one slot.

    Parameters
    ----------
    observation
        What is known in slot t.
    """
    prior = observation.prior
    forecast = observation.forecast()[:1]
    if not len(forecast):
        return None
    kind, contains = kinds(prior.library.model_blocks)
    request = np.clip(forecast[0] @ contains, 0.0, 1.0)  # (K, C)
    probability = 1.0 - np.prod(1.0 - request, axis=0)
    reach = user_reach(observation)
    exponent = group_exponent(observation, reach)
    parts = message_parts(observation)
    nodes = prior.network.nodes

    def broadcast(c: IntArray, sets: IntArray) -> FloatArray:
        """Return (B,) seconds per byte on the air of kinds c (B,) by node sets (B,)."""
        seconds = np.zeros(len(c))
        member = members(sets, nodes)
        for listeners, senders in parts:
            seconds += _part_seconds(member, listeners, senders, c)
        return np.where(sets == 0, np.inf, seconds)

    def _part_seconds(
        member: BoolArray, listeners: BoolArray, senders: BoolArray, c: IntArray
    ) -> FloatArray:
        """Return (B,) the time of one of the messages that a block may need, times its chance."""
        q = request[listeners]
        needed = 1.0 - np.prod(1.0 - q, axis=0)
        share = share_of(q, needed)  # (users, C)
        sending = member & senders
        lacking = np.asarray(~sending.any(axis=1))
        serving = np.where(lacking[:, None], senders, sending)
        single = np.maximum((serving @ reach[listeners].T) ** 2, LOWEST_SNR)  # (B, users)
        inverse = (share.T[c] / single).sum(axis=1)
        snr = (share.sum(axis=0) ** exponent)[c] / inverse
        network = prior.network
        on_air = 8.0 / rate(snr, network.bandwidth, network.max_spectral_efficiency)
        fetched = np.where(lacking, prior.link[-1][senders].min(), 0.0)
        return np.asarray(share_of(needed, probability)[c] * (on_air + fetched))

    def cost(block: IntArray, cached: IntArray) -> FloatArray:
        sender, migration = levels(prior.link, cached, nodes)
        c = np.broadcast_to(kind[block][:, None], sender.shape)
        on_air = broadcast(c.reshape(-1), sender.reshape(-1)).reshape(sender.shape)
        return np.asarray(probability[kind[block]] * (migration + on_air).min(axis=1))

    return OnDemand(prior.library.blocks, cost)


def levels(link: FloatArray, cached: IntArray, nodes: int) -> tuple[IntArray, FloatArray]:
    """Return the nested sender sets Q_l(X) and times tau_l of cached sets (B,), (B, N + 1) each.

    Parameters
    ----------
    link
        (N + 1, N) seconds per byte, the last row from the cloud.
    cached
        (B,) X as bit masks.
    nodes
        N.
    """
    sets, which = np.unique(cached, return_inverse=True)
    sender, time = nested(sets, reach_times(link, members(sets, nodes)))
    return sender[which], time[which]
