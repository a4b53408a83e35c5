"""Nodes that decide apart: all at once, each on what it sees, what to keep.

Misses come by the best chain level of the slot, as everywhere. Then every node fills its storage by
itself: it has a cost per byte of every set of nodes that keeps a block, by what it sees
(`finecast.solvers.information`), and a belief about what the others will keep. Rules:

- **plan**: all nodes compute the same plan by the joint keep rule (`joint_keep`) on what all of
  them see. Each then corrects it by what it alone sees: a knapsack over what its copies save beside
  the planned ones of the others, in which a planned copy gets a bonus.
- **inertia**: the others are expected to keep what they were seen to hold when the slot began. A
  copy that the node held then gets the bonus.
- **simulate**: every node computes the joint rule for all, on what it sees and believes, and keeps
  its own part. Where nodes see the same, all compute the same; elsewhere they miss each other.
- **own-savings**: no forecast. What a copy saved for the requests that the node saw last, given
  the others' copies it saw, is added up, and decays.

A bonus is in units of what a byte that the node has saves on average. Costs are those of the
stochastic programme (`programme`), run once on the channels that are told in slot 0, or the
expected delay of the next slot (`next-slot`, as in the method `rolling`). They are rounded to 20
bits, so that nodes that see the same decide the same, on whichever processor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray, checked_number
from finecast.problem.demand import forecast_from
from finecast.solvers.heuristics.expected import (
    TYPICAL_EXPONENT,
    expected_tables,
    kinds,
    parts_by_home,
)
from finecast.solvers.heuristics.greedy_online import greedy_by_popularity
from finecast.solvers.heuristics.joint_keep import keep_jointly
from finecast.solvers.heuristics.programme_values import Values, values_from
from finecast.solvers.heuristics.rules import keep_by_cost, pull
from finecast.solvers.heuristics.savings import table_savings
from finecast.solvers.information import (
    Information,
    Sight,
    check_information,
    exchange_note,
    exchanged_bytes,
    last_request,
    sights,
)
from finecast.solvers.node_set_tables import members, node_sets
from finecast.solvers.online import Observation, Prior
from finecast.solvers.placement.air_time import Air, Part, group_times
from finecast.solvers.placement.chains import chains
from finecast.solvers.placement.demand_programme import best_level, wanted_last
from finecast.solvers.placement.fill import keep_by_score
from finecast.solvers.placement.user_states import expected

ApartRule = Literal["plan", "inertia", "simulate", "own-savings"]
CostSource = Literal["programme", "next-slot"]

BITS = 20
"""Costs are whole multiples of the largest power of two in them over 2 to this power."""

PLAN_BONUS = 0.2
"""Default bonus of a planned copy: 5.1 to 5.4 % over the bound on 4 draws of slow-60 for 0.1 to
0.3, 5.7 and 6.1 for 1 and 3."""

DECAY = 0.8
"""Weight of the savings of a slot before, in own-savings."""


@dataclass
class Apart:
    """Every node decides for itself, at the same time, on what it sees.

    Attributes
    ----------
    information
        "full", "senders", "delayed" or "local": what each node sees.
    rule
        "plan", "inertia", "simulate" or "own-savings": what it makes of it.
    values
        "programme" or "next-slot": costs of node sets; own-savings has its own.
    bonus
        Of a planned or held copy, in units of what a byte that the node has saves on average; None
        for 0.2 where a plan rests on caches that all see, else 1.
    seed
        Of the requests that the programme draws.
    notes
        What is approximated and exchanged, after it has played.
    """

    remembers_users: ClassVar[bool] = True
    """It holds things by user: where an area gets new users, it begins anew."""

    information: Information = "delayed"
    rule: ApartRule = "plan"
    values: CostSource = "programme"
    bonus: float | None = None
    seed: int = 0
    notes: tuple[str, ...] = field(default=(), init=False)
    _values: Values | None = field(default=None, init=False, repr=False)
    _saved: FloatArray | None = field(default=None, init=False, repr=False)
    _approximated: tuple[str, ...] = field(default=(), init=False, repr=False)
    _exchanged: list[int] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        check_information(self.information)
        for name, allowed in (("rule", get_args(ApartRule)), ("values", get_args(CostSource))):
            if getattr(self, name) not in allowed:
                raise ValueError(
                    f"{name}: {getattr(self, name)!r} is not allowed, must be one of "
                    f"{', '.join(allowed)}"
                )
        if self.bonus is None:
            planned = self.rule == "plan" and self.information != "local"
            self.bonus = PLAN_BONUS if planned else 1.0
        checked_number("bonus", self.bonus, low=0.0)

    def place(self, prior: Prior) -> BoolArray:
        """Place greedily for the expected delay of slot 0: all nodes know the same."""
        self._values = self._saved = None
        self._exchanged, self._approximated, self.notes = [], (), ()
        return greedy_by_popularity(prior, 1)

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Pull for this slot; let every node keep what it wants of what it has."""
        source = pull(observation.problem, cache)
        if observation.t == observation.prior.demand.slots - 1:  # nothing comes after it
            return source, cache
        keep = self.keep(*self.look(observation, cache, cache | (source >= 0)))
        return source, keep

    def look(
        self, observation: Observation, cache: BoolArray, held: BoolArray
    ) -> tuple[Sight, list[Sight]]:
        """Return what all nodes see, and what each sees; count what they tell each other for it.

        Parameters
        ----------
        observation, cache, held
            As in `finecast.solvers.information.sights`.
        """
        common, each = sights(observation, cache, held, self.information)
        self._exchanged.append(exchanged_bytes(self.information, common))
        self.notes = (*self._approximated, exchange_note(self.information, self._exchanged))
        return common, each

    def keep(self, common: Sight, each: list[Sight]) -> BoolArray:
        """Return (N, J) what the nodes keep, the row of each from its own sight and the common one.

        Parameters
        ----------
        common
            What all nodes see.
        each
            What each node sees.
        """
        size, storage = common.prior.library.block_size, common.prior.network.storage
        if self.rule == "own-savings":
            held = np.stack([sight.held for sight in each])
            return keep_by_score(self._savings(each), held, size, storage, before=caches_of(each))
        costs = self._costs([common, *each])
        bonus = 0.0 if self.bonus is None else self.bonus
        # What all are taken to have: if everything is seen, what they do have.
        full = self.information == "full"
        held = np.stack([sight.held for sight in each]) if full else foreseen(common)
        plan = common.caches
        if self.rule == "plan":
            plan = kept_by_all(costs[0], held, size, storage)
        rows = []
        for n, (sight, cost) in enumerate(zip(each, costs[1:], strict=True)):
            if self.rule == "simulate":
                believed = np.where(np.arange(len(each))[:, None] == n, sight.held, held)
                rows.append(kept_by_all(cost, believed, size, storage)[n])
            elif self.rule == "inertia":
                rows.append(own_knapsack(cost, sight, sight.caches, bonus))
            else:
                rows.append(own_knapsack(cost, sight, plan, bonus))
        return np.stack(rows)

    def _costs(self, seen: list[Sight]) -> FloatArray:
        """Return (P, J, 2^N) what it costs if a set of nodes keeps a block, as P sights have it."""
        if self.values == "next-slot":
            return np.stack([next_slot_cost(sight) for sight in seen])
        values = self.values_for(seen[0])
        return programme_costs(values, seen)[:, values.kind]

    def values_for(self, common: Sight) -> Values:
        """Return values that reach far enough beyond this slot, from what all nodes know."""
        slots, known = common.prior.demand.slots, self._values
        if known is not None and known.serves(common.t, slots):
            return known
        air, _ = air_of(common)
        self._values, self._approximated = values_from(common.prior, air, common.t, self.seed)
        self.notes = (*self._approximated, *self.notes)
        return self._values

    def _savings(self, each: list[Sight]) -> FloatArray:
        """Return (N, J) what a copy saved for the requests that every node saw last, decayed."""
        prior = each[0].prior
        kind, contains = kinds(prior.library.model_blocks)
        table = chains(prior.link)
        saved = []
        for n, sight in enumerate(each):
            newest = sight.newest_requests
            asked = wanted_last(contains, newest)  # (K, C)
            air, parts = air_of(sight)
            times = group_times(air, asked.T, parts, table.member, prior.link[-1])  # (2^N, C)
            cost = rounded(np.where(asked.any(axis=0), best_level(times, table), 0.0)).T[kind]
            saved.append(table_savings(cost, node_sets(sight.caches), len(each))[n])
        now = np.stack(saved)
        self._saved = now if self._saved is None else DECAY * self._saved + now
        return self._saved


