"""CP-SAT on the state-flow model: plans and bounds where blocks are few and large.

L. Perron and F. Didier, CP-SAT (OR-Tools), the clause-learning solver with linear relaxations; its
package is the extra `cp-sat`. One worker with a seed, and limits in its own measure of work
besides the clock, so that without a time limit every run is the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from ortools.sat.python import cp_model

from finecast.problem.arrays import FloatArray
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.placement.bound import PricePoint, dual_point
from finecast.solvers.placement.chains import Classes
from finecast.solvers.placement.chains import classes as classes_of
from finecast.solvers.placement.exact.certify import PROOF_GAP
from finecast.solvers.placement.exact.cp_sat_model import UNITS, CpSatModel, cp_sat_model
from finecast.solvers.placement.exact.elimination import Useful, excess
from finecast.solvers.placement.exact.state_flow import offer_solution
from finecast.solvers.placement.exact.state_flow_model import Model, model
from finecast.solvers.placement.exact.useful_paths import room_for
from finecast.solvers.placement.problem import Placement, PlacementProblem
from finecast.solvers.placement.result import Incumbent, PlacementResult
from finecast.solvers.placement.search.lagrangian import place_by_prices
from finecast.solvers.result import BoundKind, TracePoint
from finecast.solvers.rounding import SUM_ALLOWANCE
from finecast.solvers.signals import SearchInterrupt

LAGRANGIAN_TIME_SHARE = 0.15
"""Share of the time for the search before CP-SAT."""

LAGRANGIAN_PATIENCE = 2
"""Rounds without progress after which that search ends."""

ROUNDS = 3
"""Most rounds of a search for plans and a search for a bound; a time limit does not raise it."""

PLAN_SHARE = 0.35
"""Share of the time left that a round searches for plans."""

BOUND_SHARE = 0.75
"""Share of what is then left in which it searches for a bound; the last round takes all."""

PLAN_WORK, BOUND_WORK = 20.0, 60.0
"""Work of the first round in CP-SAT's deterministic seconds; doubled with every round."""

HINT_WORK = 5.0
"""Most work of completing a plan to a value of every variable."""

MOST_COLUMNS = 40_000
"""Variables beyond which the model is left alone: CP-SAT finds nothing there in minutes."""


def place_by_cp_sat(
    problem: PlacementProblem,
    *,
    deadline: Deadline = NEVER,
    gap: float | None = None,
    seed: int = 0,
    start: Placement | None = None,
    callback: Callable[[TracePoint], None] | None = None,
) -> PlacementResult:
    """Find a placement and try to prove it optimal, by CP-SAT.

    A Lagrangian search comes first: its placement is the one to beat, and its prices leave out of
    the model what no better placement can use. CP-SAT then searches for plans from the best one,
    and for a bound among those that are better, by turns. Whenever the delay has improved, less is
    left in the model. Where the model stays too large, the Lagrangian search has all the time.

    Parameters
    ----------
    problem, deadline, gap, seed, start, callback
        As for `place_by_prices`.

    Raises
    ------
    ValueError
        Where `start` is not feasible, or `gap` is negative.
    """
    started = time.monotonic()
    warm = place_by_prices(
        problem, deadline=deadline.share(LAGRANGIAN_TIME_SHARE), gap=gap, seed=seed, start=start,
        callback=callback, patience=LAGRANGIAN_PATIENCE,
    )  # fmt: skip
    incumbent = Incumbent.after(
        warm, problem, deadline=deadline, gap=gap, callback=callback,
        optimal_gap=PROOF_GAP, started=started,
    )  # fmt: skip
    if incumbent.finished or warm.prices is None:
        return incumbent.result(warm.prices)

    classes = classes_of(problem)
    point = dual_point(problem, classes, warm.prices)
    useful = excess(classes, point)
    try:
        if not _rounds(incumbent, classes, useful, point, seed):
            more = place_by_prices(
                problem, deadline=deadline, gap=gap, seed=seed + 1, start=incumbent.placement
            )
            incumbent.offer(more.placement)
            incumbent.raise_bound(more.lower_bound)
            return incumbent.result(warm.prices)
    except SearchInterrupt:
        incumbent.interrupted = True
    by_solver = incumbent.lower_bound > warm.lower_bound
    return incumbent.result(warm.prices, BoundKind.MILP if by_solver else BoundKind.CERTIFIED)


def _rounds(
    incumbent: Incumbent, classes: Classes, useful: list[Useful], point: PricePoint, seed: int
) -> bool:
    """Search for plans and bounds by turns; return whether the model was small enough.

    Parameters
    ----------
    incumbent
        Takes plans and bounds.
    classes, useful
        The tables, and the excess of every element.
    point
        Where the excess is taken.
    seed
        Seed of CP-SAT.
    """
    for turn in range(ROUNDS):
        last = turn == ROUNDS - 1
        # Plans: everything that is as good as the best may be used, and CP-SAT starts there.
        milp = _model(incumbent, classes, useful, point)
        if len(milp.cost) > MOST_COLUMNS:
            return turn > 0
        stage = _Stage(incumbent, classes, milp, seed + turn)
        plans = stage.solver(PLAN_WORK * 2**turn, incumbent.deadline.share(PLAN_SHARE))
        plans.parameters.interleave_search = True
        stage.hint()
        stage.run(plans)
        if incumbent.finished:
            return True

        # Bound: only what beats the best plan by more than the gap of a proof is of interest.
        milp = _model(incumbent, classes, useful, point)
        stage = _Stage(incumbent, classes, milp, seed + turn)
        share = 1.0 if last else BOUND_SHARE
        bounds = stage.solver(BOUND_WORK * 2**turn, incumbent.deadline.share(share))
        bounds.parameters.cp_model_probing_level = 3
        stage.cut()
        stage.run(bounds)
        if incumbent.finished:
            return True
    return True


