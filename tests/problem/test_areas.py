"""Areas in instances and broadcasts: who belongs where, what is refused, exact round trips."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_cases import (
    FIRST,
    SECOND,
    SHARED,
    hand_broadcast,
    hand_instance,
    hand_solution,
    random_instance,
    random_solution,
)

from finecast.problem.files import FormatError, read_archive, read_arrays, write_archive
from finecast.problem.instance import read_instance, write_instance
from finecast.problem.scenario import read_scenario
from finecast.problem.solution import (
    FORMAT,
    VERSION,
    Broadcast,
    read_solution,
    write_solution,
)

PLAN = hand_broadcast(SHARED, FIRST, SECOND)


def version_of(path: Path) -> int:
    """Return the version that a file says."""
    return int(json.loads(str(read_arrays(path)["header"]))["version"])


def test_one_area_is_the_problem_of_the_formulation() -> None:
    """Without areas every node is in area 0, and the instance has the hash it had before areas."""
    instance = hand_instance()
    assert instance.areas.tolist() == [0, 0]
    assert instance.area_count == 1
    assert instance.area_weight.tolist() == [[1.0]]
    assert (instance.area_needs[:, 0] == instance.needed).all()
    assert replace(instance, areas=np.zeros(2, int)).content_hash == instance.content_hash
    assert instance.content_hash == (
        "3520273309c86cee751769f196db19e7d5d7c2b82da0eb29b1cd364db83e8fcf"
    )
    assert read_scenario("tiny").generate(0).content_hash == (
        "36ff3b7865eab6e9723cc98bb2438b36a3d9d83097588013d7597d8997e70ab4"
    )
    assert replace(instance, areas=np.array([0, 1])).content_hash != instance.content_hash


def test_users_belong_to_the_area_of_their_strongest_node() -> None:
    """User 0 hears node 0 best, user 1 node 1; of equal nodes the first counts.

    In slot 1 user 1 requests nothing and belongs nowhere: area 0 has all of the weight.
    """
    instance = hand_instance(slots=2, estimate=[[2.0, 1.0], [1.0, 3.0]], requests=[[0, 1], [0, -1]])
    apart = replace(instance, areas=np.array([0, 1]))
    assert apart.user_area.tolist() == [[0, 1], [0, -1]]
    assert apart.area_weight.tolist() == [[0.5, 0.5], [1.0, 0.0]]
    assert apart.area_needs.astype(int).tolist() == [
        [[1, 1, 0], [1, 0, 1]],
        [[1, 1, 0], [0, 0, 0]],
    ]
    equal = replace(hand_instance(), areas=np.array([1, 0]))
    assert equal.user_area.tolist() == [[1, 1]]
    assert equal.area_weight.tolist() == [[0.0, 1.0]]
    assert replace(instance, requests=np.full((2, 2), -1)).area_weight.tolist() == [[0.0]] * 2


def test_the_strongest_node_counts_all_its_antennas() -> None:
    """Node 0 has one antenna of gain 3, node 1 two of gain 2.5: norms 3 and 3.54."""
    channel = np.array([[3.0, 0.0], [2.5, 2.5]])[None, None].repeat(2, axis=1)
    instance = hand_instance()
    instance = replace(
        instance, channel_estimate=channel, channel_true=channel, areas=np.array([0, 1])
    )
    assert instance.user_area.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("areas", "message"),
    [
        ([0, 1, 1], r"^areas: shape is \(3,\), expected \(2,\)$"),
        ([0.0, 1.0], r"^areas: elements are float64, expected int$"),
        ([0, -1], r"^areas\[1\]: -1 is not allowed, must be >= 0$"),
        ([0, 2], r"^areas\[1\]: 2 is not allowed, must be <= 1$"),
        ([1, 1], r"^areas: no node is in area 0, each from 0 to 1 must have one$"),
    ],
)
def test_areas_that_are_none(areas: list[Any], message: str) -> None:
    """One line with what is wrong and what is allowed."""
    with pytest.raises(ValueError, match=message):
        replace(hand_instance(), areas=np.array(areas))


@pytest.mark.parametrize(
    ("area", "message"),
    [
        ([0, 1], r"^area: shape is \(2,\), expected \(3,\)$"),
        ([0, -2, 1], r"^area\[1\]: -2 is not allowed, must be >= -1$"),
        ([0, 1, 2], r"^area\[2\]: 2 is not allowed, must be <= 1$"),
    ],
)
def test_messages_of_no_area(area: list[int], message: str) -> None:
    """A message is wide or in one area of which there are no more than nodes."""
    with pytest.raises(ValueError, match=message):
        replace(PLAN, area=np.array(area))


def test_a_mode_has_one_area() -> None:
    """Two messages on the air together are both wide or both of one area."""
    together = hand_broadcast(SHARED, FIRST, SECOND, modes=[(0.25, [0]), (0.5, [1, 2])])
    assert together.area.tolist() == [-1, -1, -1]
    assert replace(together, area=np.array([-1, 1, 1])).mode_area.tolist() == [-1, 1]
    with pytest.raises(ValueError, match=r"^area: messages of two areas share mode 1, expected"):
        replace(together, area=np.array([-1, 0, 1]))


def test_files_say_areas_where_there_are_any(tmp_path: Path) -> None:
    """Instances are of version 2 with areas, else of version 1; back again as they were."""
    path = tmp_path / "x.npz"
    for instance, version in (
        (hand_instance(), 1),
        (replace(hand_instance(), areas=np.array([1, 0])), 2),
    ):
        assert write_instance(path, instance) == instance.content_hash
        assert version_of(path) == version
        assert read_instance(path).areas.tolist() == instance.areas.tolist()
        assert read_instance(path).content_hash == instance.content_hash
    for area in ([-1, -1, -1], [-1, 0, 1]):
        write_solution(path, hand_solution(replace(PLAN, area=np.array(area))))
        assert version_of(path) == 2
        assert ("area" in read_archive(path, FORMAT, VERSION)[1]) == (max(area) >= 0)
        assert read_solution(path).broadcasts[0].area.tolist() == area


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(["sequential", "spatial"]))
def test_solutions_of_areas_survive_a_file(
    tmp_path_factory: pytest.TempPathFactory, seed: int, delivery: str
) -> None:
    """Random solutions come back bit for bit, from places of what is true or not zero."""
    rng = np.random.default_rng(seed)
    instance = random_instance(
        rng, slots=2, users=4, nodes=4, antennas=2, blocks=5, models=3, areas=3, delivery=delivery
    )
    solution = random_solution(rng, instance)
    path = tmp_path_factory.mktemp("areas") / "s.npz"
    write_solution(path, solution)
    again = read_solution(path)
    for one, other in zip(solution.broadcasts, again.broadcasts, strict=True):
        for field in fields(Broadcast)[:-1]:  # the last one says what `blocks` says
            a, b = getattr(one, field.name), getattr(other, field.name)
            assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), field.name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"users": np.array([[3, 0]])},
            r"users\[0\]: \[3, 0\] is not allowed, must be below \[3, 2",
        ),
        (
            {"nodes": np.array([[0, 2]])},
            r"nodes\[0\]: \[0, 2\] is not allowed, must be below \[3, 2",
        ),
        ({"block": np.array([0, -1, 1])}, r"block\[1\]: -1 is not allowed, must be >= 0"),
        ({"beam_place": np.zeros((9, 2), int)}, r"beam: shape is \(4, 1\), expected \(9, 1\)"),
        ({"messages": np.array([2])}, r"area: has 3 rows, expected 2"),
        ({"users": np.zeros((0, 2), int)}, r"users\[0\]: message 0 has no users"),
    ],
)
def test_files_of_areas_that_are_damaged(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    """Each entry of a file is checked: one line with the entry and what is allowed."""
    path = tmp_path / "s.npz"
    write_solution(path, hand_solution(replace(PLAN, area=np.array([-1, 0, 1]))))
    header, arrays = read_archive(path, FORMAT, VERSION)
    write_archive(path, FORMAT, VERSION, header, arrays | change)
    with pytest.raises(FormatError, match=message):
        read_solution(path)


def test_a_file_that_would_not_fit_is_refused(tmp_path: Path) -> None:
    """A small file may name a million users: their rows are refused before they are made."""
    path = tmp_path / "s.npz"
    write_solution(path, hand_solution(replace(PLAN, area=np.array([-1, 0, 1]))))
    header, arrays = read_archive(path, FORMAT, VERSION)
    for users, message in (
        (2**40, "users: would take 3298534883328 bytes"),
        (0, "users: 0 is not"),
    ):
        write_archive(path, FORMAT, VERSION, header | {"users": users}, arrays)
        with pytest.raises(FormatError, match=message):
            read_solution(path)
