"""Path loss and line-of-sight probability against TR 38.901, by tables and by hand."""

import math

import numpy as np
import pytest

from finecast.problem.pathloss import (
    ENVIRONMENTS,
    breakpoint_distance_m,
    environment_of,
    los_probability,
    path_loss_db,
)

DISTANCES_M = [50.0, 100.0, 200.0, 250.0, 500.0]
TABLE_DB = {
    ("umi", True): [79.1, 85.3, 91.6, 95.1, 107.1],
    ("umi", False): [94.2, 104.6, 115.2, 118.6, 129.3],
    ("uma", True): [77.2, 83.1, 89.6, 91.7, 98.3],
    ("uma", False): [92.5, 103.0, 114.5, 118.2, 129.9],
    ("simple", False): [79.2, 90.5, 101.8, 105.5, 116.8],
}


@pytest.mark.parametrize(("environment", "los"), list(TABLE_DB))
def test_published_values(environment, los):
    """At 3.5 GHz the formulas give the tabulated values, rounded to 0.1 dB, on both slopes."""
    loss = path_loss_db(environment, los, DISTANCES_M, 3.5)
    np.testing.assert_allclose(loss, TABLE_DB[environment, los], rtol=0, atol=0.0501)


def test_one_value_by_hand():
    """UMi LOS at 100 m: the slant is sqrt(100^2 + 8.5^2) = 100.361 m, so 32.4 + 42.033 + 10.881."""
    assert path_loss_db("umi", True, 100.0, 3.5) == pytest.approx(85.3142, abs=1e-3)


@pytest.mark.parametrize(("environment", "breakpoint_m"), [("umi", 210.0), ("uma", 560.0)])
def test_break_point(environment, breakpoint_m):
    """The break point is where the standard puts it, the two slopes meet there, the second is 40.

    UMi: 4 * 9 m * 0.5 m * 3.5e9 / 3e8 = 210 m; UMa: 4 * 24 * 0.5 * 3.5e9 / 3e8 = 560 m.
    """
    usual = environment_of(environment)
    distance = breakpoint_distance_m(3.5, usual.node_height_m)
    assert distance == pytest.approx(breakpoint_m)
    below, above = path_loss_db(environment, True, [distance - 1e-6, distance + 1e-6], 3.5)
    assert above == pytest.approx(below, abs=0.01)
    decade = path_loss_db(environment, True, [1e3, 1e4], 3.5)
    assert decade[1] - decade[0] == pytest.approx(40.0, abs=0.02)


@pytest.mark.parametrize("environment", ["umi", "uma"])
def test_no_line_of_sight_never_helps(environment):
    """The maximum in the NLOS formula holds everywhere, near the node as well."""
    distance = np.geomspace(10.0, 5000.0, 200)
    hidden = path_loss_db(environment, False, distance, 3.5)
    assert np.all(hidden >= path_loss_db(environment, True, distance, 3.5))
    assert np.all(np.diff(hidden) > 0)


def test_no_line_of_sight_is_at_least_line_of_sight():
    """Where the NLOS formula alone would be the smaller one, the LOS value holds.

    UMa at 10 m and 1 GHz, both antennas 13 m high: 28 + 22 = 50 dB against
    13.54 + 39.08 - 0.6 * 11.5 = 45.72 dB.
    """
    heights = {"node_height_m": 13.0, "user_height_m": 13.0}
    np.testing.assert_allclose(path_loss_db("uma", [True, False], 10.0, 1.0, **heights), 50.0)


def test_mixed_states_and_shapes():
    """A bool per link picks the formula per link, and distances broadcast against it."""
    los = np.array([[True, False], [False, True]])
    loss = path_loss_db("umi", los, np.array([50.0, 100.0]), 3.5)
    np.testing.assert_allclose(loss, [[79.1, 104.6], [94.2, 85.3]], atol=0.0501)


def test_heights_and_carrier_by_hand():
    """Doubling the carrier costs 20 log10 2 (LOS) and 21.3 log10 2 (UMi NLOS); height helps.

    A user of 4.5 m instead of 1.5 m: -0.3 * 3 = -0.9 dB, and a slant of 5.5 m height, not 8.5 m.
    """
    two = math.log10(2.0)
    for los, factor in ((True, 20.0), (False, 21.3)):
        low, high = (path_loss_db("umi", los, 100.0, f) for f in (3.5, 7.0))
        assert high - low == pytest.approx(factor * two)
    raised = path_loss_db("umi", False, 100.0, 3.5, user_height_m=4.5)
    slant = 35.3 * (math.log10(math.hypot(100, 5.5)) - math.log10(math.hypot(100, 8.5)))
    assert raised - path_loss_db("umi", False, 100.0, 3.5) == pytest.approx(-0.9 + slant)
    default = path_loss_db("uma", True, 300.0, 3.5)
    assert path_loss_db("uma", True, 300.0, 3.5, node_height_m=25.0) == default


def test_los_probability_by_hand():
    """1 up to 18 m; UMi at 36 m: 0.5 + 0.5 / e = 0.68394; UMa at 63 m: 2/7 + 5/7 / e = 0.54849."""
    np.testing.assert_array_equal(los_probability("umi", [0.0, 10.0, 18.0]), 1.0)
    assert los_probability("umi", 36.0) == pytest.approx(0.68394, abs=1e-5)
    assert los_probability("uma", 63.0) == pytest.approx(0.54849, abs=1e-5)
    assert los_probability("simple", 36.0) == 0.0
    probability = los_probability("umi", np.linspace(18.0, 2000.0, 300))
    assert np.all(np.diff(probability) < 0)
    assert probability[-1] == pytest.approx(18.0 / 2000.0)


def test_near_users_are_treated_as_at_ten_metres():
    """Below 10 m no formula holds; a user on the mast still has a finite loss."""
    for environment in ENVIRONMENTS:
        loss = path_loss_db(environment, False, [0.0, 9.0, 10.0], 3.5)
        assert loss[0] == loss[1] == loss[2]
        assert np.isfinite(loss[0])


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (("rural", True, 100.0, 3.5), ["environment", "'rural'", "umi"]),
        (("umi", 1, 100.0, 3.5), ["los", "bool"]),
        (("umi", True, [50.0, -1.0], 3.5), ["distance_2d_m[1]", "-1", ">= 0"]),
        (("umi", True, [np.nan], 3.5), ["distance_2d_m[0]", "nan"]),
        (("umi", True, 100.0, 3.5e9), ["carrier_ghz", "3500000000.0", "<= 100"]),
    ],
)
def test_bad_arguments(arguments, names):
    """One line names the argument, the value and what is allowed; a carrier in Hz is caught."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        path_loss_db(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert all(name in message for name in names), message


@pytest.mark.parametrize(
    ("height", "name"),
    [({"node_height_m": 1.0}, "node_height_m"), ({"user_height_m": 20.0}, "user_height_m")],
)
def test_bad_heights(height, name):
    """Heights for which the break point is not defined are refused."""
    with pytest.raises(ValueError, match=name):
        path_loss_db("uma", True, 100.0, 3.5, **height)
