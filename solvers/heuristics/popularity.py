"""Most popular first: every node holds the blocks, or the models, that are asked for most."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from finecast.problem.arrays import BoolArray
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution
from finecast.solvers.heuristics.rules import Static
from finecast.solvers.online import Prior, solve_by_policy
from finecast.solvers.placement.fill import fill
from finecast.solvers.result import Answer, Callback

Unit = Literal["block", "model"]


def most_popular(prior: Prior, unit: Unit = "block") -> BoolArray:
    """Return the caches (N, J) of the most popular blocks or models, the same rule at every node.

    Requests are summed over users and slots. Blocks: the most wanted first, each that still fits.
    Models: the most wanted first, each whose blocks that are not yet there still fit.

    Parameters
    ----------
    prior
        What is known before slot 0.
    unit
        "block" or "model".

    Raises
    ------
    ValueError
        `unit` is another.
    """
    check_unit(unit)
    library, storage = prior.library, prior.network.storage
    requests = prior.popularity.sum(axis=(0, 1))  # (M,) expected number
    if unit == "block":
        order = np.argsort(-(requests @ library.model_blocks), kind="stable")
        return np.stack([fill(order, library.block_size, limit) for limit in storage])
    cache = np.zeros((len(storage), library.blocks), dtype=bool)
    for n, limit in enumerate(storage):
        for m in np.argsort(-requests, kind="stable"):
            both = cache[n] | library.model_blocks[m]
            if both @ library.block_size <= limit:
                cache[n] = both
    return cache


def check_unit(unit: str) -> None:
    """Refuse another unit than blocks and models.

    Raises
    ------
    ValueError
        It is.
    """
    if unit not in ("block", "model"):
        raise ValueError(f"unit: {unit!r} is not allowed, must be 'block' or 'model'")


def solve_popular(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    unit: Unit = "block",
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Hold the most popular blocks in every slot.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `finecast.solvers.solve.solve`; there is nothing to stop early or to start from.
    unit
        "block" or "model": what popularity is counted of.
    beamforming, restrict, rate_cache
        As in `finecast.solvers.joint.prepare`.
    """
    check_unit(unit)
    return solve_by_policy(
        Static(lambda prior: most_popular(prior, unit)),
        "popular",
        instance,
        seed=seed,
        callback=callback,
        beamforming=beamforming,
        restrict=restrict,
        rate_cache=rate_cache,
    )
