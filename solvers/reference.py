"""The reference methods: the model of the formulation as it stands, and its linear relaxation."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial

from finecast.problem.instance import Instance
from finecast.problem.solution import Solution
from finecast.solvers.offline import place_twice
from finecast.solvers.placement.exact.by_pyomo import place_by_lp, place_by_milp
from finecast.solvers.placement.exact.pyomo_model import check_suffix, write_model
from finecast.solvers.placement.problem import PlacementProblem
from finecast.solvers.result import Answer, Callback


def solve_milp(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
    write: str | None = None,
) -> Answer:
    """Place by the Pyomo model of the formulation, solved by HiGHS.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback
        As in `finecast.solvers.solve.solve`.
    beamforming, restrict, rate_cache
        As in `finecast.solvers.joint.prepare`.
    write
        File, .lp or .mps, for the model at the rates of the answer; None for none.

    Raises
    ------
    ValueError
        `write` ends otherwise.
    """
    return place_twice(
        place_by_milp,
        "milp",
        instance,
        time_limit=time_limit,
        gap=gap,
        seed=seed,
        start=start,
        callback=callback,
        beamforming=beamforming,
        restrict=restrict,
        rate_cache=rate_cache,
        done=_writer(write),
    )


def solve_lp(
    instance: Instance,
    *,
    time_limit: float | None = None,
    gap: float | None = None,
    seed: int = 0,
    start: Solution | None = None,
    callback: Callback | None = None,
    beamforming: str = "multicast",
    restrict: str | Iterable[str] = (),
    rate_cache: str | None = None,
    write: str | None = None,
) -> Answer:
    """Place by rounding the linear relaxation of the Pyomo model.

    Parameters
    ----------
    instance, time_limit, gap, seed, start, callback, beamforming, restrict, rate_cache, write
        As in `solve_milp`; the model written is not relaxed.

    Raises
    ------
    ValueError
        `write` ends otherwise.
    """
    return place_twice(
        place_by_lp,
        "lp",
        instance,
        time_limit=time_limit,
        gap=gap,
        seed=seed,
        start=start,
        callback=callback,
        beamforming=beamforming,
        restrict=restrict,
        rate_cache=rate_cache,
        done=_writer(write),
    )


def _writer(path: str | None) -> Callable[[PlacementProblem], None] | None:
    if path is None:
        return None
    check_suffix(path)
    return partial(write_model, path=path)
