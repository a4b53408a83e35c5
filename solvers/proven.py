"""Beams proven optimal for the messages that decide the delay, where beams are most of the gap.

The rate table bounds every message by a relaxation. Where the placement's delay at these bounds is
further below its delay than it is above the lower bound, the relaxation is what is loose. Then the
messages that the placement sends, and those on which the Lagrangian bound rests, are proven one by
one by branch and bound on arguments (`finecast.solvers.beamforming.arguments`). That bounds one
message. For plans that split its users, prices of users are chosen anew
(`finecast.solvers.covers.proven_cover_efficiency`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.solvers.beamforming.by_name import KERNEL, solve_messages
from finecast.solvers.covers import efficiency, proven_cover_efficiency
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.delivery import unsplit_messages
from finecast.solvers.node_set_tables import FULL_TABLES, members
from finecast.solvers.placement.bound import PricePoint, Prices, dual_point, no_prices
from finecast.solvers.placement.chains import Classes
from finecast.solvers.placement.problem import Placement, placement_delay
from finecast.solvers.placement.units import relaxed_classes
from finecast.solvers.prepared import Prepared, with_problems
from finecast.solvers.rates import SlotRates, Solved, improved

if TYPE_CHECKING:
    from finecast.solvers.beamforming.arguments.messages import TreeOptions

BEAM_NODES = 400
"""Boxes of arguments that may be bounded per message."""

TOLERANCE = 1e-3
"""A message is proven when its bound is within this share of its rate."""

ROUNDS = 12
"""How often the messages on which the bound rests are looked for, at most."""

WORTH = 1e-4
"""No beam is proven where this share of the delay, or less, can be gained."""

Message = tuple[int, int, int]
"""Slot, user set (a row of the slot's rates) and node set."""


def with_proven_beams(
    prepared: Prepared,
    placement: Placement,
    prices: Iterable[Prices],
    *,
    nodes: int = BEAM_NODES,
    seed: int = 0,
    deadline: Deadline = NEVER,
) -> Prepared:
    """Return the rates with smaller bounds, and better beams where some are found.

    Up to 8 nodes, for sequential delivery by the kernel's beams; otherwise nothing changes.

    Parameters
    ----------
    prepared
        Instance and rates.
    placement
        Caches and sources.
    prices
        Points of the Lagrangian dual. The bound is that of the best one.
    nodes
        Boxes of arguments that may be bounded per message; 0 for none.
    seed
        Seed of the beamforming method's random starts.
    deadline
        When to end at the latest.
    """
    instance = prepared.instance
    # A comparison of beamforming methods must not be helped out, and spatial bounds are others.
    usual = prepared.beamforming == KERNEL and instance.delivery == "sequential"
    if not (usual and nodes > 0 and instance.nodes <= FULL_TABLES and prepared.bounded is not None):
        return prepared
    if not _beams_are_most(prepared, placement, _best_point(prepared, prices)[0]):
        return prepared
    from finecast.solvers.beamforming.arguments.messages import TreeOptions  # comes with torch

    options, tried = TreeOptions(nodes, TOLERANCE), set[Message]()
    sent = _sent(prepared, placement)
    for _ in range(ROUNDS):
        point, tables = _best_point(prepared, prices)
        delay = placement_delay(prepared.achieved, placement)
        if delay <= point.bound * (1 + WORTH) or deadline.over():
            break
        wanted = _loose(prepared, sent | _in_the_bound(prepared, point, tables)) - tried
        if not wanted:
            break
        tried |= wanted
        rates = list(prepared.rates)
        for t in sorted({slot for slot, _, _ in wanted}):
            pairs = sorted((row, node_set) for slot, row, node_set in wanted if slot == t)
            row, node_set = np.array(pairs).T
            rates[t] = _proven(prepared, t, row, node_set, options, seed, deadline)
        prepared = with_problems(replace(prepared, rates=tuple(rates)))
    return prepared


def _best_point(prepared: Prepared, prices: Iterable[Prices]) -> tuple[PricePoint, Classes]:
    """Return the Lagrangian at the best of the prices and the bounded rates, and its tables."""
    assert prepared.bounded is not None
    tables = relaxed_classes(prepared.bounded, like=prepared.achieved)
    candidates = [*prices] or [no_prices(prepared.bounded)]
    points = [dual_point(prepared.bounded, tables, each) for each in candidates]
    return max(points, key=lambda point: point.bound), tables


def _beams_are_most(prepared: Prepared, placement: Placement, point: PricePoint) -> bool:
    """Say whether beams are the larger part of the gap, and worth the work."""
    assert prepared.bounded is not None
    delay = placement_delay(prepared.achieved, placement)
    at_bounds = placement_delay(prepared.bounded, placement)
    beams, rest = delay - at_bounds, at_bounds - point.bound
    return beams > max(rest, WORTH * delay)


def _sent(prepared: Prepared, placement: Placement) -> set[Message]:
    """Return the messages of a placement, before any is split."""
    found: set[Message] = set()
    for t, plan in enumerate(prepared.plans):
        rows, senders = unsplit_messages(prepared.instance, placement, plan, t)
        pairs = zip(rows, senders & plan.allowed[rows], strict=True)
        found |= {(t, int(row), int(sender)) for row, sender in pairs}
    return found


def _in_the_bound(prepared: Prepared, point: PricePoint, tables: Classes) -> set[Message]:
    """Return the messages of the cheapest paths, on which the Lagrangian bound rests."""
    found: set[Message] = set()
    for t, plan in enumerate(prepared.plans):
        block = np.flatnonzero(plan.group >= 0)
        sender = point.paths.sender[t, tables.of_block[block]]
        entry, row = np.nonzero(plan.of_group[plan.group[block]])
        pairs = zip(row, sender[entry] & plan.allowed[row], strict=True)
        found |= {(t, int(r), int(q)) for r, q in pairs}
    return found


def _loose(prepared: Prepared, messages: set[Message]) -> set[Message]:
    """Return those that one message serves fastest, as far as is known, but not provenly."""
    found = set()
    for t, row, node_set in messages:
        slot = prepared.rates[t]
        rate, bound = slot.achieved[row, node_set], slot.bound[row, node_set]
        whole = slot.one_message[row, node_set]
        if rate > 0 and whole >= rate and bound > rate * (1 + TOLERANCE):
            found.add((t, row, node_set))
    return found


def _proven(
    prepared: Prepared,
    t: int,
    row: IntArray,
    node_set: IntArray,
    options: TreeOptions,
    seed: int,
    deadline: Deadline,
) -> SlotRates:
    """Return the rates of a slot with some messages proven.

    Parameters
    ----------
    prepared, t
        The problem and its rates, and which slot.
    row, node_set
        (B,) user sets of the slot's rates, and who sends.
    options, seed, deadline
        As in `with_proven_beams`.
    """
    from finecast.solvers.beamforming.arguments.messages import KnownBeams, prove_beams

    instance, slot = prepared.instance, prepared.rates[t]
    # Who is solved for may be more than who sends: the set around it that bounds it best.
    around = (node_set[:, None] & ~slot.node_sets[row]) == 0
    column = np.where(around, slot.cover_bound[row], np.inf).argmin(axis=1)
    exact = slot.node_sets[row] == node_set[:, None]
    column = np.where(exact.any(axis=1), exact.argmax(axis=1), column)
    _, first = np.unique(np.stack([row, column]), axis=1, return_index=True)
    row, column = row[first], column[first]

    # The search once more, for its dual points; then every message has a tree of its own.
    channel = np.broadcast_to(
        instance.normalised_channel[t], (len(row), *instance.normalised_channel[t].shape)
    )
    radius = instance.error_of(t, prepared.robust)
    error = np.broadcast_to(radius, (len(row), *radius.shape))
    node_mask = members(slot.node_sets[row, column], instance.nodes)
    user_mask, power = slot.users[row], instance.network.power
    found = solve_messages(
        KERNEL, channel, error, power, node_mask=node_mask, user_mask=user_mask, seed=seed
    )
    known = KnownBeams(found.beamformer, found.snr, found.bound)
    old = slot.snr[row, column] > found.snr
    known.beamformer[old] = slot.beam[row, column][old]
    known.snr[old] = slot.snr[row, column][old]
    known.bound[:] = np.minimum(known.bound, slot.snr_bound[row, column])
    better, _ = prove_beams(
        channel,
        error,
        power,
        node_mask=node_mask,
        user_mask=user_mask,
        known=known,
        options=options,
        deadline=deadline,
    )

    cap = instance.network.max_spectral_efficiency
    cover: FloatArray = efficiency(better.bound, cap)
    if slot.splits:
        cover = proven_cover_efficiency(
            channel,
            error,
            power,
            node_mask=node_mask,
            user_mask=user_mask,
            bound=better.bound,
            proof=found.proof,
            cap=cap,
        )
    solved = Solved(better.beamformer, better.snr, better.bound, cover)
    return improved(instance, slot, row, column, solved)
