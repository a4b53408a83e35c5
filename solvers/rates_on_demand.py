"""Rates on demand: beams for the messages that plans and bounds use, and for few others.

Few of the (user set, node set) pairs of a rate table are ever used: 2 % by a good plan of 1000
blocks at 6 nodes. So the table begins with the messages from all nodes alone, whose beams and
bounds give first ones for all fewer nodes (`finecast.solvers.partial_rates`). Then, in rounds,

    the storage prices are raised on the certified bounds of the rates;
    the paths that the dual rests on say which messages matter;
    those that are not solved yet are solved, those of all slots together;

until there are none. The bounds only fall and the rates only rise, so every table on the way is
valid, and the Lagrangian of the last one is as good as if every message were solved: no path that
its optimum uses rests on an unsolved message.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.instance import Instance
from finecast.solvers.beamforming.by_name import KERNEL
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.delivery import unsplit_messages
from finecast.solvers.node_set_tables import distinct, sets_of
from finecast.solvers.partial_rates import from_all_nodes, quick_rates
from finecast.solvers.placement.bound import Prices, dual_point, no_prices
from finecast.solvers.placement.chains import Classes, classes, grouped
from finecast.solvers.placement.dynamic_programme import Paths
from finecast.solvers.placement.problem import Placement, PlacementProblem
from finecast.solvers.placement.search.columns import empty_paths
from finecast.solvers.placement.search.dual_ascent import ascend
from finecast.solvers.placement.units import classes_of_units, relaxed_classes
from finecast.solvers.prepared import Prepared, with_problems
from finecast.solvers.rate_search import by_search, solve_entries
from finecast.solvers.rate_table import FULL_FAMILY_NODES, node_sets_to_solve
from finecast.solvers.rates import (
    SlotRates,
    closed_slots,
    with_columns,
)
from finecast.solvers.restrictions import (
    Messages,
    check_restrictions,
    messages,
    restricted_instance,
    restricted_links,
)
from finecast.solvers.result import Callback, Progress
from finecast.solvers.splits import (
    EXACT_USERS,
    WORTH_ELSEWHERE,
    split,
    with_splits,
    worth_splitting,
)

FEW_PAIRS = 2000
"""Up to so many (user set, node set) pairs the whole table is solved: about two seconds."""

MANY_SETS = 100
"""Node sets of a user set in a whole table, at most, about."""

ROUNDS = 12
"""Most rounds. Seven were enough for 1000 blocks at 6 nodes over 20 slots."""

TOLERANCE = 3e-4
"""Relative distance of the bound to its best value at which the prices of a round are good."""

COLUMN_ROUNDS = 4
"""Rounds of column generation for the prices of a round. The next round goes on from there."""

KEPT_PATHS = 8
"""Paths of a class that go on to the next round, those of the least reduced cost."""

WORTH_A_ROUND = 1e-4
"""The rounds end when the bound rose by no more than this share."""

ROUND_SHARE = 0.5
"""Share of the time left for the prices of a round."""

Wanted = list[tuple[IntArray, IntArray]]
"""Per slot the messages, by their row of the rates, and the node sets that send them."""


def serves_on_demand(instance: Instance, beamforming: str, restrictions: frozenset[str]) -> bool:
    """Return whether rates on demand speak of this system: else its whole table is solved.

    A small table costs less than the rounds, and proofs rest on all of it.
    """
    if not _paths_name_messages(instance, beamforming, restrictions):
        return False
    instance = restricted_instance(instance, restrictions)
    count = sum(len(messages(instance, t, restrictions).users) for t in range(instance.slots))
    return count * min(1 << instance.nodes, MANY_SETS) > FEW_PAIRS


def lacks_node_sets(instance: Instance, beamforming: str, restrictions: frozenset[str]) -> bool:
    """Return whether a whole table is still without node sets that bounds rest on.

    Beyond 6 nodes it holds some of them, and the bounds of larger ones for the others.
    """
    some = instance.nodes > FULL_FAMILY_NODES
    return some and _paths_name_messages(instance, beamforming, restrictions)


def _paths_name_messages(
    instance: Instance, beamforming: str, restrictions: frozenset[str]
) -> bool:
    """Return whether the paths of blocks say which messages matter.

    Without CoMP there are few messages. Spatial delivery looks at messages that no path names.
    """
    sequential = instance.delivery == "sequential"
    return sequential and beamforming == KERNEL and "no-comp" not in restrictions


def prepare_on_demand(
    instance: Instance,
    *,
    restrict: frozenset[str] = frozenset(),
    seed: int = 0,
    callback: Callback | None = None,
    deadline: Deadline = NEVER,
) -> tuple[Prepared, Dual | None]:
    """Compute the rates that bounds rest on, and the placement problems at these rates.

    Parameters
    ----------
    instance
        The problem.
    restrict, seed, callback
        As in `finecast.solvers.prepared.prepare`.
    deadline
        When the rates must be there. Every node set has one from the first moment on.

    Returns
    -------
    prepared
        Instance and rates.
    dual
        Of the last round; None where there was no time for one, or somebody cannot be served.
    """
    restrictions = check_restrictions(restrict)
    instance = restricted_instance(instance, restrictions)
    plans = tuple(messages(instance, t, restrictions) for t in range(instance.slots))
    with np.errstate(divide="ignore"):
        link = restricted_links(8.0 / instance.network.link_rate, restrictions)
    robust, splits = "non-robust" not in restrictions, "one-message" not in restrictions
    timed = not deadline.endless
    rates = first_rates(
        instance, plans, robust=robust, splits=splits, seed=seed, quick=timed, callback=callback,
        deadline=deadline,
    )  # fmt: skip
    rates = tuple(
        with_splits(
            instance, t, slot, len(plans[t].users),
            robust=robust, beamforming=KERNEL, seed=seed, deadline=deadline,
        )
        for t, slot in enumerate(rates)
    )  # fmt: skip
    prepared = with_problems(Prepared(instance, plans, rates, link, robust, KERNEL))
    return solve_on_demand(prepared, seed=seed, callback=callback, deadline=deadline)


def solve_on_demand(
    prepared: Prepared,
    *,
    seed: int,
    callback: Callback | None = None,
    deadline: Deadline = NEVER,
) -> tuple[Prepared, Dual | None]:
    """Solve the messages that the bound rests on, in rounds, until it rests on solved ones.

    Parameters
    ----------
    prepared
        Instance and rates, some of whose node sets are not solved.
    seed, callback, deadline
        As in `prepare_on_demand`.

    Returns
    -------
    As `prepare_on_demand`.
    """
    dual = None
    for round_ in range(ROUNDS):
        if prepared.bounded is None or prepared.at_achieved is None or deadline.over():
            break
        before = 0.0 if dual is None else dual.bound
        dual = best_dual(prepared, dual, deadline.share(ROUND_SHARE))
        if dual.bound <= before * (1.0 + WORTH_A_ROUND):
            break
        solved = solve_wanted(prepared, dual.wanted(prepared), seed=seed, deadline=deadline)
        if solved is prepared:
            break
        prepared = solved
        if callback is not None:
            callback(Progress("rates on demand", round_ + 1, ROUNDS))
    return prepared, dual


def first_rates(
    instance: Instance,
    plans: Sequence[Messages],
    *,
    robust: bool,
    splits: bool,
    seed: int,
    quick: bool,
    callback: Callback | None = None,
    deadline: Deadline = NEVER,
) -> tuple[SlotRates, ...]:
    """Return the rates of every slot from the messages of all nodes alone.

    Parameters
    ----------
    instance, plans
        The problem, and per slot its messages.
    robust, splits, seed, callback
        As in `finecast.solvers.rate_table.rate_table`.
    quick
        One start for every beam, and the bound that comes with it for free: nothing is solved yet.
    deadline
        As in `finecast.solvers.partial_rates.quick_rates`, where it is quick.
    """
    users = [plan.users for plan in plans]
    node_sets = node_sets_to_solve(instance, users, robust)
    slot = np.concatenate([np.full(len(u), t) for t, u in enumerate(users)]).astype(np.int64)
    listening, sets = np.concatenate(users), np.concatenate(node_sets)
    if quick:
        solved = quick_rates(
            instance, slot, listening, sets,
            beamforming=KERNEL, seed=seed, robust=robust, splits=splits, deadline=deadline,
        )  # fmt: skip
    else:
        find = by_search(instance, KERNEL, seed)
        solved = from_all_nodes(
            instance, slot, listening, sets, find, robust=robust, splits=splits, callback=callback
        )
    return closed_slots(instance, users, robust, splits, node_sets, solved)


@dataclass(frozen=True, eq=False)
class Dual:
    """The best prices at the bounded rates, and the paths that they rest on.

    Attributes
    ----------
    bound
        Certified lower bound on the delay, s.
    prices
        Of the storages.
    class_of, paths
        (P,) classes, and the P paths in sets of units: good ones at the prices.
    used
        (P,) bool: the path is in the best mix of all, or is the cheapest of its class.
    tables
        The classes and their units.
    """

    bound: float
    prices: Prices
    class_of: IntArray
    paths: Paths
    used: BoolArray
    tables: Classes

    def wanted(self, prepared: Prepared) -> Wanted:
        """Return the messages that the paths send."""
        used = np.flatnonzero(self.used)
        class_of = self.class_of[used]
        nodes = self.tables.node_sets(class_of, self.paths.sender[:, used])
        sender = nodes | _free_nodes(self.tables)[class_of]
        assert prepared.bounded is not None
        _, _, _, group = grouped(prepared.bounded)
        return [
            _messages_of(plan, group[t, class_of], sender[t])
            for t, plan in enumerate(prepared.plans)
        ]


def best_dual(prepared: Prepared, last: Dual | None, deadline: Deadline) -> Dual:
    """Return the best prices at the bounded rates.

    Parameters
    ----------
    prepared
        Instance and rates.
    last
        That of the same instance at other rates, to start from; None for none.
    deadline
        When to stop raising the prices.
    """
    problem = prepared.bounded
    assert problem is not None
    if last is None:
        tables, prices, pool = relaxed_classes(problem), no_prices(problem), None
    else:
        # The same units as before; the times of the known paths anew.
        unit = last.tables.unit
        tables = classes(problem) if unit is None else classes_of_units(problem, unit)
        slot = np.arange(problem.slots)[:, None]
        broadcast = tables.broadcast[slot, last.paths.sender, last.class_of]
        prices, pool = last.prices, (last.class_of, replace(last.paths, broadcast=broadcast))
    ascent = ascend(
        problem, tables, dual_point(problem, tables, prices), _nothing_cached(problem, tables),
        tolerance=TOLERANCE, deadline=deadline, pool=pool, rounds=COLUMN_ROUNDS,
    )  # fmt: skip
    best, master = ascent.best, ascent.master
    everything = np.arange(len(tables.size))
    share = np.zeros(len(master.class_of))
    if ascent.share is not None:
        share[: len(ascent.share)] = ascent.share
    kept = _kept(master.class_of, master.reduced_cost(best.prices, best.value), share > 0)
    return Dual(
        best.bound,
        best.prices,
        np.concatenate([everything, master.class_of[kept]]),
        best.paths.joined(master.paths.columns(kept)),
        np.concatenate([np.ones(len(everything), dtype=bool), share[kept] > 0]),
        tables,
    )


def _kept(class_of: IntArray, excess: FloatArray, used: BoolArray) -> IntArray:
    """Return the paths that go on: those in use, and the least reduced costs of every class.

    Parameters
    ----------
    class_of, excess, used
        (P,) class, reduced cost, and whether the path is in the best mix.
    """
    order = np.lexsort((excess, class_of))
    rank = np.empty(len(order), dtype=np.int64)
    ordered = class_of[order]
    rank[order] = np.arange(len(order)) - np.searchsorted(ordered, ordered)
    return np.flatnonzero(used | (rank < KEPT_PATHS))


def dual_again(prepared: Prepared, dual: Dual, deadline: Deadline) -> float:
    """Return the certified lower bound, s, that a dual gives at rates of which more are solved.

    Parameters
    ----------
    prepared
        Instance and rates, perhaps with other beams than when the dual was found.
    dual
        Of the same instance.
    deadline
        When it is over, the bound is that of before: bounds of rates only fall since.
    """
    if prepared.bounded is None or deadline.over():
        return dual.bound
    return max(dual.bound, best_dual(prepared, dual, deadline).bound)


def _nothing_cached(problem: PlacementProblem, tables: Classes) -> float:
    """Return the delay where nothing is cached, s."""
    empty = empty_paths(problem, tables)
    return float((empty.migration + empty.broadcast).sum(axis=0) @ tables.size)


def _free_nodes(tables: Classes) -> IntArray:
    """Return (C,) the nodes that a relaxation takes to hold everything, as bit masks."""
    if tables.unit is None:
        return np.zeros(len(tables.size), dtype=np.int64)  # at most 10 nodes
    free = np.asarray(~tables.unit.any(axis=1))
    return sets_of(free)


def _messages_of(plan: Messages, group: IntArray, sender: IntArray) -> tuple[IntArray, IntArray]:
    """Return the distinct messages and node sets by which groups are served in a slot.

    Parameters
    ----------
    plan
        The messages of the slot.
    group, sender
        (B,) user group, -1 for none, and node set as bit mask.
    """
    needed = np.flatnonzero(group >= 0)
    row, message = np.nonzero(plan.of_group[group[needed]])
    node_set = sender[needed[row]] & plan.allowed[message]
    some = node_set != 0
    (message, node_set), _ = distinct(message[some], node_set[some])
    return message, node_set


def with_sent(
    prepared: Prepared, placement: Placement, *, seed: int, deadline: Deadline = NEVER
) -> Prepared:
    """Return the rates with those of the messages that a placement sends.

    Parameters
    ----------
    prepared
        Instance and rates.
    placement
        Caches and sources.
    seed, deadline
        As in `solve_wanted`.
    """
    wanted = [
        unsplit_messages(prepared.instance, placement, plan, t)
        for t, plan in enumerate(prepared.plans)
    ]
    return solve_wanted(prepared, wanted, seed=seed, deadline=deadline)


def lacks(prepared: Prepared, wanted: Wanted) -> bool:
    """Return whether a message that is wanted, as in `solve_wanted`, is not solved yet."""
    for slot, (message, node_set) in zip(prepared.rates, wanted, strict=True):
        same = slot.node_sets[message] == node_set[:, None]
        if not same.any(axis=1).all():
            return True
        if np.isinf(slot.snr_bound[message, same.argmax(axis=1)]).any():
            return True
    return False


def solve_wanted(
    prepared: Prepared, wanted: Wanted, *, seed: int, deadline: Deadline = NEVER
) -> Prepared:
    """Return the rates with those of the wanted messages that are not solved yet.

    Parameters
    ----------
    prepared
        Instance and rates.
    wanted
        Per slot the messages and node sets.
    seed
        Seed of random starts.
    deadline
        What is not solved by then stays unsolved.

    Returns
    -------
    The same object where nothing is new.
    """
    rates, unsolved = list(prepared.rates), {}
    for t, (message, node_set) in enumerate(wanted):
        rates[t] = with_columns(rates[t], message, node_set)
        column = (rates[t].node_sets[message] == node_set[:, None]).argmax(axis=1)
        new = np.isinf(rates[t].snr_bound[message, column])
        if new.any():
            unsolved[t] = message[new], column[new]
    if not unsolved or deadline.over():
        return prepared
    find = by_search(prepared.instance, KERNEL, seed)
    rates = solve_entries(
        prepared.instance, rates, unsolved, find, robust=prepared.robust, deadline=deadline
    )
    for t, (message, column) in unsolved.items():
        rates[t] = _split(prepared, t, rates[t], message, column, seed)
    return with_problems(replace(prepared, rates=tuple(rates)))


def _split(
    prepared: Prepared, t: int, slot: SlotRates, message: IntArray, column: IntArray, seed: int
) -> SlotRates:
    """Return the rates of a slot with small groups split where the solved messages call for it."""
    small = (slot.users[message].sum(axis=1) <= EXACT_USERS) & np.isfinite(
        slot.snr_bound[message, column]
    )
    message, node_set = message[small], slot.node_sets[message[small], column[small]]
    pairs = worth_splitting(slot, message, node_set, WORTH_ELSEWHERE)
    return split(
        prepared.instance, t, slot, pairs, robust=prepared.robust, beamforming=KERNEL, seed=seed
    )
