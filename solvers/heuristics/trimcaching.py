"""The methods `trimcaching-gen` and `trimcaching-spec`: their placement, then our delivery."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from finecast.problem.arrays import BoolArray
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution
from finecast.solvers.heuristics.expected import prior_tables
from finecast.solvers.heuristics.rules import Static
from finecast.solvers.heuristics.trimcaching_hits import (
    HitProblem,
    check_spec,
    generic_greedy,
    successive_programme,
)
from finecast.solvers.online import Prior, solve_by_policy
from finecast.solvers.result import Answer, Callback


def hit_problem(prior: Prior, max_latency: float | None = None) -> HitProblem:
    """Return the expected hits as they stand before slot 0.

    Parameters
    ----------
    prior
        What is known before slot 0.
    max_latency
        Seconds that the download of a model may take from one node, at the rate of a typical
        message (`expected.prior_tables`); None for no bound.

    Raises
    ------
    ValueError
        `max_latency` is negative or not a number.
    """
    check_latency(max_latency)
    library, network = prior.library, prior.network
    weight = prior.popularity.sum(axis=0)
    in_time = np.ones(library.models, dtype=bool)
    if max_latency is not None:
        typical = float(prior_tables(prior).broadcast[0, 0, 1])  # by node 0 alone
        in_time = library.model_size * typical <= max_latency
    able = np.broadcast_to(in_time, (network.nodes, *weight.shape))
    return HitProblem(library.block_size, network.storage, library.model_blocks, weight, able)


def check_latency(max_latency: float | None) -> None:
    """Refuse a bound on the latency that is negative or not a number.

    Raises
    ------
    ValueError
        It is.
    """
    if max_latency is not None and not max_latency >= 0.0:
        raise ValueError(f"max_latency: {max_latency} is not allowed, must be >= 0")


def solve_trimcaching_gen(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    max_latency: float | None = None,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Place by TrimCaching Gen before slot 0, and stay there.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `finecast.solvers.solve.solve`; there is nothing to stop early or to start from.
    max_latency
        As in `hit_problem`.
    beamforming, restrict, rate_cache
        As in `finecast.solvers.joint.prepare`.
    """
    check_latency(max_latency)
    return solve_by_policy(
        Static(lambda prior: generic_greedy(hit_problem(prior, max_latency))),
        "trimcaching-gen",
        instance,
        seed=seed,
        callback=callback,
        beamforming=beamforming,
        restrict=restrict,
        rate_cache=rate_cache,
    )


def solve_trimcaching_spec(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    eps: float = 0.1,
    max_combinations: int = 4096,
    max_latency: float | None = None,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Place by TrimCaching Spec before slot 0, and stay there.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `finecast.solvers.solve.solve`; there is nothing to stop early or to start from.
    eps, max_combinations
        As in `trimcaching.successive_programme`.
    max_latency
        As in `hit_problem`.
    beamforming, restrict, rate_cache
        As in `finecast.solvers.joint.prepare`.
    """
    check_latency(max_latency)
    check_spec(eps, max_combinations)

    notes = []

    def place(prior: Prior) -> BoolArray:
        cache, complete = successive_programme(
            hit_problem(prior, max_latency), eps=eps, max_combinations=max_combinations
        )
        if not complete:
            notes.append(
                f"more than {max_combinations} combinations of shared blocks: the rest were left "
                "out, and the guarantee of the placement with them"
            )
        return cache

    answer = solve_by_policy(
        Static(place),
        "trimcaching-spec",
        instance,
        seed=seed,
        callback=callback,
        beamforming=beamforming,
        restrict=restrict,
        rate_cache=rate_cache,
    )
    return replace(answer, notes=(*answer.notes, *notes))
