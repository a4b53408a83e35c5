"""Hindsight bounds of a path, without and with penalties, and the weight of the penalties."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.scenario import Scenario
from finecast.solvers.penalties import (
    FIRST_TRAINING_PATH,
    TRAINING_PATHS,
    kinds_of,
    penalties_of,
)
from finecast.solvers.placement.bound import Prices
from finecast.solvers.placement.chains import classes
from finecast.solvers.placement.demand_programme import DemandProgramme
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.placement.search.dual_ascent import best_prices
from finecast.solvers.placement.search.lagrangian import BOUND_TOLERANCE
from finecast.solvers.prepared import prepare

KAPPAS = (0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
"""Weights that are tried."""

KAPPA_PATHS = 4
"""Training paths on which they are tried; not those that the values were made of."""


def hindsight_bound(problem: PlacementProblem) -> tuple[Prices, float]:
    """Return the best storage prices and the certified bound (s) of seeing the whole path."""
    point = best_prices(problem, classes(problem), tolerance=BOUND_TOLERANCE)
    return point.prices, point.bound


def penalised_bound(
    problem: PlacementProblem, kind: IntArray, penalty: FloatArray, start: Prices | None = None
) -> float:
    """Return the certified bound (s) of seeing the whole path and paying the penalties.

    Parameters
    ----------
    problem
        The path at upper bounds of the rates.
    kind
        (J,) kind of every block.
    penalty
        (T, C, 2^N) seconds per byte.
    start
        Prices to start from.
    """
    tables = classes(problem, kind)
    kind_of_class = np.zeros(len(tables.size), dtype=np.int64)
    kind_of_class[tables.of_block] = kind
    charge = np.ascontiguousarray(-penalty[:, kind_of_class].transpose(0, 2, 1))
    tables = replace(tables, charge=charge)
    return best_prices(problem, tables, start=start, tolerance=BOUND_TOLERANCE).bound


def trained_kappa(programme: DemandProgramme, scenario: Scenario, seed: int) -> float:
    """Return the weight of the penalties whose bound is highest in the mean over training paths.

    Parameters
    ----------
    programme
        Of the network.
    scenario, seed
        The network.
    """
    total = np.zeros(len(KAPPAS))
    for number in range(KAPPA_PATHS):
        path = scenario.generate(seed, FIRST_TRAINING_PATH + TRAINING_PATHS + number)
        problem = prepare(path).bounded
        if problem is None:  # somebody cannot be served: such a path says nothing
            continue
        start, _ = hindsight_bound(problem)
        penalty = penalties_of(programme, path.requests[None])[0]
        total += [
            penalised_bound(problem, kinds_of(path), kappa * penalty, start) for kappa in KAPPAS
        ]
    return KAPPAS[int(total.argmax())] if total.any() else 1.0
