"""The arrays of one draw from which `Static` and `Slot` are made.

`tables_now` and `tables_coming` take leading axes of slots.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.instance import user_groups
from finecast.solvers.heuristics.expected import coming_tables, kinds, user_reach
from finecast.solvers.online import Observation, Prior
from finecast.solvers.placement.chains import Chains, chains, reach_times, source_times

Arrays = dict[str, NDArray[Any]]

DECAY = 0.8
"""Weight in `frequency` of a request of one slot ago, as in the method `lfu`."""

_FLOAT64 = frozenset(
    ("size", "storage", "link", "chain_time", "reach_time", "broadcast", "recency", "frequency")
)
"""Arrays that keep double precision: from them the delays and the scores of LRU and LFU follow."""


@lru_cache(maxsize=4)
def known_before(prior: Prior, dtype: torch.dtype) -> tuple[Chains, dict[str, torch.Tensor]]:
    """Return the chains and the tensors of `Static`, computed once for every prior."""
    table = chains(prior.link)
    return table, tensors_of(static_tables(prior, table), dtype)


@lru_cache(maxsize=4)
def kinds_of(prior: Prior) -> tuple[IntArray, FloatArray]:
    """Return the kind of every block, and which models contain each kind."""
    return kinds(prior.library.model_blocks)


def static_tables(prior: Prior, table: Chains) -> Arrays:
    """Return the fields of `Static` of one draw."""
    network, library = prior.network, prior.library
    link = np.array(prior.link)
    np.fill_diagonal(link, np.inf)
    return {
        "size": library.block_size,
        "storage": network.storage,
        "kind": kinds_of(prior)[0],
        "sharing": library.model_blocks.mean(axis=0),
        "contains": library.model_blocks,
        "link": link,
        "chain_sender": table.sender,
        "chain_time": table.time,
        "reach_time": reach_times(link, table.member),
        "fastest": source_times(link, table.member).argmin(axis=1),
    }


def observed_tables(observation: Observation, table: Chains, horizon: int) -> Arrays:
    """Return the fields of `Slot` that vary, of one draw."""
    prior, problem = observation.prior, observation.problem
    contains = prior.library.model_blocks
    requests = observation.requests
    active = requests >= 0
    wanted = contains[np.where(active, requests, 0)] & active[:, :, None]  # (t + 1, K, J)
    users, _ = user_groups(wanted[-1])
    broadcast = np.asarray(problem.broadcast[0])
    reach = user_reach(observation)

    # Expected tables end with the last slot: those of the coming slots after it are 0.
    coming = coming_tables(observation, horizon)
    beyond = ((0, horizon - len(coming.probability)), (0, 0))
    probability = np.pad(coming.probability, beyond)
    air = np.pad(coming.broadcast, (*beyond, (0, 0)))
    air[..., 0] = np.inf
    models_of_kind = kinds_of(prior)[1]
    coming_wanted = np.clip(observation.forecast()[:horizon] @ models_of_kind, 0.0, 1.0)
    coming_wanted = np.pad(coming_wanted, (*beyond, (0, 0)))  # (H, K, C)

    now = tables_now(problem.group[0], broadcast, users, reach, requests[-1], table)
    groups = max(1, len(users))  # a slot without any request still has a row to look up
    history = history_scores(wanted.sum(axis=1).astype(float))
    return {
        **{name: grown(array, groups, name) for name, array in now.items()},
        **tables_coming(probability, air, coming_wanted, reach, table),
        **{name: scores[-1] for name, scores in history.items()},
    }


def tables_now(
    group: IntArray,
    broadcast: FloatArray,
    users: NDArray[Any],
    reach: FloatArray,
    requests: IntArray,
    table: Chains,
) -> Arrays:
    """Return the fields of `Slot` about the slot itself; leading axes of slots are allowed.

    Parameters
    ----------
    group
        (J,) row of the block's user group, -1 for none.
    broadcast
        (G, S) seconds per byte.
    users
        (G, K) bool, the user groups.
    reach
        (K, N) amplitudes.
    requests
        (K,) models.
    table
        The chain levels.
    """
    level = (table.time + broadcast[..., table.sender]).argmin(axis=-1)
    return {
        "group": group,
        "broadcast": broadcast,
        "best_sender": table.sender[np.arange(len(table.sender)), level],
        "listeners": users.astype(np.float64) @ _amplitude_share(reach),
        "requests": requests,
        "reach": reach,
    }


def tables_coming(
    probability: FloatArray, air: FloatArray, wanted: FloatArray, reach: FloatArray, table: Chains
) -> Arrays:
    """Return the fields of `Slot` about the coming slots; leading axes of slots are allowed.

    Parameters
    ----------
    probability
        (H, C) probability of need.
    air
        (H, C, S) seconds per byte on the air.
    wanted
        (H, K, C) probability that the user wants the kind.
    reach
        (K, N) amplitudes.
    table
        The chain levels.
    """
    levels = table.time + air[..., table.sender]
    share = _amplitude_share(reach)[..., None, :, :]
    return {
        "need": probability,
        "air": air,
        "worth": probability[..., None] * levels.min(axis=-1),
        "audience": np.swapaxes(wanted, -1, -2) @ share,
    }


def _amplitude_share(reach: FloatArray) -> FloatArray:
    """Return (..., K, N) the share of each node in the amplitude that reaches a user."""
    total = reach.sum(axis=-1, keepdims=True)
    return np.asarray(reach / np.maximum(total, np.finfo(float).tiny))


def history_scores(counts: FloatArray) -> Arrays:
    """Return the scores of LRU and LFU after every slot, from (T, J) users who want each block."""
    slot = np.arange(len(counts))[:, None]
    last = np.maximum.accumulate(np.where(counts > 0, slot, -1), axis=0)
    total = counts.cumsum(axis=0)
    frequency = np.zeros_like(counts)
    decayed = np.zeros(counts.shape[1])
    for t, count in enumerate(counts):
        decayed = DECAY * decayed + count
        frequency[t] = decayed
    # Counts only decide between blocks of the same slot: their share stays below 1.
    ties = total / (1.0 + total.max(axis=1, keepdims=True))
    return {"recency": last + ties, "frequency": frequency}


def grown(array: NDArray[Any], groups: int, name: str) -> NDArray[Any]:
    """Return a slot's array, padded to `groups` rows if it has a row for every user group."""
    if name not in ("broadcast", "best_sender", "listeners", "users"):
        return array
    fill = np.inf if name == "broadcast" else 0
    width = [(0, groups - len(array))] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, width, constant_values=fill)


def tensors_of(arrays: Arrays, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the arrays as tensors of one draw (E = 1); expected tables get the type `dtype`."""
    tensors = {}
    for name, array in arrays.items():
        value = torch.from_numpy(np.array(array)[None])
        if name == "best_sender":
            value = value.to(torch.int16)
        elif name in _FLOAT64:
            value = value.to(torch.float64)
        elif value.is_floating_point():
            value = value.to(dtype)
        tensors[name] = value
    return tensors
