"""The Lagrangian function of the storage prices: a lower bound for every price.

    L(lambda) = sum_c s_c min over paths [cost + lambda . X] - sum_{t,n} lambda_{t,n} S_n

where s_c is the total size of a class of blocks. The cost includes the charges of cached sets,
where the classes have any (`Classes.charge`); the bound is then one on the delay plus the charges
of what is cached, and may be negative. For the pipelined schedule the delay of a slot is
at least the larger of its two sums, hence at least theta_t times the migrations plus 1 - theta_t
times the broadcasts for every theta_t in [0, 1], and the same holds with these weights.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from finecast.problem.arrays import FloatArray
from finecast.solvers.placement.chains import Classes
from finecast.solvers.placement.dynamic_programme import (
    Paths,
    Weights,
    cheapest_paths,
    cost_to_go,
    sequential_weights,
)
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.rounding import EPSILON


@dataclass(frozen=True)
class Prices:
    """A point of the Lagrangian dual.

    Attributes
    ----------
    storage
        (T, N) lambda, seconds per byte, at least 0.
    migration_share
        (T,) theta in [0, 1] of the pipelined schedule; None for the sequential one.

    Examples
    --------
    In a pipelined slot with theta = 0.25, a second of migration counts a quarter, a second of
    broadcast three quarters.

    >>> prices = Prices(np.array([[3.0]]), np.array([0.25]))
    >>> prices.weights.migration, prices.weights.broadcast
    (array([0.25]), array([0.75]))
    """

    storage: FloatArray
    migration_share: FloatArray | None = None

    @property
    def weights(self) -> Weights:
        """Weights of migration and broadcast that go with the prices."""
        if self.migration_share is None:
            return sequential_weights(len(self.storage))
        return Weights(self.migration_share, 1.0 - self.migration_share)


@dataclass(frozen=True)
class PricePoint:
    """The Lagrangian function at one point.

    Attributes
    ----------
    prices
        Where.
    bound
        Certified lower bound on the delay and the charges, seconds.
    paths
        A cheapest path for every class.
    value
        (C,) their prices, seconds per byte.
    """

    prices: Prices
    bound: float
    paths: Paths
    value: FloatArray


def no_prices(problem: PlacementProblem) -> Prices:
    """Return prices of zero: storage without limit; half of each of the two sums if pipelined."""
    share = np.full(problem.slots, 0.5) if problem.schedule == "pipelined" else None
    return Prices(np.zeros((problem.slots, problem.nodes)), share)


def dual_point(problem: PlacementProblem, classes: Classes, prices: Prices) -> PricePoint:
    """Evaluate the Lagrangian function exactly, by the dynamic programme.

    The bound is lowered by a rounding allowance: every value is a sum of at most T (N + 4) terms
    and T charges, so its error is below that number of roundings times the sum of their sizes, and
    the sums over classes and storages add theirs (N. J. Higham, Accuracy and Stability of Numerical
    Algorithms, 2nd ed., section 4.2). All terms but the charges are non-negative: the sizes sum to
    at most |value| + 2 sum_t max over X of |charge_t(X)|.

    Raises
    ------
    ValueError
        Where a price is negative or not finite, or a share outside [0, 1].

    Examples
    --------
    Blocks of 10 and 20 bytes, one node with room for 20, 1 second per byte on the air and 3 from
    the cloud. At a price of 3 a byte costs 4 seconds, cached or not: L = 30 x 4 - 3 x 20 = 60. The
    placement that caches block 1 takes 20 + 10 (3 + 1) = 60 seconds, so the bound proves it best.

    >>> from finecast.solvers.placement.chains import classes
    >>> problem = PlacementProblem(
    ...     block_size=[10, 20],
    ...     storage=[20],
    ...     group=[[0, 0]],
    ...     broadcast=([[np.inf, 1.0]],),
    ...     link=[[np.inf], [3.0]],
    ... )
    >>> tables = classes(problem)
    >>> round(dual_point(problem, tables, no_prices(problem)).bound, 9)
    30.0
    >>> round(dual_point(problem, tables, Prices(np.array([[3.0]]))).bound, 9)
    60.0
    """
    if not (np.isfinite(prices.storage).all() and (prices.storage >= 0).all()):
        raise ValueError("prices.storage: every price must be finite and >= 0")
    share = prices.migration_share
    if share is not None and not ((share >= 0) & (share <= 1)).all():
        raise ValueError("prices.migration_share: every share must be within [0, 1]")
    if (share is None) != (problem.schedule == "sequential"):
        raise ValueError(f"prices.migration_share: does not fit the {problem.schedule} schedule")
    class_of = np.arange(len(classes.size))
    values = cost_to_go(classes, class_of, prices.storage[:, :, None], prices.weights)
    paths = cheapest_paths(classes, class_of, values, prices.weights)
    value = values.value
    gain = float(classes.size @ value)
    rent = float((prices.storage * problem.storage).sum())
    roundings = problem.slots * (2 * problem.nodes + 4) + len(class_of) + 4
    if classes.charge is None:
        allowance = 2.0 * roundings * EPSILON * (gain + rent)
        return PricePoint(prices, max(0.0, gain - rent - allowance), paths, value)
    terms = np.abs(value) + 2.0 * np.abs(classes.charge).max(axis=1).sum(axis=0)
    allowance = 2.0 * (roundings + problem.slots) * EPSILON * (float(classes.size @ terms) + rent)
    return PricePoint(prices, gain - rent - allowance, paths, value)
