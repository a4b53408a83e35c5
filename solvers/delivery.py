"""From placement to broadcasts: every needed block goes out from all nodes that may send it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.schedule import johnson_order
from finecast.problem.sinr import rate, worst_case_sinr
from finecast.problem.slot_verdict import migration_delay
from finecast.problem.solution import Broadcast, Solution, silence
from finecast.solvers.node_set_tables import distinct, members, node_sets
from finecast.solvers.placement.problem import Placement
from finecast.solvers.rates import SlotRates
from finecast.solvers.restrictions import Messages


def deliver(
    instance: Instance,
    placement: Placement,
    plans: Sequence[Messages],
    rates: Sequence[SlotRates],
    *,
    robust: bool,
    method: str,
) -> Solution:
    """Return the solution that broadcasts every needed block from all nodes that may send it.

    Cached blocks with the same listeners and senders share a message; a block that migrates has
    one of its own, so that a pipelined schedule can overlap it.

    Parameters
    ----------
    instance
        The problem.
    placement
        Caches and sources.
    plans, rates
        Per slot, the messages and their rates with beams.
    robust
        Rates hold over the error balls; otherwise for the estimates only.
    method
        Name to leave in the solution.
    """
    solution = Solution(
        cache=placement.cache,
        source=placement.source,
        broadcasts=tuple(
            _deliver_slot(instance, placement, plans[t], rates[t], t, robust)
            for t in range(instance.slots)
        ),
        planned="guaranteed" if robust else "nominal",
        instance_hash=instance.content_hash,
        method=method,
    )
    if instance.schedule == "sequential":
        return solution
    migration = migration_delay(instance, solution)
    return replace(
        solution,
        broadcasts=tuple(
            _in_johnson_order(broadcast, migration[t])
            for t, broadcast in enumerate(solution.broadcasts)
        ),
    )


def sent_messages(
    instance: Instance, placement: Placement, plan: Messages, rates: SlotRates, slot: int
) -> tuple[IntArray, IntArray]:
    """Return the distinct (listeners, senders) of a slot: indices into the rates, bit masks.

    Parameters
    ----------
    instance, placement, plan, rates, slot
        As in `deliver`, for one slot.
    """
    _, part, sender = _block_rows(instance, placement, plan, rates, slot)
    (part, sender), _ = distinct(part, sender)
    return part, sender


def unsplit_messages(
    instance: Instance, placement: Placement, plan: Messages, slot: int
) -> tuple[IntArray, IntArray]:
    """Return the distinct (message, senders) of a slot before any is split: index and bit mask.

    Parameters
    ----------
    instance, placement, plan, slot
        As in `deliver`, for one slot.
    """
    _, message, sender = _unsplit_rows(instance, placement, plan, slot)
    (message, sender), _ = distinct(message, sender)
    return message, sender


def _unsplit_rows(
    instance: Instance, placement: Placement, plan: Messages, slot: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Return block, message, senders: a block goes once in each of its group's messages."""
    needed = np.flatnonzero(plan.group >= 0)
    holders = node_sets(placement.cache[slot] | (placement.source[slot] >= 0))
    row, message = np.nonzero(plan.of_group[plan.group[needed]])
    block = needed[row]
    return block, message, holders[block] & plan.allowed[message]


def _block_rows(
    instance: Instance, placement: Placement, plan: Messages, rates: SlotRates, slot: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Return block, listeners, senders: a block goes once to each of its group's listeners.

    Listeners are those of a message, or of the parts that are faster together.
    """
    block, message, sender = _unsplit_rows(instance, placement, plan, slot)
    row, part = np.nonzero(rates.parts(message, sender))
    return block[row], part, sender[row]


def _deliver_slot(
    instance: Instance,
    placement: Placement,
    plan: Messages,
    rates: SlotRates,
    slot: int,
    robust: bool,
) -> Broadcast:
    needed = np.flatnonzero(plan.group >= 0)
    if not len(needed):
        return silence(instance.users, instance.nodes, instance.blocks, instance.antennas)
    moves = (placement.source[slot] >= 0).any(axis=0)
    row_block, row_part, sender = _block_rows(instance, placement, plan, rates, slot)
    own = np.where(moves[row_block], row_block, -1)
    (part, sender, _), message_of = distinct(row_part, sender, own)
    count = len(part)
    blocks = np.zeros((count, instance.blocks), dtype=bool)
    blocks[message_of.ravel(), row_block] = True
    beam = rates.beam[part, rates.best[part, sender]]
    sinr = worst_case_sinr(
        instance.normalised_channel[slot],
        instance.error_of(slot, robust),
        beam,
        np.eye(count, dtype=bool),
    )
    worst = np.where(rates.users[part].T, sinr, np.inf).min(axis=0)
    planned_rate = rate(worst, instance.network.bandwidth, instance.network.max_spectral_efficiency)
    return Broadcast(
        users=rates.users[part],
        nodes=members(sender, instance.nodes),
        blocks=blocks,
        duration=8.0 * (blocks @ instance.library.block_size) / planned_rate,
        mode=np.arange(count),
        message=np.arange(count),
        beam=beam,
        rate=planned_rate,
    )


def _in_johnson_order(broadcast: Broadcast, migration: FloatArray) -> Broadcast:
    """Return the messages in Johnson's order of their blocks, the parts of a block together.

    The judge keeps to the stated order where a block is in several messages. What migrates has
    messages of its own (`_deliver_slot`), so that its block is one job: it migrates, and then all
    parts are sent. Messages of cached blocks are jobs that need not wait.

    Parameters
    ----------
    broadcast
        One message per mode, message i in mode i.
    migration
        (J,) migration delay of each block, s.
    """
    waits = broadcast.blocks @ migration > 0
    first_block = broadcast.blocks.argmax(axis=1)
    of_job = np.where(waits, first_block, len(migration) + np.arange(len(waits)))
    jobs, job = np.unique(of_job, return_inverse=True)
    on_air = np.bincount(job, broadcast.duration, len(jobs)).astype(np.float64)
    fetch = np.append(migration, np.zeros(len(waits)))[jobs]
    rank = np.empty(len(jobs), dtype=np.int64)
    rank[johnson_order(fetch, on_air)] = np.arange(len(jobs))
    order = np.argsort(rank[job], kind="stable")
    return replace(
        broadcast,
        users=broadcast.users[order],
        nodes=broadcast.nodes[order],
        blocks=broadcast.blocks[order],
        duration=broadcast.duration[order],
        beam=broadcast.beam[order],
        rate=broadcast.rate[order],
    )
