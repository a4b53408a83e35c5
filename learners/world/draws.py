"""Episodes are made from instances, with their true rates or with rates in closed form.

`episodes_of` computes the rates of every slot from that slot alone, as the online methods do
(`finecast.solvers.online`). That takes seconds per draw. `surrogate_episodes` replaces beamforming
by the closed form of `finecast.solvers.heuristics.expected`,

    snr_U(Q) = |U|^c / sum_{k in U} 1 / snr_k(Q),    snr_k(Q) = (sum_{n in Q} reach_kn)^2,

with c fitted to true tables of the scenario. That takes milliseconds per draw, so that training
can have as many draws as it needs. `slot_of` makes the `Slot` of an online method's observation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from finecast.learners.world.area_draws import Draws
from finecast.learners.world.beliefs import beliefs_of, network_values
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
from finecast.problem.demand import Demand, sample
from finecast.problem.instance import Instance, user_groups
from finecast.problem.sinr import rate
from finecast.problem.tolerances import LOWEST_SNR
from finecast.solvers.bounds import price_bound
from finecast.solvers.deadline import Deadline
from finecast.solvers.heuristics.expected import (
    group_exponent,
    user_reach,
)
from finecast.solvers.heuristics.greedy_online import greedy_by_popularity
from finecast.solvers.heuristics.programme_values import Values
from finecast.solvers.information import Information
from finecast.solvers.one_area import refuse_areas
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
from finecast.solvers.prepared import prepare
from finecast.solvers.restrictions import check_restrictions, restricted_instance
from finecast.solvers.result import Callback, Progress
from finecast.solvers.workers import ALONE, Workers

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
    workers: Workers = ALONE,
    information: Information | None = None,
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
        Compute the certified lower bounds of the total delays. That takes about a second per draw.
    dtype
        Type of the expected tables.
    callback
        It is called after every draw.
    workers
        Who makes the draws, each a task of its own: they are the same whoever does.
    information
        What the nodes see, if they are to decide apart: then episodes have beliefs, which take some
        seconds for every network. None for episodes without.

    Raises
    ------
    ValueError
        An instance is not of that sort, or a user group cannot be served.
    """
    if horizon < 1:
        raise ValueError(f"horizon: {horizon} is not allowed, must be >= 1")
    for i, instance in enumerate(instances):
        check_instance(instance, f"instances[{i}]")
    episode_of = partial(
        _episode_of,
        horizon=horizon,
        beamforming=beamforming,
        restrictions=check_restrictions(restrict),
        seed=seed,
        bound=bound,
        dtype=dtype,
        rate_cache=rate_cache,
        information=information,
    )
    tasks = [(instance,) for instance in instances]
    return _gathered(episode_of, tasks, "episodes", callback, workers)


def surrogate_episodes(
    scenario: Draws,
    seeds: Sequence[int],
    *,
    horizon: int = HORIZON,
    exponent: float | None = None,
    dtype: torch.dtype = torch.float32,
    callback: Callback | None = None,
    information: Information | None = None,
    paths: int = 1,
    workers: Workers = ALONE,
) -> Episodes:
    """Return episodes whose rates come from the closed form; `bound` is NaN.

    Parameters
    ----------
    scenario
        The instances are drawn from it.
    seeds
        One seed for each network.
    horizon, dtype, callback, information, workers
        As in `episodes_of`.
    paths
        Paths of requests of every network, a draw each; the first is that of its seed.
    exponent
        c; with None it is fitted to the true rates of the first slot of the first 4 draws.

    Raises
    ------
    ValueError
        The scenario is not of the sort that `episodes_of` takes, there is no seed, or a user
        cannot be served.
    """
    if not seeds:
        raise ValueError("seeds: is empty, must be at least one")
    check_instance(scenario.generate(seeds[0]), "scenario")
    known_exponent = mean_exponent(scenario, seeds) if exponent is None else exponent
    episodes_on = partial(
        _episodes_on,
        scenario,
        exponent=known_exponent,
        horizon=horizon,
        dtype=dtype,
        information=information,
        paths=paths,
    )
    tasks = [(seed,) for seed in seeds]
    return _gathered(episodes_on, tasks, "surrogate episodes", callback, workers, paths)


def _episodes_on(
    scenario: Draws,
    seed: int,
    _deadline: Deadline,
    *,
    exponent: float,
    horizon: int,
    dtype: torch.dtype,
    information: Information | None,
    paths: int,
) -> Episodes:
    """Return the episodes of one network; arguments as in `surrogate_episodes`."""
    network = scenario.generate(seed)
    values = None if information is None else network_values(network)
    return joined_episodes(
        [
            believed(
                surrogate_of(path, exponent, horizon=horizon, dtype=dtype),
                path,
                information,
                values,
            )
            for path in paths_of(network, paths, seed)
        ]
    )


