"""Greedy with statistics: a static placement by expected delay saved per byte.

The greedy of `finecast.solvers.placement.greedy` on expected tables: what it knows of the requests
is their popularity over all slots, and of the channels nothing (`expected.prior_tables`).
"""

from __future__ import annotations

from dataclasses import dataclass

from finecast.problem.arrays import BoolArray
from finecast.solvers.heuristics.expected import prior_tables
from finecast.solvers.heuristics.expected_on_demand import prior_cost
from finecast.solvers.heuristics.rules import Static
from finecast.solvers.node_set_tables import MOST_NODES, Table, members
from finecast.solvers.online import Prior
from finecast.solvers.placement.greedy import greedy_sets


def greedy_by_popularity(prior: Prior, slots: int | None = None) -> BoolArray:
    """Return the greedy caches (N, J) for the expected delay of the first slots.

    Parameters
    ----------
    prior
        What is known before slot 0.
    slots
        How many slots count; None for all.
    """
    nodes = prior.network.nodes
    cost: Table = prior_cost(prior, slots)
    if nodes <= MOST_NODES:  # all node sets at once, while they are few
        cost = prior_tables(prior).cost[:slots].sum(axis=0)
    size, storage = prior.library.block_size, prior.network.storage
    return members(greedy_sets(cost, size, storage), nodes).T


@dataclass(frozen=True)
class GreedyOnline(Static):
    """Place once by expected delay saved per byte, and stay there."""

    def place(self, prior: Prior) -> BoolArray:
        """Return the caches (N, J)."""
        return greedy_by_popularity(prior)
