"""Instances: derived tables by hand, refusals that name the culprit, and exact round trips."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_cases import hand_instance, random_instance

from finecast.problem.demand import Demand
from finecast.problem.files import FormatError, read_archive, write_archive
from finecast.problem.instance import (
    FORMAT,
    VERSION,
    Instance,
    read_instance,
    user_groups,
    write_instance,
)
from finecast.problem.network import Network
from finecast.problem.scenario import read_scenario


def assert_identical(a: Any, b: Any) -> None:
    """Check that two dataclasses of arrays say the same, bit for bit."""
    for field in fields(a):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if isinstance(x, np.ndarray):
            assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes()), field.name
        elif hasattr(x, "__dataclass_fields__"):
            assert_identical(x, y)
        else:
            assert x == y, field.name


def test_who_needs_what() -> None:
    """User 0 wants model 0 = {0, 1}; user 1 nothing in slot 0 and model 1 = {0, 2} in slot 1."""
    instance = hand_instance(slots=2, requests=[[0, -1], [0, 1]])
    assert instance.wanted.astype(int).tolist() == [
        [[1, 1, 0], [0, 0, 0]],
        [[1, 1, 0], [1, 0, 1]],
    ]
    assert instance.needed.astype(int).tolist() == [[1, 1, 0], [1, 1, 1]]


def test_sizes() -> None:
    """T, K, N, A, M, J of the hand-made instance."""
    instance = hand_instance(slots=3)
    sizes = [getattr(instance, s) for s in ("slots", "users", "nodes", "antennas")]
    assert [*sizes, instance.models, instance.blocks] == [3, 2, 2, 1, 2, 3]


def test_normalised_channels() -> None:
    """Amplitudes over the noise amplitude: 6 / sqrt(4) = 3, error 1 / 2."""
    instance = hand_instance(estimate=[[6, 6], [6, 6]], error=1.0, noise_power=4.0)
    assert instance.normalised_channel == pytest.approx(np.full((1, 2, 2, 1), 3.0))
    assert instance.normalised_error == pytest.approx(np.full((1, 2, 2), 0.5))


def test_everything_is_read_only() -> None:
    """Neither given nor derived arrays can be changed by a solver."""
    instance = hand_instance()
    for name in (
        "requests", "channel_estimate", "channel_error", "channel_true", "popularity", "wanted",
        "needed", "normalised_channel", "normalised_error",
    ):  # fmt: skip
        with pytest.raises(ValueError, match="read-only"):
            getattr(instance, name)[:] = 0


def test_user_groups_by_hand() -> None:
    """Blocks 0 and 3 for user 0, block 1 for nobody, block 2 for both: groups in order of block."""
    wanted = np.array([[1, 0, 1, 1], [0, 0, 1, 0]], dtype=bool)
    groups, group = user_groups(wanted)
    assert groups.astype(int).tolist() == [[1, 0], [1, 1]]
    assert group.tolist() == [0, -1, 1, 0]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 20), st.integers(1, 12))
def test_user_groups_say_who_wants_what(seed: int, users: int, blocks: int) -> None:
    """groups[group[j]] is column j; groups are distinct, and numbered by their first block."""
    wanted = np.random.default_rng(seed).random((users, blocks)) < 0.3
    groups, group = user_groups(wanted)
    assert ((group >= 0) == wanted.any(axis=0)).all()
    needed = np.flatnonzero(group >= 0)
    assert (groups[group[needed]].T == wanted[:, needed]).all()
    assert len({tuple(g) for g in groups.tolist()}) == len(groups) == len(set(group[needed]))
    first = [int(np.flatnonzero(group == g)[0]) for g in range(len(groups))]
    assert first == sorted(first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"requests": np.array([[0, 2]])}, r"requests\[0, 1\]: 2 .* <= 1"),
        ({"requests": np.array([[0, -2]])}, r"requests\[0, 1\]: -2 .* >= -1"),
        ({"requests": np.array([[0.0, 1.0]])}, r"requests: elements are float64, expected int"),
        ({"requests": np.array([0, 1])}, r"requests: shape is \(2,\), expected \(1, 2\)"),
        ({"channel_estimate": np.ones((2, 2, 1))}, r"channel_estimate: shape is \(2, 2, 1\)"),
        ({"channel_estimate": np.ones((1, 2, 3, 1))}, r"channel_estimate: has 3 nodes, .* 2"),
        ({"channel_estimate": np.ones((1, 2, 2, 0))}, r"channel_estimate: .* all at least 1"),
        ({"channel_estimate": np.ones((2, 2, 2, 1))}, r"demand.preference: shape is \(1, 2, 2\)"),
        ({"channel_estimate": np.full((1, 2, 2, 1), np.nan)}, r"channel_estimate\[0, 0, 0, 0\]"),
        ({"channel_error": np.full((1, 2, 2), -1.0)}, r"channel_error\[0, 0, 0\]: -1.0 .* >= 0"),
        ({"channel_error": np.full((1, 2, 2), np.inf)}, r"channel_error\[0, 0, 0\]: inf"),
        ({"channel_error": np.zeros((1, 2))}, r"channel_error: shape is \(1, 2\)"),
        ({"channel_true": np.full((1, 2, 2, 1), 1.1)}, r"channel_true\[0, 0, 0\]: is 0\.1 from"),
        ({"channel_true": np.ones((1, 2, 2, 2))}, r"channel_true: shape is \(1, 2, 2, 2\)"),
        ({"delivery": "pigeon"}, r"delivery: 'pigeon', expected 'sequential' or 'spatial'"),
        ({"schedule": "later"}, r"schedule: 'later', expected 'sequential' or 'pipelined'"),
        ({"user_position": np.zeros((3, 2))}, r"user_position: shape is \(3, 2\)"),
        ({"demand": Demand(np.full((1, 2, 4), 0.25), 0.0, np.ones(2))}, r"demand.preference: sh"),
    ],
)  # fmt: skip
def test_refusals(change: dict[str, Any], message: str) -> None:
    """One line with the field, the value, where it stands and what is allowed."""
    with pytest.raises(ValueError, match=message) as caught:
        replace(hand_instance(), **change)
    assert "\n" not in str(caught.value)


def test_the_true_channel_may_lie_on_the_ball() -> None:
    """Distance exactly e, rounding included, is inside; more is refused, per node."""
    estimate, error = [[0.1, 1.0], [1.0, 1.0]], 0.2
    hand_instance(estimate=estimate, error=error, true=[[0.1 + 0.2, 1], [1, 1]])
    with pytest.raises(ValueError, match=r"channel_true\[0, 1, 0\]: is 0\.201 from the estimate"):
        hand_instance(estimate=estimate, error=error, true=[[0.1, 1], [1.201, 1]])


def _random(seed: int, **choices: Any) -> Instance:
    return random_instance(
        np.random.default_rng(seed),
        slots=2, users=3, nodes=2, antennas=2, blocks=4, models=2, **choices,
    )  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32),
    st.sampled_from([np.inf, 7.4063]),
    st.booleans(),
    st.sampled_from(["sequential", "spatial"]),
    st.sampled_from(["sequential", "pipelined"]),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    cap: float,
    positions: bool,
    delivery: Any,
    schedule: Any,
) -> None:
    """Written and read back, every bit and name is the same; two writes are the same file."""
    instance = _random(seed, max_spectral_efficiency=cap, delivery=delivery, schedule=schedule)
    if not positions:
        instance = replace(
            instance,
            user_position=None,
            seed=None,
            network=replace(instance.network, node_position=None),
        )
    folder = tmp_path_factory.mktemp("round")
    first, second = folder / "a.npz", folder / "b.npz"
    digest = write_instance(first, instance)
    again = read_instance(first)
    assert_identical(instance, again)
    assert write_instance(second, again) == digest == again.content_hash == instance.content_hash
    assert first.read_bytes() == second.read_bytes()


def test_the_hash_depends_on_every_part() -> None:
    """Whatever changes in an instance changes its content hash."""
    instance = _random(0)
    library, network, demand = instance.library, instance.network, instance.demand
    changes: list[dict[str, Any]] = [
        {"requests": np.zeros((2, 3), int)},
        {"channel_estimate": instance.channel_estimate * (1 + 1e-15)},
        {"channel_error": instance.channel_error * 1.5},
        {"channel_true": instance.channel_estimate},
        {"delivery": "spatial"},
        {"schedule": "pipelined"},
        {"user_position": None},
        {"name": "another"},
        {"seed": 8},
        {"library": replace(library, block_size=library.block_size + 1)},
        {"library": replace(library, model_blocks=np.ones((2, 4), bool))},
        {"library": replace(library, model_names=("a", "b"))},
        {"library": replace(library, model_family=("x", "y"))},
        {"library": replace(library, block_names=("a", "b", "c", "d"))},
        *(
            {"network": replace(network, **change)}
            for change in (
                {"storage": network.storage + 1},
                {"power": network.power * 2},
                {"backhaul_rate": network.backhaul_rate + 1},
                {"cloud_rate": network.cloud_rate * 2},
                {"bandwidth": 2e6},
                {"noise_power": 2e-11},
                {"max_spectral_efficiency": 5.0},
                {"node_position": None},
            )
        ),
        {"demand": replace(demand, persistence=0.4)},
        {"demand": replace(demand, activity=np.ones(3))},
        {"demand": replace(demand, preference=np.full((2, 3, 2), 0.5))},
    ]
    hashes = [instance.content_hash] + [replace(instance, **c).content_hash for c in changes]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"storage": np.array([5, -1])}, r"storage\[1\]: -1 .* >= 0"),
        ({"storage": None}, r"entry 'storage' is missing"),
        ({"power": np.array([1.0, np.nan])}, r"power\[1\]: nan .* finite"),
        ({"power": np.array([1.0])}, r"power: shape is \(1,\), expected \(2,\)"),
        ({"requests": np.array([[0, 5]])}, r"requests\[0, 1\]: 5 .* <= 1"),
        ({"channel_estimate": np.ones((1, 2, 2))}, r"channel_estimate: shape is \(1, 2, 2\)"),
        ({"channel_estimate": np.array(["x"])}, r"channel_estimate: shape is \(1,\)"),
        ({"channel_true": np.full((1, 2, 2, 1), np.inf)}, r"channel_true\[0, 0, 0, 0\]: .*inf"),
        ({"block_size": np.array([1, 2])}, r"model_blocks: shape is \(2, 3\), expected"),
        ({"block_size": np.array([1.5, 2.0, 3.0])}, r"block_size: elements are float64"),
        ({"preference": np.full((1, 2, 2), 0.6)}, r"preference\[0, 0\]: sums to 1\.2, must be 1"),
        ({"cloud_rate": np.array([1.0, 0.0])}, r"cloud_rate\[1\]: 0 is not allowed, must be > 0"),
    ],
)
def test_a_file_whose_arrays_break_a_rule(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """Hash right, content wrong: the file, field and allowed range in one line."""
    _assert_refused(tmp_path, {}, change, message)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bandwidth": -1.0}, r"bandwidth: -1\.0 .* > 0"),
        ({"bandwidth": float("nan")}, r"NaN is not allowed, numbers must be finite"),
        ({"bandwidth": 10**400}, r"bandwidth: 10000.* must be a number that float64 holds"),
        ({"bandwidth": None}, r"bandwidth: None is not allowed"),
        ({"noise_power": 0}, r"noise_power: 0\.0 .* > 0"),
        ({"persistence": 1.5}, r"persistence: 1\.5 .* <= 1"),
        ({"delivery": "pigeon"}, r"delivery: 'pigeon'"),
        ({"schedule": ["pipelined"]}, r"schedule: \['pipelined'\]"),
        ({"block_names": ["a", "b"]}, r"block_names"),
        ({"model_names": 7}, r"int"),
    ],
)
def test_a_file_whose_header_breaks_a_rule(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    """The same for what stands in the header."""
    _assert_refused(tmp_path, change, {}, message)


def _assert_refused(
    folder: Path, header_change: dict[str, Any], array_change: dict[str, Any], message: str
) -> None:
    path = folder / "i.npz"
    write_instance(path, hand_instance())
    header, arrays = read_archive(path, FORMAT, VERSION)
    arrays |= array_change
    kept = {name: array for name, array in arrays.items() if array is not None}
    write_archive(path, FORMAT, VERSION, header | header_change, kept)
    with pytest.raises(FormatError, match=message) as caught:
        read_instance(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_a_missing_header_field(tmp_path: Path) -> None:
    """Named, as a missing array is."""
    path = tmp_path / "i.npz"
    write_instance(path, hand_instance())
    header, arrays = read_archive(path, FORMAT, VERSION)
    del header["bandwidth"]
    write_archive(path, FORMAT, VERSION, header, arrays)
    with pytest.raises(FormatError, match="entry 'bandwidth' is missing"):
        read_instance(path)


def test_the_header_is_plain_json(tmp_path: Path) -> None:
    """Anyone can see what a file is, without finecast."""
    path = tmp_path / "i.npz"
    digest = write_instance(path, hand_instance())
    with np.load(path, allow_pickle=False) as archive:
        header = json.loads(str(archive["header"]))
    assert (header["format"], header["version"]) == ("finecast-instance", 1)
    assert header["content_hash"] == digest
    assert header["content"]["bandwidth"] == 1e6


def test_infinite_cap_is_kept(tmp_path: Path) -> None:
    """JSON has no infinity: it is written as null and read back as infinity."""
    path = tmp_path / "i.npz"
    write_instance(path, hand_instance())
    assert isinstance(read_instance(path).network, Network)
    assert read_instance(path).network.max_spectral_efficiency == np.inf


def test_error_that_a_plan_reckons_with() -> None:
    """A robust plan reckons with the radius of the balls over sigma, any other with none."""
    drawn = read_scenario("tiny").with_({"channel.error": 0.1}, slots=2).generate(0)
    radius = drawn.channel_error[1] / np.sqrt(drawn.network.noise_power)
    np.testing.assert_allclose(drawn.error_of(1, True), radius, rtol=1e-14)
    assert radius.min() > 0
    assert not drawn.error_of(1, False).any()
    assert drawn.error_of(1, False).shape == radius.shape
