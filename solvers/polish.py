"""Better beams for the messages that a placement really sends."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finecast.problem.arrays import IntArray
from finecast.solvers.beamforming.by_name import KERNEL, solve_messages
from finecast.solvers.delivery import sent_messages
from finecast.solvers.node_set_tables import FULL_TABLES, members
from finecast.solvers.placement.problem import Placement, placement_delay
from finecast.solvers.prepared import Prepared, with_problems
from finecast.solvers.rates import SlotRates, improved, with_node_sets

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
    changed = False
    for t, (plan, slot) in enumerate(zip(prepared.plans, rates, strict=True)):
        part, sender = sent_messages(instance, placement, plan, t)
        if not len(part):
            continue
        if instance.nodes > FULL_TABLES:
            slot = _with_senders(slot, part, sender)
            solved = (slot.node_sets[part] == sender[:, None]).argmax(axis=1)
        else:
            solved = slot.best[part, sender]
        loose = slot.snr[part, solved] < (1 - TIGHT) * slot.snr_bound[part, solved]
        pairs = np.unique(np.stack([part[loose], solved[loose]]), axis=1)
        if not pairs.shape[1]:
            continue
        p, f = pairs
        error = instance.normalised_error[t]
        count = len(p)
        found = solve_messages(
            KERNEL,
            np.broadcast_to(
                instance.normalised_channel[t], (count, *instance.normalised_channel[t].shape)
            ),
            np.broadcast_to(
                error if prepared.robust else np.zeros_like(error), (count, *error.shape)
            ),
            instance.network.power,
            node_mask=members(slot.node_sets[p, f], instance.nodes),
            user_mask=slot.users[p],
            starts=STARTS,
            seed=seed + 1,
        )
        rates[t] = improved(instance, slot, p, f, found)
        changed = True
    if not changed:
        return prepared, 0.0
    better = with_problems(replace(prepared, rates=tuple(rates)))
    old_delay = placement_delay(prepared.achieved, placement)
    new_delay = placement_delay(better.achieved, placement)
    return better, (old_delay - new_delay) / old_delay if old_delay else 0.0


def _with_senders(slot: SlotRates, part: IntArray, sender: IntArray) -> SlotRates:
    """Return the rates with the node sets that send among those to solve."""
    new = np.flatnonzero(~(slot.node_sets[part] == sender[:, None]).any(axis=1))
    entry = np.zeros(len(part), dtype=np.int64)
    for group in np.unique(part[new]):
        own = new[part[new] == group]
        entry[own] = np.arange(len(own))
    more = np.zeros((len(slot.users), int(entry[new].max(initial=-1)) + 1), dtype=np.int64)
    more[part[new], entry[new]] = sender[new]
    return with_node_sets(slot, more)
