"""States of the users: how many of each group asked last for what is in question.

For one kind of blocks (blocks of the same models) all that the past requests tell is z in {0,1}^K:
bit k says that the last request of user k contains the kind. User k alone is a two-state chain

    P(z'_k = 1 | z_k) = a_k (rho z_k + (1 - rho) q_k) + (1 - a_k) z_k,

q_k the chance that a fresh draw contains it, rho the persistence, a_k the activity. Users are
independent. 2^K states are few for up to about 14 users. Beyond, users are counted by groups: the
state is (n_1, ..., n_G), 0 <= n_g <= m_g. Where the users of a group draw alike (same q, same a),
the counts are a Markov chain, and nothing is lost of the demand.

A distribution over states is kept as two factors, one of the first groups and one of the others:
their outer product is never formed, and an expectation is two matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray

Factors = tuple[FloatArray, FloatArray]
"""(..., S_1) and (..., S_2): the chances of the first groups' counts and of the others'."""


@dataclass(frozen=True, eq=False)
class UserGroups:
    """Users in groups. States are numbered with the count of the last group running fastest.

    Attributes
    ----------
    group
        (K,) group of every user, from 0 without a gap.
    """

    group: IntArray

    @cached_property
    def size(self) -> IntArray:
        """(G,) users of every group."""
        return np.bincount(self.group)

    @cached_property
    def states(self) -> int:
        """Number of states S."""
        return number_of_states(self.size)

    @cached_property
    def first(self) -> int:
        """How many groups the first factor has, so that the larger factor is smallest."""
        larger = [
            max(number_of_states(self.size[:cut]), number_of_states(self.size[cut:]))
            for cut in range(len(self.size) + 1)
        ]
        return int(np.argmin(larger))

    @cached_property
    def counts(self) -> IntArray:
        """(S, G) counts of every state."""
        return np.indices(tuple(self.size + 1)).reshape(len(self.size), -1).T

    @cached_property
    def share(self) -> FloatArray:
        """(S, K) of every user: the count of its group over the size of the group."""
        return (self.counts / self.size)[:, self.group]

    def state(self, wants: BoolArray | FloatArray) -> IntArray:
        """Return (...) the states of who wants it, (..., K)."""
        stride = np.append(np.cumprod(self.size[:0:-1] + 1)[::-1], 1)
        state: IntArray = np.asarray(wants).astype(np.int64) @ stride[self.group]
        return state

    def distribution(self, chance: FloatArray) -> Factors:
        """Return the distribution over states of users that are in it by chance.

        Parameters
        ----------
        chance
            (..., K), independent.
        """
        users = [np.flatnonzero(self.group == g) for g in range(len(self.size))]
        parts = []
        for groups in (users[: self.first], users[self.first :]):
            factor = np.ones((*chance.shape[:-1], 1))
            for own in groups:
                count = count_distribution(chance[..., own])
                joint = factor[..., :, None] * count[..., None, :]
                factor = joint.reshape(*chance.shape[:-1], -1)
            parts.append(factor)
        return parts[0], parts[1]

    def transitions(self, stay: FloatArray, join: FloatArray) -> Factors:
        """Return the transition matrices of the counts, rows by the state before.

        Exact where the users of a group have the same chances; else by their means.

        Parameters
        ----------
        stay, join
            (..., K) chance to be in it for a user that was, and for one that was not.

        Returns
        -------
        (..., S_1, S_1) and (..., S_2, S_2).
        """
        mean = np.zeros((len(self.group), len(self.group)))  # over the users of the same group
        alike = self.group[:, None] == self.group
        mean[alike] = (alike / self.size[self.group])[alike]
        stay, join = stay @ mean, join @ mean
        # In a state with count n, the first n users of the group are taken to be those in it.
        rank = np.array([(self.group[:k] == g).sum() for k, g in enumerate(self.group)])
        rows = number_of_states(self.size[: self.first]), number_of_states(self.size[self.first :])
        last = self.counts[: rows[1]]  # all counts of the last groups, none of the first
        early = self.counts[:: rows[1]]  # the other way round
        first, _ = self.distribution(_given(early[:, self.group] > rank, stay, join))
        _, second = self.distribution(_given(last[:, self.group] > rank, stay, join))
        return first, second


def alike(features: FloatArray, most: int) -> UserGroups:
    """Return users in as many groups as leave at most so many states, those alike together.

    From groups of one, the two groups are joined whose joining adds least to the sum of squared
    distances from the means (J. H. Ward, J. Am. Stat. Assoc. 58 (1963) 236-244).

    Parameters
    ----------
    features
        (K, F) what users are compared by.
    most
        States, at least K + 1.
    """
    group = np.arange(len(features))
    size, mean = np.ones(len(features), dtype=np.int64), np.array(features, dtype=np.float64)
    while number_of_states(size) > most:
        apart = ((mean[:, None] - mean) ** 2).sum(axis=2)
        added = apart * size[:, None] * size / (size[:, None] + size)
        added[np.tril_indices(len(size))] = np.inf
        kept, gone = (int(g) for g in np.unravel_index(added.argmin(), added.shape))
        mean[kept] = (size[kept] * mean[kept] + size[gone] * mean[gone]) / size[[kept, gone]].sum()
        size[kept] += size[gone]
        mean, size = np.delete(mean, gone, axis=0), np.delete(size, gone)
        group[group == gone] = kept
        group[group > gone] -= 1
    return UserGroups(group)


def number_of_states(size: IntArray) -> int:
    """Return the number of states of groups of these sizes."""
    return int(np.prod(np.asarray(size, dtype=object) + 1))


def count_distribution(chance: FloatArray) -> FloatArray:
    """Return (..., m + 1) the distribution of the number of successes of m independent trials.

    Parameters
    ----------
    chance
        (..., m).
    """
    count = np.ones((*chance.shape[:-1], 1))
    for trial in range(chance.shape[-1]):
        p = chance[..., trial, None]
        more = np.zeros((*count.shape[:-1], count.shape[-1] + 1))
        more[..., :-1] = (1.0 - p) * count
        more[..., 1:] += p * count
        count = more
    return count


def expected(table: FloatArray, factors: Factors) -> FloatArray:
    """Return the means of tables over states.

    Parameters
    ----------
    table
        (X, B, S), of B kinds.
    factors
        (B, P, S_1) and (B, P, S_2), P distributions for each kind.

    Returns
    -------
    (X, B, P).
    """
    first, second = factors
    split = table.reshape(*table.shape[:-1], first.shape[-1], second.shape[-1])
    by_first = split @ np.swapaxes(second, 1, 2)  # (X, B, S_1, P)
    return np.asarray(np.einsum("xbfp,bpf->xbp", by_first, first))


def expected_next(table: FloatArray, factors: Factors) -> FloatArray:
    """Return the means of tables over the next states, given each state.

    Parameters
    ----------
    table
        (X, B, S), of B kinds.
    factors
        Transition matrices, (B, S_1, S_1) and (B, S_2, S_2).

    Returns
    -------
    (X, B, S).
    """
    first, second = factors
    split = table.reshape(*table.shape[:-1], first.shape[-1], second.shape[-1])
    by_first = split @ np.swapaxes(second, 1, 2)
    return np.asarray(first @ by_first).reshape(table.shape)


def _given(was_in: BoolArray, stay: FloatArray, join: FloatArray) -> FloatArray:
    """Return (..., S, K) the chances of every user in every state before."""
    return np.where(was_in, stay[..., None, :], join[..., None, :])
