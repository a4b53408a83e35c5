"""Restricted systems: what a method may choose in the baselines that users expect.

Every restriction changes the instance, the links, or the messages in which a user group gets its
blocks (docs/formulation.md section 5); the judge stays the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.instance import Instance, user_groups
from finecast.problem.library import coarse_grained
from finecast.solvers.node_set_tables import OnDemand, Table, mask_type

RESTRICTIONS = {
    "coarse": "a model is cached and sent whole, shared blocks once per model",
    "no-migration": "misses come from the cloud only",
    "no-comp": "each user is served by its strongest node alone",
    "unicast": "each user gets its blocks in messages of its own",
    "one-message": "no message is split: the users of a block get it at once",
    "non-robust": "beams and rates as if the estimated channels were true",
}


@dataclass(frozen=True, eq=False)
class Messages:
    """In which messages the user groups of one slot get their blocks.

    Parameters
    ----------
    group
        (J,) user group of every block, -1 where nobody needs it.
    users
        (P, K) bool, distinct listeners of the messages.
    allowed
        (P,) bit mask of the nodes that may send to them.
    of_group
        (G, P) bool: the group's blocks go out in these messages; they cover the group.
    """

    group: IntArray
    users: BoolArray
    allowed: IntArray
    of_group: BoolArray

    def seconds_per_byte(self, rate: Table) -> Table:
        """Return (G, 2^N) s/byte by which each group is served when a node set holds the block.

        Parameters
        ----------
        rate
            (P, 2^N) bit/s of every message by every node set.
        """

        def seconds(group: IntArray, sets: IntArray) -> FloatArray:
            entry, message = np.nonzero(self.of_group[group])
            with np.errstate(divide="ignore"):
                time = 8.0 / rate[message, sets[entry] & self.allowed[message]]
            return np.bincount(entry, weights=time, minlength=len(group)).astype(np.float64)

        table = OnDemand(len(self.of_group), seconds)
        if isinstance(rate, OnDemand):
            return table
        return table[np.arange(len(table))[:, None], np.arange(rate.shape[1])]


def check_restrictions(names: str | Iterable[str]) -> frozenset[str]:
    """Return the restrictions as a set; a text may name several, separated by commas.

    Raises
    ------
    ValueError
        One of them is unknown, or two contradict each other.
    """
    if isinstance(names, str):
        names = [name.strip() for name in names.split(",") if name.strip()]
    listed = list(names) if isinstance(names, Iterable) else [names]
    for name in listed:
        if not isinstance(name, str):
            raise ValueError(f"restrict: {name!r} is not allowed, must be a text or a list of them")
    chosen = frozenset(listed)
    for name in sorted(chosen):
        if name not in RESTRICTIONS:
            raise ValueError(
                f"restrict: {name!r} is unknown, expected some of {', '.join(RESTRICTIONS)}"
            )
    if {"one-message", "unicast"} <= chosen:
        raise ValueError("restrict: 'one-message' and 'unicast' contradict each other")
    return chosen


def restricted_instance(instance: Instance, restrictions: frozenset[str]) -> Instance:
    """Return the instance of the restricted system: with whole models for `coarse`.

    Parameters
    ----------
    instance
        The problem.
    restrictions
        Names of restrictions.
    """
    if "coarse" in restrictions:
        return replace(instance, library=coarse_grained(instance.library))
    return instance


def restricted_links(link: FloatArray, restrictions: frozenset[str]) -> FloatArray:
    """Return the migration times that the restricted system may use.

    Parameters
    ----------
    link
        (N + 1, N) seconds per byte, the last row from the cloud.
    restrictions
        Names of restrictions.
    """
    if "no-migration" not in restrictions:
        return link
    return np.concatenate([np.full_like(link[:-1], np.inf), link[-1:]])


def messages(instance: Instance, slot: int, restrictions: frozenset[str]) -> Messages:
    """Return the messages in which the user groups of a slot are served.

    One per group in the full system; one per serving node without CoMP (each user's strongest
    node, by estimated channel and power); one per user for unicast.

    Parameters
    ----------
    instance
        The problem.
    slot
        t.
    restrictions
        Names of restrictions.
    """
    groups, group = user_groups(instance.wanted[slot])
    everywhere = (1 << instance.nodes) - 1
    strength = np.linalg.norm(instance.channel_estimate[slot], axis=2)
    strongest = (strength * np.sqrt(instance.network.power)).argmax(axis=1)
    listeners: list[tuple[bytes, int]] = []
    known: dict[tuple[bytes, int], int] = {}
    rows = []
    for members in groups:
        parts = [(members, everywhere)]
        if "no-comp" in restrictions:
            parts = [
                (members & (strongest == n), 1 << int(n)) for n in np.unique(strongest[members])
            ]
        if "unicast" in restrictions:
            parts = [
                (np.arange(instance.users) == k, allowed)
                for part, allowed in parts
                for k in np.flatnonzero(part)
            ]
        row = []
        for part, allowed in parts:
            key = (part.tobytes(), allowed)
            if key not in known:
                known[key] = len(listeners)
                listeners.append(key)
            row.append(known[key])
        rows.append(row)
    of_group = np.zeros((len(groups), len(listeners)), dtype=bool)
    for g, row in enumerate(rows):
        of_group[g, row] = True
    return Messages(
        group=group,
        users=np.array(
            [np.frombuffer(part, dtype=bool) for part, _ in listeners], dtype=bool
        ).reshape(len(listeners), instance.users),
        allowed=np.array([allowed for _, allowed in listeners], dtype=mask_type(instance.nodes)),
        of_group=of_group,
    )
