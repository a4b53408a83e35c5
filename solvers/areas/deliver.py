"""From a plan with its beams to a solution, at the rates that the judge allows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finecast.problem.areas import WIDE
from finecast.problem.arrays import ComplexArray, FloatArray, IntArray
from finecast.problem.phases import allowed_rates, interference_from_outside, phases_of
from finecast.problem.solution import Broadcast, Solution
from finecast.solvers.areas.on_air import Plan, SlotBeams
from finecast.solvers.areas.state import City

NO_BEAM = (
    "a message does not reach all its listeners by the beam found so far; "
    "a longer limit gives its beam more time"
)


class UnreachedError(ValueError):
    """A plan has a message that somebody who needs it does not receive."""


def deliver(city: City, plan: Plan, method: str) -> Solution:
    """Return the solution: wide messages first, then those of every area, each in its own mode.

    Parameters
    ----------
    city, plan
        The problem, and the plan with its beams.
    method
        Name to leave in the solution.

    Raises
    ------
    UnreachedError
        A message does not reach all its listeners by the beam that it has.
    """
    instance = city.instance
    solution = Solution(
        cache=plan.state.cache,
        source=sources(city, plan),
        broadcasts=tuple(_broadcast(city, slot) for slot in plan.beams),
        instance_hash=instance.content_hash,
        method=method,
    )
    # The rates are those of the judge, who sums in another order.
    broadcasts = []
    for t, broadcast in enumerate(solution.broadcasts):
        channel, error = instance.normalised_channel[t], instance.error_of(t, True)
        phases = phases_of(instance, solution, t)
        rate = np.zeros(len(broadcast.mode))
        for phase, outside in zip(
            phases, interference_from_outside(channel, error, phases), strict=True
        ):
            rate[phase.transmissions] = allowed_rates(instance, phase, t, outside, robust=True)
        bits = 8.0 * broadcast.message_size(instance.library.block_size)
        with np.errstate(divide="ignore"):
            duration = bits / rate
        if not np.isfinite(duration).all():
            raise UnreachedError(NO_BEAM)
        broadcasts.append(replace(broadcast, rate=rate, duration=duration))
    return replace(solution, broadcasts=tuple(broadcasts))


def sources(city: City, plan: Plan) -> IntArray:
    """Return (T, N, J) where every node receives a block from: the fastest holder, or the cloud."""
    state, nodes = plan.state, city.instance.nodes
    source = np.full(state.cache.shape, -1)
    for t, n in np.ndindex(source.shape[:2]):
        block = np.flatnonzero(state.sends[t, n] & ~state.cache[t, n])
        holders = state.cache[t][:, block]
        times = np.where(holders, city.link[:-1, n, None], np.inf)
        times = np.concatenate([times, np.full((1, len(block)), city.link[-1, n])])
        source[t, n, block] = times.argmin(axis=0)
    assert source.max(initial=-1) <= nodes
    return source


def _broadcast(city: City, slot: SlotBeams) -> Broadcast:
    """Return the messages and modes of a slot, at rates and durations to be filled in."""
    local = slot.local.messages
    area = np.concatenate([np.full(len(slot.wide.users), WIDE), local.area])
    count = len(area)
    unknown: FloatArray = np.ones(count)
    beam = np.concatenate([slot.wide_beam, slot.local_beam])
    return Broadcast(
        users=np.concatenate([slot.wide.users, local.users]),
        nodes=np.concatenate([slot.wide.sends, local.sends]),
        blocks=np.concatenate([slot.wide.blocks, slot.local.blocks]),
        duration=unknown,
        mode=np.arange(count),
        message=np.arange(count),
        beam=_within_power(city, beam),
        rate=unknown,
        area=area,
    )


def _within_power(city: City, beam: ComplexArray) -> ComplexArray:
    """Return the beams with every node within its power, which single precision may exceed."""
    norm = np.linalg.norm(beam, axis=2)
    limit = np.sqrt(city.instance.network.power) * (1.0 - 1e-12)
    factor = np.minimum(1.0, limit / np.maximum(norm, np.finfo(float).tiny))
    return np.asarray(beam * factor[..., None])
