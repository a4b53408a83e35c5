"""Rates of every area alone on demand, together with the bound that rests on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.arrays import BoolArray, IntArray
from finecast.problem.instance import Instance
from finecast.solvers.areas.air import Rates, local_messages
from finecast.solvers.areas.bound import (
    STEPS,
    AreaPoint,
    WholePoint,
    first_shares,
    local_senders,
    no_prices,
    raise_bound,
)
from finecast.solvers.areas.split import Area, inflow, split
from finecast.solvers.areas.state import City, State
from finecast.solvers.areas.tables import AreaTables, Whole, area_tables, whole
from finecast.solvers.areas.wide_rates import WideRates, no_wide_rates, solve_wide
from finecast.solvers.beamforming.by_name import KERNEL
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.node_set_tables import MOST_NODES
from finecast.solvers.prepared import Prepared, UnservableError, with_problems
from finecast.solvers.rates_on_demand import Wanted, first_rates, lacks, solve_wanted
from finecast.solvers.restrictions import messages, restricted_instance, restricted_links
from finecast.solvers.result import Callback, Progress
from finecast.solvers.workers import ALONE, Workers

ROUNDS = 4
"""Most rounds of prices and rates."""

EARLY_STEPS = 25
"""Steps of the bound in a round before the last."""

ROUND_OF_AREAS = 16
"""Areas between two words about the progress."""

SERVES = frozenset({"coarse", "no-migration", "one-message"})
"""Restrictions that areas know."""


@dataclass(frozen=True, eq=False)
class Ready:
    """An instance of areas with rates, tables and the bound.

    Attributes
    ----------
    city
        The problem.
    prepared
        Per area, its rates alone on the air.
    tables
        Per area, at certified upper bounds of the rates.
    wide
        Rates of wide messages.
    point
        The bound.
    """

    city: City
    prepared: tuple[Prepared, ...]
    tables: tuple[AreaTables, ...]
    wide: WideRates
    point: WholePoint

    @property
    def rates(self) -> Rates:
        """Per area and slot."""
        return tuple(area.rates for area in self.prepared)


def check_served(
    instance: Instance, restrictions: frozenset[str], beamforming: str, rate_cache: object
) -> None:
    """Refuse what is not for instances of several areas.

    Raises
    ------
    ValueError
        Names what is asked for, and what is allowed.
    """
    several = f"areas: the instance has {instance.area_count}"
    if instance.delivery != "sequential" or instance.schedule != "sequential":
        raise ValueError(
            f"{several}, delivery {instance.delivery!r} and schedule {instance.schedule!r} are not "
            "allowed together, both must be 'sequential'"
        )
    largest = int(np.bincount(instance.areas).max())
    if largest > MOST_NODES:
        raise ValueError(f"{several}, one of {largest} nodes is not allowed, at most {MOST_NODES}")
    unknown = sorted(restrictions - SERVES)
    if unknown:
        raise ValueError(
            f"{several}, restrict: {unknown[0]!r} is not allowed, only {', '.join(sorted(SERVES))}"
        )
    if beamforming != KERNEL:
        raise ValueError(f"{several}, beamforming: {beamforming!r} is not allowed, only {KERNEL!r}")
    if rate_cache is not None:
        raise ValueError(f"{several}, rate_cache is not allowed, their rates are not kept")


def prepare_areas(
    instance: Instance,
    *,
    restrict: frozenset[str] = frozenset(),
    seed: int = 0,
    callback: Callback | None = None,
    deadline: Deadline = NEVER,
    workers: Workers = ALONE,
) -> Ready:
    """Return the rates of every area alone, and the bound.

    Parameters
    ----------
    instance
        The problem.
    restrict, seed, callback
        As in `finecast.solvers.prepared.prepare`.
    deadline
        When to be done; whatever there is by then holds.
    workers
        Who computes the rates, an area at a time.

    Raises
    ------
    UnservableError
        A user group cannot be served by its area at any rate.
    """
    instance = restricted_instance(instance, restrict)
    areas = split(instance)
    with np.errstate(divide="ignore"):
        link = restricted_links(8.0 / instance.network.link_rate, restrict)
    np.fill_diagonal(link[:-1], np.inf)
    timed = not deadline.endless
    prepared: list[Prepared] = []
    for begin in range(0, len(areas), ROUND_OF_AREAS):
        some = areas[begin : begin + ROUND_OF_AREAS]
        prepared += workers.each(_first, [(area, restrict, seed, timed) for area in some], deadline)
        if callback is not None:
            callback(Progress("rates of areas", len(prepared), len(areas)))
    for ready in prepared:
        if ready.at_achieved is None or ready.bounded is None:
            raise UnservableError(ready)
    city = City(
        instance,
        areas,
        whole(instance, areas, robust=True),
        link,
        tuple(np.stack([plan.group for plan in area.plans]) for area in prepared),
    )
    wide = no_wide_rates(city.whole)
    tables = _tables(city, prepared, wide)
    point = raise_bound(
        tables,
        (no_prices(tables), first_shares(city.whole, tables)),
        steps=EARLY_STEPS,
        deadline=deadline,
    )
    taken = EARLY_STEPS
    for round_ in range(ROUNDS):
        if deadline.over():
            break
        wanted = [
            _wanted(group, table, part)
            for group, table, part in zip(city.group, tables, point.parts, strict=True)
        ]
        solved = _all_solved(prepared, wanted, seed, deadline, workers)
        known = solve_wide(
            instance, city.whole, wide, sent_wide(city.whole, tables, point),
            seed=seed, deadline=deadline, workers=workers,
        )  # fmt: skip
        if solved is prepared and known is wide:
            break
        prepared, wide = solved, known
        tables = _tables(city, prepared, wide)
        point = raise_bound(
            tables,
            (point.prices, point.shares),
            steps=EARLY_STEPS,
            taken=taken,
            deadline=deadline,
        )
        taken += EARLY_STEPS
        if callback is not None:
            callback(Progress("bound of areas", round_ + 1, ROUNDS, f"{point.bound:.6g} s"))
    point = raise_bound(
        tables, (point.prices, point.shares), steps=STEPS, taken=taken, deadline=deadline
    )
    return Ready(city, tuple(prepared), tables, wide, point)


def _first(
    area: Area, restrict: frozenset[str], seed: int, quick: bool, deadline: Deadline
) -> Prepared:
    """Return the first rates of an area, those of messages from all its nodes: no plan without."""
    instance = area.instance
    plans = tuple(messages(instance, t, frozenset()) for t in range(instance.slots))
    rates = first_rates(
        instance, plans, robust=True, splits=True, seed=seed, quick=quick, deadline=deadline
    )
    with np.errstate(divide="ignore"):
        link = restricted_links(8.0 / instance.network.link_rate, restrict)
    return with_problems(Prepared(instance, plans, rates, link, True, KERNEL))


def _all_solved(
    prepared: list[Prepared],
    wanted: list[Wanted],
    seed: int,
    deadline: Deadline,
    workers: Workers,
) -> list[Prepared]:
    """Return the rates of all areas with what each wants; the same list where nothing is new."""
    some = [a for a, ready in enumerate(prepared) if lacks(ready, wanted[a])]
    if not some or deadline.over():
        return prepared
    found = workers.each(_solved, [(prepared[a], wanted[a], seed) for a in some], deadline)
    result = list(prepared)
    for a, new in zip(some, found, strict=True):
        result[a] = new
    return result


def _solved(prepared: Prepared, wanted: Wanted, seed: int, deadline: Deadline) -> Prepared:
    """Return the rates of an area with what it wants."""
    return solve_wanted(prepared, wanted, seed=seed, deadline=deadline)


def sent_wide(whole: Whole, tables: Sequence[AreaTables], point: WholePoint) -> BoolArray:
    """Return (T, C) which classes go wide on the bound's path of some area that needs them."""
    wide = np.zeros(whole.users.shape[:2], dtype=bool)
    for table, part in zip(tables, point.parts, strict=True):
        mine = np.flatnonzero(table.of_whole >= 0)
        wide[:, table.of_whole[mine]] |= (part.wide & table.classes.needed)[:, mine]
    return wide


