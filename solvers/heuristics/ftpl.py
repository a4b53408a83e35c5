"""FTPL: follow the perturbed leader, a linear programme and pipage rounding a slot (LeadCache).

The leader is the best fixed placement of the slots so far, and a noise that grows as the root of
time keeps it from following every request. With F_j(X) the seconds per byte that block j would have
cost in slots 0..t if it had stayed at the nodes X, and gamma_nj standard normal, drawn once,

    minimise  sum_j s_j (F_j(X_j) - eta sum over n in X_j of gamma_nj)    under all storage,
    eta = noise sqrt(sum over slots of the mean over n, j of g_nj^2),

g_nj what a copy saved in the slot (`finecast.solvers.heuristics.savings`). As in LeadCache a linear
relaxation is solved once a slot and rounded by pipage (Ageev and Sviridenko, J. Comb. Opt. 8,
2004). Ours has a variable for every block and set of nodes that it can be kept at, since with CoMP
two copies together are worth more than a hit. With y_nj the fraction of block j at node n, two
fractions at a node move against each other, byte for byte, in the direction in which the
multilinear extension of the objective does not rise. It is linear along that line, as the two are
different blocks. So rounding loses nothing but the one fraction that is left at each node.

Paria and Sinha, *LeadCache: regret-optimal caching in networks*, NeurIPS 2021, arXiv 2009.08228.
The theory has one size, hits in place of seconds, and fetches for nothing. Here the leader is
sought among what the nodes have cached or received.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array

from finecast.problem.arrays import BoolArray, FloatArray, IntArray, checked_number
from finecast.solvers.heuristics.fractional import WHOLE
from finecast.solvers.heuristics.initial import Initial, check_initial, initial_caches
from finecast.solvers.heuristics.rules import pull
from finecast.solvers.heuristics.savings import copy_savings, table_savings
from finecast.solvers.node_set_tables import OnDemand, Table, mask_type, members, node_sets
from finecast.solvers.online import Observation, Prior
from finecast.solvers.placement.fill import keep_by_score
from finecast.solvers.placement.greedy import total_cost

ALL_SUBSETS = 4
"""Up to so many nodes that hold a block, every subset of them is an option for it."""


@dataclass
class PerturbedLeader:
    """Keep what would have been best so far, with noise.

    Attributes
    ----------
    noise
        Standard deviation of the noise, >= 0, as a share of the root of the sum of squared savings.
        0 follows the leader itself.
    initial
        x[0]: "greedy-online", or "own", which is the leader of the noise alone: random blocks.
    seed
        Seed of the noise.
    """

    noise: float = 0.1
    initial: Initial = "greedy-online"
    seed: int = 0
    _normal: FloatArray = field(init=False, repr=False, compare=False)
    _squares: float = field(init=False, repr=False, compare=False)
    _costs: list[Table] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        checked_number("noise", self.noise, low=0.0)
        check_initial(self.initial)

    def place(self, prior: Prior) -> BoolArray:
        """Return x[0]; draw the noise."""
        size, storage = prior.library.block_size, prior.network.storage
        shape = (len(storage), len(size))
        self._normal = np.random.default_rng(self.seed).standard_normal(shape)
        self._squares, self._costs = 0.0, []
        everywhere = np.ones(shape, dtype=bool)
        return initial_caches(
            prior, self.initial, lambda _: keep_by_score(self._normal, everywhere, size, storage)
        )

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Pull what is missed; keep what the perturbed leader keeps."""
        problem = observation.problem
        source = pull(problem, cache)
        saved = copy_savings(problem, node_sets(cache))
        self._squares += float(np.square(saved).mean()) if saved.size else 0.0
        self._costs = added(self._costs, total_cost(problem))
        noise = self.noise * np.sqrt(self._squares) * self._normal
        cost = perturbed(self._costs, noise)

        # The linear relaxation over sets of nodes, as fractions of blocks, as whole blocks.
        held = cache | (source >= 0)
        size, storage = problem.block_size, problem.storage
        fraction = relaxed_leader(cost, node_sets(held), node_sets(cache), size, storage)
        whole = pipage(fraction, cost, size) > 1.0 - WHOLE
        # Exact bytes: whole blocks first, then what still fits, by what another copy is worth.
        worth = table_savings(cost, node_sets(whole), problem.nodes)
        share = worth / (4.0 * np.abs(worth).max(initial=0.0) or 1.0)
        return source, keep_by_score(np.asarray(whole + share), held, size, storage)


def added(costs: list[Table], cost: Table) -> list[Table]:
    """Return the costs of the slots so far: one array where they are arrays, else all of them."""
    if costs and not isinstance(cost, OnDemand) and not isinstance(costs[0], OnDemand):
        return [costs[0] + cost]
    return [*costs, cost]


def perturbed(costs: list[Table], noise: FloatArray) -> OnDemand:
    """Return (J, 2^N) the sum of costs, less the noise of every node in the set, on demand.

    Parameters
    ----------
    costs
        (J, 2^N) each.
    noise
        (N, J) seconds per byte.
    """
    nodes, blocks = noise.shape

    def cost(block: IntArray, sets: IntArray) -> FloatArray:
        total = (members(sets, nodes) * -noise.T[block]).sum(axis=1)
        for table in costs:
            total = total + table[block, sets]
        return np.asarray(total)

    return OnDemand(blocks, cost)


