"""Run what is missing: every method of a suite on every instance, one record a run.

Runs go through joblib, with loky on one machine or Dask on many; each is watched from outside
(`finecast.compare.runs.supervisor`). Only the calling process writes to the result folder, a record
as soon as its run ends: a crash, `kill -9` or a full disk loses the runs in flight and nothing
else, and the next call goes on from there.

Methods are timed under the same conditions: a process that has loaded its libraries and solved a
tiny instance by the same method, a fixed number of threads, and the rates of the messages prepared
beforehand (their time is a field of its own). Online methods get their slots one at a time from
`finecast.solvers.online`, whatever runs them.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from finecast.compare.runs.path_bounds import NetworkPaths, bound_paths, with_gaps
from finecast.compare.runs.pool import ended_quietly
from finecast.compare.runs.records import Record, Status, canonical_json, run_key
from finecast.compare.runs.store import (
    collect,
    edited,
    instance_path,
    known_keys,
    one_instance_each,
    open_folder,
    read_records,
    remove_rates,
    sole_writer,
    solution_path,
    write_record,
)
from finecast.compare.runs.suite import (
    InstanceClass,
    MethodEntry,
    Suite,
    changed,
    chosen_entries,
    draw_all,
    read_suite,
    scenario_of,
)
from finecast.compare.runs.supervisor import close, run_supervised
from finecast.problem.files import FormatError, concerning, write_atomically
from finecast.problem.instance import write_instance
from finecast.problem.scenario import scenario_settings
from finecast.solvers.own_methods import any_method, source_digest
from finecast.solvers.restrictions import check_restrictions
from finecast.solvers.result import Callback, Progress
from finecast.solvers.solve import check_work, versions
from finecast.solvers.workers import RESTARTS, Engine, dask_client

OF_SOLVE = ("gap", "order", "spatial_time", "work")
"""Options that `finecast.solvers.solve.solve` takes for every method."""

MOST_SECONDS_A_UNIT = 10.0
"""Seconds that a unit of work may take before its run is killed: 1 to 4 on an idle machine."""

Tell = Callable[[int, int, Record | None], None]


@dataclass(frozen=True, kw_only=True)
class Run:
    """What one run is asked; fields as in `finecast.compare.runs.records.Record`.

    `code` is the hash of the file of a method that is not registered.
    """

    suite: str
    suite_version: int
    instance_class: str
    scenario: str
    instance_seed: int
    path: int | None
    point: str | None
    instance_hash: str
    label: str
    method: str
    options: Mapping[str, Any]
    restrict: str
    delivery: str
    schedule: str
    seed: int
    time_limit_s: float
    hard_limit_s: float
    rates_limit_s: float
    memory_limit_bytes: int
    code: str = ""

    @property
    def key(self) -> str:
        """Hash of all that can change the answer."""
        asked = ("instance_hash", "method", "options", "restrict", "delivery", "schedule", "seed",
                 "time_limit_s", "memory_limit_bytes")  # fmt: skip
        given = {name: getattr(self, name) for name in asked}
        if self.code:  # of a method of the user's own: edited, it is another one
            given["method"] = f"{self.method} {self.code}"
        return run_key(**given)


@dataclass(frozen=True)
class SuiteRuns:
    """What running a suite has come to.

    Parameters
    ----------
    suite
        The suite.
    folder
        The result folder.
    records
        Of the runs asked for, as `finecast.compare.runs.store.read_records` orders them.
    asked, known, done
        How many runs were asked for, had a record before, and were made now.
    """

    suite: Suite
    folder: Path
    records: tuple[Record, ...]
    asked: int
    known: int
    done: int


def run_suite(
    suite: str | os.PathLike[str] | Suite,
    folder: str | os.PathLike[str],
    *,
    methods: Iterable[str] | None = None,
    options: Mapping[str, Any] | None = None,
    classes: Iterable[str] | None = None,
    instances: Iterable[int] | None = None,
    seeds: Iterable[int] | None = None,
    time_limit_s: float | None = None,
    workers: int = 1,
    threads: int = 1,
    engine: Engine = "local",
    scheduler: str | None = None,
    retry_failed: bool = False,
    callback: Callback | None = None,
) -> SuiteRuns:
    """Run the methods of a suite on its instances: only what the folder does not hold yet.

    Parameters
    ----------
    suite
        A suite, its file, or the name of a shipped one, such as "smoke".
    folder
        Result folder, made if there is none.
    methods
        Labels of the suite's methods, or names of any; the suite's by default.
    options
        Options for every method; `delivery`, `schedule` and `restrict` too, and keys of the
        scenario as in `users.count`, for all classes.
    classes, instances, seeds, time_limit_s
        As in `plan`.
    workers, threads, engine, scheduler, retry_failed
        As in `compare`.
    callback
        Is told how many instances are drawn, how many networks have online bounds, where the suite
        has paths, then how many runs are done.

    Raises
    ------
    FormatError
        The suite is bad, the generator has drifted, or the folder cannot be written.
    OSError
        The processes of the pool were killed time and again, or there is no scheduler or worker.
    ValueError
        Something named is unknown, or a number is not allowed.
    """
    if scheduler is not None and engine != "dask":
        raise ValueError("scheduler: is for engine dask")
    changes, options = scenario_settings(options or {})
    chosen = changed(suite if isinstance(suite, Suite) else read_suite(suite), changes)
    entries = None if methods is None and not options else chosen_entries(chosen, methods, options)
    # A refusal leaves no folder behind.
    classes = None if classes is None else list(classes)
    instances = None if instances is None else list(instances)
    check_asked(chosen, entries, classes, instances, time_limit_s)
    home = open_folder(folder)

    def drawn(done: int, total: int) -> None:
        if callback is not None:
            callback(Progress("drawing instances", done, total))

    def tell(done: int, total: int, record: Record | None) -> None:
        if callback is not None:
            note = "" if record is None else f"{record.label} on {record.instance_class}"
            callback(Progress("runs", done, total, note))

    # From here on nobody else writes to the folder, which the plan does too.
    with sole_writer(home):
        runs = plan(
            chosen,
            home,
            entries=entries,
            classes=classes,
            instances=instances,
            seeds=seeds,
            time_limit_s=time_limit_s,
            drawn=drawn,
        )
        bound_paths(_networks(chosen, runs), home, workers=workers, callback=callback)
        counts = _compare(runs, home, workers, threads, engine, scheduler, retry_failed, tell)
    keys = {run.key for run in runs}
    records = tuple(record for record in read_records(home) if record.key in keys)
    return SuiteRuns(chosen, home, records, **counts)


def _networks(suite: Suite, runs: Iterable[Run]) -> list[NetworkPaths]:
    """Return the networks whose paths the runs are on."""
    classes = {one.name: one for one in suite.classes}
    paths: dict[tuple[str, int], dict[int, str]] = {}
    for run in runs:
        if run.path is not None:
            of_network = paths.setdefault((run.instance_class, run.instance_seed), {})
            of_network[run.path] = run.instance_hash
    return [
        NetworkPaths(scenario_of(suite, classes[name]), seed, tuple(of_network.items()))
        for (name, seed), of_network in paths.items()
    ]


def check_asked(
    suite: Suite,
    given: Sequence[MethodEntry] | None,
    classes: Iterable[str] | None,
    instances: Iterable[int] | None,
    time_limit_s: float | None,
) -> tuple[set[str], set[int]]:
    """Return the names of the classes asked for and the seeds of their instances.

    Parameters
    ----------
    suite, given, classes, instances, time_limit_s
        As in `plan`, with `given` for its entries.

    Raises
    ------
    FormatError
        The scenario of a class is bad.
    ValueError
        An unknown class, instance, method or option, or a time limit that is none.
    """
    if time_limit_s is not None and not 0 < time_limit_s < math.inf:
        raise ValueError(f"time_limit_s: {time_limit_s} is not allowed, must be finite and > 0")
    # Whatever is named must exist, before anything is drawn.
    if given is None:
        with concerning(suite.file):
            for entry in suite.methods:
                check_entry(entry)
    for entry in given or ():
        check_entry(entry)
    names = [kind.name for kind in suite.classes]
    chosen = set(names) if classes is None else set(classes)
    for name in sorted(chosen):
        if name not in names:
            raise ValueError(
                f"classes: {name!r} is none of {', '.join(names)} of suite {suite.name}"
            )
    drawn_seeds = {seed for kind in suite.classes for seed, _ in suite.draws(kind)}
    of_instances = drawn_seeds if instances is None else set(instances)
    for seed in sorted(of_instances - drawn_seeds):
        raise ValueError(
            f"instances: no class of suite {suite.name} has an instance of seed {seed}"
        )
    for kind in suite.classes:
        if kind.files is None:
            scenario_of(suite, kind)
    return chosen, of_instances


def plan(
    suite: Suite,
    folder: Path,
    *,
    entries: Iterable[MethodEntry] | None = None,
    classes: Iterable[str] | None = None,
    instances: Iterable[int] | None = None,
    seeds: Iterable[int] | None = None,
    time_limit_s: float | None = None,
    drawn: Callable[[int, int], None] | None = None,
) -> list[Run]:
    """Return all runs of a suite, instance by instance; keep the instances in the folder.

    A folder that holds runs of the same suite and version on other instances is refused.

    Every instance of the suite is drawn and checked against its frozen hash, also those that are
    not asked for.

    Parameters
    ----------
    suite
        The suite.
    folder
        Result folder.
    entries
        Methods in place of the suite's, for every class; None for the suite's own.
    classes
        Names of the classes to run; None for all.
    instances
        Seeds of the instances to run, of those that a class has; None for all.
    seeds
        Seeds of the methods in place of the suite's.
    time_limit_s
        Time limit in place of the suite's and its classes'.
    drawn
        Told how many instances are drawn, of how many.

    Raises
    ------
    FormatError
        The generator has drifted, the folder holds runs of another suite of the same name and
        version, or it cannot be written.
    ValueError
        An unknown class, method, option or restriction.
    """
    given = None if entries is None else list(entries)
    chosen, of_instances = check_asked(suite, given, classes, instances, time_limit_s)
    # All instances are drawn and checked, those chosen are kept, each with all its runs.
    known = one_instance_each(folder, read_records(folder))
    of_methods = list(suite.seeds if seeds is None else seeds)
    total = sum(len(suite.draws(kind)) for kind in suite.classes)
    every = [*suite.methods, *(given or ())]
    codes = {entry.method: source_digest(entry.method) for entry in every}
    runs: dict[str, Run] = {}
    for count, case in enumerate(draw_all(suite), start=1):
        if drawn is not None:
            drawn(count, total)
        place = (suite.name, suite.version, case.instance_class.name, case.seed, case.path)
        held = known.get(place, case.hash)
        if held != case.hash:
            raise FormatError(folder, edited(place, held, case.hash))
        if case.instance_class.name not in chosen or case.seed not in of_instances:
            continue
        kept = instance_path(folder, case.hash)
        if not kept.exists():
            write_instance(kept, case.instance)
        for entry in suite.entries(case.instance_class) if given is None else given:
            for seed in of_methods:
                limits = _limits(suite, case.instance_class, entry, time_limit_s)
                run = Run(
                    suite=suite.name,
                    suite_version=suite.version,
                    instance_class=case.instance_class.name,
                    scenario=case.instance.name,
                    instance_seed=case.seed,
                    path=case.path,
                    point=json.dumps(point) if (point := case.instance_class.point) else None,
                    instance_hash=case.hash,
                    label=entry.label,
                    method=entry.method,
                    options=entry.options,
                    restrict=",".join(sorted(check_restrictions(entry.restrict))),
                    delivery=entry.delivery or case.instance.delivery,
                    schedule=entry.schedule or case.instance.schedule,
                    seed=seed,
                    code=codes[entry.method],
                    **limits,
                )
                same = runs.setdefault(run.key, run)
                if same is not run:
                    raise FormatError(
                        suite.file,
                        f"methods {same.label!r} and {run.label!r} ask for the same run",
                    )
    # The suite as it was run stands beside its rows.
    write_atomically(
        folder / "suites" / f"{suite.name}.json", suite.model_dump_json(indent=1).encode()
    )
    return list(runs.values())


def compare(
    runs: Iterable[Run],
    folder: Path,
    *,
    workers: int = 1,
    threads: int = 1,
    engine: Engine = "local",
    scheduler: str | None = None,
    retry_failed: bool = False,
    tell: Tell | None = None,
) -> dict[str, int]:
    """Run what has no record yet, and collect all records to Parquet.

    Parameters
    ----------
    runs
        From `plan`.
    folder
        Result folder, which this process alone writes to.
    workers
        Runs at the same time, for engine `local`; Dask has its own workers.
    threads
        Threads that a run may use.
    engine, scheduler
        `local`: joblib's loky. `dask`: the Dask cluster with this scheduler's address.
    retry_failed
        Run those again that failed, timed out or ran out of memory.
    tell
        Told of the runs done, of how many in all, and the last record.

    Returns
    -------
    Runs `asked`, `known` before, and `done` now.

    Raises
    ------
    FormatError
        The folder cannot be written.
    OSError
        The processes of the pool were killed time and again, or there is no scheduler or worker.
    """
    with sole_writer(folder):
        return _compare(list(runs), folder, workers, threads, engine, scheduler, retry_failed, tell)


def _compare(
    asked: list[Run],
    folder: Path,
    workers: int,
    threads: int,
    engine: Engine,
    scheduler: str | None,
    retry_failed: bool,
    tell: Tell | None,
) -> dict[str, int]:
    """Run what has no record yet, as `compare` does, in a folder that nobody else writes to."""
    repeated = (Status.FAILED, Status.TIMED_OUT, Status.OUT_OF_MEMORY) if retry_failed else ()
    known = known_keys(folder, but=repeated)
    missing = [run for run in asked if run.key not in known]
    counts = {"asked": len(asked), "known": len(asked) - len(missing), "done": 0}
    if tell is not None:
        tell(counts["known"], counts["asked"], None)
    results = _results(missing, folder, workers, threads, engine, scheduler)
    try:
        with closing(results):
            for record, solution in results:
                write_record(folder, record, solution)
                counts["done"] += 1
                if tell is not None:
                    tell(counts["known"] + counts["done"], counts["asked"], record)
        remove_rates(folder)
    finally:
        with_gaps(folder)
        collect(folder)
    return counts


def execute(
    run: Run,
    instance: bytes | str,
    *,
    rates: str | None,
    workers: int,
    threads: int,
    caller: int | None,
) -> tuple[Record, bytes | None]:
    """Run one and return its record and the content of its solution file.

    Parameters
    ----------
    run
        What is asked.
    instance
        The instance file, or its content.
    rates
        Folder for rate tables that runs share; None for none.
    workers, threads
        As in `compare`.
    caller
        Process of the caller, with which a process of its pool dies; None elsewhere.
    """
    if caller is not None and caller == os.getppid():
        from finecast.solvers.signals import die_with_parent

        die_with_parent(caller)  # or a killed comparison would leave its runs behind
    started = datetime.now(UTC).isoformat(timespec="seconds")
    asked = asdict(run)
    outcome, solution = run_supervised({**asked, "rates": rates}, instance, threads=threads)
    del asked["rates_limit_s"], asked["code"]
    asked["options"] = canonical_json(asked["options"])
    fields: dict[str, Any] = {
        **asked,
        "key": run.key,
        "solved_hash": "",
        "versions": outcome.get("versions") or versions(),
        "workers": workers,
        "threads": threads,
        "started_at": started,
        **outcome,
    }
    if solution:
        fields["solution"] = solution_path(run.key)
    fields["status"] = str(fields["status"])
    for name in ("slot_delay", "notes"):
        fields[name] = tuple(fields.get(name, ()))
    fields["trace"] = tuple(tuple(point) for point in fields.get("trace", ()))
    return Record(**fields), solution or None


def _results(
    missing: list[Run],
    folder: Path,
    workers: int,
    threads: int,
    engine: Engine,
    scheduler: str | None,
) -> Generator[tuple[Record, bytes | None]]:
    """Yield the results as the runs end, in any order."""
    if not missing:
        return
    if engine == "dask":
        yield from _by_dask(missing, folder, threads, scheduler)
    elif workers == 1:
        try:
            for run in missing:
                yield execute(run, str(instance_path(folder, run.instance_hash)),
                              rates=str(folder / "rates"), workers=1, threads=threads,
                              caller=None)  # fmt: skip
        finally:
            close()
    else:
        yield from _by_loky(missing, folder, workers, threads)


def _by_loky(
    missing: list[Run], folder: Path, workers: int, threads: int
) -> Generator[tuple[Record, bytes | None]]:
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    left = {run.key: run for run in missing}
    finished = False
    try:
        for attempt in range(RESTARTS + 1):
            pool = Parallel(
                workers, backend="loky", batch_size=1, pre_dispatch="2*n_jobs",
                return_as="generator_unordered",
            )  # fmt: skip
            jobs = (
                delayed(execute)(
                    run, str(instance_path(folder, run.instance_hash)),
                    rates=str(folder / "rates"), workers=workers, threads=threads,
                    caller=os.getpid(),
                )
                for run in list(left.values())
            )  # fmt: skip
            try:
                with ended_quietly(pool(jobs)) as results:
                    for record, solution in results:
                        del left[record.key]
                        yield record, solution
                break
            except TerminatedWorkerError:
                if attempt == RESTARTS:
                    raise ChildProcessError(
                        f"processes of the pool were killed {attempt + 1} times; "
                        f"{len(left)} runs are missing"
                    ) from None
        finished = True
    finally:
        get_reusable_executor().shutdown(wait=finished, kill_workers=not finished)


def _by_dask(
    missing: list[Run], folder: Path, threads: int, scheduler: str | None
) -> Generator[tuple[Record, bytes | None]]:
    from joblib import Parallel, delayed, parallel_config

    with dask_client(scheduler) as client:
        from distributed import KilledWorker

        workers = sum(client.nthreads().values())
        jobs = (
            delayed(execute)(
                run, instance_path(folder, run.instance_hash).read_bytes(),
                rates=None, workers=workers, threads=threads, caller=None,
            )
            for run in missing
        )  # fmt: skip
        with parallel_config(backend="dask", client=client):
            pool = Parallel(-1, batch_size=1, pre_dispatch="2*n_jobs",
                            return_as="generator_unordered")  # fmt: skip
            try:
                yield from pool(jobs)
            except KilledWorker as error:
                raise ChildProcessError(
                    f"Dask's workers were killed time and again: {error}"
                ) from None


def check_entry(entry: MethodEntry) -> None:
    """Refuse what every run of this entry would refuse."""
    chosen = any_method(entry.method)
    known = chosen.options()
    for name in entry.options:
        if name not in known and name not in OF_SOLVE:
            raise ValueError(
                f"method {entry.label!r}: option {name!r} is unknown to {entry.method!r}; it has "
                f"{', '.join([*known, *OF_SOLVE])}"
            )
    if "work" in entry.options:
        with concerning(f"method {entry.label!r}"):
            check_work(entry.options["work"], chosen, entry.delivery == "spatial")
    check_restrictions(entry.restrict)
    if entry.restrict and "restrict" not in known:
        raise ValueError(f"method {entry.label!r}: {entry.method!r} has no restricted systems")


def _limits(
    suite: Suite, one: InstanceClass, entry: MethodEntry, time_limit_s: float | None
) -> dict[str, Any]:
    limit = time_limit_s or one.time_limit_s or suite.time_limit_s
    memory_gb = one.memory_limit_gb or suite.memory_limit_gb
    # A limit of work is no limit of time: the clock ends only a run that hangs.
    work = entry.options.get("work")
    allowed = max(limit, MOST_SECONDS_A_UNIT * work) if isinstance(work, int | float) else limit
    return {
        "time_limit_s": limit,
        "hard_limit_s": allowed + suite.grace_s,
        "rates_limit_s": suite.rates_limit_s,
        "memory_limit_bytes": round(1e9 * memory_gb),
    }
