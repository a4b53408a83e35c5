"""A plan of several areas: every area's caches, all areas on the air at once, and other ways.

Caches are chosen area by area, on the rates of the area's users alone on the air and the sources
within it, each slot at the area's share of the users. In a draw the messages are then planned for
the whole city: every block by the better way, wide or within areas, with joint beams.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence

import numpy as np

from finecast.compare.planning.draws import (
    EXTRA_SHARE,
    OPTIONS,
    TRAINING_DRAWS,
    Done,
    figures,
    judging_draws,
    option,
    training_draws,
)
from finecast.compare.planning.figures import AreaPlan, Spread, spread
from finecast.compare.planning.placing import Judged, further_copies, weighted_total
from finecast.problem.areas import WIDE
from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario
from finecast.solvers.areas.deliver import deliver
from finecast.solvers.areas.on_air import Plan
from finecast.solvers.areas.plan import (
    SEARCH_SHARE,
    air_after,
    finish_plan,
    quiet_air,
    search_plan,
)
from finecast.solvers.areas.rates import PlanSolver, Ready, check_served, prepare_areas
from finecast.solvers.areas.state import Air, City, best_state
from finecast.solvers.deadline import Deadline
from finecast.solvers.node_set_tables import Table, bits, members
from finecast.solvers.placement.greedy import greedy_sets
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.restrictions import restricted_links
from finecast.solvers.result import Callback, Progress
from finecast.solvers.signals import SearchInterrupt
from finecast.solvers.solve import solve

ROUNDS = 2
"""Rounds of beams in a draw: the second knows the interference of the first."""

PLAY_SHARE, SECOND_SHARE = 0.35, 0.6
"""Shares of the time after which no further draw is judged, and no second one; the rest is for
other ways."""

FIRST_SHARE = 0.5
"""Share of what is left for the messages of the first draw; others get about what that took."""

READY_SHARE = 0.04
"""Share of the time for the rates of a draw and its bound."""

ALONE = "no joint sending: every site serves its own users, all sites at once"
"""What `no-comp` is for a city: every site an area of its own, and nothing goes wide."""


class CityWork:
    """The draws of a plan of several areas and their rates, each computed once.

    Parameters
    ----------
    scenario, draws, seed, time_limit, callback
        As in `finecast.compare.planning.plan.plan`.
    """

    def __init__(
        self,
        scenario: Scenario,
        draws: int,
        seed: int,
        time_limit: float | None,
        callback: Callback | None,
    ) -> None:
        self.judging = judging_draws(scenario, seed, draws)
        self.training = training_draws(scenario, seed)
        first = self.judging[0]
        check_served(first, frozenset(), "multicast", None)
        self.network, self.library, self.areas = first.network, first.library, first.areas
        self.notes: list[str] = []
        # Rates of three systems for all draws; then draws of six ways, each for two.
        self.steps = 3 * (TRAINING_DRAWS + draws) + 2 * (1 + len(OPTIONS)) * draws
        self.time_limit, self.deadline = time_limit, Deadline.after(time_limit)
        self.step, self.callback = 0, callback
        self.known: dict[tuple[str, int], Ready] = {}
        self.total: dict[str, dict[int, Table]] = {}
        self.plans: list[tuple[City, Ready, Plan]] = []
        self.draw_s = self.messages_s = 0.0

    def tell(self, note: str, steps: int = 0) -> None:
        """Tell the progress, after some steps."""
        self.step += steps
        if self.callback is not None:
            self.callback(Progress("planning", min(self.step, self.steps), self.steps, note))

    def seconds(self, share: float) -> float | None:
        """Return a share of the time limit; None without one."""
        return None if self.time_limit is None else share * self.time_limit

    def ready(self, key: str, draw: int) -> Ready:
        """Return a draw with its rates; negative numbers are those of the training draws."""
        system = key if key in ("coarse", "no-comp") else ""
        if (system, draw) not in self.known:
            self.tell(f"rates of areas, draw {draw}" if draw >= 0 else "draws to choose by")
            instance = self.judging[draw] if draw >= 0 else self.training[-1 - draw]
            if not (instance.requests >= 0).any():
                raise ValueError("demand: in a draw nobody requests anything, a plan needs users")
            if system == "no-comp":
                instance = dataclasses.replace(instance, areas=np.arange(instance.nodes))
            self.known[system, draw] = prepare_areas(
                instance,
                restrict=frozenset({"coarse"} if system == "coarse" else ()),
                deadline=Deadline.after(self.seconds(READY_SHARE)),
            )
            self.step += 1
        return self.known[system, draw]

    def totals(self, key: str) -> dict[int, Table]:
        """Return what every area's blocks cost under each cached set, over the training draws."""
        if key not in self.total:
            problems: dict[int, list[tuple[PlacementProblem, FloatArray]]] = {}
            for draw in range(-1, -1 - TRAINING_DRAWS, -1):
                ready = self.ready(key, draw)
                for area, prepared in zip(ready.city.areas, ready.prepared, strict=True):
                    problem = prepared.achieved
                    link = restricted_links(problem.link, frozenset({key} & {"no-migration"}))
                    problem = dataclasses.replace(problem, link=link)
                    problems.setdefault(area.number, []).append((problem, area.weight))
            self.total[key] = {a: weighted_total(of_area) for a, of_area in problems.items()}
        return self.total[key]

    def choose(self, key: str, share: float = 1.0) -> BoolArray:
        """Return (N, J) what is stored, with a share of the storage; whole models by model."""
        instance = self.ready(key, -1).city.instance
        cached = np.zeros((instance.nodes, instance.blocks), dtype=bool)
        storage = np.floor(share * self.network.storage).astype(np.int64)
        for a, total in self.totals(key).items():
            nodes = np.flatnonzero(instance.areas == a)
            sets = greedy_sets(total, instance.library.block_size, storage[nodes])
            cached[nodes] = members(sets, len(nodes)).T
        return cached

    def judge(self, draw: int, key: str, cached: BoolArray) -> tuple[Judged, Plan, Ready]:
        """Return how caches that stay do in a draw, with its plan and rates.

        Raises
        ------
        SearchInterrupt
            Ctrl-C.
        """
        ready = self.ready(key, draw)
        city = ready.city
        if key == "no-migration":
            city = dataclasses.replace(city, link=restricted_links(city.link, frozenset({key})))
        slots, blocks = city.instance.slots, city.instance.blocks
        # The first draw shows what its messages take; the same effort goes into all others.
        limit = self.deadline.share(FIRST_SHARE)
        if self.messages_s and self.time_limit is not None:
            limit = Deadline.after(self.messages_s)
        began = time.monotonic()
        solver = PlanSolver(ready, seed=0, deadline=limit.share(SEARCH_SHARE))
        alone = key == "no-comp"
        found = search_plan(
            city,
            ready.rates,
            (),
            np.zeros((slots, blocks), dtype=bool) if alone else None,
            deadline=limit.share(SEARCH_SHARE),
            cache=np.repeat(cached[None], slots, axis=0),
            solve=solver,
            sweeps=False,
            keep_ways=alone,
            rounds=ROUNDS,
            wide_share=ready.wide.share,
        )
        found = finish_plan(city, found, deadline=limit)
        if found.interrupted:
            raise SearchInterrupt
        self.messages_s = self.messages_s or 1.2 * (time.monotonic() - began)
        solution = deliver(city, found, "plan")
        return Judged(solution, evaluate(city.instance, solution)), found, solver.ready

    def begin(self) -> None:
        """Choose what is stored."""
        self.cached = self.choose("")

    def play(self, own: list[Judged]) -> None:
        """Add how the plan does in one draw after another, as long as there is time."""
        for d in range(len(self.judging)):
            spent = SECOND_SHARE if len(own) == 1 else PLAY_SHARE
            rest = self.seconds(1 - spent)
            if own and rest is not None and self.deadline.left() <= rest:
                self.notes.append(
                    f"There was time for {len(own)} of {len(self.judging)} draws; a longer limit "
                    "of time brings more."
                )
                return
            began = time.monotonic()
            self.tell(f"the plan, draw {d}")
            found, plan, ready = self.judge(d, "", self.cached)
            self.draw_s = time.monotonic() - began
            self.plans.append((ready.city, ready, plan))
            own.append(found)
            self.step += 2

    def others(self, done: Done, own: Sequence[Judged]) -> None:
        """Add areas, bounds, what more storage saves, and other ways as far as there is time."""
        done.areas = self.area_plans(own)
        done.bound = [ready.point.bound for _, ready, _ in self.plans]
        done.extra = self.extra(self.cached)
        base = [figures(one.evaluation) for one in own]

        def other(key: str, share: float = 1.0) -> Callable[[int], tuple[float, float]]:
            stored = self.choose(key, share)
            return lambda d: figures(self.judge(d, key, stored)[0].evaluation)

        ways: dict[str, Callable[[], Callable[[int], tuple[float, float]]]] = {
            "whole-models-planned": lambda: other("coarse"),
            "half-storage": lambda: other("", 0.5),
            "no-migration": lambda: other("no-migration"),
            "no-comp": lambda: other("no-comp"),
            "whole-models": lambda: self.today,
        }
        late = []
        for key, way in ways.items():
            label = ALONE if key == "no-comp" else OPTIONS[key]
            if self.deadline.left() <= len(own) * self.draw_s:
                late.append(label.partition(":")[0])
                continue
            self.tell(f"other ways: {label.partition(':')[0]}")
            found_in = way()
            found = []
            for d in range(len(own)):
                found.append(found_in(d))
                self.tell(f"other ways: {label.partition(':')[0]}", steps=2)
            done.options.append(option(key, label, found, base))
        if late:
            self.notes.append(f"There was no time to compare with: {', '.join(late)}.")

    def today(self, draw: int) -> tuple[float, float]:
        """Return slot delay and mean wait of today's practice in a draw, s."""
        found = solve(
            self.judging[draw],
            "lru",
            restrict="coarse",
            counts="served",
            time_limit=None if self.time_limit is None else 2 * self.draw_s,
        ).evaluation
        return figures(found) if found is not None else (math.nan, math.nan)

    def extra(self, cached: BoolArray) -> list[tuple[int, Spread]]:
        """Return per node further bytes, and the seconds by which they make a round shorter.

        On the rates that the beams of the plan reach, with the best ways of the blocks anew. As
        many draws count as there is time for; with none the list is empty.
        """
        nodes, size = len(cached), self.library.block_size
        more = np.maximum(
            np.round(EXTRA_SHARE * self.network.storage).astype(np.int64), int(size.max())
        )
        blocks = [self._further(n, cached, int(more[n])) for n in range(nodes)]
        saved: list[FloatArray] = []
        for d, (city, ready, plan) in enumerate(self.plans):
            if self.deadline.over():
                break
            self.tell(f"more storage, draw {d}")
            air = air_after(city, ready.rates, plan, quiet_air(city, ready.rates, ready.wide.share))
            of_draw = np.zeros(nodes)
            for n, block in enumerate(blocks):
                if len(block) and self.deadline.over():
                    of_draw = np.zeros(0)
                    break
                of_draw[n] = _saved(city, air, cached, n, block) / city.instance.slots
            if not len(of_draw):
                break
            saved.append(of_draw)
        if not saved:
            return []
        return [(int(more[n]), spread([one[n] for one in saved])) for n in range(nodes)]

    def _further(self, node: int, cached: BoolArray, more: int) -> IntArray:
        """Return the blocks that a node would store in further room."""
        size, a = self.library.block_size, int(self.areas[node])
        if a not in self.totals(""):
            return np.zeros(0, dtype=np.int64)
        nodes = np.flatnonzero(self.areas == a)
        sets = bits(len(nodes)) @ cached[nodes]
        free = int(self.network.storage[node] - size[cached[node]].sum())
        index = int(np.searchsorted(nodes, node))
        return further_copies(
            self.totals("")[a], size, np.asarray(sets), len(nodes), index, free + more
        )

    def area_plans(self, own: Sequence[Judged]) -> tuple[AreaPlan, ...]:
        """Return what every area does in the draws judged."""
        size = self.library.block_size
        plans = []
        for a in range(int(self.areas.max()) + 1):
            asking, waits, sent = [], [], []
            for instance, one in zip(self.judging, own, strict=False):
                mine = (instance.user_area == a).sum(axis=1)
                asking.append(float(mine.mean()))
                if mine.any():
                    waits.append(float(np.nanmean(one.evaluation.area_delay[:, a])))
                sent.append(_sent(instance, one, size, a))
            plans.append(
                AreaPlan(
                    name=f"area {a}",
                    sites=tuple(np.flatnonzero(self.areas == a).tolist()),
                    asking=float(np.mean(asking)),
                    wait=spread(waits) if waits else None,
                    sent_bytes=float(np.mean(sent)),
                )
            )
        return tuple(plans)

    def wide_bytes(self, own: Sequence[Judged]) -> float:
        """Return the bytes that go to several areas at once, mean per slot."""
        size = self.library.block_size
        pairs = zip(self.judging, own, strict=False)
        return float(np.mean([_sent(instance, one, size, WIDE) for instance, one in pairs]))

    def cache(self) -> BoolArray:
        """Return (N, J) what every node stores."""
        return self.cached


def _sent(instance: Instance, one: Judged, size: IntArray, area: int) -> float:
    """Return the bytes of the messages of an area, or of the wide ones, mean per slot."""
    total = sum(
        float(broadcast.message_size(size)[broadcast.area == area].sum())
        for broadcast in one.solution.broadcasts
    )
    return total / instance.slots


def _saved(city: City, air: Air, cached: BoolArray, node: int, block: IntArray) -> float:
    """Return the seconds by which the slots of a draw are shorter with further copies at a node."""
    if not len(block):
        return 0.0
    before = np.repeat(cached[None], city.instance.slots, axis=0)
    after = before.copy()
    after[:, node, block] = True
    return max(
        best_state(city, air, before).delay(city) - best_state(city, air, after).delay(city), 0.0
    )