def relaxed_leader(
    cost: Table, held: IntArray, cached: IntArray, size: IntArray, storage: IntArray
) -> FloatArray:
    """Return (N, J) the fractions of the linear relaxation: sets of nodes, in shares that add to 1.

    Parameters
    ----------
    cost
        (J, 2^N) seconds per byte under every set of nodes.
    held, cached
        (J,) the nodes that can keep each block, and those that had it when the slot began.
    size, storage
        (J,) and (N,) byte.
    """
    nodes = len(storage)
    too_large = node_sets(size > storage[:, None])  # (J,) nodes it does not fit
    within = held & ~too_large
    sets = [options(int(q), int(x & q), nodes) for q, x in zip(within, cached, strict=True)]
    block = np.repeat(np.arange(len(size)), [len(some) for some in sets])
    chosen = np.array([s for some in sets for s in some], dtype=mask_type(nodes))
    # Seconds against holding nothing; a set that saves nothing is no option.
    seconds = size[block] * (cost[block, chosen] - cost[block, np.zeros_like(chosen)])
    saves = seconds < 0.0
    block, chosen, seconds = block[saves], chosen[saves], seconds[saves]
    fraction = np.zeros((nodes, len(size)))
    if not len(block):
        return fraction

    # One row for every block (shares of its sets add to 1 at most), one for every storage.
    column = np.arange(len(block))
    member = members(chosen, nodes)
    node, at = np.nonzero(member.T)
    bytes_of = size[block[at]] / max(1, int(storage.max()))
    rows = csr_array(
        (
            np.concatenate([np.ones(len(block)), bytes_of]),
            (np.concatenate([block, len(size) + node]), np.concatenate([column, at])),
        ),
        shape=(len(size) + nodes, len(block)),
    )
    limits = np.concatenate([np.ones(len(size)), storage / max(1, int(storage.max()))])
    found = linprog(seconds / -seconds.min(), A_ub=rows, b_ub=limits, method="highs-ds")
    if found.x is None:  # nobody promises that HiGHS answers; the fill keeps what it can
        return fraction
    np.add.at(fraction, (node, block[at]), found.x[at])
    return np.clip(fraction, 0.0, 1.0)


@lru_cache(maxsize=1 << 16)
def options(within: int, cached: int, nodes: int) -> tuple[int, ...]:
    """Return the sets of nodes at which a block can be kept, but for none, as bit masks.

    All subsets of up to `ALL_SUBSETS` nodes. Beyond, single nodes, all of them, all but one, and
    the set that had it when the slot began with one node more or less.

    Parameters
    ----------
    within
        The nodes that can keep it.
    cached
        Those of them that had it when the slot began.
    nodes
        N.
    """
    bits = [1 << n for n in range(nodes) if within >> n & 1]
    if len(bits) <= ALL_SUBSETS:
        found = {
            sum(bit for i, bit in enumerate(bits) if s >> i & 1) for s in range(1 << len(bits))
        }
    else:
        found = {*bits, within, cached}
        found |= {within & ~bit for bit in bits} | {cached ^ bit for bit in bits}
    return tuple(sorted(found - {0}))


def pipage(fraction: FloatArray, cost: Table, size: IntArray) -> FloatArray:
    """Return fractions (N, J) of which each node has one at most, and whose cost is no larger.

    The cost is the multilinear extension, sum_j s_j E[cost_j(X)] with n in X with the chance y_nj.

    Parameters
    ----------
    fraction
        (N, J) y.
    cost
        (J, 2^N) seconds per byte under every set of nodes.
    size
        (J,) byte.
    """
    y = np.where(fraction < WHOLE, 0.0, np.where(fraction > 1.0 - WHOLE, 1.0, fraction))
    for n in range(len(y)):
        parts = np.flatnonzero((y[n] > 0.0) & (y[n] < 1.0)).tolist()
        worth = {j: saving_of(y[:, j], n, j, cost) for j in parts}
        while len(parts) > 1:
            # Bytes go from the block that saves less per byte to the one that saves more.
            more, less = sorted(parts[:2], key=lambda j: -worth[j])
            moved = min((1.0 - y[n, more]) * size[more], y[n, less] * size[less])
            for j, change in ((more, moved / size[more]), (less, -moved / size[less])):
                y[n, j] += change
                if not WHOLE < y[n, j] < 1.0 - WHOLE:
                    y[n, j] = round(y[n, j])
                    parts.remove(j)
    return y


def saving_of(y: FloatArray, n: int, block: int, cost: Table) -> float:
    """Return the seconds per byte that a copy at node n saves in the mean over the others' copies.

    Parameters
    ----------
    y
        (N,) chances that the nodes have the block, each drawn for itself.
    n
        The node.
    block
        The block.
    cost
        (J, 2^N) seconds per byte under every set of nodes.
    """
    others = [m for m in np.flatnonzero(y > 0.0).tolist() if m != n]
    sets = np.full(1, sum(1 << m for m in others if y[m] == 1.0), mask_type(len(y)))
    chance = np.ones(1)
    for m in others:
        if y[m] < 1.0:
            sets = np.concatenate([sets, sets | 1 << m])
            chance = np.concatenate([chance * (1.0 - y[m]), chance * y[m]])
    return float(chance @ (cost[block, sets] - cost[block, sets | 1 << n]))
