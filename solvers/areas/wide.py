"""Wide messages: who gets what from whom, and their beams, each alone on the air."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.solvers.areas.state import City, State
from finecast.solvers.areas.tables import participants
from finecast.solvers.areas.wide_rates import CHUNK, searched, wide_task
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.workers import ALONE, Workers


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
        Those not searched for by then get one start; some answer is needed for every message.
    workers
        Who searches, some messages at a time.
    """
    instance = city.instance
    count = len(messages.users)
    beam = np.zeros((count, instance.nodes, instance.antennas), dtype=np.complex128)
    snr = np.zeros(count)
    order = np.argsort(messages.users.sum(axis=1), kind="stable")
    tasks, places = [], []
    for begin in range(0, count, CHUNK):
        rows = order[begin : begin + CHUNK]
        task, nodes = wide_task(
            instance, t, messages.users[rows], messages.sends[rows], starts, seed
        )
        tasks.append(task)
        places.append(np.ix_(rows, nodes))
    for place, (found, reached) in zip(places, workers.each(_beams, tasks, deadline), strict=True):
        beam[place] = found
        snr[place[0].reshape(-1)] = reached
    return beam, snr


def _beams(*task: Any) -> tuple[ComplexArray, FloatArray]:
    """Return beams and SNR of some messages."""
    found = searched(*task)
    return found.beamformer, found.snr
