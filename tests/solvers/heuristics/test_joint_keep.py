"""The joint keep rule: against enumeration and HiGHS, its bound, and bytes that always fit."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import ROOT
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import csr_matrix, vstack

from finecast.problem.scenario import Scenario, read_scenario
from finecast.solvers.heuristics.expected import coming_tables
from finecast.solvers.heuristics.joint_keep import keep_jointly, value_of
from finecast.solvers.heuristics.mpc import ModelPredictive
from finecast.solvers.heuristics.rolling import Rolling, keep_at_once
from finecast.solvers.heuristics.rules import keep_by_cost
from finecast.solvers.node_set_tables import members, node_sets
from finecast.solvers.online import observation_of, prepare_slots, prior_of, run_online


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
    """Return the least value by a MILP to a gap of 1e-3, and its lower bound.

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
        options={"mip_rel_gap": 1e-3},
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


def test_near_highs_on_slots_of_slow_60():
    """Slots as `rolling` meets them, at matched beams: within 1 % of HiGHS, nearer than in turn."""
    scenario = read_scenario(ROOT / "data" / "scenarios" / "learning" / "slow-60.toml")
    instance = scenario.with_({"slots": 3}).generate(9101)
    prior, rule, losses = prior_of(instance), Rolling(keep="in-turn"), []
    cache = rule.place(prior)
    for t, slot in enumerate(prepare_slots(instance, beamforming="matched")[:-1]):
        observation = observation_of(instance, prior, t, slot)
        source, start = rule.act(observation, cache)
        problem, held = observation.problem, cache | (source >= 0)
        cost, size = coming_tables(observation, 1).cost[0], problem.block_size
        answer = keep_jointly(cost, held, size, problem.storage, start=start)
        best, least = highs_values(cost, held, size, problem.storage)
        check_fits(answer, held, size, problem.storage)
        assert answer.bound <= best * (1 + 1e-6)
        assert answer.value >= least * (1 - 1e-6)
        in_turn = value_of(cost, size, start)
        losses.append([answer.value / best - 1, in_turn / best - 1])
        cache = start
    mine, theirs = np.mean(losses, axis=0)
    assert mine < 0.01
    assert mine < 0.5 * theirs


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


@pytest.fixture(scope="module")
def played():
    """Return instance, rates and observations of a draw of 24 blocks at 3 nodes over 5 slots."""
    scenario = Scenario.model_validate({
        "slots": 5,
        "library": {"synthetic": {"models": 6, "blocks": 24, "families": 2}},
        "nodes": {"count": 3, "antennas": 2, "storage_share": 0.3},
        "links": {"backhaul_gbps": [0.3, 1.0], "cloud_gbps": [0.1, 0.3]},
        "users": {"count": 6},
        "demand": {"persistence": 0.9},
    })  # fmt: skip
    instance = scenario.generate(3)
    slots = prepare_slots(instance, beamforming="matched")
    prior = prior_of(instance)
    return prior, [observation_of(instance, prior, t, slot) for t, slot in enumerate(slots)]


def expected_value(observation, keep):
    """Return the expected delay of the next slot if the nodes keep (N, J), s."""
    cost = coming_tables(observation, 1).cost[0]
    return value_of(cost, observation.problem.block_size, keep)


def test_rolling_keeps_no_worse_than_in_turn(played):
    """From the same caches the joint rule's expected delay is never above that of nodes in turn."""
    prior, observations = played
    rule, in_turn = Rolling(), Rolling(keep="in-turn")
    cache, better = rule.place(prior), 0
    for observation in observations[:-1]:
        source, keep = rule.act(observation, cache)
        theirs, other = in_turn.act(observation, cache)
        assert np.array_equal(source, theirs)
        mine, yours = (expected_value(observation, kept) for kept in (keep, other))
        assert mine <= yours
        better += mine < yours
        cache = keep
    assert better


@pytest.mark.parametrize("policy", [Rolling, ModelPredictive])
def test_the_keep_option(policy, played):
    """In turn is another rule than joint; any other name is refused; a second run is the same."""
    prior, observations = played
    joint, in_turn = policy(), policy(keep="in-turn")
    first, second = (run_online(joint, prior, observations) for _ in range(2))
    assert np.array_equal(first.cache, second.cache)
    assert not np.array_equal(first.cache, run_online(in_turn, prior, observations).cache)
    with pytest.raises(ValueError, match="keep: 'both' is not allowed, must be one of joint"):
        policy(keep="both")


def test_nodes_at_once_reckon_with_what_was_held():
    """Two nodes get the block that a third held: neither keeps it, since the third will.

    A node that holds a copy keeps it against one that saves a little more: the bonus.
    """
    cost = np.full((2, 8), 1.0)
    cost[0, 1:] = 0.0  # one copy of block 0 is as good as three
    cost[1] -= 0.1 * members(np.arange(8), 3).sum(axis=1)
    cache = np.array([[1, 0], [0, 1], [0, 1]], dtype=bool)
    held = np.ones((3, 2), dtype=bool)
    keep = keep_at_once(cost, cache, held, np.array([5, 5]), np.array([5, 5, 5]))
    assert keep[:, 0].tolist() == [True, False, False]
    # Alone: block 1 saves 1.2 a byte, block 0, which it holds, 1.
    cost, cache = np.array([[1.0, 0.0], [1.2, 0.0]]), np.array([[True, False]])
    keep = keep_at_once(cost, cache, cache | True, np.array([5, 5]), np.array([5]))
    assert keep.tolist() == [[True, False]]
