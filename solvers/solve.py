"""Solve an instance by any registered method, and let the judge say what the answer is worth."""

from __future__ import annotations

import math
import platform
import time
from functools import cache
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from typing import Any

from finecast.problem.evaluation import evaluate
from finecast.problem.instance import Instance
from finecast.problem.solution import Solution
from finecast.problem.version import FINECAST_VERSION
from finecast.solvers.deadline import Deadline
from finecast.solvers.registry import method_of
from finecast.solvers.result import Callback, Result, Termination

PLACEMENT_SHARE = 0.5
"""Share of the time limit for the method, the rest being for the modes of spatial delivery."""

_LIBRARIES = ("numpy", "scipy", "torch", "cvxpy", "clarabel", "highspy", "pyomo")


def solve(
    instance: Instance,
    method: str = "lagrangian",
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    spatial_time: float | None = None,
    spatial_workers: int = 1,
    **options: Any,
) -> Result:
    """Solve an instance.

    Parameters
    ----------
    instance
        The problem.
    method
        Registered name; see `finecast.solvers.registry.methods`.
    time_limit
        Seconds, >= 0; None for the method's own end.
    gap
        Stop when this relative gap is proven; None for the method's own end.
    seed
        Seed of every random choice, >= 0.
    start
        A solution to start from, for methods that can.
    callback
        Called with `Progress` now and then.
    spatial_time
        For spatial delivery: seconds for each slot's modes, >= 0; None for the search's own end.
        With 0, or when `time_limit` is over, messages go one after another.
    spatial_workers
        For spatial delivery: processes that search the slots of a long horizon side by side, >= 1.
        With more than one, a script needs the usual `if __name__ == "__main__":`.
    **options
        The method's own options.

    Returns
    -------
    Judged by `finecast.problem.evaluation`; an answer that breaks a rule has termination `failed`.

    Raises
    ------
    ValueError
        Unknown method or option, or a value out of range.
    """
    chosen = method_of(method)
    for name, value in (
        ("time_limit", time_limit),
        ("gap", gap),
        ("seed", seed),
        ("spatial_time", spatial_time),
    ):
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{name}: {value} is not allowed, must be finite and >= 0")
    if isinstance(spatial_workers, bool) or not (
        isinstance(spatial_workers, int) and spatial_workers >= 1
    ):
        raise ValueError(
            f"spatial_workers: {spatial_workers!r} is not allowed, must be a whole number >= 1"
        )
    known = chosen.options()
    for name in options:
        if name not in known:
            raise ValueError(
                f"option {name!r} is unknown to method {method!r}; it has "
                + (", ".join(f"{key} (default {known[key]})" for key in known) or "none")
            )
        _check_option(name, options[name], known[name])
    wall, cpu = time.monotonic(), time.process_time()
    spatial = instance.delivery == "spatial"
    answer = chosen.load()(
        instance,
        time_limit=PLACEMENT_SHARE * time_limit if spatial and time_limit else time_limit,
        gap=gap,
        seed=seed,
        start=start,
        callback=callback,
        **options,
    )
    if spatial and answer.termination is not Termination.INTERRUPTED:
        from finecast.solvers.spatial.alternate import on_shared_air

        left = None if time_limit is None else time_limit - (time.monotonic() - wall)
        answer = on_shared_air(
            instance, answer, began=wall, deadline=Deadline.after(left), slot_time=spatial_time,
            gap=gap, seed=seed, callback=callback, workers=spatial_workers,
        )  # fmt: skip
    wall_s, cpu_s = time.monotonic() - wall, time.process_time() - cpu
    judged = answer.instance or instance
    evaluation = None if answer.solution is None else evaluate(judged, answer.solution)
    infeasible = evaluation is not None and not evaluation.feasible
    notes = answer.notes
    if start is not None and not chosen.warm_starts:
        notes = (*notes, f"method {method!r} cannot start from a solution; start was not used")
    return Result(
        method=method,
        solution=answer.solution,
        evaluation=evaluation,
        lower_bound=answer.lower_bound,
        bound_kind=answer.bound_kind,
        delay_at_bounded_rates=answer.delay_at_bounded_rates,
        termination=Termination.FAILED if infeasible else answer.termination,
        wall_s=wall_s,
        cpu_s=cpu_s,
        train_s=answer.train_s,
        seed=seed,
        instance_hash=instance.content_hash,
        options={**known, **options},
        trace=answer.trace,
        versions=versions(),
        notes=notes,
    )


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
