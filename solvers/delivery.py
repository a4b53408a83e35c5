"""From placement to broadcasts: every needed block goes out from all nodes that may send it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finecast.problem.arrays import IntArray
from finecast.problem.instance import Instance
from finecast.problem.sinr import rate, worst_case_sinr
from finecast.problem.solution import Broadcast, Solution, silence
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
    return Solution(
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
    pairs = np.unique(np.stack([part, sender]), axis=1)
    return pairs[0], pairs[1]


def _block_rows(
    instance: Instance, placement: Placement, plan: Messages, rates: SlotRates, slot: int
) -> tuple[IntArray, IntArray, IntArray]:
    """Return block, listeners, senders: a block goes once to each of its group's listeners.

    Listeners are those of a message, or of the parts that are faster together.
    """
    needed = np.flatnonzero(plan.group >= 0)
    holders = (1 << np.arange(instance.nodes)) @ (
        placement.cache[slot] | (placement.source[slot] >= 0)
    )
    row, message = np.nonzero(plan.of_group[plan.group[needed]])
    block = needed[row]
    sender = holders[block] & plan.allowed[message]
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
    bits = 1 << np.arange(instance.nodes)
    moves = (placement.source[slot] >= 0).any(axis=0)
    row_block, row_part, sender = _block_rows(instance, placement, plan, rates, slot)
    own = np.where(moves[row_block], row_block, -1)
    keys, message_of = np.unique(np.stack([row_part, sender, own]), axis=1, return_inverse=True)
    part, sender, _ = keys
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
        nodes=(sender[:, None] & bits) > 0,
        blocks=blocks,
        duration=8.0 * (blocks @ instance.library.block_size) / planned_rate,
        mode=np.arange(count),
        message=np.arange(count),
        beam=beam,
        rate=planned_rate,
    )
