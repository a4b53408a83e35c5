"""Counts of users: their numbers, distributions and transitions, against enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from finecast.solvers.placement.user_states import (
    UserGroups,
    alike,
    count_distribution,
    expected,
    expected_next,
)

GROUPS = ([0, 1, 2, 3], [0, 1, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0], [0])


def joint(groups: UserGroups, chance: np.ndarray) -> np.ndarray:
    """Return the distribution over states, by running through all subsets of users."""
    found = np.zeros(groups.states)
    for wants in product((0, 1), repeat=len(chance)):
        wants = np.array(wants)
        found[groups.state(wants)] += np.prod(np.where(wants, chance, 1.0 - chance))
    return found


@pytest.mark.parametrize("group", GROUPS)
def test_states_are_numbered_as_their_counts(group):
    """Row s of the counts is the state that `state` numbers s; each number is used once."""
    groups = UserGroups(np.array(group))
    seen = set()
    for wants in product((False, True), repeat=len(group)):
        state = int(groups.state(np.array(wants)))
        counted = np.bincount(groups.group, weights=wants, minlength=len(groups.size))
        assert groups.counts[state].tolist() == counted.tolist()
        assert groups.share[state].sum() == pytest.approx(sum(wants))
        seen.add(state)
    assert seen == set(range(groups.states))


@pytest.mark.parametrize("group", GROUPS)
def test_distribution_is_that_of_all_subsets(group):
    """The outer product of the two factors, and the mean of a table under it."""
    rng = np.random.default_rng(0)
    groups = UserGroups(np.array(group))
    chance = rng.random((2, 5, len(group)))
    first, second = groups.distribution(chance)
    table = rng.normal(size=(3, 2, groups.states))
    mean = expected(table, (first, second))
    for b, p in np.ndindex(2, 5):
        want = joint(groups, chance[b, p])
        assert np.outer(first[b, p], second[b, p]).ravel() == pytest.approx(want, abs=1e-15)
        assert mean[:, b, p] == pytest.approx(table[:, b] @ want)


@pytest.mark.parametrize("group", GROUPS)
def test_transitions_are_those_of_users_alike(group):
    """With the same chances within a group, every row is the distribution after that state."""
    rng = np.random.default_rng(1)
    groups = UserGroups(np.array(group))
    stay, join = rng.random((2, 2, len(groups.size)))[:, :, groups.group]
    table = rng.normal(size=(3, 2, groups.states))
    after = expected_next(table, groups.transitions(stay, join))
    for b, *wants in product((0, 1), *[(0, 1)] * len(group)):
        want = joint(groups, np.where(wants, stay[b], join[b]))
        assert after[:, b, groups.state(np.array(wants))] == pytest.approx(table[:, b] @ want)


def test_binomial():
    """Three fair trials: 1, 3, 3, 1 out of 8. No trial: certainly no success."""
    assert count_distribution(np.full(3, 0.5)) == pytest.approx(np.array([1, 3, 3, 1]) / 8)
    assert count_distribution(np.empty((2, 0))).tolist() == [[1.0], [1.0]]


def test_those_alike_are_counted_together():
    """Two pairs of equal users: joined first; the states stay within the limit, groups compact."""
    features = np.array([[0.0], [5.0], [0.0], [5.0], [9.0]])
    assert alike(features, 32).group.tolist() == [0, 1, 2, 3, 4]
    assert alike(features, 18).group.tolist() == [0, 1, 0, 1, 2]
    assert alike(features, 6).group.tolist() == [0, 0, 0, 0, 0]
    for most in range(6, 33):
        groups = alike(features, most)
        assert groups.states <= most
        assert sorted(set(groups.group.tolist())) == list(range(len(groups.size)))
