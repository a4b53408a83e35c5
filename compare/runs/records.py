"""Record: everything that is known of one run, one JSON object a line and one Parquet row.

A number that does not exist (the delay of a run without a feasible solution, a gap without a
bound) is null, never NaN or infinite, so that rows mean the same in JSON, in Parquet and in a
spreadsheet.
"""

from __future__ import annotations

import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import cache
from typing import Any

from finecast.problem.files import is_number, parse_json

SCHEMA_VERSION = 4

ADDED = {
    2: ("path", "hindsight_bound", "online_bound", "controlled_gap"),
    3: (
        "point",
        "longest_area_delay",
        "p95_area_delay",
        "interference_over_noise_db",
        "wide_share",
        "in_time_ratio",
    ),
    4: ("work",),
}
"""Fields by the version that brought them: older records stand for their defaults."""


class Status(StrEnum):
    """How a run ended, as its row says it."""

    COMPLETED = "completed"
    """There is a solution and the judge finds it feasible, whatever stopped the method."""
    NO_SOLUTION = "no-solution"
    """The method came to an end without one: its limit was too short, or there is none."""
    INFEASIBLE = "infeasible"
    """The judge found broken rules; `error` names the first."""
    FAILED = "failed"
    """The method raised an error or its process died; `error` is its last line."""
    TIMED_OUT = "timed-out"
    """Still running at its hard limit, and killed from outside."""
    OUT_OF_MEMORY = "out-of-memory"
    """Over its memory limit, and killed from outside, or refused memory."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """One run of one method on one instance.

    Parameters
    ----------
    key
        Hash of instance, method, options, seed and limits (`run_key`): no two records of a result
        folder share it.
    suite, suite_version
        Name and version of the suite.
    instance_class
        Name of the instance's class in the suite.
    scenario
        Name of the scenario that the instance was drawn from.
    instance_seed, instance_hash
        Seed that drew the instance, and its content hash as frozen in the suite. Rows with the
        same hash are paired: every method had the same instance.
    path
        Number of the instance's path on the network that `instance_seed` drew; null where the suite
        draws one instance a seed.
    point
        Values of the sweep at the instance's class by key of the scenario, JSON in the order of the
        sweep; null where nothing is varied.
    solved_hash
        Content hash of the instance as solved; another where the run asked for another delivery
        or schedule.
    label
        Name of the method's entry in the suite, such as `lagrangian` or `coarse-grained`: one
        method with one set of options. What tables and profiles compare.
    method
        Registered name.
    options
        Options given to the method, canonical JSON (sorted keys), without the next three.
    restrict
        Restrictions, sorted and joined by commas; empty for the full system.
    delivery, schedule
        `sequential` or `spatial`; `sequential` or `pipelined`.
    seed
        Seed of the method's random choices.
    status
        A value of `Status`.
    error
        One line, empty when all went well.
    feasible, violations
        The judge's word and the number of broken rules; null and 0 without a solution.
    guaranteed
        Every planned rate holds over all error balls (false for nominal plans).
    delay
        D, guaranteed, s; null without a feasible, guaranteed solution. Nominal plans have a
        `realised_delay` all the same.
    lower_bound, bound_kind
        s, and what the bound rests on: `certified`, `milp` or `none`; null without a bound.
    gap, beamforming_gap, placement_gap
        delay / lower_bound - 1, and its two factors: (1 + a)(1 + b) = 1 + gap.
    hindsight_bound
        Certified lower bound on D of this path, s, for those who know all of it; null where no
        online bounds were computed, as the next two.
    online_bound
        What this path contributes to the online bound, s: the *mean* over paths is at most the mean
        delay of any online method (docs/online.md). On one path it bounds nothing.
    controlled_gap
        D less the penalties along the caches of the run less `online_bound`, s: what the policy
        lost, >= 0 on every path. Null for methods that are not online.
    mean_slot_delay to wide_share
        The judge's metrics, as in `finecast.problem.evaluation.Evaluation`.
    slot_delay
        (T,) s.
    termination
        Why the method stopped, as in `finecast.solvers.result.Termination`; empty when it did not
        return.
    wall_s, cpu_s, train_s
        Seconds of the method itself, of all its threads, and of training before. For a run killed
        from outside, seconds until then.
    rates_s
        Seconds that the rates of the messages took when they were prepared beforehand, outside
        `wall_s`; null where the method computed them itself, inside `wall_s`.
    work
        Units that the method counted (docs/methods.md), about seconds of one core, the same on
        every machine where no clock ended it; null where it did not return.
    peak_memory_bytes
        Largest resident memory of the process during the run, libraries included.
    base_memory_bytes
        Resident memory of the process when the run began: what libraries alone take.
    time_limit_s, hard_limit_s, memory_limit_bytes
        What the method was told, when it would have been killed, and how much memory it had.
    trace
        Anytime curve: (time s, best delay s or null, bound s), by the wall clock of the run.
    notes
        What the method says a user should know.
    cpu, cores, memory_bytes, os
        The machine: processor, logical cores, physical memory, operating system.
    workers, threads
        Runs at the same time, and threads that each was held to.
    versions
        Of finecast, Python and the libraries, by name.
    commit
        Commit of the checkout, with `+` when it had changes; empty outside a checkout.
    started_at
        UTC, ISO 8601.
    solution
        Path of the solution file in the result folder; empty without one.
    schema_version
        Of these fields.
    """

    key: str
    suite: str
    suite_version: int
    instance_class: str
    scenario: str
    instance_seed: int
    instance_hash: str
    solved_hash: str
    label: str
    method: str
    options: str
    restrict: str
    delivery: str
    schedule: str
    seed: int
    status: str
    error: str = ""
    feasible: bool | None = None
    violations: int = 0
    guaranteed: bool | None = None
    delay: float | None = None
    lower_bound: float | None = None
    bound_kind: str = "none"
    gap: float | None = None
    beamforming_gap: float | None = None
    placement_gap: float | None = None
    path: int | None = None
    point: str | None = None
    hindsight_bound: float | None = None
    online_bound: float | None = None
    controlled_gap: float | None = None
    mean_slot_delay: float | None = None
    realised_delay: float | None = None
    planned_delay: float | None = None
    sequential_delay: float | None = None
    pipelined_delay: float | None = None
    mean_completion: float | None = None
    p95_completion: float | None = None
    in_time_ratio: float | None = None
    request_hit_ratio: float | None = None
    block_hit_ratio: float | None = None
    byte_hit_ratio: float | None = None
    migrated_bytes: int | None = None
    cloud_bytes: int | None = None
    storage_saved_bytes: float | None = None
    broadcast_gain: float | None = None
    transmit_energy: float | None = None
    outages: int | None = None
    longest_area_delay: float | None = None
    p95_area_delay: float | None = None
    interference_over_noise_db: float | None = None
    wide_share: float | None = None
    slot_delay: tuple[float | None, ...] = ()
    termination: str = ""
    wall_s: float = 0.0
    cpu_s: float = 0.0
    train_s: float = 0.0
    rates_s: float | None = None
    work: float | None = None
    peak_memory_bytes: int | None = None
    base_memory_bytes: int | None = None
    time_limit_s: float | None = None
    hard_limit_s: float | None = None
    memory_limit_bytes: int | None = None
    trace: tuple[tuple[float, float | None, float | None], ...] = ()
    notes: tuple[str, ...] = ()
    cpu: str = ""
    cores: int = 0
    memory_bytes: int = 0
    os: str = ""
    workers: int = 1
    threads: int = 1
    versions: Mapping[str, str]
    commit: str = ""
    started_at: str = ""
    solution: str = ""
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """Return one line of JSON, keys in the order of the fields."""
        return json.dumps(_finite(asdict(self)), allow_nan=False, separators=(",", ":"))


def record_from_json(line: str | bytes) -> Record:
    """Return the record in one line of JSON.

    Raises
    ------
    ValueError
        Not JSON, of a newer schema, or a field is missing, unknown or of another kind.
    """
    data = parse_json(line if isinstance(line, str) else line.decode())
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    version = data.get("schema_version")
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        raise ValueError(
            f"schema_version: {version!r} is not known, this finecast reads up to {SCHEMA_VERSION}"
        )
    kinds = field_kinds()
    for later, names in ADDED.items():
        if version < later:
            data = {**dict.fromkeys(names), **data, "schema_version": SCHEMA_VERSION}
    for name in data:
        if name not in kinds:
            raise ValueError(f"{name}: unknown field")
    for name, kind in kinds.items():
        if name not in data:
            raise ValueError(f"{name}: is missing")
        if not _is_a(data[name], kind):
            raise ValueError(f"{name}: {str(data[name])[:100]!r} is not allowed here")
    try:
        options = parse_json(data["options"])
    except ValueError as error:
        raise ValueError(f"options: is not valid JSON: {error}") from None
    if not isinstance(options, dict):
        raise ValueError(f"options: {data['options'][:100]!r} is not allowed, must be an object")
    data["slot_delay"] = tuple(data["slot_delay"])
    data["notes"] = tuple(data["notes"])
    data["trace"] = tuple((t, d, b) for t, d, b in data["trace"])
    return Record(**data)


def run_key(
    *,
    instance_hash: str,
    method: str,
    options: Mapping[str, Any],
    restrict: str,
    delivery: str,
    schedule: str,
    seed: int,
    time_limit_s: float | None,
    memory_limit_bytes: int | None,
) -> str:
    """Return the hash of what one run is asked: the same question is not asked twice.

    Versions, commit and machine are not in it: a folder resumed after an update keeps its rows,
    and every row says what made it. Comparing two versions takes two folders.

    Parameters
    ----------
    instance_hash, method, options, restrict, delivery, schedule, seed
        As in `Record`.
    time_limit_s, memory_limit_bytes
        Limits that change what a method can find.
    """
    asked = canonical_json(
        {
            "instance": instance_hash,
            "method": method,
            "options": dict(options),
            "restrict": restrict,
            "delivery": delivery,
            "schedule": schedule,
            "seed": seed,
            "time_limit_s": None if time_limit_s is None else float(time_limit_s),
            "memory_limit_bytes": memory_limit_bytes,
        }
    )
    return hashlib.sha256(asked.encode()).hexdigest()[:32]


def drawn_from(seed: int, path: int | None) -> str:
    """Return in words which draw of its class an instance is."""
    return f"seed {seed}" if path is None else f"seed {seed}, path {path}"


def canonical_json(value: Any) -> str:
    """Return JSON with sorted keys and no spaces: equal values, equal texts."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@cache
def field_kinds() -> dict[str, Any]:
    """Return the fields of a record in order, and their types."""
    hints = typing.get_type_hints(Record)  # slow
    return {field.name: hints[field.name] for field in fields(Record)}


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _is_a(value: Any, kind: Any) -> bool:
    if isinstance(kind, types.UnionType):
        return any(_is_a(value, part) for part in typing.get_args(kind))
    if kind is float:
        # As a column of Parquet holds it: whole numbers are exact.
        return is_number(value) and (isinstance(value, float) or abs(value) <= 2**53)
    if kind is int:
        return type(value) is int and -(2**63) <= value < 2**63  # as a column of Parquet holds it
    origin = typing.get_origin(kind)
    if origin is tuple:
        parts = typing.get_args(kind)
        if not isinstance(value, list | tuple):
            return False
        if parts[-1] is Ellipsis:
            return all(_is_a(item, parts[0]) for item in value)
        return len(value) == len(parts) and all(map(_is_a, value, parts))
    if origin is not None:  # a mapping of texts
        return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())
    return isinstance(value, kind)
