"""Solve an instance by any registered method, and let the judge say what the answer is worth."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from inspect import signature
from typing import TYPE_CHECKING, Any, cast

from finecast.problem.evaluation import Evaluation, evaluate
from finecast.problem.instance import Delivery, Instance, Schedule
from finecast.problem.reception import gain_notes
from finecast.problem.solution import Solution
from finecast.problem.tolerances import JUDGE_TOLERANCES
from finecast.problem.version import FINECAST_VERSION
from finecast.problem.wording import hint
from finecast.solvers.deadline import GRAIN, Deadline, grains_done
from finecast.solvers.message_order import (
    MessageOrder,
    check_order,
    order_note,
    ordered_for_the_mean,
)
from finecast.solvers.one_area import check_for_areas, refuse_areas
from finecast.solvers.own_methods import any_method
from finecast.solvers.registry import BUILT_IN, PATH_OPTIONS, RATE_OPTIONS, Method
from finecast.solvers.restrictions import check_restrictions
from finecast.solvers.result import Answer, BoundKind, Callback, Result, Termination
from finecast.solvers.search import Search
from finecast.solvers.workers import Engine, check_workers, workers_of

if TYPE_CHECKING:
    from finecast.solvers.online import Policy

SPATIAL_PLACEMENT_SHARE = 0.5
"""Share of the time limit for the method; the rest is for the modes of spatial delivery."""

_LIBRARIES = ("numpy", "scipy", "torch", "cvxpy", "clarabel", "highspy", "pyomo", "ortools")


def solve(
    instance: Instance,
    method: str | Callable[..., Any] | Policy = "lagrangian",
    *,
    time_limit: float | None = None,
    work: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    delivery: Delivery | None = None,
    schedule: Schedule | None = None,
    spatial_time: float | None = None,
    spatial_workers: int = 1,
    workers: int = 1,
    engine: Engine = "local",
    scheduler: str | None = None,
    order: MessageOrder = "method",
    **options: Any,
) -> Result:
    """Solve an instance.

    Parameters
    ----------
    instance
        The problem.
    method
        Registered name, see `finecast.solvers.registry.methods`; or your own: a function from a
        placement problem to a placement, a class or object with the functions of
        `finecast.solvers.online.Policy`, or `module:name` of one of them. See
        docs/add-a-method.md.
    time_limit
        Seconds, >= 0, for everything: rates, search, beams, bound. None for the method's own end.
    work
        The same in units of counted work, >= 0: about seconds of one core, but with the same answer
        on every machine, however busy. With `time_limit`, the first to end counts. Not for spatial
        delivery, and not for methods whose work nobody counts.
    gap
        The search stops when this relative gap is proven; None for the method's own end.
    seed
        Seed of every random choice, >= 0.
    start
        A solution to start from, for methods that can.
    callback
        Receives `Progress` now and then.
    delivery
        "sequential" (one message after another) or "spatial" (several on the air at once), in place
        of what the instance says; None for what it says.
    schedule
        "sequential" (migrations, then broadcasts) or "pipelined" (side by side), likewise.
    spatial_time
        For spatial delivery: seconds for each slot's modes, >= 0; None for the search's own end.
        With 0, or when `time_limit` is over, messages go one after another.
    spatial_workers
        For spatial delivery: processes that search the slots of a long horizon side by side, >= 1.
        With more than one, a script needs the usual `if __name__ == "__main__":`.
    workers
        For instances of several areas: processes that take areas and slots side by side, >= 1. The
        answer is the same however many there are. With more than one, a script needs the usual
        `if __name__ == "__main__":`.
    engine, scheduler
        `local`, or `dask` for the workers of the Dask cluster with this scheduler's address, such
        as "tcp://host:8786".
    order
        "mean": the messages of each slot in the order of the least mean completion of users, at the
        same slot delay (sequential schedule); "method": as the method states them. See
        `finecast.solvers.message_order`.
    **options
        The method's own options, and for most methods `restrict` (names of restrictions such as
        "coarse"; see `finecast.solvers.restrictions`), `beamforming` and `rate_cache`; see
        `finecast.solvers.prepared.prepare`.

    Returns
    -------
    Judged by `finecast.problem.evaluation`. An answer that breaks a rule has termination `failed`.
    So has one whose bound is above its judged delay; the bound is left out.

    Raises
    ------
    KeyboardInterrupt
        Ctrl-C, as everywhere; within `finecast.solvers.signals.ctrl_c_keeps_the_best` the best
        answer so far is returned instead.
    ValueError
        Unknown method or option, a value out of range, an instance of several areas for a method of
        one, or several workers for an instance of one area.
    OSError
        There is no Dask scheduler, or it has no workers.
    """
    chosen = any_method(method)
    method = chosen.name
    _check_ranges(
        time_limit=time_limit,
        work=work,
        gap=gap,
        seed=seed,
        spatial_time=spatial_time,
        spatial_workers=spatial_workers,
    )
    check_workers(workers, engine, scheduler)
    known = chosen.options()
    options = {
        name: os.fspath(value) if isinstance(value, os.PathLike) else value
        for name, value in options.items()
    }
    _check_options(method, options, known)
    instance = with_system(instance, delivery, schedule)
    check_order(order, instance)
    if not chosen.areas:
        refuse_areas(instance, f"method {method!r}")
    check_for_areas(instance, workers, engine)

    wall, cpu, done = time.monotonic(), time.process_time(), grains_done()
    deadline = Deadline.after(time_limit, work)  # counts the phases that it cuts
    spatial = instance.delivery == "spatial"
    if work is not None:
        check_work(work, chosen, spatial)
    placing = deadline.share(SPATIAL_PLACEMENT_SHARE) if spatial else deadline
    with workers_of(workers, engine, scheduler) as crew:
        search = Search(placing, gap, seed, start, callback, crew)
        found = answer_of(chosen, instance, search, **options)
    if spatial and found.termination is not Termination.INTERRUPTED:
        from finecast.solvers.spatial.alternate import on_shared_air

        found = on_shared_air(
            instance, found, began=wall, deadline=deadline, slot_time=spatial_time, gap=gap,
            seed=seed, callback=callback, workers=spatial_workers,
        )  # fmt: skip
    wall_s, cpu_s = time.monotonic() - wall, time.process_time() - cpu + crew.cpu_s

    # What the answer is worth is for the judge to say, on the instance that it is for.
    judged = found.instance or instance
    restrict = ",".join(sorted(check_restrictions(options.get("restrict", ()))))
    if restrict and found.solution is not None:
        # The instance's own hash: the restriction says what the solution made of it.
        stated = replace(found.solution, restrict=restrict, instance_hash=instance.content_hash)
        found = replace(found, solution=stated)
    evaluation = None if found.solution is None else evaluate(judged, found.solution)
    order_bound = None
    if order == "mean" and found.solution is not None and evaluation is not None:
        ordered, order_bound = ordered_for_the_mean(judged, found.solution)
        before, evaluation = evaluation, evaluate(judged, ordered)
        said = order_note(before, evaluation, order_bound)
        found = replace(found, solution=ordered, notes=(*found.notes, said))
    infeasible = evaluation is not None and not evaluation.feasible
    found, contradicted = _checked_bound(found, evaluation)
    cut = _cut_phases(deadline, found)
    notes = (*found.notes, *gain_notes(judged), *_limit_notes(deadline, time_limit, work, cut))
    if start is not None and not chosen.warm_starts:
        notes = (*notes, f"method {method!r} cannot start from a solution; start was not used")
    return Result(
        method=method,
        solution=found.solution,
        evaluation=evaluation,
        lower_bound=found.lower_bound,
        bound_kind=found.bound_kind,
        delay_at_bounded_rates=found.delay_at_bounded_rates,
        termination=Termination.FAILED if infeasible or contradicted else found.termination,
        wall_s=wall_s,
        cpu_s=cpu_s,
        work=(grains_done() - done) * GRAIN,
        train_s=found.train_s,
        seed=seed,
        instance_hash=instance.content_hash,
        options={**known, **options} | ({} if order == "method" else {"order": order}),
        trace=found.trace,
        versions=versions(),
        notes=notes,
        cut=cut,
        mean_completion_bound=order_bound,
    )


def _checked_bound(found: Answer, evaluation: Evaluation | None) -> tuple[Answer, bool]:
    """Return the answer without a bound that its judged delay refutes, and whether it has one.

    A plan may be faster than its bound by the tolerances of the judge; the bound is then the delay.

    Parameters
    ----------
    found
        As the method gives it.
    evaluation
        The judge's view of its solution. The bound of a nominal plan is for the planned delay.
    """
    bound, delay = found.lower_bound, math.inf
    if evaluation is not None and evaluation.feasible:
        delay = evaluation.planned_delay
    if bound <= delay * (1.0 + JUDGE_TOLERANCES):
        bound = min(bound, delay)
        trace = [
            replace(point, lower_bound=min(point.lower_bound, bound))
            if point.lower_bound <= delay * (1.0 + JUDGE_TOLERANCES)
            else point
            for point in found.trace
        ]
        return replace(found, lower_bound=bound, trace=tuple(trace)), False
    reason = f"the method's lower bound of {bound:.9g} s is no number"
    if not math.isnan(bound):
        reason = (
            f"the method's lower bound of {bound:.9g} s is above the judged delay of {delay:.9g} s "
            "of its own plan, so it bounds nothing"
        )
    without = replace(
        found,
        lower_bound=0.0,
        bound_kind=BoundKind.NONE,
        delay_at_bounded_rates=None,
        trace=tuple(replace(point, lower_bound=0.0) for point in found.trace),
        notes=(*found.notes, reason),
    )
    return without, True


def answer_of(method: Method, instance: Instance, search: Search, **options: Any) -> Answer:
    """Let a method answer; nobody has judged what it says.

    Parameters
    ----------
    method
        A registered method.
    instance
        The problem.
    search
        When to end, where to begin, whom to tell.
    **options
        The method's own options and those of the rates.

    Raises
    ------
    ValueError
        An option is out of range.
    """
    from finecast.solvers.joint import solve_by_placement, unserved
    from finecast.solvers.offline import solve_by_search
    from finecast.solvers.prepared import UnservableError

    several = instance.area_count > 1
    if several and method in BUILT_IN and method.setting == "offline":
        from finecast.solvers.areas.solve import solve_areas

        given = {name: value for name, value in options.items() if name in RATE_OPTIONS}
        try:
            return solve_areas(
                method.name, instance, search, greedy=method.name == "greedy", **given
            )
        except UnservableError as reason:
            return _unserved_area(instance, reason)
    entry, own = method.load(), method.own_options()
    own = {name: value for name, value in options.items() if name in own}
    rest = {name: value for name, value in options.items() if name not in own}
    common: dict[str, Any] = {
        "deadline": search.deadline,
        "seed": search.seed,
        "callback": search.callback,
    }
    try:
        match method.kind:
            case "policy":
                # Areas take torch, which the smallest instances do without.
                from finecast.solvers.online_areas import solve_online

                if "seed" in signature(entry).parameters:
                    own["seed"] = search.seed
                make = partial(entry, **own)
                return solve_online(make, method.name, instance, **common, **rest)
            case "placement":
                place = partial(entry, **own)
                return solve_by_placement(place, method.name, instance, **common, **rest)
            case "search" | "programme":
                place = partial(entry, **own)
                twice = method.kind == "programme"
                return solve_by_search(place, method.name, instance, search, twice=twice, **rest)
            case _:
                del common["deadline"]
                given = {"time_limit": search.deadline.limit(), "gap": search.gap, **common}
                given |= {"start": search.start, **options}
                return cast(Answer, entry(instance, **given))
    except UnservableError as reason:
        return _unserved_area(instance, reason) if several else unserved(reason)


def _unserved_area(instance: Instance, reason: ValueError) -> Answer:
    """Return the answer where an area cannot serve a user group of its own: no solution."""
    return Answer(
        None,
        0.0,
        BoundKind.CERTIFIED,
        Termination.NO_SOLUTION,
        notes=(f"within an area, {reason}",),
        instance=instance,
    )


def check_work(work: Any, method: Method, spatial: bool) -> None:
    """Refuse a limit of work that is none, or that nobody counts.

    Parameters
    ----------
    work
        Units, >= 0.
    method, spatial
        A registered method, and whether its messages share the air.

    Raises
    ------
    ValueError
        Says what to use in its place.
    """
    if isinstance(work, bool) or not isinstance(work, int | float):
        raise ValueError(f"work: {work!r} is not allowed, must be a number")
    _check_ranges(work=work, spatial_workers=1)
    if method.kind == "function" or not method.counts_work:
        raise ValueError(
            f"work: method {method.name!r} does not count its work; use time_limit in its place"
        )
    if spatial:
        raise ValueError("work: not counted for spatial delivery; use time_limit in its place")


def _cut_phases(deadline: Deadline, found: Answer) -> tuple[str, ...]:
    """Return the phases that the limit ended, the first one first."""
    cut = dict.fromkeys((*deadline.cut, *found.cut))
    if not cut and found.termination is Termination.TIME_LIMIT:
        cut[deadline.phase] = None  # a method that keeps its own time says so by its ending
    return tuple(cut)


def _limit_notes(
    deadline: Deadline, time_limit: float | None, work: float | None, cut: tuple[str, ...]
) -> tuple[str, ...]:
    """Return what the limit cut short, and which of two limits came first."""
    notes = [f"cut short by the limit: {', '.join(cut)}"] if cut else []
    if time_limit is not None and work is not None:
        if deadline.work_left() == 0.0:
            notes.append(f"the limit of {work:g} units of work came first, before {time_limit:g} s")
        elif deadline.left() == 0.0:
            notes.append(f"the limit of {time_limit:g} s came first, before {work:g} units of work")
    return tuple(notes)


def with_system(
    instance: Instance, delivery: Delivery | None = None, schedule: Schedule | None = None
) -> Instance:
    """Return the instance with another delivery or schedule; None for its own.

    Raises
    ------
    ValueError
        Another name than those of `finecast.problem.instance`.
    """
    if delivery is None and schedule is None:
        return instance
    return replace(
        instance,
        delivery=instance.delivery if delivery is None else delivery,
        schedule=instance.schedule if schedule is None else schedule,
    )


def _check_ranges(**values: Any) -> None:
    """Refuse numbers out of range.

    Raises
    ------
    ValueError
        Names the value and what is allowed.
    """
    workers = values.pop("spatial_workers")
    if isinstance(workers, bool) or not (isinstance(workers, int) and workers >= 1):
        raise ValueError(
            f"spatial_workers: {workers!r} is not allowed, must be a whole number >= 1"
        )
    for name, value in values.items():
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name}: {value} is not allowed, must be finite and >= 0")


def _check_options(method: str, options: dict[str, Any], known: dict[str, Any]) -> None:
    """Refuse options that a method does not have, and values of another kind than the default's.

    Raises
    ------
    ValueError
        Names the option and what is allowed.
    """
    for name, value in options.items():
        if name not in known:
            raise ValueError(
                f"option {name!r} is unknown to method {method!r}; {_near(name, known)}it has "
                + (", ".join(f"{key} (default {known[key]})" for key in known) or "none")
            )
        _check_option(name, value, known[name])


def _near(name: str, known: Iterable[str]) -> str:
    """Return the nearest known option as a question, nothing where none is near."""
    found = hint(name, known)
    return f"{found} " if found.startswith("did you mean") else ""


def _check_option(name: str, value: Any, default: Any) -> None:
    """Refuse a value of another kind than the option's default.

    Raises
    ------
    ValueError
        Names the option, the value and the kind it must have.
    """
    kinds: tuple[str, tuple[type, ...]] = {
        bool: ("true or false", (bool,)),
        int: ("a whole number", (int,)),
        float: ("a number", (int, float)),
        str: ("a text", (str,)),
        tuple: ("a text or a list of texts", (str, list, tuple)),
    }.get(type(default), ("a text or a number", (str, int, float, type(None))))
    if name in PATH_OPTIONS:
        kinds = ("a text, the name of a file or folder", (str, type(None)))
    what, allowed = kinds
    wrong = not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed)
    if isinstance(value, list | tuple) and not all(isinstance(item, str) for item in value):
        wrong = True
    if wrong:
        raise ValueError(f"option {name}: {value!r} is not allowed, must be {what}")


def versions() -> dict[str, str]:
    """Return the versions of finecast, Python and the libraries at work."""
    found = {"finecast": FINECAST_VERSION, "python": platform.python_version()}
    installed = {library: _installed_version(library) for library in _LIBRARIES}
    return {**found, **{name: version for name, version in installed.items() if version}}


@cache
def _installed_version(library: str) -> str | None:
    try:
        return package_version(library)  # reads files, a millisecond each
    except PackageNotFoundError:
        return None
