"""The certified offline methods: placement by bound and search, at the rates of certified beams."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from finecast.problem.instance import Instance
from finecast.solvers.beamforming.by_name import KERNEL
from finecast.solvers.bounds import everywhere_bound
from finecast.solvers.deadline import Deadline
from finecast.solvers.joint import answer, at_hand
from finecast.solvers.node_set_tables import FULL_TABLES
from finecast.solvers.placement.bound import Prices, dual_point
from finecast.solvers.placement.exact.with_proof import proven_bound
from finecast.solvers.placement.greedy import greedy_in_time
from finecast.solvers.placement.problem import Placement, PlacementProblem, placement_delay
from finecast.solvers.placement.result import Incumbent, PlacementResult
from finecast.solvers.placement.units import UNITS, relaxed_classes
from finecast.solvers.polish import polished
from finecast.solvers.prepared import Prepared, prepare
from finecast.solvers.proven import BEAM_NODES, with_proven_beams
from finecast.solvers.rates_on_demand import (
    Dual,
    dual_again,
    lacks_node_sets,
    prepare_on_demand,
    serves_on_demand,
    solve_on_demand,
    with_sent,
)
from finecast.solvers.restrictions import check_restrictions
from finecast.solvers.result import (
    Answer,
    BoundKind,
    Progress,
    Termination,
    TracePoint,
    relative_gap,
)
from finecast.solvers.rounding import SUM_ALLOWANCE
from finecast.solvers.search import Search
from finecast.solvers.signals import SearchInterrupt
from finecast.solvers.spatial.replan import replanner

Place = Callable[..., PlacementResult]

BOUND_SHARE = 0.4
"""Share of the time limit for the bound of spatial delivery."""

RATES_SHARE = 0.4
"""Share of the time limit for the rates. The first ones take what they take."""

PLACING_SHARE = 0.9
"""Share of the time for the placement and its beams, where the bound needs little."""

POLISH_SHARE = 0.7
"""Share of the time that is left for better beams."""

FIRST_PLACEMENT_SHARE = 0.8
"""Share of the time for the placement at achieved rates, where another at the bounds follows."""

SEQUENTIAL_SHARE = 0.4
"""Share of the time that a pipelined placement spends on the sequential one, as its start."""

PROOF_GAP = 1e-6
"""An answer within this of its bound is called optimal."""

PIPELINED_MODEL = (
    "exact models a pipelined slot as the larger of its two sums, which its bound rests on; "
    "method milp models the order of the messages too"
)

WORTH_ANOTHER_ROUND = 1e-4
"""The placement runs again when better beams made it faster by this share."""

EARLY_ROUNDS = (0.25, 0.5)
"""Beyond 8 nodes few node sets have beams of their own. The sets in use get them after these
shares of the time, before the placement is found at last."""


def solve_by_search(
    place: Place,
    method: str,
    instance: Instance,
    search: Search,
    *,
    twice: bool,
    write: str | None = None,
    beam_nodes: int = BEAM_NODES,
    **rates: Any,
) -> Answer:
    """Place at the achieved rates, then certify at the upper bounds of the rates.

    Parameters
    ----------
    place
        Placement method whose lower bounds hold for every placement.
    method
        Name to leave in the solution.
    instance
        The problem.
    search
        When to end, where to begin, whom to tell.
    twice
        The bound comes from a second placement, at the bounded rates. Otherwise it is the
        Lagrangian at the prices of the first, raised by the tree where the instance is small.
    write
        File, .lp or .mps, for the placement model at the rates of the answer; None for none.
    beam_nodes
        Boxes of arguments per message for proving beams (`finecast.solvers.proven`); 0 for none.
    **rates
        `beamforming`, `restrict`, `rate_cache` as in `finecast.solvers.prepared.prepare`.

    Raises
    ------
    ValueError
        Unknown beamforming method or restriction, `write` ends otherwise, or `beam_nodes` < 0.
    UnservableError
        A user group cannot be served at any rate.
    """
    if beam_nodes < 0:
        raise ValueError(f"option beam_nodes: {beam_nodes} is not allowed, must be >= 0")
    if write is not None:
        from finecast.solvers.placement.exact.pyomo_model import check_suffix, write_model

        check_suffix(write)
    began, seconds = time.monotonic(), search.deadline.left()
    bounding = search.deadline.of("bound")
    prepared, dual = _prepared(instance, search, **rates)
    share = FIRST_PLACEMENT_SHARE if twice else PLACING_SHARE
    placing = replace(search, deadline=search.deadline.share(share))
    try:
        prepared, found, prices = _place(place, prepared, placing)
    except SearchInterrupt:
        return at_hand(prepared, method=method, began=began)
    if found.termination is not Termination.INTERRUPTED:
        try:
            prepared = with_proven_beams(
                prepared, found.placement, prices,
                nodes=beam_nodes, seed=search.seed, deadline=search.deadline.of("beam proofs"),
            )  # fmt: skip
        except SearchInterrupt:
            found = replace(found, termination=Termination.INTERRUPTED)
    if write is not None:
        write_model(prepared.achieved, path=write)
    try:
        bound = _price_bound(prepared, prices, bounding.within(BOUND_SHARE * seconds))
        if dual is not None:  # at the bounded rates themselves, and those are better now
            bound = max(bound, dual_again(prepared, dual, bounding))
    except SearchInterrupt:  # under spatial delivery the bound is a search
        bound = everywhere_bound(prepared, Deadline.after(0.0))
        found = replace(found, termination=Termination.INTERRUPTED)
    kind = BoundKind.CERTIFIED
    # A second placement says nothing of spatial delivery, which can beat one broadcast per block.
    spatial = prepared.instance.delivery == "spatial"
    interrupted = found.termination is Termination.INTERRUPTED
    notes: tuple[str, ...] = ()
    if not (twice or spatial or interrupted or prepared.bounded is None or not prices):
        try:
            proven = proven_bound(
                prepared.bounded,
                found.placement,
                prices[-1],
                gap=search.gap,
                deadline=search.deadline.of("proof"),
                so_far=relative_gap(found.delay, bound),
            )
            bound = max(bound, proven)
        except SearchInterrupt:
            found = replace(found, termination=Termination.INTERRUPTED)
    if twice and not (spatial or interrupted or prepared.bounded is None):
        at_bounds = place(
            prepared.bounded,
            gap=search.gap,
            deadline=bounding,
            seed=search.seed,
            start=found.placement,
        )
        if at_bounds.termination is Termination.INTERRUPTED:
            found = replace(found, termination=at_bounds.termination)
        if at_bounds.certified_bound is not None:
            bound = max(bound, at_bounds.certified_bound)
        if at_bounds.bound_kind is BoundKind.CERTIFIED or at_bounds.lower_bound <= bound:
            bound = max(bound, at_bounds.lower_bound)
        else:
            notes = (f"the best certified lower bound is {bound:.6g} s",)
            bound, kind = at_bounds.lower_bound * (1.0 - SUM_ALLOWANCE), BoundKind.MILP
    result = _answer(prepared, found, began, method, search.gap, bound, kind)
    result = replace(result, notes=(*result.notes, *notes))

    def again(problem: PlacementProblem, start: Placement, limit: float | None) -> Placement:
        moved = place(
            problem,
            gap=search.gap,
            deadline=Deadline.after(limit),
            seed=search.seed,
            start=start,
        )
        return moved.placement

    return replace(result, replan=replanner(prepared, again, method))


def _prepared(
    instance: Instance,
    search: Search,
    *,
    beamforming: str = KERNEL,
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
) -> tuple[Prepared, Dual | None]:
    """Return the rates that the method needs, within its share of the time, and their dual.

    A table that is kept is whole: other methods, which need all of it, read it, too. Where it has
    no node set but some, those that the bound rests on are solved beside it.
    """
    restrictions = check_restrictions(restrict)
    deadline = search.deadline.share(RATES_SHARE).of("rates")
    given: dict[str, Any] = {
        "restrict": restrictions,
        "seed": search.seed,
        "callback": search.callback,
    }
    if rate_cache is None and serves_on_demand(instance, beamforming, restrictions):
        return prepare_on_demand(instance, deadline=deadline, **given)
    whole = prepare(
        instance, beamforming=beamforming, rate_cache=rate_cache, deadline=deadline, **given
    )
    if lacks_node_sets(instance, beamforming, restrictions):
        del given["restrict"]
        return solve_on_demand(whole, deadline=deadline, **given)
    return whole, None


def _with_sent(prepared: Prepared, placement: Placement, search: Search) -> Prepared:
    """Return the rates with beams of their own for what a placement sends."""
    if prepared.beamforming != KERNEL:
        return prepared  # a comparison of beamforming methods must not be helped out
    deadline = search.deadline.share(POLISH_SHARE).of("rates")
    return with_sent(prepared, placement, seed=search.seed, deadline=deadline)


def _place(
    place: Place, prepared: Prepared, search: Search
) -> tuple[Prepared, PlacementResult, list[Prices]]:
    """Place, recompute the beams in use with more starts, and place again where that pays.

    Returns the better rates, the last placement, and the prices of every round.
    """
    prices: list[Prices] = []
    few_sets = prepared.instance.nodes > FULL_TABLES

    def tell(point: Incumbent) -> None:
        if search.callback is not None:
            note = f"{point.delay:.6g} s, bound {point.lower_bound:.6g} s"
            search.callback(Progress("placement", 0, 0, note))

    def run(problem: PlacementProblem, start: Placement | None, share: float) -> PlacementResult:
        found = place(
            problem,
            gap=search.gap,
            deadline=search.deadline.share(share),
            seed=search.seed,
            start=start,
            callback=tell,
        )
        if found.prices is not None:
            prices.append(found.prices)
        return found

    # Greedy's plan is there first, and whatever comes after may only be better.
    start = greedy_in_time(prepared.achieved, search.deadline.of("greedy plan"))
    if search.start is not None:
        given = Placement(search.start.cache, search.start.source)
        start = min(start, given, key=lambda plan: placement_delay(prepared.achieved, plan))
    if prepared.instance.schedule == "pipelined":
        start = _sequential_start(place, prepared.achieved, search, start)

    prepared = _with_sent(prepared, start, search)
    if search.deadline.over():
        for left_out in ("polish", "bound"):
            search.deadline.of(left_out).note()
        delay = placement_delay(prepared.achieved, start)
        return prepared, PlacementResult(start, delay, 0.0, (), Termination.TIME_LIMIT), prices

    # Beams for the node sets in use; few sets have beams at first where the tables are not full.
    for share in (*(EARLY_ROUNDS if few_sets else ()), 1.0):
        found = run(prepared.achieved, start, share)
        if found.termination is Termination.INTERRUPTED:
            return prepared, found, prices
        try:
            prepared = _with_sent(prepared, found.placement, search)
            prepared, gain = polished(
                prepared,
                found.placement,
                seed=search.seed,
                deadline=search.deadline.share(POLISH_SHARE).of("polish"),
            )
        except SearchInterrupt:
            return prepared, replace(found, termination=Termination.INTERRUPTED), prices
        start = found.placement
        if search.deadline.over():
            break

    # Better beams change what is worth caching.
    if gain > WORTH_ANOTHER_ROUND and not few_sets:
        found = run(prepared.achieved, start, 1.0)
    return prepared, found, prices


def _sequential_start(
    place: Place, problem: PlacementProblem, search: Search, start: Placement
) -> Placement:
    """Return the best start known for a pipelined placement.

    The search aims at the larger of the two sums. What is best in sequence is a good start.
    """
    sequential = place(
        replace(problem, schedule="sequential"),
        gap=search.gap,
        deadline=search.deadline.share(SEQUENTIAL_SHARE),
        seed=search.seed,
    )
    return min((sequential.placement, start), key=lambda plan: placement_delay(problem, plan))


def _price_bound(prepared: Prepared, prices: list[Prices], deadline: Deadline) -> float:
    """Return the certified bound: the Lagrangian at the found prices, at bounded rates."""
    bound = everywhere_bound(prepared, deadline)
    # The Lagrangian speaks of one broadcast per block, which spatial delivery can beat.
    if prepared.instance.delivery == "spatial" or prepared.bounded is None:
        return bound
    if not prices:
        return bound
    tables = relaxed_classes(prepared.bounded, like=prepared.achieved)
    return max([bound, *(dual_point(prepared.bounded, tables, point).bound for point in prices)])


def _relaxation(prepared: Prepared) -> tuple[str, ...]:
    """Return what the bound leaves out, in words, where it leaves anything out."""
    if prepared.instance.nodes <= UNITS or prepared.instance.delivery == "spatial":
        return ()
    return (
        f"the bound prices the storage of the {UNITS} nodes that matter most to each class of "
        "blocks; the others count as holding its blocks for free",
    )


def _answer(
    prepared: Prepared,
    found: PlacementResult,
    began: float,
    method: str,
    gap: float | None,
    lower_bound: float,
    bound_kind: BoundKind,
) -> Answer:
    """Return the answer; it ends as what its final gap proves, beams included."""
    offset = time.monotonic() - began - (found.trace[-1].time_s if found.trace else 0.0)
    trace = tuple(
        TracePoint(max(0.0, offset) + p.time_s, p.delay, min(p.lower_bound, lower_bound))
        for p in found.trace
    )
    pipelined = prepared.achieved.schedule == "pipelined"
    reached = relative_gap(placement_delay(prepared.achieved, found.placement), lower_bound)
    termination = found.termination
    if reached <= PROOF_GAP:
        termination = Termination.OPTIMAL
    elif gap is not None and reached <= gap:
        termination = Termination.GAP_REACHED
    elif termination not in (Termination.TIME_LIMIT, Termination.INTERRUPTED):
        # Nothing more came of the placement, or what is open are the beams.
        termination = Termination.COMPLETED
    return answer(
        prepared,
        found.placement,
        method=method,
        lower_bound=lower_bound,
        termination=termination,
        bound_kind=bound_kind,
        trace=trace,
        notes=(PIPELINED_MODEL,) if method == "exact" and pipelined else _relaxation(prepared),
    )