def programme_costs(values: Values, seen: list[Sight]) -> FloatArray:
    """Return (P, C, 2^N) what it costs that a set of nodes keeps a kind, as P sights have it.

    The mean of the programme's values over what users may have asked last, by what is seen, without
    the rent of the next slot. Every sight is rounded by itself: none shows in another's costs.

    Parameters
    ----------
    values
        They reach beyond the slot.
    seen
        Of one slot that is not the last.
    """
    programme, t = values.programme, seen[0].t
    last = np.stack([last_request(sight) for sight in seen])  # (P, K, M)
    chance = np.clip(last @ programme.contains, 0.0, 1.0).transpose(2, 0, 1)  # (C, P, K)
    table = values.ahead[t - values.begin].astype(np.float64)
    ahead = expected(table, programme.groups.distribution(chance))  # (2^N, C, P)
    rent = programme.chains.member @ programme.prices[t - values.begin + 1]
    costs = (ahead - rent[:, None, None]).transpose(2, 1, 0)
    return np.stack([rounded(cost) for cost in costs])


def next_slot_cost(sight: Sight) -> FloatArray:
    """Return (J, 2^N) the expected delay of the next slot by what is seen, seconds per byte."""
    demand = sight.prior.demand
    coming = forecast_from(demand, last_request(sight), sight.t + 1)[:1]
    return rounded(expected_tables(sight.prior, coming, *air_of(sight)).cost[0])


