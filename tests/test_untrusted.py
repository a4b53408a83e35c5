"""Every reader meets files that somebody, or a bad disk, has changed.

A changed file is read, or refused in one line that starts with a file. Nothing else is raised. The
changes have fixed seeds: a few hundred in the default run, thousands with `-m slow`.
"""

from __future__ import annotations

import json
import random
import re
import tomllib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from judge_cases import FIRST, SECOND, SHARED, hand_broadcast, hand_instance, hand_solution
from repository import DATA, TINY
from safetensors.numpy import save_file
from synthetic_records import synthetic_records

from finecast.cli.common import load_instance
from finecast.compare.report.learning import read_learning
from finecast.compare.runs.best_known import read_best_known
from finecast.compare.runs.path_bounds import StoredBound, read_path_bound, write_path_bound
from finecast.compare.runs.store import collect, open_folder, write_record
from finecast.compare.runs.suite import draw, read_suite
from finecast.learners.runs.checkpoints import read_checkpoint
from finecast.learners.runs.config import run_config
from finecast.learners.runs.log import read_log
from finecast.problem.checkpoints import library_from_checkpoints
from finecast.problem.files import FormatError, read_archive, reading, write_archive
from finecast.problem.instance import read_instance, write_instance
from finecast.problem.library import read_library
from finecast.problem.measured import read_channels
from finecast.problem.solution import read_solution, write_solution
from finecast.problem.toml import read_toml
from finecast.problem.trace import read_trace

FEW, MANY = 25, 400
"""Changed files of every kind in the default run, and with `-m slow`."""

HOSTILE: list[Any] = [
    None, True, False, -1, 0, 1, 7, 2**31, 2**62, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e308,
    -1e308, 1e-320, float("nan"), float("inf"), "", "x", "nan", "[/]", "[red]", ":cd:", "\x1b[31m",
    "a\nb", "../x", "/dev/zero", "a" * 300, "\u202e", "\ud800", [], {}, [1, [2]], ["x"] * 3,
    {"x": {"y": 1}}, [[[[[[]]]]]],
]  # fmt: skip
DEEP: Any = []
for _ in range(400):
    DEEP = [DEEP]


@dataclass(frozen=True)
class Kind:
    """A kind of file: how a whole one is made in a folder, how it is read, how it is changed."""

    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    change: Callable[[Path, random.Random], None]


def hostile(rng: random.Random) -> Any:
    return DEEP if rng.random() < 0.03 else rng.choice(HOSTILE)


