"""Expected times of coming slots: what a copy of a block is likely to be worth.

Requests of different users are independent, so with q_kj the probability that user k wants block j
the block is needed with probability P_j = 1 - prod_k (1 - q_kj). With X cached it then costs

    f_j(X) = min over levels l of tau_l(X) + b_j(Q_l(X))                     seconds per byte

and what is left to estimate is the time b_j(Q) on the air of a message to users not yet known.

In a slot t it is computed from the channels of the slot, by the closed form of
`finecast.solvers.placement.air_time`, whose exponent c is fitted to the rate table of slot t by
least squares of logarithms. Its inverse is linear in who belongs to the group, so its mean over
groups is in closed form,

    1 / snr_j(Q) = n_j^-c sum_k (q_kj / P_j) / snr_k(Q),     n_j = sum_k q_kj / P_j,

which is what b_j is computed from: no beamforming, no sampling. Channels of the coming slots are
taken to be those of slot t. Before slot 0 nothing is known of any channel; see `prior_tables`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.tolerances import LOWEST_SNR
from finecast.solvers.node_set_tables import members
from finecast.solvers.online import Observation, Prior, reach_of
from finecast.solvers.placement.air_time import Air, Part, serving_sets
from finecast.solvers.placement.chains import Chains, chains

HOME_EFFICIENCY = 4.0
"""bit/s/Hz at which a typical message goes out when the home nodes of its users send it, and ..."""

AWAY_EFFICIENCY = 0.5
"""... when other nodes do: about the medians of the shipped scenarios (UMi, 300 m apart)."""

TYPICAL_EXPONENT = 0.5
"""Exponent of the group size before any rate is known: about the median of the same."""


@dataclass(frozen=True, eq=False)
class Expected:
    """Expected tables of H coming slots. Blocks of the same models are of one kind.

    Attributes
    ----------
    kind
        (J,) kind of every block.
    probability
        (H, C) somebody needs a block of the kind.
    broadcast
        (H, C, 2^N) time on the air if so, seconds per byte; infinite when no node sends.
    chains
        The nested sender sets.
    """

    kind: IntArray
    probability: FloatArray
    broadcast: FloatArray
    chains: Chains

    @property
    def cost(self) -> FloatArray:
        """(H, J, 2^N) expected delay under every cached set, seconds per byte."""
        levels = self.chains.time + self.broadcast[:, :, self.chains.sender]
        cost: FloatArray = self.probability[:, :, None] * levels.min(axis=3)
        return cost[:, self.kind]


def prior_tables(prior: Prior) -> Expected:
    """Return the expected tables of all slots before slot 0.

    The typical message: each node is the home of its users with probability 1/N, so a node set Q
    that shares in serving has it with probability |Q| / N, and sends at HOME_EFFICIENCY; else at
    AWAY_EFFICIENCY. Without CoMP the home node must send, and fetches from the cloud if it has to.

    Parameters
    ----------
    prior
        What is known before slot 0.
    """
    table = chains(prior.link)
    once = typical_time(prior)[table.member.sum(axis=1)]
    kind, probability, times = prior_demand(prior)
    return Expected(kind, probability, times[:, :, None] * once, table)


def typical_time(prior: Prior) -> FloatArray:
    """Return (N + 1,) the seconds per byte of the typical message by 0 to N nodes; see above."""
    network = prior.network
    size = np.arange(network.nodes + 1)
    home = size / network.nodes
    at_home, away = (
        8.0 / (network.bandwidth * min(efficiency, network.max_spectral_efficiency))
        for efficiency in (HOME_EFFICIENCY, AWAY_EFFICIENCY)
    )
    if "no-comp" in prior.restrictions:
        away = at_home + float(prior.link[-1].mean())
    return np.where(size > 0, home * at_home + (1.0 - home) * away, np.inf)


def prior_demand(prior: Prior) -> tuple[IntArray, FloatArray, FloatArray]:
    """Return what blocks are needed how often, as known before slot 0.

    Returns
    -------
    kind
        (J,) kind of every block.
    probability
        (T, C) somebody requests a block of the kind.
    times
        (T, C) how often it then goes out: once, in unicast once for each user that requests it.
    """
    kind, contains = kinds(prior.library.model_blocks)
    request = prior.popularity @ contains
    probability = 1.0 - np.prod(1.0 - request, axis=1)
    times = np.ones_like(probability)
    if "unicast" in prior.restrictions:
        times = share_of(request.sum(axis=1), probability)
    return kind, probability, times


def coming_tables(observation: Observation, horizon: int) -> Expected:
    """Return the expected tables of the next slots, conditional on the past.

    Parameters
    ----------
    observation
        What is known in slot t.
    horizon
        Number of slots; no more than are left are returned.
    """
    air, parts = observed_air(observation), message_parts(observation)
    return expected_tables(observation.prior, observation.forecast()[:horizon], air, parts)


def expected_tables(prior: Prior, requests: FloatArray, air: Air, parts: list[Part]) -> Expected:
    """Return the expected tables of slots whose requests are known as distributions.

    Parameters
    ----------
    prior
        What is known before slot 0.
    requests
        (H, K, M), probability that user k requests model m in each slot.
    air
        What decides on the time on the air.
    parts
        The messages that a block may need.
    """
    kind, contains = kinds(prior.library.model_blocks)
    request = np.clip(requests @ contains, 0.0, 1.0)  # (H, K, C) q
    table = chains(prior.link)

    # Time on the air of every message that a block may need, times its chance if the block does.
    probability = 1.0 - np.prod(1.0 - request, axis=1)
    broadcast = np.zeros((*probability.shape, 1 << prior.network.nodes))
    for listeners, senders in parts:
        q = request * listeners[:, None]
        needed = 1.0 - np.prod(1.0 - q, axis=1)
        # The mean group, and who sends to it.
        share = np.where(listeners[:, None], share_of(q, needed[:, None]), 0.0)
        serving, fetched = serving_sets(table.member, senders, prior.link[-1])
        seconds = air.seconds(np.moveaxis(share, 1, 2), serving)
        broadcast += share_of(needed, probability)[:, :, None] * (seconds + fetched)
    broadcast[:, :, 0] = np.inf
    return Expected(kind, probability, broadcast, table)


def kinds(model_blocks: BoolArray) -> tuple[IntArray, FloatArray]:
    """Return the kind of every block (J,), and which models contain each kind (M, C) as 0 and 1."""
    contains, kind = np.unique(model_blocks, axis=1, return_inverse=True)
    return kind.reshape(-1).astype(np.int64), contains.astype(np.float64)


def user_reach(observation: Observation) -> FloatArray:
    """Return (K, N) sqrt(P_n) max(0, |g_kn| - eps_kn) in slot t; nominal for non-robust plans."""
    newest = observation.channel_estimate[-1], observation.channel_error[-1]
    return reach_of(observation.prior, *newest)


def observed_air(observation: Observation) -> Air:
    """Return what slot t shows of the channels, which the coming slots are taken to have too."""
    network, reach = observation.prior.network, user_reach(observation)
    exponent = group_exponent(observation, reach)
    return Air(reach, exponent, network.bandwidth, network.max_spectral_efficiency)


def first_air(prior: Prior) -> Air:
    """Return what is known of the channels before slot 0, where they are; no rate is known yet.

    Raises
    ------
    ValueError
        They are not.
    """
    if prior.first_slot is None:
        raise ValueError("first_slot: the prior tells no channel")
    network, reach = prior.network, reach_of(prior, *prior.first_slot)
    return Air(reach, TYPICAL_EXPONENT, network.bandwidth, network.max_spectral_efficiency)


def group_exponent(observation: Observation, reach: FloatArray) -> float:
    """Return the exponent c of the group size, fitted to the rates of slot t; 0 without groups.

    Parameters
    ----------
    observation
        What is known in slot t.
    reach
        (K, N) as from `user_reach`.
    """
    rates = observation.rates
    member = members(rates.node_sets, reach.shape[1])
    alone = np.maximum((member @ reach.T) ** 2, LOWEST_SNR)  # (G, F, K)
    inverse = (rates.users[:, None, :] / alone).sum(axis=2)
    pooled = 1.0 / np.maximum(inverse, np.finfo(float).tiny)  # (G, F)
    size = rates.users.sum(axis=1)
    fit = (size[:, None] > 1) & (rates.snr > 0)
    x = np.broadcast_to(np.log(np.maximum(size, 1))[:, None], fit.shape)[fit]
    y = np.log(rates.snr[fit] / pooled[fit])
    return float(x @ y / (x @ x)) if len(x) else 0.0


def message_parts(observation: Observation) -> list[Part]:
    """Return the listeners (K,) and senders (N,) of the messages that a block may need."""
    network = observation.prior.network
    strength = np.linalg.norm(observation.channel_estimate[-1], axis=2) * np.sqrt(network.power)
    return parts_by_home(observation.prior.restrictions, strength.argmax(axis=1), network.nodes)


def parts_by_home(restrictions: frozenset[str], home: IntArray, nodes: int) -> list[Part]:
    """Return the messages that a block may need, where user k is served best by node home[k].

    One of all users by all nodes in the full system; one for each node's own users without CoMP,
    one for each user in unicast, as in `finecast.solvers.restrictions.messages`.
    """
    user, node = np.arange(len(home)), np.arange(nodes)
    listeners = np.ones((1, len(user)), dtype=bool)
    if "unicast" in restrictions:
        listeners = np.eye(len(user), dtype=bool)
    if "no-comp" not in restrictions:
        return [(part, np.ones(len(node), dtype=bool)) for part in listeners]
    served = [(part & (home == n), node == n) for part in listeners for n in node]
    return [(part, senders) for part, senders in served if part.any()]


def share_of(part: FloatArray, whole: FloatArray) -> FloatArray:
    """Return part / whole, 1 where nothing is."""
    return np.divide(part, whole, out=np.ones(np.broadcast(part, whole).shape), where=whole > 0)
