"""Solutions and broadcasts: what the constructors take and refuse, and exact round trips."""

from __future__ import annotations

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
    hand_solution,
    random_instance,
    random_solution,
)

from finecast.problem.files import FormatError, read_archive, write_archive
from finecast.problem.solution import (
    FORMAT,
    VERSION,
    Broadcast,
    Solution,
    read_solution,
    silence,
    write_solution,
)

PLAN = hand_broadcast(SHARED, FIRST, SECOND)


def assert_identical(a: Solution, b: Solution) -> None:
    """Check that two solutions say the same, bit for bit."""
    for field in fields(Solution):
        x, y = getattr(a, field.name), getattr(b, field.name)
        if field.name == "broadcasts":
            assert len(x) == len(y)
            for one, other in zip(x, y, strict=True):
                for part in fields(Broadcast)[:-1]:  # the last one says what `blocks` says
                    p, q = getattr(one, part.name), getattr(other, part.name)
                    assert (p.dtype, p.shape, p.tobytes()) == (q.dtype, q.shape, q.tobytes())
        elif isinstance(x, np.ndarray):
            assert (x.dtype, x.shape, x.tobytes()) == (y.dtype, y.shape, y.tobytes())
        else:
            assert x == y


def test_sizes_of_a_broadcast() -> None:
    """Three messages, three modes; the pairs it carries, radiated powers and message sizes."""
    assert (PLAN.messages, PLAN.modes) == (3, 3)
    message, block = PLAN.carried
    assert (message.tolist(), block.tolist()) == ([0, 1, 2], [0, 1, 2])
    assert PLAN.node_power == pytest.approx(np.array([[3.75, 3.75], [3.0, 0.0], [0.0, 3.0]]))
    assert PLAN.message_size(np.array([5, 6, 7])).tolist() == [5.0, 6.0, 7.0]
    silent = silence(2, 2, 3, 1)
    assert (silent.messages, silent.modes) == (0, 0)
    assert silent.message_size(np.array([5, 6, 7])).shape == (0,)


def test_carried_pairs_of_bundles() -> None:
    """Message 0 has blocks 1 and 2, message 1 block 0: sizes 6 + 7 and 5."""
    plan = replace(PLAN, blocks=np.array([[0, 1, 1], [1, 0, 0], [0, 0, 1]], dtype=bool))
    message, block = plan.carried
    assert (message.tolist(), block.tolist()) == ([0, 0, 1, 2], [1, 2, 0, 2])
    assert plan.message_size(np.array([5, 6, 7])).tolist() == [13.0, 5.0, 7.0]


def test_arrays_are_copied_and_read_only() -> None:
    """What a solver does to its arrays afterwards does not reach the solution."""
    rate = PLAN.rate.copy()
    plan = replace(PLAN, rate=rate)
    rate[0] = 0
    assert plan.rate[0] == 4e6
    with pytest.raises(ValueError, match="read-only"):
        plan.rate[0] = 0


