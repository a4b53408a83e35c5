"""The phases of a slot, each judged by itself: wide messages, then those of every area at once.

A phase is a sequence of migrations and modes with the rules of docs/formulation.md. A slot of one
area has one phase. The local phases of a slot run side by side and start when its wide phase is
over (docs/areas.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from finecast.problem.areas import WIDE
from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.schedule import (
    johnson_order,
    migration_by_message,
    pipelined_ends,
    sequential_ends,
    summed,
)
from finecast.problem.sinr import peak_power, rate, worst_case_sinr
from finecast.problem.solution import Broadcast, Solution
from finecast.problem.tolerances import LOWEST_SNR, RATE_RELATIVE


@dataclass(frozen=True, eq=False)
class Phase:
    """What follows one another in a slot: all that is wide, or all that one area does.

    Parameters
    ----------
    area
        The area, -1 for the wide phase.
    weight
        Share of the slot's requesting users that wait for it, 1 for the wide phase.
    broadcast
        Its messages and modes, numbered anew.
    messages, modes, transmissions
        (I',), (D',), (X',) their numbers in the broadcast of the slot.
    migration
        (J,) tau_j, the slowest migration of each block in this phase, s.
    """

    area: int
    weight: float
    broadcast: Broadcast
    messages: IntArray
    modes: IntArray
    transmissions: IntArray
    migration: FloatArray

    @cached_property
    def sending(self) -> IntArray | slice:
        """The nodes that matter for its rates: those of an area on the air, all in the wide one."""
        if self.area == WIDE:
            return slice(None)
        return np.flatnonzero(self.broadcast.beam.any(axis=(0, 2)))

    def weighted(self, seconds: FloatArray) -> FloatArray:
        """Return times as they count in the delay: times the share of users that wait."""
        return self.weight * seconds if self.weight > 0.0 else np.zeros(np.shape(seconds))


def phases_of(instance: Instance, solution: Solution, slot: int) -> list[Phase]:
    """Return the wide phase of a slot and those of the areas that do something in it.

    A block is local if local messages carry it and no wide one does. A node receives it in the
    phase of its own area, and any other block in the wide phase. With one area all is wide.

    Parameters
    ----------
    instance, solution
        The problem and the decisions, of the same shape.
    slot
        t.
    """
    broadcast = solution.broadcasts[slot]
    per_bit = _seconds_per_bit(instance, solution, slot)
    bits = 8.0 * instance.library.block_size
    if instance.area_count == 1 or not (broadcast.area != WIDE).any():
        return [
            Phase(
                area=WIDE,
                weight=1.0,
                broadcast=broadcast,
                messages=np.arange(broadcast.messages),
                modes=np.arange(broadcast.modes),
                transmissions=np.arange(len(broadcast.mode)),
                migration=np.asarray(bits * per_bit.max(axis=0)),
            )
        ]
    local = local_blocks(broadcast)
    found = [_part(broadcast, WIDE, 1.0, np.where(local, 0.0, bits * per_bit.max(axis=0)))]
    receiving = instance.areas[(per_bit[:, local] > 0.0).any(axis=1)]
    for a in np.union1d(receiving, broadcast.area[broadcast.area != WIDE]).tolist():
        slowest = per_bit[instance.areas == a].max(axis=0)
        weight = float(instance.area_weight[slot, a])
        found.append(_part(broadcast, a, weight, np.where(local, bits * slowest, 0.0)))
    return found


def local_blocks(broadcast: Broadcast) -> BoolArray:
    """Return (J,) which blocks local messages carry, and no wide one."""
    message, block = broadcast.carried
    wide = broadcast.area[message] == WIDE
    local = np.zeros(broadcast.blocks.shape[1], dtype=bool)
    local[block[~wide]] = True
    local[block[wide]] = False
    return local


def _seconds_per_bit(instance: Instance, solution: Solution, slot: int) -> FloatArray:
    """Return (N, J) s/bit over the link on which a node receives a block that somebody needs."""
    with np.errstate(divide="ignore"):
        seconds_per_bit = 1.0 / instance.network.link_rate
    source = solution.source[slot]
    per_bit = np.where(
        source >= 0, seconds_per_bit[source, np.arange(instance.nodes)[:, None]], 0.0
    )
    return np.where(instance.needed[slot], per_bit, 0.0)


def _part(broadcast: Broadcast, area: int, weight: float, migration: FloatArray) -> Phase:
    """Return the phase of one area, or the wide one."""
    messages = np.flatnonzero(broadcast.area == area)
    modes = np.flatnonzero(broadcast.mode_area == area)
    on_air = np.flatnonzero(broadcast.area[broadcast.message] == area)
    return Phase(
        area=area,
        weight=weight,
        broadcast=Broadcast(
            users=broadcast.users[messages],
            nodes=broadcast.nodes[messages],
            blocks=broadcast.blocks[messages],
            duration=broadcast.duration[modes],
            mode=np.searchsorted(modes, broadcast.mode[on_air]),
            message=np.searchsorted(messages, broadcast.message[on_air]),
            beam=broadcast.beam[on_air],
            rate=broadcast.rate[on_air],
            area=broadcast.area[messages],
        ),
        messages=messages,
        modes=modes,
        transmissions=on_air,
        migration=migration,
    )


# ---- rates


def interference_from_outside(
    channel: ComplexArray, error: FloatArray, phases: list[Phase]
) -> list[FloatArray | None]:
    """Return the most that the other areas ever add to each user's noise, whatever the timing.

    I_k = sum over other areas of max over their modes of
    sum over messages on the air of (|sum_n g_kn^H w_n| + sum_n eps_kn |w_n|)^2

    Parameters
    ----------
    channel
        (K, N, A), channels over the noise amplitude.
    error
        (K, N), their error radii over the noise amplitude.
    phases
        Those of a slot.

    Returns
    -------
    (K,) for each phase, in units of the noise power; None for the wide phase.
    """
    local = [phase for phase in phases if phase.area != WIDE]
    peak = np.zeros((len(local), len(channel)))
    for row, phase in enumerate(local):
        broadcast = phase.broadcast
        peak[row] = peak_power(
            channel[:, phase.sending],
            error[:, phase.sending],
            broadcast.beam[:, phase.sending],
            broadcast.mode,
            broadcast.modes,
        )
    # Own power is left out of the sum, not subtracted from it: no cancellation.
    others = 1.0 - np.eye(len(local))
    outside = iter(others @ peak)
    return [None if phase.area == WIDE else next(outside) for phase in phases]


def allowed_rates(
    instance: Instance,
    phase: Phase,
    slot: int,
    outside: FloatArray | None,
    *,
    robust: bool,
) -> FloatArray:
    """Return (X',) bit/s: W min(eta, log2(1 + min over the message's users of the SINR)).

    Parameters
    ----------
    instance, phase, slot
        The problem, and a phase of slot t.
    outside
        (K,) interference of other areas over the noise; None for none.
    robust
        Over the error balls; otherwise for the estimates.
    """
    broadcast, sending = phase.broadcast, phase.sending
    sinr = worst_case_sinr(
        instance.normalised_channel[slot][:, sending],
        instance.error_of(slot, robust)[:, sending],
        broadcast.beam[:, sending],
        _together(broadcast),
        outside,
    )
    listening = broadcast.users[broadcast.message].T
    worst = np.where(listening, sinr, np.inf).min(axis=0)
    return rate(worst, instance.network.bandwidth, instance.network.max_spectral_efficiency)


def repeats(
    instance: Instance, phase: Phase, channel: ComplexArray, outside: FloatArray | None
) -> tuple[FloatArray, int]:
    """Return (D',) seconds that repeats add to each mode, and the number of outages.

    A user decodes its part iff its true rate reaches the planned one. Those that fail get that
    part once more, alone on the air of the phase, with the same beams, at the smallest of their
    true rates, but not below the lowest modulation-and-coding rate.

    Parameters
    ----------
    instance, phase
        The problem, and a phase of a slot.
    channel
        (K, N, A), true channels over the noise amplitude.
    outside
        (K,) interference of other areas over these channels; None for none.
    """
    network, broadcast = instance.network, phase.broadcast
    channel, beam = channel[:, phase.sending], broadcast.beam[:, phase.sending]
    no_error = np.zeros(channel.shape[:2])
    listening = broadcast.users[broadcast.message].T

    def true_rate(on_air: BoolArray) -> FloatArray:
        sinr = worst_case_sinr(channel, no_error, beam, on_air, outside)
        return rate(sinr, network.bandwidth, network.max_spectral_efficiency)

    failed = listening & (true_rate(_together(broadcast)) < broadcast.rate * (1 - RATE_RELATIVE))
    if not failed.any():
        return np.zeros(broadcast.modes), 0
    alone = true_rate(np.eye(len(broadcast.beam), dtype=bool))
    lowest = float(rate(LOWEST_SNR, network.bandwidth, network.max_spectral_efficiency))
    repeat_rate = np.maximum(np.where(failed, alone, np.inf).min(axis=0), lowest)
    bits = broadcast.duration[broadcast.mode] * broadcast.rate
    repeat = np.where(failed.any(axis=0), bits / repeat_rate, 0.0)
    return (
        summed(broadcast.mode, repeat, broadcast.modes),
        int((failed & (alone < lowest)).sum()),
    )


def _together(broadcast: Broadcast) -> BoolArray:
    """Return (X, X), which transmissions are on the air at the same time."""
    if broadcast.modes == len(broadcast.mode):  # every mode has one, so all are alone
        return np.eye(broadcast.modes, dtype=bool)
    return np.asarray(broadcast.mode[:, None] == broadcast.mode)


# ---- when modes end


def mode_ends(phase: Phase, duration: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return (D',) ends of the modes, sequential in the stated order and pipelined.

    Parameters
    ----------
    phase
        Its ends count from its own begin.
    duration
        (D',) s, may exceed the planned one by repeats; the order is that of the plan.
    """
    broadcast, migration = phase.broadcast, phase.migration
    message, block = broadcast.carried
    added = migration_by_message(message, block, broadcast.messages, migration)
    # In the sequential schedule a mode waits for the blocks that no earlier mode has waited for.
    first_mode = np.full(broadcast.messages, broadcast.modes, dtype=np.int64)
    np.minimum.at(first_mode, broadcast.message, broadcast.mode)
    waited = migration_by_message(first_mode[message], block, broadcast.modes + 1, migration)
    sequential = sequential_ends(waited[:-1], duration)
    if _is_flow_shop(broadcast):
        fetch = added[broadcast.message[np.argsort(broadcast.mode)]]  # (D,) for each mode
        order = johnson_order(fetch, broadcast.duration)
        pipelined = np.empty(broadcast.modes)
        pipelined[order] = pipelined_ends(np.cumsum(fetch[order]), duration[order])
        return sequential, pipelined
    ready = np.zeros(broadcast.modes)
    np.maximum.at(ready, broadcast.mode, np.cumsum(added)[broadcast.message])
    return sequential, pipelined_ends(ready, duration)


def _is_flow_shop(broadcast: Broadcast) -> bool:
    """One message per mode, one mode per message, and no block in two messages."""
    return (
        broadcast.messages == broadcast.modes == len(broadcast.mode)
        and len(np.unique(broadcast.message)) == broadcast.messages
        and len(np.unique(broadcast.carried[1])) == len(broadcast.carried[1])
    )
