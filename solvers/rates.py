"""The rate table: how fast user groups can be served by sets of nodes.

Beamforming enters placement only through R(U, Q), the best guaranteed rate at which messages sent
by the nodes Q, one after another and alone on the air, serve the users U (docs/formulation.md
section 4). That is one message, or several that split U, where these are faster together
(`finecast.solvers.splits`). For every user set of every slot the table holds, per node set, an
achieved rate with its beams and a certified upper bound. R is monotone in Q, so a set inherits the
better beam of its subsets and the smaller bound of its supersets.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import combinations
from pathlib import Path

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.sinr import rate
from finecast.solvers.beamforming.by_name import (
    Beams,
    Proof,
    check_name,
    prove_again,
    solve_messages,
)
from finecast.solvers.cover_cuts import GroupMessages, cut_efficiency
from finecast.solvers.covers import (
    common_channel_efficiency,
    cover_efficiency,
    efficiency,
    reach_bound,
)
from finecast.solvers.kept_rates import Kept, keep, read_kept, table_key
from finecast.solvers.node_set_tables import FULL_TABLES, Table, members, table_of
from finecast.solvers.result import Callback, Progress
from finecast.solvers.rounding import CLOSED_FORM_ALLOWANCE

FULL_FAMILY_NODES = 6
"""Up to so many nodes every set of them is solved; beyond, a family of sets."""

NEIGHBOURS = 3
"""Nearest nodes, itself included, in a node's neighbourhood of the family beyond 6 nodes."""

GROUP_NODES = 5
"""Beyond 8 nodes every group has its own family: all subsets of so many nodes, and more."""

STARTS = 4
"""Starts of a beam's search."""

LOOSE = 0.02
"""A second bound on covers is computed where the beams stay further below the first than this."""

CHUNK = 1024
"""Messages solved between two reports of progress."""


@dataclass(frozen=True, eq=False)
class SlotRates:
    """Rates of one slot; a node set is a bit mask, bit n for node n.

    Parameters
    ----------
    users
        (G, K) bool, the user sets: those of the messages first, then parts of them.
    reach
        (K, N) sqrt(P_n) max(0, |g_kn| - eps_kn), amplitude that each node can give a user alone,
        from above.
    node_sets
        (G, F) the node sets that were solved for each user set.
    beam
        (G, F, N, A) complex, square root of watt.
    snr, snr_bound
        (G, F) guaranteed SNR that the beam achieves, and the certified upper bound on it.
    cover_bound
        (G, F) bit/s/Hz that messages which together serve the user set do not exceed. For one
        message alone, where groups may not be split.
    best
        (G, 2^N) index into `node_sets` of the best solved subset of every set; -1 if none serves.
    one_message
        (G, 2^N) guaranteed rate of one message, bit/s.
    achieved, bound
        (G, 2^N) guaranteed rate by one message or by parts, and its certified upper bound, bit/s.
    splits
        User sets may be split.
    split_set, part
        (S,) a user set, and (S, G) bool the user sets that split it: a way to serve it.
    """

    users: BoolArray
    reach: FloatArray
    node_sets: IntArray
    beam: ComplexArray
    snr: FloatArray
    snr_bound: FloatArray
    cover_bound: FloatArray
    best: Table
    one_message: Table
    achieved: Table
    bound: Table
    splits: bool
    split_set: IntArray
    part: BoolArray

    def parts(self, user_set: IntArray, node_set: IntArray) -> BoolArray:
        """Return (B, G) bool, the user sets whose messages serve each user set fastest.

        Parameters
        ----------
        user_set, node_set
            (B,) index into `users`, and bit mask of who sends.
        """
        chosen = np.zeros((len(user_set), len(self.users)), dtype=bool)
        chosen[np.arange(len(user_set)), user_set] = True
        time = parts_time(self.one_message, user_set[:, None], node_set)
        for split_set, part in zip(self.split_set, self.part, strict=True):
            rows = np.flatnonzero(user_set == split_set)
            by_parts = parts_time(self.one_message, np.flatnonzero(part), node_set[rows])
            faster = by_parts < time[rows]
            chosen[rows[faster]] = part
            time[rows[faster]] = by_parts[faster]
        return chosen


@dataclass(frozen=True, eq=False)
class Solved:
    """Beams and bounds of P user sets by F node sets each.

    Parameters
    ----------
    beam, snr, snr_bound, cover_bound
        As in `SlotRates`, (P, F, ...).
    """

    beam: ComplexArray
    snr: FloatArray
    snr_bound: FloatArray
    cover_bound: FloatArray

    def cut(self, ends: IntArray) -> list[Solved]:
        """Return the user sets in consecutive parts that end before `ends`."""
        arrays = (self.beam, self.snr, self.snr_bound, self.cover_bound)
        return [Solved(*part) for part in zip(*(np.split(x, ends) for x in arrays), strict=True)]