def paths_of(instance: Instance, paths: int, seed: int) -> list[Instance]:
    """Return an instance, and the same network and channels with other requests."""
    others = [
        sample(instance.demand, np.random.default_rng((seed, *b"paths", path)))
        for path in range(1, paths)
    ]
    return [instance, *(replace(instance, requests=requests) for requests in others)]


def believed(
    episode: Episodes,
    instance: Instance,
    information: Information | None,
    values: Values | None = None,
) -> Episodes:
    """Return an episode with what its nodes believe, if they are to decide apart.

    Parameters
    ----------
    episode
        Of the instance, one draw.
    instance
        The draw.
    information
        What the nodes see; None for episodes without beliefs.
    values
        As in `beliefs_of`.
    """
    if information is None:
        return episode
    return replace(episode, beliefs=beliefs_of(instance, information, values))


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
    return Slot(t=observation.t, slots=prior.demand.slots, beliefs=None, **static, **varying)


def mean_exponent(scenario: Draws, seeds: Sequence[int]) -> float:
    """Return the mean of `fitted_exponent` over the first draws of these seeds, at most 4."""
    return float(np.mean([fitted_exponent(scenario.generate(s)) for s in seeds[:FITTED_DRAWS]]))


def fitted_exponent(instance: Instance, slots: Iterable[int] = (0,)) -> float:
    """Return the mean over some slots of the exponent c fitted to their true rates.

    Parameters
    ----------
    instance
        A draw of the scenario.
    slots
        Slots whose rates are computed, each from the slot alone.
    """
    prior = prior_of(instance)
    exponents = []
    for t in slots:
        observation = observation_of(instance, prior, t, prepare(slot_alone(instance, t)))
        exponents.append(group_exponent(observation, user_reach(observation)))
    return float(np.mean(exponents))


def check_instance(instance: Instance, name: str) -> None:
    """Raise if learners cannot play the instance.

    Parameters
    ----------
    instance
        The problem.
    name
        Its name in the message.

    Raises
    ------
    ValueError
        More than 8 nodes, several areas, a pipelined schedule, or spatial delivery.
    """
    refuse_areas(instance, f"what a learner trains on ({name})")
    _check_nodes(instance.nodes, name)
    _check_additive(instance, name)


def check_areas(instance: Instance, name: str) -> None:
    """Raise if learners cannot play the instance of several areas, each on its own.

    Parameters
    ----------
    instance, name
        As in `check_instance`.

    Raises
    ------
    ValueError
        An area of more than 8 nodes, a pipelined schedule, or spatial delivery.
    """
    _check_nodes(int(np.bincount(instance.areas).max()), f"{name}, areas")
    _check_additive(instance, name)


def _check_additive(instance: Instance, name: str) -> None:
    for what, value in (("schedule", instance.schedule), ("delivery", instance.delivery)):
        if value != "sequential":
            raise ValueError(
                f"{name}: {what} {value!r} is not allowed, must be 'sequential': "
                "learners need delays that are sums over blocks"
            )


def _check_nodes(nodes: int, name: str) -> None:
    if nodes > MOST_NODES:
        raise ValueError(
            f"{name}: {nodes} nodes are not allowed for learners, must be <= {MOST_NODES}"
        )


def _gathered(
    draw: Callable[..., Episodes],
    tasks: Sequence[tuple[Any, ...]],
    stage: str,
    callback: Callback | None,
    workers: Workers,
    paths: int = 1,
) -> Episodes:
    """Return the draws of all tasks as one; tell the progress after some of them."""
    parts: list[Episodes] = []
    while len(parts) < len(tasks):
        parts += workers.each(draw, tasks[len(parts) :][: workers.at_once])
        if callback is not None:
            callback(Progress(stage, len(parts) * paths, len(tasks) * paths))
    return joined_episodes(parts)


