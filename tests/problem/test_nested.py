"""Nested draws: a larger instance holds the smaller one, and the numbers are random as ever."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from finecast.problem.instance import Instance
from finecast.problem.nested import NestedGenerator
from finecast.problem.scenario import read_scenario

shapes = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@given(shapes, st.integers(0, 2**63 - 1), st.data())
def test_a_smaller_array_is_the_corner_of_a_larger_one(
    shape: list[int], seed: int, data: st.DataObject
) -> None:
    larger = [size + data.draw(st.integers(0, 3)) for size in shape]
    small, large = (
        NestedGenerator(seed, "x").standard_normal(tuple(sizes)) for sizes in (shape, larger)
    )
    assert np.array_equal(small, large[tuple(slice(size) for size in shape)])


def test_numbers_are_uniform_and_independent() -> None:
    rng = NestedGenerator(3, "test")
    drawn = rng.random((300, 40, 50))
    assert stats.kstest(drawn.ravel(), "uniform").pvalue > 1e-3
    normal = rng.standard_normal((300, 40, 50))
    assert stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
    # Neighbours along every axis, other calls, other seeds, parts and numbers.
    bound = 5.0 / np.sqrt(normal.size)
    for axis in range(3):
        a, b = (np.take(normal, range(i, normal.shape[axis] - 1 + i), axis) for i in (0, 1))
        assert abs(np.mean(a * b)) < bound
    others = [(4, "test", None), (3, "tesu", None), (3, "test", 0), (3, "test", 1)]
    first = NestedGenerator(3, "test").standard_normal(normal.shape)
    assert abs(np.mean(first * normal)) < bound
    for other in others:
        assert abs(np.mean(NestedGenerator(*other).standard_normal(normal.shape) * first)) < bound
    # Bits of all places are fair.
    bits = (drawn[..., None] * 2.0 ** np.arange(1, 20)).astype(np.int64) & 1
    assert np.abs(bits.mean(axis=(0, 1, 2)) - 0.5).max() < 5 * 0.5 / np.sqrt(drawn.size)


def drawn(**changes: int) -> Instance:
    # Requests, tastes by node and errors over several slots; fading and links besides.
    scenario = read_scenario("persist").with_({"nested": True, "slots": 4})
    return scenario.with_({key.replace("_", ".", 1): n for key, n in changes.items()}).generate(5)


def test_more_users_keep_what_was_there() -> None:
    few, many = drawn(users_count=6), drawn(users_count=11)
    assert np.array_equal(few.user_position, many.user_position[:6])  # type: ignore[index]
    assert np.array_equal(few.requests, many.requests[:, :6])
    assert np.array_equal(few.demand.preference, many.demand.preference[:, :6])
    assert np.allclose(few.channel_estimate, many.channel_estimate[:, :6], rtol=1e-12)
    assert np.allclose(few.channel_true, many.channel_true[:, :6], rtol=1e-12)


def test_more_antennas_slots_and_storage_keep_what_was_there() -> None:
    few, many = drawn(nodes_antennas=2), drawn(nodes_antennas=5)
    assert np.array_equal(few.requests, many.requests)
    assert np.allclose(few.channel_estimate, many.channel_estimate[..., :2], rtol=1e-12)
    short, long = drawn(slots=2), drawn(slots=4)
    assert np.array_equal(short.requests, long.requests[:2])
    assert np.allclose(short.channel_estimate, long.channel_estimate[:2], rtol=1e-12)


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 1000))
def test_more_nodes_move_those_alone_whom_a_new_cell_takes(seed: int) -> None:
    scenario = read_scenario("persist").with_({"nested": True, "users.count": 200, "slots": 1})
    few, many = (scenario.with_({"nodes.count": n}).generate(seed) for n in (4, 5))
    assert few.network.node_position is not None
    assert many.network.node_position is not None
    assert np.array_equal(few.network.node_position, many.network.node_position[:4])
    assert np.array_equal(few.network.cloud_rate, many.network.cloud_rate[:4])
    assert np.array_equal(few.network.backhaul_rate, many.network.backhaul_rate[:4, :4])
    assert few.user_position is not None
    assert many.user_position is not None
    stayed = (few.user_position == many.user_position).all(axis=1)
    assert 0.6 < stayed.mean() < 0.95  # a fifth of the cells is new, and overlaps


def test_a_scenario_that_is_not_nested_is_drawn_as_before() -> None:
    assert read_scenario("tiny").generate(0).content_hash.startswith("36ff3b7865ea")


def test_users_are_spread_as_by_the_other_way() -> None:
    scenario = read_scenario("persist").with_({"users.count": 3000, "slots": 1})
    radii = []
    for nested in (False, True):
        instance = scenario.with_({"nested": nested}).generate(1)
        node, user = instance.network.node_position, instance.user_position
        assert node is not None
        assert user is not None
        radii.append(np.linalg.norm(user[:, None] - node, axis=2).min(axis=1))
    assert stats.ks_2samp(*radii).pvalue > 1e-3


def test_what_leaves_no_room_is_refused() -> None:
    scenario = read_scenario("persist").with_(
        {"nested": True, "users.min_distance_m": 99.9999, "users.cell_radius_m": 100.0}
    )
    with pytest.raises(ValueError, match="no room"):
        scenario.generate(0)
