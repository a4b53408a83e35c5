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

Rates = tuple[tuple[SlotRates, ...], ...]
"""Per area and slot, the rates of its user groups."""


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
        pairs = result.reshape(len(result), result.shape[1] >> (n + 1), 2, 1 << n)
        np.minimum(pairs[:, :, 1], pairs[:, :, 0], out=pairs[:, :, 1])
    return result


@dataclass(frozen=True, eq=False)
class SlotMessages:
    """The local messages of a slot.

    Attributes
    ----------
    messages
        As the joint beams take them; areas by their number in the instance.
    blocks
        (X, J) bool, what each carries.
    index, group, sender
        (X,) index of the area, its user group, and set of its nodes as bit mask.
    """

    messages: LocalMessages
    blocks: BoolArray
    index: IntArray
    group: IntArray
    sender: IntArray

    @property
    def keys(self) -> list[tuple[int, int, int]]:
        """(X,) area, group and senders: messages of two plans with the same key are the same."""
        return list(
            zip(self.index.tolist(), self.group.tolist(), self.sender.tolist(), strict=True)
        )


def local_messages(city: City, state: State, rates: Rates, t: int) -> SlotMessages:
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
    keys, number, sends, users, carried, weight = [], [], [], [], [], []
    for a, area in enumerate(city.areas):
        group = city.group[a][t]
        block = np.flatnonzero((group >= 0) & ~state.wide[t])
        if not len(block):
            continue
        mask = (1 << np.arange(len(area.nodes))) @ state.sends[t][np.ix_(area.nodes, block)]
        pairs, which = np.unique(np.stack([group[block], mask]), axis=1, return_inverse=True)
        which = which.reshape(-1)
        bits = 8.0 * np.bincount(which, size[block], pairs.shape[1])
        for x, (g, q) in enumerate(pairs.T.tolist()):
            keys.append((a, g, q))
            number.append(area.number)
            senders = members(np.array(q), len(area.nodes))
            sends.append(_among(instance.nodes, area.nodes, senders))
            users.append(_among(instance.users, area.users, rates[a][t].users[g]))
            carried.append(_among(instance.blocks, block[which == x], np.array(True)))
            weight.append(area.weight[t] * bits[x])
    return SlotMessages(
        LocalMessages(
            np.array(number, dtype=np.int64),
            np.array(sends, dtype=bool).reshape(-1, instance.nodes),
            np.array(users, dtype=bool).reshape(-1, instance.users),
            np.array(weight),
        ),
        np.array(carried, dtype=bool).reshape(-1, instance.blocks),
        *np.array(keys, dtype=np.int64).reshape(-1, 3).T,
    )


def _among(count: int, index: IntArray, values: BoolArray) -> BoolArray:
    result = np.zeros(count, dtype=bool)
    result[index] = values
    return result


def first_beams(city: City, slot: SlotMessages, rates: Rates, t: int) -> ComplexArray:
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
        if best >= 0:  # else nobody of these reaches all users
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
    width = channel.shape[1] * channel.shape[2]
    received = np.abs(channel.conj().reshape(users, width) @ beam.reshape(-1, width).T)
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
    return np.asarray(np.minimum(cap, np.log1p(least) / np.log(2.0)))
