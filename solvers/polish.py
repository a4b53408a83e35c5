"""Better beams for the messages that a placement really sends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finecast.problem.arrays import IntArray
from finecast.solvers.beamforming.by_name import KERNEL
from finecast.solvers.delivery import sent_messages, unsplit_messages
from finecast.solvers.node_set_tables import FULL_TABLES, members
from finecast.solvers.placement.problem import Placement, placement_delay
from finecast.solvers.prepared import Prepared, with_problems
from finecast.solvers.rates import (
    Batch,
    SlotRates,
    by_search,
    improved,
    with_cover_bound,
    with_node_sets,
)
from finecast.solvers.splits import WORTH, split, worth_splitting

STARTS = 32
"""Starts for a message whose beam is not yet within the tolerance of its bound."""

TIGHT = 1e-4
"""A beam within this of its bound, on the SNR, is left alone."""


def polished(prepared: Prepared, placement: Placement, *, seed: int) -> tuple[Prepared, float]:
    """Search again, with more starts, the beams of the messages that a placement sends.

    Parameters
    ----------
    prepared
        Instance and rates.
    placement
        Caches and sources.
    seed
        Seed of the starts.

    Returns
    -------
    prepared
        With the better beams in its rates.
    gain
        Share by which the placement's delay fell.
    """
    if prepared.beamforming != KERNEL:
        return prepared, 0.0  # a comparison of beamforming methods must not be helped out
    instance = prepared.instance
    rates = list(prepared.rates)
    for t, (plan, slot) in enumerate(zip(prepared.plans, prepared.rates, strict=True)):
        slot = _better_beams(prepared, placement, t, slot, seed)

        # Groups whose messages are still well below their bound may be faster in parts.
        row, sender = unsplit_messages(instance, placement, plan, t)
        apart = split(
            instance,
            t,
            slot,
            worth_splitting(slot, row, sender, WORTH),
            robust=prepared.robust,
            beamforming=KERNEL,
            seed=seed,
        )
        rates[t] = slot if apart is slot else _better_beams(prepared, placement, t, apart, seed)
    if all(new is old for new, old in zip(rates, prepared.rates, strict=True)):
        return prepared, 0.0
    better = with_problems(replace(prepared, rates=tuple(rates)))
    old_delay = placement_delay(prepared.achieved, placement)
    new_delay = placement_delay(better.achieved, placement)
    return better, (old_delay - new_delay) / old_delay if old_delay else 0.0


def _better_beams(
    prepared: Prepared, placement: Placement, t: int, slot: SlotRates, seed: int
) -> SlotRates:
    """Return the rates of a slot with better beams for the messages that are sent."""
    instance, plan = prepared.instance, prepared.plans[t]
    message, sender = sent_messages(instance, placement, plan, slot, t)
    if not len(message):
        return slot

    # Which solved node set each message goes out from.
    if instance.nodes > FULL_TABLES:
        slot = _with_senders(slot, message, sender)
        node_set = (slot.node_sets[message] == sender[:, None]).argmax(axis=1)
    else:
        node_set = slot.best[message, sender]

    # Those whose beams are not yet at their bound, once each.
    loose = slot.snr[message, node_set] < (1 - TIGHT) * slot.snr_bound[message, node_set]
    message, node_set = np.unique(np.stack([message[loose], node_set[loose]]), axis=1)
    if not len(message):
        return slot
    channel, error = instance.normalised_channel[t], instance.error_of(t, prepared.robust)
    count = len(message)
    batch = Batch(
        message,
        node_set,
        np.broadcast_to(np.arange(instance.users), (count, instance.users)),
        np.broadcast_to(channel, (count, *channel.shape)),
        np.broadcast_to(error, (count, *error.shape)),
        members(slot.node_sets[message, node_set], instance.nodes),
        slot.users[message],
    )
    find = by_search(instance, KERNEL, seed + 1, starts=STARTS)
    beams = with_cover_bound(instance, batch, find(batch), slot.splits)
    return improved(instance, slot, message, node_set, beams)


def _with_senders(slot: SlotRates, message: IntArray, sender: IntArray) -> SlotRates:
    """Return the rates with the node sets that send among those to solve."""
    unsolved = np.flatnonzero(~(slot.node_sets[message] == sender[:, None]).any(axis=1))
    column = np.zeros(len(message), dtype=np.int64)  # of a sender among the new ones of its message
    for index in np.unique(message[unsolved]):
        senders = unsolved[message[unsolved] == index]
        column[senders] = np.arange(len(senders))
    columns = int(column[unsolved].max(initial=-1)) + 1
    node_sets = np.zeros((len(slot.users), columns), dtype=np.int64)
    node_sets[message[unsolved], column[unsolved]] = sender[unsolved]
    return with_node_sets(slot, node_sets)
