"""Information structures: what each edge node sees of a slot when it decides what to keep.

Home of user k is the node from which the most reaches it in slot 0, when it attaches. In slot t,
after the delivery and before the nodes decide, all at once, what to keep, node n sees

| structure | requests and channels of slot t | of slots before t | caches at the slot's begin |
|---|---|---|---|
| full | all users | all users | all nodes |
| senders | users at home at n, and those of the messages that n helps to send | all | all |
| delayed | users at home at n | all users | all nodes |
| local | users at home at n | users at home at n | n and the nodes near it |

and in all of them the channels of slot 0, which are told once, when the users attach; what it holds
itself after the delivery; and what is known before slot 0. A node is near if it is at most 1.2
times as far as the nearest one; where positions are unknown, times of links take their place.

A `Sight` holds what one node sees, or what all nodes see (common knowledge), and nothing else.
Requests that are not seen are `HIDDEN`, amplitudes NaN, caches empty. Whatever is decided from a
sight knows no more than that. Between nodes nothing is said within a slot, except by what `full`
sees; `exchanged_bytes` counts what is said between slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.demand import one_slot_on
from finecast.problem.network import Network
from finecast.solvers.online import Observation, Prior, reach_of

Information = Literal["full", "senders", "delayed", "local"]

INFORMATION: tuple[Information, ...] = get_args(Information)

HIDDEN = -2
"""A request that is not seen; -1 is a user that asks for nothing."""

NEAR = 1.2
"""Nodes are near that are at most so many times as far as the nearest one."""

BYTES_OF_A_NUMBER = 4
"""A model's or a user's number, or an amplitude in single precision."""


def check_information(name: str) -> None:
    """Raise a `ValueError` if this is not the name of an information structure."""
    if name not in INFORMATION:
        raise ValueError(
            f"information: {name!r} is not allowed, must be one of {', '.join(INFORMATION)}"
        )


@dataclass(frozen=True, eq=False)
class Sight:
    """What one node sees in slot t, or what all nodes see.

    Attributes
    ----------
    prior
        What is known before slot 0.
    t
        The slot.
    node
        n; -1 for what all nodes see.
    home
        (K,) home of every user.
    requests
        (t + 1, K) model requested, -1 for none, `HIDDEN` where not seen.
    reach
        (t + 1, K, N) amplitude that each node gives a user alone, noise 1; NaN where not seen.
    caches
        (N, J) bool when the slot began; nothing where not seen.
    seen_nodes
        (N,) bool nodes whose caches are seen.
    held
        (J,) bool what node n has after the delivery; nothing in what all nodes see.
    """

    prior: Prior
    t: int
    node: int
    home: IntArray
    requests: IntArray
    reach: FloatArray
    caches: BoolArray
    seen_nodes: BoolArray
    held: BoolArray

    @property
    def newest_requests(self) -> IntArray:
        """(K,) the newest requests, those of a slot ago where this slot's are hidden; -1: none."""
        newest = self.requests[-1]
        if self.t:
            newest = np.where(newest == HIDDEN, self.requests[-2], newest)
        return np.asarray(np.maximum(newest, -1))

    @property
    def newest_reach(self) -> FloatArray:
        """(K, N) the newest amplitudes that are seen of every user."""
        seen = np.asarray(np.isfinite(self.reach).all(axis=2), dtype=bool)  # (t + 1, K)
        newest = self.t - seen[::-1].argmax(axis=0)
        return np.asarray(self.reach[newest, np.arange(self.reach.shape[1])])


def sights(
    observation: Observation, cache: BoolArray, held: BoolArray, information: Information
) -> tuple[Sight, list[Sight]]:
    """Return what all nodes see in a slot, and what every single node sees.

    Parameters
    ----------
    observation
        What is known of the slot where everything is seen.
    cache, held
        (N, J) bool, caches when the slot began, and what the nodes have after the delivery.
    information
        The structure.
    """
    prior, t = observation.prior, observation.t
    nodes = prior.network.nodes
    reach = reach_of(prior, observation.channel_estimate, observation.channel_error)
    home = homes(reach[0])
    now, before = seen_users(information, home, nodes)
    near = seen_caches(information, prior.network)

    def sight(node: int, now: BoolArray, before: BoolArray, seen: BoolArray) -> Sight:
        users = np.repeat(before[None], t + 1, axis=0)
        users[t] = now
        attached = users.copy()
        attached[0] = True  # channels of slot 0 are told to all
        return Sight(
            prior,
            t,
            node,
            home,
            np.where(users, observation.requests, HIDDEN),
            np.where(attached[:, :, None], reach, np.nan),
            cache & seen[:, None],
            seen,
            held[node] if node >= 0 else np.zeros_like(held[0]),
        )

    # Who else sees the users of a message is not known to all: it is not in what all see.
    common = sight(-1, *(np.asarray(seen.all(axis=0)) for seen in (now, before, near)))
    if information == "senders":
        now = now | _users_sent_to(observation, held)
    return common, [sight(n, now[n], before[n], near[n]) for n in range(nodes)]


