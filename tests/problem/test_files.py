"""Files of instances and solutions: whole or not there, and never believed.

A damaged file is refused with one line, or, where the damage lies in a part of the archive that
means nothing (a time stamp), read as what was written. It is never read as something else.
"""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from judge_cases import (
    FIRST,
    MEGABIT_IN_BYTES,
    SECOND,
    SHARED,
    hand_broadcast,
    hand_instance,
    hand_solution,
    rules,
)

from finecast.problem import files
from finecast.problem.evaluation import evaluate
from finecast.problem.files import (
    FormatError,
    archive_format,
    content_hash,
    read_archive,
    read_arrays,
    read_bytes,
    read_json,
    write_archive,
    write_atomically,
)
from finecast.problem.instance import read_instance, write_instance
from finecast.problem.solution import Solution, read_solution, write_solution

INSTANCE = hand_instance()
SOLUTION = hand_solution(hand_broadcast(SHARED, FIRST, SECOND))

Kind = tuple[Callable[..., str], Callable[..., Any], Any]
KINDS: dict[str, Kind] = {
    "instance": (write_instance, read_instance, INSTANCE),
    "solution": (write_solution, read_solution, SOLUTION),
}
both_kinds = pytest.mark.parametrize("kind", sorted(KINDS))
either_kind = st.sampled_from(sorted(KINDS))


def assert_refused(read: Callable[..., Any], path: Path, message: str | None = None) -> None:
    """Check for one line that starts with the file and says more."""
    with pytest.raises(FormatError, match=message) as caught:
        read(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text) > len(f"{path}: ") + 10
    assert not text.endswith((": ", ":"))
    assert "\n" not in text


def bytes_of(kind: str, folder: Path) -> bytes:
    """Return what a file of the kind looks like."""
    write, _, content = KINDS[kind]
    write(folder / "whole.npz", content)
    return (folder / "whole.npz").read_bytes()


# ---- damaged


@both_kinds
def test_a_truncated_file(kind: str, tmp_path: Path) -> None:
    """Cut at many places, before the first byte and just before the last, it is refused."""
    _, read, _ = KINDS[kind]
    whole = bytes_of(kind, tmp_path)
    path = tmp_path / "cut.npz"
    for length in [*range(0, len(whole), 37), len(whole) - 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        assert_refused(read, path)


@settings(max_examples=250, deadline=None)
@given(
    either_kind,
    st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=3),
)
def test_flipped_bytes(
    tmp_path_factory: pytest.TempPathFactory, kind: str, flips: list[tuple[int, int]]
) -> None:
    """Up to three bytes changed anywhere: refused, or read as what was written."""
    write, read, content = KINDS[kind]
    folder = tmp_path_factory.mktemp("flip")
    damaged = bytearray(bytes_of(kind, folder))
    for position, mask in flips:
        damaged[position % len(damaged)] ^= mask
    path = folder / "flipped.npz"
    path.write_bytes(damaged)
    try:
        again = read(path)
    except FormatError:
        assert_refused(read, path)
    else:
        assert write(folder / "again.npz", again) == write(folder / "whole.npz", content)


@settings(max_examples=100, deadline=None)
@given(either_kind, st.binary(max_size=200), st.booleans())
def test_any_bytes(
    tmp_path_factory: pytest.TempPathFactory, kind: str, content: bytes, zipped: bool
) -> None:
    """Bytes of no meaning, bare or as the header of a zip archive: refused."""
    path = tmp_path_factory.mktemp("any") / "any.npz"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("header.npy", content)
    else:
        path.write_bytes(content)
    assert_refused(KINDS[kind][1], path)


# ---- foreign


@both_kinds
def test_missing_directory_and_empty(kind: str, tmp_path: Path) -> None:
    """Three ways of not being a file with something in it, each in its own words."""
    read = KINDS[kind][1]
    assert_refused(read, tmp_path / "nowhere.npz", "no such file")
    assert_refused(read, tmp_path, "is a directory, expected a file")
    (tmp_path / "empty.npz").write_bytes(b"")
    assert_refused(read, tmp_path / "empty.npz", r"not a readable \.npz archive")


