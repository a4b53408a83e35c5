"""Own savings: every node keeps the copies that saved most, given those of the others.

No forecast, no channel statistics, no prices: node n values its copy of block j by

    v_nj <- decay v_nj + g_nj          seconds per byte

with g_nj the delay that the copy saved in the slot given the others' copies, or would have saved
where n had none (`finecast.solvers.heuristics.savings`). It keeps the blocks of the largest values,
each that still fits. It is what a node can find out by itself, and so what methods with a forecast
or with learning should be compared with. LFU is the same with a count of requests in place of g.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray, checked_number
from finecast.solvers.heuristics.initial import Initial, check_initial, initial_caches
from finecast.solvers.heuristics.popularity import most_popular
from finecast.solvers.heuristics.rules import pull
from finecast.solvers.heuristics.savings import copy_savings
from finecast.solvers.node_set_tables import node_sets
from finecast.solvers.online import Observation, Prior
from finecast.solvers.placement.fill import keep_by_score


@dataclass
class OwnSavings:
    """Keep the copies that saved most, older savings counting less.

    Attributes
    ----------
    decay
        Weight of the savings of the slot before, in [0, 1]; 1 never forgets.
    initial
        x[0]: "greedy-online", or "own", which is that of `popular`.
    """

    decay: float = 0.8
    initial: Initial = "greedy-online"
    _value: FloatArray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked_number("decay", self.decay, low=0.0, high=1.0)
        check_initial(self.initial)

    def place(self, prior: Prior) -> BoolArray:
        """Return x[0]; no copy has saved anything yet."""
        self._value = np.zeros((prior.network.nodes, prior.library.blocks))
        return initial_caches(prior, self.initial, most_popular)

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Pull what is missed; keep what saved most, of equal values what was there before."""
        problem = observation.problem
        source = pull(problem, cache)
        self._value = self.decay * self._value + copy_savings(problem, node_sets(cache))
        held = cache | (source >= 0)
        size, storage = problem.block_size, problem.storage
        return source, keep_by_score(self._value, held, size, storage, before=cache)
