"""Network, decibels, layouts and dropped users."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finecast.problem.network import (
    Network,
    db_to_linear,
    dbm_to_w,
    drop_users,
    hexagonal_positions,
    square_positions,
    thermal_noise_w,
)


def fields(**changes):
    """Two nodes, linked one way at 1 Gb/s."""
    return {
        "storage": [10, 20],
        "power": [1.0, 2.0],
        "backhaul_rate": [[5.0, 1e9], [0.0, 7.0]],
        "cloud_rate": [1e8, 2e8],
        "bandwidth": 1e7,
        "noise_power": 1e-13,
    } | changes


def test_network_holds_what_it_is_given():
    """Arrays arrive in their type, read-only, and without what stood on the diagonal."""
    network = Network(**fields())
    assert network.nodes == 2
    assert network.storage.dtype == np.int64
    np.testing.assert_array_equal(network.backhaul_rate, [[0.0, 1e9], [0.0, 0.0]])
    np.testing.assert_array_equal(network.link_rate, [[0.0, 1e9], [0.0, 0.0], [1e8, 2e8]])
    assert network.max_spectral_efficiency == np.inf
    assert network.node_position is None
    for array in (network.storage, network.power, network.cloud_rate, network.link_rate):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    with pytest.raises(dataclasses.FrozenInstanceError):
        network.bandwidth = 1.0


def test_network_leaves_the_caller_its_arrays():
    """The diagonal is cleared in a copy."""
    backhaul_rate = np.full((2, 2), 3.0)
    Network(**fields(backhaul_rate=backhaul_rate))
    assert np.all(backhaul_rate == 3.0)


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"storage": [10, -1]}, ["storage[1]", "-1", ">= 0"]),
        ({"storage": [1.5, 2.0]}, ["storage", "float64", "int"]),
        ({"storage": []}, ["storage", "at least 1"]),
        ({"power": [1.0]}, ["power", "(1,)", "(2,)"]),
        ({"power": [1.0, np.nan]}, ["power[1]", "nan"]),
        ({"backhaul_rate": [[0.0, -1.0], [0.0, 0.0]]}, ["backhaul_rate[0, 1]", "-1", ">= 0"]),
        ({"backhaul_rate": [[0.0, np.inf], [0.0, 0.0]]}, ["backhaul_rate[0, 1]", "inf"]),
        ({"backhaul_rate": [0.0, 0.0]}, ["backhaul_rate", "(2,)", "(2, 2)"]),
        ({"cloud_rate": [1e8, 0.0]}, ["cloud_rate[1]", "0", "> 0"]),
        ({"cloud_rate": [-1e8, 1.0]}, ["cloud_rate[0]", "-1", ">= 0"]),
        ({"bandwidth": 0.0}, ["bandwidth", "0.0", "> 0"]),
        ({"noise_power": -1e-13}, ["noise_power", "-1e-13", "> 0"]),
        ({"noise_power": np.inf}, ["noise_power", "inf"]),
        ({"max_spectral_efficiency": 0.0}, ["max_spectral_efficiency", "> 0"]),
        ({"max_spectral_efficiency": np.nan}, ["max_spectral_efficiency", "nan"]),
        ({"node_position": [[0.0, 0.0]]}, ["node_position", "(1, 2)", "(2, 2)"]),
    ],
)
def test_network_refuses(change, parts):
    """One line names the field, the value, its place and what is allowed."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Network(**fields(**change))
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in parts), message


def test_decibels():
    """30 dBm is 1 W and not 10^30; 3 dB is a factor of 1.9953; 0 dBm is a milliwatt."""
    assert dbm_to_w(30.0) == 1.0
    assert dbm_to_w(0.0) == pytest.approx(1e-3)
    assert dbm_to_w(41.0) == pytest.approx(12.589, abs=1e-3)
    np.testing.assert_allclose(db_to_linear([-10.0, 0.0, 3.0]), [0.1, 1.0, 1.9953], rtol=1e-4)
    with pytest.raises(ValueError, match=r"power_dbm: 100000.0 is not allowed, must be <= 3000"):
        dbm_to_w(1e5)


@pytest.mark.parametrize(
    ("bandwidth_mhz", "noise_figure_db", "noise_dbm"),
    [(10, 7, -97), (10, 9, -95), (20, 7, -94), (20, 9, -92), (100, 7, -87), (100, 9, -85)],
)
def test_thermal_noise(bandwidth_mhz, noise_figure_db, noise_dbm):
    """-174 dBm/Hz over the bandwidth plus the noise figure; the usual values, to the decibel."""
    noise_w = thermal_noise_w(bandwidth_mhz * 1e6, noise_figure_db)
    assert 10 * np.log10(noise_w) + 30 == pytest.approx(noise_dbm, abs=0.02)


def test_thermal_noise_scales_with_bandwidth():
    """Forgetting the bandwidth, or adding it in Hz to decibels, would not give a factor of ten."""
    assert thermal_noise_w(1e8, 9.0) == pytest.approx(10.0 * thermal_noise_w(1e7, 9.0))
    assert thermal_noise_w(1.0, 0.0) == pytest.approx(10 ** (-174 / 10) / 1000)
    with pytest.raises(ValueError, match="bandwidth_hz"):
        thermal_noise_w(0.0, 9.0)


def pairwise(position):
    apart = np.linalg.norm(position[:, None] - position, axis=2)
    return np.sort(apart[np.triu_indices(len(position), 1)])


