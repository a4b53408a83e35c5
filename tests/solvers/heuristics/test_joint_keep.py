"""The joint keep rule: against enumeration and HiGHS, its bound, and bytes that always fit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix, vstack

from finecast.solvers.heuristics.joint_keep import keep_jointly, value_of
from finecast.solvers.heuristics.rules import keep_by_cost
from finecast.solvers.node_set_tables import members, node_sets


def best_value(cost, held, size, storage) -> float:
    """Return the least value of all answers that fit, by enumeration."""
    nodes, blocks = held.shape
    best = np.inf
    for sets in itertools.product(range(1 << nodes), repeat=blocks):
        keep = members(np.array(sets, dtype=np.int64), nodes).reshape(blocks, nodes).T
        if not (keep & ~held).any() and (keep @ size <= storage).all():
            best = min(best, value_of(cost, size, keep))
    return best


def highs_values(cost, held, size, storage) -> tuple[float, float]:
    """Return the least value by a MILP to a gap of 3e-4, and its lower bound.

    The answer may overfill a node by the solver's tolerance, by some bytes.
    """
    nodes, blocks = held.shape
    block, sets = np.nonzero((np.arange(1 << nodes) & ~node_sets(held)[:, None]) == 0)
    option = np.arange(len(block))
    one = csr_matrix((np.ones(len(block)), (block, option)), shape=(blocks, len(block)))
    rows = csr_matrix(members(sets, nodes).T * size[block] / storage.max())
    result = milp(
        size[block] * cost[block, sets],
        constraints=LinearConstraint(
            vstack([one, rows]),
            np.concatenate([np.ones(blocks), np.full(nodes, -np.inf)]),
            np.concatenate([np.ones(blocks), storage / storage.max()]),
        ),
        integrality=np.ones(len(block)),
        bounds=Bounds(0, 1),
        options={"mip_rel_gap": 3e-4},
    )
    return float(result.fun), float(result.mip_dual_bound)


def slot_of_blocks(rng, nodes, blocks, share=0.4):
    """Return the cost, holders, sizes and storage of a slot: savings that fall with each copy."""
    size = rng.integers(10**6, 4 * 10**7, blocks)
    member = members(np.arange(1 << nodes), nodes)
    worth = rng.exponential(1e-8, (blocks, nodes))
    reached = np.sqrt((worth[:, None] * member).sum(axis=2))
    cost = 1e-3 * (reached.max(axis=1, keepdims=True) - reached)
    held = rng.random((nodes, blocks)) < 0.7
    storage = np.full(nodes, int(share * size.sum()))
    return cost, held, size, storage


def check_fits(answer, held, size, storage):
    """Assert that what is kept is there, and fits to the byte."""
    assert not (answer.keep & ~held).any()
    assert (answer.keep @ size <= storage).all()


costs = st.floats(-10, 10, width=16) | st.just(np.inf)


@st.composite
def slots(draw):
    """Any small slot: costs of any sign, also infinite, sizes and storage from 0, any prices."""
    nodes, blocks = draw(st.integers(1, 3)), draw(st.integers(0, 4))
    take = lambda element, count: [draw(element) for _ in range(count)]  # noqa: E731
    cost = np.reshape(take(costs, blocks << nodes), (blocks, 1 << nodes))
    held = np.reshape(take(st.booleans(), nodes * blocks), (nodes, blocks)).astype(bool)
    size = np.array(take(st.integers(0, 9), blocks), dtype=np.int64)
    storage = np.array(take(st.integers(0, 20), nodes), dtype=np.int64)
    prices = np.array(take(st.floats(0, 5), nodes)) if draw(st.booleans()) else None
    return cost, held, size, storage, prices


@settings(max_examples=100, deadline=None)
@given(slots())
def test_any_slot_fits_and_is_bounded(slot):
    """Bytes fit; bound <= optimum <= value; what is given to start from is never made worse."""
    *problem, prices = slot
    cost, held, size, storage = problem
    best = best_value(*problem)
    in_turn = keep_by_cost(
        np.where(np.isinf(cost), 99.0, cost), held, size, storage, np.zeros(len(size), np.int64)
    )
    for start in (None, in_turn):
        answer = keep_jointly(*problem, start=start, prices=prices)
        check_fits(answer, held, size, storage)
        assert answer.value == value_of(cost, size, answer.keep)
        assert answer.bound <= best <= answer.value
        assert (answer.prices >= 0).all()
        if start is not None:
            assert answer.value <= value_of(cost, size, start)


@pytest.mark.parametrize(("nodes", "blocks", "share"), [(1, 30, 0.3), (2, 40, 0.3), (4, 30, 0.3)])
def test_near_highs(nodes, blocks, share):
    """Over 3 slots at most 0.5 % of the range above the exact MILP, and never below it."""
    rng = np.random.default_rng(nodes)
    losses = []
    for _ in range(3):
        problem = slot_of_blocks(rng, nodes, blocks, share)
        cost, held, size, storage = problem
        answer, (best, least) = keep_jointly(*problem), highs_values(*problem)
        check_fits(answer, held, size, storage)
        everything = value_of(cost, size, held)
        scale = value_of(cost, size, np.zeros_like(held)) - everything
        assert answer.bound <= best + 1e-6 * scale
        assert answer.value >= least - 1e-6 * scale
        losses.append((answer.value - best) / scale)
    assert np.mean(losses) < 5e-3


def test_closed_forms():
    """No block; no storage; storage for everything; a block of the whole storage; equal blocks."""
    rng = np.random.default_rng(0)
    cost, held, size, storage = slot_of_blocks(rng, 3, 20)
    none = keep_jointly(cost[:0], held[:, :0], size[:0], storage)
    assert none.keep.shape == (3, 0)
    assert none.value == 0 >= none.bound
    empty = keep_jointly(cost, held, size, 0 * storage)
    assert not empty.keep.any()
    assert empty.value == pytest.approx(empty.bound)
    full = keep_jointly(cost, held, size, storage * 10)
    assert np.array_equal(full.keep, held)
    # One block as large as the storage, worth more than all others together.
    size[0] = storage[0]
    held[:, 0] = True
    cost[0] *= 100
    big = keep_jointly(cost, held, size, storage)
    assert np.array_equal(big.keep[:, 0], [True] * 3) == (big.value == big.bound)
    check_fits(big, held, size, storage)
    # Ten equal blocks of 7 bytes in 25 bytes: three of them, and the rest of the bytes stay free.
    equal = keep_jointly(
        np.array([[1.0, 0.0]] * 10), np.ones((1, 10), bool), np.full(10, 7), np.array([25])
    )
    assert equal.keep.sum() == 3
    assert equal.value == 49.0


def test_infinite_costs_are_avoided():
    """A block that must be somewhere goes before any saving; where none fits the value says so."""
    cost = np.array([[np.inf, 5.0], [9.0, 0.0], [np.inf, 7.0]])
    held, size = np.ones((1, 3), bool), np.array([4, 4, 4])
    answer = keep_jointly(cost, held, size, np.array([8]))
    assert answer.keep.tolist() == [[True, False, True]]
    assert answer.value == 4 * (5 + 9 + 7)
    assert keep_jointly(cost, held, size, np.array([7])).value == np.inf


def test_equal_inputs_give_equal_bits():
    """Twice the same, whatever the memory layout of what is given."""
    cost, held, size, storage = slot_of_blocks(np.random.default_rng(5), 4, 60)
    once = keep_jointly(cost, held, size, storage)
    again = keep_jointly(np.asfortranarray(cost), np.asfortranarray(held), size, storage)
    assert np.array_equal(once.keep, again.keep)
    assert once.prices.tobytes() == again.prices.tobytes()
    assert (once.value, once.bound) == (again.value, again.bound)


def test_twelve_nodes():
    """Beyond 8 nodes options are proposed: near the bound of all sets, never worse than in turn."""
    cost, held, size, storage = slot_of_blocks(np.random.default_rng(9), 12, 40)
    start = keep_by_cost(cost, held, size, storage, np.zeros(40, np.int64), rounds=3)
    in_turn = value_of(cost, size, start)
    answer = keep_jointly(cost, held, size, storage, start=start)
    check_fits(answer, held, size, storage)
    assert answer.bound <= answer.value <= in_turn
    scale = value_of(cost, size, np.zeros_like(held)) - value_of(cost, size, held)
    assert answer.value - answer.bound < 0.02 * scale


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cost": np.full((3, 4), np.nan)}, "cost: has NaN"),
        ({"cost": np.zeros((3, 2))}, "cost: shape"),
        ({"size": np.array([1, -1, 1])}, "size, storage"),
        ({"prices": np.array([1.0, -1.0])}, "prices: "),
        ({"start": np.ones((2, 3), bool)}, "start: does not fit"),
    ],
)
def test_bad_input(change, message):
    """Each is refused with a line that names it."""
    given = {
        "cost": np.zeros((3, 4)),
        "held": np.ones((2, 3), bool),
        "size": np.array([5, 5, 5]),
        "storage": np.array([9, 9]),
    } | change
    with pytest.raises(ValueError, match=message):
        keep_jointly(**given)
