"""A plan of one area: its draws with their rates, caches, and what other ways would do."""

from __future__ import annotations

import dataclasses
import math
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
from finecast.compare.planning.figures import Spread, spread
from finecast.compare.planning.placing import (
    Judged,
    further_copies,
    judged,
    pooled,
    saved_seconds,
)
from finecast.problem.arrays import BoolArray, IntArray
from finecast.problem.scenario import Scenario
from finecast.solvers.bounds import price_bound
from finecast.solvers.deadline import Deadline
from finecast.solvers.node_set_tables import Table, members
from finecast.solvers.placement.greedy import greedy_sets, total_cost
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.prepared import Prepared, prepare
from finecast.solvers.restrictions import restricted_links
from finecast.solvers.result import Callback, Progress
from finecast.solvers.solve import solve

SYSTEMS = ("no-comp", "coarse")
"""Restrictions under which messages have other rates."""


class OneAreaWork:
    """The draws of a plan and their rates, each computed once."""

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
        self.network, self.library = self.judging[0].network, self.judging[0].library
        self.notes: list[str] = []
        # Rates of three systems for all draws, then bounds and today's practice, which counts
        # twice: half of its time is for a bound of its own.
        self.steps = (1 + len(SYSTEMS)) * (TRAINING_DRAWS + draws) + 3 * draws
        self.seconds = None if time_limit is None else time_limit / self.steps
        self.step, self.callback = 0, callback
        self.known: dict[tuple[str, int], Prepared] = {}
        self.total: dict[str, Table] = {}

    def tell(self, note: str) -> None:
        """Tell the progress."""
        if self.callback is not None:
            self.callback(Progress("planning", self.step, self.steps, note))

    def rates(self, restrict: str, draw: int) -> Prepared:
        """Return a draw with its rates; negative numbers are those of the training draws."""
        system = restrict if restrict in SYSTEMS else ""
        if (system, draw) not in self.known:
            self.tell(f"rates of messages, draw {draw}" if draw >= 0 else "draws to choose by")
            instance = self.judging[draw] if draw >= 0 else self.training[-1 - draw]
            until = Deadline.after(self.seconds)
            self.known[system, draw] = prepare(instance, restrict=system, deadline=until)
            self.step += 1
        return self.known[system, draw]

    def problem(self, restrict: str, draw: int) -> PlacementProblem:
        """Return the placement problem of a draw under a restriction."""
        found = self.rates(restrict, draw).achieved
        link = restricted_links(found.link, frozenset({restrict} - {""}))
        return dataclasses.replace(found, link=link, schedule="sequential")

    def choose(self, restrict: str, share: float = 1.0) -> IntArray:
        """Return (J,) the cached sets for the training draws, with a share of the storage."""
        if restrict not in self.total:
            problems = [self.problem(restrict, -1 - i) for i in range(TRAINING_DRAWS)]
            self.total[restrict] = total_cost(pooled(problems))
        storage = np.floor(share * self.network.storage).astype(np.int64)
        size = self.problem(restrict, -1).block_size  # of whole models, for whole models
        return greedy_sets(self.total[restrict], size, storage)

    def begin(self) -> None:
        """Choose what is stored."""
        self.cached = self.choose("")

    def play(self, own: list[Judged]) -> None:
        """Add how the plan does in one draw after another."""
        for d in range(len(self.judging)):
            own.append(self.judge(d, "", self.cached))

    def others(self, done: Done, own: Sequence[Judged]) -> None:
        """Add bounds, other ways, and what more storage saves, one after another."""
        done.bound = [self.bound(d) for d in range(len(own))]
        self.compare(done, own)
        done.extra = [self.extra(n, self.cached) for n in range(self.network.nodes)]

    def judge(self, draw: int, restrict: str, cached: IntArray) -> Judged:
        """Return how caches do in a draw."""
        return judged(self.rates(restrict, draw), self.problem(restrict, draw), cached)

    def bound(self, draw: int) -> float:
        """Return the certified lower bound of a draw, s."""
        self.tell(f"bound, draw {draw}")
        found = price_bound(self.rates("", draw), Deadline.after(self.seconds))
        self.step += 1
        return found

    def today(self, draw: int) -> tuple[float, float]:
        """Return slot delay and mean wait of today's practice in a draw, s."""
        self.tell(f"today's practice, draw {draw}")
        found = solve(
            self.judging[draw],
            "lru",
            restrict="coarse",
            counts="served",
            time_limit=None if self.seconds is None else 2 * self.seconds,
        ).evaluation
        self.step += 2
        return figures(found) if found is not None else (math.nan, math.nan)

    def compare(self, done: Done, own: Sequence[Judged]) -> None:
        """Add the other ways of running the network, one after another."""
        base = [figures(one.evaluation) for one in own]

        def add(key: str, found_in: Callable[[int], tuple[float, float]]) -> None:
            found = [found_in(d) for d in range(len(own))]
            done.options.append(option(key, OPTIONS[key], found, base))

        def other(restrict: str, share: float = 1.0) -> Callable[[int], tuple[float, float]]:
            sets = self.choose(restrict, share)
            return lambda d: figures(self.judge(d, restrict, sets).evaluation)

        add("whole-models", self.today)
        add("whole-models-planned", other("coarse"))
        add("half-storage", other("", 0.5))
        if self.network.nodes > 1:
            add("no-migration", other("no-migration"))
            add("no-comp", other("no-comp"))

    def extra(self, node: int, cached: IntArray) -> tuple[int, Spread]:
        """Return further bytes at a node, and the seconds by which they make a round shorter."""
        size, storage = self.library.block_size, int(self.network.storage[node])
        more = max(round(EXTRA_SHARE * storage), int(size.max()))
        held = members(cached, self.network.nodes)[:, node]
        free = storage - int(size[held].sum())
        block = further_copies(self.total[""], size, cached, self.network.nodes, node, free + more)
        saved = [
            saved_seconds(self.problem("", d), cached, node, block) / instance.slots
            for d, instance in enumerate(self.judging)
        ]
        return more, spread(saved)

    def cache(self) -> BoolArray:
        """Return (N, J) what every node stores."""
        return members(self.cached, self.network.nodes).T
