"""One slot before the judge: rates, repeats and ends of its phases, and what they add up to."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.areas import WIDE
from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.phases import (
    Phase,
    allowed_rates,
    interference_from_outside,
    mode_ends,
    phases_of,
    repeats,
)
from finecast.problem.schedule import summed
from finecast.problem.solution import Broadcast, Solution
from finecast.problem.tolerances import RATE_RELATIVE
from finecast.problem.violations import Violation, broadcast_violations

SCHEDULES = ("sequential", "pipelined")
"""The order in which figures of both schedules stand."""


def migration_delay(instance: Instance, solution: Solution) -> FloatArray:
    """Return tau_j of every slot: the slowest of a block's migrations.

    tau_j = max over nodes n that receive j of 8 s_j / C_{source(n) n}, for the needed blocks; 0
    for the others, whose migration is a violation. For a local block it is the mean over the
    requesting users of the tau_j of their areas.

    Returns
    -------
    (T, J) array, s; infinite over a link of rate 0.
    """
    return np.stack(
        [_migration(phases_of(instance, solution, slot)) for slot in range(instance.slots)]
    )


def _migration(phases: list[Phase]) -> FloatArray:
    """Return (J,) s by which migrations add to the delay of a slot."""
    return _mean(phases, np.stack([phase.migration for phase in phases]))


@dataclass(frozen=True, eq=False)
class SlotVerdict:
    """What one slot comes to.

    Parameters
    ----------
    violations
        Broken rules of its messages and modes.
    guaranteed
        Every planned rate holds over all error balls.
    migration, air_time
        (J,) s by which each block's migrations and messages add to the delay.
    on_air
        s by which all messages add to the delay.
    length, realised
        (2,) s, the delay as planned and with the true channels, sequential and pipelined.
    completion
        (2, K) s, end of the last message for each user, sequential and pipelined; infinite when a
        block of its model is never sent to it, NaN without a request.
    area_delay
        (2, areas) s, end of all that an area waits for; NaN for one without a requesting user.
    interference
        (K,) the most that other areas add to the noise of a user with a message of its own area,
        over the noise; NaN for the others.
    outages
        Users whose true rate is below that of the lowest repeat.
    wide_bytes
        Bytes sent in wide messages.
    """

    violations: list[Violation]
    guaranteed: bool
    migration: FloatArray
    air_time: FloatArray
    on_air: float
    length: FloatArray
    realised: FloatArray
    completion: FloatArray
    area_delay: FloatArray
    interference: FloatArray
    outages: int
    wide_bytes: float


def judge_slot(instance: Instance, solution: Solution, slot: int) -> SlotVerdict:
    """Judge the messages and modes of one slot.

    Parameters
    ----------
    instance, solution
        The problem and the decisions, of the same shape.
    slot
        t.
    """
    broadcast = solution.broadcasts[slot]
    phases = phases_of(instance, solution, slot)
    channel, size = instance.normalised_channel[slot], instance.library.block_size
    true_channel = instance.channel_true[slot] / np.sqrt(instance.network.noise_power)
    errors = {robust: instance.error_of(slot, robust) for robust in (True, False)}
    robust_only = solution.planned == "guaranteed"
    outside = interference_from_outside(channel, errors[True], phases)
    nominal = outside if robust_only else interference_from_outside(channel, errors[False], phases)
    true_outside = interference_from_outside(true_channel, errors[False], phases)

    # Every phase by itself: rates, repeats, when its modes end.
    allowed, guaranteed_rate = np.zeros((2, len(broadcast.rate)))
    ends: list[tuple[FloatArray, FloatArray]] = []
    length, realised = np.zeros((2, len(phases), 2))  # sequential, pipelined
    outages = 0
    interference = np.full(instance.users, np.nan)
    for p, phase in enumerate(phases):
        part, x = phase.broadcast, phase.transmissions
        guaranteed_rate[x] = allowed_rates(instance, phase, slot, outside[p], robust=True)
        allowed[x] = (
            guaranteed_rate[x]
            if robust_only
            else allowed_rates(instance, phase, slot, nominal[p], robust=False)
        )
        repeat, failed = repeats(instance, phase, true_channel, true_outside[p])
        outages += failed
        ends.append(mode_ends(phase, part.duration))
        migration, on_air = float(phase.migration.sum()), float(part.duration.sum())
        length[p] = migration + on_air, ends[p][1].max(initial=0.0)
        realised[p] = migration + on_air + float(repeat.sum()), length[p, 1]
        if repeat.any():
            realised[p, 1] = mode_ends(phase, part.duration + repeat)[1].max(initial=0.0)
        disturbing = outside[p]
        if disturbing is not None:
            listening = part.users.any(axis=0) & (instance.user_area[slot] == phase.area)
            interference[listening] = disturbing[listening]

    # Users of an area wait for what is wide, and then for their own area.
    violations = list(broadcast_violations(instance, solution, slot, allowed))
    deprived = np.zeros(instance.users, dtype=bool)
    for violation in violations:
        if violation.rule == "coverage":
            deprived[violation.user] = True
    requested = instance.requests[slot] >= 0
    completion = [_completion(phases, ends, length, s, requested, deprived) for s in (0, 1)]
    area_delay = np.repeat(length[0][:, None], instance.area_count, axis=1)
    for phase, seconds in zip(phases[1:], length[1:], strict=True):
        area_delay[:, phase.area] += seconds
    area_delay[:, instance.area_weight[slot] == 0.0] = np.nan
    return SlotVerdict(
        violations=violations,
        guaranteed=bool(np.all(broadcast.rate <= guaranteed_rate * (1 + RATE_RELATIVE))),
        migration=_migration(phases),
        air_time=np.sum([p.weighted(_block_air_time(p.broadcast, size)) for p in phases], axis=0),
        on_air=float(_mean(phases, np.array([p.broadcast.duration.sum() for p in phases]))),
        length=_mean(phases, length),
        realised=_mean(phases, realised),
        completion=np.stack(completion),
        area_delay=area_delay,
        interference=interference,
        outages=outages,
        wide_bytes=float(phases[0].broadcast.message_size(size).sum()),
    )


def _mean(phases: list[Phase], seconds: FloatArray) -> FloatArray:
    """Return what all users wait on average: for the wide phase, and each for its own area.

    Parameters
    ----------
    phases
        P of them.
    seconds
        (P, ...) s.
    """
    total = seconds[0]
    for phase, of_area in zip(phases[1:], seconds[1:], strict=True):
        total = total + phase.weighted(of_area)
    return np.asarray(total)


def _completion(
    phases: list[Phase],
    ends: list[tuple[FloatArray, FloatArray]],
    length: FloatArray,
    schedule: int,
    requested: BoolArray,
    deprived: BoolArray,
) -> FloatArray:
    """Return (K,) s: the end of the last mode that carries a message of the user.

    Parameters
    ----------
    phases
        P of them; the first is wide, and the others begin when it is over.
    ends
        The ends of the modes of each phase, sequential and pipelined.
    length
        (P, 2) s, of each phase, sequential and pipelined.
    schedule
        0 for sequential, 1 for pipelined.
    requested, deprived
        (K,) bool: who requests something, and who never gets a block of it.
    """
    when = np.zeros(len(requested))
    for phase, own_ends in zip(phases, ends, strict=True):
        begin = 0.0 if phase.area == WIDE else length[0, schedule]
        listening = phase.broadcast.users[phase.broadcast.message]
        end = begin + own_ends[schedule][phase.broadcast.mode]
        when = np.maximum(when, np.where(listening, end[:, None], 0.0).max(axis=0, initial=0.0))
    return np.where(deprived, np.inf, np.where(requested, when, np.nan))


def _block_air_time(broadcast: Broadcast, size: IntArray) -> FloatArray:
    """Return (J,) s: every message's time on the air, shared among its blocks by size."""
    time = summed(broadcast.message, broadcast.duration[broadcast.mode], broadcast.messages)
    message, block = broadcast.carried
    return summed(block, (time / broadcast.message_size(size))[message], len(size)) * size
