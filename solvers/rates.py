"""The rates of the messages of a slot: how fast user groups can be served by sets of nodes.

Beamforming enters placement only through R(U, Q), the best guaranteed rate at which messages sent
by the nodes Q, one after another and alone on the air, serve the users U (docs/formulation.md
section 4). That is one message, or several that split U, where these are faster together
(`finecast.solvers.splits`). For every user set of every slot the table holds, per node set, an
achieved rate with its beams and a certified upper bound. R is monotone in Q, so a set inherits the
better beam of its subsets and the smaller bound of its supersets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.sinr import rate
from finecast.solvers.covers import reach_bound
from finecast.solvers.node_set_tables import Table, lies_within, members, table_of, words
from finecast.solvers.rounding import CLOSED_FORM_ALLOWANCE


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


def user_reach(instance: Instance, slot: int, robust: bool) -> FloatArray:
    """Return (K, N) sqrt(P_n) max(0, |g_kn| - eps_kn) from above; without eps in nominal plans.

    The difference of two nearly equal numbers keeps their rounding. A slack makes up for it, and
    for that of the judge, who sums the products of all antennas of all nodes.
    """
    channel, error = instance.normalised_channel[slot], instance.error_of(slot, robust)
    return reach_bound(channel, error, instance.network.power)


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


def with_columns(slot: SlotRates, message: IntArray, node_set: IntArray) -> SlotRates:
    """Return the rates with node sets among those to solve.

    Parameters
    ----------
    slot
        Rates so far.
    message, node_set
        (B,) distinct pairs of a user set, by its row, and who sends to it.
    """
    known = (slot.node_sets[message] == node_set[:, None]).any(axis=1)
    message, node_set = message[~known], node_set[~known]
    if not len(message):
        return slot
    # The column of a node set among the new ones of its message.
    order = np.argsort(message, kind="stable")
    message, node_set = message[order], node_set[order]
    column = np.arange(len(message)) - np.searchsorted(message, message)
    more = np.zeros((len(slot.users), int(column.max()) + 1), dtype=node_set.dtype)
    more[message, column] = node_set
    return with_node_sets(slot, more)


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
    return closed(
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
    return closed(
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


def closed_slots(
    instance: Instance,
    users: Sequence[BoolArray],
    robust: bool,
    splits: bool,
    node_sets: Sequence[IntArray],
    solved: Solved,
) -> tuple[SlotRates, ...]:
    ends = np.cumsum([len(u) for u in users])[:-1]
    return tuple(
        closed(
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


def closed(
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
    of_set = words(node_sets)

    def bits(snr: FloatArray) -> FloatArray:
        return rate(snr, network.bandwidth, network.max_spectral_efficiency)

    def within(group: IntArray, sets: IntArray) -> FloatArray:
        """(B, F) SNR of the solved subsets, 0 for all other solved sets."""
        inside = lies_within(of_set[group], words(sets)[:, None])
        return np.where(inside, solved.snr[group], 0.0)

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
        around = lies_within(words(sets)[:, None], of_set[group])
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
