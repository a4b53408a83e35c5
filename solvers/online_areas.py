"""Online methods on instances of several areas: every area decides its caches, all deliver at once.

Each area has a policy of its own. Before slot 0 it knows the library, its nodes and the demand
model; where users will be is not known, so every user is its own with the chance of its share of
the nodes. In slot t it is told the requests and channels of the users that are at home in it now
(whose strongest node is one of its nodes), and nobody else asks there. Users that come later go to
the end of its list of users; who has left is expected to ask nothing. An area in which nobody asks
in a slot keeps what it holds. The messages of a slot come from `finecast.solvers.areas`, for that
slot alone: wide or local, with joint beams.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.demand import Demand
from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance
from finecast.problem.solution import Broadcast, Solution
from finecast.solvers.areas.deliver import UnreachedError, deliver
from finecast.solvers.areas.plan import SEARCH_SHARE, finish_plan, search_plan
from finecast.solvers.areas.rates import check_served, prepare_areas
from finecast.solvers.areas.split import Area, part_of, split
from finecast.solvers.areas.state import City
from finecast.solvers.areas.tables import whole
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.joint import RATES_SHARE
from finecast.solvers.online import (
    Observation,
    Policy,
    Prior,
    prior_of,
    slot_alone,
    solve_by_policy,
)
from finecast.solvers.prepared import Prepared, prepare
from finecast.solvers.restrictions import (
    Messages,
    check_restrictions,
    restricted_instance,
    restricted_links,
)
from finecast.solvers.result import (
    Answer,
    BoundKind,
    Callback,
    Progress,
    Termination,
    TracePoint,
)
from finecast.solvers.signals import SearchInterrupt

ROUNDS = 2
"""Rounds of beams in a slot: the second knows the interference of the first."""

MOST_NOTES = 3
"""Notes of areas that an answer says; of more it says how many."""

PLAY_SHARE = 0.65
"""Share of the time for the slots; the rest is for the bound."""


@dataclass(eq=False)
class Player:
    """What decides for an area.

    Attributes
    ----------
    nodes
        (N_a,) by their index in the whole instance.
    make
        Returns a new policy.
    policy
        That of the area.
    prior
        What it knows before slot 0.
    users
        (U,) users that were at home in the area so far, in the order in which they came.
    """

    nodes: IntArray
    make: Callable[[], Policy]
    policy: Policy
    prior: Prior
    users: IntArray

    def meet(self, here: IntArray) -> None:
        """Add the users at home in the area now; a policy that remembers users begins anew."""
        new = np.setdiff1d(here, self.users)
        if len(new) and len(self.users) and getattr(self.policy, "remembers_users", False):
            self.policy = self.make()
            self.policy.place(self.prior)
        self.users = np.concatenate([self.users, new])


def solve_online(
    make: Callable[[], Policy],
    method: str,
    instance: Instance,
    *,
    deadline: Deadline = NEVER,
    seed: int = 0,
    callback: Callback | None = None,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
) -> Answer:
    """Solve by an online method, in every area of its own where there are several.

    Parameters
    ----------
    make
        Returns a new policy.
    method, instance, deadline, seed, callback, beamforming, restrict, rate_cache
        As in `finecast.solvers.online.solve_by_policy`.

    Raises
    ------
    ValueError
        Unknown beamforming method or restriction, or one that is not for several areas.
    UnservableError
        A user group cannot be served at any rate.
    """
    if instance.area_count == 1:
        return solve_by_policy(
            make(),
            method,
            instance,
            deadline=deadline,
            seed=seed,
            callback=callback,
            beamforming=beamforming,
            restrict=restrict,
            rate_cache=rate_cache,
        )
    began, cpu = time.monotonic(), time.process_time()
    restrictions = check_restrictions(restrict)
    check_served(instance, restrictions, beamforming, rate_cache)
    instance = restricted_instance(instance, restrictions)
    players = tuple(player_of(instance, a, make, restrictions) for a in range(instance.area_count))
    try:
        solution, interrupted = play(
            instance,
            players,
            method,
            restrictions=restrictions,
            seed=seed,
            callback=callback,
            deadline=deadline.share(PLAY_SHARE),
        )
    except UnreachedError as error:
        return Answer(None, 0.0, BoundKind.NONE, Termination.NO_SOLUTION, notes=(str(error),))
    played = f"areas: caches and messages of all slots took {time.process_time() - cpu:.3g} CPU s"

    # The bound needs all slots, so it comes when every decision is made.
    bound = 0.0
    if interrupted:
        deadline = Deadline.after(0.0)
    try:
        if (instance.requests >= 0).any():
            ready = prepare_areas(
                instance,
                restrict=restrictions,
                seed=seed,
                callback=callback,
                deadline=deadline.of("bound"),
            )
            bound = ready.point.bound
    except SearchInterrupt:  # the plan is there
        interrupted = True
    termination = Termination.INTERRUPTED if interrupted else Termination.COMPLETED
    said = dict.fromkeys(note for player in players for note in getattr(player.policy, "notes", ()))
    notes = list(said)[:MOST_NOTES]
    if len(said) > MOST_NOTES:
        notes.append(f"{len(said) - MOST_NOTES} more such notes of other areas")
    delay = evaluate(instance, solution).delay
    return Answer(
        solution,
        bound,
        BoundKind.CERTIFIED,
        termination,
        trace=(TracePoint(time.monotonic() - began, delay, bound),),
        notes=(*notes, played),
        instance=instance,
    )


def player_of(
    instance: Instance, a: int, make: Callable[[], Policy], restrictions: frozenset[str]
) -> Player:
    """Return what decides for an area, and what it knows before slot 0.

    Parameters
    ----------
    instance, restrictions
        The (restricted) problem, and the restrictions in force.
    a
        The area.
    make
        Returns a new policy.
    """
    policy = make()
    nodes = np.flatnonzero(instance.areas == a)
    part = part_of(instance, nodes, np.arange(instance.users))
    share = len(nodes) / instance.nodes
    prior = prior_of(part, restrictions)
    demand = prior.demand
    demand = Demand(demand.preference, demand.persistence, share * demand.activity)
    prior = replace(prior, demand=demand)
    if getattr(policy, "knows", None) == "network":
        first = part.channel_estimate[0].copy(), part.channel_error[0].copy()
        prior = replace(prior, first_slot=first)
    return Player(nodes, make, policy, prior, np.zeros(0, dtype=np.int64))


def play(
    instance: Instance,
    players: tuple[Player, ...],
    method: str,
    *,
    restrictions: frozenset[str] = frozenset(),
    seed: int = 0,
    callback: Callback | None = None,
    deadline: Deadline = NEVER,
) -> tuple[Solution, bool]:
    """Return what policies decide area by area, slot by slot, and whether the user ended it early.

    Parameters
    ----------
    instance
        The (restricted) problem.
    players
        One for each area.
    method
        Name to leave in the solution.
    restrictions, seed, callback
        As in `solve_online`.
    deadline
        When to be done; every slot gets the same part of the time.

    Raises
    ------
    UnservableError
        A user group cannot be served by its area at any rate.
    """
    held = np.zeros((instance.nodes, instance.blocks), dtype=bool)
    for player in players:
        held[player.nodes] = player.policy.place(player.prior)
    homes = np.zeros((0, instance.users), dtype=np.int64)
    parts: list[Solution] = []
    interrupted = False
    for t in range(instance.slots):
        limit = deadline.share(1.0 / (instance.slots - t))
        one = slot_alone(instance, t)
        strongest = np.linalg.norm(one.channel_estimate[0], axis=2).argmax(axis=1)
        homes = np.concatenate([homes, instance.areas[strongest][None]])

        if not (one.requests >= 0).any():
            parts.append(_silent(one, held, method))
            continue

        # Every area with requests decides, on the rates of its own users alone on the air.
        areas = split(one)
        prepared, keep = [], held.copy()
        for area in areas:
            ready = prepare(
                area.instance,
                restrict=(restrictions - {"coarse"}) | {"one-message"},
                seed=seed,
                deadline=limit.share(RATES_SHARE / len(areas)).of("rates"),
            )
            prepared.append(ready)
            player = players[area.number]
            player.meet(np.flatnonzero(homes[-1] == area.number))
            observation = _observed(instance, player, area, homes, ready)
            keep[player.nodes] = player.policy.act(observation, held[player.nodes])[1]

        # All deliver together what is needed, knowing what is to be kept.
        city = _city(one, areas, prepared, restrictions)
        plan = search_plan(
            city,
            tuple(ready.rates for ready in prepared),
            (),
            None,
            seed=seed,
            deadline=limit.share(SEARCH_SHARE),
            cache=held[None],
            kept=keep,
            sweeps=False,
            rounds=ROUNDS,
        )
        plan = finish_plan(city, plan, seed=seed, deadline=limit)
        if plan.interrupted:  # the slots to come are played too, with the first beams at hand
            interrupted, deadline = True, Deadline.after(0.0)
        parts.append(deliver(city, plan, method))
        held = keep
        if callback is not None:
            callback(Progress("slots of areas", t + 1, instance.slots))
    solution = Solution(
        cache=np.concatenate([part.cache for part in parts]),
        source=np.concatenate([part.source for part in parts]),
        broadcasts=tuple(part.broadcasts[0] for part in parts),
        instance_hash=instance.content_hash,
        method=method,
    )
    return solution, interrupted


def _observed(
    instance: Instance, player: Player, area: Area, homes: IntArray, ready: Prepared
) -> Observation:
    """Return what an area knows in a slot: of users that are not at home in it, nothing new.

    Parameters
    ----------
    instance
        The problem, of which slots up to this one are read.
    player, area
        Who decides.
    homes
        (t + 1, K) area in which every user is at home.
    ready
        Rates of the area's users in this slot.
    """
    slots, users = slice(0, len(homes)), player.users
    mine = (homes == area.number)[:, users]
    # Who is elsewhere now is not expected to ask here.
    demand = instance.demand
    activity = np.where(mine[-1], demand.activity[users], 0.0)
    demand = Demand(demand.preference[:, users], demand.persistence, activity)
    plan, rates = ready.plans[0], ready.rates[0]
    among = np.argsort(users)[np.searchsorted(np.sort(users), area.users)]

    def of_all(asking: BoolArray) -> BoolArray:
        result = np.zeros((len(asking), len(users)), dtype=bool)
        result[:, among] = asking
        return result

    reach: FloatArray = np.zeros((len(users), len(player.nodes)))
    reach[among] = rates.reach
    return Observation(
        prior=replace(player.prior, demand=demand),
        t=len(homes) - 1,
        requests=np.where(mine, instance.requests[slots, users], -1),
        channel_estimate=instance.channel_estimate[slots, users][:, :, player.nodes],
        channel_error=instance.channel_error[slots, users][:, :, player.nodes],
        plan=Messages(plan.group, of_all(plan.users), plan.allowed, plan.of_group),
        rates=replace(rates, users=of_all(rates.users), reach=reach),
        problem=ready.achieved,
    )


def _city(
    one: Instance, areas: tuple[Area, ...], prepared: list[Prepared], restrictions: frozenset[str]
) -> City:
    """Return the instance of one slot with what its areas have in common."""
    with np.errstate(divide="ignore"):
        link = restricted_links(8.0 / one.network.link_rate, restrictions)
    np.fill_diagonal(link[:-1], np.inf)
    group = tuple(ready.plans[0].group[None] for ready in prepared)
    return City(one, areas, whole(one, areas, robust=True), link, group)


def _silent(one: Instance, held: BoolArray, method: str) -> Solution:
    """Return the solution of a slot without a request: nothing moves, nothing is sent."""
    nothing = Broadcast(
        users=np.zeros((0, one.users), dtype=bool),
        nodes=np.zeros((0, one.nodes), dtype=bool),
        blocks=np.zeros((0, one.blocks), dtype=bool),
        duration=np.zeros(0),
        mode=np.zeros(0, dtype=np.int64),
        message=np.zeros(0, dtype=np.int64),
        beam=np.zeros((0, one.nodes, one.antennas), dtype=np.complex128),
        rate=np.zeros(0),
    )
    return Solution(
        cache=held[None],
        source=np.full((1, *held.shape), -1),
        broadcasts=(nothing,),
        instance_hash=one.content_hash,
        method=method,
    )
