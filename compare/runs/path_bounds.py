"""Online bounds of the paths of a suite, and the controlled gaps of the runs on them.

Of every path three things are kept, once for all runs on it: the certified hindsight bound, what
the path contributes to the online bound (`finecast.solvers.online_bound`), and the penalty
of holding a block of each kind at each set of nodes in each slot. The controlled gap of a run is
its delay, less the penalties along its caches, less the contribution of the path.

    DIR/online/HASH.npz    by the hash of the instance in the suite
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from finecast.compare.runs.pool import ended_quietly
from finecast.compare.runs.records import Record
from finecast.compare.runs.store import read_records, write_record
from finecast.problem.arrays import BoolArray, FloatArray, IntArray, checked, checked_number
from finecast.problem.files import read_archive, reading, write_archive
from finecast.problem.scenario import Scenario
from finecast.problem.solution import read_solution
from finecast.solvers.node_set_tables import node_sets
from finecast.solvers.registry import methods
from finecast.solvers.result import Callback, Progress

if TYPE_CHECKING:
    from finecast.solvers.online_bound import PathBound

FORMAT, VERSION = "finecast-path-bound", 1


@dataclass(frozen=True, eq=False)
class StoredBound:
    """What is known of one path.

    Parameters
    ----------
    hindsight_bound
        Certified lower bound on D for those who know all of it, s.
    online_bound
        What it contributes to the online bound, s: the mean over paths is the bound.
    penalty
        (T, C, 2^N) seconds per byte of a block of kind c held by a set of nodes when a slot begins.
    kind, block_size
        (J,) of every block: which, below C, and its bytes.
    solved_hash
        Content hash of the instance that it is for.
    """

    hindsight_bound: float
    online_bound: float
    penalty: FloatArray
    kind: IntArray
    block_size: IntArray
    solved_hash: str

    def __post_init__(self) -> None:
        for name in ("hindsight_bound", "online_bound"):
            object.__setattr__(self, name, checked_number(name, getattr(self, name)))
        shape = np.shape(self.penalty)
        if len(shape) != 3:
            raise ValueError(f"penalty: shape is {shape}, expected slots, kinds and sets")
        object.__setattr__(self, "penalty", checked("penalty", self.penalty, "float", shape))
        blocks, last = np.shape(self.kind)[:1], shape[1] - 1
        kind = checked("kind", self.kind, "int", blocks, low=0, high=last)
        size = checked("block_size", self.block_size, "int", blocks, low=0)
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "block_size", size)

    def controlled_gap(self, delay: float, cache: BoolArray) -> float:
        """Return what a policy lost on the path, s: never below 0.

        Parameters
        ----------
        delay
            Its delay, s.
        cache
            (T, N, J) what its nodes held when every slot began.

        Raises
        ------
        ValueError
            The caches are of another system.
        """
        slots, _, sets = self.penalty.shape
        shape = (slots, sets.bit_length() - 1, len(self.kind))
        if np.shape(cache) != shape:
            raise ValueError(f"cache: shape is {np.shape(cache)}, expected {shape}")
        penalties = self.penalty[np.arange(slots)[:, None], self.kind, node_sets(cache)]
        penalties *= self.block_size
        return float(delay - penalties.sum() - self.online_bound)


def path_bound_file(folder: Path, instance_hash: str) -> Path:
    """Return where what is known of a path is."""
    return folder / "online" / f"{instance_hash}.npz"


def write_path_bound(path: Path, bound: StoredBound) -> None:
    """Write what is known of a path.

    Raises
    ------
    FormatError
        The file cannot be written.
    """
    header = {
        "hindsight_bound": bound.hindsight_bound,
        "online_bound": bound.online_bound,
        "solved_hash": bound.solved_hash,
    }
    arrays = {"penalty": bound.penalty, "kind": bound.kind, "block_size": bound.block_size}
    write_archive(path, FORMAT, VERSION, header, arrays)


def read_path_bound(path: str | os.PathLike[str]) -> StoredBound:
    """Read what is known of a path.

    Raises
    ------
    FormatError
        The file is missing, damaged, foreign, of a newer version, or its data break a rule.
    """
    with reading(path):
        header, arrays = read_archive(path, FORMAT, VERSION)
        return StoredBound(
            hindsight_bound=header["hindsight_bound"],
            online_bound=header["online_bound"],
            penalty=arrays["penalty"],
            kind=arrays["kind"],
            block_size=arrays["block_size"],
            solved_hash=str(header["solved_hash"]),
        )


@dataclass(frozen=True)
class NetworkPaths:
    """Paths of one network whose bounds are asked for.

    Parameters
    ----------
    scenario, seed
        What draws the network.
    paths
        Numbers of the paths, with the hashes of their instances in the suite.
    """

    scenario: Scenario
    seed: int
    paths: tuple[tuple[int, str], ...]


def bound_paths(
    networks: Iterable[NetworkPaths],
    folder: Path,
    *,
    workers: int = 1,
    callback: Callback | None = None,
) -> None:
    """Write the bounds of all paths that the folder does not hold yet, network by network.

    Parameters
    ----------
    networks
        What is asked for.
    folder
        Result folder, which this process alone writes to.
    workers
        Networks at the same time.
    callback
        Is told how many networks are done.

    Raises
    ------
    FormatError
        The folder cannot be written.
    ValueError
        There is no online bound for a scenario; says why.
    """
    missing = []
    for network in networks:
        left = [
            (path, digest)
            for path, digest in network.paths
            if not path_bound_file(folder, digest).exists()
        ]
        if left:
            missing.append(replace(network, paths=tuple(left)))
    with closing(_bounded(missing, workers)) as results:
        for done, bounds in enumerate(results, start=1):
            for digest, bound in bounds:
                write_path_bound(path_bound_file(folder, digest), bound)
            if callback is not None:
                callback(Progress("online bounds of networks", done, len(missing)))


def _bounded(
    networks: list[NetworkPaths], workers: int
) -> Generator[list[tuple[str, StoredBound]]]:
    """Yield the bounds of the networks as they are done, in any order."""
    if workers == 1 or len(networks) < 2:
        for network in networks:
            yield bounds_of(network)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky import get_reusable_executor

    finished = False
    try:
        pool = Parallel(workers, backend="loky", batch_size=1, return_as="generator_unordered")
        jobs = (delayed(_in_a_worker)(network, os.getpid()) for network in networks)
        with ended_quietly(pool(jobs)) as results:
            yield from results
        finished = True
    finally:
        get_reusable_executor().shutdown(wait=finished, kill_workers=not finished)


def _in_a_worker(network: NetworkPaths, caller: int) -> list[tuple[str, StoredBound]]:
    from finecast.solvers.signals import die_with_parent

    if caller == os.getppid():
        die_with_parent(caller)  # or a killed comparison would leave its processes behind
    return bounds_of(network)


def with_gaps(folder: Path) -> None:
    """Complete the records on paths whose bounds are known by now: bounds, and controlled gaps.

    Parameters
    ----------
    folder
        Result folder, which this process alone writes to.

    Raises
    ------
    FormatError
        A record, a solution or a bound is damaged, or the folder cannot be written.
    """
    bounds: dict[str, StoredBound] = {}
    for record in read_records(folder):
        file = path_bound_file(folder, record.instance_hash)
        if record.path is None or record.online_bound is not None or not file.exists():
            continue
        if record.instance_hash not in bounds:
            bounds[record.instance_hash] = read_path_bound(file)
        completed = with_gap(record, bounds[record.instance_hash], folder)
        if completed is not record:
            write_record(folder, completed, None)


def with_gap(record: Record, bound: StoredBound, folder: Path) -> Record:
    """Return a record with the bounds of its path, and its controlled gap if it is online.

    Runs with another delivery, schedule or restriction than the instance as drawn are of another
    system: they stay as they are.

    Parameters
    ----------
    record
        Of a run on that path.
    bound
        Of the path.
    folder
        Result folder, where its solution is.
    """
    if record.restrict or record.solved_hash != bound.solved_hash:
        return record
    method = methods().get(record.method)
    gap = None
    if method is not None and method.setting == "online" and record.delay is not None:
        cache = read_solution(folder / record.solution).cache
        gap = bound.controlled_gap(record.delay, cache)
    return replace(
        record,
        hindsight_bound=bound.hindsight_bound,
        online_bound=bound.online_bound,
        controlled_gap=gap,
    )


def bounds_of(network: NetworkPaths) -> list[tuple[str, StoredBound]]:
    """Return the bounds of the paths of one network, each with the hash of its instance.

    Raises
    ------
    ValueError
        There is no online bound for the scenario; says why.
    """
    from finecast.solvers.online_bound import path_bounds  # slow: not for processes that only run

    numbers, digests = zip(*network.paths, strict=True)
    found = path_bounds(network.scenario, [network.seed], numbers)
    return [(digest, stored(bound)) for digest, bound in zip(digests, found, strict=True)]


def stored(bound: PathBound) -> StoredBound:
    """Return what is kept of a path's bound."""
    from finecast.solvers.penalties import kinds_of

    library = bound.instance.library
    return StoredBound(
        hindsight_bound=bound.hindsight,
        online_bound=bound.online,
        penalty=bound.penalty,
        kind=kinds_of(bound.instance),
        block_size=library.block_size,
        solved_hash=bound.instance.content_hash,
    )
