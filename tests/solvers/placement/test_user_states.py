"""Counts of users: their numbers, distributions and transitions, against enumeration."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from finecast.solvers.placement.user_states import (
    UserGroups,
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
    chance = rng.random((2, len(group)))
    first, second = groups.distribution(chance)
    table = rng.normal(size=(3, groups.states))
    mean = expected(table, (first, second))
    for b in range(2):
        want = joint(groups, chance[b])
        assert np.outer(first[b], second[b]).ravel() == pytest.approx(want, abs=1e-15)
        assert mean[:, b] == pytest.approx(table @ want)


@pytest.mark.parametrize("group", GROUPS)
def test_transitions_are_those_of_users_alike(group):
    """With the same chances within a group, every row is the distribution after that state."""
    rng = np.random.default_rng(1)
    groups = UserGroups(np.array(group))
    stay, join = (rng.random(len(groups.size))[groups.group] for _ in range(2))
    table = rng.normal(size=(3, groups.states))
    after = expected_next(table, groups.transitions(stay, join))
    for wants in product((0, 1), repeat=len(group)):
        wants = np.array(wants)
        want = joint(groups, np.where(wants, stay, join))
        assert after[:, groups.state(wants)] == pytest.approx(table @ want)


def test_binomial():
    """Three fair trials: 1, 3, 3, 1 out of 8. No trial: certainly no success."""
    assert count_distribution(np.full(3, 0.5)) == pytest.approx(np.array([1, 3, 3, 1]) / 8)
    assert count_distribution(np.empty((2, 0))).tolist() == [[1.0], [1.0]]
