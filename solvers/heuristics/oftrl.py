"""OFTRL: follow the regularised leader, with the forecast as a hint of the next slot.

Every node n has fractions of its blocks in its storage polytope
(`finecast.solvers.heuristics.fractional`). With G_t the seconds that a copy saved in slot t given
the others' copies, and H_{t+1} what the forecast says that it will save in the next one,

    y_{t+1} = argmax over y of  y . (G_0 + ... + G_t + H_{t+1}) - (sigma_t / 2) norm(y - y_0)^2
            = projection of  y_0 + (G_0 + ... + G_t + H_{t+1}) / sigma_t

    sigma_t = sqrt(sum over slots up to t of norm(G - H)^2) / (step D)

with D the diameter of the polytope. The regulariser grows with the errors of the hints alone: where
they are right the method follows them, and where they are wrong its regret still grows as the root
of time, O(D sqrt(sum norm(G - H)^2)). Whole blocks are drawn from y by dependent rounding.

Optimistic FTRL for caches: Mhaisen, Iosifidis, Leith, *Online caching with optimistic learning*,
arXiv 2202.10590, IFIP Networking 2022, and *Online caching with no regret: optimistic learning via
recommendations*, arXiv 2204.09345; files of different sizes and bipartite networks in Mhaisen,
Sinha, Paschos, Iosifidis, *Optimistic no-regret algorithms for discrete caching*, arXiv 2208.06414.
Ours are the gradient of our delay, the hint from the demand model and this slot's channels
(`finecast.solvers.heuristics.expected`), and that a node keeps only what it has.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray, checked_number
from finecast.solvers.heuristics.expected_on_demand import coming_cost
from finecast.solvers.heuristics.fractional import diameter, draw_caches, project
from finecast.solvers.heuristics.initial import Initial, check_initial, initial_fractions
from finecast.solvers.heuristics.rules import pull
from finecast.solvers.heuristics.savings import copy_savings, table_savings
from finecast.solvers.node_set_tables import node_sets
from finecast.solvers.online import Observation, Prior

SMALLEST = 1e-6
"""Least regulariser as a share of the leader's largest gain: without errors, the leader itself."""


@dataclass
class OptimisticLeader:
    """Follow the regularised leader of the seconds saved so far and expected next.

    Attributes
    ----------
    step
        How boldly the leader is followed, > 0, in terms of the length 1 of the regret bound.
    initial
        x[0]: "greedy-online", or "own", which is drawn from equal fractions of all blocks.
    seed
        Seed of the rounding.
    """

    step: float = 1.0
    initial: Initial = "greedy-online"
    seed: int = 0
    _centre: FloatArray = field(init=False, repr=False, compare=False)
    _gain: FloatArray = field(init=False, repr=False, compare=False)
    _hint: FloatArray = field(init=False, repr=False, compare=False)
    _errors: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked_number("step", self.step, above=0.0)
        check_initial(self.initial)

    def place(self, prior: Prior) -> BoolArray:
        """Return x[0], about which the leader is regularised; there is no hint of slot 0."""
        cache, self._centre = initial_fractions(prior, self.initial, self.seed)
        self._gain, self._hint = np.zeros(cache.shape), np.zeros(cache.shape)
        self._errors = np.zeros(prior.network.nodes)
        return cache

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Pull what is missed; keep whole blocks drawn from the leader's fractions."""
        problem = observation.problem
        size, storage = problem.block_size, problem.storage
        source = pull(problem, cache)
        cached = node_sets(cache)
        gradient = copy_savings(problem, cached) * size
        self._errors = self._errors + ((gradient - self._hint) ** 2).sum(axis=1)
        self._gain = self._gain + gradient

        coming = coming_cost(observation)
        self._hint = np.zeros(cache.shape)
        if coming is not None:
            self._hint = table_savings(coming, cached, len(storage)) * size
        fraction = follow(
            self._centre, self._gain + self._hint, self._errors, size, storage, self.step
        )
        held = cache | (source >= 0)
        return source, draw_caches(fraction, held, size, storage, self.seed)


def follow(
    centre: FloatArray,
    gain: FloatArray,
    errors: FloatArray,
    size: IntArray,
    storage: IntArray,
    step: float = 1.0,
) -> FloatArray:
    """Return the fractions (N, J) of the regularised leader.

    Parameters
    ----------
    centre
        (N, J) y_0, in the polytope of every node.
    gain
        (N, J) seconds that a whole copy saved so far, and will next by the hint.
    errors
        (N,) sum of norm(gradient - hint)^2 so far.
    size, storage
        (J,) and (N,) byte.
    step
        As in `OptimisticLeader`.
    """
    span = diameter(size, storage)
    fraction = centre.copy()
    for n, total in enumerate(gain):
        largest = float(np.abs(total).max(initial=0.0))
        if largest > 0.0 and span[n] > 0.0:
            regular = max(np.sqrt(errors[n]) / (step * span[n]), SMALLEST * largest)
            fraction[n] = project(centre[n] + total / regular, size, int(storage[n]))
    return fraction
