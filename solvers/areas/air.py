"""Rates of local messages under interference: what beams of one message at a time would reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.problem.sinr import rate
from finecast.solvers.areas.joint_beams import LocalMessages
from finecast.solvers.areas.state import City, State
from finecast.solvers.node_set_tables import members
from finecast.solvers.rates import SlotRates


def local_seconds(
    city: City, t: int, a: int, rates: SlotRates, interference: FloatArray
) -> FloatArray:
    """Return (G, 2^N_a) s/byte of the area's user groups, at interference over noise (K,).

    Every set of nodes has the best beam known of any subset, found for its users alone.

    Parameters
    ----------
    city, t, a
        The problem, the slot, and the index of the area.
    rates
        Of the area in the slot.
    interference
        (K,) of every user.
    """
    area, network = city.areas[a], city.instance.network
    groups = int(city.group[a][t].max(initial=-1)) + 1
    users, node_sets = rates.users[:groups], rates.node_sets[:groups]
    channel = area.instance.normalised_channel[t]
    error = area.instance.normalised_error[t]
    beam = rates.beam[:groups]
    received = np.abs(np.einsum("kna,gfna->gfk", channel.conj(), beam))
    lost = np.einsum("kn,gfn->gfk", error, np.linalg.norm(beam, axis=3))
    sinr = np.maximum(received - lost, 0.0) ** 2 / (1.0 + interference[area.users])
    least = np.where(users[:, None], sinr, np.inf).min(axis=2)
    bits = rate(least, network.bandwidth, network.max_spectral_efficiency)
    table = np.full((groups, 1 << len(area.nodes)), np.inf)
    with np.errstate(divide="ignore"):
        seconds = np.where(rates.snr[:groups] > 0, 8.0 / bits, np.inf)
    for f in range(node_sets.shape[1]):
        row = np.arange(groups)
        table[row, node_sets[:, f]] = np.minimum(table[row, node_sets[:, f]], seconds[:, f])
    table[:, 0] = np.inf
    return subsets_serve(table)


def subsets_serve(table: FloatArray) -> FloatArray:
    """Return (G, 2^U) the minimum over all subsets of every set."""
    result = table.copy()
    for n in range(result.shape[1].bit_length() - 1):
        pairs = result.reshape(len(result), -1, 2, 1 << n)
        np.minimum(pairs[:, :, 1], pairs[:, :, 0], out=pairs[:, :, 1])
    return result


@dataclass(frozen=True, eq=False)
class SlotMessages:
    """The local messages of a slot.

    Attributes
    ----------
    messages
        As the joint beams take them; areas by their number in the instance.
    index, group, sender
        (X,) index of the area, its user group, and set of its nodes as bit mask.
    """

    messages: LocalMessages
    index: IntArray
    group: IntArray
    sender: IntArray


def local_messages(city: City, state: State, rates: list[tuple[SlotRates, ...]], t: int) -> SlotMessages:
    """Return the local messages of a slot: one for each user group and set of senders.

    Parameters
    ----------
    city, state
        The problem and the plan.
    rates
        Per area and slot.
    t
        The slot.
    """
    instance = city.instance
    size = instance.library.block_size
    index, groups, senders, sends, users, weight = [], [], [], [], [], []
    for a, area in enumerate(city.areas):
        group = city.group[a][t]
        block = np.flatnonzero((group >= 0) & ~state.wide[t])
        if not len(block):
            continue
        held = state.sends[t][np.ix_(area.nodes, block)]
        mask = (1 << np.arange(len(area.nodes))) @ held
        keys, which = np.unique(np.stack([group[block], mask]), axis=1, return_inverse=True)
        for x in range(keys.shape[1]):
            g, q = int(keys[0, x]), int(keys[1, x])
            index.append(a)
            groups.append(g)
            senders.append(q)
            sends.append(_among(instance.nodes, area.nodes, members(np.array(q), len(area.nodes))))
            users.append(_among(instance.users, area.users, rates[a][t].users[g]))
            bits = 8.0 * size[block[which.reshape(-1) == x]].sum()
            weight.append(area.weight[t] * bits)
    area_number = np.array([city.areas[a].number for a in index], dtype=np.int64)
    messages = LocalMessages(
        area_number,
        np.array(sends, dtype=bool).reshape(-1, instance.nodes),
        np.array(users, dtype=bool).reshape(-1, instance.users),
        np.array(weight),
    )
    return SlotMessages(
        messages, *(np.array(x, dtype=np.int64) for x in (index, groups, senders))
    )


def _among(count: int, index: IntArray, values: BoolArray) -> BoolArray:
    result = np.zeros(count, dtype=bool)
    result[index] = values
    return result


def first_beams(
    city: City, slot: SlotMessages, rates: list[tuple[SlotRates, ...]], t: int
) -> ComplexArray:
    """Return (X, N, M) the beams of every message alone on the air.

    Parameters
    ----------
    city, slot, rates, t
        As in `local_messages`.
    """
    instance = city.instance
    beam = np.zeros((len(slot.index), instance.nodes, instance.antennas), dtype=np.complex128)
    for x, (a, g, q) in enumerate(zip(slot.index, slot.group, slot.sender, strict=True)):
        of_area = rates[a][t]
        best = int(of_area.best[np.array([g]), np.array([q])][0])
        beam[x, city.areas[a].nodes] = of_area.beam[g, best]
    return beam


def interference_of(
    channel: ComplexArray,
    error: FloatArray,
    beam: ComplexArray,
    area: IntArray,
    user_area: IntArray,
) -> tuple[FloatArray, FloatArray]:
    """Return (K,) I_k, and (K, X) the amplitude of every message at every user, less its errors.

    Parameters
    ----------
    channel, error
        (K, N, M) and (K, N) of a slot, over the noise amplitude.
    beam, area
        (X, N, M) and (X,) of the local messages.
    user_area
        (K,).
    """
    users = len(channel)
    received = np.abs(channel.conj().reshape(users, -1) @ beam.reshape(len(beam), -1).T)
    spread = error @ np.linalg.norm(beam, axis=2).T
    total = np.zeros(users)
    for a in np.unique(area):
        worst = ((received + spread)[:, area == a] ** 2).max(axis=1)
        total += np.where(user_area == a, 0.0, worst)
    return total, received - spread


def efficiency_of(
    signal: FloatArray, interference: FloatArray, users: BoolArray, cap: float
) -> FloatArray:
    """Return (X,) bit/s/Hz of messages from their amplitudes (K, X) and users (X, K)."""
    sinr = np.maximum(signal, 0.0) ** 2 / (1.0 + interference)[:, None]
    least = np.where(users.T, sinr, np.inf).min(axis=0)
    return np.minimum(cap, np.log1p(least) / np.log(2.0))
