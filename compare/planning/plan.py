"""The network planner's day: one plan for a scenario, what it buys, and how sure that is."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from finecast.compare.planning.figures import (
    Move,
    NetworkPlan,
    Option,
    SitePlan,
    Spread,
    spread,
)
from finecast.compare.planning.placing import (
    Judged,
    further_copies,
    judged,
    pooled,
    saved_seconds,
)
from finecast.compare.planning.words import sentences
from finecast.problem.arrays import BoolArray, FloatArray, IntArray
from finecast.problem.evaluation import Evaluation
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario, read_scenario
from finecast.solvers.bounds import price_bound
from finecast.solvers.deadline import Deadline
from finecast.solvers.node_set_tables import Table, members
from finecast.solvers.one_area import refuse_areas
from finecast.solvers.placement.greedy import greedy_sets, total_cost
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.prepared import Prepared, prepare
from finecast.solvers.restrictions import restricted_links
from finecast.solvers.result import Callback, Progress
from finecast.solvers.signals import SearchInterrupt
from finecast.solvers.solve import solve

TRAINING_DRAWS = 3
"""Draws that caches are chosen on."""

FIRST_TRAINING_PATH = 1_000_000
"""Paths from here on are for choosing, those below for judging."""

EXTRA_SHARE = 0.1
"""Share of its storage by which a site is enlarged to see what that is worth; at least the largest
block."""

SYSTEMS = ("no-comp", "coarse")
"""Restrictions under which messages have other rates."""

OPTIONS = {
    "whole-models": "today's practice: whole models, each site keeps those it sent last",
    "no-comp": "no joint sending: every site serves its own users, one site after the other",
    "no-migration": "no moves between sites: what is missing comes from the cloud",
    "whole-models-planned": "whole models, chosen with the same care as the plan",
    "half-storage": "half the storage at every site",
}
"""Other ways of running the network, by key, in plain words."""


def plan(
    scenario: Scenario | str | os.PathLike[str],
    *,
    draws: int = 5,
    seed: int = 0,
    time_limit: float | None = 45.0,
    callback: Callback | None = None,
) -> NetworkPlan:
    """Plan a network: what to store at each site, and what that buys.

    The caches are chosen on `TRAINING_DRAWS` draws of the demand and judged on `draws` others, of
    which number 0 is the scenario's own instance. Between draws the positions of users within their
    cells, the requests and the channels differ. Sites, links, library and tastes are those of the
    seed.

    Parameters
    ----------
    scenario
        The scenario, or its path or shipped name.
    draws
        Draws to judge by, >= 1.
    seed
        Of the network.
    time_limit
        Seconds for the rates of messages and the bounds, about; None for no limit. What must be
        there takes what it takes.
    callback
        Receives the progress.

    Returns
    -------
    The plan. Within `finecast.solvers.signals.ctrl_c_keeps_the_best`, Ctrl-C returns what there is
    once caches are chosen and one draw is judged.

    Raises
    ------
    ValueError
        The scenario is bad, has several areas, or a user cannot be reached by any site.
    """
    if draws < 1:
        raise ValueError(f"draws: {draws} is not allowed, must be >= 1")
    if time_limit is not None and not time_limit >= 0:
        raise ValueError(f"time_limit: {time_limit} is not allowed, must be >= 0 s")
    if not isinstance(scenario, Scenario):
        scenario = read_scenario(scenario)
    began = time.monotonic()
    work = _Work(scenario, draws, seed, time_limit, callback)
    # First the plan itself: rates of the training draws, caches, and one draw after the other.
    cached = work.choose("")
    own: list[Judged] = []
    done = _Done()
    try:
        for d in range(draws):
            own.append(work.judge(d, "", cached))
        done.bound = [work.bound(d) for d in range(draws)]
        work.compare(done, cached, own)
        done.extra = [work.extra(n, cached) for n in range(work.network.nodes)]
    except SearchInterrupt:
        if not own:
            raise
        done.interrupted = True
    found = _assembled(work, cached, own, done, time.monotonic() - began)
    return dataclasses.replace(found, sentences=tuple(sentences(found)))


@dataclass
class _Done:
    """What was computed besides the plan, before it ended or was ended."""

    bound: list[float] = dataclasses.field(default_factory=list)
    options: list[Option] = dataclasses.field(default_factory=list)
    extra: list[tuple[int, Spread]] = dataclasses.field(default_factory=list)
    interrupted: bool = False


class _Work:
    """The draws of a plan and their rates, each computed once."""

    def __init__(
        self,
        scenario: Scenario,
        draws: int,
        seed: int,
        time_limit: float | None,
        callback: Callback | None,
    ) -> None:
        first = _drawn(scenario, seed, None)
        refuse_areas(first, "a plan")
        self.network, self.library = first.network, first.library
        self.notes: list[str] = []
        if first.delivery == "spatial":
            self.notes.append("The plan sends one message at a time; the scenario allows several.")
        self.judging = [first] + [_drawn(scenario, seed, d) for d in range(1, draws)]
        self.training = [
            _drawn(scenario, seed, FIRST_TRAINING_PATH + i) for i in range(TRAINING_DRAWS)
        ]
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
        return _figures(found) if found is not None else (math.nan, math.nan)

    def compare(self, done: _Done, cached: IntArray, own: Sequence[Judged]) -> None:
        """Add the other ways of running the network, one after another."""
        base = [_figures(one.evaluation) for one in own]

        def add(key: str, figures: Callable[[int], tuple[float, float]]) -> None:
            found = [figures(d) for d in range(len(own))]
            done.options.append(
                Option(
                    key=key,
                    label=OPTIONS[key],
                    slot_delay=spread([delay for delay, _ in found]),
                    wait=spread([wait for _, wait in found]),
                    longer=spread(
                        [
                            f[0] / b[0] - 1.0 if b[0] else 0.0
                            for f, b in zip(found, base, strict=True)
                        ]
                    ),
                )
            )

        def other(restrict: str, share: float = 1.0) -> Callable[[int], tuple[float, float]]:
            sets = self.choose(restrict, share)
            return lambda d: _figures(self.judge(d, restrict, sets).evaluation)

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


def _drawn(scenario: Scenario, seed: int, number: int | None) -> Instance:
    """Return a draw of the demand on the network of a seed; None for the scenario's own."""
    instance = scenario.generate(seed, path=number, places=number)
    return dataclasses.replace(instance, delivery="sequential", schedule="sequential")


