"""Kill `finecast compare` and `finecast train` at random moments, resume, and look for losses.

    python3 benchmarks/reliability.py
    python3 benchmarks/reliability.py --compare-kills 10 --train-kills 4 --json

Every session is ended by `kill -9` at a moment drawn evenly from the time that an uninterrupted one
takes, start of the processes included; half of the time its process alone, half of the time its
whole group. The same command goes on, until a session comes to its end. Then the folder is compared
with that of an uninterrupted run, and the next round begins in a new folder.

Counted as losses are: a record or state that was there and is gone or changed, a solution that the
judge finds otherwise than its record, rows or weights that differ, a file that is left half
written, a session that refuses to go on, a process that outlives its session.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

# No threads of libraries in the process that is forked.
os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")

import psutil
import pyarrow.parquet

from finecast.compare.runs.store import MARK, instance_path, read_records
from finecast.learners.runs.checkpoints import Checkpoint, read_checkpoint, states
from finecast.learners.runs.log import read_log
from finecast.problem.evaluation import evaluate
from finecast.problem.instance import read_instance
from finecast.problem.solution import read_solution

PRELOADED = (
    "finecast.cli.compare", "finecast.cli.train", "finecast.compare.runs.runner",
    "finecast.learners.algorithms.maasn", "finecast.learners.runs.training",
)  # fmt: skip
"""What a session needs is loaded before the first fork, so that it has not to load it again."""

GRACE_S = 3.0
"""For the processes of a killed session to end."""

SUITE = """
name = "reliability"
methods = [{ method = "greedy" }, { method = "lru" }, { method = "popular" }]
[[classes]]
name = "small"
seeds = "0-19"
[classes.scenario]
library.synthetic = { models = 4, blocks = 12, total_gb = 0.5 }
nodes = { count = 2, antennas = 2, storage_share = 0.4 }
users.count = 4
slots = 2
"""

SCENARIO = """
name = "reliability"
slots = 4
library.synthetic = { models = 3, blocks = 8, total_gb = 0.1 }
nodes = { count = 2, antennas = 2, storage_share = 0.4 }
users.count = 3
demand.persistence = 0.7
"""

TRAINING = [
    "--learner", "maasn-da", "--steps", "61", "--resume",
    *(word for setting in (
        "validate_every=10", "checkpoint_every=7", "log_every=3", "held_out=2", "source.draws=4",
        "source.price_steps=4", "options.batch=2", "options.width=8", "options.embedding=4",
        "options.rows=32", "options.play_every=2",
    ) for word in ("--set", setting)),
]  # fmt: skip
"""States, evaluations, rows and the end fall on different steps."""

TIMES = {
    "wall_s", "cpu_s", "train_s", "rates_s", "peak_memory_bytes", "base_memory_bytes",
    "started_at", "trace", "work",
}  # fmt: skip
"""What two runs of the same do not share."""


@dataclass(frozen=True)
class Session:
    """Exit code, last line on stderr, seconds, and processes left, of one command."""

    code: int
    said: str
    seconds: float
    left: int


def main() -> None:
    """Kill, resume, compare, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--compare-kills", type=int, default=100)
    parser.add_argument("--train-kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    for module in PRELOADED:
        import_module(module)
    told = {}
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        suite, scenario = work / "suite.toml", work / "scenario.toml"
        suite.write_text(SUITE)
        scenario.write_text(SCENARIO)
        training = ["train", str(scenario), *TRAINING]
        for what, kills, command, state, ended in (
            ("compare", given.compare_kills, ["compare", str(suite)], _records, _rows),
            ("train", given.train_kills, training, _states, _training),
        ):
            draws = random.Random(f"{given.seed} {what}")
            (work / what).mkdir()
            told[what] = campaign(work / what, command, kills, draws, state, ended)
            if not given.json:
                print(what, *(f"{name}: {value}" for name, value in told[what].items()), sep="\n  ")
    if given.json:
        print(json.dumps(told, indent=1))
    sys.exit(any(row["losses"] for row in told.values()))


def campaign(
    work: Path,
    command: list[str],
    kills: int,
    draws: random.Random,
    state: Callable[[Path], dict[str, Any]],
    ended: Callable[[Path], Any],
) -> dict[str, Any]:
    """Kill and resume a command until it was killed so often; return what was counted.

    Parameters
    ----------
    work
        Folder for the results.
    command
        Words after `finecast`, without `-o`.
    kills
        How often.
    draws
        Draws the moments.
    state
        What a folder holds, by name: none may go or change. Raises ValueError where it is damaged.
    ended
        What a finished folder comes to; the same for all rounds.
    """
    began = time.monotonic()
    whole = session([*command, "-o", str(work / "whole")], None)
    if whole.code != 0:
        raise SystemExit(f"the uninterrupted run failed: {whole.said}")
    expected, parts = ended(work / "whole"), names(work / "whole")
    count: Counter[str] = Counter()
    losses: list[str] = []
    while count["kills"] < kills:
        folder, held = work / f"round-{count['rounds']}", {}
        count["rounds"] += 1
        while True:
            after = draws.uniform(0.0, whole.seconds) if count["kills"] < kills else None
            group = draws.random() < 0.5
            ran = session([*command, "-o", str(folder)], after, group)
            where = f"round {count['rounds']}, session {count['sessions']}"
            count["sessions"] += 1
            if ran.left:
                losses.append(f"{where}: {ran.left} processes outlive it")
            if ran.code == -signal.SIGKILL:
                count["kills"] += 1
            elif ran.code != 0:
                losses.append(f"{where}: exit code {ran.code}: {ran.said}")
                break
            try:
                now = state(folder)
            except ValueError as error:
                losses.append(f"{where}: {error}")
                break
            for name, content in held.items():
                if now.get(name, content) != content or (name not in now and state is _records):
                    losses.append(f"{where}: {name} is gone or changed")
            count["kills with work done"] += bool(now) and ran.code != 0
            held = now
            if ran.code == 0:
                differing = differences(ended(folder), expected)
                losses += [f"{where}: {what}" for what in differing]
                if names(folder) != parts:
                    losses.append(f"{where}: left over {sorted(names(folder) ^ parts)}")
                break
    return {
        "kills": count["kills"],
        "kills with work done": count["kills with work done"],
        "rounds": count["rounds"],
        "sessions": count["sessions"],
        "seconds uninterrupted": round(whole.seconds, 1),
        "seconds in all": round(time.monotonic() - began),
        "losses": losses,
    }


def session(words: list[str], after: float | None, group: bool = True) -> Session:
    """Run a command in a fork of this process, and kill it after some seconds."""
    began = time.monotonic()
    with tempfile.TemporaryFile() as errors:
        leader = os.fork()
        if leader == 0:
            _become(words, errors.fileno())
        until = math.inf if after is None else began + after
        while (ended := os.waitpid(leader, os.WNOHANG))[0] == 0:
            if time.monotonic() > until:
                (os.killpg if group else os.kill)(leader, signal.SIGKILL)
                until = math.inf
            time.sleep(0.005)
        errors.seek(0)
        lines = errors.read().decode().strip().splitlines() or [""]
    seconds = time.monotonic() - began
    return Session(os.waitstatus_to_exitcode(ended[1]), lines[-1], seconds, _outliving(leader))


def _become(words: list[str], errors: int) -> NoReturn:
    """Be the command `finecast` in a session of its own, from its start to its end."""
    from finecast.cli.main import main

    os.setsid()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(errors, 2)
    sys.argv = ["finecast", *words]
    try:
        main()
    except SystemExit as ending:
        os._exit(ending.code if isinstance(ending.code, int) else 1)
    except BaseException as error:
        os.write(2, repr(error).encode())
    os._exit(99)


def _outliving(leader: int) -> int:
    """Return how many processes of a session are there yet some seconds after its end."""
    until = time.monotonic() + GRACE_S
    while True:
        found = 0
        for pid in psutil.pids():
            try:
                of_session = os.getsid(pid) == leader
                found += of_session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
            except (OSError, psutil.Error):
                continue
        if not found or time.monotonic() > until:
            return found
        time.sleep(0.05)


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Return what differs between the ends of two runs, by name."""
    return [
        f"{name} is {found.get(name)!r:.80}, uninterrupted {expected.get(name)!r:.80}"
        for name in sorted({*found, *expected})
        if found.get(name) != expected.get(name)
    ]


def names(folder: Path) -> set[str]:
    """Return the files in a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def _records(folder: Path) -> dict[str, Any]:
    """Return the records of a result folder, each with a solution that the judge confirms."""
    if not (folder / MARK).exists():
        return {}
    for record in read_records(folder):
        instance = read_instance(instance_path(folder, record.instance_hash))
        delay = evaluate(instance, read_solution(folder / record.solution)).delay
        if record.status != "completed" or delay != record.delay:
            raise ValueError(f"record {record.key}: {record.status}, {record.delay}, {delay}")
    return {path.name: path.read_bytes() for path in (folder / "records").glob("*.json")}


def _rows(folder: Path) -> dict[str, Any]:
    """Return the fields of the rows of a finished comparison without times."""
    table = pyarrow.parquet.read_table(folder / "runs.parquet").to_pylist()
    return {
        f"{row['label']} on seed {row['instance_seed']}, {number}: {name}": value
        for number, row in enumerate(table)
        for name, value in row.items()
        if name not in TIMES
    }


def _states(folder: Path) -> dict[str, Any]:
    """Return the states and the best policy of a training, which read back whole."""
    return {path.name: _weights(read_checkpoint(path)) for path in states(folder)}


def _training(folder: Path) -> dict[str, Any]:
    """Return weights, best policy and log of a finished training without times."""
    rows = {
        f"row {number}": {name: value for name, value in row.items() if name not in TIMES}
        for number, row in enumerate(read_log(folder))
    }
    policy = read_checkpoint(folder / "policy.json")
    known = {"step of the policy": policy.step, "metrics of the policy": dict(policy.metrics)}
    return {**_states(folder), **_weights(policy), **known, **rows}


def _weights(checkpoint: Checkpoint) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in checkpoint.tensors.items()}


if __name__ == "__main__":
    main()