def _npz(path: Path, **entries: Any) -> Path:
    np.savez(path, **entries)
    return path


@both_kinds
def test_a_foreign_npz(kind: str, tmp_path: Path) -> None:
    """Somebody else's arrays; a header that is an array, no JSON, no object, or lacks a field."""
    read = KINDS[kind][1]
    path = tmp_path / "foreign.npz"
    assert_refused(read, _npz(path, x=np.arange(3)), "has no 'header' entry")
    complete = {"format": "f", "version": 1, "content": {}, "content_hash": ""}
    for header in (
        np.arange(3),
        "no json",
        "[1, 2]",
        "3",
        "null",
        '{"format": 3}',
        "[" * 10**5,
        "1" * 5000,
        *(json.dumps({k: v for k, v in complete.items() if k != gone}) for gone in complete),
        json.dumps(complete | {"version": "1"}),
        json.dumps(complete | {"content": []}),
    ):
        assert_refused(read, _npz(path, header=header), "its header is not a finecast header")


def test_another_format(tmp_path: Path) -> None:
    """A solution in place of an instance and the reverse: both names are said."""
    path = tmp_path / "other.npz"
    write_solution(path, SOLUTION)
    assert_refused(read_instance, path, "is a 'finecast-solution' file, expected 'finecast-inst")
    assert archive_format(path) == "finecast-solution"
    write_instance(path, INSTANCE)
    assert_refused(read_solution, path, "is a 'finecast-instance' file, expected 'finecast-solu")
    assert archive_format(path) == "finecast-instance"


@both_kinds
def test_a_newer_version(kind: str, tmp_path: Path) -> None:
    """A file of a later version names it, who wrote it, and what this finecast reads."""
    _, read, _ = KINDS[kind]
    bytes_of(kind, tmp_path)
    header, arrays = read_archive(tmp_path / "whole.npz", f"finecast-{kind}", 9)
    write_archive(tmp_path / "new.npz", f"finecast-{kind}", 9, header, arrays)
    assert_refused(
        read, tmp_path / "new.npz", r"has version 9 of .* written by finecast .* up to version [12]"
    )


@both_kinds
def test_a_file_of_version_1(kind: str, tmp_path: Path) -> None:
    """A file written before there were areas is read, an instance written again with its hash.

    The file was made by the program of that time, of the same hand-made instance and solution.
    """
    write, read, content = KINDS[kind]
    old = Path(__file__).parent / "files" / f"{kind}-1.npz"
    assert write(tmp_path / "again.npz", read(old)) == write(tmp_path / "now.npz", content)
    header = json.loads(str(read_arrays(tmp_path / "again.npz")["header"]))
    assert header["version"] == {"instance": 1, "solution": 2}[kind]
    if kind == "instance":
        before = json.loads(str(read_arrays(old)["header"]))
        assert header["content_hash"] == before["content_hash"]


@both_kinds
def test_areas_in_a_file_of_version_1(kind: str, tmp_path: Path) -> None:
    """Areas came with version 2: a file that has them and says version 1 is none of ours."""
    _, read, _ = KINDS[kind]
    entry, area = {"instance": ("areas", [0, 1]), "solution": ("area", [-1, 0, 1])}[kind]
    old = Path(__file__).parent / "files" / f"{kind}-1.npz"
    header, arrays = read_archive(old, f"finecast-{kind}", 1)
    arrays[entry] = np.array(area)
    path = tmp_path / "areas.npz"
    write_archive(path, f"finecast-{kind}", 1, header, arrays)
    assert_refused(read, path, f"entry '{entry}' came with version 2 of 'finecast-{kind}', .* 1")


class _Mischief:
    """Unpickling it leaves a trace."""

    def __init__(self, trace: Path) -> None:
        self.trace = str(trace)

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.trace,)


