"""Everything on the air: the beams of a plan, what they guarantee, and what the plan takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.arrays import ComplexArray, FloatArray
from finecast.problem.sinr import rate
from finecast.solvers.areas.air import (
    Rates,
    SlotMessages,
    efficiency_of,
    first_beams,
    interference_of,
    local_messages,
)
from finecast.solvers.areas.joint_beams import (
    STEPS,
    Joint,
    LocalMessages,
    by_message,
    joint_beams,
    joint_problem,
)
from finecast.solvers.areas.state import Air, City, State, wide_seconds
from finecast.solvers.areas.wide import WideMessages, wide_beams, wide_messages
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.workers import ALONE, Workers

POLISH_STEPS = 300
"""Steps of the joint beams in the last plan."""

WIDE_STARTS = 1
"""Starts of the search for the beams of a wide message."""


@dataclass(frozen=True, eq=False)
class SlotBeams:
    """Everything on the air in a slot.

    Attributes
    ----------
    local, wide
        The messages.
    local_beam, wide_beam
        (X, N, M) and (Y, N, M).
    local_rate, wide_rate
        (X,) and (Y,) bit/s that they guarantee.
    interference
        (K,) over the noise, for local messages.
    """

    local: SlotMessages
    wide: WideMessages
    local_beam: ComplexArray
    wide_beam: ComplexArray
    local_rate: FloatArray
    wide_rate: FloatArray
    interference: FloatArray

    @property
    def known_wide(self) -> dict[bytes, tuple[ComplexArray, float]]:
        """Beams and rates of wide messages by their key."""
        return dict(
            zip(self.wide.keys, zip(self.wide_beam, self.wide_rate, strict=True), strict=True)
        )

    def seconds(self, block_size: FloatArray) -> tuple[float, float]:
        """Return the time on the air of wide messages, and the mean one of local messages, s."""
        with np.errstate(divide="ignore"):
            wide = 8.0 * (self.wide.blocks @ block_size) / self.wide_rate
            local = self.local.messages.weight / self.local_rate
        return float(wide.sum()), float(local.sum())


@dataclass(frozen=True, eq=False)
class Plan:
    """A plan with its beams.

    Attributes
    ----------
    state
        Caches, senders, ways.
    beams
        Per slot.
    delay
        s, as the judge will count.
    interrupted
        The user ended the search.
    """

    state: State
    beams: tuple[SlotBeams, ...]
    delay: float
    interrupted: bool = False


Memory = list[dict[tuple[int, int, int], ComplexArray]]
"""Per slot, the last beams of local messages: where the next search starts."""


def beams_of(
    city: City,
    state: State,
    rates: Rates,
    memory: Memory,
    air: Air,
    *,
    deadline: Deadline = NEVER,
    workers: Workers = ALONE,
) -> tuple[SlotBeams, ...]:
    """Return the beams of the local messages of a plan; wide ones at the rates they are thought of.

    Parameters
    ----------
    city, state, rates
        The problem, the plan, and the rates of every area alone.
    memory
        Beams of earlier rounds; those of this one are added.
    air
        The rates known so far.
    deadline
        When to be done.
    workers
        Who makes the beams, a slot at a time.
    """
    instance = city.instance
    every, starts, result = [], [], []
    for t in range(instance.slots):
        local = local_messages(city, state, rates, t)
        start = first_beams(city, local, rates, t)
        for x, key in enumerate(local.keys):
            start[x] = memory[t].get(key, start[x])
        every.append(local)
        starts.append(start)
    problems = [
        _local_problem(city, t, local.messages, start) if len(start) else None
        for t, (local, start) in enumerate(zip(every, starts, strict=True))
    ]
    found = _together(problems, starts, STEPS, deadline, workers)
    for t, (local, beam) in enumerate(zip(every, found, strict=True)):
        memory[t].update(zip(local.keys, beam, strict=True))
        local_rate, interference = _local_rate(city, t, local.messages, beam)

        wide = wide_messages(city, state, t)
        amplitude = wide.sends @ city.whole.reach[t].T
        least = np.where(wide.users, amplitude, np.inf).min(axis=1)
        silent = np.zeros((len(least), instance.nodes, instance.antennas), dtype=np.complex128)
        with np.errstate(divide="ignore"):
            wide_rate = 8.0 / wide_seconds(instance, air.wide_share[t, wide.kind], least)
        result.append(SlotBeams(local, wide, beam, silent, local_rate, wide_rate, interference))
    return tuple(result)


def _local_problem(city: City, t: int, messages: LocalMessages, start: ComplexArray) -> Joint:
    """Return the problem of the local messages of a slot."""
    instance, network = city.instance, city.instance.network
    return joint_problem(
        instance.normalised_channel[t],
        instance.normalised_error[t],
        network.power,
        instance.areas,
        instance.user_area[t],
        messages,
        start,
        network.max_spectral_efficiency,
    )


def _together(
    problems: Sequence[Joint | None],
    starts: Sequence[ComplexArray],
    steps: int,
    deadline: Deadline,
    workers: Workers,
) -> list[ComplexArray]:
    """Return joint beams, a task for each problem; the first beams where there are no messages."""
    tasks = [(problem, steps) for problem in problems if problem is not None]
    found = iter(workers.each(joint_beams, tasks, deadline))
    return [
        start if problem is None else by_message(problem, next(found), start.shape)
        for problem, start in zip(problems, starts, strict=True)
    ]


def with_wide_beams(
    city: City,
    plan: Plan,
    *,
    seed: int,
    deadline: Deadline,
    workers: Workers = ALONE,
    after: Plan | None = None,
) -> Plan:
    """Return the plan with beams of its wide messages, and the delay with them.

    Parameters
    ----------
    city, plan
        The problem and the plan.
    seed, deadline, workers, after
        As in `finecast.solvers.areas.plan.finish_plan`.
    """
    network = city.instance.network
    result = []
    for t, slot in enumerate(plan.beams):
        # Messages that a finished plan has too keep their beams.
        beam, bits = np.zeros_like(slot.wide_beam), np.zeros(len(slot.wide.users))
        known = {} if after is None else after.beams[t].known_wide
        new = np.array([key not in known for key in slot.wide.keys], dtype=bool)
        for y in np.flatnonzero(~new):
            beam[y], bits[y] = known[slot.wide.keys[y]]
        beam[new], snr = wide_beams(
            city, t, slot.wide.some(new),
            starts=WIDE_STARTS, seed=seed, deadline=deadline, workers=workers,
        )  # fmt: skip
        bits[new] = rate(snr, network.bandwidth, network.max_spectral_efficiency)
        result.append(replace(slot, wide_beam=beam, wide_rate=bits))
    beams = tuple(result)
    return replace(plan, beams=beams, delay=plan_delay(city, plan.state, beams))


def polished(city: City, plan: Plan, deadline: Deadline, workers: Workers = ALONE) -> Plan:
    """Return the plan after more steps for the beams of its local messages.

    Parameters
    ----------
    city, plan
        The problem and the plan.
    deadline
        When to be done.
    workers
        Who makes the beams, a slot at a time.
    """
    starts = [slot.local_beam for slot in plan.beams]
    problems = [
        _local_problem(city, t, slot.local.messages, slot.local_beam)
        if len(slot.local_beam)
        else None
        for t, slot in enumerate(plan.beams)
    ]
    found = _together(problems, starts, POLISH_STEPS, deadline, workers)
    result = []
    for t, (slot, beam) in enumerate(zip(plan.beams, found, strict=True)):
        local_rate, interference = _local_rate(city, t, slot.local.messages, beam)
        result.append(
            replace(slot, local_beam=beam, local_rate=local_rate, interference=interference)
        )
    beams = tuple(result)
    return Plan(plan.state, beams, plan_delay(city, plan.state, beams))


def _local_rate(
    city: City, t: int, messages: LocalMessages, beam: ComplexArray
) -> tuple[FloatArray, FloatArray]:
    """Return (X,) bit/s that local messages guarantee, and (K,) the interference over noise."""
    instance = city.instance
    interference, signal = interference_of(
        instance.normalised_channel[t],
        instance.normalised_error[t],
        beam,
        messages.area,
        instance.user_area[t],
    )
    network = instance.network
    cap = network.max_spectral_efficiency
    efficiency = efficiency_of(signal, interference, messages.users, cap)
    return network.bandwidth * efficiency, interference


def plan_delay(city: City, state: State, beams: tuple[SlotBeams, ...]) -> float:
    """Return the delay of a plan with its beams, s."""
    size = city.instance.library.block_size.astype(np.float64)
    return sum(migration_seconds(city, state)) + sum(sum(slot.seconds(size)) for slot in beams)


def migration_seconds(city: City, state: State) -> tuple[float, float]:
    """Return what migrations add to the delay, wide and local, s."""
    local = (city.weight * state.local_migration.sum(axis=2)).sum()
    return float(state.migration.sum()), float(local)