def parts_time(one_message: Table, part: IntArray, node_set: IntArray) -> FloatArray:
    """Return (B,) s/bit of messages to the user sets `part` (P,) or (B, P), one after another.

    Parameters
    ----------
    one_message
        (G, 2^N) rate of one message to each user set, bit/s.
    part, node_set
        The user sets, and (B,) who sends.
    """
    with np.errstate(divide="ignore"):
        return np.asarray((1.0 / one_message[part, node_set[:, None]]).sum(axis=1))


def node_sets_to_solve(
    instance: Instance, users: Sequence[BoolArray], robust: bool
) -> list[IntArray]:
    """Return per slot (G, F) the node sets to solve for every user set.

    The same for all user sets up to 8 nodes (`node_set_family`); beyond, each its own
    (`group_family`).

    Parameters
    ----------
    instance
        The problem.
    users
        Per slot (G, K) bool, the user sets.
    robust
        Plans are for the error balls.
    """
    if instance.nodes <= FULL_TABLES:
        return same_for_all(node_set_family(instance), users)
    return [group_family(user_reach(instance, t, robust), u) for t, u in enumerate(users)]


def same_for_all(node_sets: IntArray, users: Sequence[BoolArray]) -> list[IntArray]:
    """Return per slot (G, F) the same node sets (F,) for every user set."""
    return [np.broadcast_to(node_sets, (len(u), len(node_sets))) for u in users]


def user_reach(instance: Instance, slot: int, robust: bool) -> FloatArray:
    """Return (K, N) sqrt(P_n) max(0, |g_kn| - eps_kn) from above; without eps in nominal plans.

    The difference of two nearly equal numbers keeps their rounding. A slack makes up for it, and
    for that of the judge, who sums the products of all antennas of all nodes.
    """
    channel, error = instance.normalised_channel[slot], instance.error_of(slot, robust)
    return reach_bound(channel, error, instance.network.power)


