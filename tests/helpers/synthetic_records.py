"""Records of runs that never were, as a suite of many methods would leave them."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from finecast.compare.runs.records import Record, Status

SYSTEMS = {
    # label: (method, restrict, delivery, factor on the delay, seconds, gives a bound)
    "lagrangian": ("lagrangian", "", "sequential", 1.004, 4.0, True),
    "exact": ("exact", "", "sequential", 1.0005, 30.0, True),
    "greedy": ("greedy", "", "sequential", 1.09, 0.4, True),
    "popularity": ("popularity", "", "sequential", 1.35, 0.1, False),
    "lru": ("lru", "", "sequential", 1.52, 0.05, False),
    "coarse-grained": ("lagrangian", "coarse", "sequential", 2.1, 3.0, True),
    "no CoMP": ("lagrangian", "no-comp", "sequential", 1.18, 3.0, True),
    "no migration": ("lagrangian", "no-migration", "sequential", 1.12, 3.0, True),
    "non-robust": ("lagrangian", "non-robust", "sequential", 1.05, 3.0, True),
    "spatial": ("lagrangian", "", "spatial", 0.93, 8.0, True),
}
FAILURES = {
    "exact": (Status.TIMED_OUT, "killed after 66 s, its hard limit"),
    "popularity": (Status.INFEASIBLE, "storage: node 2 holds 4.1 GB of 4 GB"),
}
CLASSES = ("small-hard", "mid", "slow-links")


def synthetic_records(
    instances: int, seed: int = 0, labels: tuple[str, ...] = tuple(SYSTEMS)
) -> list[Record]:
    """Return one run of each label on each of `instances` instances, in three classes."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(instances):
        name = CLASSES[i % len(CLASSES)]
        optimum = float(rng.lognormal(4.0, 0.6))
        bound = optimum * (1 - rng.uniform(0.0005, 0.004))
        digest = hashlib.sha256(f"{seed} {i}".encode()).hexdigest()
        for label in labels:
            records.append(_record(rng, label, name, i, digest, optimum, bound))
    return records


def _record(
    rng: np.random.Generator,
    label: str,
    name: str,
    seed: int,
    digest: str,
    optimum: float,
    bound: float,
) -> Record:
    method, restrict, delivery, factor, seconds, bounded = SYSTEMS[label]
    delay = optimum * (1 + (factor - 1) * rng.uniform(0.4, 1.6))
    wall = seconds * float(rng.lognormal(0, 0.4))
    own_bound = bound if not restrict else delay * 0.99
    if delivery == "spatial":
        own_bound = 0.9 * bound
    times = np.sort(rng.uniform(0.02, 1.0, 8)) * wall
    trace = tuple(
        (float(t), float(delay * (1 + 0.8 * np.exp(-k))), float(own_bound * (1 - 0.5 * np.exp(-k))))
        for k, t in enumerate(times)
    )
    gap = delay / own_bound - 1
    beams = 0.3 * gap
    record = Record(
        key=hashlib.sha256(f"{digest} {label}".encode()).hexdigest()[:32],
        suite="synthetic",
        suite_version=1,
        instance_class=name,
        scenario="vision-small.toml",
        instance_seed=seed,
        instance_hash=digest,
        solved_hash=digest if delivery == "sequential" else digest[::-1],
        label=label,
        method=method,
        options="{}",
        restrict=restrict,
        delivery=delivery,
        schedule="sequential",
        seed=0,
        status=Status.COMPLETED,
        feasible=True,
        guaranteed=restrict != "non-robust",
        delay=None if restrict == "non-robust" else delay,
        realised_delay=delay * 1.4 if restrict == "non-robust" else delay * 0.97,
        lower_bound=own_bound if bounded else None,
        bound_kind="certified" if bounded else "none",
        gap=gap if bounded else None,
        beamforming_gap=beams if bounded else None,
        placement_gap=(1 + gap) / (1 + beams) - 1 if bounded else None,
        termination="completed",
        wall_s=wall,
        cpu_s=wall,
        peak_memory_bytes=int(4e8 * rng.uniform(1, 2)),
        time_limit_s=60.0,
        trace=trace if bounded else ((wall / 2, delay, None),),
        cpu="Synthetic processor",
        cores=2,
        memory_bytes=24 * 2**30,
        os="Linux",
        workers=2,
        versions={"finecast": "0.1.0", "Python": "3.11.2"},
        started_at="2026-01-01T00:00:00Z",
    )
    if label in FAILURES and rng.random() < 0.08:
        status, error = FAILURES[label]
        record = replace(
            record,
            status=status,
            error=error,
            delay=None,
            realised_delay=None,
            gap=None,
            beamforming_gap=None,
            placement_gap=None,
            lower_bound=None,
            bound_kind="none",
            feasible=None,
            trace=(),
        )
    return record


ONE = synthetic_records(1)[0]


def run(label: str, instance: str, delay: float | None, **changes: object) -> Record:
    """Return a record with a delay; a bound of 10 s is known of every instance."""
    given: dict[str, object] = {
        "key": f"{label}-{instance}-{changes.get('seed', 0)}-{changes.get('delivery', '')}",
        "label": label,
        "method": "lagrangian",
        "instance_hash": instance,
        "solved_hash": instance,
        "instance_class": "c",
        "delay": delay,
        "status": Status.FAILED if delay is None else Status.COMPLETED,
        "realised_delay": delay,
        "lower_bound": 10.0,
        "bound_kind": "certified",
        "trace": (),
        "wall_s": 1.0,
        "suite": "paper",
    }
    return replace(ONE, **{**given, **changes})  # type: ignore[arg-type]
