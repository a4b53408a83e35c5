"""A bound on the mean delay of every online method: penalised information relaxation.

On one path, with penalties pi_t(X) of mean zero for every X chosen before slot t
(`finecast.solvers.penalties`), the best placement that sees the whole path and pays the penalties
of what it caches takes at least

    B(path) = max over prices of the Lagrangian of [delay - sum_t sum_j s_j pi_t(X_t^j)]     seconds

at certified upper bounds of the rates. In the mean over paths B is at most the delay of every
method that does not see the future (Brown, Smith and Sun, Operations Research 58 (2010) 785-801;
docs/online.md has the proof). Without penalties B is the hindsight bound; the difference of the two
means is the value of information. On every path, whatever the method,

    controlled gap = delay - its own penalties - B(path) >= 0,

and in the mean this is the distance of an online method to the bound.

The hindsight bound of a path swings with the luck of its requests, B(path) far less. So its mean is
taken of

    hindsight bound - penalties of caches in which every node holds everything

whose mean is the same: these caches are fixed beforehand, and a mean of zero does not ask whether
they fit the storage. The luck of a path is in both terms.

With a further penalty in slot 0 for knowing where users are (`finecast.solvers.position_penalty`)
a second bound holds for the methods that do not know this before slot 0.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from finecast.problem.arrays import BoolArray, FloatArray
from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance
from finecast.problem.scenario import Scenario
from finecast.problem.solution import Solution
from finecast.solvers.bounds import everywhere_bound
from finecast.solvers.deadline import Deadline
from finecast.solvers.node_set_tables import node_sets
from finecast.solvers.online_figures import ControlledGap, Ending, Kappa, OnlineBound, PathFigures
from finecast.solvers.penalised import hindsight_bound, penalised_bound, trained_kappa
from finecast.solvers.penalties import (
    FIRST_TRAINING_PATH,
    kinds_of,
    penalties_of,
    trained_programme,
)
from finecast.solvers.placement.demand_programme import DemandProgramme
from finecast.solvers.placement.units import UNITS
from finecast.solvers.position_penalty import position_penalty
from finecast.solvers.prepared import UnservableError, prepare
from finecast.solvers.registry import method_of
from finecast.solvers.result import Callback, Progress, Termination
from finecast.solvers.signals import SearchInterrupt
from finecast.solvers.solve import solve

PATHS_AT_ONCE = 8
"""Paths of a network whose penalties are held in memory; then comes the next network."""


@dataclass(frozen=True, eq=False)
class PathBound:
    """The bounds of one path, and what they charge for caches.

    Attributes
    ----------
    instance
        The path.
    network, path
        Seed and path number.
    penalty
        (T, C, 2^N) pi_t(X) of every kind of blocks, seconds per byte, kappa included.
    online, hindsight
        B(path) with these penalties and with none, s.
    kappa
        What the penalties were multiplied by.
    places
        What not knowing positions before slot 0 adds; None where it was not asked for.
    """

    instance: Instance
    network: int
    path: int
    penalty: FloatArray
    online: float
    hindsight: float
    kappa: float = 1.0
    places: Places | None = None

    @property
    def luck(self) -> float:
        """Penalties (s) of caches in which every node holds everything: of mean zero."""
        return float((self.penalty[:, :, -1] @ _size(self.instance)).sum())

    @property
    def unknown(self) -> float | None:
        """B(path) of the methods that do not know positions before slot 0, s."""
        return self.places.bound if self.places else None

    @property
    def luck_of_places(self) -> float:
        """Penalty (s) in slot 0 of caches in which every node holds everything."""
        return float(self.places.penalty[:, -1] @ _size(self.instance)) if self.places else 0.0

    def penalties(self, cache: BoolArray) -> float:
        """Return the penalties (s) along caches (T, N, J)."""
        slot = np.arange(self.instance.slots)[:, None]
        at = self.penalty[slot, kinds_of(self.instance), node_sets(cache)]
        return float((at @ self.instance.library.block_size).sum())

    def penalty_of_places(self, cache: BoolArray) -> float:
        """Return the penalty (s) of where users are, along caches (T, N, J)."""
        if self.places is None:
            return 0.0
        at = self.places.penalty[kinds_of(self.instance), node_sets(cache)[0]]
        return float(at @ self.instance.library.block_size)


@dataclass(frozen=True, eq=False)
class Places:
    """What not knowing before slot 0 where users are adds to a path.

    Attributes
    ----------
    penalty
        (C, 2^N) of the caches of slot 0, seconds per byte.
    bound
        B(path) with this penalty too, s.
    """

    penalty: FloatArray
    bound: float


def online_bound(
    scenario: Scenario,
    *,
    networks: int = 4,
    paths: int = 16,
    seed: int = 0,
    kappa: Kappa = 1.0,
    unknown_positions: bool = False,
    methods: Sequence[str] = (),
    time_limit: float | None = None,
    callback: Callback | None = None,
) -> OnlineBound:
    """Return a bound on the mean delay of every online method, and the value of information.

    Parameters
    ----------
    scenario
        The class of instances; sequential delivery, requests drawn from its demand model.
    networks, paths
        How many networks (seeds `seed`, `seed` + 1, ...), and paths 0, 1, ... on each.
    seed
        Of the first network.
    kappa
        What the penalties are multiplied by, >= 0: any number gives a bound, 0 the hindsight one.
        "auto" tries some on training paths of every network.
    unknown_positions
        Bound too the methods that do not know positions and large-scale fading before slot 0.
        They are drawn with every network, so it takes two networks at least.
    methods
        Registered methods to play on every path, for their distance to the bound.
    time_limit
        Seconds after which no further path is begun; None for all paths, on any machine alike.
    callback
        Receives the progress.

    Returns
    -------
    The means are those of the networks' means. With two networks or more an interval is Student's
    on the networks' means, and speaks of the scenario; with one, on its paths, and speaks of this
    network.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C; within `finecast.solvers.signals.ctrl_c_keeps_the_best` the paths finished so far
        are returned instead, if there are any.
    ValueError
        A number is out of range, the scenario has no such bound, a user cannot be served, or the
        time was over before the first path.
    """
    _check(scenario, networks, paths, kappa, time_limit)
    if unknown_positions:
        _check_positions(scenario, networks)
    for method in methods:
        method_of(method)
    wall, cpu = time.monotonic(), time.process_time()
    deadline = Deadline.after(time_limit)
    figures: list[PathFigures] = []
    gaps: dict[str, list[ControlledGap]] = {method: [] for method in methods}
    ended: Ending = "completed"
    try:
        found = path_bounds(
            scenario,
            range(seed, seed + networks),
            range(paths),
            kappa=kappa,
            unknown_positions=unknown_positions,
            callback=callback,
        )
        # A path counts when all of it is there: bounds, and every method's gap.
        while not deadline.over():
            bound = next(found, None)
            if bound is None:
                break
            played = [controlled_gap(bound, method) for method in methods]
            figures.append(_figures(bound))
            for method, gap in zip(methods, played, strict=True):
                gaps[method].append(gap)
        else:
            ended = "time_limit" if len(figures) < networks * paths else "completed"
    except SearchInterrupt:
        ended = "interrupted"
        if not figures:
            raise
    if not figures:
        raise ValueError(f"time_limit: {time_limit} s were over before the first path was done")
    return OnlineBound(
        tuple(figures),
        kappa,
        networks * paths,
        ended,
        time.monotonic() - wall,
        time.process_time() - cpu,
        {method: tuple(found) for method, found in gaps.items()},
    )


def path_bounds(
    scenario: Scenario,
    networks: Sequence[int],
    paths: Sequence[int],
    *,
    kappa: Kappa = 1.0,
    unknown_positions: bool = False,
    callback: Callback | None = None,
) -> Iterator[PathBound]:
    """Give the bounds of paths, one after another: some of every network, then some more.

    Parameters
    ----------
    scenario
        The class of instances.
    networks, paths
        Seeds, and path numbers on each.
    kappa, unknown_positions, callback
        As in `online_bound`.

    Raises
    ------
    ValueError
        The scenario has no such bound, or a user of a path cannot be served.
    """
    _check(scenario, len(networks), len(paths), kappa, None)
    total, done = len(networks) * len(paths), 0

    def tell(stage: str, count: int, of: int) -> None:
        if callback is not None:
            callback(Progress(stage, count, of))

    programmes: dict[int, DemandProgramme] = {}
    weight: dict[int, float] = {}
    places: dict[int, FloatArray] = {}
    for first in range(0, len(paths), PATHS_AT_ONCE):
        numbers = paths[first : first + PATHS_AT_ONCE]
        for seed in networks:
            instances = [scenario.generate(seed, path) for path in numbers]
            if kappa and seed not in programmes:
                tell("values of the networks", len(programmes), len(networks))
                programme = trained_programme(scenario, seed)
                programmes[seed] = programme
                weight[seed] = (
                    trained_kappa(programme, scenario, seed) if kappa == "auto" else kappa
                )
                tell("values of the networks", len(programmes), len(networks))
            if unknown_positions and seed not in places:
                places[seed] = position_penalty(scenario, seed)
            penalty: Iterable[FloatArray] = (_no_penalty(instance) for instance in instances)
            if kappa:
                requests = np.stack([instance.requests for instance in instances])
                penalty = weight[seed] * penalties_of(programmes[seed], requests)
            for path, instance, charge in zip(numbers, instances, penalty, strict=True):
                bound = path_bound(instance, seed, path, charge, places.get(seed))
                yield replace(bound, kappa=weight.get(seed, 0.0))
                done += 1
                tell("paths", done, total)


def path_bound(
    instance: Instance,
    network: int,
    path: int,
    penalty: FloatArray,
    of_places: FloatArray | None = None,
) -> PathBound:
    """Return the bounds of one path.

    Parameters
    ----------
    instance
        The path.
    network, path
        Its seed and path number.
    penalty
        (T, C, 2^N) seconds per byte.
    of_places
        (C, 2^N) seconds per byte, as from `position_penalty`; None to leave that bound out.

    Raises
    ------
    ValueError
        A user cannot be served.
    """
    prepared = prepare(instance)
    if prepared.bounded is None:
        raise ValueError(f"network {network}, path {path}: {UnservableError(prepared)}")
    prices, bound = hindsight_bound(prepared.bounded)
    hindsight = max(bound, everywhere_bound(prepared))
    online = hindsight
    if penalty.any():
        online = penalised_bound(prepared.bounded, kinds_of(instance), penalty, prices)
    places = None
    if of_places is not None:
        both = penalty.copy()
        both[0] += of_places
        unknown = penalised_bound(prepared.bounded, kinds_of(instance), both, prices)
        places = Places(of_places, unknown)
    return PathBound(instance, network, path, penalty, online, hindsight, places=places)


def controlled_gap(bound: PathBound, played: str | Solution, **options: Any) -> ControlledGap:
    """Return how far a method or a plan is from the bound of its path.

    Parameters
    ----------
    bound
        Of the path.
    played
        A registered method, which is played on the path with the path number as its seed, or a
        solution of the path.
    **options
        Of the method.

    Raises
    ------
    ValueError
        There is no such method, or no plan with guaranteed rates comes of it.
    """
    where = f"network {bound.network}, path {bound.path}"
    if isinstance(played, str):
        result = solve(bound.instance, played, seed=bound.path, **options)
        if result.termination is Termination.INTERRUPTED:  # its best so far is not its answer
            raise SearchInterrupt
        solution, evaluation = result.solution, result.evaluation
        if solution is None or evaluation is None:
            raise ValueError(f"method {played!r}: {where}: no plan, ended {result.termination!r}")
    else:
        solution, evaluation = played, evaluate(bound.instance, played)
    if not (evaluation.feasible and np.isfinite(evaluation.delay)):
        raise ValueError(f"{where}: the plan breaks a rule or guarantees no rates")
    return ControlledGap(
        bound.network,
        bound.path,
        evaluation.delay,
        bound.penalties(solution.cache),
        bound.online,
        bound.penalty_of_places(solution.cache),
        bound.unknown,
    )


def _figures(bound: PathBound) -> PathFigures:
    return PathFigures(
        bound.network,
        bound.path,
        bound.online,
        bound.hindsight,
        bound.luck,
        bound.kappa,
        bound.unknown,
        bound.luck_of_places,
    )


def _size(instance: Instance) -> FloatArray:
    """Return (C,) the bytes of every kind of blocks."""
    return np.asarray(np.bincount(kinds_of(instance), weights=instance.library.block_size))


def _no_penalty(instance: Instance) -> FloatArray:
    kinds = int(kinds_of(instance).max()) + 1
    return np.zeros((instance.slots, kinds, 1 << instance.nodes))


def _check(
    scenario: Scenario, networks: int, paths: int, kappa: Kappa, time_limit: float | None
) -> None:
    """Refuse what the theorem does not speak of, and numbers out of range.

    Raises
    ------
    ValueError
        What is wrong and what is allowed.
    """
    for name, count in (("networks", networks), ("paths", paths)):
        if not 1 <= count < FIRST_TRAINING_PATH:
            raise ValueError(f"{name}: {count} is not allowed, must be >= 1")
    if kappa != "auto" and not (np.isfinite(kappa) and kappa >= 0):
        raise ValueError(f"kappa: {kappa} is not allowed, must be finite and >= 0, or 'auto'")
    if time_limit is not None and not (np.isfinite(time_limit) and time_limit >= 0):
        raise ValueError(f"time_limit: {time_limit} is not allowed, must be finite and >= 0")
    if scenario.demand.trace is not None:
        raise ValueError(
            "demand.trace: an online bound needs requests drawn from the demand model, not a trace"
        )
    if scenario.delivery == "spatial":
        raise ValueError(
            "delivery: 'spatial' is not allowed for the online bound, must be 'sequential'"
        )
    if scenario.node_count > UNITS:
        raise ValueError(
            f"nodes.count: {scenario.node_count} is not allowed for the online bound, "
            f"must be <= {UNITS}"
        )


def _check_positions(scenario: Scenario, networks: int) -> None:
    """Refuse a bound for unknown positions where there is one draw of them, or none.

    Raises
    ------
    ValueError
        What is wrong and what is allowed.
    """
    if networks < 2:
        raise ValueError(
            f"networks: {networks} is not allowed with unknown positions, must be >= 2: "
            "positions are drawn with the network"
        )
    if scenario.channel.file is not None:
        raise ValueError("channel.file: channels of a file have no positions that could be unknown")
