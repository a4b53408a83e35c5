"""qLRU-Delta and qLRU-HS: LRU lists that move by chance, in proportion to what a copy is worth.

Every node has its blocks in a list. When a block is needed in a slot, with g_n what a copy at node
n saves given the others' copies (`finecast.solvers.heuristics.savings`) and p_n = g_n over the
largest that node n has seen so far,

    a node that had it cached    moves it to the front with probability p_n;
    a node that received it      puts it at the front with probability q p_n;

then what no longer fits leaves from the end. A copy that is worth little beside the others' copies
thus sinks, so that the nodes hold different blocks without exchanging a word, and a small q lets in
only blocks that are asked for again and again.

This is **our reading** of the two papers, for slots in which blocks are broadcast:

* `qlru-delta`, Neglia, Leonardi, Ricardo, Spyropoulos, *A Swiss army knife for caching in small
  cell networks*, IEEE/ACM ToN 29 (2021): blocks of one size, g_n in seconds.
* `qlru-hs`, Ricardo, Neglia, Spyropoulos, *Caching heterogeneous size content in small cell
  networks with CoMP joint transmissions*, GLOBECOM 2021: g_n in seconds per byte. The papers'
  argument for independent requests says why: a block that is refreshed at the rate r stays for a
  mean of (exp(r T) - 1) / r in a list of characteristic time T. As q goes to 0, T grows as
  log(1 / q), and the blocks with the largest r stay. By seconds per byte these are what the greedy
  of a knapsack takes.
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
class QLruHS:
    """LRU by chance, in proportion to the seconds per byte that a copy saves.

    Attributes
    ----------
    q
        Chance to keep a block that was received and is worth as much as any before, in (0, 1].
        The theory lets q go to 0 over an endless time; a horizon of 20 slots needs a larger one.
    initial
        x[0]: "greedy-online", or "own", which is that of `popular`.
    seed
        Seed of the chances.
    """

    q: float = 0.2
    initial: Initial = "greedy-online"
    seed: int = 0
    _front: FloatArray = field(init=False, repr=False, compare=False)
    _largest: FloatArray = field(init=False, repr=False, compare=False)
    _rng: np.random.Generator = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked_number("q", self.q, above=0.0, high=1.0)
        check_initial(self.initial)

    def place(self, prior: Prior) -> BoolArray:
        """Return x[0], in lists by popularity, the most popular at the front."""
        requests = prior.popularity.sum(axis=(0, 1)) @ prior.library.model_blocks
        rank = np.argsort(np.argsort(requests, kind="stable"), kind="stable")
        nodes = prior.network.nodes
        # Places in the list as numbers: below 0 before slot 0, in [t, t + 1) for a move in slot t.
        self._front = np.tile((rank + 1.0) / (len(rank) + 1.0) - 1.0, (nodes, 1))
        self._largest = np.zeros((nodes, 1))
        self._rng = np.random.default_rng(self.seed)
        return initial_caches(prior, self.initial, most_popular)

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Pull what is missed; move to the front, and put in, by chance."""
        problem = observation.problem
        source = pull(problem, cache)
        worth = self._worth(copy_savings(problem, node_sets(cache)), problem.block_size)
        self._largest = np.maximum(self._largest, worth.max(axis=1, initial=0.0, keepdims=True))
        chance = np.divide(worth, self._largest, out=np.zeros(worth.shape), where=self._largest > 0)
        received = source >= 0
        drawn = self._rng.random(worth.shape)
        moved = drawn < np.where(cache, chance, np.where(received, self.q * chance, 0.0))
        # Of those that move in one slot, the one that is worth more comes before.
        self._front = np.where(moved, observation.t + chance / 2.0, self._front)
        kept = cache | (received & moved)
        return source, keep_by_score(self._front, kept, problem.block_size, problem.storage)

    def _worth(self, saved: FloatArray, size: IntArray) -> FloatArray:
        """Return (N, J) what a copy is worth, from the seconds per byte (N, J) that it saves."""
        return saved


@dataclass
class QLruDelta(QLruHS):
    """LRU by chance, in proportion to the seconds that a copy saves, whatever its size.

    Attributes
    ----------
    q
        Chance to keep a block that was received and is worth as much as any before, in (0, 1].
        The theory lets q go to 0 over an endless time; a horizon of 20 slots needs a larger one.
    initial
        x[0]: "greedy-online", or "own", which is that of `popular`.
    seed
        Seed of the chances.
    """

    def _worth(self, saved: FloatArray, size: IntArray) -> FloatArray:
        """Return (N, J) the seconds that a copy saves."""
        return saved * size
