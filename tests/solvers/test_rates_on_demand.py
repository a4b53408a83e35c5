"""Rates on demand: as good as the whole table, at a few of its entries."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario
from finecast.solvers import rate_table, rates_on_demand
from finecast.solvers.beamforming.worst_case import worst_case_snr
from finecast.solvers.deadline import Deadline
from finecast.solvers.placement.bound import dual_point
from finecast.solvers.placement.search.lagrangian import dual_bound, place_by_prices
from finecast.solvers.placement.units import relaxed_classes
from finecast.solvers.prepared import Prepared, prepare
from finecast.solvers.rates_on_demand import best_dual, prepare_on_demand, with_sent
from finecast.solvers.solve import solve

NEAR = 5e-4
"""Twice the tolerance of the prices of a round, and a bit."""


def some(nodes: int, seed: int, error: float = 0.0, **users: object) -> Instance:
    """Return an instance of 60 blocks and three slots."""
    scenario = Scenario.model_validate(
        {
            "slots": 3,
            "library": {"synthetic": {"models": 12, "blocks": 60}},
            "nodes": {"count": nodes, "antennas": 4, "storage_share": 0.25},
            "users": {"count": 8, **users},
        }
    )
    instance = scenario.generate(seed)
    radius = error * np.linalg.norm(instance.channel_estimate, axis=3)
    return replace(instance, channel_error=radius, channel_true=instance.channel_estimate)


def solved(prepared: Prepared) -> float:
    """Return the share of the entries that are solved."""
    return float(np.mean([np.isfinite(slot.snr_bound).mean() for slot in prepared.rates]))


@pytest.fixture(autouse=True)
def _small_tables_too(monkeypatch):
    """Let methods use rates on demand for instances as small as these."""
    monkeypatch.setattr(rates_on_demand, "FEW_PAIRS", 0)


CASES = [(4, 0, 0.0), (4, 1, 0.1), (5, 2, 0.05), (6, 3, 0.0), (6, 4, 0.3), (9, 5, 0.05)]


@pytest.mark.parametrize(("nodes", "seed", "error"), CASES)
def test_dual_bound_is_that_of_the_whole_table(nodes, seed, error):
    """No path of the dual rests on an unsolved message: the bound is as if all were solved."""
    instance = some(nodes, seed, error)
    (few, _), whole = prepare_on_demand(instance), prepare(instance)
    # Beyond 8 nodes the whole table has a family of sets; a bound may then even be better.
    assert dual_bound(few.bounded) >= dual_bound(whole.bounded) * (1 - NEAR)
    assert solved(few) < solved(whole) == 1.0
    for slot, full in zip(few.rates, whole.rates, strict=True):
        rows = np.arange(len(full.users))[:, None]
        sets = np.arange(1 << nodes) if nodes <= 8 else np.array([1, 5, 40, 511])
        parts = len(slot.users[: len(full.users)])
        rows = rows[:parts]
        assert (slot.achieved[rows, sets] <= full.bound[rows, sets] * (1 + 1e-9)).all()


@pytest.mark.parametrize(("nodes", "seed", "error"), CASES[:4])
def test_plans_are_as_fast(nodes, seed, error):
    """The method's answer against the same placement search on the whole table."""
    instance = some(nodes, seed, error)
    found = solve(instance, "lagrangian", work=1.0)
    whole = prepare(instance)
    plan = place_by_prices(whole.achieved, deadline=Deadline.after(None, 1.0))
    assert found.evaluation.feasible
    assert found.delay <= plan.delay * (1 + 2e-3)
    assert found.lower_bound >= dual_bound(whole.bounded) * (1 - NEAR)


