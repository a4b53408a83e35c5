"""Result folders: one record file for each run, solutions, instances, and the Parquet of it all.

    DIR/records/KEY.json       one line of JSON for each run, written when it ends
    DIR/solutions/KEY.npz      its solution
    DIR/instances/HASH.npz     the instances, by their hash in the suite
    DIR/suites/NAME.json       the suites as they were run
    DIR/online/HASH.npz        bounds of the paths of networks, by the hash of the instance
    DIR/runs.parquet           all records, collected; can be made again from the records

Every file is written beside its place and renamed, so that a killed writer or a full disk leaves
the old state: a run counts when its record is there, and its solution is there before that.
"""

from __future__ import annotations

import io
import os
import shutil
import types
import typing
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

from finecast.compare.runs.records import (
    Record,
    Status,
    drawn_from,
    field_kinds,
    record_from_json,
)
from finecast.problem import files
from finecast.problem.files import (
    FormatError,
    read_bytes,
    read_text,
    reading,
    remove_temporaries,
    write_atomically,
)

PARQUET = "runs.parquet"
FOLDERS = ("records", "solutions", "instances", "suites", "online")
Place = tuple[str, int, str, int, int | None]
"""Suite, version, class, seed and path of an instance."""

MARK = "finecast-results.txt"
MARK_TEXT = "A result folder of finecast, version 1; see docs/comparing.md.\n"


def open_folder(path: str | os.PathLike[str]) -> Path:
    """Return a result folder, made if there is none, cleared of what a killed writer left.

    Raises
    ------
    FormatError
        The path is a file, a folder of something else, or cannot be written.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise FormatError(folder, "is a file, expected a result folder")
    marked = (folder / MARK).exists()
    if folder.is_dir() and not marked and not _half_made(folder):
        raise FormatError(folder, "is a folder of something else, expected a result folder")
    # The mark comes first: a folder that is half made, on a full disk say, is known for ours.
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not marked:
            write_atomically(folder / MARK, MARK_TEXT.encode())
        for name in FOLDERS:
            (folder / name).mkdir(exist_ok=True)
    except OSError as error:
        raise FormatError(folder, f"cannot be written: {error.strerror}") from None
    # What lies there half written may be what another comparison is writing just now.
    with suppress(FormatError), sole_writer(folder):
        remove_temporaries(folder, MARK, PARQUET)
        for name in FOLDERS:
            remove_temporaries(folder / name, "*.json", "*.npz")
    return folder


def _half_made(folder: Path) -> bool:
    """Return whether all that a folder holds is what the making of a result folder leaves."""
    for entry in folder.iterdir():
        ours = entry.name == ".lock" or entry.name.startswith(f".{MARK}.")
        empty = entry.name in FOLDERS and entry.is_dir() and not any(entry.iterdir())
        if not ours and not empty:
            return False
    return True


def result_folder(path: str | os.PathLike[str]) -> Path:
    """Return an existing result folder.

    Raises
    ------
    FormatError
        There is none.
    """
    folder = Path(path)
    if not (folder / MARK).is_file():
        what = "is not a result folder" if folder.exists() else "no such folder"
        raise FormatError(folder, f"{what}, expected one that `finecast compare` made")
    return folder


def sole_writer(folder: Path) -> AbstractContextManager[None]:
    """Hold a result folder alone, as `finecast.problem.files.sole_writer` does.

    Raises
    ------
    FormatError
        Another process is writing to it, or it cannot be written.
    """
    return files.sole_writer(folder, "comparison")


def write_record(folder: Path, record: Record, solution: bytes | None) -> None:
    """Write what a run came to: first its solution, then its record.

    Parameters
    ----------
    folder
        Result folder.
    record
        Its `solution` names the file that `solution` is written to.
    solution
        Content of that file; None without one.

    Raises
    ------
    FormatError
        The folder cannot be written, as when the disk is full; nothing half-written is left.
    """
    if solution is not None:
        write_atomically(folder / record.solution, solution)
    write_atomically(folder / "records" / f"{record.key}.json", f"{record.to_json()}\n".encode())


def known_keys(folder: Path, *, but: Iterable[str] = ()) -> set[str]:
    """Return the keys of the runs that have a record.

    Parameters
    ----------
    folder
        Result folder.
    but
        Leave out runs that ended with one of these values of `Status`.
    """
    left_out = set(but)
    if left_out:
        return {record.key for record in read_records(folder) if record.status not in left_out}
    return {path.stem for path in (folder / "records").glob("*.json")}


def read_records(path: str | os.PathLike[str]) -> list[Record]:
    """Return all records of a result folder, by suite, class, instance, method and seed.

    Raises
    ------
    FormatError
        It is no result folder, or a record is damaged; says which.
    """
    folder = result_folder(path)
    records = []
    for file in (folder / "records").glob("*.json"):
        text = read_text(file)
        with reading(file):
            try:
                record = record_from_json(text)
            except ValueError as error:
                raise FormatError(file, f"not a record: {error}") from None
        if record.key != file.stem:
            raise FormatError(file, f"holds the record {record.key!r} of another run")
        if record.solution not in ("", solution_path(record.key)):
            raise FormatError(file, f"solution: {record.solution!r} is not in the folder")
        records.append(record)
    return sorted(records, key=_order)


def collect(folder: Path) -> Path:
    """Write all records to one Parquet file and return where it is.

    Raises
    ------
    FormatError
        A record is damaged, or the file cannot be written.
    """
    import pyarrow
    import pyarrow.parquet

    records = read_records(folder)
    columns = {
        name: pyarrow.array(
            [_column_value(getattr(record, name)) for record in records], _arrow_type(kind)
        )
        for name, kind in field_kinds().items()
    }
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), buffer, compression="zstd")
    write_atomically(folder / PARQUET, buffer.getvalue())
    return folder / PARQUET


def merge(sources: Iterable[str | os.PathLike[str]], target: str | os.PathLike[str]) -> Path:
    """Return a result folder with the runs of several.

    A run that several have is taken from the first in which it was completed, or else from the
    first.

    Parameters
    ----------
    sources
        Result folders, left as they are.
    target
        Result folder, made if there is none; runs that it has count as those of the first.

    Raises
    ------
    FormatError
        A source is no result folder or holds a damaged record, the runs are of two suites of the
        same name and version, or the target cannot be written.
    """
    given = [result_folder(source) for source in sources]
    records_of = [(folder, read_records(folder)) for folder in given]
    folder = open_folder(target)
    with sole_writer(folder):
        kept = {record.key: record for record in read_records(folder)}
        one_instance_each(folder, [*kept.values(), *(r for _, own in records_of for r in own)])
        for source, records in records_of:
            for name in ("instances", "suites", "online"):
                there = source / name  # folders of earlier versions lack the last
                for file in there.iterdir() if there.is_dir() else ():
                    if not file.name.startswith(".") and not (folder / name / file.name).exists():
                        write_atomically(folder / name / file.name, read_bytes(file))
            for record in records:
                held = kept.get(record.key)
                if held is not None and not (
                    held.status != Status.COMPLETED and record.status == Status.COMPLETED
                ):
                    continue
                solution = read_bytes(source / record.solution) if record.solution else None
                write_record(folder, record, solution)
                kept[record.key] = record
        collect(folder)
    return folder


def one_instance_each(folder: Path, records: Iterable[Record]) -> dict[Place, str]:
    """Return the hash of the instance by suite, version, class, seed and path.

    Parameters
    ----------
    folder
        What the message is about.
    records
        Of one folder, or to be joined in one.

    Raises
    ------
    FormatError
        One stands for two instances: the suite was edited under the same name and version.
    """
    known: dict[Place, str] = {}
    for r in records:
        place = (r.suite, r.suite_version, r.instance_class, r.instance_seed, r.path)
        if known.setdefault(place, r.instance_hash) != r.instance_hash:
            raise FormatError(folder, edited(place, known[place], r.instance_hash))
    return known


def solution_path(key: str) -> str:
    """Return where a run's solution is, within the result folder."""
    return f"solutions/{key}.npz"


