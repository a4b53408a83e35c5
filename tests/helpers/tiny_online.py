"""Tiny online systems, solved by enumeration: all request paths, all joint caches.

Blocks need not be kinds: the joint state is the cached set of every block and the last request of
every user. Nothing of the solvers is used but the class of the demand model.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from finecast.problem.demand import Demand


@dataclass(frozen=True)
class TinySystem:
    """Known times on the air; all users ask in every slot.

    Attributes
    ----------
    demand
        Of activity 1.
    model_blocks
        (M, J) bool.
    size, storage, link
        (J,) byte, (N,) byte, (N + 1, N) seconds per byte.
    air
        (2^N, 2^K) seconds per byte from node set Q to the users z; infinite from no node.
    """

    demand: Demand
    model_blocks: np.ndarray
    size: np.ndarray
    storage: np.ndarray
    link: np.ndarray
    air: np.ndarray

    @property
    def sets(self) -> int:
        """2^N."""
        return len(self.air)

    def paths(self) -> tuple[np.ndarray, np.ndarray]:
        """All request paths (R, T, K) and their probabilities (R,)."""
        slots, users, models = self.demand.preference.shape
        rows = list(itertools.product(range(models), repeat=users))
        paths = np.array(list(itertools.product(rows, repeat=slots)))
        chance = np.ones(len(paths))
        for t in range(slots):
            before = None if t == 0 else paths[:, t - 1]
            chance *= self.step(t, before, paths[:, t])
        return paths, chance

    def step(self, t: int, before: np.ndarray | None, now: np.ndarray) -> np.ndarray:
        """Probability (R,) of requests (R, K) in slot t after those of the slot before."""
        fresh = np.stack([self.demand.preference[t, k][now[:, k]] for k in range(now.shape[1])], 1)
        if before is None:
            return fresh.prod(axis=1)
        rho = self.demand.persistence
        return (rho * (before == now) + (1 - rho) * fresh).prod(axis=1)

    def group(self, request: np.ndarray, j: int) -> int:
        """Bit mask of the users that need block j; the first user is the highest bit."""
        bits = self.model_blocks[request, j]
        return int(bits @ (1 << np.arange(len(request))[::-1]))

    def block_cost(self, group: int) -> np.ndarray:
        """(2^N, 2^N) least seconds per byte from cached X to a next X' within what is sent."""
        nodes = len(self.storage)
        cost = np.full((self.sets, self.sets), np.inf)
        for cached, kept in itertools.product(range(self.sets), repeat=2):
            if not group:
                cost[cached, kept] = 0.0 if kept & ~cached == 0 else np.inf
                continue
            for sent in range(self.sets):
                if (cached | kept) & ~sent:
                    continue
                waits = [
                    min(self.link[m, n] for m in range(nodes + 1) if m == nodes or cached >> m & 1)
                    for n in range(nodes)
                    if (sent & ~cached) >> n & 1
                ]
                cost[cached, kept] = min(
                    cost[cached, kept], max(waits, default=0.0) + self.air[sent, group]
                )
        return cost

    def joint(self) -> np.ndarray:
        """(S, J) the joint caches that fit: the set of every block."""
        states = np.array(list(itertools.product(range(self.sets), repeat=len(self.size))))
        held = (states[:, :, None] >> np.arange(len(self.storage))) & 1
        return states[(np.tensordot(held, self.size, (1, 0)) <= self.storage).all(axis=1)]

    def costs(self, requests: np.ndarray, states: np.ndarray) -> np.ndarray:
        """(R, S, S) seconds of a slot with each of the requests (R, K), joint cache to the next."""
        total = np.zeros((len(requests), len(states), len(states)))
        for r, request in enumerate(requests):
            for j, size in enumerate(self.size):
                cost = self.block_cost(self.group(request, j))
                total[r] += size * cost[states[:, j][:, None], states[:, j]]
        return total

    def optimum(self) -> tuple[float, np.ndarray]:
        """Least expected delay (s) of any online method, and V_t (T, S, R) before each slot's act.

        R numbers the requests of one slot as `itertools.product` gives them.
        """
        slots, users, models = self.demand.preference.shape
        rows = np.array(list(itertools.product(range(models), repeat=users)))
        states = self.joint()
        costs = self.costs(rows, states)
        values = np.zeros((slots, len(states), len(rows)))
        for t in reversed(range(slots)):
            for r, row in enumerate(rows):
                ahead = 0.0
                if t < slots - 1:
                    ahead = values[t + 1] @ self.step(t + 1, np.tile(row, (len(rows), 1)), rows)
                values[t, :, r] = (costs[r] + ahead).min(axis=1)
        start = values[0] @ self.step(0, None, rows)
        return float(start.min()), values

    def inner(self, path: np.ndarray, penalty: np.ndarray) -> float:
        """Least delay (s) less penalties (T, S) of seeing the whole path (T, K)."""
        states = self.joint()
        ahead = np.zeros(len(states))
        for t in reversed(range(len(path))):
            ahead = (self.costs(path[t : t + 1], states)[0] + ahead).min(axis=1) - penalty[t]
        return float(ahead.min())


def tiny_system(seed: int, *, models: int = 3, share: float = 0.45, slots: int = 3) -> TinySystem:
    """Draw a system of 2 nodes, 2 users, 3 blocks; storage is a share of the library."""
    rng = np.random.default_rng(seed)
    contains = np.zeros((models, 3), dtype=bool)
    while not (contains.any(axis=0).all() and contains.any(axis=1).all()):
        contains = rng.random((models, 3)) < 0.5
    size = rng.integers(2, 9, 3)
    preference = rng.dirichlet(np.ones(models), (slots, 2))
    demand = Demand(preference / preference.sum(axis=2, keepdims=True), 0.6, np.ones(2))
    link = rng.uniform(0.2, 1.0, (3, 2))
    link[2] += 2.0  # the cloud is far
    # Times on the air fall with more nodes and rise with more users.
    air = np.full((4, 4), np.inf)
    alone = rng.uniform(0.5, 4.0, (2, 2))  # node, user
    for sent, group in itertools.product(range(1, 4), range(4)):
        nodes = [n for n in range(2) if sent >> n & 1]
        users = [k for k in range(2) if group >> (1 - k) & 1]
        air[sent, group] = sum(1.0 / sum(1.0 / alone[n, k] for n in nodes) for k in users)
    storage = np.full(2, max(int(share * size.sum()), size.max()))  # every block fits alone
    return TinySystem(demand, contains, size, storage, link, air)
