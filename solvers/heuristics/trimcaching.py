"""The methods `trimcaching-gen` and `trimcaching-spec`: their placement, then our delivery."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from finecast.problem.arrays import BoolArray
from finecast.solvers.heuristics.expected import prior_tables
from finecast.solvers.heuristics.rules import Static
from finecast.solvers.heuristics.trimcaching_hits import (
    HitProblem,
    check_spec,
    generic_greedy,
    successive_programme,
)
from finecast.solvers.online import Prior


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


@dataclass(frozen=True)
class TrimCachingGen(Static):
    """Place by TrimCaching Gen before slot 0, and stay there.

    Attributes
    ----------
    max_latency
        As in `hit_problem`, s.
    """

    max_latency: float | None = None

    def __post_init__(self) -> None:
        check_latency(self.max_latency)

    def place(self, prior: Prior) -> BoolArray:
        """Return the caches (N, J)."""
        return generic_greedy(hit_problem(prior, self.max_latency))


@dataclass
class TrimCachingSpec(Static):
    """Place by TrimCaching Spec before slot 0, and stay there.

    Attributes
    ----------
    eps, max_combinations
        As in `trimcaching_hits.successive_programme`.
    max_latency
        As in `hit_problem`, s.
    notes
        What the placement left out, where it left anything out.
    """

    eps: float = 0.1
    max_combinations: int = 4096
    max_latency: float | None = None
    notes: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        check_latency(self.max_latency)
        check_spec(self.eps, self.max_combinations)

    def place(self, prior: Prior) -> BoolArray:
        """Return the caches (N, J)."""
        cache, complete = successive_programme(
            hit_problem(prior, self.max_latency),
            eps=self.eps,
            max_combinations=self.max_combinations,
        )
        if not complete:
            self.notes = (
                f"more than {self.max_combinations} combinations of shared blocks: the rest were "
                "left out, and the guarantee of the placement with them",
            )
        return cache
