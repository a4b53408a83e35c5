"""Where the shipped data files are: beside the packages in a checkout, inside them in a wheel."""

from __future__ import annotations

import os
from pathlib import Path

from finecast.problem.files import FormatError

_HERE = Path(__file__).resolve().parent
FOLDERS = (_HERE.parent / "data", _HERE / "data")


def find(path: str | os.PathLike[str]) -> Path:
    """Return `path`, or the shipped file that it names when there is no such file here.

    `data/scenarios/vision-small.toml` thus works from any folder.

    Raises
    ------
    FormatError
        Neither exists; says where it looked.
    """
    if not os.fspath(path):
        raise FormatError("''", "is empty, expected a file name")
    given = Path(path)
    if given.exists():
        return given
    looked = []
    if given.parts and given.parts[0] == "data":
        for folder in FOLDERS:
            shipped = folder.joinpath(*given.parts[1:])
            if shipped.exists():
                return shipped
            looked.append(str(folder))
    where = f", nor among the shipped files in {' or '.join(looked)}" if looked else ""
    raise FormatError(path, f"no such file{where}")