def instance_path(folder: Path, instance_hash: str) -> Path:
    """Return where an instance is."""
    return folder / "instances" / f"{instance_hash}.npz"


def remove_rates(folder: Path) -> None:
    """Delete the rate tables kept for runs to come."""
    shutil.rmtree(folder / "rates", ignore_errors=True)


def edited(place: Place, before: str, now: str) -> str:
    """Return what to say of a suite that was edited under the same name and version."""
    suite, version, instance_class, seed, path = place
    return (
        f"has runs of suite {suite!r} version {version}, class {instance_class!r}, "
        f"{drawn_from(seed, path)}, on the instances {before[:12]} and {now[:12]}; an edited suite "
        "takes a new version, or another folder"
    )


def _order(record: Record) -> tuple[Any, ...]:
    return (
        record.suite, record.suite_version, record.instance_class, record.instance_seed,
        -1 if record.path is None else record.path,
        record.label, record.method, record.options, record.seed, record.key,
    )  # fmt: skip


def _column_value(value: Any) -> Any:
    return list(value.items()) if isinstance(value, dict) else value


def _arrow_type(kind: Any) -> Any:
    import pyarrow

    if isinstance(kind, types.UnionType):
        return _arrow_type(next(k for k in typing.get_args(kind) if k is not types.NoneType))
    plain = {
        bool: pyarrow.bool_(),
        int: pyarrow.int64(),
        float: pyarrow.float64(),
        str: pyarrow.string(),
    }
    if kind in plain:
        return plain[kind]
    parts = typing.get_args(kind)
    if typing.get_origin(kind) is not tuple:
        return pyarrow.map_(pyarrow.string(), pyarrow.string())
    inner = parts[0]
    if typing.get_origin(inner) is tuple:  # a point of the trace: time, delay, bound
        return pyarrow.list_(pyarrow.list_(pyarrow.float64()))
    return pyarrow.list_(_arrow_type(inner))
