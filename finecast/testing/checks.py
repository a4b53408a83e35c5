"""The checks, one function each: silent where the method keeps to the rule.

Every check takes the method's name, an instance to check it on (None: a small one) and options for
the method, and raises an AssertionError whose one line says what is wrong.
"""

from __future__ import annotations

import inspect
import json
import math
import random
import re
import shutil
import tempfile
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from finecast.problem.evaluation import Evaluation, evaluate
from finecast.problem.files import json_text
from finecast.problem.instance import Instance
from finecast.problem.shipped import find
from finecast.problem.solution import Solution, read_solution, write_solution
from finecast.solvers.registry import method_of
from finecast.solvers.restrictions import RESTRICTIONS, restricted_instance
from finecast.solvers.result import BoundKind, Progress, Result, Termination
from finecast.solvers.solve import solve
from finecast.testing.instances import FUTURES, another_future, another_truth, small_instance

ROUNDING = 1e-9
"""Delays and bounds are compared up to this share; both are sums of float64."""

MILP_TOLERANCE = 1e-6
"""The same for bounds that rest on the word of a MILP solver."""

PATIENCE_S = 60.0
"""A method may overrun its time limit by this on the small instance; rates are not cut short."""

NONSENSE = "no such choice"


def check_declaration(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """The method says what it is: one line of summary, options documented with plain defaults."""
    method = method_of(name)
    _require(
        bool(method.summary.strip()) and "\n" not in method.summary,
        name,
        f"summary: {method.summary!r} is not allowed, must be one line",
    )
    _require(
        method.setting in ("offline", "online"),
        name,
        f"setting: {method.setting!r} is not allowed, must be 'offline' or 'online'",
    )
    if method.kind == "function":
        parameters = inspect.signature(method.load()).parameters
        for common in ("time_limit", "gap", "seed", "start", "callback"):
            _require(common in parameters, name, f"its function lacks the keyword {common!r}")
    text = inspect.getdoc(method.load()) or ""
    for option, default in method.own_options().items():
        _require(
            default is None or isinstance(default, str | int | float | tuple),
            name,
            f"option {option!r} has the default {default!r}, must be a text, a number, true or "
            "false, a tuple of texts, or None",
        )
        _require(
            re.search(rf"\b{re.escape(option)}\b", text) is not None,
            name,
            f"option {option!r} does not stand in the docstring of {method.entry}",
        )
    for option in options:
        _require(option in method.options(), name, f"it has no option {option!r}")


def check_feasible(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """The judge finds nothing wrong, on the instance that was given and on no other."""
    instance = instance or small_instance()
    told: list[object] = []
    result = _run(name, instance, callback=told.append, **options)
    evaluation = _judged(name, instance, result)
    _require(
        math.isfinite(evaluation.delay) or _solution(name, result).planned == "nominal",
        name,
        "a plan that claims to be guaranteed has an infinite delay",
    )
    for thing in told:
        _require(isinstance(thing, Progress), name, f"told {thing!r}, which is no Progress")


def check_bound(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """The bound lies below the delay, and below that of the method `lagrangian` too."""
    instance = instance or small_instance()
    result = _run(name, instance, **options)
    if not method_of(name).gives_bound:
        none = result.lower_bound == 0 and result.bound_kind is BoundKind.NONE
        _require(none, name, f"gives a bound of {result.lower_bound} s, declares none")
        return
    _require(
        result.lower_bound > 0 and result.bound_kind is not BoundKind.NONE,
        name,
        f"declares a bound, gives {result.lower_bound} s of kind {result.bound_kind}",
    )
    _below(name, result, result.delay, "its own delay")
    _below(name, result, _reference(instance).delay, "the delay of method 'lagrangian'")


def check_seed(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """The same seed gives the same decisions, bit for bit; no global random state is touched."""
    instance = instance or small_instance()
    states_before = _global_random_states()
    results = [_run(name, instance, seed=5, **options) for _ in range(2)]
    _require(
        states_before == _global_random_states(),
        name,
        "draws from, or seeds, a global random state: use numpy.random.default_rng(seed)",
    )
    solution, repeated = (_solution(name, result) for result in results)
    difference = _difference(solution, repeated)
    _require(not difference, name, f"two runs with seed 5 differ in {difference}")
    bounds = [result.lower_bound for result in results]
    _require(bounds[0] == bounds[1], name, f"two runs with seed 5 give the bounds {bounds}")


def check_time_limit(
    name: str, /, instance: Instance | None = None, patience_s: float = PATIENCE_S, **options: Any
) -> None:
    """With (next to) no time there is a judged solution or none, and the ending says which.

    The result names the phases that the limit cut, and none without a limit.
    """
    instance = instance or small_instance()
    for limit in (0.0, 0.01):
        result = _run(name, instance, time_limit=limit, **options)
        cut = result.termination is Termination.TIME_LIMIT or (
            limit == 0.0 and method_of(name).kind != "function" and result.solution is not None
        )
        _require(
            bool(result.cut) or not cut,
            name,
            f"does not say which phase a time_limit of {limit} cut",
        )
        _require(
            result.wall_s <= limit + patience_s,
            name,
            f"took {result.wall_s:.3g} s with time_limit {limit}",
        )
        if result.solution is None:
            _require(
                result.termination is Termination.NO_SOLUTION,
                name,
                f"no solution with time_limit {limit}, but ends as {result.termination.value!r}",
            )
        else:
            _judged(name, instance, result, f"with time_limit {limit}")
            _below(name, result, result.delay, f"its own delay with time_limit {limit}")
    whole = _run(name, instance, **options)
    _require(not whole.cut, name, f"says that a limit cut {', '.join(whole.cut)}; there was none")


def check_termination(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """An ending that claims a proof is backed by the gap."""
    instance = instance or small_instance()
    for gap in (None, 0.5):
        result = _run(name, instance, gap=gap, **options)
        allowed = {
            Termination.OPTIMAL: MILP_TOLERANCE,
            Termination.GAP_REACHED: -1.0 if gap is None else gap,
        }.get(result.termination, math.inf)
        _require(
            result.gap <= allowed,
            name,
            f"asked for a gap of {gap}, ends as {result.termination.value!r} with a gap of "
            f"{result.gap:.3g}",
        )


def check_options(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """A bad option is a ValueError of one line; nothing else is ever raised for an option."""
    instance = instance or small_instance()
    _refuses(name, instance, {**options, "no_such_option": 1}, "no_such_option")
    _refuses(name, instance, {**options, "time_limit": -1.0}, "time_limit")
    _refuses(name, instance, {**options, "gap": math.nan}, "gap")
    for option, default in method_of(name).options().items():
        if isinstance(default, bool):
            _refuses(name, instance, {**options, option: NONSENSE}, option)
        elif isinstance(default, int | float):
            _refuses(name, instance, {**options, option: NONSENSE}, option)
            for extreme in (-1, 0, math.nan) if isinstance(default, float) else (-1, 0):
                _refuses_or_solves(name, instance, {**options, option: extreme})
        elif isinstance(default, str | tuple) and default:
            _refuses(name, instance, {**options, option: NONSENSE}, NONSENSE)


def check_start(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """A method that declares `warm_starts` is never worse than its start; others say in a note
    that they did not use it. A start for other blocks is refused in one line."""
    instance = instance or small_instance()
    start = _solution("lagrangian", _reference(instance))
    result = _run(name, instance, start=start, **options)
    evaluation = _judged(name, instance, result, "with a start")
    if not method_of(name).warm_starts:
        noted = any("start was not used" in note for note in result.notes)
        _require(noted, name, "does not say that the start was not used")
        return
    known = evaluate(instance, start).delay
    _require(
        evaluation.delay <= known * (1 + MILP_TOLERANCE),
        name,
        f"declares warm_starts, but from {known:.6g} s comes to {evaluation.delay:.6g} s",
    )
    foreign = solve(instance, "greedy", restrict="coarse").solution
    _refuses(name, instance, {**options, "start": foreign}, "")


def check_result(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """The result says where it comes from, can be written as JSON, and its solution as a file."""
    instance = instance or small_instance()
    result = _run(name, instance, seed=3, **options)
    try:
        told = json.loads(json_text(result.as_dict()))
    except (TypeError, ValueError) as error:
        raise AssertionError(f"{name}: its result cannot be written as JSON: {error}") from error
    given = {"method": name, "seed": 3, "instance_hash": instance.content_hash}
    for key, value in given.items():
        _require(told[key] == value, name, f"its result says {key} {told[key]!r}, not {value!r}")
    _require(
        math.isfinite(result.train_s) and result.train_s >= 0,
        name,
        f"train_s is {result.train_s}, must be finite and >= 0",
    )
    for earlier, later in zip(result.trace, result.trace[1:], strict=False):
        _require(earlier.time_s <= later.time_s, name, "its trace goes back in time")
    for point in result.trace:
        _require(
            point.lower_bound <= result.lower_bound * (1 + ROUNDING),
            name,
            f"its trace has a bound of {point.lower_bound} s, its result {result.lower_bound} s",
        )
    solution = _solution(name, result)
    _require(
        solution.instance_hash in ("", instance.content_hash),
        name,
        "its solution names another instance",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "solution.npz"
        write_solution(path, solution)
        difference = _difference(solution, read_solution(path))
    _require(not difference, name, f"its solution comes back from a file with other {difference}")


def check_extremes(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """Feasible where nobody asks in a slot, where nobody ever asks, and where nothing is stored.

    Where the channel errors are as large as the channels, no rate can be guaranteed: no solution.
    """
    instance = instance or small_instance()
    silent = instance.requests.copy()
    silent[-1] = -1
    nobody = np.full_like(instance.requests, -1)
    nothing = replace(instance.network, storage=np.zeros_like(instance.network.storage))
    cases = {
        "a last slot without requests": replace(instance, requests=silent),
        "no requests at all": replace(instance, requests=nobody),
        "no storage": replace(instance, network=nothing),
    }
    for case, extreme in cases.items():
        result = _run(name, extreme, f"with {case}", **options)
        _judged(name, extreme, result, f"with {case}")
        _below(name, result, result.delay, f"its own delay with {case}")
    strength = np.linalg.norm(instance.channel_estimate, axis=3)
    hopeless = replace(
        instance, channel_error=1.01 * strength, channel_true=instance.channel_estimate
    )
    result = _run(name, hopeless, "with hopeless channels", **options)
    if result.solution is None:
        ended = result.termination is Termination.NO_SOLUTION
        _require(ended, name, f"ends as {result.termination.value!r} with hopeless channels")
    else:
        _judged(name, hopeless, result, "with hopeless channels")


def check_pipelined(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """The same rules hold where migrations run beside the broadcasts."""
    instance = replace(instance or small_instance(), schedule="pipelined")
    result = _run(name, instance, "with schedule pipelined", time_limit=2.0, **options)
    _judged(name, instance, result, "with schedule pipelined")
    _below(name, result, result.delay, "its own delay with schedule pipelined")


def check_spatial(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """The same rules hold where several messages may share the air, the bound included."""
    instance = replace(instance or small_instance(), delivery="spatial")
    result = _run(name, instance, "with delivery spatial", spatial_time=0.5, **options)
    _judged(name, instance, result, "with delivery spatial")
    _below(name, result, result.delay, "its own delay with delivery spatial")


def check_restrictions(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """A method with the option `restrict` keeps to every restriction that it accepts."""
    if "restrict" not in method_of(name).options():
        return
    instance = instance or small_instance()
    for restriction in (*RESTRICTIONS, "no-comp,unicast"):
        case = f"with restrict={restriction}"
        result = _run(name, instance, case, **{**options, "restrict": restriction})
        parts = frozenset(restriction.split(","))
        restricted = restricted_instance(instance, parts)
        _judged(name, restricted, result, case)
        _below(name, result, result.delay, f"its own delay {case}")
        for part in parts:
            broken = _breaks(part, restricted, _solution(name, result))
            _require(not broken, name, f"{case} {broken}")


def check_true_channel(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """Other true channels, inside the same error balls, change no decision: only the judge sees
    them."""
    instance = instance or small_instance()
    solution = _solution(name, _run(name, instance, **options))
    for seed in range(2):
        elsewhere = another_truth(instance, seed)
        difference = _difference(solution, _solution(name, _run(name, elsewhere, **options)))
        _require(not difference, name, f"with other true channels it changes its {difference}")


def check_future(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """An online method decides alike up to slot t, whatever comes after slot t.

    x[0] stays when everything changes from slot 0 on; the caches of slot t + 1 stay too, since they
    are chosen at the end of slot t; so do the messages of slot t.
    """
    if method_of(name).setting != "online":
        return
    instance = instance or small_instance()
    solution = _solution(name, _run(name, instance, **options))
    for t in range(-1, instance.slots - 1):
        for seed in range(FUTURES):
            elsewhere = another_future(instance, t, seed)
            answer = _solution(name, _run(name, elsewhere, **options))
            slots = slice(0, t + 1)
            same = {
                "caches": np.array_equal(solution.cache[: t + 2], answer.cache[: t + 2]),
                "sources": np.array_equal(solution.source[slots], answer.source[slots]),
                "messages": not _broadcast_difference(solution, answer, t + 1),
            }
            for what, unchanged in same.items():
                _require(
                    unchanged,
                    name,
                    f"is online, but its {what} up to slot {t} change with what comes after"
                    if t >= 0
                    else f"is online, but its {what} of slot 0 change with the requests of slot 0",
                )


def check_checkpoint(name: str, /, instance: Instance | None = None, **options: Any) -> None:
    """A method with the option `checkpoint` refuses a missing, empty or damaged one in one line."""
    if "checkpoint" not in options:
        return
    instance = instance or small_instance()
    given = find(options["checkpoint"], "checkpoint")
    with tempfile.TemporaryDirectory() as folder:
        missing = Path(folder) / "missing"
        _refuses(name, instance, {**options, "checkpoint": str(missing)}, str(missing))
        empty = Path(folder) / "empty"
        empty.mkdir()
        _refuses(name, instance, {**options, "checkpoint": str(empty)}, str(empty))
        for suffix in (".safetensors", ".json"):
            damaged = Path(folder) / f"damaged{suffix}"
            shutil.copytree(given, damaged)
            for file in damaged.rglob(f"*{suffix}"):
                file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
            _refuses(name, instance, {**options, "checkpoint": str(damaged)}, str(damaged))


def _require(holds: bool, name: str, text: str) -> None:
    if not holds:
        raise AssertionError(f"{name}: {text}")


def _run(name: str, instance: Instance, case: str = "", /, **keywords: Any) -> Result:
    try:
        result = solve(instance, name, **keywords)
    except Exception as error:
        raise AssertionError(f"{name}: {_said(error)} {case}".rstrip()) from error
    for note in result.notes:  # `solve` drops a bound that its own plan refutes, and says so
        if str(note).startswith("the method's lower bound"):
            raise AssertionError(f"{name}: {note} {case}".rstrip())
    return result


@lru_cache(maxsize=4)
def _reference(instance: Instance) -> Result:
    return solve(instance, "lagrangian")


def _said(error: Exception) -> str:
    lines = str(error).splitlines() or [""]
    return f"raises {type(error).__name__}: {lines[0]}"


def _solution(name: str, result: Result) -> Solution:
    if result.solution is None:
        raise AssertionError(f"{name}: no solution, ends as {result.termination.value!r}")
    return result.solution


def _judged(name: str, instance: Instance, result: Result, case: str = "") -> Evaluation:
    """Judge on the given instance: an `Answer` may name another one, which may be easier."""
    try:
        evaluation = evaluate(instance, _solution(name, result))
    except ValueError as error:
        raise AssertionError(f"{name}: the judge refuses it {case}: {error}") from error
    count = len(evaluation.violations)
    if count:
        violation = evaluation.violations[0]
        raise AssertionError(f"{name}: breaks {count} rules {case}, first {violation}")
    failed = result.termination is Termination.FAILED
    _require(not failed, name, f"ends as 'failed' with a feasible solution {case}")
    return evaluation


def _below(name: str, result: Result, delay: float, what: str) -> None:
    slack = MILP_TOLERANCE if result.bound_kind is BoundKind.MILP else ROUNDING
    _require(
        result.lower_bound <= delay * (1 + slack),
        name,
        f"its lower bound of {result.lower_bound:.9g} s exceeds {what}, {delay:.9g} s",
    )


def _refusal(name: str, instance: Instance, keywords: dict[str, Any]) -> str | None:
    """Return the one line of the ValueError, None where the method gave a result."""
    shown = ", ".join(f"{key}={_short(value)}" for key, value in keywords.items())
    try:
        solve(instance, name, **keywords)
    except ValueError as error:
        lines = str(error).splitlines()
        _require(len(lines) == 1, name, f"refuses {shown} in {len(lines)} lines, must be one")
        return lines[0]
    except Exception as error:
        said = f"{_said(error)}, must be a ValueError, for {shown}"
        raise AssertionError(f"{name}: {said}") from error
    return None


def _refuses(name: str, instance: Instance, keywords: dict[str, Any], word: str) -> None:
    shown = ", ".join(f"{key}={_short(value)}" for key, value in keywords.items())
    line = _refusal(name, instance, keywords)
    _require(line is not None, name, f"accepts {shown}, must raise ValueError")
    _require(word in str(line), name, f"refuses {shown} without naming {word!r}: {line}")


def _refuses_or_solves(name: str, instance: Instance, keywords: dict[str, Any]) -> None:
    if _refusal(name, instance, {"time_limit": 1.0, **keywords}) is None:
        _judged(name, instance, _run(name, instance, **{"time_limit": 1.0, **keywords}))


def _short(value: object) -> str:
    return "a solution" if isinstance(value, Solution) else repr(value)


def _breaks(restriction: str, instance: Instance, solution: Solution) -> str:
    """Say how a solution breaks a restriction; empty where it keeps to it."""
    strength = np.linalg.norm(instance.channel_estimate, axis=3) * np.sqrt(instance.network.power)
    strongest = strength.argmax(axis=2)
    if restriction == "no-migration":
        received = solution.source[solution.received]
        return "migrates between nodes" if (received < instance.nodes).any() else ""
    if restriction == "non-robust":
        return "" if solution.planned == "nominal" else "plans guaranteed rates"
    for t, broadcast in enumerate(solution.broadcasts):
        for users, nodes in zip(broadcast.users, broadcast.nodes, strict=True):
            if restriction == "unicast" and users.sum() > 1:
                return f"sends a message of slot {t} to {users.sum()} users"
            own = np.isin(np.flatnonzero(nodes), strongest[t, users]).all()
            if restriction == "no-comp" and (nodes.sum() > 1 or not own):
                return f"serves a user of slot {t} by other than its strongest node alone"
    return ""


def _difference(first: Solution, second: Solution) -> str:
    """Return the first of caches, sources, messages in which two solutions differ, or ''."""
    if not np.array_equal(first.cache, second.cache):
        return "caches"
    if not np.array_equal(first.source, second.source):
        return "sources"
    return _broadcast_difference(first, second, len(first.broadcasts))


def _broadcast_difference(first: Solution, second: Solution, slots: int) -> str:
    for left, right in zip(first.broadcasts[:slots], second.broadcasts[:slots], strict=True):
        for part in ("users", "nodes", "blocks", "duration", "mode", "message", "beam", "rate"):
            if not np.array_equal(getattr(left, part), getattr(right, part)):
                return f"messages ({part})"
    return ""


def _global_random_states() -> tuple[object, ...]:
    legacy = np.random.get_state(legacy=True)  # noqa: NPY002 - to see that nobody used it
    return random.getstate(), *(np.asarray(part).tolist() for part in legacy)
