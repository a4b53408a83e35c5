"""A CVXPY problem through Clarabel, quietly: no status is believed, no warning is raised."""

from __future__ import annotations

import cvxpy as cp

# Clarabel's default 1e-8 ends "almost solved" on most relaxations of this problem; at 1e-7 they
# end solved. Nothing below depends on it: answers are re-evaluated, bounds are certified.
TOLERANCES = {"tol_gap_abs": 1e-7, "tol_gap_rel": 1e-7, "tol_feas": 1e-7}


def solve_conic(problem: cp.Problem, **settings: float) -> bool:
    """Solve and fill in variables and multipliers; False when there is nothing to fill in.

    The steps of `Problem.solve` are taken one by one, since that method warns through the
    process-wide warning filter, which cannot be silenced safely from a thread. An inaccurate
    point counts as a point.
    """
    options = {**settings, "accept_unknown": True}
    data, chain, inverse = problem.get_problem_data(cp.CLARABEL, solver_opts=options)
    raw = chain.solve_via_data(problem, data, solver_opts=options)
    solution = chain.invert(raw, inverse)
    if solution.status not in cp.settings.SOLUTION_PRESENT:
        return False
    problem.unpack(solution)
    return True