def test_hexagonal_layouts():
    """3 nodes make a triangle, 4 a rhombus (diagonal sqrt(3)), 7 a full ring, 19 two rings."""
    assert np.all(hexagonal_positions(1, 200.0) == 0.0)
    np.testing.assert_allclose(pairwise(hexagonal_positions(3, 200.0)), [200.0] * 3)
    rhombus = [200.0] * 5 + [200.0 * np.sqrt(3.0)]
    np.testing.assert_allclose(pairwise(hexagonal_positions(4, 200.0)), rhombus)
    ring = np.linalg.norm(hexagonal_positions(7, 200.0), axis=1)
    np.testing.assert_allclose(np.sort(ring), [0.0] + [200.0] * 6, atol=1e-9)
    rings = np.sort(np.linalg.norm(hexagonal_positions(19, 1.0), axis=1))
    np.testing.assert_allclose(rings, [0.0] + [1.0] * 6 + [np.sqrt(3.0)] * 6 + [2.0] * 6, atol=1e-9)


def test_square_layouts():
    """4 nodes make a square; 5 fill a row of three and two of the next."""
    np.testing.assert_allclose(
        square_positions(4, 2.0), [[-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]
    )
    five = square_positions(5, 1.0)
    np.testing.assert_allclose(five - five[0], [[0, 0], [1, 0], [2, 0], [0, 1], [1, 1]])


@given(st.integers(1, 40), st.floats(1.0, 1e4), st.booleans())
def test_layouts_are_centred_and_spaced(nodes, distance, hexagonal):
    """Any count: the mean is the origin and the nearest neighbours stand one distance apart."""
    position = (hexagonal_positions if hexagonal else square_positions)(nodes, distance)
    assert position.shape == (nodes, 2)
    np.testing.assert_allclose(position.mean(axis=0), 0.0, atol=1e-9 * distance)
    if nodes > 1:
        assert pairwise(position)[0] == pytest.approx(distance)


@pytest.mark.parametrize("layout", [hexagonal_positions, square_positions])
def test_layouts_refuse(layout):
    """No nodes, or nodes on one spot."""
    with pytest.raises(ValueError, match="nodes: 0 is not allowed, must be >= 1"):
        layout(0, 200.0)
    with pytest.raises(ValueError, match="inter_site_distance_m"):
        layout(3, 0.0)


def test_users_are_uniform_over_a_cell():
    """One cell of 100 m without its inner 10 m: shares of rings and quadrants as their areas.

    Half the area lies within r^2 = (100^2 + 10^2) / 2, r = 71.06 m. A radius drawn uniformly,
    the classic mistake, would put 68 % there.
    """
    position = drop_users(
        np.random.default_rng(1), [[5.0, 7.0]], 20_000, cell_radius_m=100.0, min_distance_m=10.0
    ) - [5.0, 7.0]
    radius = np.linalg.norm(position, axis=1)
    assert radius.min() >= 10.0
    assert radius.max() <= 100.0
    assert np.mean(radius < 71.06) == pytest.approx(0.5, abs=0.02)
    assert np.mean((position[:, 0] > 0) & (position[:, 1] > 0)) == pytest.approx(0.25, abs=0.02)


def test_overlaps_are_no_denser():
    """Two cells of radius 1 at distance 1: the lens is 1.2284 of the union's 5.0548, 24.3 %.

    Lens area 2 pi / 3 - sqrt(3) / 2. Without the correction it would be 39 %.
    """
    node = np.array([[0.0, 0.0], [1.0, 0.0]])
    position = drop_users(np.random.default_rng(2), node, 20_000, cell_radius_m=1.0)
    distance = np.linalg.norm(position[:, None] - node, axis=2)
    assert distance.min(axis=1).max() <= 1.0
    assert np.mean(distance.max(axis=1) <= 1.0) == pytest.approx(0.2430, abs=0.015)


def test_more_users_keep_the_first():
    """The same generator gives the same users bit for bit, and more users begin with them."""
    node = hexagonal_positions(4, 200.0)
    few, many, again = (
        drop_users(np.random.default_rng(3), node, users, cell_radius_m=115.0, min_distance_m=10.0)
        for users in (5, 700, 700)
    )
    np.testing.assert_array_equal(many, again)
    np.testing.assert_array_equal(few, many[:5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"users": 0}, "users: 0"),
        ({"cell_radius_m": 10.0}, r"cell_radius_m: 10\.0 is not allowed, must be > 10"),
        ({"min_distance_m": -1.0}, "min_distance_m"),
        ({"node_position": [0.0, 1.0]}, "node_position: shape"),
        ({"node_position": np.empty((0, 2))}, "node_position: shape"),
        ({"node_position": [[0.0, np.nan]]}, r"node_position\[0, 1\]"),
    ],
)
def test_drop_users_refuses(change, message):
    """One line for a parameter out of range."""
    arguments = {
        "node_position": [[0.0, 0.0]],
        "users": 3,
        "cell_radius_m": 100.0,
        "min_distance_m": 10.0,
    } | change
    with pytest.raises(ValueError, match=message):
        drop_users(np.random.default_rng(0), **arguments)


def test_no_room_for_users():
    """A cell that ends a hair beyond the smallest distance: said, and not searched for ever."""
    with pytest.raises(ValueError, match="min_distance_m: 30 leaves"):
        drop_users(
            np.random.default_rng(0),
            [[0.0, 0.0]],
            2,
            cell_radius_m=30.0 * (1.0 + 1e-12),
            min_distance_m=30.0,
        )
