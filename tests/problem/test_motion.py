"""Users that move, users and antennas as given: walks, tracks, what follows, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import finecast
from finecast.problem.channel import draw_channels
from finecast.problem.files import FormatError
from finecast.problem.motion import random_waypoint, read_tracks

TINY = finecast.read_scenario("tiny").with_({"slots": 4})


def moving(**motion: Any) -> finecast.Scenario:
    return TINY.with_({"users.motion": motion})


# ---- walks


def test_a_walk_is_straight_rests_and_goes_on() -> None:
    """30 m at 10 m/s, 2 s of rest, 40 m at 10 m/s, slot by slot of a second."""
    ends = [np.array([[30.0, 0.0]]), np.array([[30.0, 40.0]]), np.array([[0.0, 40.0]])]
    track = random_waypoint(
        np.zeros((1, 2)), 10, 1.0, (10.0, 10.0), 2.0, lambda leg: ends[leg], lambda _: np.zeros(1)
    )
    x = [0, 10, 20, 30, 30, 30, 30, 30, 30, 30]
    y = [0, 0, 0, 0, 0, 0, 10, 20, 30, 40]
    np.testing.assert_allclose(track[:, 0], np.stack([x, y], axis=1), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 50.0), st.floats(0.0, 5.0), st.floats(0.1, 4.0))
def test_nobody_is_faster_than_allowed_or_leaves_the_area(
    seed: int, speed: float, pause: float, slot_s: float
) -> None:
    def rng(part: int, leg: int) -> np.random.Generator:
        return np.random.default_rng([seed, part, leg])

    def walk(slots: int) -> Any:
        return random_waypoint(
            np.zeros((3, 2)), slots, slot_s, (speed, 2 * speed), pause,
            lambda leg: rng(0, leg).uniform(-50, 50, (3, 2)), lambda leg: rng(1, leg).random(3),
        )  # fmt: skip

    track = walk(12)
    steps = np.linalg.norm(np.diff(track, axis=0), axis=2)
    assert steps.max() <= 2 * speed * slot_s * (1 + 1e-9)
    assert np.abs(track).max() <= 50
    np.testing.assert_array_equal(walk(5), track[:5])


def test_too_many_waypoints_are_refused() -> None:
    with pytest.raises(ValueError, match="comes to more than 10000 waypoints, must be slower"):
        moving(speed_mps=1e9, slot_s=1e6).generate(0)


# ---- instances


def test_users_of_no_speed_are_those_who_stay() -> None:
    for scenario in (TINY, TINY.with_({"nested": True})):
        stay = scenario.generate(1)
        zero = scenario.with_({"users.motion": {"speed_mps": 0}}).generate(1)
        assert zero.content_hash == stay.content_hash
        assert zero.user_track is None
        moved = scenario.with_({"users.motion": {"speed_mps": 20.0}}).generate(1)
        np.testing.assert_array_equal(moved.requests, stay.requests)
        np.testing.assert_array_equal(moved.user_position, stay.user_position)
        np.testing.assert_array_equal(moved.channel_estimate[0], stay.channel_estimate[0])
        assert (moved.channel_estimate[1:] != stay.channel_estimate[1:]).any(axis=(0, 2, 3)).all()


def test_longer_horizons_and_more_users_keep_what_was_there() -> None:
    walks = moving(speed_mps=[1, 30], pause_s=1.0, slot_s=2.0).with_({"nested": True})
    small = walks.generate(2)
    large = walks.with_({"slots": 6, "users.count": small.users + 2}).generate(2)
    assert small.user_track is not None
    assert large.user_track is not None
    np.testing.assert_array_equal(large.user_track[:4, : small.users], small.user_track)
    np.testing.assert_allclose(
        large.channel_estimate[:4, : small.users], small.channel_estimate, rtol=1e-9
    )
    again = walks.generate(2)
    assert again.content_hash == small.content_hash
    other = walks.generate(2, path=1)
    np.testing.assert_array_equal(other.user_track, small.user_track)


def test_tracks_are_kept_in_files(tmp_path: Path) -> None:
    instance = moving(speed_mps=5.0).generate(0)
    finecast.write_instance(tmp_path / "a.npz", instance)
    again = finecast.read_instance(tmp_path / "a.npz")
    assert again.user_track is not None
    np.testing.assert_array_equal(again.user_track, instance.user_track)
    assert again.content_hash == instance.content_hash


def test_shadowing_falls_off_with_the_way() -> None:
    """Many nodes far away are many samples; correlation over 10 m with d_corr = 13 m of UMi."""
    nodes, step = 1500, 10.0
    angle = 2 * np.pi * np.arange(nodes) / nodes
    node = 1e6 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    track = step * np.arange(3.0)[:, None, None] * np.array([1.0, 0.0])
    rngs = [np.random.default_rng(i) for i in range(3)]
    found = draw_channels(
        node, track, large_scale_rng=rngs[0], fading_rng=rngs[1], error_rng=rngs[2],
        slots=3, antennas=1, los="nlos",
    )  # fmt: skip
    shadow = found.gain_db - found.gain_db.mean(axis=2, keepdims=True)
    for t, way in ((1, step), (2, 2 * step)):
        measured = np.corrcoef(shadow[0, 0], shadow[t, 0])[0, 1]
        assert measured == pytest.approx(np.exp(-way / 13.0), abs=0.08)
    assert shadow[2].std() == pytest.approx(shadow[0].std(), rel=0.1)


def test_path_loss_follows_a_user() -> None:
    node, rngs = np.zeros((1, 2)), [np.random.default_rng(i) for i in range(3)]
    track = np.array([[[20.0, 0.0]], [[200.0, 0.0]]])
    found = draw_channels(
        node, track, large_scale_rng=rngs[0], fading_rng=rngs[1], error_rng=rngs[2],
        slots=2, antennas=1, los="los", shadowing=False,
    )  # fmt: skip
    for t, metres in enumerate((20.0, 200.0)):
        alone = draw_channels(
            node, [[metres, 0.0]], large_scale_rng=rngs[0], fading_rng=rngs[1], error_rng=rngs[2],
            slots=1, antennas=1, los="los", shadowing=False,
        )  # fmt: skip
        assert found.gain_db[t, 0, 0] == alone.gain_db[0, 0]


# ---- positions and antennas as given


def test_users_stand_where_they_are_said_to() -> None:
    points = [[10.0 * k, 30.0] for k in range(TINY.users.count)]
    instance = TINY.with_({"users.positions_m": points}).generate(0)
    np.testing.assert_array_equal(instance.user_position, points)
    with pytest.raises(ValueError, match=r"positions_m has 1 entries, count is"):
        TINY.with_({"users.positions_m": points[:1]})


def test_missing_antennas_are_zero_and_no_beam_uses_them() -> None:
    scenario = TINY.with_({"nodes.antennas": [1, 3], "channel.error": 0.1, "slots": 1})
    instance = scenario.generate(0)
    assert instance.antennas == 3
    for channel in (instance.channel_estimate, instance.channel_true):
        assert not channel[:, :, 0, 1:].any()
        assert channel[:, :, 0, 0].all()
        assert channel[:, :, 1].all()
    result = finecast.solve(instance, "lagrangian", time_limit=20)
    assert result.solution is not None
    assert result.evaluation is not None
    assert result.evaluation.feasible
    assert result.lower_bound <= result.delay
    assert not np.concatenate([b.beam[:, 0, 1:] for b in result.solution.broadcasts]).any()
    same = TINY.with_({"nodes.antennas": [4, 4]}).generate(0)
    one = TINY.with_({"nodes.antennas": 4}).generate(0)
    assert same.content_hash == one.content_hash
    with pytest.raises(ValueError, match="antennas has 3 entries, count is 2"):
        TINY.with_({"nodes.antennas": [1, 2, 3]})


def test_the_bound_knows_a_node_of_one_antenna() -> None:
    """One node with one antenna of two is the instance of one antenna: same delay and bound."""
    one = TINY.with_({"slots": 1, "nodes.antennas": 1}).generate(0)
    padded: dict[str, Any] = {
        name: np.concatenate([array, np.zeros_like(array)], axis=3)
        for name in ("channel_estimate", "channel_true")
        for array in (getattr(one, name),)
    }
    for method in ("greedy", "lagrangian"):
        alone = finecast.solve(one, method, time_limit=20)
        wide = finecast.solve(replace(one, **padded), method, time_limit=20)
        assert wide.delay == pytest.approx(alone.delay, rel=1e-4)
        assert wide.lower_bound == pytest.approx(alone.lower_bound, rel=1e-4)


# ---- files


def track_file(folder: Path, lines: list[str]) -> Path:
    file = folder / "tracks.csv"
    file.write_text("\n".join(["user,slot,x_m,y_m", *lines]) + "\n")
    return file


FULL = [f"{k},{t},{10 * k + t},{-t}" for t in range(2) for k in range(3)]


def test_tracks_are_read(tmp_path: Path) -> None:
    track = read_tracks(track_file(tmp_path, [*reversed(FULL), "1,7,0,0"]), 2, 3)
    assert track[1].tolist() == [[1.0, -1.0], [11.0, -1.0], [21.0, -1.0]]
    file = track_file(tmp_path, [f"{k},{t},{30 + k + t},20" for t in range(4) for k in range(3)])
    instance = moving(file=str(file)).generate(0)
    assert instance.user_track is not None
    assert instance.user_track[3, 2].tolist() == [35.0, 20.0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (FULL[:-1], "user 2 has no position in slot 1, must have one in each of slots 0 to 1"),
        ([*FULL, "3,0,0,0"], "line 8, field 'user': '3' is not allowed, must be an integer from 0"),
        ([*FULL, "-1,0,0,0"], "line 8, field 'user': '-1' is not allowed"),
        ([*FULL, "0,x,0,0"], "line 8, field 'slot': 'x' is not allowed"),
        ([*FULL, "0,1,0,0"], "line 8: user 0 has a second position in slot 1, one is allowed"),
        (["0,0,nan,0"], "line 2, field 'x_m': 'nan' is not allowed, must be a number of metres"),
        (["0,0,0,1e10"], "line 2, field 'y_m': '1e10' is not allowed"),
        (["0,0,0,101"], r"line 2: user 0 in slot 0 is at \(0, 101\), outside of area_m = "),
        (["0,0,0"], "line 2: 3 fields, expected 4"),
    ],
)
def test_a_bad_track_is_one_line(tmp_path: Path, lines: list[str], message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_tracks(track_file(tmp_path, lines), 2, 3, (-100.0, -100.0, 100.0, 100.0))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("motion", "message"),
    [
        ({}, "give one of 'speed_mps' and 'file'"),
        ({"speed_mps": 1, "file": "a.csv"}, "give one of 'speed_mps' and 'file'"),
        ({"speed_mps": [2, 1]}, "must be .low, high."),
        ({"speed_mps": [0, 1]}, "speed_mps"),
        ({"speed_mps": -1}, "speed_mps"),
        ({"speed_mps": 1, "area_m": [0, 0, 0, 1]}, "must be .least x, least y, largest x, large"),
        ({"speed": 1}, "speed"),
    ],
)
def test_a_bad_motion_is_one_line(motion: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        moving(**motion)
