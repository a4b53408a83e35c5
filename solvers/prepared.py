"""An instance with the rates of its messages, ready for placement."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.arrays import FloatArray
from finecast.problem.instance import Instance
from finecast.problem.reception import unserved
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.node_set_tables import Table, bits, whole_set
from finecast.solvers.one_area import refuse_areas
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.rate_table import node_sets_to_solve, rate_table, same_for_all
from finecast.solvers.rates import SlotRates
from finecast.solvers.restrictions import (
    Messages,
    check_restrictions,
    messages,
    restricted_instance,
    restricted_links,
)
from finecast.solvers.result import Callback
from finecast.solvers.splits import with_splits


@dataclass(frozen=True, eq=False)
class Prepared:
    """An instance with the rates of its messages.

    Parameters
    ----------
    instance
        The instance of the (restricted) system, which the solution is for.
    plans, rates
        Per slot, the messages and their rates.
    link
        (N + 1, N) seconds per byte from node to node that may be used, the last row from the cloud.
    robust
        Rates hold over the error balls.
    beamforming
        The method that made the beams.
    at_achieved, bounded
        The placement problems at achieved rates and at their certified upper bounds; None where
        some group cannot be served.
    """

    instance: Instance
    plans: tuple[Messages, ...]
    rates: tuple[SlotRates, ...]
    link: FloatArray
    robust: bool
    beamforming: str
    at_achieved: PlacementProblem | None = None
    bounded: PlacementProblem | None = None

    @property
    def achieved(self) -> PlacementProblem:
        """The placement problem at achieved rates.

        Raises
        ------
        UnservableError
            Some group cannot be served.
        """
        if self.at_achieved is None:
            raise UnservableError(self)
        return self.at_achieved


class UnservableError(ValueError):
    """A user group cannot be served at any rate.

    Parameters
    ----------
    prepared
        The instance and the rates that show it.
    """

    def __init__(self, prepared: Prepared) -> None:
        why = unserved(prepared.instance, prepared.robust)
        super().__init__(
            why or "a user group cannot be served at any rate: its channel errors are too large"
        )
        self.prepared = prepared


def prepare(
    instance: Instance,
    *,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    seed: int = 0,
    callback: Callback | None = None,
    rate_cache: str | os.PathLike[str] | None = None,
    deadline: Deadline = NEVER,
) -> Prepared:
    """Compute the rates of all messages and the placement problems at these rates.

    Parameters
    ----------
    instance
        The problem.
    beamforming
        Beamforming method; see `finecast.solvers.beamforming.by_name`.
    restrict
        Restrictions; see `finecast.solvers.restrictions`.
    seed
        Seed of the beamforming method's random starts.
    callback
        Receives the progress.
    rate_cache
        Folder in which rate tables are kept; None for none.
    deadline
        When the rates must be there; see `finecast.solvers.rate_table.rate_table`.

    Raises
    ------
    ValueError
        Unknown method or restriction, or an instance of several areas.
    """
    refuse_areas(instance, "this computation of rates")
    restrictions = check_restrictions(restrict)
    instance = restricted_instance(instance, restrictions)
    plans = tuple(messages(instance, t, restrictions) for t in range(instance.slots))
    robust = "non-robust" not in restrictions
    users = [plan.users for plan in plans]
    if "no-comp" in restrictions:
        node_sets = same_for_all(bits(instance.nodes), users)
    else:
        node_sets = node_sets_to_solve(instance, users, robust)
    rates = rate_table(
        instance,
        users,
        node_sets,
        beamforming=beamforming,
        robust=robust,
        splits="one-message" not in restrictions,
        seed=seed,
        callback=callback,
        cache=rate_cache,
        deadline=deadline,
    )

    rates = tuple(
        with_splits(
            instance,
            t,
            slot,
            len(plans[t].users),
            robust=robust,
            beamforming=beamforming,
            seed=seed,
            deadline=deadline,
        )
        for t, slot in enumerate(rates)
    )
    with np.errstate(divide="ignore"):
        link = restricted_links(8.0 / instance.network.link_rate, restrictions)
    return with_problems(Prepared(instance, plans, rates, link, robust, beamforming))


def with_problems(prepared: Prepared) -> Prepared:
    """Return the same with the placement problems at its rates and at their bounds."""
    return replace(
        prepared,
        at_achieved=placement_problem(prepared, [slot.achieved for slot in prepared.rates]),
        bounded=placement_problem(prepared, [slot.bound for slot in prepared.rates]),
    )


def placement_problem(prepared: Prepared, tables: list[Table]) -> PlacementProblem | None:
    """Return the placement problem at given rates; None when some group cannot be served.

    Parameters
    ----------
    prepared
        Instance, messages and links.
    tables
        Per slot (P, 2^N), rate of every message by every node set, bit/s.
    """
    instance = prepared.instance
    seconds = tuple(
        plan.seconds_per_byte(table) for plan, table in zip(prepared.plans, tables, strict=True)
    )
    if any(not np.isfinite(whole_set(table, instance.nodes)).all() for table in seconds):
        return None
    return PlacementProblem(
        block_size=instance.library.block_size,
        storage=instance.network.storage,
        group=np.stack([plan.group for plan in prepared.plans]),
        broadcast=seconds,
        link=prepared.link,
        schedule=instance.schedule,
    )
