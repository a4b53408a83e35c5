"""Time on the air of groups in closed form, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from finecast.solvers.placement.air_time import Air, group_times, serving_sets

MEMBER = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=bool)
REACH = np.array([[3.0, 1.0], [1.0, 2.0]])
CLOUD = np.array([4.0, 5.0])
ALL = (np.array([True, True]), np.array([True, True]))


def air(exponent: float = 0.0, cap: float = np.inf, reach: np.ndarray = REACH) -> Air:
    """Return channels of two users at two nodes, in 8 Hz: 1 / log2(1 + snr) seconds per byte."""
    return Air(reach, exponent, 8.0, cap)


def test_one_user_has_its_exact_rate():
    """Amplitudes of the senders add up: 3, 1, 3 + 1; the cap holds."""
    share = np.array([[1.0, 0.0]])
    seconds = air().seconds(share, MEMBER[1:])
    assert seconds[0] == pytest.approx(1.0 / np.log2(1.0 + np.array([9.0, 1.0, 16.0])))
    assert air(cap=2.0).seconds(share, MEMBER[3:])[0, 0] == pytest.approx(0.5)


def test_a_group_shares_the_power():
    """1 / (1/16 + 1/9) of both nodes together, times 2^c; nobody takes no time."""
    share = np.array([[1.0, 1.0], [0.0, 0.0]])
    pooled = 1.0 / (1.0 / 16.0 + 1.0 / 9.0)
    for exponent in (0.0, 0.7, 1.0):
        seconds = air(exponent).seconds(share, MEMBER[3:])
        snr = 2.0**exponent * pooled
        assert seconds[:, 0] == pytest.approx([1.0 / np.log2(1.0 + snr), 0.0])


def test_draws_are_averaged():
    """The mean of times, not the time of mean amplitudes."""
    share = np.array([[1.0, 0.0], [1.0, 1.0]])
    two = air(0.5, reach=np.stack([REACH, 2.0 * REACH])).seconds(share, MEMBER[1:])
    each = [air(0.5, reach=x * REACH).seconds(share, MEMBER[1:]) for x in (1.0, 2.0)]
    assert two == pytest.approx((each[0] + each[1]) / 2.0)


def test_all_in_one_message():
    """Infinite from no node, even for nobody: else the seconds of the group."""
    share = np.array([[0.0, 0.0], [1.0, 1.0]])
    times = group_times(air(), share, [ALL], MEMBER, CLOUD)
    assert np.isinf(times[0]).all()
    assert times[1:] == pytest.approx(air().seconds(share, MEMBER[1:]).T)


def test_parts_of_nodes_of_their_own():
    """Node 0 serves user 0, node 1 user 1; who lacks the block fetches it from the cloud first."""
    parts = [(np.array([k == 0, k == 1]), np.array([k == 0, k == 1])) for k in range(2)]
    times = group_times(air(), np.array([[1.0, 1.0], [0.0, 1.0]]), parts, MEMBER, CLOUD)
    one, two = 1.0 / np.log2(10.0), 1.0 / np.log2(5.0)
    assert times[3] == pytest.approx([one + two, two])
    assert times[1] == pytest.approx([one + two + 5.0, two + 5.0])
    assert times[2] == pytest.approx([one + 4.0 + two, two])


def test_serving_sets():
    """A part of senders that lack the block is served by them after the cheapest fetch."""
    serving, fetched = serving_sets(MEMBER, np.array([True, False]), CLOUD)
    assert serving.tolist() == [[True, False]] * 4
    assert fetched.tolist() == [4.0, 0.0, 4.0, 0.0]
