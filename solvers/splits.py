"""Splitting user groups: several messages that together serve a group faster than one does.

With errors no common beam may serve a whole group well, or at all. Wherever the rate of one message
is well below what any cover could reach (`finecast.solvers.covers`), a partition of the group is
searched for. It is the best one for small groups. Larger groups are merged from single users, and
are split user by user.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.solvers.beamforming.by_name import KERNEL, solve_messages
from finecast.solvers.covers import efficiency, subsets
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.node_set_tables import mask_type, members, whole_set
from finecast.solvers.rate_search import by_search, solve_user_sets
from finecast.solvers.rates import SlotRates, Solved, with_parts

EXACT_USERS = 6
"""Groups up to so many users are split in the best way: 2^6 messages are tried."""

WORTH = 0.01
"""A group is split where the bound is further than this share above the rate of one message."""

WORTH_ELSEWHERE = 0.1
"""The same for sets of fewer than all nodes, before any placement uses them."""

Seconds = Callable[[BoolArray], FloatArray]
"""From user sets (B, K) to the time of a bit of one message to each (B,)."""

Parts = list[BoolArray]
"""Disjoint user sets, (K,) each."""


def with_splits(
    instance: Instance,
    slot: int,
    rates: SlotRates,
    rows: int,
    *,
    robust: bool,
    beamforming: str,
    seed: int,
    deadline: Deadline = NEVER,
) -> SlotRates:
    """Return the rates of a slot with user groups split where that may be worth it.

    Parameters
    ----------
    instance, slot
        The problem, and which slot.
    rates
        Its rates.
    rows
        The first user sets of the rates, which are the messages of the plan.
    robust, beamforming, seed
        As in `finecast.solvers.rate_table.rate_table`.
    deadline
        Once it is over, only groups that cannot be served otherwise are split.
    """
    row, everywhere = (
        np.arange(rows),
        np.full(rows, (1 << instance.nodes) - 1, mask_type(instance.nodes)),
    )
    if beamforming != KERNEL or deadline.over():
        # A comparison of beamforming methods must not be helped out, but nobody stays unserved.
        unserved = whole_set(rates.achieved, instance.nodes)[:rows] <= 0
        row, everywhere = row[unserved], everywhere[unserved]
    pairs = worth_splitting(rates, row, everywhere, WORTH)
    if beamforming == KERNEL and not deadline.over():
        # Small groups also where few nodes send: they are quickly split.
        small = np.flatnonzero(rates.users[:rows].sum(axis=1) <= EXACT_USERS)
        node_set = rates.node_sets[small]
        each = np.repeat(small, node_set.shape[1])
        solved = np.isfinite(rates.snr_bound[small]).ravel()
        pairs |= worth_splitting(rates, each[solved], node_set.ravel()[solved], WORTH_ELSEWHERE)
    return split(instance, slot, rates, pairs, robust=robust, beamforming=beamforming, seed=seed)


def worth_splitting(
    rates: SlotRates, row: IntArray, node_set: IntArray, worth: float
) -> set[tuple[int, int]]:
    """Return the (user set, node set) whose rate is well below its bound.

    Parameters
    ----------
    rates
        Rates of the slot.
    row, node_set
        (B,) user sets and node sets.
    worth
        How far below, as a share of the rate.
    """
    if not (rates.splits and len(row)):
        return set()
    slow = rates.achieved[row, node_set] * (1.0 + worth) < rates.bound[row, node_set]
    slow &= rates.users[row].sum(axis=1) > 1
    return {(int(r), int(q)) for r, q in zip(row[slow], node_set[slow], strict=True)}


def split(
    instance: Instance,
    slot: int,
    rates: SlotRates,
    pairs: Iterable[tuple[int, int]],
    *,
    robust: bool,
    beamforming: str,
    seed: int,
) -> SlotRates:
    """Return the rates with the best partitions found for given user sets and node sets.

    Parameters
    ----------
    instance, slot, rates, robust, beamforming, seed
        As in `with_splits`.
    pairs
        User sets, by their row of the rates, and node sets that send.
    """
    error = instance.error_of(slot, robust)
    pairs = sorted(pairs)
    if not (pairs and (error > 0).any()):
        return rates
    known = {users.tobytes(): row for row, users in enumerate(rates.users)}
    new_users: list[BoolArray] = []
    new_sets: list[IntArray] = []
    ways = dict.fromkeys(
        (int(row), tuple(np.flatnonzero(part).tolist()))
        for row, part in zip(rates.split_set, rates.part, strict=True)
    )
    old_ways = len(ways)
    times = _small_times(instance, slot, rates, pairs, error, seed)
    for row, node_set in pairs:
        seconds = _memory(times.setdefault(node_set, {}), instance, slot, node_set, error, seed)
        parts = best_partition(rates.users[row], seconds)
        if len(parts) < 2:
            continue
        # Messages of their own are quickly solved, and fast where few nodes send.
        for way in (parts, singles(rates.users[row])):
            for users in way:
                if users.tobytes() not in known:
                    known[users.tobytes()] = len(known)
                    new_users.append(users)
                    new_sets.append(rates.node_sets[row])
            ways[row, tuple(sorted(known[users.tobytes()] for users in way))] = None
    added = list(ways)[old_ways:]
    if not added:
        return rates
    part = np.zeros((len(added), len(known)), dtype=bool)
    for index, (_, rows) in enumerate(added):
        part[index, list(rows)] = True
    users = np.array(new_users, dtype=bool).reshape(-1, instance.users)
    node_sets = np.array(new_sets, dtype=mask_type(instance.nodes)).reshape(
        -1, rates.node_sets.shape[1]
    )
    if len(users):
        solved = solve_user_sets(
            instance,
            np.full(len(users), slot),
            users,
            node_sets,
            by_search(instance, beamforming, seed, tight=False),
            robust=robust,
            splits=False,
        )
    else:
        shape = (0, *rates.snr.shape[1:])
        solved = Solved(np.zeros((0, *rates.beam.shape[1:]), complex), *np.zeros((3, *shape)))
    return with_parts(
        instance, rates, users, node_sets, solved, np.array([row for row, _ in added]), part
    )


def best_partition(users: BoolArray, seconds: Seconds) -> Parts:
    """Return the partition of a user set that is sent fastest; the best one for small sets.

    Parameters
    ----------
    users
        (K,) bool.
    seconds
        The time of a bit of one message.

    Examples
    --------
    One message costs as much as its users squared, and 3 more: pairs are best.

    >>> def cost(sets):
    ...     return 3.0 + sets.sum(axis=1) ** 2
    >>> [int(part.sum()) for part in best_partition(np.ones(4, dtype=bool), cost)]
    [2, 2]
    >>> [int(part.sum()) for part in best_partition(np.ones(8, dtype=bool), cost)]
    [2, 2, 2, 2]
    """
    listeners = np.flatnonzero(users)
    if len(listeners) <= EXACT_USERS:
        return _best_of_all(users, seconds(_subsets_of(users)))
    merged = _merged(singles(users), seconds)
    peeled = _merged(_peeled(users, seconds), seconds)
    return min((merged, peeled, [users]), key=lambda parts: float(seconds(np.array(parts)).sum()))


def singles(users: BoolArray) -> Parts:
    """Return every user of a set as a set of its own."""
    return [np.arange(len(users)) == k for k in np.flatnonzero(users)]


def _subsets_of(users: BoolArray) -> BoolArray:
    """Return (2^m - 1, K) all subsets of a user set, as `subsets(m)` orders them."""
    listeners = np.flatnonzero(users)
    sets = np.zeros(((1 << len(listeners)) - 1, len(users)), dtype=bool)
    sets[:, listeners] = subsets(len(listeners))
    return sets


def _best_of_all(users: BoolArray, time: FloatArray) -> Parts:
    """Return the best partition, given the time of every subset: by the part of the first user."""
    sets = _subsets_of(users)
    best = np.zeros(len(sets) + 1)
    choice = np.zeros(len(sets) + 1, dtype=np.int64)
    for mask in range(1, len(best)):
        first = mask & -mask
        part = np.arange(1, mask + 1)
        part = part[(part & ~mask == 0) & (part & first > 0)]
        value = time[part - 1] + best[mask ^ part]
        choice[mask], best[mask] = part[value.argmin()], value.min()
    parts, mask = [], len(sets)
    while mask:
        parts.append(sets[choice[mask] - 1])
        mask ^= int(choice[mask])
    return parts


def _merged(parts: Parts, seconds: Seconds) -> Parts:
    """Return the parts after merging two of them as long as that saves time."""
    parts = list(parts)
    while len(parts) > 1:
        time = seconds(np.array(parts))
        left, right = np.triu_indices(len(parts), 1)
        together = seconds(np.array(parts)[left] | np.array(parts)[right])
        with np.errstate(invalid="ignore"):
            saved = np.nan_to_num(time[left] + time[right] - together, nan=-np.inf, posinf=np.inf)
        best = int(saved.argmax())
        if not saved[best] > 0:
            break
        a, b = int(left[best]), int(right[best])
        parts = [part for i, part in enumerate(parts) if i not in (a, b)] + [parts[a] | parts[b]]
    return parts


def _peeled(users: BoolArray, seconds: Seconds) -> Parts:
    """Return what is left of a user set after taking out single users while that saves time."""
    rest, out = users, []
    while rest.sum() > 1:
        alone = np.array(singles(rest))
        without = seconds(rest & ~alone)
        total = without + seconds(alone)
        best = int(total.argmin())
        whole = float(seconds(rest[None])[0])
        # As long as nothing can serve the rest at all, leave out the user that is slowest alone.
        if not np.isfinite(total[best]):
            best = int(seconds(alone).argmax())
        elif not total[best] < whole:
            break
        out.append(alone[best])
        rest = rest & ~alone[best]
    return [rest, *out]


def _memory(
    known: dict[bytes, float],
    instance: Instance,
    slot: int,
    node_set: int,
    error: FloatArray,
    seed: int,
) -> Seconds:
    """Return the times of user sets from a node set, each solved once."""

    def seconds(sets: BoolArray) -> FloatArray:
        missing = [users for users in sets if users.tobytes() not in known]
        if missing:
            users = np.unique(np.array(missing), axis=0)
            time = _times(
                instance,
                slot,
                users,
                np.full(len(users), node_set, mask_type(instance.nodes)),
                error,
                seed,
            )
            known.update({row.tobytes(): float(t) for row, t in zip(users, time, strict=True)})
        return np.array([known[users.tobytes()] for users in sets])

    return seconds


def _small_times(
    instance: Instance,
    slot: int,
    rates: SlotRates,
    pairs: list[tuple[int, int]],
    error: FloatArray,
    seed: int,
) -> dict[int, dict[bytes, float]]:
    """Return per node set the times of all subsets of small user sets, solved in one batch."""
    wanted: dict[tuple[int, bytes], BoolArray] = {}
    for row, node_set in pairs:
        if rates.users[row].sum() <= EXACT_USERS:
            for users in _subsets_of(rates.users[row]):
                wanted[node_set, users.tobytes()] = users
    times: dict[int, dict[bytes, float]] = {}
    if wanted:
        node_sets = np.array([each for each, _ in wanted], dtype=mask_type(instance.nodes))
        users = np.array(list(wanted.values()))
        found = _times(instance, slot, users, node_sets, error, seed)
        for (node_set, key), time in zip(wanted, found, strict=True):
            times.setdefault(node_set, {})[key] = float(time)
    return times


def _times(
    instance: Instance,
    slot: int,
    users: BoolArray,
    node_sets: IntArray,
    error: FloatArray,
    seed: int,
) -> FloatArray:
    """Return (B,) the time of a bit of one message, in s Hz; infinite where it cannot be sent."""
    channel = instance.normalised_channel[slot]
    # Only users that listen to anything, so that little of the batch is padding.
    heard = np.flatnonzero(users.any(axis=0))
    channel, error, users = channel[heard], error[heard], users[:, heard]
    found = solve_messages(
        KERNEL,
        np.broadcast_to(channel, (len(users), *channel.shape)),
        np.broadcast_to(error, (len(users), *error.shape)),
        instance.network.power,
        node_mask=members(node_sets, instance.nodes),
        user_mask=users,
        seed=seed,
        tight=False,
    )
    with np.errstate(divide="ignore"):
        return 1.0 / efficiency(found.snr, instance.network.max_spectral_efficiency)
