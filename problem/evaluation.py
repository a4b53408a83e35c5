"""The judge: everything about a solution, recomputed from the instance alone, in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.library import coarse_grained
from finecast.problem.schedule import (
    johnson_order,
    migration_by_message,
    pipelined_ends,
    sequential_ends,
    summed,
)
from finecast.problem.sinr import rate, worst_case_sinr
from finecast.problem.solution import Broadcast, Solution
from finecast.problem.tolerances import LOWEST_SNR, RATE_RELATIVE
from finecast.problem.violations import Violation, broadcast_violations, cache_violations

METRICS = (
    "mean_slot_delay",
    "realised_delay",
    "planned_delay",
    "sequential_delay",
    "pipelined_delay",
    "mean_completion",
    "p95_completion",
    "request_hit_ratio",
    "block_hit_ratio",
    "byte_hit_ratio",
    "migrated_bytes",
    "cloud_bytes",
    "storage_saved_bytes",
    "broadcast_gain",
    "transmit_energy",
    "outages",
)
"""The figures of an `Evaluation` that are one number each, but for `delay` and `guaranteed`."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What a solution is worth.

    Parameters
    ----------
    violations
        Broken rules; none means feasible.
    guaranteed
        Every planned rate holds over all error balls.
    delay
        D, the objective under the instance's schedule, s; infinite when infeasible or when a
        planned rate is not guaranteed.
    realised_delay
        The same with the true channels: users that fail to decode get a repeat, s; infinite when
        infeasible.
    planned_delay
        The delay that the plan states, guaranteed or not, s.
    sequential_delay, pipelined_delay
        The planned delay under both schedules, s; pipelined in Johnson's order where every mode
        has one message of its own and no block is in two of them, else in the stated order.
    slot_delay, slot_migration, slot_broadcast, slot_realised_delay
        (T,) per slot, s; delays under the instance's schedule.
    block_migration
        (T, J) tau_j, s.
    block_air_time
        (T, J) each block's share, by size, of its messages' time on the air, s.
    user_completion
        (T, K) end of the last message for the user, from the start of the slot, planned, s;
        infinite when a block of its model is never sent to it, NaN without a request.
    mean_completion, p95_completion
        Over all requests, s; NaN without any, infinite when one is never completed.
    request_hit_ratio, block_hit_ratio, byte_hit_ratio
        Share of requests whose blocks are all cached somewhere when the slot begins; of needed
        blocks (per slot) that are; of their bytes. NaN without any.
    migrated_bytes, cloud_bytes
        Received from other nodes, and from the cloud.
    storage_saved_bytes
        By sharing: sizes of the models a node caches whole, less the bytes of their distinct
        blocks; summed over nodes, mean over slots.
    broadcast_gain
        Bits that users receive over bits sent; 1 for unicast. NaN if nothing is sent.
    transmit_energy
        J.
    outages
        Users whose true rate is below even that of their repeat, the lowest; summed over repeats.
    """

    violations: tuple[Violation, ...]
    guaranteed: bool
    delay: float
    realised_delay: float
    planned_delay: float
    sequential_delay: float
    pipelined_delay: float
    slot_delay: FloatArray
    slot_migration: FloatArray
    slot_broadcast: FloatArray
    slot_realised_delay: FloatArray
    block_migration: FloatArray
    block_air_time: FloatArray
    user_completion: FloatArray
    mean_completion: float
    p95_completion: float
    request_hit_ratio: float
    block_hit_ratio: float
    byte_hit_ratio: float
    migrated_bytes: int
    cloud_bytes: int
    storage_saved_bytes: float
    broadcast_gain: float
    transmit_energy: float
    outages: int

    @property
    def feasible(self) -> bool:
        """No rule is broken."""
        return not self.violations

    @property
    def mean_slot_delay(self) -> float:
        """D / T, s."""
        return self.delay / len(self.slot_delay)


# Absurdly large beams overflow to infinite powers, which are violations and need no warning.
@np.errstate(over="ignore", invalid="ignore")
def evaluate(instance: Instance, solution: Solution) -> Evaluation:
    """Judge a solution.

    Parameters
    ----------
    instance
        The problem.
    solution
        The decisions, of the instance's shape; of whole models where its restriction says so.

    Raises
    ------
    ValueError
        The solution has another shape than the instance.
    """
    if "coarse" in solution.restrict.split(","):
        instance = replace(instance, library=coarse_grained(instance.library))
    _check_shape(instance, solution)
    migration = migration_delay(instance, solution)
    slots = [_evaluate_slot(instance, solution, t, migration[t]) for t in range(instance.slots)]
    violations = [
        *cache_violations(instance, solution),
        *(violation for slot in slots for violation in slot.violations),
    ]
    # Delays and completion under the instance's own schedule.
    pipelined = instance.schedule == "pipelined"
    slot_delay = np.array([slot.pipelined if pipelined else slot.sequential for slot in slots])
    slot_realised = np.array(
        [slot.realised_pipelined if pipelined else slot.realised_sequential for slot in slots]
    )
    guaranteed = all(slot.guaranteed for slot in slots)
    planned = float(slot_delay.sum())
    completion = np.stack(
        [slot.completion_pipelined if pipelined else slot.completion_sequential for slot in slots]
    )
    requested = completion[~np.isnan(completion)]
    # What was there when the slot began, and what was sent.
    size = instance.library.block_size
    cached = np.asarray(solution.cache.any(axis=1))
    wanted_and_absent = np.stack(
        [(wanted & ~here).any(axis=1) for wanted, here in zip(instance.wanted, cached, strict=True)]
    )
    copies = _received_copies(instance, solution)
    received_bytes = sum(
        float(b.message_size(size) @ b.users.sum(axis=1)) for b in solution.broadcasts
    )
    sent_bytes = sum(float(b.message_size(size).sum()) for b in solution.broadcasts)
    return Evaluation(
        violations=tuple(violations),
        guaranteed=guaranteed,
        delay=planned if guaranteed and not violations else np.inf,
        realised_delay=float(slot_realised.sum()) if not violations else np.inf,
        planned_delay=planned,
        sequential_delay=float(sum(slot.sequential for slot in slots)),
        pipelined_delay=float(sum(slot.pipelined for slot in slots)),
        slot_delay=slot_delay,
        slot_migration=migration.sum(axis=1),
        slot_broadcast=np.array([b.duration.sum() for b in solution.broadcasts]),
        slot_realised_delay=slot_realised,
        block_migration=migration,
        block_air_time=np.stack([_block_air_time(b, size) for b in solution.broadcasts]),
        user_completion=completion,
        mean_completion=float(requested.mean()) if len(requested) else np.nan,
        p95_completion=_p95(requested),
        request_hit_ratio=_ratio(
            ((instance.requests >= 0) & ~wanted_and_absent).sum(), (instance.requests >= 0).sum()
        ),
        block_hit_ratio=_ratio((instance.needed & cached).sum(), instance.needed.sum()),
        byte_hit_ratio=_ratio(
            ((instance.needed & cached) @ size).sum(), (instance.needed @ size).sum()
        ),
        migrated_bytes=int((copies[0] @ size).sum()),
        cloud_bytes=int((copies[1] @ size).sum()),
        storage_saved_bytes=_storage_saved(instance, solution),
        broadcast_gain=_ratio(received_bytes, sent_bytes),
        transmit_energy=sum(
            float(b.duration[b.mode] @ b.node_power.sum(axis=1)) for b in solution.broadcasts
        ),
        outages=sum(slot.outages for slot in slots),
    )


def migration_delay(instance: Instance, solution: Solution) -> FloatArray:
    """Return tau_j of every slot: the slowest of a block's migrations.

    tau_j = max over nodes n that receive j of 8 s_j / C_{source(n) n}, for the needed blocks; 0
    for the others, whose migration is a violation.

    Returns
    -------
    (T, J) array, s; infinite over a link of rate 0.
    """
    with np.errstate(divide="ignore"):
        seconds_per_bit = 1.0 / instance.network.link_rate
    slowest = np.zeros(instance.needed.shape)
    for of_slot, source in zip(slowest, solution.source, strict=True):
        receiver, block = np.nonzero(source >= 0)
        np.maximum.at(of_slot, block, seconds_per_bit[source[receiver, block], receiver])
    per_bit = np.where(instance.needed, slowest, 0.0)
    return np.asarray(8.0 * instance.library.block_size * per_bit)


def _received_copies(instance: Instance, solution: Solution) -> tuple[IntArray, IntArray]:
    """Return (T, J) how many nodes receive a block from another one, and from the cloud."""
    all_copies = np.stack([np.sum(source >= 0, axis=0) for source in solution.source])
    of_cloud = np.stack([np.sum(source == instance.nodes, axis=0) for source in solution.source])
    return all_copies - of_cloud, of_cloud


@dataclass(frozen=True, eq=False)
class _Slot:
    violations: list[Violation]
    guaranteed: bool
    sequential: float
    pipelined: float
    realised_sequential: float
    realised_pipelined: float
    completion_sequential: FloatArray
    completion_pipelined: FloatArray
    outages: int


def _evaluate_slot(
    instance: Instance, solution: Solution, slot: int, migration: FloatArray
) -> _Slot:
    broadcast = solution.broadcasts[slot]
    guaranteed_rate = _message_rates(instance, broadcast, slot, robust=True)
    allowed = guaranteed_rate
    if solution.planned == "nominal":
        allowed = _message_rates(instance, broadcast, slot, robust=False)
    repeat, outages = _repeats(instance, broadcast, slot)
    sequential, pipelined = _mode_ends(broadcast, migration, broadcast.duration)
    realised_pipelined = pipelined
    if repeat.any():
        _, realised_pipelined = _mode_ends(broadcast, migration, broadcast.duration + repeat)
    total_migration, total_broadcast = float(migration.sum()), float(broadcast.duration.sum())
    violations = list(broadcast_violations(instance, solution, slot, allowed))
    requested = instance.requests[slot] >= 0
    deprived = np.zeros(instance.users, dtype=bool)
    for violation in violations:
        if violation.rule == "coverage":
            deprived[violation.user] = True
    return _Slot(
        violations=violations,
        guaranteed=bool(np.all(broadcast.rate <= guaranteed_rate * (1 + RATE_RELATIVE))),
        sequential=total_migration + total_broadcast,
        pipelined=float(pipelined.max(initial=0.0)),
        realised_sequential=total_migration + total_broadcast + float(repeat.sum()),
        realised_pipelined=float(realised_pipelined.max(initial=0.0)),
        completion_sequential=_completion(broadcast, sequential, requested, deprived),
        completion_pipelined=_completion(broadcast, pipelined, requested, deprived),
        outages=outages,
    )


def _message_rates(
    instance: Instance, broadcast: Broadcast, slot: int, *, robust: bool
) -> FloatArray:
    """Return (X,) bit/s: W min(eta, log2(1 + min over the message's users of the SINR))."""
    sinr = worst_case_sinr(
        instance.normalised_channel[slot],
        instance.error_of(slot, robust),
        broadcast.beam,
        _together(broadcast),
    )
    listening = broadcast.users[broadcast.message].T
    worst = np.where(listening, sinr, np.inf).min(axis=0)
    return rate(worst, instance.network.bandwidth, instance.network.max_spectral_efficiency)


def _together(broadcast: Broadcast) -> BoolArray:
    """Return (X, X), which transmissions are on the air at the same time."""
    if broadcast.modes == len(broadcast.mode):  # every mode has one, so all are alone
        return np.eye(broadcast.modes, dtype=bool)
    return np.asarray(broadcast.mode[:, None] == broadcast.mode)


def _repeats(instance: Instance, broadcast: Broadcast, slot: int) -> tuple[FloatArray, int]:
    """Return (D,) seconds that repeats add to each mode, and the number of outages.

    A user decodes its part iff its true rate reaches the planned one. Those that fail get that
    part once more, alone on the air, with the same beams, at the smallest of their true rates, but
    not below the lowest modulation-and-coding rate.
    """
    network = instance.network
    channel = instance.channel_true[slot] / np.sqrt(network.noise_power)
    no_error = np.zeros(channel.shape[:2])
    listening = broadcast.users[broadcast.message].T

    def true_rate(on_air: BoolArray) -> FloatArray:
        sinr = worst_case_sinr(channel, no_error, broadcast.beam, on_air)
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


def _mode_ends(
    broadcast: Broadcast, migration: FloatArray, duration: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return (D,) ends of the modes, sequential in the stated order and pipelined.

    `duration` may exceed the planned one by repeats; the order is that of the plan.
    """
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


def _completion(
    broadcast: Broadcast, ends: FloatArray, requested: BoolArray, deprived: BoolArray
) -> FloatArray:
    """Return (K,) s: the end of the last mode that carries a message of the user."""
    listening = broadcast.users[broadcast.message]
    when = np.where(listening, ends[broadcast.mode][:, None], 0.0).max(axis=0, initial=0.0)
    return np.where(deprived, np.inf, np.where(requested, when, np.nan))


def _block_air_time(broadcast: Broadcast, size: IntArray) -> FloatArray:
    """Return (J,) s: every message's time on the air, shared among its blocks by size."""
    time = summed(broadcast.message, broadcast.duration[broadcast.mode], broadcast.messages)
    message, block = broadcast.carried
    return summed(block, (time / broadcast.message_size(size))[message], len(size)) * size


def _storage_saved(instance: Instance, solution: Solution) -> float:
    blocks_of = instance.library.model_blocks
    size = instance.library.block_size
    of_model = blocks_of.astype(np.float32)
    saved = 0
    for cache in solution.cache:
        missing = (~cache).astype(np.float32) @ of_model.T
        whole = missing == 0  # (N, M): the node caches every block of the model
        separate = whole @ instance.library.model_size
        distinct = ((whole.astype(np.float32) @ of_model) > 0) @ size
        saved += int((separate - distinct).sum())
    return float(saved / instance.slots)


def _p95(completion: FloatArray) -> float:
    if not len(completion):
        return float("nan")
    # Interpolation between two infinite completions would be NaN.
    return float(np.percentile(completion, 95)) if np.isfinite(completion).all() else float("inf")


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")


def _check_shape(instance: Instance, solution: Solution) -> None:
    expected = (instance.slots, instance.nodes, instance.blocks)
    if solution.cache.shape != expected:
        raise ValueError(
            f"the solution's caches have shape {solution.cache.shape}, the instance needs "
            f"{expected} = (slots, nodes, blocks)"
        )
    for t, broadcast in enumerate(solution.broadcasts):
        shape = (broadcast.users.shape[1], broadcast.beam.shape[2])
        if shape != (instance.users, instance.antennas):
            raise ValueError(
                f"the solution's broadcast of slot {t} is for (users, antennas) = {shape}, the "
                f"instance has {(instance.users, instance.antennas)}"
            )
