"""Online methods: what they may know, and the roll over the slots.

Before slot 0 an online method has a `Prior`: library, network, demand model. In slot t it has an
`Observation`: the prior, the requests and channels of slots 0..t, and the rates of slot t
(docs/formulation.md section 4). Neither holds the instance, a true channel, or anything of a later
slot, and every array of slots is a copy: a policy cannot look ahead, whatever it does.

The rates of a slot are computed from that slot alone, in a call of their own: in one batch over
all slots the random starts, and beyond 6 nodes the choice of node sets, would depend on the future.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from finecast.problem.arrays import BoolArray, ComplexArray, FloatArray, IntArray, checked
from finecast.problem.demand import Demand, forecast, popularity
from finecast.problem.instance import Delivery, Instance, Schedule
from finecast.problem.library import ModelLibrary
from finecast.problem.network import Network
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.joint import RATES_SHARE, at_hand, heuristic_answer, out_of_time
from finecast.solvers.placement.problem import Placement, PlacementProblem
from finecast.solvers.prepared import Prepared, UnservableError, prepare, with_problems
from finecast.solvers.rates import SlotRates
from finecast.solvers.restrictions import (
    Messages,
    check_restrictions,
    restricted_instance,
    restricted_links,
)
from finecast.solvers.result import Answer, Callback, Progress
from finecast.solvers.signals import SearchInterrupt


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known before slot 0: no channel, no position of a user, no request.

    Parameters
    ----------
    library, network, demand
        As in `Instance`.
    link
        (N + 1, N) seconds per byte from node n' (row N: the cloud) to node n, as far as the
        restrictions allow; infinite where there is no link.
    delivery, schedule
        As in `Instance`.
    restrictions
        Names of the restrictions in force; see `finecast.solvers.restrictions`.
    first_slot
        (K, N, A) and (K, N), channel estimates and error radii of slot 0. None, unless a policy
        says of itself that it knows the network before slot 0 (`knows = "network"`): more than
        others know.
    """

    library: ModelLibrary
    network: Network
    demand: Demand
    link: FloatArray
    delivery: Delivery = "sequential"
    schedule: Schedule = "sequential"
    restrictions: frozenset[str] = frozenset()
    first_slot: tuple[ComplexArray, FloatArray] | None = None

    @property
    def popularity(self) -> FloatArray:
        """(T, K, M), probability that user k requests model m in slot t."""
        return popularity(self.demand)


@dataclass(frozen=True, eq=False)
class Observation:
    """What is known in slot t, when its requests have come in.

    Parameters
    ----------
    prior
        What was known before slot 0.
    t
        The slot.
    requests
        (t + 1, K) model requested by user k, -1 for none.
    channel_estimate
        (t + 1, K, N, A) estimated amplitude gains.
    channel_error
        (t + 1, K, N) radii of the error balls.
    plan, rates
        The messages of slot t and their rates.
    problem
        The placement problem of slot t alone, at achieved rates.
    """

    prior: Prior
    t: int
    requests: IntArray
    channel_estimate: ComplexArray
    channel_error: FloatArray
    plan: Messages
    rates: SlotRates
    problem: PlacementProblem

    def __post_init__(self) -> None:
        for name, kind in (
            ("requests", "int"),
            ("channel_estimate", "complex"),
            ("channel_error", "float"),
        ):
            given = getattr(self, name)
            shape = (self.t + 1, *np.shape(given)[1:])
            object.__setattr__(self, name, checked(name, given, kind, shape))  # type: ignore[arg-type]

    def forecast(self) -> FloatArray:
        """Return (T - t - 1, K, M), the request probabilities of the coming slots given the past.

        Rows sum to the users' activity; empty in the last slot.
        """
        return forecast(self.prior.demand, self.requests)


class Policy(Protocol):
    """An online method: two functions."""

    def place(self, prior: Prior) -> BoolArray:
        """Return x[0], (N, J): what every node holds when slot 0 begins."""

    def act(self, observation: Observation, cache: BoolArray) -> tuple[IntArray, BoolArray]:
        """Return source and keep, (N, J) each, given the caches (N, J) of the slot.

        `source` is -1 where nothing is received, n' for node n', N for the cloud; `keep` is what
        is held when the next slot begins, some of what is cached or received now.
        """


def run_online(policy: Policy, prior: Prior, observations: Iterable[Observation]) -> Placement:
    """Let a policy act slot by slot; the judge says whether it kept to the rules.

    Parameters
    ----------
    policy
        The online method.
    prior
        What is known before slot 0.
    observations
        One for each slot, in order; each is taken only after the policy has acted on the last.
    """
    held = np.array(policy.place(prior), dtype=bool)
    caches, sources = [], []
    for observation in observations:
        source, keep = policy.act(observation, held.copy())
        caches.append(held)
        sources.append(np.array(source, dtype=np.int64))
        held = np.array(keep, dtype=bool)
    return Placement(np.stack(caches), np.stack(sources))


def prior_of(instance: Instance, restrictions: frozenset[str] = frozenset()) -> Prior:
    """Return what is known of a (restricted) instance before slot 0.

    Parameters
    ----------
    instance
        The instance, of the restricted system.
    restrictions
        Names of the restrictions in force.
    """
    with np.errstate(divide="ignore"):
        link = restricted_links(8.0 / instance.network.link_rate, restrictions)
    link.setflags(write=False)
    return Prior(
        library=instance.library,
        network=instance.network,
        demand=instance.demand,
        link=link,
        delivery=instance.delivery,
        schedule=instance.schedule,
        restrictions=restrictions,
    )


