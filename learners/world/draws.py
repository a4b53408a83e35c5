"""Making episodes: from instances with their true rates, or from a closed form of the rates.

`episodes_of` computes every slot's rates from that slot alone by the machinery of the online
methods (`finecast.solvers.online`). That takes seconds per draw. `surrogate_episodes` replaces
beamforming by the closed form of `finecast.solvers.heuristics.expected`,

    snr_U(Q) = |U|^c / sum_{k in U} 1 / snr_k(Q),    snr_k(Q) = (sum_{n in Q} reach_kn)^2,

c fitted on true tables of the scenario, which takes milliseconds: as many training draws as one
likes. `slot_of` makes the `Slot` of an online method's observation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import torch

from finecast.learners.world.episodes import MOST_NODES, Episodes, Slot, joined_episodes
from finecast.learners.world.slot_tables import (
    Arrays,
    grown,
    history_scores,
    kinds_of,
    known_before,
    observed_tables,
    static_tables,
    tables_coming,
    tables_now,
    tensors_of,
)
from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.demand import Demand
from finecast.problem.instance import Instance, user_groups
from finecast.problem.scenario import Scenario
from finecast.problem.sinr import rate
from finecast.problem.tolerances import LOWEST_SNR
from finecast.solvers.bounds import price_bound
from finecast.solvers.heuristics.expected import (
    group_exponent,
    user_reach,
)
from finecast.solvers.heuristics.greedy_online import greedy_by_popularity
from finecast.solvers.joint import prepare
from finecast.solvers.online import (
    Observation,
    Prior,
    joined,
    observation_of,
    prepare_slots,
    prior_of,
    slot_alone,
)
from finecast.solvers.placement.chains import Chains, chains
from finecast.solvers.restrictions import check_restrictions, restricted_instance
from finecast.solvers.result import Callback, Progress

HORIZON = 3
"""Coming slots in the expected tables."""

FITTED_DRAWS = 4
"""Draws whose first slot the exponent of surrogate rates is fitted to."""


def episodes_of(
    instances: Sequence[Instance],
    *,
    horizon: int = HORIZON,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    seed: int = 0,
    bound: bool = True,
    dtype: torch.dtype = torch.float32,
    callback: Callback | None = None,
    rate_cache: str | None = None,
    processes: int = 1,
) -> Episodes:
    """Return the episodes of instances, with the rates that the online methods get.

    Parameters
    ----------
    instances
        Of equal N, K and T, at most 8 nodes, sequential delivery and schedule.
    horizon
        H, coming slots in the expected tables.
    beamforming, restrict, seed, rate_cache
        As in `finecast.solvers.online.prepare_slots`.
    bound
        Compute the certified lower bounds of the total delays: about a second per draw, as good as
        the machine gets within `finecast.solvers.bounds.BOUND_TIME_S`.
    dtype
        Of the expected tables.
    callback
        Told after every draw.
    processes
        Processes that share the draws.

    Raises
    ------
    ValueError
        An instance is not of that sort, or a user group cannot be served.
    """
    if horizon < 1:
        raise ValueError(f"horizon: {horizon} is not allowed, must be >= 1")
    for i, instance in enumerate(instances):
        check_instance(instance, f"instances[{i}]")
    one = partial(
        _episode_of,
        horizon=horizon,
        beamforming=beamforming,
        restrictions=check_restrictions(restrict),
        seed=seed,
        bound=bound,
        dtype=dtype,
        rate_cache=rate_cache,
    )
    if processes == 1:
        return _gathered(map(one, instances), len(instances), "episodes", callback)
    # Not forked: a fork of a process with torch's threads can hang.
    spawn = torch.multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        return _gathered(pool.map(one, instances), len(instances), "episodes", callback)


def surrogate_episodes(
    scenario: Scenario,
    seeds: Sequence[int],
    *,
    horizon: int = HORIZON,
    exponent: float | None = None,
    dtype: torch.dtype = torch.float32,
    callback: Callback | None = None,
) -> Episodes:
    """Return episodes whose rates come from the closed form; `bound` is NaN.

    Parameters
    ----------
    scenario
        Where the instances are drawn from.
    seeds
        One for each draw.
    horizon, dtype, callback
        As in `episodes_of`.
    exponent
        c; None fits it to the true rates of the first slot of the first 4 draws.

    Raises
    ------
    ValueError
        The scenario is not of the sort that `episodes_of` takes, there is no seed, or a user
        cannot be served.
    """
    if not seeds:
        raise ValueError("seeds: is empty, must be at least one")
    check_instance(scenario.generate(seeds[0]), "scenario")
    if exponent is None:
        first = [fitted_exponent(scenario.generate(seed)) for seed in seeds[:FITTED_DRAWS]]
        exponent = float(np.mean(first))
    draws = (
        surrogate_of(scenario.generate(seed), exponent, horizon=horizon, dtype=dtype)
        for seed in seeds
    )
    return _gathered(draws, len(seeds), "surrogate episodes", callback)


def slot_of(
    observation: Observation, *, horizon: int = HORIZON, dtype: torch.dtype = torch.float32
) -> Slot:
    """Return what an online method observes as a slot of one draw (E = 1).

    Parameters
    ----------
    observation
        What is known in slot t.
    horizon, dtype
        As in `episodes_of`.

    Raises
    ------
    ValueError
        There are more than 8 nodes.
    """
    prior = observation.prior
    _check_nodes(prior.network.nodes, "instance")
    table, static = known_before(prior, dtype)
    varying = tensors_of(observed_tables(observation, table, horizon), dtype)
    return Slot(t=observation.t, slots=prior.demand.slots, **static, **varying)


def fitted_exponent(instance: Instance, slots: Iterable[int] = (0,)) -> float:
    """Return the mean over some slots of the exponent c fitted to their true rates.

    Parameters
    ----------
    instance
        A draw of the scenario.
    slots
        Their rates are computed, each alone.
    """
    prior = prior_of(instance)
    found = []
    for t in slots:
        observation = observation_of(instance, prior, t, prepare(slot_alone(instance, t)))
        found.append(group_exponent(observation, user_reach(observation)))
    return float(np.mean(found))


def check_instance(instance: Instance, name: str) -> None:
    """Refuse what has no episodes.

    Parameters
    ----------
    instance
        The problem.
    name
        What to call it.

    Raises
    ------
    ValueError
        More than 8 nodes, a pipelined schedule, or spatial delivery.
    """
    _check_nodes(instance.nodes, name)
    if instance.schedule != "sequential":
        raise ValueError(
            f"{name}: schedule {instance.schedule!r} is not allowed, must be 'sequential': "
            "learners need delays that are sums over blocks"
        )
    if instance.delivery != "sequential":
        raise ValueError(
            f"{name}: delivery {instance.delivery!r} is not allowed, must be 'sequential': "
            "learners need delays that are sums over blocks"
        )


def _check_nodes(nodes: int, name: str) -> None:
    if nodes > MOST_NODES:
        raise ValueError(
            f"{name}: {nodes} nodes are not allowed for learners, must be <= {MOST_NODES}"
        )


def _gathered(
    draws: Iterable[Episodes], count: int, stage: str, callback: Callback | None
) -> Episodes:
    parts = []
    for part in draws:
        parts.append(part)
        if callback is not None:
            callback(Progress(stage, len(parts), count))
    return joined_episodes(parts)


def _episode_of(
    instance: Instance,
    *,
    horizon: int,
    beamforming: str,
    restrictions: frozenset[str],
    seed: int,
    bound: bool,
    dtype: torch.dtype,
    rate_cache: str | None,
) -> Episodes:
    """Return the episode of one instance."""
    slots = prepare_slots(
        instance,
        beamforming=beamforming,
        restrict=restrictions,
        seed=seed,
        rate_cache=rate_cache,
    )
    instance = restricted_instance(instance, restrictions)
    prior = prior_of(instance, restrictions)
    table = chains(prior.link)
    observed = [
        observed_tables(observation_of(instance, prior, t, slot), table, horizon)
        for t, slot in enumerate(slots)
    ]
    groups = max(len(slot["broadcast"]) for slot in observed)
    varying = {
        name: np.stack([grown(slot[name], groups, name) for slot in observed])
        for name in observed[0]
    }
    least = price_bound(joined(instance, slots)) if bound else np.nan
    return _episode(prior, table, varying, least, dtype)


def surrogate_of(
    instance: Instance,
    exponent: float,
    *,
    horizon: int = HORIZON,
    dtype: torch.dtype = torch.float32,
) -> Episodes:
    """Return the episode of one instance with rates in closed form, all slots at once.

    Parameters
    ----------
    instance
        As in `episodes_of`.
    exponent
        c.
    horizon, dtype
        As in `episodes_of`.

    Raises
    ------
    ValueError
        The instance is not of that sort, or a user cannot be served.
    """
    check_instance(instance, "instance")
    prior = prior_of(instance)
    network, table = prior.network, chains(prior.link)
    amplitude = np.linalg.norm(instance.normalised_channel, axis=3) - instance.normalised_error
    reach = np.sqrt(network.power) * np.maximum(amplitude, 0.0)  # (T, K, N)
    single = (reach @ table.member.T) ** 2  # (T, K, S)
    if not (single[:, :, -1] > 0).all():
        raise ValueError("a user group cannot be served at any rate")

    found = [user_groups(wanted) for wanted in instance.wanted]
    groups = max(1, *(len(users) for users, _ in found))
    users = np.stack([grown(users, groups, "users") for users, _ in found])  # (T, G, K)
    size = users.sum(axis=2)[:, :, None]
    with np.errstate(divide="ignore"):
        inverse = users @ np.minimum(1.0 / single, 1e300)
        snr = np.where(size > 0, np.maximum(size, 1) ** exponent / inverse, 0.0)
        bits = rate(snr, network.bandwidth, network.max_spectral_efficiency)
        bits[:, :, 0] = 0.0
        broadcast = 8.0 / bits

    contains = kinds_of(prior)[1]
    wanted = np.clip(_forecasts(prior.demand, instance.requests, horizon) @ contains, 0.0, 1.0)
    probability = 1.0 - np.prod(1.0 - wanted, axis=2)  # (T, H, C)
    all_of_it = probability[:, :, None]
    share = np.divide(wanted, all_of_it, out=np.ones_like(wanted), where=all_of_it > 0)
    slowest = 1.0 / np.maximum(single, LOWEST_SNR)
    mean = share.transpose(0, 1, 3, 2) @ slowest[:, None]  # (T, H, C, S)
    pooled = share.sum(axis=2)[:, :, :, None] ** exponent / np.maximum(mean, 1e-300)
    air = 8.0 / rate(pooled, network.bandwidth, network.max_spectral_efficiency)
    air[..., 0] = np.inf
    wanted_blocks = instance.wanted.sum(axis=1)
    varying = {
        **tables_now(
            np.stack([group for _, group in found]),
            broadcast,
            users,
            reach,
            instance.requests,
            table,
        ),
        **tables_coming(probability, air, wanted, reach, table),
        **history_scores(wanted_blocks.astype(np.float64)),
    }
    return _episode(prior, table, varying, np.nan, dtype)


def _forecasts(demand: Demand, requests: IntArray, horizon: int) -> FloatArray:
    """Return (T, H, K, M), `finecast.problem.demand.forecast` after every slot; 0 after the end."""
    slots, users, models = demand.preference.shape
    last = np.zeros((slots, users, models))
    known = np.full(users, -1)
    for t, row in enumerate(requests):
        known = np.where(row >= 0, row, known)
        last[t] = known[:, None] == np.arange(models)
    activity, persistence = demand.activity[:, None], demand.persistence
    coming = np.zeros((slots, horizon, users, models))
    for h in range(min(horizon, slots - 1)):
        fresh = 1 - persistence * last.sum(axis=-1, keepdims=True)
        preference = np.zeros_like(last)
        preference[: slots - 1 - h] = demand.preference[1 + h :]
        drawn = activity * (persistence * last + fresh * preference)
        last = (1 - activity) * last + drawn
        coming[: slots - 1 - h, h] = drawn[: slots - 1 - h]
    return coming


def _episode(
    prior: Prior, table: Chains, varying: Arrays, bound: float, dtype: torch.dtype
) -> Episodes:
    arrays = {
        **static_tables(prior, table),
        **varying,
        "start": greedy_by_popularity(prior, 1),
    }
    return Episodes(
        **tensors_of(arrays, dtype),
        bound=torch.tensor([bound], dtype=torch.float64),
        block_count=torch.tensor([prior.library.blocks]),
    )