def homes(reach: FloatArray) -> IntArray:
    """Return (K,) the node from which the most reaches every user, from (K, N) of slot 0."""
    home: IntArray = reach.argmax(axis=1)
    return home


def seen_users(information: Information, home: IntArray, nodes: int) -> tuple[BoolArray, BoolArray]:
    """Return (N, K) whose requests and channels each node sees of this slot, and of those before.

    In `senders`, more is seen of this slot, which depends on what is sent.

    Parameters
    ----------
    information
        The structure.
    home
        (K,) home of every user.
    nodes
        N.
    """
    own = np.asarray(home[None] == np.arange(nodes)[:, None], dtype=bool)
    everybody = np.ones(own.shape, dtype=bool)
    return (
        everybody if information == "full" else own,
        own if information == "local" else everybody,
    )


def seen_caches(information: Information, network: Network) -> BoolArray:
    """Return (N, N) bool, whose caches each node sees when the slot begins."""
    nodes = network.nodes
    if information != "local" or nodes == 1:
        return np.ones((nodes, nodes), dtype=bool)
    position = network.node_position
    if position is not None:
        far = np.linalg.norm(position[:, None] - position, axis=2)
    else:
        with np.errstate(divide="ignore"):
            far = 1.0 / np.maximum(network.backhaul_rate, network.backhaul_rate.T)
    np.fill_diagonal(far, np.inf)
    near = far <= NEAR * far.min(axis=1, keepdims=True)
    return np.asarray((near & np.isfinite(far)) | np.eye(nodes, dtype=bool))


def last_request(sight: Sight) -> FloatArray:
    """Return (K, M) how likely the last request of a user after slot t was each model.

    Where requests are seen it is known; where they are hidden it follows from the demand model.
    Rows sum to the probability that there was a request.
    """
    demand = sight.prior.demand
    last = np.zeros((demand.users, demand.models))
    for t, requests in enumerate(sight.requests):
        hidden = requests == HIDDEN
        _, carried = one_slot_on(demand, last, t)
        known = (requests[:, None] == np.arange(demand.models)).astype(np.float64)
        last = np.where(requests[:, None] >= 0, known, last)
        last = np.where(hidden[:, None], carried, last)
    return last


def exchanged_bytes(information: Information, sight: Sight) -> int:
    """Return the bytes that all nodes receive from each other for one slot, the caches included.

    Of every user that a node sees and that is not at home there: a request and the amplitudes from
    all nodes. Of every other node whose cache it sees: one bit a block. In slot 0 `local` tells the
    amplitudes alone.

    Parameters
    ----------
    information
        The structure.
    sight
        Any of the slot.
    """
    network, users = sight.prior.network, len(sight.home)
    nodes, blocks = sight.caches.shape
    numbers = (nodes - 1) * users * (1 + nodes)
    if information == "local":
        numbers = 0 if sight.t else (nodes - 1) * users * nodes
    caches = int(seen_caches(information, network).sum()) - nodes
    return int(numbers * BYTES_OF_A_NUMBER + caches * -(-blocks // 8))


def exchange_note(information: Information, exchanged: list[int]) -> str:
    """Return a line that says what the nodes saw, and how much they told each other for it."""
    mean = sum(exchanged) / max(1, len(exchanged))
    return f"information {information}: the nodes receive {mean:.0f} bytes a slot from each other"


def _users_sent_to(observation: Observation, held: BoolArray) -> BoolArray:
    """Return (N, K) the users of the messages that each node helps to send in this slot."""
    contains = observation.prior.library.model_blocks
    newest = observation.requests[-1]
    wanted = contains[np.maximum(newest, 0)] & (newest >= 0)[:, None]  # (K, J)
    return np.asarray((held.astype(np.int64) @ wanted.T) > 0)
