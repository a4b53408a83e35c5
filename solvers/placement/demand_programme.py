"""The stochastic programme of one kind of blocks over what its users asked last.

Blocks of the same models are of one kind. With prices lambda on the bytes that the nodes hold, a
block of the kind that the nodes X hold when slot t begins, z the state of its users after the
requests of slot t (`finecast.solvers.placement.user_states`), costs per byte

    W_t(X, z) = lambda_t . X + p(z) min over l of [tau_l(X) + b(Q_l(X), z) + A_t(Q_l(X), z)]
                             + (1 - p(z)) A_t(X, z)
    A_t(Q, z) = min over X within Q of E[W_{t+1}(X, z') | z],      A_{T-1} = 0

with b(Q, z) the mean time on the air and p(z) the chance that somebody asks. Where all users ask in
every slot (activity 1) p is 0 or 1, and with every user a group of its own and b known this is the
optimal control of one block at these prices. Approximate are, and only there:

* activity below 1: the state is what users asked *last*. Of these each asks again with its
  activity, independently: p and b are means over who does. A user that has not asked yet counts as
  one whose last request was of another kind.
* users counted by groups: b is that of the mean member, chances are means over the group.

The values price every later slot, so they serve a policy, and as penalties a bound. For the latter
only one thing matters: the conditional mean of a value has to be that of the same function. Where
requests are known, it is taken over the true distribution of the users' next requests, never over
the counts' transitions (`penalties`), so that its mean is zero whatever was approximated here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.demand import Demand
from finecast.solvers.placement.chains import Chains
from finecast.solvers.placement.dynamic_programme import subset_minimum
from finecast.solvers.placement.user_states import UserGroups, expected, expected_next


@dataclass(frozen=True, eq=False)
class DemandProgramme:
    """What the programme of every kind is made of.

    Attributes
    ----------
    demand
        The demand model.
    contains
        (M, C) 1 where a model contains the kind, else 0.
    groups
        How the users are counted.
    broadcast
        (2^N, S) seconds per byte on the air from every node set to the users of every state, if
        all of them ask; infinite from no node.
    chains
        The nested sender sets.
    prices
        (T, N) seconds per byte held.
    """

    demand: Demand
    contains: FloatArray
    groups: UserGroups
    broadcast: FloatArray
    chains: Chains
    prices: FloatArray

    @cached_property
    def fresh(self) -> FloatArray:
        """(T, K, C) chance that a fresh draw contains the kind."""
        return np.clip(self.demand.preference @ self.contains, 0.0, 1.0)

    @cached_property
    def asking(self) -> tuple[FloatArray, FloatArray]:
        """p, (S,), and b, (2^N, S): means over who of those that asked last asks again."""
        somebody = (self.groups.counts.sum(axis=1) > 0).astype(np.float64)
        times = np.where(somebody > 0, self.broadcast, 0.0)
        if (self.demand.activity < 1.0).any():
            nobody = np.isinf(self.broadcast)
            activity = self.demand.activity[None]
            again = self.groups.transitions(activity, np.zeros_like(activity))
            times = expected_next(np.where(nobody, 0.0, times)[:, None], again)[:, 0]
            somebody = expected_next(somebody[None, None], again)[0, 0]
            times = np.divide(times, somebody, out=np.zeros_like(times), where=somebody > 0)
            times[nobody] = np.inf
        times[self.chains.member.sum(axis=1) == 0] = np.inf
        return somebody, times

    def cost_to_go(self, kinds: IntArray) -> CostToGo:
        """Run the programmes of B kinds backwards.

        Parameters
        ----------
        kinds
            (B,) which, below C.
        """
        slots, sets = len(self.prices), len(self.chains.member)
        somebody, times = self.asking
        stay, join = self._chances(kinds)
        first, second = self.groups.transitions(stay, join)
        rent = self.prices @ self.chains.member.T  # (T, 2^N)

        cached = np.empty((slots, sets, len(kinds), self.groups.states))
        ahead = np.zeros_like(cached)
        for t in reversed(range(slots)):
            if t < slots - 1:
                ahead[t] = expected_next(cached[t + 1], (first[t + 1], second[t + 1]))
            left = subset_minimum(ahead[t].reshape(sets, -1)).reshape(ahead[t].shape)
            # If somebody asks, the block goes out by its best level; else it stays.
            sent = best_level(times[:, None] + left, self.chains)
            cached[t] = left + somebody * (sent - left) + rent[t, :, None, None]

        fresh = self.demand.activity * self.fresh[0, :, kinds]
        start = expected(cached[0], self.groups.distribution(fresh[:, None]))[:, :, 0]
        return CostToGo(cached, ahead, start)

    def _chances(self, kinds: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return (T, B, K) the chances to be in it after slot t for a user that was, or was not."""
        active, rho = self.demand.activity, self.demand.persistence
        join = active * (1.0 - rho) * np.moveaxis(self.fresh[:, :, kinds], 1, 2)
        return join + active * rho + (1.0 - active), join


