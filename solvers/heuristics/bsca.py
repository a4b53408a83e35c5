"""BSCA: online gradient ascent on fractional caches, for regret that grows as the root of time.

Every node n has fractions y_n of its blocks in its storage polytope
(`finecast.solvers.heuristics.fractional`). After slot t it takes a step along the gradient
G_nj = s_j g_nj, the seconds that a copy saved given the others' copies, and projects back:

    y_n <- projection of  y_n + eta_n G_n
    eta_n = step D_n / sqrt(2 sum over slots of norm(G_n)^2)

with D_n the diameter of the polytope. Whole blocks are drawn from y by dependent rounding.

For one node the delay saved is linear in y, and with `step` 1 the seconds that y saves are below
those of the best fixed caches by at most sqrt(2) D sqrt(sum norm(G)^2), whatever the requests are
(Zinkevich, ICML 2003; with these steps Orabona, *A modern introduction to online learning*, arXiv
1912.13213, section 4.2). For several nodes it is BSCA, the bipartite subgradient caching algorithm
of Paschos, Destounis, Iosifidis, *Online convex optimization for caching networks*, arXiv
2001.06351, IEEE/ACM ToN 2020, with the gradient of our delay. That is the gradient of a multilinear
extension and not of a concave function. So the bound is against what each node could have done
alone, given the others' copies, and not against the best placement of all.

Two things are ours: caches hold whole blocks, and a node keeps only what it has cached or received,
where the theory fetches for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray, checked_number
from finecast.solvers.heuristics.fractional import diameter, draw_caches, project
from finecast.solvers.heuristics.initial import Initial, check_initial, initial_fractions
from finecast.solvers.heuristics.rules import pull
from finecast.solvers.heuristics.savings import copy_savings
from finecast.solvers.node_set_tables import node_sets
from finecast.solvers.online import Observation, Prior


@dataclass
class BipartiteSubgradient:
    """Step along the seconds that every copy saved, and draw whole blocks.

    Attributes
    ----------
    step
        Length of the steps, > 0, in terms of the length 1 that the regret bound asks for.
    initial
        x[0]: "greedy-online", or "own", which is drawn from equal fractions of all blocks.
    seed
        Seed of the rounding.
    """

    step: float = 1.0
    initial: Initial = "greedy-online"
    seed: int = 0
    _fraction: FloatArray = field(init=False, repr=False, compare=False)
    _squares: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked_number("step", self.step, above=0.0)
        check_initial(self.initial)

    def place(self, prior: Prior) -> BoolArray:
        """Return x[0], where the ascent begins."""
        cache, self._fraction = initial_fractions(prior, self.initial, self.seed)
        self._squares = np.zeros(prior.network.nodes)
        return cache

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Pull what is missed; take a step, and keep whole blocks drawn from the fractions."""
        problem = observation.problem
        size, storage = problem.block_size, problem.storage
        source = pull(problem, cache)
        gradient = copy_savings(problem, node_sets(cache)) * size
        self._fraction, self._squares = ascend(
            self._fraction, gradient, self._squares, size, storage, self.step
        )
        held = cache | (source >= 0)
        return source, draw_caches(self._fraction, held, size, storage, self.seed)


def ascend(
    fraction: FloatArray,
    gradient: FloatArray,
    squares: FloatArray,
    size: IntArray,
    storage: IntArray,
    step: float = 1.0,
) -> tuple[FloatArray, FloatArray]:
    """Return the fractions (N, J) after a step, and the squares (N,) with those of its gradient.

    Parameters
    ----------
    fraction
        (N, J) y, in the polytope of every node.
    gradient
        (N, J) seconds that a whole copy saves.
    squares
        (N,) sum of norm(gradient)^2 of the steps before.
    size, storage
        (J,) and (N,) byte.
    step
        As in `BipartiteSubgradient`.
    """
    squares = squares + (gradient**2).sum(axis=1)
    span = diameter(size, storage)
    moved = fraction.copy()
    for n in np.flatnonzero(squares > 0):
        length = step * span[n] / np.sqrt(2.0 * squares[n])
        moved[n] = project(fraction[n] + length * gradient[n], size, int(storage[n]))
    return moved, squares
