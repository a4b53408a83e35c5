"""Values of the stochastic programme of every kind of blocks, for the slots to come.

`values_from` runs `finecast.solvers.placement.demand_programme` on what is known of the channels in
one slot. Prices of storage come from requests drawn from the demand model. The values then tell
what it costs, from any later slot on, that the nodes X keep a block, given what users asked last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from finecast.problem.arrays import IntArray
from finecast.problem.demand import Demand
from finecast.solvers.heuristics.expected import kinds, parts_by_home
from finecast.solvers.online import Prior
from finecast.solvers.placement.air_time import Air, group_times
from finecast.solvers.placement.chains import chains
from finecast.solvers.placement.demand_programme import DemandProgramme
from finecast.solvers.placement.programme_prices import trained_prices
from finecast.solvers.placement.user_states import alike

MOST_STATES = 1 << 13
"""States of the users that a programme counts: each user apart up to 13 of them."""

COARSE_STATES = 256
"""States of the programmes that find the prices."""

MOST_BYTES = 10**9
"""Of the values that are kept for the slots to come."""

MOST_ENTRIES = 1 << 18
"""Entries of the values of one slot that are computed at a time."""

WINDOW = 24
"""Slots that the values reckon with; they are computed anew when half of them are over."""

STEPS, PATHS = 20, 32
"""Steps to the prices, and paths of requests of their means."""

DECIBEL_SHARE = 0.2
"""Users are alike in what they ask for first; in what reaches them by so much a factor of e."""


@dataclass(frozen=True, eq=False)
class Values:
    """Values of the slots from `begin` on.

    Attributes
    ----------
    begin
        First slot.
    kind
        (J,) kind of every block.
    programme
        What they are the values of, its slots counted from `begin`.
    ahead
        (H, 2^N, C, S) E[W_{t+1}(X, z') | z_t], float32, seconds per byte.
    """

    begin: int
    kind: IntArray
    programme: DemandProgramme
    ahead: NDArray[np.float32]

    def serves(self, t: int, slots: int) -> bool:
        """Return whether they reach far enough beyond slot t: to the end, or half of them."""
        end = self.begin + len(self.ahead)
        halfway = self.begin + max(1, len(self.ahead) // 2)
        return self.begin <= t and (end == slots or t < halfway)


def values_from(prior: Prior, air: Air, begin: int, seed: int) -> tuple[Values, tuple[str, ...]]:
    """Return the values of a slot and those to come, and what they approximate.

    Parameters
    ----------
    prior
        What is known before slot 0.
    air
        What is known of the channels.
    begin
        The slot.
    seed
        Of the requests that the prices are found on.

    Raises
    ------
    ValueError
        Nodes and kinds of blocks are too many.
    """
    kind, contains = kinds(prior.library.model_blocks)
    nodes, users, count = prior.network.nodes, prior.demand.users, contains.shape[1]
    entry = 4 * count << nodes  # bytes of the values of one state in one slot
    slots = min(prior.demand.slots - begin, WINDOW)
    fewest = max(users + 1, COARSE_STATES)
    while slots > 2 and slots * fewest * entry > MOST_BYTES:
        slots -= 1
    if slots * (users + 1) * entry > MOST_BYTES:
        raise ValueError(
            f"nodes: {nodes} with {count} kinds of blocks and {users} users is not allowed for "
            f"this method: its values would take {slots * (users + 1) * entry} bytes, at most "
            f"{MOST_BYTES} are allowed"
        )
    most = min(MOST_STATES, MOST_BYTES // (slots * entry))

    coarse = with_prices(prior, air, begin, begin + slots, seed)
    programme = replace(_programme(prior, air, begin, begin + slots, most), prices=coarse.prices)
    states = programme.groups.states
    ahead = np.empty((slots, 1 << nodes, count, states), dtype=np.float32)
    batch = max(1, MOST_ENTRIES // (states << nodes))
    for first in range(0, count, batch):
        some = np.arange(first, min(first + batch, count))
        ahead[:, :, some] = programme.cost_to_go(some).ahead
    return Values(begin, kind, programme, ahead), _notes(prior, programme)


def with_prices(prior: Prior, air: Air, begin: int, end: int, seed: int) -> DemandProgramme:
    """Return a coarse programme of the slots from `begin` to before `end`, at trained prices."""
    programme = _programme(prior, air, begin, end, COARSE_STATES)
    kind, contains = kinds(prior.library.model_blocks)
    size = np.zeros(contains.shape[1])
    np.add.at(size, kind, prior.library.block_size)
    prices = trained_prices(
        programme,
        size,
        prior.network.storage,
        rng=np.random.default_rng((seed, begin)),
        steps=STEPS,
        paths=PATHS,
    )
    return replace(programme, prices=prices)


def _programme(prior: Prior, air: Air, begin: int, end: int, most: int) -> DemandProgramme:
    """Return the programme of the slots from `begin` to before `end`, prices 0.

    Parameters
    ----------
    prior
        What is known before slot 0.
    air
        What decides on the time on the air.
    begin, end
        Slots.
    most
        States of the users; at least as many as one group of all of them has.
    """
    network, whole = prior.network, prior.demand
    demand = Demand(whole.preference[begin:end], whole.persistence, whole.activity)
    reach = np.log(np.maximum(air.reach, np.finfo(np.float32).tiny))
    tastes = demand.preference.mean(axis=0) * whole.models
    features = np.concatenate([tastes, DECIBEL_SHARE * reach, whole.activity[:, None]], axis=1)
    groups = alike(features, max(most, whole.users + 1))
    _, contains = kinds(prior.library.model_blocks)
    table = chains(prior.link)
    parts = parts_by_home(prior.restrictions, air.reach.argmax(axis=1), network.nodes)
    broadcast = group_times(air, groups.share, parts, table.member, prior.link[-1])
    prices = np.zeros((demand.slots, network.nodes))
    return DemandProgramme(demand, contains, groups, broadcast, table, prices)


def _notes(prior: Prior, programme: DemandProgramme) -> tuple[str, ...]:
    """Return what the values approximate, a line each."""
    groups, demand = programme.groups, prior.demand
    notes = []
    if len(groups.size) < demand.users:
        notes.append(
            f"users counted by groups of those alike: {demand.users} users, "
            f"{len(groups.size)} groups, {groups.states} states"
        )
    if (demand.activity < 1.0).any():
        notes.append("activity below 1: values are means over which users ask again")
    if programme.demand.slots < demand.slots:
        notes.append(f"values reckon with {programme.demand.slots} slots of {demand.slots}")
    if prior.schedule == "pipelined":
        notes.append("values count migrations and broadcasts one after another, not side by side")
    if prior.delivery == "spatial":
        notes.append("values count messages one after another, not several on the air at once")
    return tuple(notes)