def _tables(city: City, prepared: list[Prepared], wide: WideRates) -> tuple[AreaTables, ...]:
    tables = []
    for a, (area, ready) in enumerate(zip(city.areas, prepared, strict=True)):
        assert ready.bounded is not None
        tables.append(
            area_tables(
                city.whole, a, area, ready.bounded, inflow(city.link, area.nodes), wide.bound
            )
        )
    return tuple(tables)


def _wanted(
    group: IntArray, tables: AreaTables, part: AreaPoint
) -> list[tuple[IntArray, IntArray]]:
    """Return per slot the user groups and node sets of what the bound's paths send locally."""
    slot, kind, sender = local_senders(tables, part)
    example = np.unique(tables.classes.of_block, return_index=True)[1]
    return [
        _distinct(group[t, example[kind[slot == t]]], sender[slot == t]) for t in range(len(group))
    ]


def _distinct(group: IntArray, sender: IntArray) -> tuple[IntArray, IntArray]:
    pairs = np.unique(np.stack([group, sender])[:, sender > 0], axis=1)
    return pairs[0], pairs[1]


class PlanSolver:
    """Solves the local messages of plans that are not solved yet, and keeps what it found.

    Parameters
    ----------
    ready
        The problem with its rates.
    seed, deadline
        As in `finecast.solvers.rates_on_demand.solve_wanted`.
    workers
        Who solves, an area at a time.
    """

    def __init__(
        self, ready: Ready, *, seed: int, deadline: Deadline, workers: Workers = ALONE
    ) -> None:
        self.ready = ready
        self.seed = seed
        self.deadline = deadline
        self.workers = workers

    def __call__(self, state: State, rates: Rates) -> Rates:
        """Return the rates with beams of their own for the messages of a plan."""
        city, prepared = self.ready.city, list(self.ready.prepared)
        slots = [local_messages(city, state, rates, t) for t in range(city.instance.slots)]
        wanted = [
            [_distinct(slot.group[slot.index == a], slot.sender[slot.index == a]) for slot in slots]
            for a in range(len(city.areas))
        ]
        prepared = _all_solved(prepared, wanted, self.seed, self.deadline, self.workers)
        self.ready = replace(self.ready, prepared=tuple(prepared))
        return self.ready.rates

    def bounded(self, state: State) -> Ready:
        """Return the rates with those of the last plan, and the bound at their better bounds."""
        self(state, self.ready.rates)
        tables = _tables(self.ready.city, list(self.ready.prepared), self.ready.wide)
        old = self.ready.point
        point = raise_bound(
            tables, (old.prices, old.shares), steps=EARLY_STEPS, taken=STEPS, deadline=self.deadline
        )
        best = point if point.bound > old.bound else old
        return replace(self.ready, tables=tables, point=best)
