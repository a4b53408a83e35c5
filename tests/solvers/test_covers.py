"""Bounds on the rate of messages that together cover a user group."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from two_users import by_hand, two_users

from finecast.solvers.beamforming.by_name import KERNEL, solve_messages
from finecast.solvers.bounds import certified_lower_bound
from finecast.solvers.cover_cuts import GroupMessages, cut_efficiency
from finecast.solvers.covers import (
    best_cover,
    common_channel_efficiency,
    cover_efficiency,
    efficiency,
    priced_cover,
    subsets,
)


@pytest.mark.parametrize("error", [0.0, 0.1, 0.6, 0.8])
def test_two_users_by_hand(error):
    """The bound is the faster of one message to both and one to each; alone, that of the system."""
    together, apart = by_hand(error)
    instance = two_users(error)
    assert certified_lower_bound(instance) == pytest.approx(min(together, apart), rel=1e-8)
    assert certified_lower_bound(instance) <= min(together, apart)
    assert certified_lower_bound(instance, restrict="unicast") == pytest.approx(apart, rel=1e-8)
    if together < np.inf:
        alone = certified_lower_bound(instance, restrict="one-message")
        assert alone == pytest.approx(together, rel=1e-8)
        assert alone <= together


def test_prices_by_hand():
    """Three users: alone 3 each, pairs 1, all at once 0.1. Messages of their own take 1 s/bit."""
    size = subsets(3).sum(axis=1)
    of_subset = np.array([0.0, 3.0, 1.0, 0.1])[size]
    assert best_cover(of_subset, 3) == pytest.approx(1.0, rel=1e-12)
    # At the price of one user alone the others are free, which is a bound too, of 3.
    assert priced_cover(of_subset[None], np.array([[1.0, 0.0, 0.0]])) == pytest.approx(3.0)
    # A user out of reach is not covered at any rate.
    of_subset[0] = 0.0
    assert best_cover(of_subset, 3) == 0.0


def partitions(users: tuple[int, ...]):
    """Yield every partition of some users."""
    if not users:
        yield []
        return
    first, rest = users[0], users[1:]
    for count in range(len(rest) + 1):
        for others in combinations(rest, count):
            left = tuple(user for user in rest if user not in others)
            yield from ([(first, *others), *more] for more in partitions(left))


@pytest.mark.parametrize("error", [0.05, 0.3, 0.5, 0.7, 0.9])
def test_no_partition_beats_the_bound(error):
    """On random channels no partition, at the rates of beams that exist, beats the bound.

    Up to errors of a tenth it stays that of one message, but for weak channels."""
    rng = np.random.default_rng(3)
    users, nodes, antennas = 4, 2, 2
    power, cap = np.array([1.0, 2.0]), 7.0
    for _ in range(2):
        shape = (users, nodes, antennas)
        channel = rng.normal(size=shape) + 1j * rng.normal(size=shape)
        channel *= 10 ** rng.uniform(-0.5, 1.5, size=(users, 1, 1))
        radius = error * np.linalg.norm(channel, axis=2) * rng.uniform(0.5, 1.0, size=(users, 1))
        member = subsets(users)
        count = len(member)
        problem = (
            np.broadcast_to(channel, (count, *channel.shape)),
            np.broadcast_to(radius, (count, *radius.shape)),
            power,
        )
        masks = {"node_mask": np.ones((count, nodes), dtype=bool), "user_mask": member}
        found = solve_messages(KERNEL, *problem, **masks)
        cover = cover_efficiency(*problem, bound=found.bound, proof=found.proof, cap=cap, **masks)
        common = common_channel_efficiency(*problem, cap=cap, **masks)
        cut = cut_efficiency(GroupMessages(*problem, **masks, cap=cap))
        one = efficiency(found.bound, cap)
        assert (cover >= one).all()
        with np.errstate(divide="ignore"):
            seconds = dict(
                zip(map(tuple, member.tolist()), 1 / efficiency(found.snr, cap), strict=True)
            )
        for row, listeners in enumerate(member):
            everybody = tuple(int(k) for k in np.flatnonzero(listeners))
            best = min(
                sum(seconds[tuple(np.isin(np.arange(users), part).tolist())] for part in parts)
                for parts in partitions(everybody)
            )
            assert 1 / cover[row] <= best
            assert 1 / common[row] <= best
            assert 1 / cut[row] <= best
            # Pairs and larger sets, bounded one by one, come near the best partition.
            if error in (0.5, 0.7):
                assert 1 / cut[row] >= 0.9 * best
        if error == 0.05:
            assert cover == pytest.approx(one, rel=1e-3)


def test_large_errors_are_bounded_at_a_common_channel():
    """Four users, 45 degrees apart, two antennas, errors of 0.8 of the norm 40: 8 is left of it.

    Half of the power in each of two orthogonal directions gives all of them an SNR of 8^2 / 2, and
    no covariance gives more to all: their SNRs sum to 2 x 8^2.
    """
    angle = np.arange(4) * np.pi / 4
    channel = 40 * np.stack([np.cos(angle), np.sin(angle)], axis=1)[:, None, :].astype(complex)
    radius = np.full((4, 1), 0.8 * 40.0)
    problem = channel[None], radius[None], np.ones(1)
    masks = {"node_mask": np.ones((1, 1), dtype=bool), "user_mask": np.ones((1, 4), dtype=bool)}
    [common] = common_channel_efficiency(*problem, cap=50.0, **masks)
    assert common == pytest.approx(np.log2(1 + 32), rel=1e-3)
    assert common >= np.log2(1 + 32)
