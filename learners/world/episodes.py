"""Episodes: draws of a scenario as tensors, and what is known of them in one slot.

E draws of equal N, K and T lie side by side. Blocks, kinds and user groups are padded to the
longest draw. A padded block has size 0 and is never needed. Blocks that the same models contain are
of one kind, and share all expected tables. A node set is a bit mask with bit n for node n. S = 2^N
is the number of node sets.

`Episodes.slot(t)` gives the `Slot`. It holds what an online method may know in slot t, and nothing
of a later slot. `finecast.learners.world.draws.slot_of` makes the same of an `Observation`, so that
a policy trained on episodes acts on it unchanged.

Times are seconds per byte. Delays are float64 throughout and exactly those of the judge
(docs/formulation.md section 3). Expected tables are float32 by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property

import torch
from torch import Tensor

from finecast.learners.world.beliefs import Beliefs, joined_beliefs

MOST_NODES = 8
"""Largest number of nodes that learners take, since tables have a row for every node set."""


@dataclass(frozen=True, eq=False)
class Static:
    """The part of a draw that does not change over its slots.

    Attributes
    ----------
    size
        (E, J) float64 byte; 0 for padding.
    storage
        (E, N) float64 byte.
    kind
        (E, J) int64 kind of every block; 0 for padding.
    sharing
        (E, J) float32 share of the models that contain the block.
    contains
        (E, M, J) bool: model m contains the block.
    link
        (E, N + 1, N) float64 seconds per byte from node n' (row N: the cloud) to node n, infinite
        where there is no link and on the diagonal.
    chain_sender, chain_time
        (E, S, N + 1) int64 and float64: the nested sets Q_l(X) and their migration times, as in
        `finecast.solvers.placement.chains`.
    reach_time
        (E, S, N) float64 d_n(X), seconds per byte to node n from the nearest holder or the cloud.
    fastest
        (E, S, N) int64 the source that attains it.
    """

    size: Tensor
    storage: Tensor
    kind: Tensor
    sharing: Tensor
    contains: Tensor
    link: Tensor
    chain_sender: Tensor
    chain_time: Tensor
    reach_time: Tensor
    fastest: Tensor

    @property
    def draws(self) -> int:
        """E."""
        return int(self.size.shape[0])

    @property
    def blocks(self) -> int:
        """J, with padding."""
        return int(self.size.shape[1])

    @property
    def nodes(self) -> int:
        """N."""
        return int(self.storage.shape[1])

    @cached_property
    def member(self) -> Tensor:
        """(S, N) bool: node n is in the set."""
        sets = torch.arange(1 << self.nodes, device=self.size.device)
        return ((sets[:, None] >> torch.arange(self.nodes, device=sets.device)) & 1).bool()

    @cached_property
    def real(self) -> Tensor:
        """(E, J) bool: not padding."""
        return self.size > 0


@dataclass(frozen=True, eq=False)
class Slot(Static):
    """What is known in slot t.

    Attributes
    ----------
    t, slots
        Index of the slot, and the number of slots T of the episode.
    group
        (E, J) int64 row of the block's user group in `broadcast`, -1 where nobody needs it.
    broadcast
        (E, G, S) float64 seconds per byte when the node set sends; infinite where it cannot serve.
    best_sender
        (E, G, S) int16 node set Q_l(X) of least delay in this slot alone, for every cached set X.
    listeners
        (E, G, N) float32 users of the group. Every user is divided among the nodes by their shares
        in the amplitude that reaches it.
    requests
        (E, K) int64 model requested by every user, -1 for none.
    reach
        (E, K, N) float32 sqrt(P_n) max(0, |g_kn| - eps_kn).
    need
        (E, H, C) probability that somebody needs the kind in the h-th coming slot; 0 after the end.
    air
        (E, H, C, S) expected seconds per byte on the air if somebody needs the kind; infinite for
        the empty set.
    worth
        (E, H, C, S) expected delay under every cached set X, seconds per byte: need times the least
        tau_l(X) + air(Q_l(X)) over l; 0 after the end.
    audience
        (E, H, C, N) expected users who want the kind, divided among the nodes as in `listeners`.
    recency
        (E, J) float64 the score of LRU: the last slot of need, plus less than 1 by the number of
        requests; below 0 if there was none.
    frequency
        (E, J) float64 the score of LFU with decay 0.8.
    beliefs
        What the nodes believe of the slot, if they decide apart; else None.
    """

    t: int
    slots: int
    group: Tensor
    broadcast: Tensor
    best_sender: Tensor
    listeners: Tensor
    requests: Tensor
    reach: Tensor
    need: Tensor
    air: Tensor
    worth: Tensor
    audience: Tensor
    recency: Tensor
    frequency: Tensor
    beliefs: Beliefs | None = None

    @property
    def horizon(self) -> int:
        """H, coming slots in the expected tables."""
        return int(self.need.shape[1])

    @cached_property
    def needed(self) -> Tensor:
        """(E, J) bool: somebody needs the block now."""
        return self.group >= 0


@dataclass(frozen=True, eq=False)
class Episodes(Static):
    """E draws over T slots. The fields are those of `Slot` with an axis of slots after the draws.

    Attributes
    ----------
    group, broadcast, best_sender, listeners, requests, reach, need, air, worth, audience, recency,
    frequency
        As in `Slot`, (E, T, ...): what is known in slot t stands in row t.
    start
        (E, N, J) bool caches of slot 0, chosen from the prior alone as `rolling` does.
    bound
        (E,) float64 certified lower bound on the total delay in hindsight, s; NaN if not computed.
    block_count
        (E,) int64 blocks of every draw without padding.
    beliefs
        What the nodes believe in every slot, if they decide apart; else None.
    """

    group: Tensor
    broadcast: Tensor
    best_sender: Tensor
    listeners: Tensor
    requests: Tensor
    reach: Tensor
    need: Tensor
    air: Tensor
    worth: Tensor
    audience: Tensor
    recency: Tensor
    frequency: Tensor
    start: Tensor
    bound: Tensor
    block_count: Tensor
    beliefs: Beliefs | None = None

    @property
    def slots(self) -> int:
        """T."""
        return int(self.group.shape[1])

    @property
    def horizon(self) -> int:
        """H, coming slots in the expected tables."""
        return int(self.need.shape[2])

    def slot(self, t: int) -> Slot:
        """Return what is known in slot t."""
        static = {field.name: getattr(self, field.name) for field in fields(Static)}
        return Slot(
            **static,
            t=t,
            slots=self.slots,
            **{name: getattr(self, name)[:, t] for name in SLOT_TENSORS},
            beliefs=None if self.beliefs is None else self.beliefs.slot(t),
        )

    def select(self, index: Tensor | Sequence[int]) -> Episodes:
        """Return some of the draws, in the order of `index` (int64 or a bool mask)."""
        chosen = torch.as_tensor(index, device=self.size.device)
        tensors = {name: getattr(self, name)[chosen] for name in EPISODE_TENSORS}
        beliefs = None if self.beliefs is None else self.beliefs.select(chosen)
        return replace(self, **tensors, beliefs=beliefs)

    def to(self, device: torch.device | str) -> Episodes:
        """Return the same on another device."""
        tensors = {name: getattr(self, name).to(device) for name in EPISODE_TENSORS}
        beliefs = None if self.beliefs is None else self.beliefs.to(device)
        return replace(self, **tensors, beliefs=beliefs)


SLOT_TENSORS = (
    *("group", "broadcast", "best_sender", "listeners", "requests", "reach"),
    *("need", "air", "worth", "audience", "recency", "frequency"),
)
"""Fields of `Slot` that have an axis of slots in `Episodes`."""

EPISODE_TENSORS = tuple(field.name for field in fields(Episodes) if field.name != "beliefs")


def joined_episodes(parts: Sequence[Episodes]) -> Episodes:
    """Return the draws of several episodes one after another, padded to the longest.

    Parameters
    ----------
    parts
        Episodes of equal N, K, T and H.

    Raises
    ------
    ValueError
        There are no parts, or they differ in an axis that cannot be padded.
    """
    if not parts:
        raise ValueError("parts: is empty, must be at least one")
    for what, name, axis in (
        ("nodes", "storage", 1),
        ("users", "requests", 2),
        ("slots", "group", 1),
        ("horizon", "need", 2),
    ):
        sizes = [int(getattr(part, name).shape[axis]) for part in parts]
        if len(set(sizes)) > 1:
            raise ValueError(f"episodes: {what} are {sizes}, must be equal")
    tensors = {
        name: _padded([getattr(part, name) for part in parts], PADDING.get(name, 0))
        for name in EPISODE_TENSORS
    }
    beliefs = [part.beliefs for part in parts if part.beliefs is not None]
    if beliefs and len(beliefs) < len(parts):
        raise ValueError("episodes: some have beliefs, others none")
    return Episodes(**tensors, beliefs=joined_beliefs(beliefs) if beliefs else None)


PADDING = {"group": -1, "broadcast": float("inf"), "recency": -1}
"""Values of padding that are not 0."""


def _padded(parts: Sequence[Tensor], fill: float) -> Tensor:
    """Return the tensors stacked along axis 0, padded at the ends of all other axes."""
    shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
    total = sum(len(part) for part in parts)
    whole = torch.full((total, *shape), fill, dtype=parts[0].dtype, device=parts[0].device)
    begin = 0
    for part in parts:
        where = (slice(begin, begin + len(part)), *(slice(size) for size in part.shape[1:]))
        whole[where] = part
        begin += len(part)
    return whole
