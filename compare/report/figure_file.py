"""A sweep or training runs as a file for a paper."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finecast.compare.report.figure import KEYS, UNITS, sweep_figure
from finecast.compare.report.paper_curves import AMOUNTS, VALUES, curves_csv, learning_curves
from finecast.problem.files import FormatError, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SUFFIXES = (".pdf", ".svg", ".png", ".pgf", ".csv")

DPI = 300
"""Of a PNG."""


def write_figure(
    folders: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    metric: str = "",
    x: str = "",
    panels: str = "",
    where: Mapping[str, Any] | None = None,
    methods: Sequence[str] = (),
    columns: Literal["one", "two"] = "one",
    log: Literal["", "x", "y", "xy"] = "",
) -> list[str]:
    """Draw a sweep or training runs; the same input gives the same bytes.

    Points are means over seeds with 95 % intervals.

    Parameters
    ----------
    folders
        The result folder of a sweep, or the folders of training runs.
    path
        File to write: .pdf, .svg, .png, .pgf (where LaTeX is installed), or .csv for the points.
    metric
        Of a sweep: a number of its rows such as `delay` (the default), `p95_completion`,
        `request_hit_ratio`, or `gap_to_best`. Of training runs: `held_out_gap` (the default),
        `held_out_delay` or `held_out_against_rolling`.
    x
        Of a sweep: the key across. Of training runs: `step` (the default), `cpu_s` or `train_s`.
    panels, where, methods
        As in `finecast.compare.report.figure.sweep_figure`.
    columns
        Width: one column of a two-column page, 3.5 inches, or both, 7.16 inches.
    log
        Axes with a logarithmic scale.

    Returns
    -------
    What was drawn, in a line, and a line for everything that was left out.

    Raises
    ------
    FormatError
        A folder has neither, the ending is unknown, or the file cannot be written.
    ValueError
        A metric, key, value or method is unknown.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise FormatError(target, f"has the ending {suffix!r}, expected {', '.join(SUFFIXES)}")
    several = [folders] if isinstance(folders, str | os.PathLike) else list(folders)
    for folder in several:
        if not Path(folder).is_dir():
            raise FormatError(folder, "is no folder of a sweep or a training run")
    if suffix == ".pgf" and not _latex():
        raise FormatError(target, "PGF needs LaTeX (xelatex, lualatex or pdflatex), use .pdf")
    if all((Path(folder) / "policy.json").exists() for folder in several):
        return _write_curves(several, target, metric or "held_out_gap", x or "step", columns, log)
    if len(several) > 1:
        raise ValueError(f"folders: one sweep is expected, {len(several)} folders are given")
    found = sweep_figure(
        Path(several[0]), metric or "delay", x=x, panels=panels, where=where, methods=methods
    )
    if suffix == ".csv":
        write_atomically(target, found.csv().encode())
    else:
        from finecast.compare.report.paper import sweep_picture

        label = UNITS.get(found.metric, found.metric.replace("_", " "))
        across = KEYS.get(found.key, found.key)
        _save(sweep_picture(found, x_label=across, y_label=label, columns=columns, log=log), target)
    counts = sorted({point.value.count for point in found.points})
    instances = " to ".join(map(str, dict.fromkeys((counts[0], counts[-1]))))
    first = f"{target}: {found.metric} over {found.key}, {instances} instances a point"
    return [f"{first}, 95 % intervals", *(f"note: {note}" for note in found.notes)]


def _write_curves(
    folders: Sequence[str | os.PathLike[str]],
    target: Path,
    metric: str,
    amount: str,
    columns: str,
    log: str,
) -> list[str]:
    """Write learning curves, and return what was drawn."""
    curves = learning_curves([Path(folder) for folder in folders], metric, amount)
    if target.suffix.lower() == ".csv":
        write_atomically(target, curves_csv(curves, metric, amount).encode())
    else:
        from finecast.compare.report.paper import curves_picture

        labels = {"x_label": AMOUNTS[amount], "y_label": VALUES[metric]}
        _save(curves_picture(curves, **labels, columns=columns, log=log), target)
    seeds = ", ".join(f"{curve.label} {curve.seeds} seeds" for curve in curves)
    return [f"{target}: {metric} over {AMOUNTS[amount]}; {seeds}; 95 % intervals over seeds"]


def _latex() -> bool:
    """Return whether LaTeX is there, which measures the texts of a PGF figure."""
    import shutil

    return any(shutil.which(name) for name in ("xelatex", "lualatex", "pdflatex"))


def _save(picture: Figure, target: Path) -> None:
    """Write a figure, whole or not at all, without a date."""
    from matplotlib import rc_context

    from finecast.compare.report.paper import STYLE
    from finecast.pictures.style import picture_bytes

    with rc_context(STYLE):
        content = picture_bytes(picture, target.suffix.lower(), dpi=DPI)
    write_atomically(target, content)
