"""The order of jobs that least delays the mean of those who wait for several of them each.

Jobs of a *length* follow one another, and a user is done when all elements that it waits for are.
An element belongs to one or more jobs and is done with the first of them: a message on the air
belongs to itself, the migration of a block to every message that carries it. With a user in the
place of a job of no length this is 1 | prec | sum w_j C_j with a bipartite order, which is NP-hard
and has a factor of 2 (Sidney's decomposition; Chekuri and Motwani, Discrete Applied Mathematics 98,
1999; Margot, Queyranne, Wang, Operations Research 51, 2003).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray

MOST_EXACT = 16
"""So many jobs, or sets of jobs that somebody waits for, are ordered by dynamic programming."""

ROUNDING = 1e-12
"""Bounds are lowered by this share, far above the rounding of their sums."""


@dataclass(frozen=True, eq=False)
class Waits:
    """Who waits for what.

    Parameters
    ----------
    length
        (E,) length of each element, >= 0, s.
    carried
        (E, I) bool, job i contains element e; every element is in some job.
    waited
        (K, I) bool, user k waits for job i.
    """

    length: FloatArray
    carried: BoolArray
    waited: BoolArray

    def completion(self, order: IntArray) -> FloatArray:
        """Return (K,) when each user is done, s; 0 for one that waits for nothing.

        Parameters
        ----------
        order
            (I,) the jobs in turn.
        """
        place = np.empty(len(order), dtype=np.int64)
        place[order] = np.arange(len(order))
        first = np.where(self.carried, place, len(order)).min(axis=1, initial=len(order))
        end = np.cumsum(np.bincount(first, weights=self.length, minlength=len(order) + 1))
        last = np.where(self.waited, place, -1).max(axis=1, initial=-1)
        return np.where(last >= 0, end[last], 0.0)


@dataclass(frozen=True, eq=False)
class Order:
    """An order and what it is worth.

    Parameters
    ----------
    jobs
        (I,) the jobs in turn.
    total, lower_bound
        Sum of the completion times of all users, and what no order undercuts, s.
    """

    jobs: IntArray
    total: float
    lower_bound: float


def least_total_completion(waits: Waits, most_exact: int = MOST_EXACT) -> Order:
    """Return an order of least total completion: proven for few jobs or users, else within 2.

    Parameters
    ----------
    waits
        Who waits for what.
    most_exact
        Up to so many jobs or sets of jobs the order is exact: 2^n states.
    """
    jobs = waits.waited.shape[1]
    sets, users = np.unique(waits.waited, axis=0, return_counts=True)
    some = sets.any(axis=1)
    sets, weight = sets[some], users[some].astype(np.float64)
    needs = sets.astype(np.float64) @ waits.carried.T > 0  # (users, E)
    if not len(sets):
        return Order(np.arange(jobs), 0.0, 0.0)
    if min(len(sets), jobs) > most_exact:
        turn, bound = _by_densest_parts(waits.length, needs, weight)
        found = _jobs_of_users(sets, turn)
        total = float(waits.completion(found).sum())
        stated = float(waits.completion(np.arange(jobs)).sum())
        if stated <= total:
            return Order(np.arange(jobs), stated, min(bound, stated))
        return Order(found, total, min(bound, total))
    # Either users follow one another, each with the jobs it still waits for, or the jobs do.
    if len(sets) <= jobs:
        found = _jobs_of_users(
            sets, _best_chain(waits.length, needs.T, weight, np.eye(len(sets), dtype=bool))
        )
    else:
        found = _best_chain(waits.length, waits.carried, weight, sets)
    total = float(waits.completion(found).sum())
    return Order(found, total, total * (1.0 - ROUNDING))


def _jobs_of_users(sets: BoolArray, turn: IntArray) -> IntArray:
    """Return the jobs in the order in which users in turn need them, then those of nobody.

    Parameters
    ----------
    sets
        (K, I) the jobs that each user waits for.
    turn
        (K,) the users in turn.
    """
    wanted = sets[turn]
    first = np.where(wanted.any(axis=0), wanted.argmax(axis=0), len(turn))
    return np.argsort(first, kind="stable")


# ---- few: dynamic programming over sets


def _best_chain(
    length: FloatArray, hit: BoolArray, weight: FloatArray, done: BoolArray
) -> IntArray:
    """Return the order of n items with the least sum of weights times completion.

    What is on when the set S of items is over took t(S), the elements that S hits, whatever the
    order; what is done by then weighs w(S). An order is a chain of sets, each larger by one item,
    and costs the sum of t(S) (w(S) - w(S before)): f(S) = min over its last item.

    Parameters
    ----------
    length
        (E,) s.
    hit
        (E, n) bool, item i contains element e.
    weight
        (G,) of what waits.
    done
        (G, n) bool, the items that it waits for.
    """
    items = hit.shape[1]
    bit = 1 << np.arange(items)
    every = (1 << items) - 1
    # Elements that S leaves out are those whose items all lie outside of S.
    inside = _sums_over_subsets(length, np.asarray(hit, dtype=np.int64) @ bit, items)
    took = length.sum() - inside[every - np.arange(every + 1)]
    weighs = _sums_over_subsets(weight, np.asarray(done, dtype=np.int64) @ bit, items)
    best = np.full(every + 1, np.inf)
    best[0] = 0.0
    last = np.zeros(every + 1, dtype=np.int64)
    # Larger sets from smaller ones: numbers of one size do not depend on one another.
    numbers = np.arange(every + 1)
    size = np.sum(numbers[:, None] & bit > 0, axis=1)
    for n in range(1, items + 1):
        of_size = numbers[size == n]
        before = of_size[:, None] & ~bit
        cost = best[before] + took[of_size][:, None] * (weighs[of_size][:, None] - weighs[before])
        cost[of_size[:, None] & bit == 0] = np.inf
        last[of_size] = cost.argmin(axis=1)
        best[of_size] = cost.min(axis=1)
    chain = []
    left = every
    while left:
        chain.append(int(last[left]))
        left &= ~(1 << chain[-1])
    return np.array(chain[::-1], dtype=np.int64)


def _sums_over_subsets(value: FloatArray, mask: IntArray, items: int) -> FloatArray:
    """Return (2^n,) for every set the sum of the values whose mask lies within it."""
    table = np.bincount(mask, weights=value, minlength=1 << items).astype(np.float64)
    for i in range(items):
        halves = table.reshape(-1, 2, 1 << i)
        halves[:, 1] += halves[:, 0]
    return table


# ---- many: Sidney's decomposition


def _by_densest_parts(
    length: FloatArray, needs: BoolArray, weight: FloatArray
) -> tuple[IntArray, float]:
    """Return users in turn, and a lower bound on the total of their completion times.

    Again and again the users of the most weight per length go first. A linear programme finds
    them, and its dual spreads the weight of every user over the elements that it waits for. With a
    load of at most d per length of each element of a part, users who are done at time t weigh at
    most F(t), where F grows by d over the length of each part, steepest part first. So the total is
    at least the integral of W - F(t). That holds for whatever parts and spreads; those of the
    optimum are within 2.

    Parameters
    ----------
    length
        (E,) s.
    needs
        (K, E) bool, user k waits for element e.
    weight
        (K,) number of users.
    """
    left = np.arange(len(weight))
    open_elements = length > 0
    turn: list[int] = []
    parts: list[tuple[float, float]] = []  # (weight per length, length)
    while left.size:
        rest = needs[left] & open_elements
        free = ~rest.any(axis=1)
        if free.any():  # they are done when the part before is
            turn.extend(left[free].tolist())
            left = left[~free]
            continue
        chosen, density = _densest(length[open_elements], rest[:, open_elements], weight[left])
        closed = rest[chosen].any(axis=0)
        chosen = np.logical_not(
            (rest & ~closed).any(axis=1)
        )  # and all who need no more than they do
        part = left[chosen]
        turn.extend(_by_ratio(length, needs[part] & open_elements, weight[part], part))
        parts.append((density, float(length[closed].sum())))
        open_elements = open_elements & ~closed
        left = left[~chosen]
    # Users whose elements have no length are done at once.
    waiting = float(weight[(needs & (length > 0)).any(axis=1)].sum())
    bound = 0.0
    for density, span in sorted(parts, reverse=True):
        until = min(span, waiting / density) if density > 0 else span
        bound += until * waiting - 0.5 * density * until**2
        waiting = max(0.0, waiting - density * until)
    alone = float(weight @ (needs @ length))
    return np.array(turn, dtype=np.int64), max(bound, alone) * (1.0 - ROUNDING)


def _densest(length: FloatArray, needs: BoolArray, weight: FloatArray) -> tuple[BoolArray, float]:
    """Return users of the most weight per length of what they need, and a proven bound on it.

    Programme: maximise sum w_k y_k subject to y_k <= z_e for what user k needs, sum l_e z_e <= 1.
    Its dual spreads w_k over the elements; any spread proves the largest load per length.

    Parameters
    ----------
    length
        (E,) > 0, s.
    needs
        (K, E) bool, every user needs something.
    weight
        (K,).

    Returns
    -------
    (K,) bool, at least one; and the bound, 1/s.
    """
    from scipy.optimize import linprog
    from scipy.sparse import coo_array

    users, elements = needs.shape
    user, element = np.nonzero(needs)
    pairs = len(user)
    row = np.arange(pairs)
    scale = length.sum()
    table = coo_array(
        (
            np.concatenate([np.ones(pairs), -np.ones(pairs), length / scale]),
            (
                np.concatenate([row, row, np.full(elements, pairs)]),
                np.concatenate([user, users + element, users + np.arange(elements)]),
            ),
        ),
        shape=(pairs + 1, users + elements),
    ).tocsr()
    right = np.zeros(pairs + 1)
    right[-1] = 1.0
    found = linprog(
        -np.concatenate([weight, np.zeros(elements)]), A_ub=table, b_ub=right, method="highs"
    )
    spread, value = np.ones(pairs), None
    if found.x is not None:
        value = found.x[:users]
        spread = np.maximum(-np.asarray(found.ineqlin.marginals)[:-1], 0.0)
    # Whatever the programme says: every user's weight is spread in full.
    given = np.bincount(user, weights=spread, minlength=users)
    spread = np.where(given[user] > 0, spread, 1.0)
    given = np.bincount(user, weights=spread, minlength=users)
    load = np.bincount(element, weights=spread * (weight / given)[user], minlength=elements)
    bound = float((load / length).max())
    if value is None:
        return np.ones(users, dtype=bool), bound
    # Every level of the solution is a densest set; rounding aside, the best level is it.
    levels = np.unique(value[value > value.max() * 1e-6])
    density = [
        weight[value >= level].sum() / length[needs[value >= level].any(axis=0)].sum()
        for level in levels
    ]
    return np.asarray(value >= levels[int(np.argmax(density))]), bound


def _by_ratio(
    length: FloatArray, needs: BoolArray, weight: FloatArray, users: IntArray
) -> list[int]:
    """Return users in turn: next is who weighs most per length of what is still missing.

    Parameters
    ----------
    length
        (E,) s.
    needs
        (K', E) bool.
    weight, users
        (K',) of each, and its number.
    """
    missing, left, turn = needs.copy(), list(range(len(users))), []
    while left:
        wait = missing[left] @ length
        ratio = np.where(wait > 0, weight[left] / np.where(wait > 0, wait, 1.0), np.inf)
        chosen = left.pop(int(ratio.argmax()))
        turn.append(int(users[chosen]))
        missing &= ~missing[chosen]
    return turn
