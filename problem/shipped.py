"""Shipped data files, found by path or by name.

data/scenarios/tiny.toml    by path, from any folder
tiny                        by name, where a scenario is expected
learning/persist-60         by name, in a folder of the scenarios
"""

from __future__ import annotations

import difflib
import os
from importlib.resources import files
from pathlib import Path

from finecast.problem.files import FormatError

DATA = Path(str(files("finecast"))) / "data"
"""Folder of the shipped files: a link to `data/` in a checkout, a real folder in a wheel."""

KINDS = {
    "scenario": "scenarios/**/*.toml",
    "library": "libraries/*.json",
    "suite": "suites/*.toml",
    "learner": "learners/*.toml",
    "checkpoint": "checkpoints/*",
}
"""Where the shipped files of each kind are; a checkpoint is a folder."""


def shipped(kind: str) -> dict[str, Path]:
    """Return the shipped files of a kind, one of `KINDS`, by name."""
    pattern = KINDS[kind]
    home = DATA / pattern.partition("/")[0]
    paths = sorted(DATA.glob(pattern))
    return {path.relative_to(home).with_suffix("").as_posix(): path for path in paths}


def find(path: str | os.PathLike[str], *kinds: str, folder: Path | None = None) -> Path:
    """Return the file or folder at a path, or the shipped one that the path or name stands for.

    What exists at the path wins over what is shipped.

    Parameters
    ----------
    path
        A path, or the name of a shipped file.
    kinds
        Kinds of shipped files that may be named; of two with one name the first kind counts.
    folder
        Where a relative path starts; the current folder by default.

    Raises
    ------
    FormatError
        There is neither; the nearest shipped name is suggested.

    Examples
    --------
    >>> find("tiny", "scenario").name
    'tiny.toml'
    """
    if not os.fspath(path):
        raise FormatError("''", "is empty, expected a file name")
    given = Path(path) if folder is None else folder / path
    asked = Path(path)
    by_path = DATA.joinpath(*asked.parts[1:])
    try:
        if given.exists():
            return given
    except OSError as error:  # a name too long, or a folder that may not be entered
        raise FormatError(given, f"cannot be read: {error.strerror}") from None
    if asked.parts[:1] == ("data",) and by_path.exists():
        return by_path
    for kind in kinds:
        if asked.as_posix() in shipped(kind):
            return shipped(kind)[asked.as_posix()]
    raise FormatError(given, f"no such file{_hint(asked, kinds)}")


def _hint(asked: Path, kinds: tuple[str, ...]) -> str:
    """Return what to say after "no such file"."""
    names = [name for kind in kinds for name in shipped(kind)]
    in_data = asked.parts[:1] == ("data",)
    word = "/".join(asked.parts[2 if in_data else 0 :]).removesuffix(asked.suffix)
    near = [name for name in names if name.endswith(f"/{word}")]
    near += difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    if names and len(asked.parts) == 1 and not asked.suffix:
        return f", nor a shipped {' or '.join(kinds)}: {', '.join(names)}"
    return ", here or among the shipped files" if in_data else ""