@both_kinds
@pytest.mark.parametrize("entry", ["header", "cache", "requests", "stowaway"])
def test_a_pickle_is_never_loaded(kind: str, entry: str, tmp_path: Path) -> None:
    """An object array in any entry, even one that nobody reads, is refused and not executed."""
    bytes_of(kind, tmp_path)
    arrays = dict(read_arrays(tmp_path / "whole.npz"))
    trace = tmp_path / "trace"
    arrays[entry] = np.array([_Mischief(trace)], dtype=object)
    path = _npz(tmp_path / "pickle.npz", **arrays)
    assert_refused(KINDS[kind][1], path, f"entry '{entry}' holds pickled objects")
    assert not trace.exists()


def test_a_bare_pickle_is_never_loaded(tmp_path: Path) -> None:
    """As a file of its own, and as the bytes of an archive member."""
    trace, path = tmp_path / "trace", tmp_path / "p.npz"
    path.write_bytes(pickle.dumps(_Mischief(trace)))
    assert_refused(read_instance, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("header.npy", pickle.dumps(_Mischief(trace)))
    assert_refused(read_instance, path)
    assert not trace.exists()


def test_an_entry_that_declares_more_than_it_has(tmp_path: Path) -> None:
    """A header that promises a terabyte is refused before any memory is asked for."""
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        member, {"descr": "<f8", "fortran_order": False, "shape": (2**37,)}
    )
    path = tmp_path / "large.npz"
    for shape_bytes in (member.getvalue(), member.getvalue() + b"\0" * 64):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", shape_bytes)
        assert_refused(read_arrays, path, "entry 'x' is truncated")


def test_an_archive_that_declares_too_much(tmp_path: Path) -> None:
    """More bytes than a file of ours can have, well compressed: refused before it is unpacked."""
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, small=np.zeros(3), x=np.zeros(1000))
    words = "entry 'x': 8128 of 8280 bytes of arrays, at most 1000 are read"
    assert_refused(partial(read_arrays, most_bytes=1000), path, words)


def test_a_changed_array_does_not_match_the_hash(tmp_path: Path) -> None:
    """Somebody edits the storage of an instance with NumPy and forgets the hash."""
    write_instance(tmp_path / "a.npz", INSTANCE)
    arrays = dict(read_arrays(tmp_path / "a.npz"))
    arrays["storage"] = arrays["storage"] + 1
    path = _npz(tmp_path / "b.npz", **arrays)
    assert_refused(read_instance, path, "content does not match its hash")


def test_the_hash_tells_contents_apart() -> None:
    """Names, types, shapes and bytes count; the order of the arrays does not."""
    x = np.arange(6)
    hashes = [
        content_hash({}, {"x": x}),
        content_hash({}, {"y": x}),
        content_hash({"a": 1}, {"x": x}),
        content_hash({}, {"x": x.reshape(2, 3)}),
        content_hash({}, {"x": x.astype(np.uint64)}),
        content_hash({}, {"x": x + 1}),
        content_hash({}, {"x": x, "y": x}),
    ]
    assert len(set(hashes)) == len(hashes)
    assert content_hash({"a": 1, "b": 2}, {"x": x, "y": x[:2]}) == content_hash(
        {"b": 2, "a": 1}, {"y": x[:2], "x": x}
    )
    columns = np.asfortranarray(x.reshape(2, 3))
    assert content_hash({}, {"x": columns}) == content_hash({}, {"x": x.reshape(2, 3)})


# ---- written whole or not at all


@both_kinds
def test_writing_where_there_is_no_place(kind: str, tmp_path: Path) -> None:
    """A folder that is missing, a folder in place of the file, a file in place of the folder."""
    write, _, content = KINDS[kind]

    def attempt(path: Path) -> None:
        write(path, content)

    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("mine")
    assert_refused(attempt, tmp_path / "missing" / "a.npz", "cannot be written: No such file")
    assert_refused(attempt, tmp_path / "folder", "is a directory, expected a file name")
    assert_refused(attempt, tmp_path / "file" / "a.npz", "cannot be written: Not a directory")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "mine"


