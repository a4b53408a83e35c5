"""The plan of an instance with areas: caches and ways, then beams, in turns.

    caches and ways   best responses area by area at the storage prices of the bound (`sweeps`), and
                      the better way for every block (`state`), at the rates known so far;
    beams             all local messages of a slot together (`joint_beams`), each wide one alone;
    rates             what these beams reach; for other messages what their own beams would under
                      this interference, times what joint beams reach of that in the same area.

The delay on which a round is judged is that of the beams.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray
from finecast.solvers.areas.air import Rates, local_seconds, subsets_serve
from finecast.solvers.areas.on_air import (
    Memory,
    Plan,
    SlotBeams,
    beams_of,
    plan_delay,
    polished,
    with_wide_beams,
)
from finecast.solvers.areas.state import Air, City, State, best_state, wide_seconds
from finecast.solvers.areas.sweeps import sweep_area
from finecast.solvers.deadline import NEVER, Deadline
from finecast.solvers.signals import SearchInterrupt
from finecast.solvers.workers import ALONE, Workers

ROUNDS = 6
"""Most rounds of caches and beams."""

SWEEPS = 2
"""Sweeps over all areas in a round; the first round has one more."""

RUINS = 60
"""Most ruins of a round, where blocks and areas are few."""

RECREATE_PRICES = (0.5, 0.0)
"""Shares of the storage prices at which blocks come back."""

RUIN_SIZE = 4000
"""Fewer where there are many: so many over blocks and areas."""

WIDE_SHARE = 0.88
"""Of the rate of the weakest user alone, what wide messages are thought to reach where no beam of
the class was searched for. One start of the search reached about 0.93 of it at 19 nodes and 0.85 at
61, where each goes to more users."""

SEARCH_SHARE = 0.35
"""Share of the time for the rounds; the rest is for wide beams and the last steps of all."""

WIDE_TIME = 0.8
"""Share of what is then left for wide beams."""

WORTH_A_ROUND = 1e-3
"""The rounds end when two of them gained no more than this share."""


def search_plan(
    city: City,
    rates: Rates,
    prices: tuple[FloatArray, ...],
    wide: BoolArray | None,
    *,
    seed: int = 0,
    deadline: Deadline = NEVER,
    goal: float = 0.0,
    cache: BoolArray | None = None,
    solve: Callable[[State, Rates], Rates] | None = None,
    report: Callable[[Plan], None] = lambda plan: None,
    sweeps: bool = True,
    keep_ways: bool = False,
    workers: Workers = ALONE,
    kept: BoolArray | None = None,
    rounds: int = ROUNDS,
    wide_share: FloatArray | None = None,
    after: Plan | None = None,
) -> Plan:
    """Return the best plan found, its wide messages at the rates that they are thought to reach.

    `finish_plan` gives them beams.

    Parameters
    ----------
    city, rates
        The problem, and the rates of every area alone.
    prices
        Per area (T, N_a) storage prices, s/byte.
    wide
        (T, J) which blocks go wide at first; None for the better way with nothing cached.
    seed
        Of the order of blocks, and of random starts.
    deadline
        When to stop. The first plan takes what it takes.
    goal
        Delay, s, at which to stop.
    cache
        (T, N, J) caches to start from; None for none.
    solve
        Returns the rates with beams of their own for the messages of the first plan; None for none.
    report
        Called with every better plan, whose wide messages have no beams yet.
    sweeps
        Whether caches change.
    keep_ways
        Blocks go the ways given at first, to the end.
    workers
        Who makes the beams.
    kept
        (N, J) what is held after the last slot, for caches that do not change; None for nothing
        new.
    rounds
        Most rounds.
    wide_share
        (T, C) of the rate that the weakest user of a class could have alone, what wide messages
        reach; not a number where not known.
    after
        A finished plan: the rates known at first are those that its beams reach, and its messages
        begin with its beams. None for rates without interference.
    """
    instance = city.instance
    slots = instance.slots
    rng = np.random.default_rng(seed)
    air = quiet_air(city, rates, wide_share)
    memory: Memory = [{} for _ in range(slots)]
    if after is not None:
        air = air_after(city, rates, after, air)
        for known, slot in zip(memory, after.beams, strict=True):
            known.update(zip(slot.local.keys, slot.local_beam, strict=True))
    shape = (slots, instance.nodes, instance.blocks)
    start = np.zeros(shape, dtype=bool) if cache is None else cache
    state = best_state(city, air, start, wide, kept)
    best: Plan | None = None
    stale = 0
    try:
        for round_ in range(rounds):
            # Caches and ways at the rates known so far; the first sweep keeps to the given ways.
            first = round_ == 0
            for sweep in range(SWEEPS + first if sweeps else 0):
                if deadline.over():
                    break
                state = _swept(city, air, state, prices, rng, deadline)
                as_given = keep_ways or (first and sweep == 0)
                state = best_state(city, air, state.cache, state.wide if as_given else None)
            if sweeps and not keep_ways:
                state = _ruined(city, air, state, prices, rng, deadline)
            if solve is not None and first:
                rates = solve(state, rates)

            # Their beams, and what these are worth.
            beams = beams_of(city, state, rates, memory, air, deadline=deadline, workers=workers)
            plan = Plan(state, beams, plan_delay(city, state, beams))
            before = np.inf if best is None else best.delay
            if best is None or plan.delay < best.delay:
                best = plan
                report(best)
            stale = 0 if best.delay < before * (1.0 - WORTH_A_ROUND) else stale + 1
            if stale >= 2 or deadline.over() or best.delay <= goal:
                break
            air = learned(city, rates, beams, air)
            state = best_state(city, air, state.cache, wide if keep_ways else None, kept)
    except SearchInterrupt:
        if best is None:
            raise
        best = replace(best, interrupted=True)
    assert best is not None
    return best


def finish_plan(
    city: City,
    plan: Plan,
    *,
    seed: int = 0,
    deadline: Deadline = NEVER,
    goal: float = 0.0,
    workers: Workers = ALONE,
    after: Plan | None = None,
) -> Plan:
    """Return the plan with beams for its wide messages, and more steps for all beams.

    Parameters
    ----------
    city, plan
        The problem, and what `search_plan` found.
    seed, goal, workers
        As there.
    deadline
        When to stop. Wide messages without a search by then go by beams in closed form.
    after
        A finished plan, whose wide messages have beams already.
    """
    ended = plan.interrupted
    try:
        plan = with_wide_beams(
            city, plan, after=after, seed=seed, deadline=deadline.share(WIDE_TIME), workers=workers
        )
        if not (deadline.over() or ended or plan.delay <= goal):
            better = polished(city, plan, deadline, workers)
            if better.delay < plan.delay:
                plan = better
    except SearchInterrupt:
        ended = True
        if not all(slot.wide_beam.any() for slot in plan.beams if len(slot.wide.users)):
            plan = with_wide_beams(city, plan, seed=seed, deadline=Deadline.after(0.0))
    return replace(plan, interrupted=ended)


def _swept(
    city: City,
    air: Air,
    state: State,
    prices: tuple[FloatArray, ...],
    rng: np.random.Generator,
    deadline: Deadline,
) -> State:
    """Return the plan with the caches of all areas swept, one area after another."""
    cache = state.cache.copy()
    for a, area in enumerate(city.areas):
        if deadline.over():
            break
        now = replace(state, cache=cache)
        cache[:, area.nodes] = sweep_area(city, air, now, a, prices[a], rng, deadline)
    return replace(state, cache=cache)


def _ruined(
    city: City,
    air: Air,
    state: State,
    prices: tuple[FloatArray, ...],
    rng: np.random.Generator,
    deadline: Deadline,
) -> State:
    """Return a plan that is no worse, by taking half of the blocks out of two areas at a time.

    A best response takes every copy that pays, and leaves no room for another: with few large
    blocks sweeps alone do not get out of that.
    """
    blocks = city.instance.blocks
    delay = state.delay(city)
    for _ in range(min(RUINS, RUIN_SIZE // (blocks * len(city.areas)))):
        if deadline.over():
            break
        # Two areas, which may swap what they cache.
        chosen = rng.permutation(len(city.areas))[:2]
        cache = state.cache.copy()
        for a in chosen:
            cache[:, city.areas[a].nodes] &= rng.random(blocks) < 0.5
        for a in chosen:
            cache[:, city.areas[a].nodes] = sweep_area(
                city, air, replace(state, cache=cache), int(a), prices[a], rng, deadline,
                shares=RECREATE_PRICES,
            )  # fmt: skip
        changed = best_state(city, air, cache)
        if changed.delay(city) < delay:
            state, delay = changed, changed.delay(city)
    return state


def learned(city: City, rates: Rates, beams: tuple[SlotBeams, ...], air: Air) -> Air:
    """Return the rates that beams teach.

    Parameters
    ----------
    city, rates
        The problem, and the rates of every area alone.
    beams
        Of the last plan.
    air
        The rates before.
    """
    tables = [list(of_area) for of_area in _all_seconds(
        city, rates, np.stack([slot.interference for slot in beams])
    )]  # fmt: skip
    for t, slot in enumerate(beams):
        with np.errstate(divide="ignore"):
            seconds = 8.0 / slot.local_rate
        for a in np.unique(slot.local.index):
            x = np.flatnonzero(slot.local.index == a)
            group, sender, weight = (
                array[x]
                for array in (slot.local.group, slot.local.sender, slot.local.messages.weight)
            )
            table = tables[a][t]
            alone = float(weight @ table[group, sender])
            together = float(weight @ seconds[x])
            if np.isfinite(together) and np.isfinite(alone):
                table = table * max(together / alone, 1.0)
            table[group, sender] = seconds[x]
            tables[a][t] = subsets_serve(table)
    return replace(air, local=tuple(tuple(of_area) for of_area in tables))


def quiet_air(city: City, rates: Rates, wide_share: FloatArray | None = None) -> Air:
    """Return the rates that are known before any plan: without interference.

    Parameters
    ----------
    city, rates
        The problem, and the rates of every area alone.
    wide_share
        As in `search_plan`.
    """
    share = np.full(city.whole.users.shape[:2], WIDE_SHARE)
    if wide_share is not None:
        share = np.where(np.isfinite(wide_share), wide_share, WIDE_SHARE)
    quiet = np.zeros((city.instance.slots, city.instance.users))
    return Air(_all_seconds(city, rates, quiet), share)


def air_after(city: City, rates: Rates, plan: Plan, air: Air) -> Air:
    """Return the rates that a finished plan teaches, local and wide.

    Parameters
    ----------
    city, rates
        The problem, and the rates of every area alone.
    plan
        A plan with beams of its wide messages.
    air
        The rates before, which stay for classes that do not go wide in the plan.
    """
    share = air.wide_share.copy()
    for t, slot in enumerate(plan.beams):
        amplitude = slot.wide.sends @ city.whole.reach[t].T
        least = np.where(slot.wide.users, amplitude, np.inf).min(axis=1)
        share[t, slot.wide.kind] = slot.wide_rate * wide_seconds(city.instance, 1.0, least) / 8.0
    return learned(city, rates, plan.beams, replace(air, wide_share=share))


def _all_seconds(
    city: City, rates: Rates, interference: FloatArray
) -> tuple[tuple[FloatArray, ...], ...]:
    """Return per area and slot the tables of `local_seconds`, at interference (T, K)."""
    return tuple(
        tuple(
            local_seconds(city, t, a, of_slot, interference[t])
            for t, of_slot in enumerate(rates[a])
        )
        for a in range(len(city.areas))
    )
