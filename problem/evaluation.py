"""The judge: everything about a solution, recomputed from the instance alone, in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.areas import WIDE
from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.library import coarse_grained
from finecast.problem.slot_verdict import SCHEDULES, judge_slot
from finecast.problem.solution import Solution
from finecast.problem.violations import Violation, cache_violations

METRICS = (
    "mean_slot_delay",
    "realised_delay",
    "planned_delay",
    "sequential_delay",
    "pipelined_delay",
    "mean_completion",
    "p95_completion",
    "in_time_ratio",
    "request_hit_ratio",
    "block_hit_ratio",
    "byte_hit_ratio",
    "migrated_bytes",
    "cloud_bytes",
    "storage_saved_bytes",
    "broadcast_gain",
    "transmit_energy",
    "outages",
    "longest_area_delay",
    "p95_area_delay",
    "interference_over_noise_db",
    "wide_share",
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
        (T, J) tau_j, s; of a local block the mean over the users that wait for it.
    block_air_time
        (T, J) each block's share, by size, of its messages' time on the air, s; likewise.
    user_completion
        (T, K) end of the last message for the user, from the start of the slot, planned, s;
        infinite when a block of its model is never sent to it, NaN without a request.
    mean_completion, p95_completion
        Over all requests, s; NaN without any, infinite when one is never completed.
    in_time_ratio
        Share of the requests for models with a deadline that are completed within it, planned; NaN
        without any.
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
    area_delay
        (T, areas) end of all that an area waits for, from the start of the slot, under the
        instance's schedule, s; NaN for an area without a requesting user. `slot_delay` is its mean
        over the requesting users.
    longest_area_delay, p95_area_delay
        The delay of the slowest area, summed over slots, and the 95th percentile over all requests
        of the delay of their area, s; 0 and NaN without any request.
    interference
        (T, K) the most that other areas add to the noise of a user with a message of its own area,
        over the noise; NaN for the others.
    interference_over_noise_db
        The mean of `interference` over users, in dB; NaN without a local message.
    wide_share
        Share of the bytes sent that went in wide messages; NaN if nothing is sent.
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
    in_time_ratio: float
    request_hit_ratio: float
    block_hit_ratio: float
    byte_hit_ratio: float
    migrated_bytes: int
    cloud_bytes: int
    storage_saved_bytes: float
    broadcast_gain: float
    transmit_energy: float
    outages: int
    area_delay: FloatArray
    longest_area_delay: float
    p95_area_delay: float
    interference: FloatArray
    interference_over_noise_db: float
    wide_share: float

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
    slots = [judge_slot(instance, solution, t) for t in range(instance.slots)]
    violations = [
        *cache_violations(instance, solution),
        *(violation for slot in slots for violation in slot.violations),
    ]
    # Delays and completion under the instance's own schedule.
    own = SCHEDULES.index(instance.schedule)
    slot_delay = np.array([slot.length[own] for slot in slots])
    slot_realised = np.array([slot.realised[own] for slot in slots])
    guaranteed = all(slot.guaranteed for slot in slots)
    planned = float(slot_delay.sum())
    completion = np.stack([slot.completion[own] for slot in slots])
    requested = completion[~np.isnan(completion)]
    # What each area waits for, and what it hears of the others.
    area_delay = np.stack([slot.area_delay[own] for slot in slots])
    waits = np.take_along_axis(area_delay, instance.user_area, axis=1)[instance.requests >= 0]
    interference = np.stack([slot.interference for slot in slots])
    disturbed = interference[~np.isnan(interference)]
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
    wide_bytes = sum(slot.wide_bytes for slot in slots)
    migration = np.stack([slot.migration for slot in slots])
    return Evaluation(
        violations=tuple(violations),
        guaranteed=guaranteed,
        delay=planned if guaranteed and not violations else np.inf,
        realised_delay=float(slot_realised.sum()) if not violations else np.inf,
        planned_delay=planned,
        sequential_delay=float(sum(slot.length[0] for slot in slots)),
        pipelined_delay=float(sum(slot.length[1] for slot in slots)),
        slot_delay=slot_delay,
        slot_migration=migration.sum(axis=1),
        slot_broadcast=np.array([slot.on_air for slot in slots]),
        slot_realised_delay=slot_realised,
        block_migration=migration,
        block_air_time=np.stack([slot.air_time for slot in slots]),
        user_completion=completion,
        mean_completion=float(requested.mean()) if len(requested) else np.nan,
        p95_completion=_p95(requested),
        in_time_ratio=_in_time(instance, completion),
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
        area_delay=area_delay,
        longest_area_delay=float(np.where(np.isnan(area_delay), 0.0, area_delay).max(axis=1).sum()),
        p95_area_delay=_p95(waits),
        interference=interference,
        interference_over_noise_db=_decibel(disturbed),
        wide_share=_ratio(wide_bytes, sent_bytes),
    )


def _in_time(instance: Instance, completion: FloatArray) -> float:
    """Return the share of requests with a deadline that are completed (T, K) s within it."""
    if not len(instance.deadline):
        return np.nan
    deadline = np.where(instance.requests >= 0, instance.deadline[instance.requests], np.inf)
    due = np.isfinite(deadline)
    return _ratio((due & (completion <= deadline)).sum(), due.sum())


def _received_copies(instance: Instance, solution: Solution) -> tuple[IntArray, IntArray]:
    """Return (T, J) how many nodes receive a block from another one, and from the cloud."""
    all_copies = np.stack([np.sum(source >= 0, axis=0) for source in solution.source])
    of_cloud = np.stack([np.sum(source == instance.nodes, axis=0) for source in solution.source])
    return all_copies - of_cloud, of_cloud


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


def _decibel(ratio: FloatArray) -> float:
    """Return the mean in dB; NaN of nothing."""
    if not len(ratio):
        return float("nan")
    mean = float(ratio.mean())
    return 10.0 * math.log10(mean) if mean > 0.0 else -math.inf


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
        if broadcast.area.max(initial=WIDE) >= instance.area_count:
            raise ValueError(
                f"the solution's broadcast of slot {t} has a message in area "
                f"{broadcast.area.max()}, the instance has areas 0 to {instance.area_count - 1}"
            )
