"""The rate table: how fast user groups can be served by sets of nodes.

Beamforming enters placement only through R(U, Q), the best guaranteed rate of a message to the
users U alone on the air, sent by the nodes Q (docs/formulation.md section 4). For every user set of
every slot the table holds, per node set, an achieved rate with its beam and a certified upper
bound. R is monotone in Q, so a set inherits the better beam of its subsets and the smaller bound
of its supersets.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from problem.files import FormatError, content_hash, read_archive, write_archive
from problem.instance import Instance
from problem.sinr import rate
from solvers.beamforming.methods import Beams, check_name, solve_messages
from solvers.result import Callback, Progress

FULL_FAMILY_NODES = 6
"""Up to so many nodes every set of them is solved; beyond, a family of sets."""

NEIGHBOURS = 3
"""Nearest nodes, itself included, in a node's neighbourhood of the family beyond 6 nodes."""

CHUNK = 1024
"""Messages solved between two reports of progress."""

FORMAT = "finecast-rates"
VERSION = 1


@dataclass(frozen=True, eq=False)
class SlotRates:
    """Rates of one slot; a node set is a bit mask, bit n for node n.

    Parameters
    ----------
    users
        (G, K) bool, the user sets.
    node_sets
        (F,) the node sets that were solved.
    beam
        (G, F, N, A) complex, square root of watt.
    snr, snr_bound
        (G, F) guaranteed SNR that the beam achieves, and the certified upper bound on it.
    best
        (G, 2^N) index into `node_sets` of the best solved subset of every set; -1 if none serves.
    achieved, bound
        (G, 2^N) guaranteed rate and its certified upper bound, bit/s.
    """

    users: BoolArray
    node_sets: IntArray
    beam: ComplexArray
    snr: FloatArray
    snr_bound: FloatArray
    best: IntArray
    achieved: FloatArray
    bound: FloatArray


def node_set_family(instance: Instance) -> IntArray:
    """Return the node sets to solve.

    All of them up to 6 nodes; beyond, every single node, every pair, every node's neighbourhood
    (itself and the nodes with the strongest channels to the users that it serves best, on
    average over slots), and the full set.
    """
    nodes = instance.nodes
    if nodes <= FULL_FAMILY_NODES:
        return np.arange(1, 1 << nodes)
    singles = [1 << n for n in range(nodes)]
    pairs = [a | b for a, b in combinations(singles, 2)]
    strength = np.linalg.norm(instance.channel_estimate, axis=3).mean(axis=0)  # (K, N)
    own = strength.argmax(axis=1)
    around = []
    for n in range(nodes):
        seen = strength[own == n].sum(axis=0)
        seen[n] = np.inf
        around.append(sum(1 << int(m) for m in np.argsort(-seen)[:NEIGHBOURS]))
    return np.unique([*singles, *pairs, *around, (1 << nodes) - 1])


