"""The search for the beams and bounds of many messages at once, each alone on the air."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.solvers.beamforming.by_name import Beams, solve_messages
from finecast.solvers.cover_cuts import GroupMessages, cut_efficiency
from finecast.solvers.covers import common_channel_efficiency, cover_efficiency, efficiency
from finecast.solvers.deadline import BATCH_WORK, MESSAGE_WORK, NEVER, Deadline, count_work
from finecast.solvers.node_set_tables import members
from finecast.solvers.rates import SlotRates, Solved, improved
from finecast.solvers.result import Callback, Progress

STARTS = 4
"""Starts of a beam's search."""

LOOSE = 0.02
"""A second bound on covers is computed where the beams stay further below the first than this."""

CHUNK = 1024
"""Messages solved between two reports of progress."""

TIMED_CHUNK = 128
"""Messages solved between two looks at the clock, at most."""

TIMED_SIZE = 2**17
"""Their users times antennas of all nodes, at most: about half a second."""


@dataclass(frozen=True, eq=False)
class Batch:
    """B messages that are solved together.

    Parameters
    ----------
    row, column
        (B,) user set, and which of its node sets.
    listener
        (B, L) users whose channels these are.
    channel, error, node_mask, user_mask
        (B, L, N, A), (B, L, N), (B, N) and (B, L), as in
        `finecast.solvers.beamforming.by_name.solve_messages`.
    """

    row: IntArray
    column: IntArray
    listener: IntArray
    channel: ComplexArray
    error: FloatArray
    node_mask: BoolArray
    user_mask: BoolArray


Find = Callable[[Batch], Beams]
"""From messages to their beams and bounds."""


def by_search(
    instance: Instance, beamforming: str, seed: int, *, starts: int = STARTS, tight: bool = True
) -> Find:
    """Return the search for beams by a method.

    Parameters
    ----------
    instance
        The problem.
    beamforming, seed, starts, tight
        As in `finecast.solvers.beamforming.by_name.solve_messages`.
    """

    def find(batch: Batch) -> Beams:
        return solve_messages(
            beamforming,
            batch.channel,
            batch.error,
            instance.network.power,
            node_mask=batch.node_mask,
            user_mask=batch.user_mask,
            starts=starts,
            seed=seed,
            tight=tight,
        )

    return find


def with_cover_bound(
    instance: Instance, batch: Batch, found: Beams, splits: bool, deadline: Deadline = NEVER
) -> Solved:
    """Return beams and bounds (B, ...), those on covers included.

    Parameters
    ----------
    instance, batch, found
        The problem, messages, and their beams and bounds.
    splits
        Bounds hold for plans that split user sets, too.
    deadline
        The bound that takes longest is left out once it is over.
    """
    network = instance.network
    cap = network.max_spectral_efficiency
    cover = efficiency(found.bound, cap)
    if splits:
        cover = cover_efficiency(
            batch.channel,
            batch.error,
            network.power,
            node_mask=batch.node_mask,
            user_mask=batch.user_mask,
            bound=found.bound,
            proof=found.proof,
            cap=cap,
        )
    # Where the beams stay far below, the balls are large: one channel within may prove more.
    loose = np.flatnonzero(
        (batch.error > 0).any(axis=(1, 2)) & (efficiency(found.snr, cap) < (1.0 - LOOSE) * cover)
    )
    if len(loose):
        at_one_channel = common_channel_efficiency(
            batch.channel[loose],
            batch.error[loose],
            network.power,
            node_mask=batch.node_mask[loose],
            user_mask=batch.user_mask[loose],
            cap=cap,
        )
        cover[loose] = np.minimum(cover[loose], at_one_channel)
    # With all nodes, which bounds all fewer, messages to few users are bounded one by one.
    loose = loose[batch.node_mask[loose].all(axis=1) & (batch.user_mask[loose].sum(axis=1) > 2)]
    if splits and len(loose) and not deadline.over():
        messages = GroupMessages(
            batch.channel[loose],
            batch.error[loose],
            network.power,
            batch.node_mask[loose],
            batch.user_mask[loose],
            cap,
        )
        cover[loose] = np.minimum(cover[loose], cut_efficiency(messages))
    return Solved(found.beamformer, found.snr, found.bound, cover)


