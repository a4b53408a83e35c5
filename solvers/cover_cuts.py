"""Bounds on covers from messages to few users, where the dual point of the whole group is loose.

With large errors no beam reaches many users, and the dual point of the whole group says little
about parts of it. Then messages to pairs, and to the sets that the prices rest on, are bounded one
by one: a message to S is no faster than one to any part of S. The prices are those of
`finecast.solvers.covers`, and sets are added while they cut them (docs/methods.md, "Covers").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray
from finecast.solvers.beamforming.by_name import KERNEL, solve_messages
from finecast.solvers.covers import (
    MOST_PRICED,
    best_prices,
    efficiency,
    priced_cover,
    reach_bound,
    subsets,
)
from finecast.solvers.rounding import CLOSED_FORM_ALLOWANCE

ROUNDS = 3
"""How often sets are added, after the pairs."""

CUTS = 12
"""Sets that a round adds for a group, at most."""


@dataclass(frozen=True, eq=False)
class GroupMessages:
    """B messages, each alone on the air.

    Attributes
    ----------
    channel, error
        (B, K, N, A) and (B, K, N), normalised by the noise amplitude.
    power
        (N,) W.
    node_mask, user_mask
        (B, N) and (B, K), who sends and who listens.
    cap
        Highest efficiency of a message, bit/s/Hz.
    """

    channel: ComplexArray
    error: FloatArray
    power: FloatArray
    node_mask: BoolArray
    user_mask: BoolArray
    cap: float


def cut_efficiency(messages: GroupMessages) -> FloatArray:
    """Return (B,) bit/s/Hz that no cover of a user group exceeds, from messages to few users.

    Parameters
    ----------
    messages
        Messages to the whole groups.
    """
    reach = reach_bound(messages.channel, messages.error, messages.power)
    heard = (reach * messages.node_mask[:, None, :]).sum(axis=2)
    alone = efficiency(heard**2 * (1.0 + CLOSED_FORM_ALLOWANCE), messages.cap)
    count = len(alone)
    # The slowest users of every group: these decide how fast a cover can be.
    slowness = np.where(messages.user_mask, alone, np.inf)
    order = np.argsort(slowness, axis=1, kind="stable")[:, :MOST_PRICED]
    sizes = np.minimum(messages.user_mask.sum(axis=1), MOST_PRICED)
    users = [order[b, : sizes[b]] for b in range(count)]
    bounds = [
        np.where(subsets(len(own)), alone[b, own], np.inf).min(axis=1)
        for b, own in enumerate(users)
    ]
    known: dict[bytes, float] = {}
    found = np.array([bound[-1] for bound in bounds])
    members_of = [subsets(len(own)) for own in users]
    solved = [member.sum(axis=1) <= 2 for member in members_of]
    asked = [
        (b, int(s))
        for b, own in enumerate(members_of)
        for s in np.flatnonzero(own.sum(axis=1) == 2)
    ]
    for turn in range(1 + ROUNDS):
        # Pairs first, then the sets that keep the prices from rising, the smallest first.
        _bound_sets(messages, users, asked, known, bounds)
        asked = []
        for b, bound in enumerate(bounds):
            price = best_prices(bound, len(users[b]))
            if price is None:
                continue
            found[b] = min(found[b], float(priced_cover(bound[None], price[None])[0]))
            if turn < ROUNDS:
                binding = 1.0 - bound * (members_of[b] @ price) < 1e-6
                chosen = np.flatnonzero(binding & ~solved[b])
                size = members_of[b][chosen].sum(axis=1)
                chosen = chosen[np.argsort(size, kind="stable")[:CUTS]]
                solved[b][chosen] = True
                asked += [(b, int(s)) for s in chosen]
        if not asked:
            break
    return found


def _bound_sets(
    messages: GroupMessages,
    users: list[IntArray],
    asked: list[tuple[int, int]],
    known: dict[bytes, float],
    bounds: list[FloatArray],
) -> None:
    """Lower `bounds` by certified bounds on messages to some sets (group, subset).

    Groups share users: each set of users and senders is solved once, and kept in `known`.
    """
    listeners = [users[b][subsets(len(users[b]))[s]] for b, s in asked]
    keys = [
        messages.channel[b, own].tobytes()
        + messages.error[b, own].tobytes()
        + messages.node_mask[b].tobytes()
        for (b, _), own in zip(asked, listeners, strict=True)
    ]
    first = {key: i for i, key in reversed(list(enumerate(keys))) if key not in known}
    new = sorted(first.values())
    for size in sorted({len(listeners[i]) for i in new}):
        same = [i for i in new if len(listeners[i]) == size]
        rows = np.array([asked[i][0] for i in same])
        own = np.stack([listeners[i] for i in same])
        beams = solve_messages(
            KERNEL,
            messages.channel[rows[:, None], own],
            messages.error[rows[:, None], own],
            messages.power,
            node_mask=messages.node_mask[rows],
            user_mask=np.ones(own.shape, dtype=bool),
            starts=1,
        )
        for i, bit in zip(same, efficiency(beams.bound, messages.cap), strict=True):
            known[keys[i]] = float(bit)
    # A message to more users is no faster.
    for (b, s), key in zip(asked, keys, strict=True):
        larger = (np.arange(1, len(bounds[b]) + 1) & (s + 1)) == s + 1
        bounds[b][larger] = np.minimum(bounds[b][larger], known[key])
