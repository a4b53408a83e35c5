"""Better beams for the messages that a placement really sends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finecast.problem.arrays import IntArray
from finecast.solvers.beamforming.by_name import KERNEL
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.delivery import sent_messages, unsplit_messages
from finecast.solvers.node_set_tables import FULL_TABLES
from finecast.solvers.placement.problem import Placement, placement_delay
from finecast.solvers.prepared import Prepared, with_problems
from finecast.solvers.rate_search import by_search, solve_entries
from finecast.solvers.rates import SlotRates, with_columns
from finecast.solvers.splits import WORTH, split, worth_splitting

STARTS = 32
"""Starts for a message whose beam is not yet within the tolerance of its bound."""

TIGHT = 1e-4
"""A beam within this of its bound, on the SNR, is left alone."""


def polished(
    prepared: Prepared, placement: Placement, *, seed: int, deadline: Deadline = NEVER
) -> tuple[Prepared, float]:
    """Search again, with more starts, the beams of the messages that a placement sends.

    Parameters
    ----------
    prepared
        Instance and rates.
    placement
        Caches and sources.
    seed
        Seed of the starts.
    deadline
        When to stop; what is found by then is used.

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
    every_slot = range(instance.slots)
    rates = _better_beams(prepared, placement, list(prepared.rates), every_slot, seed, deadline)

    # Groups whose messages are still well below their bound may be faster in parts.
    changed = []
    for t, (plan, slot) in enumerate(zip(prepared.plans, rates, strict=True)):
        if deadline.over():
            break
        row, sender = unsplit_messages(instance, placement, plan, t)
        rates[t] = split(
            instance,
            t,
            slot,
            worth_splitting(slot, row, sender, WORTH),
            robust=prepared.robust,
            beamforming=KERNEL,
            seed=seed,
        )
        if rates[t] is not slot:
            changed.append(t)
    rates = _better_beams(prepared, placement, rates, changed, seed, deadline)
    if all(new is old for new, old in zip(rates, prepared.rates, strict=True)):
        return prepared, 0.0
    better = with_problems(replace(prepared, rates=tuple(rates)))
    old_delay = placement_delay(prepared.achieved, placement)
    new_delay = placement_delay(better.achieved, placement)
    return better, (old_delay - new_delay) / old_delay if old_delay else 0.0


def _better_beams(
    prepared: Prepared,
    placement: Placement,
    rates: list[SlotRates],
    slots: IntArray | range | list[int],
    seed: int,
    deadline: Deadline,
) -> list[SlotRates]:
    """Return the rates of all slots, some of them with better beams for what is sent there."""
    rates = list(rates)
    loose = {}
    for t in slots:
        rates[t], message, column = _loose_beams(prepared, placement, t, rates[t])
        if len(message):
            loose[int(t)] = message, column
    find = by_search(prepared.instance, KERNEL, seed + 1, starts=STARTS)
    return solve_entries(
        prepared.instance, rates, loose, find, robust=prepared.robust, deadline=deadline
    )


def _loose_beams(
    prepared: Prepared, placement: Placement, t: int, slot: SlotRates
) -> tuple[SlotRates, IntArray, IntArray]:
    """Return the messages of a slot whose beams are not at their bound: rates, rows, columns."""
    instance, plan = prepared.instance, prepared.plans[t]
    message, sender = sent_messages(instance, placement, plan, slot, t)
    if not len(message):
        return slot, message, sender

    # Which node set each message goes out from: its own, where that is not solved yet.
    if instance.nodes > FULL_TABLES:
        slot = with_columns(slot, message, sender)
    own = slot.node_sets[message] == sender[:, None]
    column, listed = own.argmax(axis=1), own.any(axis=1)
    if instance.nodes <= FULL_TABLES:
        unsolved = listed & np.isinf(slot.snr_bound[message, column])
        column = np.where(unsolved, column, slot.best[message, sender])

    # Those whose beams are not yet at their bound, once each.
    loose = slot.snr[message, column] < (1 - TIGHT) * slot.snr_bound[message, column]
    message, column = np.unique(np.stack([message[loose], column[loose]]), axis=1)
    return slot, message, column
