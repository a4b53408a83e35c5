"""Random placement: every node holds blocks drawn at random, each that still fits."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from finecast.problem.arrays import BoolArray
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution
from finecast.solvers.heuristics.rules import Static
from finecast.solvers.online import Prior, solve_by_policy
from finecast.solvers.placement.fill import fill
from finecast.solvers.result import Answer, Callback


def random_blocks(prior: Prior, rng: np.random.Generator) -> BoolArray:
    """Return caches (N, J): at every node the blocks in a random order, each that still fits.

    Parameters
    ----------
    prior
        What is known before slot 0.
    rng
        Source of the orders, one for each node.
    """
    library = prior.library
    return np.stack(
        [
            fill(rng.permutation(library.blocks), library.block_size, limit)
            for limit in prior.network.storage
        ]
    )


def solve_random(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Hold random blocks, the same in every slot.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `finecast.solvers.solve.solve`; there is nothing to stop early or to start from.
    beamforming, restrict, rate_cache
        As in `finecast.solvers.joint.prepare`.
    """
    return solve_by_policy(
        Static(lambda prior: random_blocks(prior, np.random.default_rng(seed))),
        "random",
        instance,
        seed=seed,
        callback=callback,
        beamforming=beamforming,
        restrict=restrict,
        rate_cache=rate_cache,
    )
