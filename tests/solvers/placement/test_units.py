"""Units of nodes: the same as nodes where they are all there is, a bound and a placement beyond."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from placement_oracle import optimum, random_problem

from finecast.solvers.node_set_tables import OnDemand, members
from finecast.solvers.placement.bound import Prices, dual_point
from finecast.solvers.placement.chains import Classes, chains, classes
from finecast.solvers.placement.greedy import best_levels, greedy_placement, total_cost
from finecast.solvers.placement.problem import PlacementProblem, placement_delay
from finecast.solvers.placement.search import lagrangian
from finecast.solvers.placement.search.lagrangian import place_by_prices
from finecast.solvers.placement.units import (
    classes_of_units,
    nodes_by_importance,
    relaxed_classes,
    restricted_classes,
)


def single_nodes(problem: PlacementProblem, units: int = 0) -> Classes:
    """Return the tables with every node a unit of every class, in an order of the class's own."""
    order = nodes_by_importance(problem)
    return classes_of_units(problem, order[:, :, None] == np.arange(problem.nodes))


def on_demand(problem: PlacementProblem) -> PlacementProblem:
    """Return the same problem with its broadcast times behind functions."""

    def lazy(table: np.ndarray) -> OnDemand:
        return OnDemand(len(table), lambda group, sets: table[group, sets])

    return replace(problem, broadcast=tuple(lazy(table) for table in problem.broadcast))


@pytest.mark.parametrize("schedule", ["sequential", "pipelined"])
def test_single_nodes_are_the_plain_tables(schedule):
    """With every node a unit, whatever their order, the Lagrangian is the same at all prices."""
    rng = np.random.default_rng(0)
    for nodes in (1, 2, 3, 4, 5):
        problem = random_problem(rng, nodes, 6, 3, schedule)
        for _ in range(5):
            share = rng.random(3) if schedule == "pipelined" else None
            prices = Prices(rng.exponential(0.3, (3, nodes)), share)
            plain = dual_point(problem, classes(problem), prices)
            same = dual_point(problem, single_nodes(problem), prices)
            assert same.value == pytest.approx(plain.value, rel=1e-12)
            assert same.bound == pytest.approx(plain.bound, rel=1e-9)


def test_search_over_single_nodes_is_as_good(monkeypatch):
    """The search over per-class units that leave nothing out proves the same optima."""
    rng = np.random.default_rng(1)
    problems = [random_problem(rng, nodes, 6, 2) for nodes in (2, 3, 4, 5) for _ in range(2)]
    plain = [place_by_prices(problem, patience=1) for problem in problems]
    monkeypatch.setattr(lagrangian, "relaxed_classes", single_nodes)
    monkeypatch.setattr(lagrangian, "restricted_classes", single_nodes)
    for problem, expected in zip(problems, plain, strict=True):
        found = place_by_prices(problem, patience=1)
        assert found.lower_bound == pytest.approx(expected.lower_bound, rel=2e-4)
        assert found.delay == pytest.approx(expected.delay, rel=1e-2)


@pytest.mark.parametrize(
    ("size", "schedule"),
    [
        *((size, "sequential") for size in [(2, 3, 1), (3, 2, 1), (3, 2, 2), (4, 1, 2), (4, 2, 1)]),
        *((size, "pipelined") for size in [(2, 3, 1), (3, 2, 1), (3, 1, 2), (2, 2, 2)]),
    ],
)
def test_bound_and_placement_against_enumeration(size, schedule):
    """Fewer units than nodes: relaxed bound <= optimum over all node sets <= feasible delay."""
    rng = np.random.default_rng(size)
    for _ in range(6):
        problem = random_problem(rng, *size, schedule)
        best = optimum(problem)
        for units in range(1, size[0]):
            relaxed = relaxed_classes(problem, units)
            for _ in range(5):
                share = rng.random(size[2]) if schedule == "pipelined" else None
                prices = Prices(rng.exponential(0.3, (size[2], size[0])), share)
                assert dual_point(problem, relaxed, prices).bound <= best * (1 + 1e-12)
            found = place_by_prices(problem, units=units, patience=1)
            assert found.delay == placement_delay(problem, found.placement)
            assert found.lower_bound <= best * (1 + 1e-12)
            assert found.delay >= best * (1 - 1e-12)


