"""The arrays of one draw that `Static` and `Slot` are made of.

All functions but those of an observation take leading axes of slots.
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
"""What a request of one slot ago counts in `frequency`: that of the method `lfu`."""

_FLOAT64 = frozenset(
    ("size", "storage", "link", "chain_time", "reach_time", "broadcast", "recency", "frequency")
)


@lru_cache(maxsize=4)
def known_before(prior: Prior, dtype: torch.dtype) -> tuple[Chains, dict[str, torch.Tensor]]:
    """Return what does not change over the slots: computed in the first slot of a prior."""
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

    coming = coming_tables(observation, horizon)
    left = len(coming.probability)
    short = ((0, horizon - left), (0, 0))
    air = np.pad(coming.broadcast, (*short, (0, 0)))
    air[..., 0] = np.inf
    of_kind = kinds_of(prior)[1]
    q = np.clip(observation.forecast()[:horizon] @ of_kind, 0.0, 1.0)  # (left, K, C)
    now = tables_now(problem.group[0], broadcast, users, reach, requests[-1], table)
    least = max(1, len(users))  # a slot without any request still has a row to look up
    return {
        **{name: grown(array, least, name) for name, array in now.items()},
        **tables_coming(
            np.pad(coming.probability, short), air, np.pad(q, (*short, (0, 0))), reach, table
        ),
        **{name: row[-1] for name, row in history_scores(wanted.sum(axis=1).astype(float)).items()},
    }


def tables_now(
    group: IntArray,
    broadcast: FloatArray,
    users: NDArray[Any],
    reach: FloatArray,
    requests: IntArray,
    table: Chains,
) -> Arrays:
    """Return what is known of the slot itself; leading axes of slots are allowed."""
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
    """Return the expected tables; leading axes of slots are allowed."""
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
    often = counts.cumsum(axis=0)
    frequency = np.zeros_like(counts)
    past = np.zeros(counts.shape[1])
    for t, row in enumerate(counts):
        past = DECAY * past + row
        frequency[t] = past
    # Counts only decide between blocks of the same slot: their share stays below 1.
    ties = often / (1.0 + often.max(axis=1, keepdims=True))
    return {"recency": last + ties, "frequency": frequency}


def grown(array: NDArray[Any], groups: int, name: str) -> NDArray[Any]:
    """Return a slot's array, padded to a number of user groups where it has a row for each."""
    if name not in ("broadcast", "best_sender", "listeners", "users"):
        return array
    fill = np.inf if name == "broadcast" else 0
    width = [(0, groups - len(array))] + [(0, 0)] * (array.ndim - 1)
    return np.pad(array, width, constant_values=fill)


def tensors_of(arrays: Arrays, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Return the arrays as tensors of one draw."""
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