def group_family(reach: FloatArray, users: BoolArray) -> IntArray:
    """Return (G, F) node sets for every user set, by the nodes that matter most to it.

    A node matters by its share of the amplitude that reaches the users, summed over them. The
    sets: all subsets of the first 5 nodes, alone and with all other nodes; the first 6, 7, ...
    nodes; all nodes but one.

    Parameters
    ----------
    reach
        (K, N) amplitude of each node at a user.
    users
        (G, K) bool, the user sets.
    """
    nodes = reach.shape[1]
    share = reach / np.maximum(reach.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    order = np.argsort(-(users @ share), axis=1, kind="stable")
    bit = 1 << order  # (G, N) the nodes of each user set, those that matter most first
    everywhere = (1 << nodes) - 1
    subsets = bit[:, :GROUP_NODES] @ members(np.arange(1 << GROUP_NODES), GROUP_NODES).T
    others = bit[:, GROUP_NODES:].sum(axis=1, keepdims=True)
    leading = np.cumsum(bit, axis=1)[:, GROUP_NODES : nodes - 1]
    all_but_one = everywhere & ~bit[:, GROUP_NODES:]
    return np.concatenate([subsets[:, 1:], subsets | others, leading, all_but_one], axis=1)


def node_set_family(instance: Instance) -> IntArray:
    """Return the node sets to solve for every user set, up to 8 nodes.

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
    node_sets: Sequence[IntArray],
    *,
    beamforming: str = "multicast",
    robust: bool = True,
    splits: bool = True,
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
        Per slot (G, F) bit masks of the node sets to solve.
    beamforming
        Name of the beamforming method; see `finecast.solvers.beamforming.by_name`.
    robust
        Plans are for the error balls; otherwise as if the estimated channels were true.
    splits
        Bounds hold for plans that split user sets, too.
    seed
        Seed of the beamforming method's random starts.
    callback
        Receives the progress after every thousand messages.
    cache
        Folder in which tables are kept, by a hash of everything they depend on; None for none.
        Rates and bounds of a table from there are proven again (`finecast.solvers.kept_rates`).

    Raises
    ------
    ValueError
        There is no such beamforming method.
    """
    check_name(beamforming)
    slot = np.concatenate([np.full(len(u), t) for t, u in enumerate(users)]).astype(np.int64)
    all_users, all_sets = np.concatenate(users), np.concatenate(node_sets)
    find, kept = by_search(instance, beamforming, seed), None
    if cache is not None:
        key = table_key(
            instance, users, node_sets, beamforming=beamforming, robust=robust, seed=seed
        )
        path = Path(cache) / f"{key}.npz"
        known = read_kept(path, all_sets, instance)
        if known is not None:
            find = _from_disk(instance, known)
        else:
            kept = Kept.room(all_sets, instance)
            find = _noted(find, kept)
    solved = solve_user_sets(
        instance, slot, all_users, all_sets, find, robust=robust, splits=splits, callback=callback
    )
    if kept is not None:
        keep(path, kept)
    return _closed_slots(instance, users, robust, splits, node_sets, solved)


def with_node_sets(slot: SlotRates, more: IntArray) -> SlotRates:
    """Return the rates with more node sets, not solved yet.

    Parameters
    ----------
    slot
        Rates so far.
    more
        (G, E) further node sets of every user set; 0 where there is none.
    """
    width = ((0, 0), (0, more.shape[1]))
    return replace(
        slot,
        node_sets=np.concatenate([slot.node_sets, more], axis=1),
        beam=np.pad(slot.beam, (*width, (0, 0), (0, 0))),
        snr=np.pad(slot.snr, width),
        snr_bound=np.pad(slot.snr_bound, width, constant_values=np.inf),
        cover_bound=np.pad(slot.cover_bound, width, constant_values=np.inf),
    )


def with_parts(
    instance: Instance,
    slot: SlotRates,
    users: BoolArray,
    node_sets: IntArray,
    solved: Solved,
    split_set: IntArray,
    part: BoolArray,
) -> SlotRates:
    """Return the rates with further user sets, and ways to split user sets into parts.

    Parameters
    ----------
    instance
        The problem.
    slot
        Rates so far.
    users, node_sets, solved
        (P, K) further user sets, their (P, F) node sets, and what solving these has found.
    split_set, part
        (S,) and (S, G + P), further ways to split, as in `SlotRates`.
    """
    both = [(getattr(slot, f.name), getattr(solved, f.name)) for f in fields(Solved)]
    width = ((0, 0), (0, len(users)))
    return _closed(
        instance,
        np.concatenate([slot.users, users]),
        slot.reach,
        np.concatenate([slot.node_sets, node_sets]),
        Solved(*(np.concatenate(pair) for pair in both)),
        slot.splits,
        np.concatenate([slot.split_set, split_set]),
        np.concatenate([np.pad(slot.part, width), part]),
    )


def with_cover_bounds(
    instance: Instance, slot: SlotRates, user_set: IntArray, column: IntArray, bound: FloatArray
) -> SlotRates:
    """Return the rates with smaller bounds on covers.

    Parameters
    ----------
    instance
        The problem.
    slot
        Rates so far.
    user_set, column
        (B,) which user set, and which of its entries of `slot.node_sets`.
    bound
        (B,) bit/s/Hz.
    """
    cover = slot.cover_bound.copy()
    np.minimum.at(cover, (user_set, column), bound)
    solved = Solved(slot.beam, slot.snr, slot.snr_bound, cover)
    return _closed(
        instance, slot.users, slot.reach, slot.node_sets, solved,
        slot.splits, slot.split_set, slot.part,
    )  # fmt: skip


def improved(
    instance: Instance, slot: SlotRates, group: IntArray, node_set: IntArray, found: Solved
) -> SlotRates:
    """Return the rates with newly found beams and bounds wherever these are better.

    Parameters
    ----------
    instance
        The problem.
    slot
        Rates so far.
    group, node_set
        (B,) which user set and which of its entries of `slot.node_sets` each new beam is for.
    found
        Beams and bounds, (B, ...).
    """
    beam, snr, bound = slot.beam.copy(), slot.snr.copy(), slot.snr_bound.copy()
    better = found.snr > snr[group, node_set]
    beam[group[better], node_set[better]] = found.beam[better]
    snr[group, node_set] = np.maximum(snr[group, node_set], found.snr)
    bound[group, node_set] = np.minimum(bound[group, node_set], found.snr_bound)
    better_slot = replace(slot, beam=beam, snr=snr, snr_bound=bound)
    return with_cover_bounds(instance, better_slot, group, node_set, found.cover_bound)


@dataclass(frozen=True, eq=False)
class Batch:
    """B messages that are solved together.

    Parameters
    ----------
    row, column
        (B,) user set, and which of its node sets.
    listener
        (B, L) users whose channels these are.
    channel, error, node_mask, user_mask
        (B, L, N, A), (B, L, N), (B, N) and (B, L), as in
        `finecast.solvers.beamforming.by_name.solve_messages`.
    """

    row: IntArray
    column: IntArray
    listener: IntArray
    channel: ComplexArray
    error: FloatArray
    node_mask: BoolArray
    user_mask: BoolArray


Find = Callable[[Batch], Beams]
"""From messages to their beams and bounds."""


def by_search(
    instance: Instance, beamforming: str, seed: int, *, starts: int = STARTS, tight: bool = True
) -> Find:
    """Return the search for beams by a method.

    Parameters
    ----------
    instance
        The problem.
    beamforming, seed, starts, tight
        As in `finecast.solvers.beamforming.by_name.solve_messages`.
    """

    def find(batch: Batch) -> Beams:
        return solve_messages(
            beamforming,
            batch.channel,
            batch.error,
            instance.network.power,
            node_mask=batch.node_mask,
            user_mask=batch.user_mask,
            starts=starts,
            seed=seed,
            tight=tight,
        )

    return find


def _from_disk(instance: Instance, known: Kept) -> Find:
    """Return the proof of beams and dual points that were kept."""

    def find(batch: Batch) -> Beams:
        entry = batch.row, batch.column
        of_user = batch.row[:, None], batch.column[:, None], batch.listener
        return prove_again(
            batch.channel,
            batch.error,
            instance.network.power,
            node_mask=batch.node_mask,
            user_mask=batch.user_mask,
            beamformer=known.beam[entry],
            proof=Proof(known.weight[of_user], known.slope[of_user], known.price[entry]),
        )

    return find


def _noted(find: Find, kept: Kept) -> Find:
    """Return the same search, which leaves its beams and dual points in `kept`."""

    def note(batch: Batch) -> Beams:
        found = find(batch)
        entry = batch.row, batch.column
        of_user = batch.row[:, None], batch.column[:, None], batch.listener
        kept.beam[entry], kept.price[entry] = found.beamformer, found.proof.price
        kept.weight[of_user], kept.slope[of_user] = found.proof.weight, found.proof.slope
        return found

    return note


def with_cover_bound(instance: Instance, batch: Batch, found: Beams, splits: bool) -> Solved:
    """Return beams and bounds (B, ...), those on covers included.

    Parameters
    ----------
    instance, batch, found
        The problem, messages, and their beams and bounds.
    splits
        Bounds hold for plans that split user sets, too.
    """
    network = instance.network
    cap = network.max_spectral_efficiency
    cover = efficiency(found.bound, cap)
    if splits:
        cover = cover_efficiency(
            batch.channel,
            batch.error,
            network.power,
            node_mask=batch.node_mask,
            user_mask=batch.user_mask,
            bound=found.bound,
            proof=found.proof,
            cap=cap,
        )
    # Where the beams stay far below, the balls are large: one channel within may prove more.
    loose = np.flatnonzero(
        (batch.error > 0).any(axis=(1, 2)) & (efficiency(found.snr, cap) < (1.0 - LOOSE) * cover)
    )
    if len(loose):
        at_one_channel = common_channel_efficiency(
            batch.channel[loose],
            batch.error[loose],
            network.power,
            node_mask=batch.node_mask[loose],
            user_mask=batch.user_mask[loose],
            cap=cap,
        )
        cover[loose] = np.minimum(cover[loose], at_one_channel)
    # With all nodes, which bounds all fewer, messages to few users are bounded one by one.
    loose = loose[batch.node_mask[loose].all(axis=1) & (batch.user_mask[loose].sum(axis=1) > 2)]
    if splits and len(loose):
        messages = GroupMessages(
            batch.channel[loose],
            batch.error[loose],
            network.power,
            batch.node_mask[loose],
            batch.user_mask[loose],
            cap,
        )
        cover[loose] = np.minimum(cover[loose], cut_efficiency(messages))
    return Solved(found.beamformer, found.snr, found.bound, cover)


def solve_user_sets(
    instance: Instance,
    slot: IntArray,
    listening: BoolArray,
    node_sets: IntArray,
    find: Find,
    *,
    robust: bool,
    splits: bool,
    callback: Callback | None = None,
) -> Solved:
    """Return beams and bounds of P user sets of all slots by F node sets each.

    Messages with about as many users go together, so that little of a batch is padding.

    Parameters
    ----------
    instance
        The problem.
    slot, listening, node_sets
        (P,), (P, K) and (P, F): slot, users and node sets of each user set.
    find
        Finds beams and bounds.
    robust, splits, callback
        As in `rate_table`.
    """
    sets, family = node_sets.shape
    beam = np.zeros((sets, family, instance.nodes, instance.antennas), dtype=np.complex128)
    snr, bound, cover = np.zeros((3, sets, family))
    size = listening.sum(axis=1)
    padded = 2 ** np.ceil(np.log2(np.maximum(size, 1))).astype(np.int64)
    done, total = 0, sets * family
    errors = instance.normalised_error
    if not robust:
        errors = np.zeros_like(errors)
    for width in np.unique(padded):
        rows = np.flatnonzero(padded == width)
        # Indices of the listening users first; the rest of the row is masked out.
        order = np.argsort(~listening[rows], axis=1, kind="stable")[:, :width]
        heard = np.take_along_axis(listening[rows], order, axis=1)
        channel = instance.normalised_channel[slot[rows, None], order]
        error = errors[slot[rows, None], order]
        pairs = np.argwhere(np.ones((len(rows), family), dtype=bool))
        for begin in range(0, len(pairs), CHUNK):
            r, f = pairs[begin : begin + CHUNK].T
            row = rows[r]
            batch = Batch(
                row,
                f,
                order[r],
                channel[r],
                error[r],
                members(node_sets[row, f], instance.nodes),
                heard[r],
            )
            solved = with_cover_bound(instance, batch, find(batch), splits)
            beam[row, f], snr[row, f] = solved.beam, solved.snr
            bound[row, f], cover[row, f] = solved.snr_bound, solved.cover_bound
            done += len(r)
            if callback is not None:
                callback(Progress("beams", done, total))
    return Solved(beam, snr, bound, cover)


def _closed_slots(
    instance: Instance,
    users: Sequence[BoolArray],
    robust: bool,
    splits: bool,
    node_sets: Sequence[IntArray],
    solved: Solved,
) -> tuple[SlotRates, ...]:
    ends = np.cumsum([len(u) for u in users])[:-1]
    return tuple(
        _closed(
            instance,
            users[t],
            user_reach(instance, t, robust),
            node_sets[t],
            part,
            splits,
            np.zeros(0, dtype=np.int64),
            np.zeros((0, len(users[t])), dtype=bool),
        )
        for t, part in enumerate(solved.cut(ends))
    )


def _closed(
    instance: Instance,
    users: BoolArray,
    reach: FloatArray,
    node_sets: IntArray,
    solved: Solved,
    splits: bool,
    split_set: IntArray,
    part: BoolArray,
) -> SlotRates:
    """Extend the solved sets to all 2^N by monotonicity, by parts, and by what users get alone."""
    nodes, network = instance.nodes, instance.network

    def bits(snr: FloatArray) -> FloatArray:
        return rate(snr, network.bandwidth, network.max_spectral_efficiency)

    def within(group: IntArray, sets: IntArray) -> FloatArray:
        """(B, F) SNR of the solved subsets, 0 for all other solved sets."""
        of_group = node_sets[group]
        return np.where((of_group & ~sets[:, None]) == 0, solved.snr[group], 0.0)

    def best(group: IntArray, sets: IntArray) -> IntArray:
        reached = within(group, sets)
        return np.where(reached.any(axis=1), reached.argmax(axis=1), -1)

    def one_message(group: IntArray, sets: IntArray) -> FloatArray:
        return bits(within(group, sets).max(axis=1, initial=0.0))

    def achieved(group: IntArray, sets: IntArray) -> FloatArray:
        reached = by_one[group, sets]
        for row, of_row in zip(split_set, part, strict=True):
            entry = np.flatnonzero(group == row)
            time = parts_time(by_one, np.flatnonzero(of_row), sets[entry])
            reached[entry] = np.maximum(reached[entry], 1.0 / time)
        return reached

    def bounded(group: IntArray, sets: IntArray) -> FloatArray:
        around = (sets[:, None] & ~node_sets[group]) == 0
        covered = np.where(around, solved.cover_bound[group], np.inf).min(axis=1, initial=np.inf)
        alone = (members(sets, nodes) @ reach.T) ** 2 * (1.0 + CLOSED_FORM_ALLOWANCE)
        slowest = np.where(users[group], alone, np.inf).min(axis=1, initial=np.inf)
        faster = np.minimum(network.bandwidth * covered, bits(slowest))
        return np.where(sets == 0, 0.0, faster)

    by_one = table_of(len(users), nodes, one_message)
    return SlotRates(
        users=users,
        reach=reach,
        node_sets=node_sets,
        beam=solved.beam,
        snr=solved.snr,
        snr_bound=solved.snr_bound,
        cover_bound=solved.cover_bound,
        best=table_of(len(users), nodes, best),
        one_message=by_one,
        achieved=table_of(len(users), nodes, achieved) if len(split_set) else by_one,
        bound=table_of(len(users), nodes, bounded),
        splits=splits,
        split_set=split_set,
        part=part,
    )
