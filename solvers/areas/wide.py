"""Wide messages: who gets what from whom, and their beams, each alone on the air."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray
from finecast.solvers.areas.state import City, State, participants
from finecast.solvers.beamforming.by_name import KERNEL, solve_messages
from finecast.solvers.deadline import BATCH_WORK, MESSAGE_WORK, NEVER, Deadline, count_work
from finecast.solvers.workers import ALONE, Workers

CHUNK = 16
"""Messages solved between two looks at the clock."""


@dataclass(frozen=True, eq=False)
class WideMessages:
    """The wide messages of a slot.

    Attributes
    ----------
    users, sends, blocks
        (Y, K), (Y, N) and (Y, J) bool: listeners, senders, what each carries.
    """

    users: BoolArray
    sends: BoolArray
    blocks: BoolArray

    @property
    def keys(self) -> list[bytes]:
        """(Y,) listeners and senders: messages of two plans with the same key are the same."""
        packed = np.packbits(np.concatenate([self.users, self.sends], axis=1), axis=1)
        return [row.tobytes() for row in packed]


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
    sends = state.sends[t][:, block].T & participants(city, t, kind)
    packed = np.packbits(np.concatenate([users, sends], axis=1), axis=1)
    _, example, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    carried = np.zeros((len(example), instance.blocks), dtype=bool)
    carried[which.reshape(-1), block] = True
    return WideMessages(users[example], sends[example], carried)


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
        Those not searched for by then get one start; some answer is needed for every message.
    workers
        Who searches, some messages at a time.
    """
    instance = city.instance
    count = len(messages.users)
    beam = np.zeros((count, instance.nodes, instance.antennas), dtype=np.complex128)
    snr = np.zeros(count)
    channel, error = instance.normalised_channel[t], instance.normalised_error[t]
    order = np.argsort(messages.users.sum(axis=1), kind="stable")
    tasks, places = [], []
    for begin in range(0, count, CHUNK):
        rows = order[begin : begin + CHUNK]
        width = int(messages.users[rows].sum(axis=1).max())
        listener = np.argsort(~messages.users[rows], axis=1, kind="stable")[:, :width]
        # Nodes that no message of the chunk uses are left out.
        nodes = np.flatnonzero(messages.sends[rows].any(axis=0))
        tasks.append((
            channel[listener][:, :, nodes],
            error[listener][:, :, nodes],
            instance.network.power[nodes],
            messages.sends[rows][:, nodes],
            np.take_along_axis(messages.users[rows], listener, axis=1),
            starts,
            seed,
        ))  # fmt: skip
        places.append(np.ix_(rows, nodes))
    for place, (found, reached) in zip(places, workers.each(_beams, tasks, deadline), strict=True):
        beam[place] = found
        snr[place[0].reshape(-1)] = reached
    return beam, snr


def _beams(
    channel: ComplexArray,
    error: FloatArray,
    power: FloatArray,
    sends: BoolArray,
    listens: BoolArray,
    starts: int,
    seed: int,
    deadline: Deadline,
) -> tuple[ComplexArray, FloatArray]:
    """Return beams and SNR of some messages, from one start where the time is up."""
    found = solve_messages(
        KERNEL, channel, error, power, node_mask=sends, user_mask=listens,
        starts=1 if deadline.over() else starts, seed=seed, tight=False,
    )  # fmt: skip
    count_work(BATCH_WORK + MESSAGE_WORK * len(channel) * channel.shape[1] ** 2)
    return found.beamformer, found.snr
