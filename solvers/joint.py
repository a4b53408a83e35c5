"""Joint answers: placement on the rate table, beams for the final messages, a certified bound."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from problem.arrays import FloatArray, IntArray
from problem.instance import Instance
from problem.sinr import rate, worst_case_sinr
from problem.solution import Broadcast, Solution, silence
from solvers.placement.greedy import greedy_placement
from solvers.placement.problem import Placement, PlacementProblem, placement_delay
from solvers.rates import SlotRates, rate_bounds, rate_table
from solvers.result import Answer, BoundKind, Callback, Termination, TracePoint

ROUNDING = 1e-12
"""Certified bounds on delays are lowered by this share: sums of at most 1e5 positive terms, each
with a few roundings of 1.1e-16, err by less."""


def solve_greedy(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    beamforming: str = "sca",
) -> Answer:
    """Place greedily by delay saved per byte, then deliver with the best beams known.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `solvers.solve.solve`; the method takes no longer for a `gap` nor less for a
        `time_limit` once the beams are there, and does not warm-start.
    beamforming
        Beamforming method; see `solvers.beamforming.methods`.
    """
    began = time.perf_counter()
    rates = rate_table(instance, beamforming=beamforming, seed=seed, callback=callback)
    bound = broadcast_bound(instance, [(r.bound[:, -1], r.group) for r in rates])
    problem = placement_problem(instance, rates, [r.achieved for r in rates])
    if problem is None:
        return Answer(
            None,
            bound,
            BoundKind.CERTIFIED,
            Termination.NO_SOLUTION,
            notes=("a user group cannot be served at any rate: its channel errors are too large",),
        )
    placement = greedy_placement(problem)
    solution = deliver(instance, placement, rates, method="greedy")
    at_bounds = placement_problem(instance, rates, [r.bound for r in rates])
    delay = placement_delay(problem, placement)
    return Answer(
        solution,
        bound,
        BoundKind.CERTIFIED,
        Termination.COMPLETED,
        delay_at_bounded_rates=None if at_bounds is None else placement_delay(at_bounds, placement),
        trace=(TracePoint(time.perf_counter() - began, delay, bound),),
    )


def certified_lower_bound(instance: Instance, *, callback: Callback | None = None) -> float:
    """Return a certified lower bound on D, s, without solving for a placement.

    Parameters
    ----------
    instance
        The problem.
    callback
        Told after every user group.
    """
    return broadcast_bound(instance, rate_bounds(instance, callback=callback))


def broadcast_bound(instance: Instance, full: Sequence[tuple[FloatArray, IntArray]]) -> float:
    """Return the certified lower bound that all nodes hold everything.

    Sequential delivery: every needed block is sent once to all its users, at no more than the
    rate of its user group with all nodes, whatever is cached: D >= sum_t sum_j 8 s_j / R_up(U_j).
    Spatial delivery: a user's bits over its best rate alone with all nodes (without the cap of
    the modulation table, which holds per message and not for several at once); the slot is not
    over before its slowest user is done.

    Parameters
    ----------
    instance
        The problem.
    full
        Per slot: (G,) upper bounds on the rates with all nodes, bit/s, and (J,) groups.
    """
    bits = 8.0 * instance.library.block_size
    total = 0.0
    for t, (bound, group) in enumerate(full):
        needed = np.flatnonzero(group >= 0)
        if instance.delivery == "sequential":
            with np.errstate(divide="ignore"):
                total += float((bits[needed] / bound[group[needed]]).sum())
        else:
            total += float((instance.wanted[t] @ bits / _alone(instance, t)).max())
    return total * (1.0 - ROUNDING)


def _alone(instance: Instance, slot: int) -> FloatArray:
    """Return (K,) bit/s: each user's best rate with all nodes to itself, rounded up."""
    strength = np.linalg.norm(instance.normalised_channel[slot], axis=2)
    amplitude = np.sqrt(instance.network.power) * np.maximum(
        strength - instance.normalised_error[slot], 0.0
    )
    sinr = amplitude.sum(axis=1) ** 2
    return np.maximum(rate(sinr, instance.network.bandwidth, np.inf), np.finfo(np.float64).tiny) * (
        1.0 + ROUNDING
    )


def placement_problem(
    instance: Instance, rates: tuple[SlotRates, ...], table: list[FloatArray]
) -> PlacementProblem | None:
    """Return the placement problem at given rates; None if some group cannot be served at all.

    Parameters
    ----------
    instance
        The problem.
    rates
        The rate table, for its groups.
    table
        Per slot (G, 2^N), rate of every user group by every node set, bit/s.
    """
    if any((rate_of[:, -1] <= 0).any() for rate_of in table):
        return None
    with np.errstate(divide="ignore"):
        return PlacementProblem(
            block_size=instance.library.block_size,
            storage=instance.network.storage,
            group=np.stack([slot.group for slot in rates]),
            broadcast=tuple(8.0 / rate_of for rate_of in table),
            link=8.0 / instance.network.link_rate,
            schedule=instance.schedule,
        )


def deliver(
    instance: Instance,
    placement: Placement,
    rates: tuple[SlotRates, ...],
    *,
    method: str,
) -> Solution:
    """Return the solution that broadcasts every needed block from all nodes that hold it.

    Cached blocks with the same user group and senders share a message; a block that migrates has
    one of its own, so that a pipelined schedule can overlap it.

    Parameters
    ----------
    instance
        The problem.
    placement
        Caches and sources.
    rates
        The rate table with its beams.
    method
        Name to leave in the solution.
    """
    return Solution(
        cache=placement.cache,
        source=placement.source,
        broadcasts=tuple(
            _deliver_slot(instance, placement, rates[t], t) for t in range(instance.slots)
        ),
        instance_hash=instance.content_hash,
        method=method,
    )


def _deliver_slot(
    instance: Instance, placement: Placement, rates: SlotRates, slot: int
) -> Broadcast:
    received = placement.source[slot] >= 0
    needed = np.flatnonzero(rates.group >= 0)
    if not len(needed):
        return silence(instance.users, instance.nodes, instance.blocks, instance.antennas)
    bits = 1 << np.arange(instance.nodes)
    senders = bits @ (placement.cache[slot] | received)[:, needed]
    own = np.where(received.any(axis=0)[needed], needed, -1)
    keys, message_of = np.unique(
        np.stack([rates.group[needed], senders, own]), axis=1, return_inverse=True
    )
    group, sender, _ = keys
    messages = len(group)
    blocks = np.zeros((messages, instance.blocks), dtype=bool)
    blocks[message_of.ravel(), needed] = True
    best = rates.best[group, sender]
    beam = rates.beam[group, best]
    sinr = worst_case_sinr(
        instance.normalised_channel[slot],
        instance.normalised_error[slot],
        beam,
        np.eye(messages, dtype=bool),
    )
    worst = np.where(rates.users[group].T, sinr, np.inf).min(axis=0)
    planned = rate(worst, instance.network.bandwidth, instance.network.max_spectral_efficiency)
    return Broadcast(
        users=rates.users[group],
        nodes=(sender[:, None] & bits) > 0,
        blocks=blocks,
        duration=8.0 * (blocks @ instance.library.block_size) / planned,
        mode=np.arange(messages),
        message=np.arange(messages),
        beam=beam,
        rate=planned,
    )
