"""Files: written whole or not at all, read without trust, told apart by format and version.

Arrays travel in `.npz` archives without pickles. One entry, `header`, is a JSON text with
`format`, `version`, `finecast_version` and `content_hash`; the rest are the arrays.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import stat
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from finecast.problem.version import FINECAST_VERSION

LARGEST_FILE_BYTES = 2 * 2**30
"""Most bytes of a file, and of the arrays in an archive: more is refused before it is read."""

LARGEST_TEXT_BYTES = 256 * 2**20
"""Most bytes of a text file (TOML, JSON, CSV), whose values take several times its size."""

DEEPEST = 100
"""Most levels of lists and tables within one another that a text file may have."""

_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""What NumPy writes. Other packings may inflate without a limit."""


class FormatError(ValueError):
    """A file is missing, truncated, foreign, corrupt or of a newer version; says which and why."""

    def __init__(self, path: str | os.PathLike[str], what: str) -> None:
        self.path = Path(path)
        super().__init__(f"{self.path}: {what}")


def write_atomically(path: str | os.PathLike[str], content: bytes) -> None:
    """Write to a temporary file beside `path`, then rename: a killed write leaves the old file.

    Raises
    ------
    FormatError
        The folder does not exist or is not writable, or `path` is there and no ordinary file.
    """
    target = Path(path)
    if target.is_dir():
        raise FormatError(target, "is a directory, expected a file name")
    if target.exists() and not target.is_file():  # a rename would replace /dev/null itself
        raise FormatError(target, "is a device or pipe, expected a file name")
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise FormatError(target, f"cannot be written: {error.strerror}") from None
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        raise FormatError(target, f"cannot be written: {error.strerror}") from None
    finally:
        Path(temporary).unlink(missing_ok=True)