def _episode_of(
    instance: Instance,
    _deadline: Deadline,
    *,
    horizon: int,
    beamforming: str,
    restrictions: frozenset[str],
    seed: int,
    bound: bool,
    dtype: torch.dtype,
    rate_cache: str | None,
    information: Information | None,
) -> Episodes:
    """Return the episode of one instance, with true rates; arguments as in `episodes_of`."""
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
    # Slots differ in the number of user groups: their tables grow to that of the largest.
    groups = max(len(slot["broadcast"]) for slot in observed)
    varying = {
        name: np.stack([grown(slot[name], groups, name) for slot in observed])
        for name in observed[0]
    }
    least = price_bound(joined(instance, slots)) if bound else np.nan
    return believed(_episode(prior, table, varying, least, dtype), instance, information)


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
        c, from `fitted_exponent`.
    horizon, dtype
        As in `episodes_of`.

    Raises
    ------
    ValueError
        The instance is not of that sort, or a user cannot be served.
    """
    check_instance(instance, "instance")
    prior = prior_of(instance)
    table = chains(prior.link)
    amplitude = np.linalg.norm(instance.normalised_channel, axis=3) - instance.normalised_error
    reach = np.sqrt(prior.network.power) * np.maximum(amplitude, 0.0)  # (T, K, N)
    snr = (reach @ table.member.T) ** 2  # (T, K, S), of each user alone
    if not (snr[:, :, -1] > 0).all():
        raise ValueError("a user group cannot be served at any rate")

    slot_groups = [user_groups(wanted) for wanted in instance.wanted]
    most = max(1, *(len(users) for users, _ in slot_groups))
    users = np.stack([grown(users, most, "users") for users, _ in slot_groups])  # (T, G, K)
    group = np.stack([group for _, group in slot_groups])
    broadcast = _broadcast_times(prior, snr, users, exponent)

    models_of_kind = kinds_of(prior)[1]
    forecasts = _forecasts(prior.demand, instance.requests, horizon)
    wanted = np.clip(forecasts @ models_of_kind, 0.0, 1.0)  # (T, H, K, C)
    probability = 1.0 - np.prod(1.0 - wanted, axis=2)  # (T, H, C)
    air = _expected_times(prior, snr, wanted, probability, exponent)
    requested = instance.wanted.sum(axis=1).astype(np.float64)
    varying = {
        **tables_now(group, broadcast, users, reach, instance.requests, table),
        **tables_coming(probability, air, wanted, reach, table),
        **history_scores(requested),
    }
    return _episode(prior, table, varying, np.nan, dtype)


def _broadcast_times(
    prior: Prior, snr: FloatArray, users: NDArray[Any], exponent: float
) -> FloatArray:
    """Return (T, G, S), seconds per byte to the user groups in closed form; infinite for no node.

    Parameters
    ----------
    prior
        Gives the network.
    snr
        (T, K, S) SNR of each user alone under every node set.
    users
        (T, G, K) bool, the user groups.
    exponent
        c.
    """
    network = prior.network
    size = users.sum(axis=2)[:, :, None]
    with np.errstate(divide="ignore"):
        inverse = users @ np.minimum(1.0 / snr, 1e300)  # a user out of reach: no infinity times 0
        of_group = np.where(size > 0, np.maximum(size, 1) ** exponent / inverse, 0.0)
        bits = rate(of_group, network.bandwidth, network.max_spectral_efficiency)
        bits[:, :, 0] = 0.0
        return np.asarray(8.0 / bits)


def _expected_times(
    prior: Prior, snr: FloatArray, wanted: FloatArray, probability: FloatArray, exponent: float
) -> FloatArray:
    """Return (T, H, C, S), expected seconds per byte on the air if somebody needs the kind.

    The closed form takes the expected group: a user counts by the probability that it wants the
    kind, given that somebody does. The empty set takes infinitely long.

    Parameters
    ----------
    prior, snr, exponent
        As in `_broadcast_times`.
    wanted, probability
        (T, H, K, C) and (T, H, C), the probability that each user, or somebody, wants the kind.
    """
    network = prior.network
    somebody = probability[:, :, None]
    share = np.divide(wanted, somebody, out=np.ones_like(wanted), where=somebody > 0)
    inverse = share.transpose(0, 1, 3, 2) @ (1.0 / np.maximum(snr, LOWEST_SNR))[:, None]
    pooled = share.sum(axis=2)[:, :, :, None] ** exponent / np.maximum(inverse, 1e-300)
    air = 8.0 / rate(pooled, network.bandwidth, network.max_spectral_efficiency)
    air[..., 0] = np.inf
    return np.asarray(air)


def _forecasts(demand: Demand, requests: IntArray, horizon: int) -> FloatArray:
    """Return (T, H, K, M), `finecast.problem.demand.forecast` after every slot; 0 after the end."""
    slots, users, models = demand.preference.shape
    # Distribution of the last request of every user: known in slot t, carried on from there.
    last = np.zeros((slots, users, models))
    last_model = np.full(users, -1)
    for t, row in enumerate(requests):
        last_model = np.where(row >= 0, row, last_model)
        last[t] = last_model[:, None] == np.arange(models)
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
    """Return the episode of one draw from what varies over its slots."""
    arrays = {
        **static_tables(prior, table),
        **varying,
        "start": greedy_by_popularity(prior, 1),
    }
    return Episodes(
        **tensors_of(arrays, dtype),
        bound=torch.tensor([bound], dtype=torch.float64),
        block_count=torch.tensor([prior.library.blocks]),
        beliefs=None,
    )