def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    """A rename would put a file where a pipe (or, for the super-user, /dev/null) was."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert_refused(lambda path: write_atomically(path, b"x"), pipe, "is a device or pipe")
    assert pipe.is_fifo()


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize("before", [None, b"the old file"])
def test_a_full_disk_leaves_the_old_file(
    step: str, before: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever step of a write fails, the old file is whole and nothing else lies about."""
    path = tmp_path / "s.npz"
    if before is not None:
        path.write_bytes(before)

    def no_space(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files.os, step, no_space)
    with pytest.raises(FormatError, match="cannot be written: No space left on device"):
        write_solution(path, SOLUTION)
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == (["s.npz"] if before is not None else [])
    assert before is None or path.read_bytes() == before


def test_a_disk_that_fills_up_while_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the bytes go out before the disk is full: no half file is left."""
    path = tmp_path / "s.npz"
    path.write_bytes(b"the old file")
    really_open = os.fdopen

    def open_small(handle: int, mode: str) -> Any:
        stream = really_open(handle, mode)
        whole_write = stream.write

        class Small:
            def __enter__(self) -> Small:
                return self

            def __exit__(self, *_: object) -> None:
                stream.close()

            def write(self, content: bytes) -> int:
                whole_write(content[: len(content) // 2])
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return Small()

    monkeypatch.setattr(files.os, "fdopen", open_small)
    with pytest.raises(FormatError, match="No space left on device"):
        write_solution(path, SOLUTION)
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]
    assert path.read_bytes() == b"the old file"


def test_a_pipe_in_place_of_a_lock_is_not_waited_for(tmp_path: Path) -> None:
    """Whoever opens a pipe to write waits for a reader."""
    os.mkfifo(tmp_path / ".lock")
    with (
        pytest.raises(FormatError, match=r"\.lock: is a device, pipe"),
        files.sole_writer(tmp_path, "test"),
    ):
        raise AssertionError


def test_an_interrupted_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C between writing and renaming: it goes through, and nothing is left lying about."""
    path = tmp_path / "s.npz"
    path.write_bytes(b"the old file")

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_solution(path, SOLUTION)
    assert [p.name for p in tmp_path.iterdir()] == ["s.npz"]
    assert path.read_bytes() == b"the old file"


def test_overwriting_and_permissions(tmp_path: Path) -> None:
    """A second write replaces the first; the file is as readable as any other new file."""
    path, ordinary = tmp_path / "x", tmp_path / "ordinary"
    write_atomically(path, b"first")
    write_atomically(path, b"second")
    ordinary.write_bytes(b"")
    assert read_bytes(path) == b"second"
    assert path.stat().st_mode == ordinary.stat().st_mode


# ---- JSON


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b'{"x": NaN}', "NaN is not allowed"),
        (b"[-Infinity]", "-Infinity is not allowed"),
        (b"\xff\xfe", "is not a text in UTF-8"),
        (b"[" * 10**5, "not valid JSON"),
        (b"1" * 5000, "not valid JSON"),
    ],
)
def test_bad_json(text: bytes, message: str, tmp_path: Path) -> None:
    """Malformed, not finite, no UTF-8, nested without end, a number without end."""
    path = tmp_path / "x.json"
    path.write_bytes(text)
    assert_refused(read_json, path, message)


# ---- a tampered solution with a hash that is right is found by the judge


def _tampered(
    path: Path, name: str, index: int, byte: int, mask: int, solution: Solution = SOLUTION
) -> Solution:
    """Return the solution after one byte of one of its arrays was changed on disk."""
    write_solution(path, solution)
    header, arrays = read_archive(path, "finecast-solution", 2)
    changed = arrays[name].copy()
    changed.reshape(-1).view(np.uint8)[index * changed.itemsize + byte] ^= mask
    write_archive(path, "finecast-solution", 2, header, arrays | {name: changed})
    return read_solution(path)


