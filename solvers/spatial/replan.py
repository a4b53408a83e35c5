"""Placement at the prices of shared air.

On shared air a message costs less time than alone. The least-time programme prices its bits at
pi_i <= 1 / R_i s/bit, so that its user group pays the share rho = pi_i R_i of its time alone. The
placement problem gets this share of the group's broadcast times, whichever nodes cooperate. With
broadcasts that short, migrations are dear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from finecast.problem.arrays import FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.problem.solution import Broadcast, Solution
from finecast.solvers.delivery import deliver
from finecast.solvers.node_set_tables import OnDemand, Table
from finecast.solvers.placement.problem import Placement, PlacementProblem
from finecast.solvers.prepared import Prepared
from finecast.solvers.result import Replan

LEAST_SHARE = 0.02
"""Least share rho. A message that another one lets through for free has the price 0, but more of it
would cost something."""


def replanner(
    prepared: Prepared,
    place: Callable[[PlacementProblem, Placement, float | None], Placement],
    method: str,
) -> Replan:
    """Return a function that places again at the prices of shared air.

    Parameters
    ----------
    prepared
        Instance and rates.
    place
        It takes a placement problem, a placement to start from and a time limit (s), and returns a
        placement.
    method
        Name to leave in the solution.
    """

    def replan(
        plan: Solution, seconds_per_bit: tuple[FloatArray, ...], time_limit: float | None
    ) -> Solution:
        begin = Placement(plan.cache, plan.source)
        placement = place(at_shared_prices(prepared, plan, seconds_per_bit), begin, time_limit)
        return deliver(
            prepared.instance,
            placement,
            prepared.plans,
            prepared.rates,
            robust=prepared.robust,
            method=method,
        )

    return replan


def at_shared_prices(
    prepared: Prepared, plan: Solution, seconds_per_bit: tuple[FloatArray, ...]
) -> PlacementProblem:
    """Return the placement problem with every group's times at its share rho on shared air.

    Parameters
    ----------
    prepared
        Instance and rates.
    plan
        The solution with one message after another that the prices are for.
    seconds_per_bit
        Per slot (I,), the prices.
    """
    instance = prepared.instance
    tables = []
    for t, broadcast in enumerate(plan.broadcasts):
        message, block = broadcast.carried
        group = prepared.plans[t].group[block]
        groups = len(prepared.plans[t].of_group)
        size = instance.library.block_size[block]
        paid, alone = (
            np.bincount(group, size * price[message], minlength=groups).astype(np.float64)
            for price in (seconds_per_bit[t], alone_price(instance, broadcast))
        )
        share = np.clip(paid / alone, LEAST_SHARE, 1.0)
        tables.append(_times(prepared.achieved.broadcast[t], share))
    return replace(prepared.achieved, broadcast=tuple(tables))


def alone_price(instance: Instance, broadcast: Broadcast) -> FloatArray:
    """Return (I,) s/bit, the time of a bit of each message, one message after another.

    Parameters
    ----------
    instance
        The problem.
    broadcast
        One message per mode, one mode per message.
    """
    bits = 8.0 * broadcast.message_size(instance.library.block_size)
    on_air = np.zeros(broadcast.messages)
    np.add.at(on_air, broadcast.message, broadcast.duration[broadcast.mode])
    return np.asarray(on_air / bits)


def _times(table: Table, share: FloatArray) -> Table:
    """Return the table with every row times its share."""

    def compute(row: IntArray, sets: IntArray) -> FloatArray:
        return np.asarray(table[row, sets] * share[row])

    return OnDemand(len(table), compute) if isinstance(table, OnDemand) else table * share[:, None]