def change_value(tree: Any, rng: random.Random) -> Any:
    """Put a hostile value in a random place of a tree, take the place away, or add one."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    walk(tree)
    if not places or rng.random() < 0.03:
        return hostile(rng)
    node, key = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del node[key]
        case 1 if isinstance(node, dict):
            node[rng.choice(["x", "", "\x1b[2J", "\ud800", "seed"])] = hostile(rng)
        case _:
            node[key] = hostile(rng)
    return tree


def change_bytes(path: Path, rng: random.Random) -> None:
    """Cut the file short, or put other bytes in a few places."""
    content = bytearray(path.read_bytes())
    if rng.random() < 0.3:
        del content[rng.randrange(len(content) + 1) :]
    for _ in range(rng.randrange(4)):
        if content:
            content[rng.randrange(len(content))] = rng.randrange(256)
    path.write_bytes(content)


def change_json(path: Path, rng: random.Random) -> None:
    if rng.random() < 0.2:
        return change_bytes(path, rng)
    path.write_text(json.dumps(change_value(json.loads(path.read_text()), rng)))
    return None


def change_json_line(path: Path, rng: random.Random) -> None:
    if rng.random() < 0.2:
        return change_bytes(path, rng)
    lines = path.read_text().splitlines()
    at = rng.randrange(len(lines))
    lines[at] = json.dumps(change_value(json.loads(lines[at]), rng))
    path.write_text("\n".join(lines) + "\n")
    return None


def change_toml(path: Path, rng: random.Random) -> None:
    if rng.random() < 0.2:
        return change_bytes(path, rng)
    tree = change_value(tomllib.loads(path.read_text()), rng)
    table = tree if isinstance(tree, dict) else {"x": tree}
    lines = [f"{json.dumps(k)} = {as_toml(v)}" for k, v in table.items()]
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    return None


def as_toml(value: Any) -> str:
    match value:
        case dict():
            return (
                "{" + ", ".join(f"{json.dumps(k)} = {as_toml(v)}" for k, v in value.items()) + "}"
            )
        case list():
            return "[" + ", ".join(map(as_toml, value)) + "]"
        case None:
            return '"none"'
        case float() if value != value or abs(value) == float("inf"):
            return str(value)
    return json.dumps(value)


def change_archive(path: Path, rng: random.Random) -> None:
    """Change header or arrays, with a hash that matches."""
    if rng.random() < 0.2:
        return change_bytes(path, rng)
    kind = path.stem  # as the functions that make such files name them
    header, arrays = read_archive(path, f"finecast-{kind}", 1)
    if rng.random() < 0.4:
        header = change_value(header, rng)
        if not isinstance(header, dict):
            header = {"name": header}
    else:
        change_array(arrays, rng)
    write_archive(path, f"finecast-{kind}", 1, header, arrays)
    return None


def change_array(arrays: dict[str, Any], rng: random.Random) -> None:
    name = rng.choice(sorted(arrays))
    array = np.array(arrays.pop(name))
    match rng.randrange(7):
        case 0:
            return  # it is missing
        case 1:
            array = array[..., None]
        case 2:
            array = array.reshape(-1)[: array.size // 2]
        case 3:
            array = np.real(array).astype(
                rng.choice(["U3", "f2", "c8", "u1", "i8", "M8[s]", "?", "S2"])
            )
        case 4:
            array = np.zeros((0, *array.shape[1:]), array.dtype)
        case _ if array.size:
            kind = array.dtype.kind
            worst = {"b": [True, False], "i": [-1, -(2**63), 2**62], "f": [np.nan, -1.0, 1e300],
                     "c": [np.inf, 1e300, 0]}.get(kind, [0])  # fmt: skip
            array = array.reshape(-1).copy()
            array[rng.randrange(array.size)] = rng.choice(worst)
            array = array.reshape(np.shape(array))
    arrays[name] = array


def change_npz(path: Path, rng: random.Random) -> None:
    if rng.random() < 0.4:
        return change_bytes(path, rng)
    arrays = dict(np.load(path))
    change_array(arrays, rng)
    np.savez_compressed(path, **arrays)
    return None


def change_csv(path: Path, rng: random.Random) -> None:
    if rng.random() < 0.3:
        return change_bytes(path, rng)
    cells = path.read_text().split(",")
    cells[rng.randrange(len(cells))] = str(hostile(rng))[:200]
    path.write_text(",".join(cells), encoding="utf-8", errors="replace")
    return None


def change_any_file(folder: Path, rng: random.Random) -> None:
    change_bytes(rng.choice(sorted(folder.rglob("*.safetensors"))), rng)


def copied(source: Path, name: str = "") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        target = folder / (name or source.name)
        target.write_bytes(source.read_bytes())
        return target

    return make


def written(name: str, text: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_text(text)
        return folder / name

    return make


def made_scenario(folder: Path) -> Path:
    text = TINY.read_text().replace("../libraries/tiny.json", str(DATA / "libraries" / "tiny.json"))
    return written("scenario.toml", f"{text}\ntrace = 'trace.csv'\n")(made_trace(folder).parent)


def made_trace(folder: Path) -> Path:
    return written("trace.csv", "slot,user,model\n0,0,1\n0,2,2\n")(folder)


def made_instance(folder: Path) -> Path:
    write_instance(folder / "instance.npz", hand_instance())
    return folder / "instance.npz"


def made_solution(folder: Path) -> Path:
    broadcast = hand_broadcast(SHARED, FIRST, SECOND)
    write_solution(folder / "solution.npz", hand_solution(broadcast))
    return folder / "solution.npz"


def made_path_bound(folder: Path) -> Path:
    bound = StoredBound(
        80.0, 90.0, np.ones((2, 2, 4)), np.array([0, 1, 1]), np.array([10, 20, 5]), "x"
    )
    write_path_bound(folder / "path-bound.npz", bound)
    return folder / "path-bound.npz"


CHANNEL = np.arange(24.0).reshape(2, 3, 2, 2) * (1 + 1j)


def made_npz(folder: Path) -> Path:
    np.savez_compressed(folder / "channel.npz", channel=CHANNEL)
    return folder / "channel.npz"


def made_mat(folder: Path) -> Path:
    scipy.io.savemat(folder / "channel.mat", {"channel": CHANNEL}, do_compression=True)
    return folder / "channel.mat"


def made_record(folder: Path) -> Path:
    record = synthetic_records(1)[0]
    write_record(open_folder(folder / "runs"), record, None)
    return folder / "runs" / "records" / f"{record.key}.json"


def made_suite(folder: Path) -> Path:
    made = copied(DATA / "suites" / "smoke.toml")(folder)
    text = made.read_text().replace("../", f"{DATA}/")
    made.write_text(text)
    return made


def made_hashes(folder: Path) -> Path:
    made_suite(folder)
    return copied(DATA / "suites" / "smoke.hashes.json")(folder)


def made_policy(folder: Path) -> Path:
    for file in (DATA / "checkpoints" / "dcg").iterdir():
        copied(file)(folder)
    return folder / "policy.json"


def made_models(folder: Path) -> Path:
    (folder / "models").mkdir()
    for name, tensors in {"a": ("shared", "head"), "b": ("shared", "other")}.items():
        save_file(
            {key: np.full((3, 2), len(key), np.float32) for key in tensors},
            folder / "models" / f"{name}.safetensors",
        )
    return folder / "models"


def read_run(path: Path) -> object:
    table = read_toml(path)
    with reading(path):
        return run_config(table, path.parent)


def read_first_draw(path: Path) -> object:
    suite = read_suite(path.parent / "smoke.toml")
    return draw(suite, suite.classes[0], suite.classes[0].seeds[0], check=False)


LOG = "".join(f'{{"step": {i}, "loss": 0.5, "held_out_gap": 0.{i}}}\n' for i in range(1, 6))

KINDS = {
    "scenario": Kind(made_scenario, lambda path: load_instance(str(path), 0), change_toml),
    "trace": Kind(made_trace, lambda path: read_trace(path, 2, 3, 3), change_csv),
    "library": Kind(copied(DATA / "libraries" / "tiny.json"), read_library, change_json),
    "instance": Kind(made_instance, read_instance, change_archive),
    "solution": Kind(made_solution, read_solution, change_archive),
    "bounds of a path": Kind(made_path_bound, read_path_bound, change_archive),
    "channels .npz": Kind(made_npz, lambda path: read_channels(path, CHANNEL.shape), change_npz),
    "channels .mat": Kind(made_mat, lambda path: read_channels(path, CHANNEL.shape), change_bytes),
    "models": Kind(made_models, library_from_checkpoints, change_any_file),
    "suite": Kind(made_suite, read_first_draw, change_toml),
    "hashes of a suite": Kind(made_hashes, read_first_draw, change_json),
    "record": Kind(made_record, lambda path: collect(path.parents[1]), change_json),
    "best known": Kind(copied(DATA / "best_known.json"), read_best_known, change_json),
    "options of a run": Kind(
        written(
            "run.toml",
            'learner = "hindsight"\nscenarios = ["tiny"]\nsteps = 5\nseed = 1\nthreads = 1\n'
            "[source]\ndraws = 3\nsynthetic = 0.5\n[options]\nwidth = 8\nrounds = 2\n"
            "passes = 0.5\n",
        ),
        read_run,
        change_toml,
    ),
    "log of a run": Kind(
        written("log.jsonl", LOG), lambda path: read_log(path.parent), change_json_line
    ),
    "learning curve": Kind(written("log.jsonl", LOG), read_learning, change_json_line),
    "policy": Kind(made_policy, read_checkpoint, change_json),
}


def read_changed(kind: Kind, folder: Path, seed: int) -> str:
    """Return what a reader says of a changed file, empty where it reads it."""
    rng = random.Random(seed)
    path = kind.make(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # an overflow ends in a refusal
            kind.change(path, rng)
            kind.read(path)
    except FormatError as error:
        message = str(error)
        assert message.startswith("/"), message  # the file, or one that it names
        assert "\n" not in message
        assert re.search(r": \S.{5,}", message)
        return message
    return ""


def check_changed(kind: Kind, folder: Path, seeds: range) -> None:
    refused = 0
    for seed in seeds:
        (folder / str(seed)).mkdir()
        try:
            refused += bool(read_changed(kind, folder / str(seed), seed))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert refused  # or nothing was changed


@pytest.mark.parametrize("kind", KINDS)
def test_changed_files(kind: str, tmp_path: Path) -> None:
    """Changed files of every kind are read or refused in one line."""
    check_changed(KINDS[kind], tmp_path, range(FEW))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many_changed_files(kind: str, tmp_path: Path) -> None:
    """The same with other seeds, and many of them."""
    check_changed(KINDS[kind], tmp_path, range(FEW, FEW + MANY))


@pytest.mark.parametrize("kind", KINDS)
def test_whole_files_are_read(kind: str, tmp_path: Path) -> None:
    """Without a change nothing is refused, so that a refusal above is one of the change."""
    KINDS[kind].read(KINDS[kind].make(tmp_path))
