"""How fast a class can go wide: certified from above, and reached from below.

A wide message to all users U of a class comes from nodes of the areas that have such users. The
kernel bounds its rate by R_up. Several wide messages that cover U only together take longer than

    1 / r_1 + 1 / r_max   s/bit

where r_k is what user k could have alone from all these nodes, r_1 the least and r_max the largest
of U: one of the messages serves the slowest user, and another one somebody. So no cover is faster
than the larger of R_up and the inverse of this (docs/areas.md, "Bound").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.sinr import rate
from finecast.solvers.areas.tables import Whole, participants
from finecast.solvers.beamforming.by_name import KERNEL, Beams, solve_messages
from finecast.solvers.deadline import BATCH_WORK, MESSAGE_WORK, NEVER, Deadline, count_work
from finecast.solvers.rounding import CLOSED_FORM_ALLOWANCE
from finecast.solvers.workers import ALONE, Workers

CHUNK = 16
"""Messages solved between two looks at the clock, at most."""

CHUNK_SIZE = 4e6
"""Their sizes together, at most, if they are several: two seconds or so."""

SIZE_PER_S = 2e6
"""What is searched for in a second, about."""

QUICKLY_SEARCHED = 5e5
"""Size of a message up to which the search takes no more than 0.3 s. One try without other starts
takes a quarter of that and loses up to 2 % of the rate."""

MOST_SEARCHED = 1e7
"""Size of a message beyond which it is not solved: its Gram matrices take 16 bytes each."""


@dataclass(frozen=True, eq=False)
class WideRates:
    """Rates of wide messages to all users of a class from all nodes that may send it.

    Attributes
    ----------
    bound
        (T, C) bit/s that no cover exceeds; infinite where not solved.
    share
        (T, C) of the rate that the weakest user could have alone, what a beam reaches; not a
        number where not solved.
    """

    bound: FloatArray
    share: FloatArray

    @property
    def known(self) -> BoolArray:
        """(T, C) bool: solved."""
        return np.isfinite(self.bound)


def no_wide_rates(whole: Whole) -> WideRates:
    """Return that nothing is known."""
    shape = whole.users.shape[:2]
    return WideRates(np.full(shape, np.inf), np.full(shape, np.nan))


def solve_wide(
    instance: Instance,
    whole: Whole,
    rates: WideRates,
    wanted: BoolArray,
    *,
    seed: int = 0,
    deadline: Deadline = NEVER,
    workers: Workers = ALONE,
) -> WideRates:
    """Return the rates with those of more classes; the same where nothing is new.

    Parameters
    ----------
    instance, whole, rates
        The problem, and what is known.
    wanted
        (T, C) bool, the classes asked for.
    seed
        Of the search for beams.
    deadline
        When to be done; what is not solved by then stays unknown.
    workers
        Who solves, some messages at a time.
    """
    network = instance.network
    tasks, places = [], []
    for t in range(instance.slots):
        kinds = np.flatnonzero(wanted[t] & ~rates.known[t] & whole.users[t].any(axis=1))
        # Classes with the same users have the same message.
        _, first, which = np.unique(
            np.packbits(whole.users[t, kinds], axis=1),
            axis=0,
            return_index=True,
            return_inverse=True,
        )
        kind = kinds[first]
        size = search_size(whole.users[t, kind], participants(whole, t, kind))
        order = np.argsort(whole.users[t, kind].sum(axis=1), kind="stable")
        for chosen in chunks(order[size[order] <= MOST_SEARCHED], size):
            kind = kinds[first[chosen]]
            users, sends = whole.users[t, kind], participants(whole, t, kind)
            starts = int(size[chosen].max() <= QUICKLY_SEARCHED)
            tasks.append(wide_task(instance, t, users, sends, starts, seed)[0])
            places.append((t, kinds, which.reshape(-1), chosen, kind))
    if not tasks or deadline.over():
        return rates
    bound, share = rates.bound.copy(), rates.share.copy()
    found = workers.each(_bounded, tasks, deadline)
    for (t, kinds, which, chosen, kind), (snr, limit) in zip(places, found, strict=True):
        users, reach = whole.users[t, kind], whole.reach[t]
        alone = rate(
            (participants(whole, t, kind) @ reach.T) ** 2 * (1.0 + CLOSED_FORM_ALLOWANCE),
            network.bandwidth,
            network.max_spectral_efficiency,
        )
        least = np.where(users, alone, np.inf).min(axis=1)
        together = rate(limit, network.bandwidth, network.max_spectral_efficiency)
        fastest = cover_limit(together, least, np.where(users, alone, 0.0).max(axis=1))
        reached = rate(snr, network.bandwidth, network.max_spectral_efficiency)
        for index, message in enumerate(chosen):
            same = kinds[which == message]
            bound[t, same] = fastest[index]
            share[t, same] = reached[index] / least[index] if np.isfinite(limit[index]) else np.nan
    return WideRates(bound, share)


def cover_limit(together: FloatArray, least: FloatArray, largest: FloatArray) -> FloatArray:
    """Return bit/s that no messages exceed that together serve a group, rounded up.

    Parameters
    ----------
    together
        Bound on the rate of one message to the whole group, bit/s; infinite for none.
    least, largest
        Of the rates that its users could have alone.

    Examples
    --------
    One message at 5 bit/s is faster than two at 6 and 12 bit/s. One at 3 is slower than these.

    >>> print(cover_limit(np.array([5.0, 3.0]), np.array([6.0, 6.0]), np.array([12.0, 12.0])))
    [5. 4.]
    """
    with np.errstate(divide="ignore"):
        several = 1.0 / (1.0 / least + 1.0 / largest)
    return np.asarray(
        np.minimum(least, np.maximum(together, several)) * (1.0 + CLOSED_FORM_ALLOWANCE)
    )


def search_size(users: BoolArray, sends: BoolArray) -> FloatArray:
    """Return (Y,) N K^2 of messages: what the search for their beams takes in memory and time.

    Parameters
    ----------
    users, sends
        (Y, K) and (Y, N) bool, listeners and senders.
    """
    return np.asarray(sends.sum(axis=1) * users.sum(axis=1) ** 2.0)


def chunks(order: IntArray, size: FloatArray, seconds: float = np.inf) -> Iterator[IntArray]:
    """Yield some messages at a time, in order: few where they are large or the time is short.

    Parameters
    ----------
    order
        Indices of messages.
    size
        (Y,) their sizes.
    seconds
        How long the search for several at a time may take, about.

    Examples
    --------
    >>> [part.tolist() for part in chunks(np.array([2, 0, 1]), np.array([2e6, 3e6, 5.0]))]
    [[2, 0], [1]]
    >>> [part.tolist() for part in chunks(np.arange(3), np.full(3, 1e6), seconds=1.0)]
    [[0, 1], [2]]
    """
    begin, largest = 0, min(CHUNK_SIZE, seconds * SIZE_PER_S)
    while begin < len(order):
        fit = int(np.searchsorted(np.cumsum(size[order[begin : begin + CHUNK]]), largest, "right"))
        yield order[begin : begin + max(1, fit)]
        begin += max(1, fit)


def wide_task(
    instance: Instance, t: int, users: BoolArray, sends: BoolArray, starts: int, seed: int
) -> tuple[tuple[object, ...], IntArray]:
    """Return the arguments of a task for some wide messages, and the nodes that it is about.

    Users and nodes that no message of the task has are left out.

    Parameters
    ----------
    instance, t
        The problem and the slot.
    users, sends
        (B, K) and (B, N) bool, listeners and senders.
    starts, seed
        Starts of the search, and their seed.
    """
    width = int(users.sum(axis=1).max())
    listener = np.argsort(~users, axis=1, kind="stable")[:, :width]
    nodes = np.flatnonzero(sends.any(axis=0))
    pairs = listener[:, :, None], nodes
    task = (
        instance.normalised_channel[t][pairs],
        instance.normalised_error[t][pairs],
        instance.network.power[nodes],
        sends[:, nodes],
        np.take_along_axis(users, listener, axis=1),
        starts,
        seed,
    )
    return task, nodes


def searched(
    channel: ComplexArray,
    error: FloatArray,
    power: FloatArray,
    sends: BoolArray,
    listens: BoolArray,
    starts: int,
    seed: int,
) -> Beams:
    """Return beams of some messages and what comes with them."""
    found = solve_messages(
        KERNEL, channel, error, power, node_mask=sends, user_mask=listens,
        starts=starts, seed=seed, tight=False,
    )  # fmt: skip
    count_work(BATCH_WORK + MESSAGE_WORK * len(channel) * channel.shape[1] ** 2)
    return found


def _bounded(*task: Any) -> tuple[FloatArray, FloatArray]:
    """Return the SNR that beams of some messages reach and its bounds; infinite without time."""
    if task[-1].over():
        count = len(task[0])
        return np.zeros(count), np.full(count, np.inf)
    found = searched(*task[:-1])
    return found.snr, found.bound
