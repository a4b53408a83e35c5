"""Rate tables of which not every entry is solved: what there is when the time is short.

A message from all nodes is solved for every user set. Its beams, without those of some nodes, are
beams of any fewer nodes: a first rate for every node set, at the cost of one solved message. Its
bound holds for fewer nodes, too. An entry that is not solved has no bound of its own: its
`snr_bound` is infinite. The table is closed by monotonicity as any other, and is as valid.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.solvers.beamforming.matched import aligned_beams
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.node_set_tables import mask_type, members
from finecast.solvers.rate_search import Find, by_search, solve_user_sets
from finecast.solvers.rates import Solved
from finecast.solvers.result import Callback

LEAST_SHARE = 1e-6
"""What errors leave of an amplitude counts from this share of it on; below it may be rounding."""


def from_all_nodes(
    instance: Instance,
    slot: IntArray,
    listening: BoolArray,
    node_sets: IntArray,
    find: Find,
    *,
    robust: bool,
    splits: bool,
    callback: Callback | None = None,
    deadline: Deadline = NEVER,
) -> Solved:
    """Return beams and bounds of P user sets by F node sets each, all from the set of all nodes.

    Parameters
    ----------
    instance, slot, listening, node_sets, find, robust, splits, callback
        As in `finecast.solvers.rate_search.solve_user_sets`. Only the set of all nodes is solved,
        where it is among the node sets.
    deadline
        Messages not solved by then have beams in closed form, and no bound of their own.
    """
    everywhere = np.full((len(listening), 1), (1 << instance.nodes) - 1, mask_type(instance.nodes))
    whole = solve_user_sets(
        instance, slot, listening, everywhere, find,
        robust=robust, splits=splits, callback=callback, deadline=deadline,
    )  # fmt: skip
    late = np.flatnonzero(np.isinf(whole.snr_bound[:, 0]) & (whole.snr[:, 0] <= 0))
    for t in np.unique(slot[late]):
        rows = late[slot[late] == t]
        channel, error = instance.normalised_channel[t], instance.error_of(int(t), robust)
        beam = aligned_beams(channel, error, instance.network.power, listening[rows])
        whole.beam[rows, 0] = beam
        everybody = np.ones((len(rows), 1, instance.nodes), dtype=bool)
        whole.snr[rows] = _guaranteed(channel, error, beam, everybody, listening[rows])
    unserved = late[whole.snr[late, 0] <= 0]
    if len(unserved):  # the search may serve them
        found = solve_user_sets(
            instance, slot[unserved], listening[unserved], everywhere[unserved], find,
            robust=robust, splits=splits,
        )  # fmt: skip
        whole.beam[unserved], whole.snr[unserved] = found.beam, found.snr
    sends = members(node_sets, instance.nodes)
    snr = np.zeros(node_sets.shape)
    for t in np.unique(slot):
        rows = np.flatnonzero(slot == t)
        error = instance.error_of(int(t), robust)
        snr[rows] = _guaranteed(
            instance.normalised_channel[t], error, whole.beam[rows, 0], sends[rows], listening[rows]
        )
    beam = whole.beam * sends[..., None]
    # The set of all nodes itself, as it was solved.
    all_send = sends.all(axis=2)
    snr = np.where(all_send, whole.snr, snr)
    bound = np.where(all_send, whole.snr_bound, np.inf)
    cover = np.where(all_send, whole.cover_bound, np.inf)
    return Solved(beam, snr, bound, cover)


def quick_rates(
    instance: Instance,
    slot: IntArray,
    listening: BoolArray,
    node_sets: IntArray,
    *,
    beamforming: str,
    seed: int,
    robust: bool,
    splits: bool,
    deadline: Deadline = NEVER,
) -> Solved:
    """Return beams and bounds as `from_all_nodes`, found quickly; no entry counts as solved.

    Parameters
    ----------
    instance, slot, listening, node_sets, robust, splits, deadline
        As in `from_all_nodes`.
    beamforming, seed
        As in `finecast.solvers.rate_search.by_search`.
    """
    find = by_search(instance, beamforming, seed, starts=1, tight=False)
    found = from_all_nodes(
        instance, slot, listening, node_sets, find,
        robust=robust, splits=splits, deadline=deadline,
    )  # fmt: skip
    return replace(found, snr_bound=np.full(node_sets.shape, np.inf))


def _guaranteed(
    channel: ComplexArray, error: FloatArray, beam: ComplexArray, sends: BoolArray, users: BoolArray
) -> FloatArray:
    """Return (P, F) the SNR that the beams of all nodes guarantee where only some nodes send.

    Parameters
    ----------
    channel, error
        (K, N, A) and (K, N) of a slot, normalised by the noise amplitude.
    beam
        (P, N, A), square root of watt.
    sends
        (P, F, N), who sends.
    users
        (P, K), who listens.
    """
    received = np.einsum("kna,pna->pkn", channel.conj(), beam)  # by user and node
    lost = error * np.linalg.norm(beam, axis=2)[:, None]
    who = sends.astype(float)
    amplitude = np.abs(np.einsum("pkn,pfn->pfk", received, who))
    left = amplitude - np.einsum("pkn,pfn->pfk", lost, who)
    left = np.where(left > LEAST_SHARE * amplitude, left, 0.0)
    least: FloatArray = np.where(users[:, None], left, np.inf).min(axis=2) ** 2
    return least


def better_of(one: Solved, other: Solved) -> Solved:
    """Return the better beam and the smaller bound of every entry.

    Parameters
    ----------
    one, other
        The same user sets and node sets, solved in two ways.
    """
    better = other.snr > one.snr
    return Solved(
        np.where(better[..., None, None], other.beam, one.beam),
        np.maximum(one.snr, other.snr),
        np.minimum(one.snr_bound, other.snr_bound),
        np.minimum(one.cover_bound, other.cover_bound),
    )
