"""Prices of the demand programme: what a byte of storage is worth, learnt from requests it draws.

With prices the blocks do not know of one another, so storage holds in the mean only:

    L(lambda) = sum_c s_c min over X of E[W_0^c(X, z_0)] - sum_{t,n} lambda_{t,n} S_n

is a lower bound on the expected delay of every policy, if the times are right (Hawkins 2003;
Adelman and Mersereau, Operations Research 56 (2008) 712-727). It is concave, and a slope is the
bytes that the nodes hold in the mean, less their storage. The mean is over request paths drawn
from the demand model: never over the path on which a policy is judged.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.demand import sample
from finecast.solvers.placement.demand_programme import (
    CostToGo,
    DemandProgramme,
    last_requests,
    wanted_last,
)


def trained_prices(
    programme: DemandProgramme,
    size: FloatArray,
    storage: IntArray,
    *,
    rng: np.random.Generator,
    steps: int,
    paths: int,
) -> FloatArray:
    """Return prices (T, N), seconds per byte, at which the expected bytes about fit the storage.

    Subgradient steps from the prices of the programme, of lengths that fall as 1 / (1 + step / 4);
    the mean of the later half is returned.

    Parameters
    ----------
    programme
        The programme of every kind; a coarse one will do.
    size
        (C,) byte, of all blocks of the kind together.
    storage
        (N,) byte.
    rng
        Draws the requests.
    steps, paths
        How many steps, each on the same so many paths.
    """
    contains = programme.contains
    requests = np.stack([sample(programme.demand, rng) for _ in range(paths)])
    wanted = np.moveaxis(wanted_last(contains, last_requests(requests)), -1, 2)
    state = programme.groups.state(wanted)  # (P, T, C)

    prices, total, scale = programme.prices, np.zeros_like(programme.prices), 0.0
    for step in range(steps):
        at = replace(programme, prices=prices)
        values = at.cost_to_go(np.arange(len(size)))
        if not step:  # the mean worth of a byte in a slot
            worth = (values.start[0] - values.start[-1]) @ size
            scale = abs(float(worth)) / (max(float(size.sum()), 1.0) * len(prices))
        excess = expected_bytes(at, values, requests, state, size) - storage
        length = scale / (1.0 + step / 4.0)
        prices = np.maximum(0.0, prices + length * excess / storage.clip(1))
        if step >= steps // 2:  # subgradient steps do not settle: their mean does
            total += prices
    return total / (steps - steps // 2)


def lagrangian(
    programme: DemandProgramme, values: CostToGo, size: FloatArray, storage: IntArray
) -> float:
    """Return L, seconds, at the prices of the programme.

    Parameters
    ----------
    programme, values
        The programme of every kind, and its values.
    size
        (C,) byte.
    storage
        (N,) byte.
    """
    rent = float((programme.prices * storage).sum())
    return float(values.start.min(axis=0) @ size) - rent


def expected_bytes(
    programme: DemandProgramme,
    values: CostToGo,
    requests: IntArray,
    state: IntArray,
    size: FloatArray,
) -> FloatArray:
    """Return (T, N) the bytes that the nodes hold in the mean over the paths.

    Parameters
    ----------
    programme, values
        The programme of every kind, and its values.
    requests
        (P, T, K).
    state
        (P, T, C) states of the users.
    size
        (C,) byte.
    """
    chains, groups = programme.chains, programme.groups
    contains = programme.contains
    paths, slots, kinds = state.shape
    held = np.broadcast_to(values.start.argmin(axis=0), (paths, kinds))  # X_0
    row = np.arange(kinds)
    used = np.zeros((slots, chains.member.shape[1]))
    for t in range(slots):
        used[t] = (chains.member[held] * size[:, None]).sum(axis=(0, 1)) / paths
        if t == slots - 1:
            break
        asked = np.where(requests[:, t, :, None] >= 0, contains[requests[:, t]], 0.0)
        needed = asked.any(axis=1)  # (P, C)
        now = groups.state(np.moveaxis(asked, -1, 1))
        ahead = values.ahead[t][:, row, state[:, t]]  # (2^N, P, C)
        left, subset = best_subsets(ahead)
        # The best level of what is needed.
        sender = np.moveaxis(chains.sender[held], -1, 0)  # (N + 1, P, C)
        time = np.moveaxis(chains.time[held], -1, 0)
        p = np.arange(paths)[:, None]
        cost = time + programme.broadcast[sender, now] + left[sender, p, row]
        best = cost.argmin(axis=0)
        sent = np.take_along_axis(sender, best[None], axis=0)[0]
        held = subset[np.where(needed, sent, held), p, row]
    return used


def best_subsets(cost: FloatArray) -> tuple[FloatArray, IntArray]:
    """Return the least cost over all subsets of every set, and the subset, (2^N, ...) each.

    Of equal ones the smaller.

    Parameters
    ----------
    cost
        (2^N, ...).
    """
    least = cost.copy()
    subset = np.empty(cost.shape, dtype=np.int64)
    subset[:] = np.arange(len(cost)).reshape(-1, *[1] * (cost.ndim - 1))
    half = 1
    while half < len(cost):
        pair = least.reshape(-1, 2, half, *cost.shape[1:])
        names = subset.reshape(pair.shape)
        fewer = pair[:, 0] <= pair[:, 1]
        pair[:, 1] = np.where(fewer, pair[:, 0], pair[:, 1])
        names[:, 1] = np.where(fewer, names[:, 0], names[:, 1])
        half *= 2
    return least, subset
