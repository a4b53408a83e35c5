"""Wide messages: who gets what from whom, and their beams, each alone on the air."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.solvers.areas.air import interference_of
from finecast.solvers.areas.state import City, State
from finecast.solvers.areas.tables import participants
from finecast.solvers.areas.wide_rates import (
    MOST_SEARCHED,
    QUICKLY_SEARCHED,
    chunks,
    search_size,
    searched,
    wide_task,
)
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.workers import ALONE, Workers

ALIGNMENTS = 10
"""Rounds of phases in `aligned_beam`, with weights as they are."""

REWEIGHTINGS = 30
"""Rounds of phases and weights there."""

REWEIGHTING_STEP = 0.3
"""Of the weights: a user at the mean amplitude loses this share of its weight, about."""

CHUNK_SHARE = 0.1
"""Of the time left, what the messages between two looks at the clock may take."""

TINY = 1e-12


@dataclass(frozen=True, eq=False)
class WideMessages:
    """The wide messages of a slot.

    Attributes
    ----------
    users, sends, blocks
        (Y, K), (Y, N) and (Y, J) bool: listeners, senders, what each carries.
    kind
        (Y,) a class of those that each carries.
    """

    users: BoolArray
    sends: BoolArray
    blocks: BoolArray
    kind: IntArray

    @property
    def keys(self) -> list[bytes]:
        """(Y,) listeners and senders: messages of two plans with the same key are the same."""
        packed = np.packbits(np.concatenate([self.users, self.sends], axis=1), axis=1)
        return [row.tobytes() for row in packed]

    def some(self, chosen: BoolArray) -> WideMessages:
        """Return some of the messages, (Y,) bool."""
        return WideMessages(
            self.users[chosen], self.sends[chosen], self.blocks[chosen], self.kind[chosen]
        )


def wide_messages(city: City, state: State, t: int) -> WideMessages:
    """Return the wide messages of a slot: one for each set of users and of senders.

    Parameters
    ----------
    city, state, t
        The problem, the plan, and the slot.
    """
    instance, whole = city.instance, city.whole
    block = np.flatnonzero(state.wide[t])
    kind = whole.kind[block]
    users = whole.users[t, kind]
    sends = state.sends[t][:, block].T & participants(whole, t, kind)
    packed = np.packbits(np.concatenate([users, sends], axis=1), axis=1)
    _, example, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    carried = np.zeros((len(example), instance.blocks), dtype=bool)
    carried[which.reshape(-1), block] = True
    return WideMessages(users[example], sends[example], carried, kind[example])


def wide_beams(
    city: City,
    t: int,
    messages: WideMessages,
    *,
    starts: int,
    seed: int,
    deadline: Deadline = NEVER,
    workers: Workers = ALONE,
) -> tuple[ComplexArray, FloatArray]:
    """Return beams (Y, N, M) and the SNR (Y,) that they guarantee.

    Parameters
    ----------
    city, t
        The problem and the slot.
    messages
        Who listens, who sends.
    starts, seed
        Starts of the search, and their seed.
    deadline
        Those not searched for by then go by beams in closed form.
    workers
        Who searches, some messages at a time.
    """
    # Every message goes by a beam in closed form at first, so that a limit silences nobody.
    instance = city.instance
    beam = np.zeros((len(messages.users), instance.nodes, instance.antennas), dtype=np.complex128)
    for y, (users, sends) in enumerate(zip(messages.users, messages.sends, strict=True)):
        beam[y] = aligned_beam(
            instance.normalised_channel[t],
            instance.normalised_error[t],
            instance.network.power,
            users,
            sends,
        )
    snr = _snr(city, t, messages, beam)

    # Large messages take long to search for, and one try is nearly as good: it comes first. Then
    # the whole search for all that fit into memory. Small ones come first: they take little time.
    size = search_size(messages.users, messages.sends)
    order = np.argsort(size, kind="stable")
    order = order[size[order] <= MOST_SEARCHED]
    large = order[size[order] > QUICKLY_SEARCHED]
    _improve(city, t, messages, beam, snr, large, 0, seed, workers, deadline)
    _improve(city, t, messages, beam, snr, order, starts, seed, workers, deadline)
    return beam, snr


def aligned_beam(
    channel: ComplexArray, error: FloatArray, power: FloatArray, users: BoolArray, sends: BoolArray
) -> ComplexArray:
    """Return the beam (N, M), W^1/2, of signals that add up in phase, weak users counting more.

    Every node sends at full power, so that errors take the same from a user whatever the beam is.
    Weights are 1 over a user's strength at first. Then those of users who are guaranteed much fall
    by multiplicative steps, and the best beam on the way counts.

    Parameters
    ----------
    channel, error
        (K, N, M) and (K, N), normalised by the noise amplitude.
    power
        (N,) W.
    users, sends
        (K,) and (N,) bool, listeners and senders.

    Examples
    --------
    Two nodes of one antenna, one user who receives the second one turned by 90 degrees.

    >>> channel, error = np.array([[[1.0], [1.0j]]]), np.zeros((1, 2))
    >>> beam = aligned_beam(channel, error, np.ones(2), np.array([True]), np.array([True, True]))
    >>> float(abs((channel[0].conj() * beam).sum()).round(6))
    2.0
    """
    listener, node = np.flatnonzero(users), np.flatnonzero(sends)
    beam = np.zeros(channel.shape[1:], dtype=np.complex128)
    mine = channel[np.ix_(listener, node)]
    amplitude = np.sqrt(power[node])[:, None]
    lost = (error[np.ix_(listener, node)] @ amplitude)[:, 0]
    strength = (np.linalg.norm(mine, axis=2) @ amplitude)[:, 0]
    weight = 1.0 / np.maximum(strength, TINY)
    signal: ComplexArray = np.ones(len(listener), dtype=np.complex128)
    best = -np.inf
    for round_ in range(ALIGNMENTS + REWEIGHTINGS):
        # Every node sends towards what its listeners receive, in phase.
        direction = np.tensordot(weight * signal / np.abs(signal), mine, axes=1)
        length = np.linalg.norm(direction, axis=1, keepdims=True)
        sent = amplitude * direction / np.maximum(length, TINY)
        signal = np.asarray(np.tensordot(mine.conj(), sent, axes=2) + TINY, dtype=np.complex128)

        # What errors leave of it, in amplitude: the weakest listener decides which beam is best.
        left = np.abs(signal) - lost
        if left.min() > best:
            best, beam[node] = left.min(), sent

        # Once the phases have settled, whoever is guaranteed much counts less.
        if round_ >= ALIGNMENTS - 1:
            relative = np.clip(left / max(np.abs(left).mean(), TINY), -10.0, 10.0)
            weight = weight * np.exp(-REWEIGHTING_STEP * relative)
            weight = weight / weight.max()
    return beam


def _snr(city: City, t: int, messages: WideMessages, beam: ComplexArray) -> FloatArray:
    """Return (Y,) the SNR that beams guarantee."""
    instance = city.instance
    _, signal = interference_of(
        instance.normalised_channel[t],
        instance.normalised_error[t],
        beam,
        np.zeros(len(beam), dtype=np.int64),
        np.zeros(instance.users, dtype=np.int64),
    )
    least = np.where(messages.users, signal.T, np.inf).min(axis=1)
    return np.asarray(np.maximum(least, 0.0) ** 2)


def _improve(
    city: City,
    t: int,
    messages: WideMessages,
    beam: ComplexArray,
    snr: FloatArray,
    order: IntArray,
    starts: int,
    seed: int,
    workers: Workers,
    deadline: Deadline,
) -> None:
    """Replace, in place, beams and SNR of the messages in `order` where a search finds better."""
    if deadline.over() or not len(order):
        return
    tasks, places = [], []
    size = search_size(messages.users, messages.sends)
    for rows in chunks(order, size, CHUNK_SHARE * deadline.left()):
        task, nodes = wide_task(
            city.instance, t, messages.users[rows], messages.sends[rows], starts, seed
        )
        tasks.append(task)
        places.append(np.ix_(rows, nodes))
    for place, answer in zip(places, workers.each(_search, tasks, deadline), strict=True):
        if answer is None:
            continue
        found, reached = answer
        rows = place[0].reshape(-1)
        better = reached > snr[rows]
        beam[place] = np.where(better[:, None, None], found, beam[place])
        snr[rows] = np.maximum(snr[rows], reached)


def _search(*task: Any) -> tuple[ComplexArray, FloatArray] | None:
    """Return beams and SNR of some messages; None where the time is up."""
    *arguments, deadline = task
    if deadline.over():
        return None
    found = searched(*arguments)
    return found.beamformer, found.snr
