"""The messages of a plan in the order that least delays the mean user, at the same slot delay.

In the sequential schedule a slot takes as long in every order of its messages. A user waits until
its own last message is over, so the order decides how long users wait on average. The order is
chosen phase by phase (docs/areas.md): a user waits in the phase of its last message.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from finecast.problem.areas import WIDE
from finecast.problem.evaluation import Evaluation
from finecast.problem.instance import Instance
from finecast.problem.phases import Phase, phases_of
from finecast.problem.solution import Broadcast, Solution
from finecast.problem.wording import seconds
from finecast.solvers.completion_order import Order, Waits, least_total_completion

MessageOrder = Literal["method", "mean"]
"""`method`: as the method states it. `mean`: least mean completion over the users."""


def check_order(order: str, instance: Instance) -> None:
    """Refuse an unknown order, and one that the schedule does not follow.

    Raises
    ------
    ValueError
        Says what is allowed.
    """
    if order not in get_args(MessageOrder):
        raise ValueError(f"order: {order!r} is not allowed, must be one of method, mean")
    if order == "mean" and instance.schedule != "sequential":
        raise ValueError(
            "order: 'mean' is not allowed with schedule 'pipelined', where the order of messages "
            "decides the delay of the slot; use schedule 'sequential'"
        )


def ordered_for_the_mean(instance: Instance, solution: Solution) -> tuple[Solution, float]:
    """Return the plan with its messages in order, and a lower bound on the mean of every order.

    Parameters
    ----------
    instance
        The problem, of the solution's shape (whole models where it is restricted to them).
    solution
        A plan. Its slot delays stay, but for rounding.

    Returns
    -------
    The plan, and what no order of these messages undercuts in `mean_completion`, s; 0 without
    requests. The two agree where the order is exact: up to 16 messages, or 16 sets of users that
    wait for the same ones, in each slot.
    """
    broadcasts, total = [], 0.0
    for slot, broadcast in enumerate(solution.broadcasts):
        phases = phases_of(instance, solution, slot)
        begin = float(phases[0].migration.sum() + phases[0].broadcast.duration.sum())
        local = np.zeros(instance.users, dtype=bool)
        for phase in phases[1:]:
            local |= _listening(instance, phase, slot)
        turn = []
        for phase in phases:
            waiting = _listening(instance, phase, slot)
            if phase.area == WIDE:
                waiting &= ~local  # a local message of theirs is over later
            found = _order_of(phase, waiting)
            turn.append(phase.modes[found.jobs])
            total += found.lower_bound + (0.0 if phase.area == WIDE else begin * waiting.sum())
        broadcasts.append(_in_order(broadcast, np.concatenate(turn)))
    requests = int((instance.requests >= 0).sum())
    ordered = replace(solution, broadcasts=tuple(broadcasts))
    return ordered, total / requests if requests else 0.0


def order_note(before: Evaluation, after: Evaluation, bound: float) -> str:
    """Say what the order brought."""
    proof = f"at least {seconds(bound)} in any order of these messages"
    if after.mean_completion <= bound * (1.0 + 1e-9):
        proof = "the least of any order of these messages"
    return (
        f"messages in the order of the least mean completion: {seconds(after.mean_completion)}, "
        f"before {seconds(before.mean_completion)}; {proof}"
    )


def _listening(instance: Instance, phase: Phase, slot: int) -> np.ndarray:
    """Return (K,) which users wait for messages of a phase."""
    listening = phase.broadcast.users.any(axis=0) & (instance.requests[slot] >= 0)
    if phase.area != WIDE:
        listening &= instance.user_area[slot] == phase.area
    return np.asarray(listening)


def _order_of(phase: Phase, waiting: np.ndarray) -> Order:
    """Return the order of the modes of a phase.

    A mode is a job. Its time on the air is an element of its own; the migration of a block is one
    of every mode with a message that carries it, and is over with the first of them.

    Parameters
    ----------
    phase
        D' modes, J blocks.
    waiting
        (K,) who counts.
    """
    broadcast = phase.broadcast
    on_air = np.zeros((broadcast.modes, broadcast.messages), dtype=bool)
    on_air[broadcast.mode, broadcast.message] = True
    moved = np.flatnonzero((phase.migration > 0) & broadcast.sets.dense.any(axis=0))
    fetched = on_air.astype(np.float64) @ broadcast.sets.dense[:, moved] > 0  # (D', moved)
    heard = on_air.astype(np.float64) @ broadcast.users > 0  # (D', K)
    return least_total_completion(
        Waits(
            length=np.concatenate([broadcast.duration, phase.migration[moved]]),
            carried=np.concatenate([np.eye(broadcast.modes, dtype=bool), fetched.T]),
            waited=(heard.T & waiting[:, None]),
        )
    )


def _in_order(broadcast: Broadcast, modes: np.ndarray) -> Broadcast:
    """Return the same modes in another order, with the messages in the order of their first mode.

    Parameters
    ----------
    broadcast
        Of a slot.
    modes
        (D,) its modes in turn.
    """
    place = np.empty(broadcast.modes, dtype=np.int64)
    place[modes] = np.arange(broadcast.modes)
    first = np.full(broadcast.messages, broadcast.modes)
    np.minimum.at(first, broadcast.message, place[broadcast.mode])
    messages = np.argsort(first, kind="stable")
    number = np.empty(broadcast.messages, dtype=np.int64)
    number[messages] = np.arange(broadcast.messages)
    entries = np.lexsort((number[broadcast.message], place[broadcast.mode]))
    return Broadcast(
        users=broadcast.users[messages],
        nodes=broadcast.nodes[messages],
        blocks=broadcast.sets.dense[messages],
        duration=broadcast.duration[modes],
        mode=place[broadcast.mode[entries]],
        message=number[broadcast.message[entries]],
        beam=broadcast.beam[entries],
        rate=broadcast.rate[entries],
        area=broadcast.area[messages],
    )
