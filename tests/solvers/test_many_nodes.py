"""Nine nodes and more: rates on demand, answers judged feasible, bounds below them."""

from __future__ import annotations

import numpy as np
import pytest
from repository import TINY
from searched_once import remember_beams

from finecast.problem.instance import Instance, user_groups
from finecast.problem.scenario import Scenario
from finecast.solvers import node_set_tables
from finecast.solvers.bounds import certified_lower_bound
from finecast.solvers.node_set_tables import OnDemand, whole_set
from finecast.solvers.online import joined, observation_of, prepare_slots, prior_of, run_online
from finecast.solvers.placement.problem import slot_times
from finecast.solvers.prepared import prepare
from finecast.solvers.rate_table import group_family, node_sets_to_solve, rate_table
from finecast.solvers.registry import method_of
from finecast.solvers.solve import solve

CLASSICAL = ("greedy-online", "lru", "own-savings", "qlru-hs", "bsca", "ftpl", "oftrl")
"""Online methods for any number of nodes."""


@pytest.fixture(autouse=True)
def _beams_are_searched_once(monkeypatch: pytest.MonkeyPatch) -> None:
    remember_beams(monkeypatch)


def wide(nodes: int, users: int = 6, slots: int = 2, antennas: int = 2) -> Instance:
    """Return an instance with many nodes and few users."""
    scenario = Scenario.model_validate({
        "slots": slots,
        "library": {"file": "../libraries/tiny.json"},
        "nodes": {"count": nodes, "antennas": antennas, "storage_gb": 0.3},
        "users": {"count": users},
        "channel": {"error": 0.05},
    })  # fmt: skip
    scenario._path = TINY
    return scenario.generate(1)


def test_group_family_by_hand():
    """Six nodes that matter in the order 5, 4, ..., 0: subsets of 5 to 1, with and without 0."""
    reach = np.array([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]])
    (family,) = group_family(reach, np.ones((1, 1), dtype=bool))
    assert set(family.tolist()) == set(range(1, 64))
    # Nine nodes: also the first 6, 7, 8 nodes, and all but one.
    reach = 2.0 ** np.arange(9)[None]
    (family,) = group_family(reach, np.ones((1, 1), dtype=bool))
    chosen = set(family.tolist())
    assert {0b111111000, 0b111111100, 0b111111110} <= chosen
    assert {511 & ~(1 << n) for n in range(9)} <= chosen
    assert 0b000001000 not in chosen
    assert 511 in chosen


def test_tables_on_demand_equal_arrays(monkeypatch):
    """The same beams give the same rates, as arrays and on demand."""
    instance = wide(7)
    users = [user_groups(wanted)[0] for wanted in instance.wanted]
    node_sets = node_sets_to_solve(instance, users, True)
    arrays = rate_table(instance, users, node_sets)
    monkeypatch.setattr(node_set_tables, "FULL_TABLES", 2)
    lazy = rate_table(instance, users, node_sets)
    sets = np.arange(1 << 7)
    for slot, same in zip(arrays, lazy, strict=True):
        rows = np.arange(len(slot.users))[:, None]
        assert isinstance(same.bound, OnDemand)
        for name in ("best", "achieved", "bound"):
            assert np.array_equal(getattr(same, name)[rows, sets], getattr(slot, name))


@pytest.mark.parametrize("nodes", [9, 12])
def test_rates_are_bounded_and_monotone(nodes):
    """At random node sets, solved or not: achieved <= bound, and more nodes are never worse."""
    instance = wide(nodes)
    rng = np.random.default_rng(nodes)
    for slot in prepare(instance).rates:
        row = np.arange(len(slot.users))[:, None]
        sets = rng.integers(0, 1 << nodes, 200)
        more = sets | rng.integers(0, 1 << nodes, 200)
        assert (slot.achieved[row, sets] <= slot.bound[row, sets] * (1 + 1e-12)).all()
        assert (slot.achieved[row, sets] <= slot.achieved[row, more]).all()
        assert (slot.bound[row, sets] <= slot.bound[row, more]).all()
        assert (whole_set(slot.achieved, nodes) > 0).all()


@pytest.mark.parametrize("nodes", [9, 12])
@pytest.mark.parametrize("restrict", [(), ("no-comp",)])
def test_answers_are_feasible_and_bounded(nodes, restrict):
    """The judge accepts the answers; the bound is below all of them and not below the trivial."""
    instance = wide(nodes)
    found = solve(instance, "lagrangian", time_limit=5, restrict=restrict)
    assert found.evaluation.feasible
    assert 0 < found.lower_bound <= found.delay
    if not restrict:
        # Two certified bounds, of other proofs of the same rates: equal but for their tolerance.
        assert found.lower_bound >= certified_lower_bound(instance) * (1 - 1e-6)
    for method in ("greedy", "whole-model", "rolling", "lru"):
        other = solve(instance, method, restrict=restrict)
        assert other.evaluation.feasible
        assert found.lower_bound <= other.delay
        assert found.delay <= other.delay * (1 + 1e-3)


@pytest.mark.parametrize("nodes", [9, 20])
def test_classical_caching_at_any_number_of_nodes(nodes):
    """Every rule holds, storage among them, with tables on demand; 20 nodes are too many for sets.

    `slot_times` refuses whatever breaks a rule.
    """
    instance = wide(nodes, users=3, slots=2, antennas=1)
    slots, prior = prepare_slots(instance), prior_of(instance)
    achieved = joined(instance, slots).achieved
    for name in CLASSICAL:
        views = (observation_of(instance, prior, t, slot) for t, slot in enumerate(slots))
        placement = run_online(method_of(name).load()(), prior, views)
        assert np.isfinite(slot_times(achieved, placement)).all()


def test_too_many_nodes_for_a_method():
    """Twenty nodes: classical caching works; what needs all node sets refuses, in one line."""
    instance = wide(20, users=3, slots=1, antennas=1)
    found = solve(instance, "lru")
    assert found.evaluation.feasible
    assert found.lower_bound <= found.delay
    with pytest.raises(ValueError, match=r"nodes: 20 is not allowed"):
        solve(instance, "mpc")