@dataclass(frozen=True, eq=False)
class CostToGo:
    """Values of the programmes of B kinds, seconds per byte.

    Attributes
    ----------
    cached
        (T, 2^N, B, S) W_t(X, z).
    ahead
        (T, 2^N, B, S) E[W_{t+1}(X, z') | z]; 0 after the last slot.
    start
        (2^N, B) E[W_0(X, z)] before slot 0.
    """

    cached: FloatArray
    ahead: FloatArray
    start: FloatArray


def best_level(sends: FloatArray, chains: Chains) -> FloatArray:
    """Return (2^N, ...) the least of tau_l(X) + sends[Q_l(X)] over the levels l.

    Parameters
    ----------
    sends
        (2^N, ...) seconds per byte once the nodes of a set have the block.
    chains
        The nested sender sets.
    """
    best = sends[chains.order]
    time = chains.time.reshape(*chains.time.shape, *[1] * (sends.ndim - 1))
    for level in range(1, len(chains.count)):
        row = chains.order[: chains.count[level]]
        reached = sends[chains.sender[row, level]]
        reached += time[row, level]
        np.minimum(best[: len(row)], reached, out=best[: len(row)])
    return np.asarray(best[chains.position])


def last_requests(requests: IntArray) -> IntArray:
    """Return (..., T, K) the last request of every user up to each slot, -1 where there is none.

    Parameters
    ----------
    requests
        (..., T, K) model requested, -1 for none.
    """
    slot = np.arange(requests.shape[-2])[:, None]
    asked = np.maximum.accumulate(np.where(requests >= 0, slot, 0), axis=-2)
    return np.take_along_axis(requests, asked, axis=-2)


def wanted_last(contains: FloatArray, last: IntArray) -> FloatArray:
    """Return (..., C) 1 where a last request (...) contains the kind; 0 where there is none."""
    return np.where(last[..., None] >= 0, contains[last], 0.0)


def coming_chance(demand: Demand, contains: FloatArray, last: IntArray, t: int) -> FloatArray:
    """Return the chance that the last request after slot t contains each kind.

    Parameters
    ----------
    demand
        The demand model.
    contains
        (M, C) 1 where a model contains the kind, else 0.
    last
        (..., K) last request before slot t, -1 for none.
    t
        The slot.

    Returns
    -------
    (..., K, C).
    """
    active, persistence = demand.activity[:, None], demand.persistence
    fresh = np.clip(demand.preference[t] @ contains, 0.0, 1.0)  # (K, C)
    was = wanted_last(contains, last)
    draws_afresh = 1.0 - persistence * (last >= 0)[..., None]
    return np.asarray(active * (persistence * was + draws_afresh * fresh) + (1.0 - active) * was)


def penalties(programme: DemandProgramme, requests: IntArray) -> FloatArray:
    """Return the penalties of paths of requests: what the values knew too much.

        pi_t(X) = W_t(X, z_t) - E[W_t(X, z_t) | requests of slots before t]

    Of fixed prices and a fixed X its mean over the requests of slot t is zero, given those before,
    for the mean is taken of the very values W_t, over the true chances of every user.

    Parameters
    ----------
    programme
        The programme of every kind.
    requests
        (P, T, K) model requested by each user on each path, -1 for none.

    Returns
    -------
    (P, T, C, 2^N) seconds per byte.
    """
    paths, slots, users = requests.shape
    contains = programme.contains
    last = last_requests(requests)
    before = np.concatenate([np.full((paths, 1, users), -1), last[:, :-1]], axis=1)
    state = programme.groups.state(np.moveaxis(wanted_last(contains, last), -1, 2))  # (P, T, C)
    chance = np.stack([
        np.moveaxis(coming_chance(programme.demand, contains, before[:, t], t), -1, 1)
        for t in range(slots)
    ], axis=1)  # (P, T, C, K)  # fmt: skip

    found = np.empty((paths, slots, contains.shape[1], len(programme.chains.member)))
    for kind in range(contains.shape[1]):
        cached = programme.cost_to_go(np.array([kind])).cached
        first, second = programme.groups.distribution(chance[:, :, kind])
        for t in range(slots):
            mean = expected(cached[t], (first[None, :, t], second[None, :, t]))
            found[:, t, kind] = (cached[t][:, 0, state[:, t, kind]] - mean[:, 0]).T
    return found