def own_knapsack(cost: FloatArray, sight: Sight, kept: BoolArray, bonus: float) -> BoolArray:
    """Return (J,) what a node keeps of what it has: what saves most beside the others' copies.

    Parameters
    ----------
    cost
        (J, 2^N) seconds per byte under every kept set.
    sight
        What the node sees.
    kept
        (N, J) what is expected to be kept; copies of the node itself get the bonus.
    bonus
        In units of what a byte that the node has saves on average.
    """
    prior, n = sight.prior, sight.node
    size, storage = prior.library.block_size, prior.network.storage
    block, others = np.arange(len(size)), node_sets(kept) & ~(1 << n)
    saved = cost[block, others] - cost[block, others | 1 << n]
    there = sight.held & (size > 0)
    average = float(size[there] @ saved[there]) / max(1.0, float(size[there].sum()))
    saved = saved + bonus * max(average, 0.0) * kept[n]
    alone = np.stack([np.zeros(len(size)), -saved], axis=1)
    kept_alone = keep_jointly(alone, sight.held[None], size, storage[n : n + 1])
    return np.asarray(kept_alone.keep[0])


def caches_of(each: list[Sight]) -> BoolArray:
    """Return (N, J) what every node held itself when the slot began."""
    return np.stack([sight.caches[n] for n, sight in enumerate(each)])


def foreseen(common: Sight) -> BoolArray:
    """Return (N, J) what all nodes would have after the delivery if users asked what they last did.

    Where caches are not seen by all, anything may be anywhere.
    """
    kind, _ = kinds(common.prior.library.model_blocks)
    sets = foreseen_sets(common)[kind, node_sets(common.caches)]
    return members(sets, len(common.caches)).T


def foreseen_sets(common: Sight) -> IntArray:
    """Return (C, 2^N) the nodes that `foreseen` takes to have each kind, by who has it cached."""
    prior = common.prior
    _, contains = kinds(prior.library.model_blocks)
    table = chains(prior.link)
    if not common.seen_nodes.all():
        return np.full((contains.shape[1], len(table.member)), len(table.member) - 1)
    asked: FloatArray = wanted_last(contains, common.newest_requests)  # (K, C)
    air, parts = air_of(common)
    times = group_times(air, asked.T, parts, table.member, prior.link[-1]).T  # (C, 2^N)
    level = (table.time + times[:, table.sender]).argmin(axis=2)
    sender = table.sender[np.arange(len(table.sender)), level]
    nobody = (asked.sum(axis=0) == 0)[:, None]
    return np.asarray(np.where(nobody, np.arange(len(table.member)), sender))


def air_of(sight: Sight) -> tuple[Air, list[Part]]:
    """Return what decides on the time on the air by what is seen, and the messages of a block."""
    network = sight.prior.network
    air = Air(
        sight.newest_reach, TYPICAL_EXPONENT, network.bandwidth, network.max_spectral_efficiency
    )
    return air, parts_by_home(sight.prior.restrictions, sight.home, network.nodes)


def kept_by_all(cost: FloatArray, held: BoolArray, size: IntArray, storage: IntArray) -> BoolArray:
    """Return (N, J) the joint keep rule, from the answer of nodes in turn."""
    nobody = np.zeros(len(size), dtype=np.int64)
    start = keep_by_cost(cost, held, size, storage, nobody, rounds=3)
    return keep_jointly(cost, held, size, storage, start=start).keep


def rounded(cost: FloatArray) -> FloatArray:
    """Return costs as multiples of a power of two, about `BITS` bits of the largest finite one."""
    largest = np.abs(cost[np.isfinite(cost)]).max(initial=0.0)
    if largest == 0.0:
        return cost
    unit = 2.0 ** (np.ceil(np.log2(largest)) - BITS)
    return np.asarray(np.round(cost / unit) * unit)