def rate_table(
    instance: Instance,
    users: Sequence[BoolArray],
    node_sets: IntArray,
    *,
    beamforming: str = "multicast",
    robust: bool = True,
    seed: int = 0,
    callback: Callback | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> tuple[SlotRates, ...]:
    """Return the rates of every slot.

    Parameters
    ----------
    instance
        The problem.
    users
        Per slot (G, K) bool, the user sets; none is empty.
    node_sets
        (F,) bit masks of the node sets to solve.
    beamforming
        Name of the beamforming method; see `solvers.beamforming.methods`.
    robust
        Plan for the error balls; else as if the estimated channels were true.
    seed
        Seed of the beamforming method's random starts.
    callback
        Told after every thousand messages.
    cache
        Folder in which tables are kept, by a hash of everything they depend on; None for none.

    Raises
    ------
    ValueError
        There is no such beamforming method.
    """
    check_name(beamforming)
    kept = None
    if cache is not None:
        kept = Path(cache) / f"{_key(instance, users, node_sets, beamforming, robust, seed)}.npz"
        known = _read(kept)
        if known is not None:
            return _closed_slots(instance, users, node_sets, *known)
    slot = np.concatenate([np.full(len(u), t) for t, u in enumerate(users)]).astype(np.int64)
    listening = np.concatenate(users)
    beam, snr, bound = _solve_all(
        instance, slot, listening, node_sets, beamforming, robust, seed, callback
    )
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_archive(kept, FORMAT, VERSION, {}, {"beam": beam, "snr": snr, "bound": bound})
    return _closed_slots(instance, users, node_sets, beam, snr, bound)


def improved(
    instance: Instance, slot: SlotRates, group: IntArray, node_set: IntArray, found: Beams
) -> SlotRates:
    """Return the rates with newly found beams and bounds wherever these are better.

    Parameters
    ----------
    instance
        The problem.
    slot
        Rates so far.
    group, node_set
        (B,) which user set and which entry of `slot.node_sets` each new beam is for.
    found
        B beams.
    """
    beam, snr, bound = slot.beam.copy(), slot.snr.copy(), slot.snr_bound.copy()
    better = found.snr > snr[group, node_set]
    beam[group[better], node_set[better]] = found.beamformer[better]
    snr[group, node_set] = np.maximum(snr[group, node_set], found.snr)
    bound[group, node_set] = np.minimum(bound[group, node_set], found.bound)
    return _closed(instance, slot.users, slot.node_sets, beam, snr, bound)


def _solve_all(
    instance: Instance,
    slot: IntArray,
    listening: BoolArray,
    node_sets: IntArray,
    beamforming: str,
    robust: bool,
    seed: int,
    callback: Callback | None,
) -> tuple[ComplexArray, FloatArray, FloatArray]:
    """Return beams (P, F, N, A), SNR (P, F) and bounds (P, F) of all user sets P of all slots.

    Messages with about as many users go together, so that little of a batch is padding.
    """
    sets, family = len(listening), len(node_sets)
    beam = np.zeros((sets, family, instance.nodes, instance.antennas), dtype=np.complex128)
    snr, bound = np.zeros((2, sets, family))
    member = (node_sets[:, None] >> np.arange(instance.nodes) & 1).astype(bool)
    size = listening.sum(axis=1)
    padded = 2 ** np.ceil(np.log2(np.maximum(size, 1))).astype(np.int64)
    done, total = 0, sets * family
    for width in np.unique(padded):
        rows = np.flatnonzero(padded == width)
        # Indices of the listening users first; the rest of the row is masked out.
        order = np.argsort(~listening[rows], axis=1, kind="stable")[:, :width]
        heard = np.take_along_axis(listening[rows], order, axis=1)
        channel = instance.normalised_channel[slot[rows, None], order]
        error = instance.normalised_error[slot[rows, None], order]
        pairs = np.argwhere(np.ones((len(rows), family), dtype=bool))
        for begin in range(0, len(pairs), CHUNK):
            r, f = pairs[begin : begin + CHUNK].T
            solved = solve_messages(
                beamforming,
                channel[r],
                error[r] if robust else np.zeros_like(error[r]),
                instance.network.power,
                node_mask=member[f],
                user_mask=heard[r],
                seed=seed,
            )
            beam[rows[r], f], snr[rows[r], f] = solved.beamformer, solved.snr
            bound[rows[r], f] = solved.bound
            done += len(r)
            if callback is not None:
                callback(Progress(f"beams ({beamforming})", done, total))
    return beam, snr, bound


def _closed_slots(
    instance: Instance,
    users: Sequence[BoolArray],
    node_sets: IntArray,
    beam: ComplexArray,
    snr: FloatArray,
    bound: FloatArray,
) -> tuple[SlotRates, ...]:
    ends = np.cumsum([len(u) for u in users])[:-1]
    parts = zip(
        users, np.split(beam, ends), np.split(snr, ends), np.split(bound, ends), strict=True
    )
    return tuple(_closed(instance, u, node_sets, b, s, c) for u, b, s, c in parts)


def _closed(
    instance: Instance,
    users: BoolArray,
    node_sets: IntArray,
    beam: ComplexArray,
    snr: FloatArray,
    bound: FloatArray,
) -> SlotRates:
    """Extend the solved sets to all 2^N by monotonicity."""
    network = instance.network
    sets = np.arange(1 << instance.nodes)
    shape = (len(users), len(sets))
    best = np.full(shape, -1)
    closed_snr, closed_bound = np.zeros(shape), np.full(shape, np.inf)
    for f, solved in enumerate(node_sets):  # a solved set serves all that contain it
        above = np.flatnonzero((sets & solved) == solved)
        better = snr[:, [f]] > closed_snr[:, above]
        best[:, above] = np.where(better, f, best[:, above])
        closed_snr[:, above] = np.maximum(closed_snr[:, above], snr[:, [f]])
        below = np.flatnonzero((sets & solved) == sets)
        closed_bound[:, below] = np.minimum(closed_bound[:, below], bound[:, [f]])
    closed_bound[:, 0] = 0.0
    return SlotRates(
        users=users,
        node_sets=node_sets,
        beam=beam,
        snr=snr,
        snr_bound=bound,
        best=best,
        achieved=rate(closed_snr, network.bandwidth, network.max_spectral_efficiency),
        bound=rate(closed_bound, network.bandwidth, network.max_spectral_efficiency),
    )


def _key(
    instance: Instance,
    users: Sequence[BoolArray],
    node_sets: IntArray,
    beamforming: str,
    robust: bool,
    seed: int,
) -> str:
    """Return a hash of all that the beams depend on, and of nothing else."""
    header = {"beamforming": beamforming, "robust": robust, "seed": seed, "version": VERSION}
    return hashlib.sha256(
        content_hash(
            header,
            {
                "channel": instance.normalised_channel,
                "error": instance.normalised_error,
                "power": instance.network.power,
                "users": np.concatenate(users),
                "count": np.array([len(u) for u in users]),
                "node_sets": node_sets,
            },
        ).encode()
    ).hexdigest()[:32]


def _read(path: Path) -> tuple[ComplexArray, FloatArray, FloatArray] | None:
    """Return a kept table; None where there is none or it is damaged, and is made anew."""
    try:
        _, arrays = read_archive(path, FORMAT, VERSION)
        return arrays["beam"], arrays["snr"], arrays["bound"]
    except (FormatError, KeyError):
        return None
