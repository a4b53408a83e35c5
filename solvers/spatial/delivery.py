"""From one message at a time to shared air: the spatial step after any method's placement.

Caches and sources stay. In every slot, messages of the same users and senders become one bundle,
and the modes of `finecast.solvers.spatial.modes` carry the bundles. A slot keeps its messages one
after another where the judge finds that no worse, under the schedule of the instance.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance
from finecast.problem.slot_verdict import migration_delay
from finecast.problem.solution import Broadcast, Solution
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.result import Callback, Progress, Termination
from finecast.solvers.signals import SearchInterrupt
from finecast.solvers.spatial.modes import Modes, least_time
from finecast.solvers.spatial.multigroup import MultiGroup
from finecast.solvers.spatial.pipeline import pipelined_broadcast
from finecast.solvers.spatial.replan import alone_price


@dataclass(frozen=True, eq=False)
class SharedAir:
    """A solution with several messages on the air at once.

    Parameters
    ----------
    solution
        The decisions; caches and sources as they were.
    seconds_per_bit
        Per slot (I,), the price of a bit of each message of the *given* solution. It is the time
        that the bit costs when the air is shared; without a search, its time alone.
    termination
        `interrupted`, or `time_limit` if that stopped a slot, else `completed`.
    notes
        What a user should know of the search.
    """

    solution: Solution
    seconds_per_bit: tuple[FloatArray, ...]
    termination: Termination
    notes: tuple[str, ...] = ()


def share_the_air(
    instance: Instance,
    solution: Solution,
    *,
    deadline: Deadline = NEVER,
    slot_time: float | None = None,
    seed: int = 0,
    callback: Callback | None = None,
    pool: Executor | None = None,
    workers: int = 1,
) -> SharedAir:
    """Return the solution with the least broadcast time found for its messages.

    Parameters
    ----------
    instance
        The problem, with spatial delivery.
    solution
        One message per mode, one mode per message.
    deadline
        When all slots have to be done. If it is over from the start, the solution stays as it is.
    slot_time
        Seconds for each slot; None for no limit.
    seed
        Seed of the random starts; slot t has the seed (seed, t).
    callback
        It is called after every slot.
    pool
        Processes that search the slots side by side; None: here, one after another.
    workers
        How many there are.
    """
    shared = list(solution.broadcasts)
    prices = [alone_price(instance, broadcast) for broadcast in shared]
    # The workers take slots side by side: slot t and those after it need so many turns.
    turns = [math.ceil((instance.slots - t) / workers) for t in range(instance.slots)]
    jobs = [
        _Slot(instance, solution, t, seed, deadline, 1 / turns[t], slot_time)
        for t, broadcast in enumerate(shared)
        if broadcast.messages > 1
    ]
    endings = {Termination.COMPLETED}
    notes: list[str] = []
    try:
        results = map(_share_slot, jobs) if pool is None else _by_pool(pool, jobs, notes)
        for job, (broadcast, price, ending) in zip(jobs, results, strict=True):
            shared[job.slot], prices[job.slot] = broadcast, price
            endings.add(ending)
            if callback is not None:
                callback(Progress("spatial delivery", job.slot + 1, instance.slots))
            if ending is Termination.INTERRUPTED:
                break
    except SearchInterrupt:  # in a pool, the slots under way are lost
        endings.add(Termination.INTERRUPTED)
    by_weight = (Termination.INTERRUPTED, Termination.TIME_LIMIT, Termination.COMPLETED)
    termination = next(ending for ending in by_weight if ending in endings)
    if Termination.TIME_LIMIT in endings:  # other processes' deadlines are copies
        deadline.note()
    chosen = _better_slots(instance, solution, replace(solution, broadcasts=tuple(shared)))
    return SharedAir(chosen, tuple(prices), termination, tuple(notes))


_Shared = tuple[Broadcast, FloatArray, Termination]
"""The shared broadcast of a slot, the prices of the old messages, and the ending."""


@dataclass(frozen=True, eq=False)
class _Slot:
    """A slot to be searched, maybe by another process.

    Parameters
    ----------
    instance, solution, slot, seed
        As in `share_the_air`; which slot.
    deadline, share
        When all slots have to be done, and this slot's share of what is left when it begins.
    slot_time
        Seconds for it, at most; None for no limit.
    """

    instance: Instance
    solution: Solution
    slot: int
    seed: int
    deadline: Deadline
    share: float
    slot_time: float | None


def _by_pool(pool: Executor, jobs: Sequence[_Slot], notes: list[str]) -> Iterator[_Shared]:
    """Yield the slots searched by processes; once one of these is killed, search the rest here."""
    done = 0
    try:
        for shared in pool.map(_share_slot, jobs):
            yield shared
            done += 1
    except (BrokenExecutor, OSError):  # killed, or none could be started
        left = len(jobs) - done
        notes.append(
            f"the processes of spatial delivery were killed; {left} slots were searched one by one"
        )
        for turn, job in enumerate(jobs[done:]):
            yield _share_slot(replace(job, share=1 / (left - turn)))


def _better_slots(instance: Instance, in_turn: Solution, shared: Solution) -> Solution:
    """Return in every slot the broadcast of less delay, as the judge sees it."""
    delay_in_turn = evaluate(instance, in_turn).slot_delay
    judged = evaluate(instance, shared)
    wrong = {violation.slot for violation in judged.violations}
    return replace(
        shared,
        broadcasts=tuple(
            new if judged.slot_delay[t] < delay_in_turn[t] and t not in wrong else old
            for t, (old, new) in enumerate(zip(in_turn.broadcasts, shared.broadcasts, strict=True))
        ),
    )


def _share_slot(job: _Slot) -> _Shared:
    """Return the shared broadcast of a slot, the prices of the old messages, and the ending."""
    instance, solution, slot = job.instance, job.solution, job.slot
    old = solution.broadcasts[slot]
    deadline = job.deadline.share(job.share).sooner(job.slot_time)
    if deadline.over():
        return old, alone_price(instance, old), Termination.TIME_LIMIT
    bundles = _bundles(old)
    network, size = instance.network, instance.library.block_size
    problem = MultiGroup(
        channel=instance.normalised_channel[slot],
        error=instance.error_of(slot, solution.planned == "guaranteed"),
        power=network.power,
        users=bundles.users,
        nodes=bundles.nodes,
        cap=network.max_spectral_efficiency * np.log(2.0),
    )
    modes = least_time(
        problem,
        np.asarray(8.0 * (bundles.blocks @ size)),
        network.bandwidth,
        old.beam[np.argsort(old.message)][bundles.member],
        deadline=deadline,
        seed=int(np.random.SeedSequence((job.seed, slot)).generate_state(1)[0]),
    )
    if instance.schedule == "pipelined":
        migration = migration_delay(instance, solution)[slot]
        bits = 8.0 * old.message_size(size)
        broadcast = pipelined_broadcast(modes, old, bundles.of_message, bits, migration)
    else:
        broadcast = _broadcast(modes, bundles)
    return broadcast, modes.price[bundles.of_message], modes.termination


@dataclass(frozen=True, eq=False)
class _Bundles:
    """Messages of the same users and senders, sent as one.

    `of_message` (I,), the bundle of every message; `users` (G, K), `nodes` (G, N), `blocks` (G, J)
    of the bundles; `member` (G,), a message of each, whose beam the bundle has alone on the air.
    """

    of_message: IntArray
    users: BoolArray
    nodes: BoolArray
    blocks: BoolArray
    member: IntArray


def _bundles(messages: Broadcast) -> _Bundles:
    """Return the messages of a broadcast by users and senders."""
    keys = np.concatenate([messages.users, messages.nodes], axis=1)
    _, member, of_message = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    of_message = of_message.ravel()
    blocks = np.zeros((len(member), messages.blocks.shape[1]), dtype=bool)
    np.logical_or.at(blocks, of_message, messages.blocks)
    return _Bundles(of_message, messages.users[member], messages.nodes[member], blocks, member)


def _broadcast(modes: Modes, bundles: _Bundles) -> Broadcast:
    """Return every bundle as one message, the longest mode first."""
    mode, message = np.nonzero(modes.rate)
    return Broadcast(
        users=bundles.users,
        nodes=bundles.nodes,
        blocks=bundles.blocks,
        duration=modes.duration,
        mode=mode,
        message=message,
        beam=modes.beam[mode, message],
        rate=modes.rate[mode, message],
    )