@contextmanager
def sole_writer(folder: Path, writer: str) -> Iterator[None]:
    """Hold a folder alone; the operating system lets go of it when the process dies.

    Parameters
    ----------
    folder
        Exists; a file `.lock` stays in it.
    writer
        What holds it, for the message to another one.

    Raises
    ------
    FormatError
        Another process is writing to it, or it cannot be written.
    """
    try:
        import fcntl
    except ImportError:  # no such locks on this system
        yield
        return
    try:
        lock = open_lock(folder / ".lock")
    except OSError as error:
        raise FormatError(folder, f"cannot be written: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FormatError(folder, f"another {writer} is writing to it") from None
        except OSError as error:  # some network file systems have none
            warnings.warn(f"{folder}: cannot be locked: {error.strerror}", stacklevel=2)
        yield


def open_lock(path: Path) -> IO[str]:
    """Return an open file to lock, made if there is none; a pipe of that name is not waited for.

    Raises
    ------
    FormatError
        The path is a device, a pipe or a socket.
    OSError
        It cannot be opened.
    """
    if path.exists() and not path.is_file():
        raise FormatError(path, "is a device, pipe or folder, expected a regular file")
    return path.open("a")


def remove_temporaries(folder: Path, *names: str) -> None:
    """Delete what a killed `write_atomically` left of files of these names, such as `*.json`.

    Only the sole writer of a folder may do so.
    """
    for name in names:
        for left in folder.glob(f".{name}.*"):
            left.unlink(missing_ok=True)


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever a reader raises into one line that names the file.

    Parameters
    ----------
    path
        The file that is read. A `FormatError` about another file passes as it is.

    Raises
    ------
    FormatError
        In place of any other error.
    """
    try:
        yield
    except FormatError:
        raise
    except MemoryError:
        raise FormatError(path, "does not fit in memory") from None
    except RecursionError:
        raise FormatError(path, "is nested too deeply") from None
    except KeyError as error:
        raise FormatError(path, f"entry {error} is missing") from None
    except (ValueError, OSError) as error:
        raise FormatError(path, one_line(str(error)) or type(error).__name__) from None
    except Exception as error:
        what = one_line(f"{type(error).__name__}: {error}")
        raise FormatError(path, f"holds what cannot be read ({what})") from None


@contextmanager
def concerning(path: str | os.PathLike[str], *options: str) -> Iterator[None]:
    """Name the file in what is refused of its content after it was read.

    Parameters
    ----------
    path
        The file, or several in one text.
    options
        What a message may name in place of a file: `NAME: ...` or `option ...` pass as they are.

    Raises
    ------
    FormatError
        In place of a `ValueError`; other errors pass.
    """
    try:
        yield
    except FormatError:
        raise
    except ValueError as error:
        subject = str(error).partition(":")[0]
        if subject in options or subject.startswith("option "):
            raise
        raise FormatError(path, one_line(str(error))) from None


def one_line(text: str) -> str:
    """Return a text without line breaks."""
    return " ".join(text.split())


def size_of(path: str | os.PathLike[str], most_bytes: int = LARGEST_FILE_BYTES) -> int:
    """Return the bytes of a regular file, without opening it.

    Raises
    ------
    FormatError
        The file is missing, a folder, a device, a pipe or a socket, or larger than `most_bytes`.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        raise FormatError(path, "no such file") from None
    except (OSError, ValueError) as error:
        raise FormatError(path, f"cannot be read: {error}") from None
    if stat.S_ISDIR(found.st_mode):
        raise FormatError(path, "is a directory, expected a file")
    if not stat.S_ISREG(found.st_mode):
        raise FormatError(path, "is a device, pipe or socket, expected a regular file")
    if found.st_size > most_bytes:
        raise FormatError(path, f"has {found.st_size} bytes, at most {most_bytes} are read")
    return found.st_size


def read_bytes(path: str | os.PathLike[str], most_bytes: int = LARGEST_FILE_BYTES) -> bytes:
    """Return the content of a regular file of at most so many bytes.

    Raises
    ------
    FormatError
        As `size_of`, or the file is unreadable or longer than it says.
    """
    size = size_of(path, most_bytes)
    try:
        with open(path, "rb") as stream:
            content = stream.read(size)
            if stream.read(1):  # such as the files under /proc
                raise FormatError(path, f"is longer than the {size} bytes that it says")
    except MemoryError:
        raise FormatError(path, f"has {size} bytes, which do not fit in memory") from None
    except (OSError, ValueError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(path, f"cannot be read: {error}") from None
    return content


def read_text(path: str | os.PathLike[str], encoding: str = "utf-8") -> str:
    """Return a text file of at most `LARGEST_TEXT_BYTES`.

    Raises
    ------
    FormatError
        As `read_bytes`, or it is not UTF-8.
    """
    try:
        return read_bytes(path, LARGEST_TEXT_BYTES).decode(encoding)
    except UnicodeDecodeError as error:
        raise FormatError(path, f"is not a text in UTF-8: {error}") from None


def read_json(path: str | os.PathLike[str]) -> Any:
    """Return the parsed JSON of a file; NaN and infinities are refused.

    Raises
    ------
    FormatError
        The file cannot be read or is not JSON.
    """
    text = read_text(path)
    try:
        return parse_json(text)
    except ValueError as error:
        raise FormatError(path, f"not valid JSON: {error}") from None


def parse_json(text: str) -> Any:
    """Return the value of a JSON text that is not to be trusted.

    Raises
    ------
    ValueError
        The text is not JSON, holds NaN, an infinity or half a character, or is nested deeper than
        `DEEPEST`.
    """
    try:
        value = json.loads(text, parse_constant=_finite_number, parse_float=_finite_number)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    refuse_deep(value)
    if "\\u" in text:  # an escape such as \ud800 is half a character, which no output can hold
        _refuse_half_characters(value, "")
    return value


def _refuse_half_characters(value: Any, place: str) -> None:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            where = f"{place}: " if place else ""
            raise ValueError(
                f"{where}{value[:40]!r} is not allowed, has half a character"
            ) from None
    elif isinstance(value, dict):
        for key, inner in value.items():
            _refuse_half_characters(key, place)
            _refuse_half_characters(inner, f"{place}.{key}" if place else key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_half_characters(inner, f"{place}[{index}]")


def refuse_deep(value: Any) -> None:
    """Refuse a value whose lists and tables are nested deeper than `DEEPEST`.

    Raises
    ------
    ValueError
        It is.
    """
    level = [value]
    for _ in range(DEEPEST + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, list | dict)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, list | dict)
        ]
        if not level:
            return
    raise ValueError(f"nested deeper than {DEEPEST} levels")


def is_number(value: object) -> bool:
    """Return whether a value is a number that float64 holds: no truth value, NaN or infinity."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max


def _finite_number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is not allowed, numbers must be finite")
    return number


def content_hash(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of a header and named arrays (names, types, shapes, bytes)."""
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write_archive(
    path: str | os.PathLike[str],
    file_format: str,
    version: int,
    header: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
) -> str:
    """Write an `.npz` archive and return its content hash (of header and arrays, not of versions).

    Raises
    ------
    FormatError
        The file cannot be written.
    """
    digest = content_hash(header, arrays)
    full_header = {
        "format": file_format,
        "version": version,
        "finecast_version": FINECAST_VERSION,
        "content_hash": digest,
        "content": dict(header),
    }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, allow_pickle=False, header=np.array(json.dumps(full_header)), **dict(arrays)
    )
    write_atomically(path, buffer.getvalue())
    return digest


