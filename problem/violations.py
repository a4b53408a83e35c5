"""The rules of a solution, each checked from the instance alone (formulation, 2 and 3)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from finecast.problem.areas import WIDE
from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.solution import Broadcast, Solution
from finecast.problem.tolerances import POWER_RELATIVE, RATE_RELATIVE


@dataclass(frozen=True)
class Violation:
    """One broken rule: which, where, and by how much.

    Parameters
    ----------
    rule
        `storage`, `keep`, `migration-needless`, `migration-source`, `migration-link`, `group`,
        `coverage`, `cooperation`, `beam`, `power`, `bits`, `rate` or `delivery`; with more than one
        area also `area`, `mixed` or `area-needless`.
    slot
        The slot it happens in.
    amount, unit
        By how much the rule is broken.
    node, block, user, message, mode
        Where, as far as the rule says.
    """

    rule: str
    slot: int
    amount: float
    unit: str
    node: int | None = None
    block: int | None = None
    user: int | None = None
    message: int | None = None
    mode: int | None = None

    def __str__(self) -> str:
        """Say rule, place and amount in one line."""
        parts = [
            f"{part} {getattr(self, part)}"
            for part in ("slot", "mode", "message", "node", "block", "user")
            if getattr(self, part) is not None
        ]
        broken = f"{_MEANING[self.rule]} ({self.amount:.6g} {self.unit})"
        return f"{self.rule}: {', '.join(parts)}: {broken}"


_MEANING = {
    "storage": "the cache is larger than the storage",
    "keep": "cached without having been cached or received in the slot before",
    "migration-needless": "a block that nobody needs migrates",
    "migration-source": "received from a node that does not cache the block",
    "migration-link": "received over a link of rate 0",
    "group": "sent to a user that does not need the block",
    "coverage": "a user never gets a block of its model",
    "cooperation": "a node sends a block that it neither cached nor received",
    "beam": "a node outside the cooperating set transmits",
    "power": "transmit power above the limit",
    "bits": "the message does not get all its bits",
    "rate": "planned rate above what the channel allows",
    "delivery": "sequential delivery has one message per mode and one mode per message",
    "area": "a message of an area has a user or a node of another",
    "mixed": "a block goes both wide and within areas in one slot",
    "area-needless": "a node sends or receives a block that no user of its area needs",
}


def cache_violations(instance: Instance, solution: Solution) -> Iterator[Violation]:
    """Yield what is wrong with caches and migrations.

    Parameters
    ----------
    instance, solution
        The problem and the decisions, of the same shape.
    """
    size, network = instance.library.block_size, instance.network
    # Slot by slot: the products and indices of all slots would be several times the caches.
    used = np.stack([cache @ size for cache in solution.cache])
    for t, n in np.argwhere(used > network.storage):
        yield Violation(
            "storage", int(t), float(used[t, n] - network.storage[n]), "byte", node=int(n)
        )
    for t in range(1, instance.slots):
        kept = solution.cache[t - 1] | (solution.source[t - 1] >= 0)
        for n, j in np.argwhere(solution.cache[t] & ~kept):
            yield Violation("keep", t, float(size[j]), "byte", node=int(n), block=int(j))
    for t, source in enumerate(solution.source):
        for n, j in np.argwhere((source >= 0) & ~instance.needed[t]):
            yield Violation(
                "migration-needless", t, float(size[j]), "byte", node=int(n), block=int(j)
            )
    if instance.area_count > 1:
        for t, source in enumerate(solution.source):
            own_area_needs = instance.area_needs[t, instance.areas]
            stray = (source >= 0) & instance.needed[t] & ~own_area_needs
            for n, j in np.argwhere(stray):
                yield Violation(
                    "area-needless", t, float(size[j]), "byte", node=int(n), block=int(j)
                )
    for t, source in enumerate(solution.source):
        node, block = np.nonzero((source >= 0) & (source < instance.nodes))
        origin = source[node, block]
        absent = ~solution.cache[t, origin, block] | (origin == node)
        for n, j in zip(node[absent], block[absent], strict=True):
            yield Violation(
                "migration-source", t, float(size[j]), "byte", node=int(n), block=int(j)
            )
        dead = (network.link_rate[origin, node] == 0) & (origin != node)
        for n, j in zip(node[dead], block[dead], strict=True):
            yield Violation("migration-link", t, float(size[j]), "byte", node=int(n), block=int(j))


def broadcast_violations(
    instance: Instance, solution: Solution, slot: int, allowed_rate: FloatArray
) -> Iterator[Violation]:
    """Yield what is wrong with the messages and modes of one slot.

    Parameters
    ----------
    instance, solution
        The problem and the decisions, of the same shape.
    slot
        t, the slot to look at.
    allowed_rate
        (X,) bit/s, the rate that the solution may claim for each transmission.
    """
    broadcast = solution.broadcasts[slot]
    holds = solution.cache[slot] | (solution.source[slot] >= 0)
    yield from _content_violations(
        broadcast, slot, instance.wanted[slot], holds, instance.library.block_size
    )
    if instance.area_count > 1:
        yield from _area_violations(broadcast, slot, instance)
    yield from _air_violations(broadcast, slot, instance, allowed_rate)


def _content_violations(
    broadcast: Broadcast, slot: int, wanted: BoolArray, holds: BoolArray, size: IntArray
) -> Iterator[Violation]:
    message, block = broadcast.carried
    # Triples (message, block, user): a message has few users, of all there are.
    of_message, user = np.nonzero(broadcast.users)
    listeners = np.bincount(of_message, minlength=broadcast.messages)
    first = np.cumsum(listeners) - listeners
    pair = np.repeat(np.arange(len(message)), listeners[message])
    within = np.arange(len(pair)) - np.repeat(
        np.cumsum(listeners[message]) - listeners[message], listeners[message]
    )
    to = user[first[message[pair]] + within]
    for i in np.flatnonzero(~wanted[to, block[pair]]):
        p = pair[i]
        yield Violation(
            "group",
            slot,
            float(size[block[p]]),
            "byte",
            message=int(message[p]),
            block=int(block[p]),
            user=int(to[i]),
        )
    reached = np.zeros(wanted.shape, dtype=bool)
    reached[to, block[pair]] = True
    for k, j in np.argwhere(wanted & ~reached):
        yield Violation("coverage", slot, float(size[j]), "byte", block=int(j), user=int(k))
    for p, n in np.argwhere(broadcast.nodes[message] & ~holds[:, block].T):
        yield Violation(
            "cooperation",
            slot,
            float(size[block[p]]),
            "byte",
            message=int(message[p]),
            node=int(n),
            block=int(block[p]),
        )


def _area_violations(broadcast: Broadcast, slot: int, instance: Instance) -> Iterator[Violation]:
    """Yield what leaves its area, what goes both ways, and what an area sends without need."""
    size = instance.library.block_size
    total = broadcast.message_size(size)
    area, local = broadcast.area, broadcast.area != WIDE
    for part, of_one, areas in (
        ("user", broadcast.users, instance.user_area[slot]),
        ("node", broadcast.nodes, instance.areas),
    ):
        message, one = np.nonzero(of_one)
        outside = local[message] & (areas[one] != area[message])
        for i, k in zip(message[outside].tolist(), one[outside].tolist(), strict=True):
            yield Violation("area", slot, float(total[i]), "byte", message=i, **{part: k})
    message, block = broadcast.carried
    ways = np.zeros((2, instance.blocks), dtype=bool)
    ways[local[message].astype(int), block] = True
    for both in np.flatnonzero(ways.all(axis=0)).tolist():
        yield Violation("mixed", slot, float(size[both]), "byte", block=both)
    needs = instance.area_needs[slot]
    stray = broadcast.nodes[message] & ~needs[:, block][instance.areas].T
    stray &= instance.needed[slot, block][:, None]
    for p, n in np.argwhere(stray):
        i, j = int(message[p]), int(block[p])
        yield Violation(
            "area-needless", slot, float(size[j]), "byte", message=i, node=int(n), block=j
        )


def _air_violations(
    broadcast: Broadcast, slot: int, instance: Instance, allowed_rate: FloatArray
) -> Iterator[Violation]:
    power = broadcast.node_power
    for x, n in np.argwhere((power > 0) & ~broadcast.nodes[broadcast.message]):
        yield Violation(
            "beam",
            slot,
            float(power[x, n]),
            "W",
            mode=int(broadcast.mode[x]),
            message=int(broadcast.message[x]),
            node=int(n),
        )
    mode_power = np.zeros((broadcast.modes, instance.nodes))
    np.add.at(mode_power, broadcast.mode, power)
    limit = instance.network.power
    for m, n in np.argwhere(mode_power > limit * (1 + POWER_RELATIVE)):
        yield Violation(
            "power", slot, float(mode_power[m, n] - limit[n]), "W", mode=int(m), node=int(n)
        )
    bits = 8.0 * broadcast.message_size(instance.library.block_size)
    sent = np.bincount(
        broadcast.message,
        weights=broadcast.duration[broadcast.mode] * broadcast.rate,
        minlength=broadcast.messages,
    )
    for i in np.flatnonzero(sent < bits * (1 - RATE_RELATIVE)):
        yield Violation("bits", slot, float(bits[i] - sent[i]), "bit", message=int(i))
    for x in np.flatnonzero(~(broadcast.rate <= allowed_rate * (1 + RATE_RELATIVE))):
        yield Violation(
            "rate",
            slot,
            float(broadcast.rate[x] - allowed_rate[x]),
            "bit/s",
            mode=int(broadcast.mode[x]),
            message=int(broadcast.message[x]),
        )
    if instance.delivery == "sequential":
        in_mode = np.bincount(broadcast.mode, minlength=broadcast.modes)
        for m in np.flatnonzero(in_mode > 1):
            yield Violation("delivery", slot, float(in_mode[m]), "messages in it", mode=int(m))
        of_message = np.bincount(broadcast.message, minlength=broadcast.messages)
        for i in np.flatnonzero(of_message > 1):
            yield Violation("delivery", slot, float(of_message[i]), "modes for it", message=int(i))