@pytest.mark.parametrize("method", ["lagrangian", "exact"])
def test_a_kept_table_of_seven_nodes_bounds_as_if_all_were_solved(method, monkeypatch, tmp_path):
    """Beyond six nodes a whole table lacks node sets; those that the bound rests on are solved."""
    instance = Scenario.model_validate(
        {
            "slots": 1,
            "library": {"synthetic": {"models": 6, "blocks": 20}},
            "nodes": {"count": 7, "antennas": 2, "storage_share": 0.2},
            "users": {"count": 4},
        }
    ).generate(0)
    kept = solve(instance, method=method, rate_cache=str(tmp_path / "some"), seed=0)
    with monkeypatch.context() as patch:
        patch.setattr(rate_table, "FULL_FAMILY_NODES", 7)
        patch.setattr(rates_on_demand, "FULL_FAMILY_NODES", 7)
        everything = solve(instance, method=method, rate_cache=str(tmp_path / "all"), seed=0)
    assert kept.lower_bound >= everything.lower_bound * (1 - NEAR)
    assert kept.delay <= everything.delay * (1 + NEAR)


@pytest.mark.parametrize("error", [0.0, 0.2])
def test_first_rates_are_guaranteed(error):
    """Beams of all nodes, without those of some, reach what the exact formula says."""
    instance = some(4, 7, error)
    late, _ = prepare_on_demand(instance, deadline=Deadline.after(0.0))
    (slot, *_) = late.rates
    rate = 0
    for g in range(len(slot.users)):
        for f, node_set in enumerate(slot.node_sets[g]):
            sends = (node_set >> np.arange(4) & 1).astype(bool)
            assert not slot.beam[g, f][~sends].any()
            listens = slot.users[g]
            exact = worst_case_snr(
                instance.normalised_channel[0][listens],
                instance.error_of(0, True)[listens],
                slot.beam[g, f],
            )
            assert slot.snr[g, f] <= exact * (1 + 1e-9)
            rate += slot.snr[g, f] > 0
    assert rate > 10


def test_over_from_the_start_there_is_a_rate_for_every_message():
    """Whatever the deadline, all nodes together serve everybody, and bounds are bounds."""
    instance = some(5, 1, 0.05)
    (late, _), whole = prepare_on_demand(instance, deadline=Deadline.after(0.0)), prepare(instance)
    everywhere = (1 << 5) - 1
    for slot, full in zip(late.rates, whole.rates, strict=True):
        rows = np.arange(len(full.users))
        assert (slot.achieved[rows, everywhere] > 0).all()
        assert (full.achieved[rows] <= slot.bound[rows] * (1 + 1e-9)).all()


def test_sent_messages_are_solved_and_only_improve():
    instance = some(5, 2, 0.05)
    late, _ = prepare_on_demand(instance, deadline=Deadline.after(0.0))
    plan = place_by_prices(late.achieved, patience=0).placement
    sent = with_sent(late, plan, seed=0)
    assert solved(sent) > solved(late)
    assert with_sent(sent, plan, seed=0) is sent
    for before, after in zip(late.rates, sent.rates, strict=True):
        rows = np.arange(len(before.users))
        assert (after.achieved[rows] >= before.achieved[rows]).all()
        assert (after.bound[rows] <= before.bound[rows]).all()


def test_a_dual_from_the_last_rounds_paths_is_no_worse():
    """Known paths replace the first steps; their times are those of the new table."""
    instance = some(5, 3, 0.1)
    late, _ = prepare_on_demand(instance, deadline=Deadline.after(0.0))
    first = best_dual(late, None, Deadline())
    whole = prepare(instance)
    again = best_dual(whole, first, Deadline())
    tables = relaxed_classes(whole.bounded)
    assert again.bound >= dual_point(whole.bounded, tables, first.prices).bound
    assert first.bound <= again.bound <= dual_bound(whole.bounded) * (1 + NEAR)


def test_messages_of_own_restrictions():
    """Unicast, coarse and without migration: certified, feasible, as the whole table says."""
    instance = some(4, 5, 0.05)
    for restrict in ("unicast", "coarse", "no-migration", "one-message", "non-robust"):
        few = solve(instance, "lagrangian", work=1.0, restrict=restrict)
        whole = prepare(instance, restrict=restrict)
        assert few.evaluation.feasible
        assert few.lower_bound >= dual_bound(whole.bounded) * (1 - 2 * NEAR)