def observation_of(instance: Instance, prior: Prior, t: int, slot: Prepared) -> Observation:
    """Return what is known in slot t.

    Parameters
    ----------
    instance
        The instance, of the restricted system.
    prior
        What was known before slot 0.
    t
        The slot.
    slot
        Rates of this slot alone.

    Raises
    ------
    UnservableError
        A user group of the slot cannot be served.
    """
    return Observation(
        prior=prior,
        t=t,
        requests=instance.requests[: t + 1],
        channel_estimate=instance.channel_estimate[: t + 1],
        channel_error=instance.channel_error[: t + 1],
        plan=slot.plans[0],
        rates=slot.rates[0],
        problem=slot.achieved,
    )


def reach_of(prior: Prior, estimate: ComplexArray, error: FloatArray) -> FloatArray:
    """Return the amplitude (..., K, N) that each node gives a user alone, where noise is 1.

    sqrt(P_n) max(0, |g_kn| - eps_kn); with the restriction "non-robust", without the errors.

    Parameters
    ----------
    prior
        What is known before slot 0.
    estimate, error
        (..., K, N, A) and (..., K, N), channel estimates and error radii.
    """
    network = prior.network
    noise = np.sqrt(network.noise_power)
    margin = 0.0 if "non-robust" in prior.restrictions else error / noise
    strength = np.linalg.norm(estimate, axis=-1) / noise
    return np.asarray(np.sqrt(network.power) * np.maximum(strength - margin, 0.0))


def slot_alone(instance: Instance, t: int) -> Instance:
    """Return the instance of slot t and nothing else, its true channels replaced by estimates.

    Parameters
    ----------
    instance
        The instance.
    t
        The slot.
    """
    demand = instance.demand
    one = slice(t, t + 1)
    return replace(
        instance,
        demand=Demand(demand.preference[one], demand.persistence, demand.activity),
        requests=instance.requests[one],
        channel_estimate=instance.channel_estimate[one],
        channel_error=instance.channel_error[one],
        channel_true=instance.channel_estimate[one],
    )


def prepare_slots(
    instance: Instance,
    *,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    seed: int = 0,
    callback: Callback | None = None,
    rate_cache: str | None = None,
    deadline: Deadline = NEVER,
) -> tuple[Prepared, ...]:
    """Compute the rates of every slot, each from that slot alone.

    Parameters
    ----------
    instance, beamforming, restrict, seed, callback, rate_cache
        As in `finecast.solvers.prepared.prepare`.
    deadline
        When the rates must be there; every slot gets the same part of the time.

    Raises
    ------
    ValueError
        Unknown method or restriction.
    """
    slots = []
    for t in range(instance.slots):
        slots.append(
            prepare(
                slot_alone(instance, t),
                beamforming=beamforming,
                restrict=restrict,
                seed=seed,
                rate_cache=rate_cache,
                deadline=deadline.share(1.0 / (instance.slots - t)),
            )
        )
        if callback is not None:
            callback(Progress(f"rates of the slots ({beamforming})", t + 1, instance.slots))
    return tuple(slots)


def joined(instance: Instance, slots: Sequence[Prepared]) -> Prepared:
    """Return the rates of the slots as those of the whole instance.

    Parameters
    ----------
    instance
        The instance, of the restricted system.
    slots
        Rates of every slot alone.
    """
    return with_problems(
        Prepared(
            instance=instance,
            plans=tuple(slot.plans[0] for slot in slots),
            rates=tuple(slot.rates[0] for slot in slots),
            link=slots[0].link,
            robust=slots[0].robust,
            beamforming=slots[0].beamforming,
        )
    )


def solve_by_policy(
    policy: Policy,
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
    """Solve by an online policy, then deliver with the best beams known.

    Parameters
    ----------
    policy
        The online method. Its `notes`, if it has any afterwards, go to the answer.
    method
        Name to leave in the solution.
    instance
        The problem.
    deadline
        When to be done. Rates get half of the time, and are quickly found ones where that is
        too little; what is left is for the policy, which is not cut short, and the bound.
    seed, callback, beamforming, restrict, rate_cache
        As in `finecast.solvers.prepared.prepare`.

    Raises
    ------
    ValueError
        Unknown beamforming method or restriction.
    UnservableError
        A user group cannot be served at any rate.
    """
    began = time.monotonic()
    restrictions = check_restrictions(restrict)
    slots = prepare_slots(
        instance,
        beamforming=beamforming,
        restrict=restrictions,
        seed=seed,
        callback=callback,
        rate_cache=rate_cache,
        deadline=deadline.share(RATES_SHARE).of("rates"),
    )
    instance = restricted_instance(instance, restrictions)
    prepared = joined(instance, slots)
    if prepared.at_achieved is None:
        raise UnservableError(prepared)
    prior = prior_of(instance, restrictions)
    if getattr(policy, "knows", None) == "network":
        first = instance.channel_estimate[0].copy(), instance.channel_error[0].copy()
        prior = replace(prior, first_slot=first)
    observations = (observation_of(instance, prior, t, slot) for t, slot in enumerate(slots))
    try:
        placement = run_online(policy, prior, observations)
    except SearchInterrupt:
        return at_hand(prepared, method=method, began=began)
    return heuristic_answer(
        prepared,
        placement,
        method=method,
        began=began,
        deadline=deadline,
        notes=(*getattr(policy, "notes", ()), *out_of_time(prepared, deadline)),
    )