def _model(
    incumbent: Incumbent, classes: Classes, useful: list[Useful], point: PricePoint
) -> Model:
    """Return the state-flow model of all plans that are no worse than the best."""
    unit = incumbent.delay
    room = room_for(incumbent.problem, point, classes, unit)
    return model(incumbent.problem, classes, useful, room, unit)


class _Stage:
    """One run of CP-SAT on one model.

    Parameters
    ----------
    incumbent
        Takes plans and bounds.
    classes
        The tables.
    milp
        The state-flow model.
    seed
        Seed of CP-SAT.
    """

    def __init__(self, incumbent: Incumbent, classes: Classes, milp: Model, seed: int) -> None:
        self.incumbent, self.classes, self.milp, self.seed = incumbent, classes, milp, seed
        self.translated: CpSatModel = cp_sat_model(incumbent.problem, milp)
        self.most = UNITS
        self.error: BaseException | None = None

    def solver(self, work: float, deadline: Deadline) -> cp_model.CpSolver:
        """Return a solver that ends after so much work, or at the deadline."""
        solver = cp_model.CpSolver()
        parameters = solver.parameters
        parameters.num_workers = 1
        parameters.random_seed = self.seed
        parameters.linearization_level = 2
        parameters.cut_level = 2
        parameters.symmetry_level = 3
        parameters.catch_sigint_signal = False
        parameters.max_deterministic_time = work
        if deadline.limit() is not None:
            parameters.max_time_in_seconds = max(0.01, deadline.left())
        return solver

    def hint(self) -> None:
        """Give CP-SAT the best plan, with a value of every variable.

        A plan says where blocks are cached. CP-SAT itself finds the flows that go with it.
        """
        model, variables = self.translated.model, self.translated.variables
        cached = self.incumbent.placement.cache.ravel().tolist()
        for v, held in zip(self.milp.x.ravel().tolist(), cached, strict=True):
            model.add_hint(variables[v], int(held))
        complete = self.solver(HINT_WORK, self.incumbent.deadline)
        complete.parameters.fix_variables_to_their_hinted_value = True
        status = complete.solve(model)
        if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
            values = [complete.value(v) for v in variables]
            model.clear_hints()
            for v, value in zip(variables, values, strict=True):
                model.add_hint(v, value)

    def cut(self) -> None:
        """Leave only plans that beat the best by more than half the gap of a proof."""
        self.most = round(UNITS * (1.0 - 0.5 * PROOF_GAP))
        self.translated.forbid(self.most)

    def run(self, solver: cp_model.CpSolver) -> None:
        """Run the solver; the incumbent is offered all that it finds.

        CP-SAT runs in a thread of its own, so that Ctrl-C reaches this one.
        """
        solver.best_bound_callback = lambda bound: self._guarded(solver, lambda: self.bound(bound))
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(solver.solve, self.translated.model, _Plans(self, solver))
            try:
                status = running.result()
            except BaseException:
                solver.stop_search()
                raise
        if self.error is not None:
            raise self.error
        if status == cp_model.INFEASIBLE and self.most < UNITS:  # no plan beats the best by more
            self.incumbent.raise_bound(self.most / UNITS * self.milp.unit)
        elif status in (cp_model.OPTIMAL, cp_model.FEASIBLE, cp_model.UNKNOWN):
            self.bound(solver.best_objective_bound)

    def bound(self, units: float) -> None:
        """Take a bound in units; beyond `most` there may be plans that the model leaves out."""
        units = min(np.floor(units), self.most)
        if np.isfinite(units):
            self.incumbent.raise_bound(units / UNITS * self.milp.unit * (1.0 - SUM_ALLOWANCE))

    def plan(self, value: FloatArray) -> None:
        """Offer the plan of a solution, by the values (V,) of its variables."""
        offer_solution(self.incumbent, self.classes, self.milp, value)

    def _guarded(self, solver: cp_model.CpSolver, act: Callable[[], None]) -> None:
        """Act within CP-SAT: keep what is raised for later, and stop at the gap asked for."""
        try:
            act()
        except BaseException as error:
            self.error = error
        if self.error is not None or self.incumbent.reached:
            solver.stop_search()


class _Plans(cp_model.CpSolverSolutionCallback):  # type: ignore[misc]
    """Hands every solution of CP-SAT to its stage."""

    def __init__(self, stage: _Stage, solver: cp_model.CpSolver) -> None:
        super().__init__()
        self.stage, self.solver = stage, solver

    def on_solution_callback(self) -> None:
        """Offer the plan of the solution."""
        values = [self.value(v) for v in self.stage.translated.variables]
        self.stage._guarded(self.solver, lambda: self.stage.plan(np.array(values, dtype=float)))
