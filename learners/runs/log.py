"""The log of a run: one JSON object a line, and TensorBoard events if wanted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from finecast.problem.files import (
    LARGEST_TEXT_BYTES,
    FormatError,
    read_bytes,
    write_atomically,
)

LOG = "log.jsonl"


class Log:
    """Rows of a run, added as it goes; a resumed run drops what came after its state.

    Parameters
    ----------
    folder
        Of the run.
    step
        Of the state that the run goes on from; rows of later steps are dropped. None: all are.
    tensorboard
        Write events too.

    Raises
    ------
    FormatError
        The log cannot be read or written.
    ValueError
        TensorBoard is not installed.
    """

    def __init__(self, folder: Path, step: int | None, tensorboard: bool = False) -> None:
        self.path = folder / LOG
        kept = [] if step is None else [row for row in read_log(folder) if row["step"] <= step]
        text = "".join(json.dumps(row) + "\n" for row in kept)
        write_atomically(self.path, text.encode())
        self._stream = self.path.open("a", encoding="utf-8")
        self._events = _events(folder, step or 0) if tensorboard else None

    def __enter__(self) -> Log:
        """Return the log."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self._stream.close()
        if self._events is not None:
            self._events.close()

    def add(self, row: Mapping[str, float]) -> None:
        """Add a row; it has at least `step`.

        Raises
        ------
        FormatError
            It cannot be written.
        """
        try:
            self._stream.write(json.dumps(dict(row)) + "\n")
            self._stream.flush()
        except OSError as error:
            raise FormatError(self.path, f"cannot be written: {error.strerror}") from None
        if self._events is not None:
            for name, value in row.items():
                self._events.add_scalar(name, value, int(row["step"]))


def read_log(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of a run; a last line that a killed run left half written is dropped.

    Raises
    ------
    FormatError
        The log cannot be read, or a line before the last is no row.
    """
    path = folder / LOG
    if not path.exists():
        return []
    rows = []
    lines = read_bytes(path, LARGEST_TEXT_BYTES).decode("utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if isinstance(row, dict) and type(row.get("step")) is int:
            rows.append(row)
        elif number < len(lines):
            raise FormatError(path, f"line {number} is no row with a step")
    return rows


def _events(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError(
            "tensorboard: is not installed; pip install 'finecast[tensorboard]'"
        ) from None
    return SummaryWriter(str(folder), purge_step=step)
