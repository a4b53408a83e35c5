"""Plain plans for several areas: everything from the cloud, beams towards the users."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finecast.problem.instance import Instance, user_groups
from finecast.problem.phases import allowed_rates, interference_from_outside, phases_of
from finecast.problem.solution import Broadcast, Solution

SLOWEST = 1e6
"""A message below this rate (bit/s) is sent to each of its users instead."""


def cloud_plan(instance: Instance, wide_from: int | None = None) -> Solution:
    """Return a plan without caches: blocks from the cloud to all nodes that send them.

    Parameters
    ----------
    instance
        The problem.
    wide_from
        A block goes wide if at least so many areas need it; None for never.
    """
    T, N, J = instance.slots, instance.nodes, instance.blocks
    source = np.full((T, N, J), -1)
    broadcasts = []
    for t in range(T):
        needs = instance.area_needs[t]
        wide = needs.sum(axis=0) >= (instance.area_count + 1 if wide_from is None else wide_from)
        source[t][needs[instance.areas]] = N
        messages: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]] = []
        for area in [-1, *range(instance.area_count)]:
            of_area = instance.user_area[t] == area if area >= 0 else np.ones(instance.users, bool)
            ways = wide if area < 0 else ~wide
            groups, group = user_groups(instance.wanted[t] & of_area[:, None] & ways)
            for g, users in enumerate(groups):
                nodes = (
                    instance.areas == area
                    if area >= 0
                    else needs[:, group == g].any(axis=1)[instance.areas]
                )
                messages.append((users, nodes, group == g, area))
        broadcasts.append(_sent(instance, source, t, messages))
    return Solution(np.zeros((T, N, J), bool), source, tuple(broadcasts), method="from the cloud")


def _sent(
    instance: Instance,
    source: np.ndarray,
    t: int,
    messages: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]],
) -> Broadcast:
    """Return the messages at guaranteed rates; those that are too slow go to one user each."""
    broadcast = _at_full_power(instance, t, messages)
    rate = _rates(instance, source, t, broadcast)
    split = []
    for message, r in zip(messages, rate, strict=True):
        users, *rest = message
        parts = [users] if r > SLOWEST else list(np.eye(len(users), dtype=bool)[users])
        split += [(part, *rest) for part in parts]
    if len(split) > len(messages):
        broadcast = _at_full_power(instance, t, split)
        rate = _rates(instance, source, t, broadcast)
    bits = 8.0 * broadcast.message_size(instance.library.block_size)
    return replace(broadcast, rate=rate, duration=bits / rate)


def _at_full_power(
    instance: Instance, t: int, messages: list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]
) -> Broadcast:
    count = len(messages)
    beam = np.zeros((count, instance.nodes, instance.antennas), complex)
    for i, (users, nodes, _, _) in enumerate(messages):
        channel = instance.channel_estimate[t][users][:, nodes]
        towards = (channel / np.linalg.norm(channel, axis=(1, 2), keepdims=True)).sum(axis=0)
        norm = np.linalg.norm(towards, axis=1, keepdims=True)
        beam[i, nodes] = towards / norm * np.sqrt(instance.network.power[nodes])[:, None]
    return Broadcast(
        users=np.array([users for users, *_ in messages]),
        nodes=np.array([nodes for _, nodes, *_ in messages]),
        blocks=np.array([blocks for *_, blocks, _ in messages]),
        duration=np.ones(count),
        mode=np.arange(count),
        message=np.arange(count),
        beam=beam,
        rate=np.zeros(count),
        area=np.array([area for *_, area in messages]),
    )


def _rates(instance: Instance, source: np.ndarray, t: int, broadcast: Broadcast) -> np.ndarray:
    blank = np.zeros(source.shape, bool)
    silent = Solution(blank, source, (broadcast,) * instance.slots)
    phases = phases_of(instance, silent, t)
    outside = interference_from_outside(
        instance.normalised_channel[t], instance.error_of(t, True), phases
    )
    rate = np.zeros(broadcast.messages)
    for phase, disturbing in zip(phases, outside, strict=True):
        rate[phase.messages] = allowed_rates(instance, phase, t, disturbing, robust=True)
    return rate
