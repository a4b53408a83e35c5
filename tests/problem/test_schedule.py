"""Schedules of one slot: hand-computed ends, and Johnson's order against all orders."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finecast.problem.schedule import (
    johnson_order,
    migration_by_message,
    pipelined_ends,
    sequential_ends,
    summed,
)

times = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 1.0, 2.0]) | st.floats(0, 10),
        st.sampled_from([0.0, 0.5, 1.0, 2.0]) | st.floats(0, 10),
    ),
    max_size=5,
)


def _end(migration: np.ndarray, broadcast: np.ndarray, order: list[int]) -> float:
    """Return the end of the last job, by the definition: loops and maxima."""
    there = over = 0.0
    for i in order:
        there += migration[i]
        over = max(over, there) + broadcast[i]
    return over


def test_johnson_by_hand() -> None:
    """Jobs (migration, broadcast) = (3, 2), (1, 4), (2, 5), (4, 1): order 1, 2, 0, 3.

    1: 0-1, on air 1-5; 2: 1-3, 5-10; 0: 3-6, 10-12; 3: 6-10, 12-13. So 13 = 1 + 12, the least
    possible: nothing can be on the air before the shortest migration (1) is over.
    """
    migration, broadcast = np.array([3.0, 1.0, 2.0, 4.0]), np.array([2.0, 4.0, 5.0, 1.0])
    order = johnson_order(migration, broadcast)
    assert order.tolist() == [1, 2, 0, 3]
    ends = pipelined_ends(np.cumsum(migration[order]), broadcast[order])
    assert ends.tolist() == [5.0, 10.0, 12.0, 13.0]


@settings(max_examples=100, deadline=None)
@given(times)
def test_johnson_is_best_of_all_orders(jobs: list[tuple[float, float]]) -> None:
    """Its end is that of the best of all orders, between the larger sum and the sum of all."""
    migration, broadcast = np.array(jobs).reshape(-1, 2).T
    order = johnson_order(migration, broadcast)
    assert sorted(order.tolist()) == list(range(len(jobs)))
    end = float(pipelined_ends(np.cumsum(migration[order]), broadcast[order]).max(initial=0.0))
    best = min(_end(migration, broadcast, list(p)) for p in permutations(range(len(jobs))))
    assert end == pytest.approx(best, rel=1e-12, abs=1e-12)
    assert end >= max(migration.sum(), broadcast.sum()) - 1e-12
    assert end <= migration.sum() + broadcast.sum() + 1e-12


def test_johnson_leaves_equal_jobs_in_the_stated_order() -> None:
    """Without migrations nothing is to be gained, so nothing moves, whatever the durations."""
    assert johnson_order(np.zeros(4), np.array([2.0, 1.0, 3.0, 1.0])).tolist() == [0, 1, 2, 3]
    assert johnson_order(np.full(3, 2.0), np.ones(3)).tolist() == [0, 1, 2]


@settings(max_examples=50, deadline=None)
@given(times)
def test_pipelined_ends_unrolled(jobs: list[tuple[float, float]]) -> None:
    """The closed form is end_m = max(end_{m-1}, ready_m) + duration_m, ready in any order."""
    ready, duration = np.array(jobs).reshape(-1, 2).T
    expected, end = [], 0.0
    for r, d in zip(ready, duration, strict=True):
        end = max(end, r) + d
        expected.append(end)
    assert pipelined_ends(ready, duration) == pytest.approx(np.array(expected), abs=1e-12)


def test_sequential_ends_by_hand() -> None:
    """Waits 1, 0, 2 and durations 3, 4, 5: 0 + 1 + 3 = 4, 4 + 0 + 4 = 8, 8 + 2 + 5 = 15."""
    ends = sequential_ends(np.array([1.0, 0.0, 2.0]), np.array([3.0, 4.0, 5.0]))
    assert ends.tolist() == [4.0, 8.0, 15.0]


def test_a_block_migrates_once_for_the_first_message() -> None:
    """Blocks 0 (5 s), 1 (7 s), 2 (9 s): message 0 has 1, message 1 has 0 and 1, nobody has 2.

    Message 0 adds 7 s; message 1 only the 5 s of block 0, as block 1 is there by then.
    """
    added = migration_by_message(
        np.array([0, 1, 1]), np.array([1, 0, 1]), 2, np.array([5.0, 7.0, 9.0])
    )
    assert added.tolist() == [7.0, 5.0]


def test_nothing_to_schedule() -> None:
    """A slot without messages has no ends, and no sums."""
    none = np.zeros(0)
    assert len(pipelined_ends(none, none)) == len(sequential_ends(none, none)) == 0
    assert summed(np.zeros(0, dtype=np.int64), none, 2).tolist() == [0.0, 0.0]