def test_received_and_held() -> None:
    """Node 1 receives block 1 from the cloud and then holds blocks 0, 1 and 2."""
    solution = hand_solution(PLAN, migrations=[(0, 1, 1, 2)])
    assert solution.received[0].tolist() == [[False] * 3, [False, True, False]]
    assert solution.holds[0].tolist() == [[True, True, False], [True, True, True]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": np.array([1.0, np.nan, 1.0])}, r"rate\[1\]: nan .* finite"),
        ({"rate": np.array([1.0, -1.0, 1.0])}, r"rate\[1\]: -1\.0 .* >= 0"),
        ({"rate": np.ones(2)}, r"rate: shape is \(2,\), expected \(3,\)"),
        ({"duration": np.array([1.0, 1.0, np.inf])}, r"duration\[2\]: inf .* finite"),
        ({"duration": np.ones((3, 1))}, r"duration: has 2 axes, expected 1"),
        ({"beam": np.full((3, 2, 1), np.nan, complex)}, r"beam\[0, 0, 0\]: .*nan.* finite"),
        ({"beam": np.ones((3, 3, 1), complex)}, r"beam: shape is \(3, 3, 1\), expected \(3, 2, 1"),
        ({"mode": np.array([0, 1, 3])}, r"mode\[2\]: 3 .* <= 2"),
        ({"mode": np.array([0.0, 1.0, 2.0])}, r"mode: elements are float64, expected int"),
        ({"mode": np.array([0, 1, 1])}, r"mode: no message is on the air in mode 2"),
        ({"message": np.array([0, -1, 2])}, r"message\[1\]: -1 .* >= 0"),
        (
            {"mode": np.array([0, 1, 2, 0]), "message": np.array([0, 1, 2, 0]),
             "beam": np.ones((4, 2, 1), complex), "rate": np.ones(4)},
            r"message: a message is on the air twice in one mode",
        ),
        ({"users": np.array([[1, 1], [0, 0], [0, 1]], bool)}, r"users\[1\]: message 1 has no user"),
        ({"nodes": np.array([[1, 1], [1, 0], [0, 0]], bool)}, r"nodes\[2\]: message 2 has no node"),
        ({"blocks": np.zeros((3, 3), bool)}, r"blocks\[0\]: message 0 has no blocks"),
        ({"users": np.ones((3, 2), int)}, r"users: elements are int64, expected bool"),
        ({"users": np.ones((2, 2), bool)}, r"users: shape is \(2, 2\), expected \(3, 2\)"),
    ],
)  # fmt: skip
def test_broadcast_refuses(change: dict[str, Any], message: str) -> None:
    """One line that names the argument, the value, where it stands and what is allowed."""
    with pytest.raises(ValueError, match=message) as caught:
        replace(PLAN, **change)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cache": np.zeros((2, 3), bool)}, r"cache: shape is \(2, 3\), expected \(slots, nodes"),
        ({"cache": np.zeros((0, 2, 3), bool)}, r"cache: .* all at least 1"),
        ({"cache": np.zeros((1, 2, 3), int)}, r"cache: elements are int64, expected bool"),
        ({"source": np.full((1, 2, 3), 3)}, r"source\[0, 0, 0\]: 3 .* <= 2"),
        ({"source": np.full((1, 2, 3), -2)}, r"source\[0, 0, 0\]: -2 .* >= -1"),
        ({"source": np.zeros((1, 2, 4), int)}, r"source: shape is \(1, 2, 4\), expected"),
        ({"planned": "hoped"}, r"planned: 'hoped', expected 'guaranteed' or 'nominal'"),
        ({"broadcasts": (PLAN, PLAN)}, r"broadcasts: 2 of them, expected 1"),
        ({"broadcasts": (silence(2, 3, 3, 1),)}, r"broadcasts\[0\]: is for 3 nodes and 3 blocks"),
    ],
)
def test_solution_refuses(change: dict[str, Any], message: str) -> None:
    """As for broadcasts."""
    with pytest.raises(ValueError, match=message) as caught:
        replace(hand_solution(PLAN), **change)
    assert "\n" not in str(caught.value)


def test_slots_have_the_same_users_and_antennas() -> None:
    """Else the slots could not be stored in one array."""
    with pytest.raises(ValueError, match=r"broadcasts\[1\]: is for \(users, antennas\) = \(3, 1\)"):
        hand_solution(PLAN, silence(3, 2, 3, 1))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.sampled_from(["sequential", "spatial"]),
    st.sampled_from(["guaranteed", "nominal"]),
)
def test_round_trip(
    tmp_path_factory: pytest.TempPathFactory, seed: int, slots: int, delivery: Any, planned: Any
) -> None:
    """Written and read back, every bit is the same, silent slots too; two writes hash alike."""
    rng = np.random.default_rng(seed)
    instance = random_instance(
        rng, slots=slots, users=2, nodes=2, antennas=2, blocks=4, models=2, delivery=delivery
    )
    solution = replace(
        random_solution(rng, instance, planned=planned), instance_hash=instance.content_hash
    )
    folder = tmp_path_factory.mktemp("round")
    first, second = folder / "a.npz", folder / "b.npz"
    digest = write_solution(first, solution)
    again = read_solution(first)
    assert_identical(solution, again)
    assert write_solution(second, again) == digest
    assert first.read_bytes() == second.read_bytes()