def solve_user_sets(
    instance: Instance,
    slot: IntArray,
    listening: BoolArray,
    node_sets: IntArray,
    find: Find,
    *,
    robust: bool,
    splits: bool,
    callback: Callback | None = None,
    deadline: Deadline = NEVER,
    timed_chunk: int = TIMED_CHUNK,
) -> Solved:
    """Return beams and bounds of P user sets of all slots by F node sets each.

    Messages with about as many users go together, so that little of a batch is padding. What is
    not solved when the time is up has no rate and an infinite bound.

    Parameters
    ----------
    instance
        The problem.
    slot, listening, node_sets
        (P,), (P, K) and (P, F): slot, users and node sets of each user set.
    find
        Finds beams and bounds.
    robust, splits, callback, deadline
        As in `rate_table`.
    timed_chunk
        Messages solved between two looks at the clock, at most.
    """
    sets, family = node_sets.shape
    beam = np.zeros((sets, family, instance.nodes, instance.antennas), dtype=np.complex128)
    snr = np.zeros((sets, family))
    bound, cover = np.full((2, sets, family), np.inf)
    size = listening.sum(axis=1)
    padded = 2 ** np.ceil(np.log2(np.maximum(size, 1))).astype(np.int64)
    done, total = 0, sets * family
    errors = instance.normalised_error
    if not robust:
        errors = np.zeros_like(errors)
    for width in np.unique(padded):
        rows = np.flatnonzero(padded == width)
        # Indices of the listening users first; the rest of the row is masked out.
        order = np.argsort(~listening[rows], axis=1, kind="stable")[:, :width]
        heard = np.take_along_axis(listening[rows], order, axis=1)
        channel = instance.normalised_channel[slot[rows, None], order]
        error = errors[slot[rows, None], order]
        pairs = np.argwhere(np.ones((len(rows), family), dtype=bool))
        chunk = CHUNK
        if not deadline.endless:
            of_one = int(width) * instance.nodes * instance.antennas
            chunk = max(1, min(timed_chunk, TIMED_SIZE // of_one))
        for begin in range(0, len(pairs), chunk):
            if deadline.over():
                return Solved(beam, snr, bound, cover)
            r, f = pairs[begin : begin + chunk].T
            row = rows[r]
            batch = Batch(
                row,
                f,
                order[r],
                channel[r],
                error[r],
                members(node_sets[row, f], instance.nodes),
                heard[r],
            )
            solved = with_cover_bound(instance, batch, find(batch), splits, deadline)
            beam[row, f], snr[row, f] = solved.beam, solved.snr
            bound[row, f], cover[row, f] = solved.snr_bound, solved.cover_bound
            done += len(r)
            count_work(BATCH_WORK + MESSAGE_WORK * len(r) * int(width) ** 2)
            if callback is not None:
                callback(Progress("beams", done, total))
    return Solved(beam, snr, bound, cover)


def solve_entries(
    instance: Instance,
    rates: list[SlotRates],
    entries: Mapping[int, tuple[IntArray, IntArray]],
    find: Find,
    *,
    robust: bool,
    deadline: Deadline = NEVER,
) -> list[SlotRates]:
    """Return the rates of all slots with some of their entries solved, where that is better.

    All slots go in one batch: small batches cost several times as much a message.

    Parameters
    ----------
    instance, rates
        The problem, and the rates of every slot.
    entries
        By slot, which user sets, and which of their node sets; no slot without any.
    find, robust, deadline
        As in `solve_user_sets`.
    """
    rates = list(rates)
    if not entries:
        return rates
    count = [len(message) for message, _ in entries.values()]
    chosen = [(rates[t], *pair) for t, pair in entries.items()]
    solved = solve_user_sets(
        instance,
        np.repeat(list(entries), count),
        np.concatenate([slot.users[message] for slot, message, _ in chosen]),
        np.concatenate([slot.node_sets[message, column] for slot, message, column in chosen])[
            :, None
        ],
        find,
        robust=robust,
        splits=rates[0].splits,
        deadline=deadline,
    )
    parts = solved.cut(np.cumsum(count)[:-1])
    for (t, (message, column)), part in zip(entries.items(), parts, strict=True):
        found = Solved(*(x[:, 0] for x in vars(part).values()))
        rates[t] = improved(instance, rates[t], message, column, found)
    return rates
