"""The rate table: how fast each user group can be served by each set of nodes.

Beamforming enters placement only through R(U, Q), the best guaranteed rate of a message to the
users U alone on the air, sent by the nodes Q (formulation, 4). For every distinct user group of
every slot the table holds, per node set, an achieved rate with its beam and a certified upper
bound. R is monotone in Q, so a set inherits the better beam of its subsets and the smaller bound
of its supersets.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np

from problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from problem.instance import Instance, user_groups
from problem.sinr import rate
from solvers.beamforming.dual_bound import certified_bound, dual_of_beam
from solvers.beamforming.methods import beamforming_method
from solvers.result import Callback, Progress

FULL_FAMILY_NODES = 6
"""Up to so many nodes every set of them is solved; beyond, a family of sets."""


@dataclass(frozen=True, eq=False)
class SlotRates:
    """Rates of one slot; a node set is a bit mask, bit n for node n.

    Parameters
    ----------
    users
        (G, K) bool, the distinct user groups.
    group
        (J,) user group of every block, -1 where nobody needs it.
    node_sets
        (F,) the node sets that were solved.
    beam
        (G, F, N, A) complex, square root of watt.
    snr
        (G, F) guaranteed SNR that the beam achieves.
    best
        (G, 2^N) index into `node_sets` of the best solved subset of every set; -1 if none serves.
    achieved
        (G, 2^N) guaranteed rate, bit/s.
    bound
        (G, 2^N) certified upper bound on the guaranteed rate, bit/s.
    """

    users: BoolArray
    group: IntArray
    node_sets: IntArray
    beam: ComplexArray
    snr: FloatArray
    best: IntArray
    achieved: FloatArray
    bound: FloatArray


def node_set_family(nodes: int) -> IntArray:
    """Return the node sets to solve: all of them up to 6 nodes, else singles, pairs and all.

    Parameters
    ----------
    nodes
        N.
    """
    if nodes <= FULL_FAMILY_NODES:
        return np.arange(1, 1 << nodes)
    singles = [1 << n for n in range(nodes)]
    pairs = [a | b for a, b in combinations(singles, 2)]
    return np.array([*singles, *pairs, (1 << nodes) - 1])


def rate_table(
    instance: Instance,
    *,
    beamforming: str = "sca",
    robust: bool = True,
    seed: int = 0,
    callback: Callback | None = None,
) -> tuple[SlotRates, ...]:
    """Return the rates of every slot.

    Parameters
    ----------
    instance
        The problem.
    beamforming
        Name of the beamforming method; see `solvers.beamforming.methods`.
    robust
        Plan for the error balls; else as if the estimated channels were true.
    seed
        Seed of the beamforming method's random starts.
    callback
        Told after every (user group, node set).
    """
    groups = [user_groups(instance.wanted[t]) for t in range(instance.slots)]
    family = node_set_family(instance.nodes)
    total = sum(len(users) for users, _ in groups) * len(family)
    done = 0
    table = []
    for t, (users, group) in enumerate(groups):
        channel = instance.normalised_channel[t]
        error = instance.normalised_error[t] if robust else np.zeros(channel.shape[:2])
        beam = np.zeros((len(users), len(family), *channel.shape[1:]), dtype=np.complex128)
        snr, bound = np.zeros((2, len(users), len(family)))
        for g, members in enumerate(users):
            for f, node_set in enumerate(family):
                beam[g, f], snr[g, f], bound[g, f] = _solve_one(
                    channel[members],
                    error[members],
                    instance.network.power,
                    int(node_set),
                    beamforming,
                    seed,
                )
                done += 1
                if callback is not None:
                    callback(Progress(f"beams ({beamforming})", done, total))
        table.append(_closed(instance, users, group, family, beam, snr, bound))
    return tuple(table)


def rate_bounds(
    instance: Instance, *, callback: Callback | None = None
) -> tuple[tuple[FloatArray, IntArray], ...]:
    """Return, per slot, certified upper bounds (G,) in bit/s with all nodes, and the groups (J,).

    Parameters
    ----------
    instance
        The problem.
    callback
        Told after every user group.
    """
    network = instance.network
    groups = [user_groups(instance.wanted[t]) for t in range(instance.slots)]
    total = sum(len(users) for users, _ in groups)
    done = 0
    table = []
    for t, (users, group) in enumerate(groups):
        bound = np.zeros(len(users))
        for g, members in enumerate(users):
            bound[g] = certified_bound(
                instance.normalised_channel[t][members],
                instance.normalised_error[t][members],
                network.power,
            ).snr
            done += 1
            if callback is not None:
                callback(Progress("bounds", done, total))
        table.append((rate(bound, network.bandwidth, network.max_spectral_efficiency), group))
    return tuple(table)


def _solve_one(
    channel: ComplexArray,
    error: FloatArray,
    power: FloatArray,
    node_set: int,
    beamforming: str,
    seed: int,
) -> tuple[ComplexArray, float, float]:
    """Return beam (N, A), guaranteed SNR and its certified upper bound for one node set."""
    nodes = [n for n in range(len(power)) if node_set >> n & 1]
    channel, error, limits = channel[:, nodes], error[:, nodes], power[nodes]
    answer = beamforming_method(beamforming)(channel, error, limits, seed=seed)
    dual = dual_of_beam(channel, error, limits, answer.beamformer)
    bound = certified_bound(channel, error, limits, dual=dual).snr
    beam = np.zeros((len(power), channel.shape[2]), dtype=np.complex128)
    beam[nodes] = answer.beamformer
    return beam, answer.snr, bound


def _closed(
    instance: Instance,
    users: BoolArray,
    group: IntArray,
    family: IntArray,
    beam: ComplexArray,
    snr: FloatArray,
    bound: FloatArray,
) -> SlotRates:
    """Extend the solved sets to all 2^N by monotonicity."""
    network = instance.network
    sets = np.arange(1 << instance.nodes)
    within = (family[:, None] & sets) == family[:, None]  # (F, 2^N): solved set inside this one
    around = (family[:, None] & sets) == sets  # (F, 2^N): solved set contains this one
    reachable = np.where(within, snr[:, :, None], -1.0)
    best = np.where(reachable.max(axis=1) > 0, reachable.argmax(axis=1), -1)
    closed_bound = np.where(around, bound[:, :, None], np.inf).min(axis=1)
    closed_bound[:, 0] = 0.0
    closed_snr = np.maximum(reachable.max(axis=1), 0.0)
    return SlotRates(
        users=users,
        group=group,
        node_sets=family,
        beam=beam,
        snr=snr,
        best=best,
        achieved=rate(closed_snr, network.bandwidth, network.max_spectral_efficiency),
        bound=rate(closed_bound, network.bandwidth, network.max_spectral_efficiency),
    )
