"""Tiny instances of two and three areas of two nodes, and their optimum by enumeration."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np

from finecast.problem.demand import Demand
from finecast.problem.instance import Instance
from finecast.problem.library import ModelLibrary
from finecast.problem.network import Network
from finecast.problem.scenario import read_scenario
from finecast.problem.sinr import rate
from finecast.solvers.beamforming.by_name import KERNEL, solve_messages

NODES, USERS, ANTENNAS = 4, 4, 2
SIZE = np.array([30_000_000, 50_000_000, 20_000_000])


@cache
def two_areas(seed: int, *, slots: int = 1, coupling: float = 0.3, error: float = 0.05) -> Instance:
    """Nodes 0 and 1 with users 0 and 1, nodes 2 and 3 with the others; three blocks and models.

    Channels between areas are `coupling` times as strong as within them. Tests share the instance:
    what is computed once for an instance need not be computed again.
    """
    rng = np.random.default_rng(seed)
    shape = (slots, USERS, NODES, ANTENNAS)
    channel = rng.normal(size=(*shape, 2)) @ np.array([1.0, 1j])
    own = (np.arange(USERS) // 2)[:, None] == np.arange(NODES) // 2
    channel *= np.where(own, 3.0, 3.0 * coupling)[:, :, None]
    blocks = np.array([[1, 1, 0], [1, 0, 1], [0, 1, 1]], dtype=bool)
    requests = rng.integers(-1, 3, size=(slots, USERS))
    requests[:, 0] = 0
    link = rng.uniform(2e8, 2e9, size=(NODES, NODES))
    return Instance(
        library=ModelLibrary(SIZE, blocks),
        network=Network(
            storage=np.full(NODES, 55_000_000),
            power=np.ones(NODES),
            backhaul_rate=link,
            cloud_rate=rng.uniform(1e8, 5e8, size=NODES),
            bandwidth=1e8,
            noise_power=1.0,
            max_spectral_efficiency=7.4063,
        ),
        demand=Demand(np.full((slots, USERS, 3), 1 / 3), 0.0, np.ones(USERS)),
        requests=requests,
        channel_estimate=channel,
        channel_error=error * np.linalg.norm(channel, axis=3),
        channel_true=channel,
        areas=np.array([0, 0, 1, 1]),
    )


@cache
def three_areas() -> Instance:
    """Return six nodes in three areas, two slots."""
    scenario = read_scenario("tiny").with_(
        {"slots": 2, "nodes.count": 6, "users.count": 9, "nodes.areas": 2}
    )
    return scenario.generate(3)


def best_without_interference(instance: Instance) -> float:
    """Return the least delay where areas do not disturb each other, at rates of one message.

    Every path of caches and receivers of every block is enumerated, then all their combinations
    that fit into the storage.
    """
    nodes, slots, blocks = instance.nodes, instance.slots, instance.blocks
    sets = np.arange(1 << nodes)
    member = (sets[:, None] >> np.arange(nodes)) & 1 == 1
    costs = [_block_costs(instance, t, member) for t in range(slots)]
    # Cost of every block by its caches in all slots, at the best senders in between.
    best = np.inf
    of_block = []
    for j in range(blocks):
        if slots == 1:
            of_block.append([((x,), costs[0][j][x].min()) for x in sets])
            continue
        paths = []
        for x, y in product(sets, sets):
            within = (y & ~sets) == 0
            first = np.where(within, costs[0][j][x], np.inf).min()
            paths.append(((x, y), first + costs[1][j][y].min()))
        # Only the cheapest paths matter: a copy less never costs storage.
        of_block.append([path for path in paths if np.isfinite(path[1])])
    size, storage = instance.library.block_size, instance.network.storage
    if slots == 1:
        for choice in product(*of_block):
            used = sum(size[j] * member[path[0]] for j, (path, _) in enumerate(choice))
            if (used <= storage).all():
                best = min(best, sum(cost for _, cost in choice))
        return float(best)
    # Two slots, two of the blocks at a time, arrays over all pairs.
    held = [np.array([member[list(path)] for path, _ in paths]) for paths in of_block]
    cost = [np.array([c for _, c in paths]) for paths in of_block]
    for first in range(len(cost[0])):
        room = storage - size[0] * held[0][first]
        if (room < 0).any():
            continue
        fits = [((size[j] * held[j]) <= room).all(axis=(1, 2)) for j in (1, 2)]
        one, two = held[1][fits[0]], held[2][fits[1]]
        used = size[1] * one[:, None] + size[2] * two[None]
        both = (used <= room).all(axis=(2, 3))
        total = np.where(both, cost[1][fits[0]][:, None] + cost[2][fits[1]][None], np.inf)
        best = min(best, cost[0][first] + total.min(initial=np.inf))
    return float(best)


def _block_costs(instance: Instance, t: int, member: np.ndarray) -> list[np.ndarray]:
    """Return for every block (16, 16) s by cached set and holders, infinite where not allowed."""
    size = instance.library.block_size
    result = []
    for j in range(instance.blocks):
        table = np.full((len(member), len(member)), np.inf)
        users = instance.wanted[t, :, j]
        if not users.any():
            np.fill_diagonal(table, 0.0)
            result.append(table)
            continue
        areas = [a for a in (0, 1) if (users & (instance.user_area[t] == a)).any()]
        may = np.isin(instance.areas, areas)
        wide = _seconds(instance, t, users, member & may)
        local = {
            a: _seconds(
                instance, t, users & (instance.user_area[t] == a), member & (instance.areas == a)
            )
            for a in areas
        }
        for x, q in product(range(len(member)), repeat=2):
            got = member[q] & ~member[x]
            if (member[x] & ~member[q]).any() or (got & ~may).any():
                continue
            tau = np.array([
                0.0 if not got[n] else 8.0 / max(
                    [instance.network.cloud_rate[n]]
                    + [instance.network.backhaul_rate[m, n] for m in np.flatnonzero(member[x])]
                )
                for n in range(instance.nodes)
            ])  # fmt: skip
            together = tau.max() + wide[q]
            apart = sum(
                instance.area_weight[t, a] * (tau[instance.areas == a].max() + local[a][q])
                for a in areas
            )
            table[x, q] = size[j] * min(together, apart)
        result.append(table)
    return result


def _seconds(instance: Instance, t: int, users: np.ndarray, sends: np.ndarray) -> np.ndarray:
    """Return (16,) s/byte of one message to the users by the nodes that send."""
    k = np.flatnonzero(users)
    some = np.flatnonzero(sends.any(axis=1))
    shape = (len(some), len(k), instance.nodes)
    found = solve_messages(
        KERNEL,
        np.broadcast_to(instance.normalised_channel[t][k], (*shape, instance.antennas)),
        np.broadcast_to(instance.normalised_error[t][k], shape),
        instance.network.power,
        node_mask=sends[some],
        user_mask=np.ones(shape[:2], dtype=bool),
    )
    bits = rate(found.snr, instance.network.bandwidth, instance.network.max_spectral_efficiency)
    seconds = np.full(len(sends), np.inf)
    with np.errstate(divide="ignore"):
        seconds[some] = 8.0 / bits
    return seconds


def without_coupling(instance: Instance) -> Instance:
    """Return the instance where no node reaches a user of the other area."""
    own = (np.arange(USERS) // 2)[:, None] == np.arange(NODES) // 2
    channel = instance.channel_estimate * own[:, :, None]
    return replace(
        instance,
        channel_estimate=channel,
        channel_true=channel,
        channel_error=instance.channel_error * own,
    )
