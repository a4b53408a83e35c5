"""Bounds on the rate of messages that together cover a user group."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from two_users import by_hand, two_users

from finecast.solvers.beamforming.arguments.messages import KnownBeams, prove_beams
from finecast.solvers.beamforming.by_name import KERNEL, Proof, solve_messages
from finecast.solvers.bounds import certified_lower_bound
from finecast.solvers.cover_cuts import GroupMessages, cut_efficiency
from finecast.solvers.covers import (
    best_cover,
    common_channel_efficiency,
    cover_efficiency,
    efficiency,
    priced_cover,
    proven_cover_efficiency,
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


def proven(channel, error, power, cap=np.inf):
    """Bits of one message to all by a tree, the dual points, and the bound on covers of it."""
    batch, users, nodes, _ = channel.shape
    masks = {"node_mask": np.ones((batch, nodes), bool), "user_mask": np.ones((batch, users), bool)}
    found = solve_messages(KERNEL, channel, error, power, **masks)
    known = KnownBeams(found.beamformer, found.snr, found.bound)
    better, _ = prove_beams(channel, error, power, **masks, known=known)

    def cover(proof: Proof):
        return proven_cover_efficiency(
            channel, error, power, **masks, bound=better.bound, proof=proof, cap=cap
        )

    return efficiency(better.bound, cap), found.proof, cover


def test_the_bound_of_one_message_is_not_that_of_covers():
    """Without errors, by hand: two nodes, three users whose second channels are a third of a turn
    apart. One message gives all 1, a pair gets 3, a single user 4. At low SNR rates go with it, so
    a pair and then the third take 1/3 + 1/4 where one message takes 1."""
    turn = np.exp(2j * np.pi * np.arange(3) / 3)
    channel = 0.01 * np.stack([np.ones(3), turn], axis=1)[None, :, :, None]
    one, proof, cover = proven(channel, np.zeros((1, 3, 2)), np.ones(2))
    unit = 1e-4 / np.log(2)
    assert one[0] == pytest.approx(unit, rel=2e-3)
    assert cover(proof)[0] >= unit / (1 / 3 + 1 / 4) * 0.999
    # The relaxation, which bounds covers too, has 2.
    assert cover(proof)[0] <= 2.01 * unit


@pytest.mark.parametrize("error", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("level", [0.03, 1.0, 30.0])
def test_no_partition_beats_the_bound_of_a_proven_message(error, level):
    """At low and high SNR, with dual points as they are and corrupted: no partition at the rates of
    beams that exist is faster. At high SNR and small errors the bound is that of one message."""
    rng = np.random.default_rng(4)
    users, nodes, power = 4, 2, np.array([1.0, 2.0])
    channel = level * (rng.normal(size=(6, users, nodes, 1)) + 1j * rng.normal(size=(6, 4, 2, 1)))
    radius = error * np.linalg.norm(channel, axis=3)
    one, proof, cover = proven(channel, radius, power, cap=9.0)
    bounds = [cover(proof)]
    # The condition of a dual point stays true where slopes shrink and prices grow.
    for _ in range(3):
        bent = Proof(
            rng.random(proof.weight.shape),
            proof.slope * rng.uniform(0.1, 1, proof.slope.shape),
            proof.price * rng.uniform(1, 10, proof.price.shape),
        )
        bounds.append(cover(bent))
    member = subsets(users)
    for b in range(6):
        shape = (len(member), users, nodes)
        beams = solve_messages(
            KERNEL,
            np.broadcast_to(channel[b], (*shape, 1)),
            np.broadcast_to(radius[b], shape),
            power,
            node_mask=np.ones((len(member), nodes), bool),
            user_mask=member,
        )
        rate = efficiency(beams.snr, 9.0)
        with np.errstate(divide="ignore"):
            seconds = {m.tobytes(): t for m, t in zip(member, 1.0 / rate, strict=True)}
        fastest = min(
            sum(seconds[np.isin(range(users), part).tobytes()] for part in way)
            for way in partitions(tuple(range(users)))
        )
        for bound in bounds:
            assert bound[b] >= 1.0 / fastest * (1 - 1e-12)
            assert bound[b] >= one[b]
    if error <= 0.1 and level > 1:
        np.testing.assert_allclose(bounds[0], one, rtol=2e-3)


def test_large_groups_are_left_to_the_relaxation():
    """Prices are for ten users at most: of more, a proven message says nothing of covers."""
    rng = np.random.default_rng(0)
    channel = rng.normal(size=(1, 11, 4, 2)) + 1j * rng.normal(size=(1, 11, 4, 2))
    masks = {"node_mask": np.ones((1, 4), bool), "user_mask": np.ones((1, 11), bool)}
    found = solve_messages(KERNEL, channel, np.zeros((1, 11, 4)), np.ones(4), **masks)
    cover = proven_cover_efficiency(
        channel,
        np.zeros((1, 11, 4)),
        np.ones(4),
        **masks,
        bound=found.bound,
        proof=found.proof,
        cap=9.0,
    )
    assert np.isinf(cover).all()