@pytest.mark.parametrize(
    ("name", "index", "byte", "mask", "rule"),
    [
        ("cache", 0, 0, 0x80, "cooperation"),  # node 0 drops block 0, which it sends
        ("cache", 1, 0, 0x20, "cooperation"),  # node 1 drops block 2, which it sends
        ("cache", 0, 0, 0x20, "storage"),  # node 0 caches block 2 as well
        ("cache", 1, 0, 0x40, "storage"),  # node 1 caches block 1 as well
        ("rate", 0, 4, 1, "rate"),  # 4 Mbit/s and one in a million more
        ("rate", 1, 7, 0x40, "bits"),  # the exponent: practically no rate
        ("duration", 2, 6, 0x20, "bits"),  # a quarter of the time
        ("beam", 0, 7, 0x7F, "power"),  # the exponent of node 0's amplitude
        ("beam", 1, 7, 0x80, "rate"),  # the sign of node 1's: the nodes cancel each other out
        ("users", 1, 0, 1, "coverage"),  # user 0 does not hear the shared message
        ("users", 5, 0, 1, "group"),  # user 1 hears block 1, and user 0 does not
        ("nodes", 1, 0, 1, "beam"),  # node 1 is no longer in the set that sends the shared block
        ("block", 0, 0, 2, "group"),  # the shared message carries block 2, in place of block 0
    ],
)  # fmt: skip
def test_one_changed_byte_in_a_solution_is_found(
    name: str, index: int, byte: int, mask: int, rule: str, tmp_path: Path
) -> None:
    """Cache, source, rate, time, power or message: whoever rewrites the hash meets the judge."""
    assert evaluate(INSTANCE, SOLUTION).feasible
    result = evaluate(INSTANCE, _tampered(tmp_path / "s.npz", name, index, byte, mask))
    assert rule in rules(result)
    assert result.delay == result.realised_delay == np.inf


def test_one_changed_byte_in_a_source_is_found(tmp_path: Path) -> None:
    """Node 1 has block 0 from node 0; one bit later from itself, which caches no such block."""
    solution = hand_solution(
        SOLUTION.broadcasts[0], cache=[[(0, 1), (2,)]], migrations=[(0, 1, 0, 0)]
    )
    assert evaluate(INSTANCE, solution).feasible
    changed = _tampered(tmp_path / "s.npz", "sender", 0, 0, 1, solution)
    assert rules(evaluate(INSTANCE, changed)) == ["migration-source"]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(["rate", "beam", "duration"]),
    st.integers(0, 2),
    st.integers(0, 7),
    st.integers(1, 255),
)
def test_no_changed_byte_makes_a_better_solution(
    tmp_path_factory: pytest.TempPathFactory, name: str, index: int, byte: int, mask: int
) -> None:
    """The hand-made plan is tight: any byte is refused, breaks a rule, or costs time.

    Within the tolerance of 1e-9, by which low bytes of a number can change it.
    """
    try:
        changed = _tampered(tmp_path_factory.mktemp("byte") / "s.npz", name, index, byte, mask)
    except FormatError:
        return
    result = evaluate(INSTANCE, changed)
    assert result.delay >= 1.25 * (1 - 2e-9)


def test_a_byte_less_of_storage_is_found(tmp_path: Path) -> None:
    """The instance's storage shrinks by one byte: the solution that filled it is refused."""
    storage = INSTANCE.network.storage.copy()
    storage[0] -= 1
    assert storage[0] == 2 * MEGABIT_IN_BYTES - 1
    smaller = replace(INSTANCE, network=replace(INSTANCE.network, storage=storage))
    write_instance(tmp_path / "i.npz", smaller)
    write_solution(tmp_path / "s.npz", SOLUTION)
    result = evaluate(read_instance(tmp_path / "i.npz"), read_solution(tmp_path / "s.npz"))
    assert rules(result) == ["storage"]