def read_archive(
    path: str | os.PathLike[str],
    file_format: str,
    version: int,
    since: Mapping[str, int] | None = None,
) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Return header content and arrays of an `.npz` archive of ours.

    Parameters
    ----------
    path
        Of the file.
    file_format, version
        What it must be, and the newest version that is read.
    since
        The version that an array came with, by its name; for those of the first version, none.

    Raises
    ------
    FormatError
        The file is missing, truncated, foreign, holds pickles, is of another format or a newer
        version, has an array that its version does not know, or its content does not match its
        hash.
    """
    arrays = read_arrays(path)
    header = _header(path, arrays)
    if header["format"] != file_format:
        raise FormatError(path, f"is a {header['format']!r} file, expected {file_format!r}")
    if header["version"] > version:
        raise FormatError(
            path,
            f"has version {header['version']} of {file_format!r}, written by finecast "
            f"{header.get('finecast_version')}; this finecast reads up to version {version}",
        )
    for name, first in (since or {}).items():
        if name in arrays and header["version"] < first:
            raise FormatError(
                path,
                f"entry {name!r} came with version {first} of {file_format!r}, the file says "
                f"version {header['version']}",
            )
    if content_hash(header["content"], arrays) != header["content_hash"]:
        raise FormatError(path, "content does not match its hash, the file is damaged")
    return header["content"], arrays


def archive_format(path: str | os.PathLike[str]) -> str:
    """Return the format name of an archive of ours.

    Raises
    ------
    FormatError
        As `read_archive`.
    """
    return str(_header(path, read_arrays(path, only=["header"]))["format"])


def _header(path: str | os.PathLike[str], arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    if "header" not in arrays:
        raise FormatError(path, "has no 'header' entry, it is not a finecast file")
    try:
        header = parse_json(str(arrays.pop("header")[()]))
        for key, kind in (
            ("format", str),
            ("version", int),
            ("content", dict),
            ("content_hash", str),
        ):
            if not isinstance(header[key], kind):
                raise TypeError(key)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(path, f"its header is not a finecast header ({error!r})") from None
    return dict(header)


def read_arrays(
    path: str | os.PathLike[str],
    *,
    only: Collection[str] | None = None,
    most_bytes: int = LARGEST_FILE_BYTES,
) -> dict[str, NDArray[Any]]:
    """Return the arrays of any `.npz` archive (or some), refusing pickles and false sizes.

    Parameters
    ----------
    path
        The archive.
    only
        Names of the arrays to read; None for all.
    most_bytes
        Most bytes that these arrays may take together.

    Raises
    ------
    FormatError
        The file is missing, not a zip archive, truncated, declares more than `most_bytes`, or an
        entry is not a plain array.
    """
    content = read_bytes(path)
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            wanted = [info for info in archive.infolist() if only is None or _name_of(info) in only]
            _refuse_large(path, wanted, most_bytes)
            for info in wanted:
                name = _name_of(info)
                if name in arrays:
                    raise FormatError(path, f"entry {name!r} stands twice")
                arrays[name] = _plain_array(path, name, _inflated(path, archive, info))
    except FormatError:
        raise
    except MemoryError:
        raise FormatError(path, "its arrays do not fit in memory") from None
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        what = str(error) or "it ends too early"  # EOFError says nothing
        raise FormatError(path, f"not a readable .npz archive: {what}") from None
    except Exception as error:  # zlib.error and whatever else damaged bytes provoke
        raise FormatError(path, f"damaged .npz archive: {error}") from None
    return arrays


def array_names(path: str | os.PathLike[str]) -> list[str]:
    """Return the names of the arrays in an `.npz` archive, none of which is read.

    Raises
    ------
    FormatError
        The file is missing or not a zip archive.
    """
    with reading(path), zipfile.ZipFile(io.BytesIO(read_bytes(path))) as archive:
        return [_name_of(info) for info in archive.infolist()]


def _name_of(info: zipfile.ZipInfo) -> str:
    return info.filename.removesuffix(".npy")


def _refuse_large(
    path: str | os.PathLike[str], entries: list[zipfile.ZipInfo], most_bytes: int
) -> None:
    """Refuse arrays that take too much, by what the archive declares, before any is read."""
    total = sum(info.file_size for info in entries)
    if total > most_bytes:
        largest = max(entries, key=lambda info: info.file_size)
        raise FormatError(
            path,
            f"entry {_name_of(largest)!r}: {largest.file_size} of {total} "
            f"bytes of arrays, at most {most_bytes} are read",
        )


def _inflated(
    path: str | os.PathLike[str], archive: zipfile.ZipFile, info: zipfile.ZipInfo
) -> bytes:
    """Return an entry, inflated to the size it declares and no further."""
    if info.compress_type not in _PACKINGS:
        raise FormatError(path, f"entry {info.filename!r} is packed in a way that is not read")
    with archive.open(info) as stream:
        member = stream.read(info.file_size)
        if len(member) < info.file_size or stream.read(1):
            raise EOFError
    return member


def _plain_array(path: str | os.PathLike[str], name: str, member: bytes) -> NDArray[Any]:
    stream = io.BytesIO(member)
    major, _ = np.lib.format.read_magic(stream)
    read_header = (
        np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(stream)
    if dtype.hasobject:
        raise FormatError(path, f"entry {name!r} holds pickled objects, which are never loaded")
    declared = dtype.itemsize * int(np.prod([int(n) for n in shape], dtype=object))
    if declared != len(member) - stream.tell():
        raise FormatError(path, f"entry {name!r} is truncated: {declared} bytes declared")
    stream.seek(0)
    return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def json_text(value: dict[str, Any]) -> str:
    """Return one JSON object; numbers that JSON lacks (NaN, infinities) become null."""
    return json.dumps(_plain(value), indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
