"""Programme: keep by the stochastic programme of every kind of blocks, all nodes at once.

The values of `finecast.solvers.placement.demand_programme` tell what it costs, from slot t + 1 on,
that the nodes X keep a block, given what every user asked last. In slot t

* every needed block goes out by the level of least delay now and after, tau_l + b + A_t(Q_l, z_t);
* what is kept is chosen for all blocks and nodes together: sum_j s_j E[W_{t+1}(X_j, z') | z_t] is
  least among all that fits, without the rent of slot t + 1, whose storage is the true one.

The values of slot t + 1 are corrected by what slot t shows: its channels in place of those of slot
0, and who asks, user by user, in place of groups and means. A mean over drawn requests will do,
since only the difference is drawn.

What the values rest on is learnt where an online method may learn it. Before slot 0 no channel is
known: caches are placed by popularity, as `greedy-online` does. In slot 0 the first channels are
seen, and the programme is run once, at their amplitudes. Prices of storage come from requests drawn
from the demand model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.solvers.heuristics.expected import (
    first_air,
    kinds,
    message_parts,
    observed_air,
)
from finecast.solvers.heuristics.greedy_online import greedy_by_popularity
from finecast.solvers.heuristics.joint_keep import JointKeep, keep_jointly
from finecast.solvers.heuristics.programme_values import Values, values_from, with_prices
from finecast.solvers.heuristics.rules import best_senders, keep_by_cost, sources
from finecast.solvers.node_set_tables import members, node_sets
from finecast.solvers.online import Observation, Prior
from finecast.solvers.placement.air_time import group_times
from finecast.solvers.placement.demand_programme import (
    best_level,
    last_requests,
    wanted_last,
)
from finecast.solvers.placement.dynamic_programme import subset_minimum

Knows = Literal["past", "network"]

MOST_DRAWS, DRAWN_STATES = 128, 4096
"""Draws of the next requests, to correct the values by what a slot shows; fewer of many kinds, so
that the states drawn of all kinds are about so many."""

ROUNDS = 3
"""Rounds in which the nodes decide in turn, for a start."""


@dataclass
class Programme:
    """Keep by the stochastic programme of every kind of blocks.

    Attributes
    ----------
    knows
        "past": what every online method may know. "network": before slot 0 the channels of slot 0
        too, so that caches are placed for where users are; more than others know.
    seed
        Of the requests and home nodes that the method draws.
    notes
        What is approximated, after it has played.
    """

    remembers_users: ClassVar[bool] = True
    """It holds things by user: where an area gets new users, it begins anew."""

    knows: Knows = "past"
    seed: int = 0
    notes: tuple[str, ...] = field(default=(), init=False)
    _values: Values | None = field(default=None, init=False, repr=False)
    _keep_prices: FloatArray | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.knows not in get_args(Knows):
            allowed = " or ".join(get_args(Knows))
            raise ValueError(f"knows: {self.knows!r} is not allowed, must be {allowed}")

    def place(self, prior: Prior) -> BoolArray:
        """Place by popularity; where the network is known, by a coarse programme."""
        self._values = self._keep_prices = None
        if prior.first_slot is None:
            return greedy_by_popularity(prior, 1)
        coarse = with_prices(prior, first_air(prior), 0, prior.demand.slots, self.seed)
        kind, contains = kinds(prior.library.model_blocks)
        size, storage = prior.library.block_size, prior.network.storage
        start = coarse.cost_to_go(np.arange(contains.shape[1])).start.T
        cost = start - coarse.chains.member @ coarse.prices[0]
        anywhere = np.ones((len(storage), len(size)), dtype=bool)
        return _kept(cost[kind], anywhere, size, storage).keep

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Pull by the best level now and after, keep jointly what the coming slots need."""
        problem, prior, t = observation.problem, observation.prior, observation.t
        values = self._values_for(observation)
        programme = values.programme

        # What it costs from the next slot on that a set keeps each kind, given the last requests.
        last = last_requests(observation.requests)[-1]
        state = programme.groups.state(wanted_last(programme.contains, last).T)
        ahead = values.ahead[t - values.begin][:, np.arange(len(state)), state].astype(np.float64)
        if t < prior.demand.slots - 1:
            rng = np.random.default_rng((self.seed, t, 1))
            ahead += _next_slot(values, observation, last, rng)
        cached = node_sets(cache)
        sender = best_senders(
            problem, programme.chains, subset_minimum(ahead).T, values.kind, cached
        )
        source = sources(problem, cached, sender)
        if t == prior.demand.slots - 1:  # the last slot: nothing comes after it
            return source, cache

        # This storage is the true one: its price is found anew, in place of the mean one.
        rent = programme.chains.member @ programme.prices[t - values.begin + 1]
        cost, held = (ahead.T - rent)[values.kind], members(sender, problem.nodes).T
        kept = _kept(cost, held, problem.block_size, problem.storage, self._keep_prices)
        self._keep_prices = kept.prices
        return source, kept.keep

    def _values_for(self, observation: Observation) -> Values:
        """Return values that reach far enough beyond this slot, computed anew if need be."""
        t, slots = observation.t, observation.prior.demand.slots
        known = self._values
        if known is not None and known.serves(t, slots):
            return known
        values, self.notes = values_from(observation.prior, observed_air(observation), t, self.seed)
        self._values = values
        return values