def test_more_units_bound_better():
    """Every node more that is priced can only raise the Lagrangian, up to that of all nodes."""
    rng = np.random.default_rng(2)
    strict = 0
    for _ in range(10):
        problem = random_problem(rng, 5, 8, 2)
        prices = Prices(rng.exponential(0.2, (2, 5)))
        values = [
            dual_point(problem, relaxed_classes(problem, u), prices).value for u in range(1, 6)
        ]
        for fewer, more in itertools.pairwise(values):
            assert (fewer <= more * (1 + 1e-12)).all()
        strict += int((values[0] < values[-1] * 0.999).any())
    assert strict


def test_sets_of_units_and_of_nodes():
    """Units to nodes and back is the identity; a unit with a node missing is left out."""
    problem = random_problem(np.random.default_rng(3), 5, 7, 2)
    tables = restricted_classes(problem, 4)
    of = tables.of_block
    sizes = tables.unit.sum(axis=2)
    assert (tables.unit.sum(axis=1) == 1).all()  # every node in one unit
    assert (np.sort(sizes, axis=1) == [1, 1, 1, 2]).all()
    sets = np.random.default_rng(4).integers(0, 1 << 4, (2, 7))
    nodes = tables.node_sets(of, sets)
    assert (tables.unit_sets(of, nodes) == sets).all()
    assert (members(nodes, 5).transpose(0, 2, 1) == tables.holds(of, sets)).all()
    pair = tables.unit[of][np.arange(7), sizes[of].argmax(axis=1)]  # (J, N) the two of a unit
    without_one = 31 & ~(1 << pair.argmax(axis=1))
    left = tables.node_sets(of, tables.unit_sets(of, without_one[None]))
    assert (left == without_one & ~(pair @ (1 << np.arange(5)))).all()


def test_tables_on_demand_change_nothing():
    """The same problem with its times behind functions has the same answers."""
    rng = np.random.default_rng(5)
    for nodes in (2, 4):
        problem = random_problem(rng, nodes, 8, 2)
        lazy = on_demand(problem)
        plain, same = place_by_prices(problem, seed=1), place_by_prices(lazy, seed=1)
        assert (plain.delay, plain.lower_bound) == (same.delay, same.lower_bound)
        greedy = greedy_placement(lazy)
        assert placement_delay(lazy, greedy) == placement_delay(problem, greedy_placement(problem))


def test_best_levels_by_hand():
    """One slot, two nodes: send at once, or wait for the cloud and send from both."""
    problem = PlacementProblem(
        block_size=np.array([1, 1]),
        storage=np.array([1, 1]),
        group=np.array([[0, -1]]),
        broadcast=(np.array([[np.inf, 5.0, 9.0, 1.0]]),),
        link=np.array([[np.inf, 1.0], [6.0, np.inf], [2.0, 3.0]]),
    )
    cost, sender = best_levels(problem, 0, np.array([0, 0, 0, 0, 1]), np.array([0, 1, 2, 3, 1]))
    # Nothing cached: node 0 after 2 s and 5 s on the air, or both after 3 s and 1 s on the air.
    # Node 0 cached: node 1 has it 1 s later. Node 1 cached: the cloud is the faster source, 2 s.
    assert cost.tolist() == [4.0, 2.0, 3.0, 1.0, 0.0]
    assert sender.tolist() == [3, 3, 3, 3, 1]
    assert total_cost(problem)[0].tolist() == [4.0, 2.0, 3.0, 1.0]


def test_all_node_sets_of_many_nodes_are_refused():
    """A method that runs through all node sets says so in one line, before it fills the memory."""
    with pytest.raises(ValueError, match=r"^nodes: 13 is not allowed.*<= 12"):
        chains(np.ones((14, 13)))
