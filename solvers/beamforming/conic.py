"""What the conic relaxations share: a quiet solver, and beams from a covariance matrix.

CVXPY problems go through Clarabel. No status is believed and no warning is raised.
"""

from __future__ import annotations

import cvxpy as cp
import numpy as np

from finecast.problem.arrays import ComplexArray

TOLERANCES = {"tol_gap_abs": 1e-7, "tol_gap_rel": 1e-7, "tol_feas": 1e-7}
"""Clarabel's default 1e-8 ends "almost solved" on most relaxations of this problem; at 1e-7 they
end solved. Nothing depends on it: answers are re-evaluated, bounds are certified."""


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


def drawn_beams(
    covariance: ComplexArray, nodes: int, count: int, generator: np.random.Generator
) -> ComplexArray:
    """Return beams v drawn from X: the principal vector and Gaussian ones, (2 + 2 count, n, r).

    Each once with the node powers of X and once with every node at full power.

    Parameters
    ----------
    covariance
        X, shape (n r, n r), Hermitian, for unit power per node.
    nodes
        n.
    count
        Number of Gaussian vectors of covariance X.
    generator
        Source of the Gaussian vectors.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(0.0, values))
    normal = generator.standard_normal((2, count, values.size)) @ root.T
    drawn = np.concatenate([root[:, -1:].T, normal[0] + 1j * normal[1]])
    beams = drawn.reshape(len(drawn), nodes, -1)
    norms = np.linalg.norm(beams, axis=-1, keepdims=True)
    directions = np.divide(beams, norms, out=np.zeros_like(beams), where=norms > 0)
    powers = np.real(np.diagonal(covariance)).reshape(nodes, -1).sum(axis=1)
    amplitudes = np.sqrt(np.clip(powers, 0.0, 1.0))
    return np.concatenate([directions * amplitudes[:, None], directions])