def _rewrite(path: Path, **change: Any) -> None:
    """Write a solution file with some arrays changed or dropped, and a hash that is right."""
    write_solution(path, hand_solution(PLAN))
    header, arrays = read_archive(path, FORMAT, VERSION)
    arrays |= change
    kept = {name: array for name, array in arrays.items() if array is not None}
    write_archive(path, FORMAT, VERSION, header, kept)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rate": None}, r"entry 'rate' is missing"),
        ({"cache": None}, r"entry 'cache' is missing"),
        ({"cache": np.zeros((1, 2), bool)}, r"cache: is bool of shape \(1, 2\)"),
        ({"cache": np.zeros((1, 2, 2), np.uint8)}, r"cache: is uint8 .* expected bytes, 1 in"),
        ({"received": np.zeros((1, 3, 1), np.uint8)}, r"received: is for \(1, 3, 3\), expected"),
        ({"sender": np.array([0])}, r"sender: shape is \(1,\), expected \(0,\)"),
        ({"carries": np.ones(2, int)}, r"carries: shape is \(2,\), expected \(3,\)"),
        ({"carries": np.array([1, -1, 3])}, r"carries\[1\]: -1 .* >= 0"),
        ({"carries": np.array([2, 0, 1])}, r"block: the blocks of|blocks\[1\]: message 1 has no"),
        ({"block": np.array([0, 1])}, r"block: shape is \(2,\), expected \(3,\)"),
        ({"block": np.array([0, 1, 3])}, r"block\[2\]: 3 .* <= 2"),
        ({"cache": np.array(True)}, r"cache: is bool of shape \(\)"),
        ({"rate": np.array([1.0, np.nan, 1.0])}, r"rate\[1\]: nan"),
        ({"rate": np.ones(4)}, r"rate: has 4 rows, expected 3"),
        ({"messages": np.array([4])}, r"carries: shape is \(3,\), expected \(4,\)"),
        ({"messages": np.array([3, 0])}, r"messages: shape is \(2,\), expected \(1,\)"),
        ({"messages": np.array([-3])}, r"messages\[0\]: -3 .* >= 0"),
        ({"modes": np.array([3.0])}, r"modes: elements are float64, expected int"),
        ({"users": np.array(["a"] * 3)}, r"users: elements are <U1, expected int"),
        ({"mode": np.array(["0", "1", "2"])}, r"mode: elements are <U1, expected int"),
    ],
)
def test_a_file_that_breaks_a_rule(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    """Hash right, content wrong: the file and the rule in one line."""
    path = tmp_path / "s.npz"
    _rewrite(path, **change)
    with pytest.raises(FormatError, match=message) as caught:
        read_solution(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_files_of_version_1_are_read(tmp_path: Path) -> None:
    """They hold caches, sources and blocks as they are."""
    solution = hand_solution(PLAN, migrations=[(0, 1, 1, 2)])
    new, old = tmp_path / "new.npz", tmp_path / "old.npz"
    write_solution(new, solution)
    header, arrays = read_archive(new, FORMAT, VERSION)
    for name in ("received", "sender", "carries", "block", "beam_place"):
        del arrays[name]
    for name in ("blocks", "users", "antennas"):
        del header[name]
    for name in ("users", "nodes", "blocks", "beam"):
        arrays[name] = np.concatenate([getattr(b, name) for b in solution.broadcasts])
    arrays |= {"cache": solution.cache, "source": solution.source.astype(np.int64)}
    write_archive(old, FORMAT, 1, header, arrays)
    assert_identical(read_solution(old), solution)


@pytest.mark.parametrize("blocks", [0, -1, True, 3.0, "3", None])
def test_a_file_without_a_count_of_blocks(tmp_path: Path, blocks: object) -> None:
    """It is needed to unpack the bits."""
    path = tmp_path / "s.npz"
    write_solution(path, hand_solution(PLAN))
    header, arrays = read_archive(path, FORMAT, VERSION)
    write_archive(path, FORMAT, VERSION, {**header, "blocks": blocks}, arrays)
    with pytest.raises(FormatError, match=r"blocks: .* must be a whole number >= 1"):
        read_solution(path)


def test_a_file_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is refused before anything is unpacked."""
    path = tmp_path / "s.npz"
    write_solution(path, hand_solution(PLAN))
    monkeypatch.setattr("finecast.problem.solution.MOST_BYTES", 23)
    with pytest.raises(FormatError, match=r"cache: takes 24 bytes with sources, at most 23 are"):
        read_solution(path)


def test_arrays_that_nobody_can_change_are_not_copied() -> None:
    """So a large solution is in memory once; a view of what can be changed is copied."""
    solution = hand_solution(PLAN)
    again = replace(solution, method="another")
    assert np.shares_memory(solution.cache, again.cache)
    assert np.shares_memory(solution.source, again.source)
    assert solution.source.dtype == np.int16
    mine = np.zeros((1, 2, 3), bool)
    view = mine[:]
    view.setflags(write=False)
    copied = replace(solution, cache=view)
    mine[:] = True
    assert not copied.cache.any()
    # Part of what nobody can change is copied too: it would hold on to the rest, and show it.
    slots = np.zeros((2, 2, 3), bool)
    slots.setflags(write=False)
    first = replace(solution, cache=slots[:1]).cache
    assert not np.shares_memory(first, slots)
    assert first.base is None or first.base.size == first.size