def _kept(
    cost: FloatArray,
    held: BoolArray,
    size: IntArray,
    storage: IntArray,
    prices: FloatArray | None = None,
) -> JointKeep:
    """Return what is kept by the joint rule, never worse than the nodes in turn.

    Moves of one block or two do not find room for one that fills half a node. In turn, the block
    that saves most a byte comes first.

    Parameters
    ----------
    cost, held, size, storage, prices
        As in `keep_jointly`.
    """
    nobody = np.zeros(len(size), dtype=np.int64)
    in_turn = keep_by_cost(cost, held, size, storage, nobody, rounds=ROUNDS)
    return keep_jointly(cost, held, size, storage, start=in_turn, prices=prices)


def _next_slot(
    values: Values, observation: Observation, last: IntArray, rng: np.random.Generator
) -> FloatArray:
    """Return what the values of slot t + 1 lack, given what slot t shows: (2^N, C), s per byte.

    The mean, over draws of the next requests, of the value at the channels of now and for who asks
    then, less the value that the programme has for the users' state then. The draws are few, but so
    is the difference.

    Parameters
    ----------
    values
        They reach beyond this slot.
    observation
        What is known in slot t.
    last
        (K,) last request of every user, -1 for none.
    rng
        Draws the requests.
    """
    prior, programme = observation.prior, values.programme
    contains, chain = programme.contains, programme.chains
    air = observed_air(observation)
    parts = message_parts(observation)

    # The next requests, and the states of the users of every kind after them.
    draws = min(MOST_DRAWS, 1 + DRAWN_STATES // max(1, contains.shape[1]))
    below = observation.forecast()[0].cumsum(axis=1)
    # Every user's own requests evenly, in an order of their own: a Latin hypercube.
    order = rng.permuted(np.broadcast_to(np.arange(draws)[:, None], (draws, len(last))), axis=0)
    evenly = (order + rng.random(order.shape)) / draws
    drawn = (evenly[:, :, None] >= below).sum(axis=2)
    asks = drawn < contains.shape[0]
    drawn = np.where(asks, drawn, -1)
    asked = np.moveaxis(wanted_last(contains, drawn), -1, 1)  # (D, C, K)
    wanted = wanted_last(contains, np.where(asks, drawn, last))
    state = programme.groups.state(np.moveaxis(wanted, -1, 1))  # (D, C)

    # The same slot twice: as it will be, and as the programme takes it to be.
    after = values.ahead[observation.t + 1 - values.begin][:, np.arange(contains.shape[1]), state]
    left = subset_minimum(after.reshape(len(after), -1).astype(np.float64))
    share = asked.reshape(-1, len(last))
    once = group_times(air, share, parts, chain.member, prior.link[-1])
    real = np.where(share.any(axis=1), best_level(once + left, chain), left)
    somebody, times = programme.asking
    state = state.reshape(-1)
    taken = left + somebody[state] * (best_level(times[:, state] + left, chain) - left)
    return np.asarray((real - taken).reshape(after.shape).mean(axis=1))