def _figures(evaluation: Evaluation) -> tuple[float, float]:
    """Return slot delay and mean wait, s."""
    return evaluation.mean_slot_delay, evaluation.mean_completion


def _assembled(
    work: _Work, cached: IntArray, own: list[Judged], done: _Done, wall_s: float
) -> NetworkPlan:
    """Return the plan of what was computed."""
    network, library = work.network, work.library
    cache: BoolArray = members(cached, network.nodes).T
    names = network.node_names or tuple(f"site {n}" for n in range(network.nodes))
    sites = []
    for n, name in enumerate(names):
        held = np.flatnonzero(cache[n])
        extra = done.extra[n] if n < len(done.extra) else (0, None)
        position = None
        if network.node_position is not None:
            position = (float(network.node_position[n, 0]), float(network.node_position[n, 1]))
        sites.append(
            SitePlan(
                name=name,
                position=position,
                storage_bytes=int(network.storage[n]),
                stored_bytes=int(library.block_size[held].sum()),
                blocks=tuple(held.tolist()),
                model_share=_model_share(library.model_blocks, library.block_size, cache[n]),
                extra_bytes=extra[0],
                saved_by_extra=extra[1],
            )
        )
    moves, moved, from_cloud = _moves(work, own, names)
    judged_by = [one.evaluation for one in own]
    instance = work.judging[0]
    in_time = [e.in_time_ratio for e in judged_by if not math.isnan(e.in_time_ratio)]
    due = set(instance.deadline[np.isfinite(instance.deadline)].tolist())
    bound = [b / instance.slots for b in done.bound]
    rate = network.backhaul_rate
    return NetworkPlan(
        name=instance.name,
        draws=len(own),
        training=TRAINING_DRAWS,
        seed=instance.seed or 0,
        slots=instance.slots,
        users=instance.users,
        sites=tuple(sites),
        models=library.model_names,
        model_bytes=tuple(library.model_size.tolist()),
        block_names=library.block_names,
        block_bytes=tuple(library.block_size.tolist()),
        cache=cache,
        moves=moves,
        moved_per_slot=moved,
        from_cloud_per_slot=from_cloud,
        slot_delay=spread([e.mean_slot_delay for e in judged_by]),
        wait=spread([e.mean_completion for e in judged_by]),
        wait_p95=spread([e.p95_completion for e in judged_by]),
        in_time=spread(in_time) if in_time else None,
        lower_bound=spread(bound) if bound else None,
        options=tuple(done.options),
        deadline_s=due.pop() if len(due) == 1 else None,
        notes=tuple(work.notes),
        interrupted=done.interrupted,
        links=tuple(
            (n, m, float(max(rate[n, m], rate[m, n])))
            for n in range(network.nodes)
            for m in range(n + 1, network.nodes)
            if max(rate[n, m], rate[m, n]) > 0
        ),
        wall_s=wall_s,
    )


def _model_share(model_blocks: BoolArray, size: IntArray, held: BoolArray) -> FloatArray:
    """Return (M,) the share of each model's bytes among the blocks held (J,)."""
    return np.asarray((model_blocks & held) @ size / (model_blocks @ size))


def _moves(
    work: _Work, own: list[Judged], names: tuple[str, ...]
) -> tuple[tuple[Move, ...], float, float]:
    """Return moves, bytes between sites and bytes from the cloud, mean per slot."""
    nodes, size = work.network.nodes, work.library.block_size
    flow = np.zeros((nodes + 1, nodes))
    for one in own:
        source = np.stack([np.asarray(s) for s in one.solution.source])
        _, receiver, block = np.nonzero(source >= 0)
        np.add.at(flow, (source[source >= 0], receiver), size[block])
    flow /= len(own) * work.judging[0].slots
    order = np.argsort(-flow, axis=None, kind="stable")
    of = [*names, "the cloud"]
    moves = tuple(
        Move(of[n], names[m], float(flow[n, m]))
        for n, m in zip(*np.unravel_index(order, flow.shape), strict=True)
        if flow[n, m] > 0
    )
    return moves, float(flow[:-1].sum()), float(flow[-1].sum())
